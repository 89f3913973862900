//! How long calls to a bot are waited for.

use std::time::Duration;

/// What the mesh says of calls to one bot; what it does not say is left to each proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// How long connecting may take, to the bot and to the proxy of its host.
    pub connect_timeout: Option<Duration>,
    /// How long the head of an answer is waited for once nothing of the request moves.
    pub request_timeout: Option<Duration>,
    /// How long a call may last, after the head of its answer, while no byte moves in either direction.
    pub stream_idle: Option<Duration>,
}

/// One of its times, with the bounds of what may be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) key: &'static str,
    pub(crate) least: (Duration, &'static str),
    pub(crate) most: (Duration, &'static str),
}

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
