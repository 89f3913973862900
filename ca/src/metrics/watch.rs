//! Metrics of what is watched.

use prometheus::{IntCounter, IntGauge};

use super::Making;

/// What is watched, and what is not.
#[derive(Debug)]
pub(crate) struct WatchMetrics {
    pub(crate) routes: IntGauge,
    pub(crate) unwatched: IntCounter,
}

impl WatchMetrics {
    pub(super) fn new(made: &Making<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            routes: made.gauge(
                "botmesh_ca_watched_routes",
                "Destinations and rules of bots whose calls are watched.",
            )?,
            unwatched: made.counter(
                "botmesh_ca_unwatched_calls_total",
                "Calls of routes that had no room to be watched.",
            )?,
        })
    }
}
