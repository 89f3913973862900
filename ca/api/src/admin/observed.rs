//! What hosts have told of the calls they saw: kept in memory for an hour, so that a restart of the CA forgets it. The
//! ledgers of the hosts hold every call.

use serde::{Deserialize, Serialize};
use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

use crate::observation::DeniedCall;

/// How many minutes of counts are kept.
pub const MINUTES_MAX: u64 = 60;

/// Calls of one kind by a bot, to a bot or to a destination outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeCount {
    /// Who called.
    pub from: BotName,
    /// Who was called: a bot by its name, a destination outside as the mesh file names it.
    pub to: String,
    /// The rule that decided; empty when none did.
    pub rule: String,
    /// `allow`, `deny`, `audit`, `limited` or `error`.
    pub verdict: String,
    /// Why it was refused; empty when it was not.
    pub reason: String,
    /// How many in the minutes that were asked about.
    pub count: u64,
    /// When the last of them was told, by the CA's clock.
    pub last: Timestamp,
    /// The hosts that told of them.
    pub hosts: Vec<HostName>,
}

/// Calls of bots, by caller, callee, rule, verdict and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeList {
    /// The counts begin here: so many minutes ago, or when the CA started.
    pub since: Timestamp,
    /// They.
    pub edges: Vec<EdgeCount>,
    /// Edges that somebody had no room for since the CA started: counts are lower bounds then.
    pub dropped: u64,
}

/// One refused call, and who told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// When it was refused, by the clock of the host.
    pub time: Timestamp,
    /// The host that refused it.
    pub host: HostName,
    /// The call.
    pub call: DeniedCall,
}

/// An alert that a host told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldBy {
    /// When, by the clock of the host.
    pub time: Timestamp,
    /// Which.
    pub host: HostName,
    /// One word.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// The newest that hosts told of, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventList {
    /// Refused calls: of one bot where one was asked about.
    pub denied: Vec<Denied>,
    /// Alerts.
    pub alerts: Vec<ToldBy>,
    /// Events that hosts had no room for since the CA started.
    pub dropped: u64,
}
