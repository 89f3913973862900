//! Heads of ledgers: those that were cosigned, and how old the oldest is.

use prometheus::{Error, IntCounterVec, IntGauge};

use super::Making;

/// What is counted of heads.
#[derive(Debug)]
pub(crate) struct HeadMetrics {
    /// `result`: cosigned, or the word of a refusal.
    pub(crate) cosigned: IntCounterVec,
    /// Of all connected hosts.
    pub(crate) cosigned_oldest: IntGauge,
}

impl HeadMetrics {
    pub(super) fn new(made: &Making<'_>) -> Result<Self, Error> {
        Ok(Self {
            cosigned: made.counters(
                "botmesh_ca_heads_total",
                "Heads of hosts' ledgers that were told, by result.",
                &["result"],
            )?,
            cosigned_oldest: made.gauge(
                "botmesh_ca_heads_oldest_timestamp_seconds",
                "When a head was last cosigned of that connected host for which it is longest ago; 0: never.",
            )?,
        })
    }
}
