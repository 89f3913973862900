//! What Prometheus sees. Labels are words of ours, rule ids and names of bots that exist; their number is bounded.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use http::StatusCode;
use policy::RuleId;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use spiffe::id::BotName;

use crate::control::Control;
use crate::reason::Reason;

/// The most series of `botmesh_requests_total`; what comes after is counted under [`OTHER`].
const SERIES_MAX: usize = 2_000;

/// The label of what has no series of its own.
const OTHER: &str = "__other__";

/// The label of a caller that is no bot.
const STRANGER: &str = "__stranger__";

/// Upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 4.096, 30.0,
];

/// All metrics of this process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    denied: BTreeMap<Reason, IntCounter>,
    handshakes_refused: IntCounterVec,
    connections: IntGaugeVec,
    svid_not_after: IntGaugeVec,
    ledger_records: IntGauge,
    series: RwLock<BTreeMap<SeriesKey, Arc<Series>>>,
}

/// Which way a call goes, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// A bot of this host calls.
    Out,
    /// A bot of this host is called.
    In,
}

/// What a series is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SeriesKey {
    pub(crate) way: Way,
    /// The caller; `None` when it is no bot.
    pub(crate) from: Option<BotName>,
    /// The callee; `None` when it does not exist.
    pub(crate) to: Option<BotName>,
    /// The rule that decided; allowed calls have one.
    pub(crate) rule: Option<RuleId>,
    /// Why it was refused.
    pub(crate) denied: Option<Reason>,
    /// The hundreds of the status.
    pub(crate) class: u16,
}

/// The handles of one series.
#[derive(Debug)]
pub(crate) struct Series {
    count: IntCounter,
    duration: Histogram,
}

impl Series {
    /// Counts one call.
    pub(crate) fn observe(&self, seconds: f64) {
        self.count.inc();
        self.duration.observe(seconds);
    }
}

impl Metrics {
    /// Makes and registers all of them.
    pub(crate) fn new(version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        gauges("botmesh_build_info", "1, labelled with the version.", &["version"])?
            .with_label_values(&[version])
            .set(1);
        let denied = counters(
            "botmesh_denied_total",
            "Calls that were not carried, by reason.",
            &["reason"],
        )?;
        let opts = HistogramOpts::new(
            "botmesh_request_duration_seconds",
            "From a call's head to its last byte.",
        );
        let durations = HistogramVec::new(opts.buckets(BUCKETS.into()), &["to", "direction"])?;
        registry.register(Box::new(durations.clone()))?;
        let ledger_records = IntGauge::new("botmesh_ledger_records", "Records in the ledger.")?;
        registry.register(Box::new(ledger_records.clone()))?;
        Ok(Self {
            requests: counters(
                "botmesh_requests_total",
                "Calls by caller, callee, verdict, rule and class of status.",
                &["direction", "from", "to", "verdict", "rule", "code_class"],
            )?,
            durations,
            denied: Reason::ALL
                .into_iter()
                .map(|r| (r, denied.with_label_values(&[r.as_str()])))
                .collect(),
            handshakes_refused: counters(
                "botmesh_handshakes_refused_total",
                "TLS handshakes that this proxy refused, by reason.",
                &["reason"],
            )?,
            connections: gauges("botmesh_connections", "Open connections, by listener.", &["listener"])?,
            svid_not_after: gauges(
                "botmesh_svid_not_after_timestamp_seconds",
                "When a bot's SVID ends.",
                &["bot"],
            )?,
            ledger_records,
            series: RwLock::default(),
            registry,
        })
    }

    /// Finds the handles of a series; beyond the bound all share one.
    pub(crate) fn series(&self, key: &SeriesKey) -> Arc<Series> {
        // A thread that panicked while it held the lock left a whole map.
        if let Some(series) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Arc::clone(series);
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SERIES_MAX {
            return Arc::new(self.make([key.way.as_str(), OTHER, OTHER, key.verdict(), OTHER, key.class()]));
        }
        let from = key.from.as_ref().map_or(STRANGER, BotName::as_str);
        let to = key.to.as_ref().map_or(OTHER, BotName::as_str);
        let rule = key.rule.as_ref().map_or("", RuleId::as_str);
        let labels = [key.way.as_str(), from, to, key.verdict(), rule, key.class()];
        Arc::clone(all.entry(key.clone()).or_insert_with(|| Arc::new(self.make(labels))))
    }

    fn make(&self, labels: [&str; 6]) -> Series {
        let [way, _, to, ..] = labels;
        Series {
            count: self.requests.with_label_values(&labels),
            duration: self.durations.with_label_values(&[to, way]),
        }
    }

    /// Counts a call that was not carried.
    pub(crate) fn denied(&self, reason: Reason) {
        if let Some(counter) = self.denied.get(&reason) {
            counter.inc();
        }
    }

    /// Counts a handshake that was refused; `reason` is a word of ours.
    pub(crate) fn handshake_refused(&self, reason: &str) {
        self.handshakes_refused.with_label_values(&[reason]).inc();
    }

    /// Counts the connections of a listener; `listener` is a word of ours.
    pub(crate) fn connections(&self, listener: &str) -> IntGauge {
        self.connections.with_label_values(&[listener])
    }

    /// Writes everything in the text format.
    pub(crate) fn render(&self, control: &Control, ledger_records: u64) -> String {
        self.svid_not_after.reset();
        for svid in control.status().svids {
            if let Some(not_after) = svid.not_after {
                self.svid_not_after
                    .with_label_values(&[svid.bot.as_str()])
                    .set(not_after.unix_seconds());
            }
        }
        self.ledger_records
            .set(i64::try_from(ledger_records).unwrap_or(i64::MAX));
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| {
                tracing::error!(%error, "the metrics cannot be written");
                String::new()
            })
    }
}

impl Way {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

impl SeriesKey {
    const fn verdict(&self) -> &'static str {
        if self.denied.is_some() { "deny" } else { "allow" }
    }

    const fn class(&self) -> &'static str {
        match self.class {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        }
    }

    /// The class of a status.
    pub(crate) fn class_of(status: StatusCode) -> u16 {
        status.as_u16() / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(rule: &str) -> SeriesKey {
        SeriesKey {
            way: Way::Out,
            from: BotName::parse("prod/checkout").ok(),
            to: BotName::parse("prod/orders").ok(),
            rule: RuleId::parse(rule),
            denied: None,
            class: 2,
        }
    }

    #[test]
    fn the_number_of_series_is_bounded_and_what_is_beyond_is_counted_together() {
        let metrics = Metrics::new("0").unwrap();
        for number in 0..SERIES_MAX + 10 {
            metrics.series(&key(&format!("rule-{number}"))).observe(0.001);
        }
        let text = TextEncoder::new().encode_to_string(&metrics.registry.gather()).unwrap();
        let counted = text
            .lines()
            .filter(|line| line.starts_with("botmesh_requests_total{"))
            .count();
        assert_eq!(counted, SERIES_MAX + 1);
        let other = text.lines().find(|line| line.contains("from=\"__other__\"")).unwrap();
        assert!(other.ends_with(" 10"), "{other}");
        assert!(text.contains("botmesh_build_info{version=\"0\"} 1"));
        for reason in Reason::ALL {
            assert!(
                text.contains(&format!("botmesh_denied_total{{reason=\"{reason}\"}} 0")),
                "{reason}"
            );
        }
    }
}
