//! What a proxy says of the calls that it carries and of the callees that they go to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spiffe::id::BotName;

/// The calls of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// How many are under way.
    pub in_flight: u64,
    /// How many there may be: `bounds.calls`.
    pub most: u64,
    /// How many found no room since the start, by what had none: `process`, `caller`, `callee`, `pending`.
    pub shed: BTreeMap<String, u64>,
    /// Whom bots of this host called since the start.
    pub callees: Vec<CalleeCalls>,
}

/// One callee, as this proxy has come to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalleeCalls {
    /// The bot; absent where it is none.
    #[serde(default)]
    pub bot: Option<BotName>,
    /// The destination outside, as the mesh file names it; absent where it is a bot.
    #[serde(default)]
    pub outside: Option<String>,
    /// Calls to it that are under way.
    pub in_flight: u64,
    /// Where its hosts' proxies are; empty where it is on this host.
    pub endpoints: Vec<EndpointCalls>,
    /// Callers whose calls failed one after another, and that are refused for a while (`breaker_open`).
    pub shut_out: Vec<ShutOut>,
    /// How often a call was tried again since the start.
    pub retried: u64,
    /// How often one was not, because the budget for that was used up.
    pub not_retried: u64,
    /// How often an endpoint was left out.
    pub ejected: u64,
    /// How often a caller was shut out.
    pub opened: u64,
}

/// The proxy of one host of a callee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCalls {
    /// Where it is.
    pub address: String,
    /// Calls to it that are under way.
    pub in_flight: u64,
    /// How long it takes to answer: a moving average that loses its weight when nothing is asked.
    pub latency_us: u64,
    /// How often it could not be connected to since it was last.
    pub failures: u32,
    /// For how many milliseconds it is left out; absent where it is used.
    #[serde(default)]
    pub left_out_ms: Option<u64>,
}

/// A caller that is refused for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutOut {
    /// The caller.
    pub from: BotName,
    /// For how many milliseconds.
    pub for_ms: u64,
}
