//! How this host is: its SVIDs, its clock, who is cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{Error, Gauge, IntCounter, IntCounterVec, IntGaugeVec};
use spiffe::id::BotName;
use spiffe::time::Timestamp;

use super::make::{Maker, number, raise};
use crate::control::Counted;
use crate::reason::Reason;

/// Set when the metrics are read.
#[derive(Debug)]
pub(super) struct HostMetrics {
    svid_not_after: IntGaugeVec,
    rotations: IntCounterVec,
    reloads: IntCounterVec,
    skew: Gauge,
    quarantined: IntGaugeVec,
    cut: BTreeMap<Reason, IntCounter>,
}

impl HostMetrics {
    pub(super) fn new(make: Maker<'_>) -> Result<Self, Error> {
        let cut = make.counters(
            "botmesh_streams_cut_total",
            "Calls under way that were ended because they may not go on, by reason.",
            &["reason"],
        )?;
        Ok(Self {
            svid_not_after: make.gauges(
                "botmesh_svid_not_after_timestamp_seconds",
                "When a bot's SVID ends.",
                &["bot"],
            )?,
            rotations: make.counters(
                "botmesh_svid_rotations_total",
                "SVIDs that this host asked its CA for, by result.",
                &["result"],
            )?,
            reloads: make.counters(
                "botmesh_policy_reloads_total",
                "New policies from the CA, by result.",
                &["result"],
            )?,
            skew: make.float(
                "botmesh_clock_skew_seconds",
                "How far the clock of this host was ahead of the CA's when the CA was last heard; below 0: behind.",
            )?,
            quarantined: make.gauges(
                "botmesh_quarantined",
                "How many are cut off on this host, by kind.",
                &["kind"],
            )?,
            cut: Reason::ALL
                .into_iter()
                .map(|reason| (reason, cut.with_label_values(&[reason.as_str()])))
                .collect(),
        })
    }

    /// Replaces what was said of SVIDs: a bot that has left has no series.
    pub(super) fn set_svids(&self, svids: impl Iterator<Item = (BotName, Timestamp)>) {
        self.svid_not_after.reset();
        for (bot, not_after) in svids {
            self.svid_not_after
                .with_label_values(&[bot.as_str()])
                .set(not_after.unix_seconds());
        }
    }

    pub(super) fn set(&self, counted: &Counted, quarantined: [(&str, usize); 3], cut: &BTreeMap<Reason, u64>) {
        for (counters, results) in [
            (
                &self.rotations,
                [("ok", counted.svids_ok), ("failed", counted.svids_failed)],
            ),
            (
                &self.reloads,
                [("ok", counted.slices_applied), ("refused", counted.slices_refused)],
            ),
        ] {
            for (result, count) in results {
                raise(&counters.with_label_values(&[result]), count);
            }
        }
        let skew = Duration::from_millis(counted.skew_ms.unsigned_abs()).as_secs_f64();
        self.skew.set(if counted.skew_ms < 0 { -skew } else { skew });
        for (kind, count) in quarantined {
            self.quarantined.with_label_values(&[kind]).set(number(count as u64));
        }
        for (reason, count) in cut {
            if let Some(counter) = self.cut.get(reason) {
                raise(counter, *count);
            }
        }
    }
}
