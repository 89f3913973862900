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
    /// `result`: cosigned, or why a witness outside did not.
    pub(crate) witnessed: IntCounterVec,
    pub(crate) witnesses_away: IntGauge,
    /// Of the CA's own ledger, of all witnesses.
    pub(crate) own_witnessed_oldest: IntGauge,
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
            witnessed: made.counters(
                "botmesh_ca_witnessed_total",
                "Heads of ledgers that witnesses outside were told, by result.",
                &["result"],
            )?,
            witnesses_away: made.gauge(
                "botmesh_ca_witnesses_away",
                "Witnesses that do not answer, or not with what could be used.",
            )?,
            own_witnessed_oldest: made.gauge(
                "botmesh_ca_ledger_witnessed_timestamp_seconds",
                "When the CA's own ledger was last cosigned by that witness for which it is longest ago; 0: never, or no witness.",
            )?,
        })
    }
}
