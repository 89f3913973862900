//! Metrics of what is watched, and who is told.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

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

/// What became of alerts that were to be sent.
#[derive(Clone, Debug)]
pub(crate) struct WebhookMetrics(IntCounterVec);

impl WebhookMetrics {
    pub(super) fn new(made: &Making<'_>) -> Result<Self, prometheus::Error> {
        let counters = made.counters(
            "botmesh_ca_webhook_total",
            "Alerts to the webhook, by result.",
            &["result"],
        )?;
        for result in ["sent", "retried", "failed", "dropped"] {
            counters.with_label_values(&[result]).inc_by(0);
        }
        Ok(Self(counters))
    }

    /// `result`: sent, retried, failed for good, or dropped because too many wait.
    pub(crate) fn count(&self, result: &str) {
        self.0.with_label_values(&[result]).inc();
    }
}
