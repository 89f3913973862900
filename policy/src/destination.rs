//! What the mesh says of a callee: how long its calls are waited for, how many there may be, how often one is made, and
//! where one outside may be.

use std::sync::Arc;
use std::time::Duration;

use crate::address::AddressRange;

/// What the mesh says of calls to one bot; what it does not say is left to each proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// How long connecting may take, to the bot and to the proxy of its host.
    pub connect_timeout: Option<Duration>,
    /// How long the head of an answer is waited for once nothing of the request moves.
    pub request_timeout: Option<Duration>,
    /// How long a call may last, after the head of its answer, while no byte moves in either direction.
    pub stream_idle: Option<Duration>,
    /// How often a call that may have begun is sent again, where that is the same as once.
    pub retries: Option<u32>,
    /// How many calls may be under way at a time, at each proxy.
    pub max_in_flight: Option<u32>,
    /// How many calls of one caller may wait for a connection.
    pub max_pending: Option<u32>,
    /// After how many failures in a row the calls of one caller are refused for a while; 0 for never.
    pub max_failures: Option<u32>,
}

impl Destination {
    /// Says whether it bounds more than time.
    pub(crate) const fn bounds_calls(&self) -> bool {
        let bounds = self.max_in_flight.is_some() || self.max_pending.is_some() || self.max_failures.is_some();
        // No retry is what hosts did before they knew the word.
        bounds || matches!(self.retries, Some(1..))
    }
}

/// What the mesh says of a destination outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutsideDestination {
    /// How long its calls are waited for.
    pub waits: Destination,
    /// The only addresses that it may have. Where there are none it may have every public one, and no other.
    pub addresses: Vec<AddressRange>,
    /// The certificates, as PEM, that vouch for it in place of the web's authorities.
    pub ca: Option<Arc<str>>,
}

/// One of its times, with the bounds of what may be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) key: &'static str,
    pub(crate) least: (Duration, &'static str),
    pub(crate) most: (Duration, &'static str),
}

/// One of its numbers, with the bounds of what may be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub(crate) key: &'static str,
    pub(crate) least: u32,
    pub(crate) most: u32,
}

/// A second time is as good as a third, and a third is load.
pub(crate) const RETRIES: Number = Number {
    key: "retries",
    least: 0,
    most: 1,
};

/// More than a process carries at a time, so that whoever writes it says "no bound of its own".
pub(crate) const MAX_IN_FLIGHT: Number = Number {
    key: "max_in_flight",
    least: 1,
    most: 100_000,
};

pub(crate) const MAX_PENDING: Number = Number {
    key: "max_pending",
    least: 1,
    most: 100_000,
};

pub(crate) const MAX_FAILURES: Number = Number {
    key: "max_failures",
    least: 0,
    most: 1_000,
};

/// The least wait: shorter ones end calls that nothing is wrong with.
const LEAST: (Duration, &str) = (Duration::from_millis(10), "10ms");

pub(crate) const CONNECT_TIMEOUT: Wait = Wait {
    key: "connect_timeout",
    least: LEAST,
    most: (Duration::from_secs(30), "30s"),
};

pub(crate) const REQUEST_TIMEOUT: Wait = Wait {
    key: "request_timeout",
    least: LEAST,
    most: (Duration::from_secs(3600), "1h"),
};

/// No more than the proxies wait without it.
pub(crate) const STREAM_IDLE: Wait = Wait {
    key: "stream_idle",
    least: (Duration::from_millis(100), "100ms"),
    most: (Duration::from_secs(600), "10m"),
};
