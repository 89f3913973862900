//! How the ledger stands.

use std::collections::BTreeMap;

use audit::Stats;
use prometheus::{Error, IntGauge, IntGaugeVec};

use spiffe::time::Timestamp;

use super::make::{Maker, number};
use crate::control::CosignedHead;

/// Gauges that are set when the metrics are read.
#[derive(Debug)]
pub(super) struct LedgerGauges {
    records: IntGauge,
    epoch: IntGauge,
    cosigned_records: IntGauge,
    cosigned_at: IntGauge,
    witnessed_records: IntGaugeVec,
    witnessed_at: IntGaugeVec,
    pruned: IntGauge,
    held: IntGauge,
    bytes: IntGaugeVec,
    share_bytes: IntGaugeVec,
    dropped: IntGaugeVec,
}

impl LedgerGauges {
    pub(super) fn new(make: Maker<'_>) -> Result<Self, Error> {
        let by_share = |name: &str, help: &str| make.gauges(name, help, &["share"]);
        Ok(Self {
            records: make.gauge("botmesh_ledger_records", "Records in the ledger.")?,
            epoch: make.gauge(
                "botmesh_ledger_epoch",
                "Epoch of the ledger: it begins a new one where it is not what it was.",
            )?,
            cosigned_records: make.gauge(
                "botmesh_ledger_cosigned_records",
                "Records under the newest head of the ledger that the CA cosigned, in this epoch.",
            )?,
            cosigned_at: make.gauge(
                "botmesh_ledger_cosigned_timestamp_seconds",
                "When the CA last cosigned a head of the ledger; 0 where it never has.",
            )?,
            witnessed_records: make.gauges(
                "botmesh_ledger_witnessed_records",
                "Records under the newest head of the ledger that a witness outside cosigned, in this epoch.",
                &["witness"],
            )?,
            witnessed_at: make.gauges(
                "botmesh_ledger_witnessed_timestamp_seconds",
                "When a witness outside last cosigned a head of the ledger; 0 where it never has.",
                &["witness"],
            )?,
            pruned: make.gauge("botmesh_ledger_pruned", "Records pruned since the start.")?,
            held: make.gauge("botmesh_ledger_held", "1 while a hold keeps everything in the ledger.")?,
            bytes: by_share("botmesh_ledger_bytes", "Bytes in the ledger, by share of max_bytes.")?,
            share_bytes: by_share(
                "botmesh_ledger_share_bytes",
                "Bytes that a share of max_bytes may have.",
            )?,
            dropped: by_share(
                "botmesh_ledger_dropped",
                "Refusals and acts of strangers since the start that only this number tells of: their share is used up.",
            )?,
        })
    }

    /// Replaces what was said of witnesses: one that is none any more has no series.
    pub(super) fn set_witnessed(&self, witnessed: &BTreeMap<String, CosignedHead>) {
        self.witnessed_records.reset();
        self.witnessed_at.reset();
        for (witness, head) in witnessed {
            let at = head.at.map_or(0, Timestamp::unix_seconds);
            self.witnessed_at.with_label_values(&[witness]).set(at);
            self.witnessed_records
                .with_label_values(&[witness])
                .set(number(head.records));
        }
    }

    pub(super) fn set(&self, ledger: &Stats, cosigned: CosignedHead) {
        self.records.set(number(ledger.records));
        self.epoch.set(ledger.epoch.into());
        self.cosigned_records.set(number(cosigned.records));
        self.cosigned_at.set(cosigned.at.map_or(0, Timestamp::unix_seconds));
        self.pruned.set(number(ledger.pruned));
        self.held.set(i64::from(ledger.held));
        for share in &ledger.shares {
            self.bytes.with_label_values(&[share.class]).set(number(share.spent));
            self.share_bytes
                .with_label_values(&[share.class])
                .set(number(share.most));
        }
        let dropped = [
            ("refusals", ledger.refusals_dropped),
            ("strangers", ledger.strangers_dropped),
        ];
        for (share, count) in dropped {
            self.dropped.with_label_values(&[share]).set(number(count));
        }
    }
}
