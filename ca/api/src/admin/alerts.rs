//! What the CA noticed about calls that is unlike the days before.

use serde::{Deserialize, Serialize};
use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

/// So many calls in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRate {
    /// Calls.
    pub calls: u64,
    /// Seconds.
    pub seconds: u64,
}

/// One alert. Nothing is done by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchAlert {
    /// Its number since the CA started.
    pub id: u64,
    /// When, by the CA's clock.
    pub time: Timestamp,
    /// One word: `rate_jump`, `first_seen`, `refusal_burst`, or `more_alerts` for those of a host that are too many.
    pub kind: String,
    /// The bot that called.
    pub from: BotName,
    /// A bot, or a destination outside as the mesh file names it; empty where nobody has that name, or it is about many.
    pub to: String,
    /// The rule that carried the calls; empty where there was none.
    pub route: String,
    /// The host that told of them.
    pub host: HostName,
    /// What there was; absent where it is not about how many.
    #[serde(default)]
    pub seen: Option<CallRate>,
    /// What there had been at most in the days before; for two calls, the shortest time between two.
    #[serde(default)]
    pub expected: Option<CallRate>,
    /// Where the newest of the refused calls went; at most 8.
    #[serde(default)]
    pub destinations: Vec<String>,
    /// Alerts that it stands for.
    pub count: u64,
    /// One sentence.
    pub message: String,
    /// What would end it.
    pub command: String,
}

/// The newest alerts, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchAlerts {
    /// They; at most 100 of each host, since the CA started. Its ledger has those before.
    pub alerts: Vec<WatchAlert>,
    /// The number of the newest, to ask for what comes after it.
    pub newest: u64,
}
