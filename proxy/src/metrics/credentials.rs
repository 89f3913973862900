//! How often credentials were read and masked, and what was asked at databases beside the sessions that they began.

use prometheus::{Error, IntCounterVec, IntGaugeVec};

use super::make::{Maker, raise};
use crate::credentials::{Counts, State};

/// Set when the metrics are read. Names are those of the mesh file, which is bounded.
#[derive(Debug)]
pub(super) struct CredentialMetrics {
    masked: IntCounterVec,
    reads: IntCounterVec,
    exchanges: IntCounterVec,
    available: IntGaugeVec,
    leases: IntGaugeVec,
    pub(super) cancels: IntCounterVec,
}

impl CredentialMetrics {
    pub(super) fn new(make: Maker<'_>) -> Result<Self, Error> {
        Ok(Self {
            masked: make.counters(
                "botmesh_credential_masked_total",
                "Answers of services in which a credential was, and was masked.",
                &["credential"],
            )?,
            reads: make.counters(
                "botmesh_credential_reads_total",
                "How often the value of a credential was read, by result.",
                &["credential", "result"],
            )?,
            exchanges: make.counters(
                "botmesh_credential_exchanges_total",
                "How often a credential was exchanged for a token, or a JWT-SVID was signed for it, by result.",
                &["credential", "result"],
            )?,
            available: make.gauges(
                "botmesh_credential_available",
                "Whether the newest attempt to read the value, and to exchange it, went well, for every bot; no series before the first.",
                &["credential"],
            )?,
            cancels: make.counters(
                "botmesh_database_cancels_total",
                "Requests to end a statement of a session with a database, by what came of them.",
                &["result"],
            )?,
            leases: make.gauges(
                "botmesh_credential_leases",
                "Leases that processes of bots have, of credentials that are made for each of them.",
                &["credential"],
            )?,
        })
    }

    /// Credentials that the mesh file names no more have no series.
    pub(super) fn set(&self, states: &[State]) {
        self.available.reset();
        self.leases.reset();
        for state in states {
            let name = state.name.as_str();
            raise(&self.masked.with_label_values(&[name]), state.masked);
            raise(&self.reads.with_label_values(&[name, "ok"]), state.reads_ok);
            raise(&self.reads.with_label_values(&[name, "failed"]), state.reads_failed);
            let token = state.token.as_ref();
            if token.is_some() || state.exchanges != Counts::default() {
                let of = |result: &str| self.exchanges.with_label_values(&[name, result]);
                raise(&of("ok"), state.exchanges.ok);
                raise(&of("failed"), state.exchanges.failed);
            }
            if state.class == "dynamic" {
                let leases = i64::try_from(state.leases).unwrap_or(i64::MAX);
                self.leases.with_label_values(&[name]).set(leases);
            }
            let asked = state.fingerprint.is_some() || state.leases > 0 || !state.bots.is_empty();
            if state.error.is_some() || asked {
                let mut tokens = token.into_iter().chain(state.bots.iter().map(|(_, token)| token));
                let failed = state.error.is_some() || tokens.any(|token| token.error.is_some());
                let available = i64::from(!failed);
                self.available.with_label_values(&[name]).set(available);
            }
        }
    }
}
