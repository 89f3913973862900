//! The policy that is in force, and how its rules are used.

use std::collections::BTreeMap;

use policy::{Generation, Mesh, RuleId};
use prometheus::{Error, Histogram, IntGauge, IntGaugeVec};
use spiffe::time::Timestamp;

use super::make::{Maker, number};

/// Upper bounds of the buckets of a decision, in seconds.
const DECISION_BUCKETS: [f64; 10] = [
    0.000_000_25,
    0.000_000_5,
    0.000_001,
    0.000_002,
    0.000_004,
    0.000_008,
    0.000_016,
    0.000_064,
    0.000_256,
    0.001_024,
];

/// The slice that is in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct InForce<'a> {
    pub(super) generation: Generation,
    /// `None` before the first slice.
    pub(super) sha256: Option<[u8; 32]>,
    pub(super) mesh: &'a Mesh,
}

/// All but the durations is set when the metrics are read.
#[derive(Debug)]
pub(super) struct PolicyMetrics {
    info: IntGaugeVec,
    rejected: IntGauge,
    last_used: IntGaugeVec,
    not_after: IntGaugeVec,
    pub(super) decisions: Histogram,
}

impl PolicyMetrics {
    pub(super) fn new(make: Maker<'_>) -> Result<Self, Error> {
        Ok(Self {
            info: make.gauges(
                "botmesh_policy_info",
                "1, labelled with the policy in force and the hash of this host's slice of it.",
                &["epoch", "revision", "sha256"],
            )?,
            rejected: make.gauge(
                "botmesh_policy_rejected_revision",
                "The revision that this host refused last, until a later one is in force; 0 otherwise.",
            )?,
            last_used: make.gauges(
                "botmesh_rule_last_used_timestamp_seconds",
                "When a call that the rule let in last ended, since the start.",
                &["rule"],
            )?,
            not_after: make.gauges(
                "botmesh_rule_not_after_timestamp_seconds",
                "When a rule with an end ends.",
                &["rule"],
            )?,
            decisions: make.histogram(
                "botmesh_policy_decision_duration_seconds",
                "How long the policy takes to decide, of one call in 64.",
                &DECISION_BUCKETS,
            )?,
        })
    }

    /// Replaces what was said of the policy before: a rule that is gone has no series.
    pub(super) fn set(&self, now: InForce<'_>, rejected: u64, used: &BTreeMap<RuleId, Timestamp>) {
        self.info.reset();
        if let Some(sha256) = now.sha256 {
            let (epoch, revision) = (now.generation.epoch.to_string(), now.generation.revision.to_string());
            let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            self.info.with_label_values(&[&epoch, &revision, &sha256]).set(1);
        }
        self.rejected.set(number(rejected));
        self.last_used.reset();
        for (rule, at) in used {
            self.last_used
                .with_label_values(&[rule.as_str()])
                .set(at.unix_seconds());
        }
        self.not_after.reset();
        for (rule, end) in now.mesh.rule_ends() {
            self.not_after
                .with_label_values(&[rule.as_str()])
                .set(end.unix_seconds());
        }
    }
}
