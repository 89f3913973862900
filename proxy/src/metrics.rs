//! What Prometheus sees. Labels are words of ours, rule ids and names of bots that exist; their number is bounded.

mod ledger;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ca_api::node::Edge;
use http::StatusCode;
use policy::RuleId;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use spiffe::id::BotName;

use self::ledger::LedgerGauges;
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

/// How many powers of two of microseconds are told apart: the last is half a minute and more.
const EDGE_BUCKETS: usize = 26;

/// All metrics of this process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    denied: BTreeMap<Reason, IntCounter>,
    handshakes_refused: IntCounterVec,
    reproofs: IntCounterVec,
    connections: IntGaugeVec,
    svid_not_after: IntGaugeVec,
    ledger: LedgerGauges,
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
    /// The rule that decided. Every allowed call has one; a call that is carried without one is `audit_only`'s.
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
    /// Calls by power of two of their microseconds, since they were told to the CA.
    untold: [AtomicU64; EDGE_BUCKETS],
}

impl Series {
    /// Counts one call.
    pub(crate) fn observe(&self, duration: Duration) {
        self.count.inc();
        self.duration.observe(duration.as_secs_f64());
        let power = u128::BITS - duration.as_micros().leading_zeros();
        let bucket = usize::try_from(power).unwrap_or(usize::MAX).min(EDGE_BUCKETS - 1);
        if let Some(bucket) = self.untold.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes what was not told yet; nothing where there is none.
    fn take_untold(&self) -> Option<Vec<u64>> {
        let counts: Vec<u64> = self
            .untold
            .iter()
            .map(|bucket| bucket.swap(0, Ordering::Relaxed))
            .collect();
        counts.iter().any(|count| *count > 0).then_some(counts)
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
            reproofs: counters(
                "botmesh_reproofs_total",
                "Proofs in band that peers sent on open connections, by result.",
                &["result"],
            )?,
            connections: gauges("botmesh_connections", "Open connections, by listener.", &["listener"])?,
            svid_not_after: gauges(
                "botmesh_svid_not_after_timestamp_seconds",
                "When a bot's SVID ends.",
                &["bot"],
            )?,
            ledger: LedgerGauges::new(&registry)?,
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
            untold: [const { AtomicU64::new(0) }; EDGE_BUCKETS],
        }
    }

    /// Takes the calls of this host's bots since the last time, for the CA. The callee's host does not tell of them a
    /// second time.
    pub(crate) fn edges(&self) -> Vec<Edge> {
        let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let edge = |(key, series): (&SeriesKey, &Arc<Series>)| {
            let (Way::Out, Some(from), Some(to)) = (key.way, &key.from, &key.to) else {
                return None;
            };
            let latency_us_buckets = series.take_untold()?;
            Some(Edge {
                from: from.to_string(),
                to: to.to_string(),
                rule: key.rule.as_ref().map(ToString::to_string).unwrap_or_default(),
                route: String::new(),
                verdict: key.verdict().to_owned(),
                reason: key.denied.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
                count: latency_us_buckets.iter().sum(),
                latency_us_buckets,
            })
        };
        all.iter().filter_map(edge).collect()
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

    /// Counts a proof in band; `result` is a word of ours.
    pub(crate) fn reproof(&self, result: &str) {
        self.reproofs.with_label_values(&[result]).inc();
    }

    /// Counts the connections of a listener; `listener` is a word of ours.
    pub(crate) fn connections(&self, listener: &str) -> IntGauge {
        self.connections.with_label_values(&[listener])
    }

    /// Writes everything in the text format.
    pub(crate) fn render(&self, control: &Control, ledger: &audit::Stats) -> String {
        self.svid_not_after.reset();
        for svid in control.status().svids {
            if let Some(not_after) = svid.not_after {
                self.svid_not_after
                    .with_label_values(&[svid.bot.as_str()])
                    .set(not_after.unix_seconds());
            }
        }
        self.ledger.set(ledger);
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
        match (&self.denied, &self.rule) {
            (Some(_), _) => "deny",
            (None, Some(_)) => "allow",
            (None, None) => "audit",
        }
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
    fn calls_are_told_to_the_ca_once_by_the_callers_host() {
        let metrics = Metrics::new("0").unwrap();
        for micros in [0, 1, 3, 3, 1 << 40] {
            metrics.series(&key("a")).observe(Duration::from_micros(micros));
        }
        metrics
            .series(&SeriesKey {
                way: Way::In,
                ..key("a")
            })
            .observe(Duration::from_micros(1));
        metrics
            .series(&SeriesKey { to: None, ..key("a") })
            .observe(Duration::from_micros(1));
        let edges = metrics.edges();
        let [edge] = edges.as_slice() else { panic!("{edges:?}") };
        assert_eq!(
            (edge.from.as_str(), edge.to.as_str(), edge.count),
            ("prod/checkout", "prod/orders", 5)
        );
        assert_eq!(
            (edge.rule.as_str(), edge.verdict.as_str(), edge.reason.as_str()),
            ("a", "allow", "")
        );
        assert_eq!(edge.latency_us_buckets.get(..4), Some([1, 1, 2, 0].as_slice()));
        assert_eq!(edge.latency_us_buckets.last(), Some(&1));
        assert!(metrics.edges().is_empty(), "told once");
    }

    #[test]
    fn the_verdict_of_a_series_is_told_by_its_rule_and_its_refusal() {
        let audit = SeriesKey { rule: None, ..key("a") };
        let deny = SeriesKey {
            denied: Some(Reason::NoRule),
            ..audit.clone()
        };
        assert_eq!(
            [key("a").verdict(), audit.verdict(), deny.verdict()],
            ["allow", "audit", "deny"]
        );
    }

    #[test]
    fn the_number_of_series_is_bounded_and_what_is_beyond_is_counted_together() {
        let metrics = Metrics::new("0").unwrap();
        for number in 0..SERIES_MAX + 10 {
            metrics
                .series(&key(&format!("rule-{number}")))
                .observe(Duration::from_millis(1));
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
