//! What is counted of tokens and of those who verify them.

use prometheus::{IntCounterVec, IntGauge};

use crate::metrics::Making;

/// Beside `botmesh_ca_svids_total{kind="jwt"}`, which counts the tokens.
#[derive(Debug)]
pub(crate) struct FederationMetrics {
    /// `document`: discovery, keys, bundle, other. `result`: sent, not_modified, refused.
    pub(crate) requests: IntCounterVec,
    /// `result`: accepted, or why not.
    pub(crate) connections: IntCounterVec,
    pub(crate) keys: IntGauge,
    pub(crate) signs_since: IntGauge,
    pub(crate) certificate_not_after: IntGauge,
}

impl FederationMetrics {
    pub(crate) fn new(made: &Making<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests: made.counters(
                "botmesh_ca_federation_requests_total",
                "Requests for the documents that verify tokens.",
                &["document", "result"],
            )?,
            connections: made.counters(
                "botmesh_ca_federation_connections_total",
                "Connections to the federation endpoint.",
                &["result"],
            )?,
            keys: made.gauge(
                "botmesh_ca_jwt_keys",
                "Keys for JWT-SVIDs that are published; 0 without federation.",
            )?,
            signs_since: made.gauge(
                "botmesh_ca_jwt_key_signs_since_seconds",
                "Unix time since when the key that signs JWT-SVIDs does so; 0 without federation.",
            )?,
            certificate_not_after: made.gauge(
                "botmesh_ca_federation_certificate_not_after_seconds",
                "Unix time when the certificate of the federation endpoint ends; 0 without one.",
            )?,
        })
    }
}
