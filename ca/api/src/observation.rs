//! What a host tells of the calls it saw, beyond the counts in `Edges`: the kinds of `Event` and their JSON.

use serde::{Deserialize, Serialize};
use spiffe::id::BotName;

/// The kind of an `Event` whose JSON is a [`DeniedCall`].
pub const DENIED: &str = "denied";

/// The kind of an `Event` whose JSON is a [`ToldAlert`].
pub const ALERT: &str = "alert";

/// The kind of an `Event` whose JSON is an [`EventsDropped`].
pub const EVENTS_DROPPED: &str = "events_dropped";

/// The longest path in a [`DeniedCall`], in bytes.
pub const PATH_BYTES_MAX: usize = 512;

/// The longest other text in the JSON of an `Event`, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;

/// One refused call, as the proxy that refused it tells it. The record in that host's ledger says more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedCall {
    /// The id of the record, a UUID.
    pub call: String,
    /// `out` at the caller's proxy, `in` at the callee's.
    pub direction: String,
    /// Who called; absent when it is no bot of this trust domain.
    pub from: Option<BotName>,
    /// Who was called; absent when there is no such bot.
    pub to: Option<BotName>,
    /// The destination outside that was called, as the mesh file names it; absent when it names none.
    #[serde(default)]
    pub outside: Option<String>,
    /// The method.
    pub method: String,
    /// The canonical path without its query, cut at [`PATH_BYTES_MAX`].
    pub path: String,
    /// The word of the refusal.
    pub reason: String,
    /// The rule that refused.
    #[serde(default)]
    pub rule: Option<String>,
    /// The nearest rule and what differed from it.
    #[serde(default)]
    pub nearest: Option<String>,
}

/// Something on the host that an operator should look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldAlert {
    /// One word.
    pub reason: String,
    /// One sentence.
    #[serde(default)]
    pub message: String,
}

/// Events that the host had no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsDropped {
    /// How many since the last of these.
    pub count: u64,
}
