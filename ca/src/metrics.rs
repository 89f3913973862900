//! What the CA counts. Labels are words with few values, never names.

mod heads;
mod watch;

use crate::alerts::AlertKind;
use crate::federation::FederationMetrics;
use crate::watch::WatchKind;
use heads::HeadMetrics;
use prometheus::{Encoder as _, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use watch::WatchMetrics;
pub(crate) use watch::WebhookMetrics;

/// Makes metrics and registers each.
#[derive(Debug)]
pub(crate) struct Making<'a>(&'a Registry);

impl Making<'_> {
    pub(crate) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    pub(crate) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::new(name, help)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    pub(crate) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::new(name, help)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }
}

/// Every metric of the CA.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// `kind`: bot, host, ca, jwt. `result`: issued, refused, failed.
    pub(crate) issued: IntCounterVec,
    /// `result`: joined, repeated, renewed, or the word of the refusal.
    pub(crate) attested: IntCounterVec,
    /// `result`: accepted, or why not.
    pub(crate) connections: IntCounterVec,
    /// `kind`: edges, events. `result`: accepted, refused.
    pub(crate) observed: IntCounterVec,
    /// `action` of the admin API; `result`: ok, refused, failed.
    pub(crate) operations: IntCounterVec,
    /// `reason`: the word of a [`crate::refusals::HostRefusal`].
    pub(crate) refused: IntCounterVec,
    /// `kind`: the word of a [`crate::alerts::AlertKind`] or a [`crate::watch::WatchKind`].
    pub(crate) alerts: IntCounterVec,
    pub(crate) heads: HeadMetrics,
    pub(crate) watch: WatchMetrics,
    pub(crate) webhook: WebhookMetrics,
    pub(crate) quarantines: IntGauge,
    pub(crate) hosts_connected: IntGauge,
    pub(crate) streams_opened: IntCounter,
    pub(crate) epoch: IntGauge,
    pub(crate) revision: IntGauge,
    pub(crate) root_not_after_seconds: IntGauge,
    pub(crate) federation: FederationMetrics,
}

impl Metrics {
    /// Registers everything.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let made = Making(&registry);
        build_info(&registry)?;
        Ok(Self {
            issued: made.counters(
                "botmesh_ca_svids_total",
                "SVIDs asked for, by kind and result.",
                &["kind", "result"],
            )?,
            attested: made.counters(
                "botmesh_ca_attestations_total",
                "Attestations of hosts, by result.",
                &["result"],
            )?,
            connections: made.counters(
                "botmesh_ca_connections_total",
                "Connections to the node API.",
                &["result"],
            )?,
            observed: made.counters(
                "botmesh_ca_observations_total",
                "What hosts reported.",
                &["kind", "result"],
            )?,
            operations: made.counters(
                "botmesh_ca_operations_total",
                "Requests of operators.",
                &["action", "result"],
            )?,
            refused: made.counters(
                "botmesh_ca_refused_total",
                "What hosts asked or said that they may not, by reason.",
                &["reason"],
            )?,
            alerts: alerts(&made)?,
            heads: HeadMetrics::new(&made)?,
            watch: WatchMetrics::new(&made)?,
            webhook: WebhookMetrics::new(&made)?,
            quarantines: made.gauge(
                "botmesh_ca_quarantines",
                "Bots and hosts that are quarantined at the CA.",
            )?,
            hosts_connected: made.gauge("botmesh_ca_hosts_connected", "Hosts whose stream is up.")?,
            epoch: made.gauge("botmesh_ca_epoch", "Epoch of the live mesh.")?,
            revision: made.gauge(
                "botmesh_ca_revision",
                "Revision of the live mesh; 0 before the first apply.",
            )?,
            root_not_after_seconds: made.gauge("botmesh_ca_root_not_after_seconds", "Unix time when the root ends.")?,
            streams_opened: streams_opened(&made)?,
            federation: FederationMetrics::new(&made)?,
            registry,
        })
    }

    /// How many refusals of hosts there were, of all reasons.
    pub(crate) fn refused_in_all(&self) -> u64 {
        let families = prometheus::core::Collector::collect(&self.refused);
        let counts = families.iter().flat_map(|family| family.get_metric());
        // Counters of integers are exact as floats far beyond what is counted here.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        counts.map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    /// Writes the Prometheus text format.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

fn streams_opened(made: &Making<'_>) -> Result<IntCounter, prometheus::Error> {
    made.counter(
        "botmesh_ca_streams_opened_total",
        "Streams of hosts that were taken in.",
    )
}

/// Every kind is there from the start: a rule that watches for a rise would miss the first otherwise.
fn alerts(made: &Making<'_>) -> Result<IntCounterVec, prometheus::Error> {
    let counters = made.counters("botmesh_ca_alerts_total", "Alerts, by kind.", &["kind"])?;
    let kinds = AlertKind::ALL.map(AlertKind::as_str);
    for kind in kinds.into_iter().chain(WatchKind::ALL.map(WatchKind::as_str)) {
        counters.with_label_values(&[kind]).inc_by(0);
    }
    Ok(counters)
}

fn build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let build = Opts::new("botmesh_build_info", "The running software; always 1.")
        .const_label("version", env!("CARGO_PKG_VERSION"))
        .const_label("part", "ca");
    let build = IntGauge::with_opts(build)?;
    build.set(1);
    registry.register(Box::new(build))
}
