//! Calls by caller, callee, verdict, rule and class of status.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ca_api::node::Edge;
use http::StatusCode;
use policy::{Mesh, RuleId};
use prometheus::{Histogram, IntCounter};
use spiffe::id::BotName;
use spiffe::time::Timestamp;

use super::Metrics;
use crate::call::Called;
use crate::reason::Reason;

/// The most series of `botmesh_requests_total`.
#[cfg(test)]
pub(super) const SERIES_MAX: usize = 2_000;

/// The most series of their own; what comes after is counted under [`OTHER`], in at most 30 series: two ways, three
/// verdicts, five classes.
pub(super) const OWN_MAX: usize = 1_970;

/// The label of what has no series of its own.
const OTHER: &str = "__other__";

/// The label of a caller that is no bot.
const STRANGER: &str = "__stranger__";

/// How many powers of two of microseconds are told apart: the last is half a minute and more.
const EDGE_BUCKETS: usize = 26;

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
    /// The callee; `None` when it does not exist, or is outside and no rule names it.
    pub(crate) to: Option<Called>,
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
    /// How many calls there were when it was last looked at.
    looked: AtomicU64,
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

    /// Says whether there were calls since this was asked last.
    fn was_used(&self) -> bool {
        let count = self.count.get();
        self.looked.swap(count, Ordering::Relaxed) != count
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
    /// Finds the handles of a series; beyond the bound all share one.
    pub(crate) fn series(&self, key: &SeriesKey) -> Arc<Series> {
        // A thread that panicked while it held the lock left a whole map.
        if let Some(series) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Arc::clone(series);
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= OWN_MAX {
            return Arc::new(self.make([key.way.as_str(), OTHER, OTHER, key.verdict(), OTHER, key.class()]));
        }
        let from = key.from.as_ref().map_or(STRANGER, BotName::as_str);
        let to = key.to.as_ref().map_or(OTHER, Called::as_str);
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
            looked: AtomicU64::new(0),
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

    /// Notes which rules let calls in since the last look, and forgets rules that are gone. The path of a call knows
    /// nothing of it: what it counts anyway is looked at.
    pub(crate) fn note_uses(&self, mesh: &Mesh, now: Timestamp) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
        for (key, series) in all.iter() {
            if series.was_used()
                && let Some(rule) = &key.rule
            {
                uses.insert(rule.clone(), now);
            }
        }
        uses.retain(|rule, _| mesh.rule_place(rule).is_some());
    }
}

impl Way {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

impl SeriesKey {
    pub(super) const fn verdict(&self) -> &'static str {
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
