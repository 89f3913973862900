//! Calls under way, those that found no room, and how callees are.

use std::sync::atomic::Ordering;

use prometheus::{Error, IntCounterVec, IntGauge, IntGaugeVec};

use super::Way;
use super::make::{Maker, number, raise};
use crate::places::Places;
use crate::upstream::Upstreams;

/// Set when the metrics are read.
#[derive(Debug)]
pub(super) struct CallMetrics {
    in_flight: IntGauge,
    shed: IntCounterVec,
    retries: IntCounterVec,
    /// Connections between proxies that ended for what the other one said.
    pub(super) hops_broken: IntCounterVec,
    ejections: IntCounterVec,
    ejected: IntGaugeVec,
    opened: IntCounterVec,
    open: IntGaugeVec,
}

impl CallMetrics {
    pub(super) fn new(make: Maker<'_>) -> Result<Self, Error> {
        Ok(Self {
            in_flight: make.gauge("botmesh_calls_in_flight", "Calls under way, in both directions.")?,
            shed: make.counters(
                "botmesh_shed_total",
                "Calls that found no room, by what had none.",
                &["bound"],
            )?,
            hops_broken: make.counters(
                "botmesh_hops_broken_total",
                "Connections between proxies that ended because the other one broke the rules of the hop, by how.",
                &["reason"],
            )?,
            retries: make.counters(
                "botmesh_retries_total",
                "Calls to a bot that were to be tried again, by whether the budget for that let them.",
                &["to", "result"],
            )?,
            ejections: make.counters(
                "botmesh_ejections_total",
                "How often an endpoint of a bot was left out because it could not be connected to.",
                &["to"],
            )?,
            ejected: make.gauges(
                "botmesh_ejected_endpoints",
                "Endpoints of a bot that are left out at the moment.",
                &["to"],
            )?,
            opened: make.counters(
                "botmesh_breaker_opened_total",
                "How often a caller's calls to a bot failed one after another, so that it was shut out.",
                &["to"],
            )?,
            open: make.gauges(
                "botmesh_breakers_open",
                "Callers that are shut out from a bot at the moment.",
                &["to"],
            )?,
        })
    }

    pub(super) fn set(&self, places: &Places, upstreams: &Upstreams) {
        self.in_flight.set(number(places.taken() as u64));
        for (bound, count) in places.refused() {
            raise(&self.shed.with_label_values(&[bound.as_str()]), count);
        }
        // A bot that has left has no series.
        self.ejected.reset();
        self.open.reset();
        let now = upstreams.now();
        for (called, upstream) in upstreams.each(Way::Out) {
            let (to, counts) = (called.as_str(), upstream.counts());
            for (result, count) in [("sent", &counts.retried), ("no_budget", &counts.not_retried)] {
                let counter = self.retries.with_label_values(&[to, result]);
                raise(&counter, count.load(Ordering::Relaxed));
            }
            raise(
                &self.ejections.with_label_values(&[to]),
                counts.ejected.load(Ordering::Relaxed),
            );
            raise(
                &self.opened.with_label_values(&[to]),
                counts.opened.load(Ordering::Relaxed),
            );
            let endpoints = upstream.known_endpoints();
            let out = endpoints
                .iter()
                .filter(|endpoint| endpoint.out_for(now).is_some())
                .count();
            self.ejected.with_label_values(&[to]).set(number(out as u64));
            self.open
                .with_label_values(&[to])
                .set(number(upstream.open(now).len() as u64));
        }
    }
}
