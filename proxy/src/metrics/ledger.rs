//! How the ledger stands.

use audit::Stats;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

/// Gauges that are set when the metrics are read.
#[derive(Debug)]
pub(super) struct LedgerGauges {
    records: IntGauge,
    bytes: IntGaugeVec,
    share_bytes: IntGaugeVec,
    dropped: IntGaugeVec,
}

impl LedgerGauges {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by_share = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["share"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let records = IntGauge::new("botmesh_ledger_records", "Records in the ledger.")?;
        registry.register(Box::new(records.clone()))?;
        Ok(Self {
            records,
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

    pub(super) fn set(&self, ledger: &Stats) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.records.set(number(ledger.records));
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
