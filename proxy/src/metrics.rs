//! What Prometheus sees. Labels are words of ours, rule ids and names of bots that exist; their number is bounded.
//!
//! `README.md` has the table of them, which a test holds true.

mod calls;
mod credentials;
mod grpc;
mod host;
mod ledger;
mod make;
mod policy;
mod series;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ::policy::RuleId;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};
use spiffe::time::Timestamp;
use tokio::time::Instant;

use self::calls::CallMetrics;
use self::credentials::CredentialMetrics;
use self::grpc::GrpcCalls;
use self::host::HostMetrics;
use self::ledger::LedgerGauges;
use self::make::Maker;
use self::policy::{InForce, PolicyMetrics};
use crate::grpc::Status;
use crate::proxy::Proxy;
use crate::reason::Reason;

use series::Series;
pub(crate) use series::{SeriesKey, Way};

/// Upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 4.096, 30.0,
];

/// One decision in so many is timed: reading the clock twice would cost more than most decisions do.
const TIMED_OF: u64 = 64;

/// All metrics of this process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    denied: BTreeMap<Reason, IntCounter>,
    handshakes_refused: IntCounterVec,
    attestations: IntCounterVec,
    reproofs: IntCounterVec,
    connections: IntGaugeVec,
    grpc: GrpcCalls,
    bytes_out: IntCounter,
    bytes_in: IntCounter,
    calls: CallMetrics,
    credentials: CredentialMetrics,
    host: HostMetrics,
    ledger: LedgerGauges,
    policy: PolicyMetrics,
    series: RwLock<BTreeMap<SeriesKey, Arc<Series>>>,
    /// When each rule of the mesh that was used was seen to be.
    uses: Mutex<BTreeMap<RuleId, Timestamp>>,
    /// How many decisions there were.
    decided: AtomicU64,
    /// One reads at a time: what is replaced for one would be missing for the other.
    reading: Mutex<()>,
}

impl Metrics {
    /// Makes and registers all of them.
    pub(crate) fn new(version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        let info = make.gauges("botmesh_build_info", "1, labelled with the version.", &["version"])?;
        info.with_label_values(&[version]).set(1);
        let denied = make.counters(
            "botmesh_denied_total",
            "Calls that were not carried, by reason.",
            &["reason"],
        )?;
        let bytes = make.counters(
            "botmesh_bytes_total",
            "Bytes of the bodies of requests and answers, by which way the call goes.",
            &["direction"],
        )?;
        Ok(Self {
            requests: make.counters(
                "botmesh_requests_total",
                "Calls by caller, callee, verdict, rule and class of status.",
                &["direction", "from", "to", "verdict", "rule", "code_class"],
            )?,
            durations: make.histograms(
                "botmesh_request_duration_seconds",
                "From a call's head to its last byte.",
                &["to", "direction"],
                &BUCKETS,
            )?,
            denied: Reason::ALL
                .into_iter()
                .map(|r| (r, denied.with_label_values(&[r.as_str()])))
                .collect(),
            handshakes_refused: make.counters(
                "botmesh_handshakes_refused_total",
                "TLS handshakes that this proxy refused, by reason.",
                &["reason"],
            )?,
            attestations: make.counters(
                "botmesh_attestations_total",
                "Connections of local processes, by the kind of socket and what came of naming the process.",
                &["attestor", "result"],
            )?,
            reproofs: make.counters(
                "botmesh_reproofs_total",
                "Proofs in band that peers sent on open connections, by result.",
                &["result"],
            )?,
            connections: make.gauges("botmesh_connections", "Open connections, by listener.", &["listener"])?,
            grpc: GrpcCalls::new(make)?,
            bytes_out: bytes.with_label_values(&[Way::Out.as_str()]),
            bytes_in: bytes.with_label_values(&[Way::In.as_str()]),
            calls: CallMetrics::new(make)?,
            credentials: CredentialMetrics::new(make)?,
            host: HostMetrics::new(make)?,
            ledger: LedgerGauges::new(make)?,
            policy: PolicyMetrics::new(make)?,
            series: RwLock::default(),
            uses: Mutex::default(),
            decided: AtomicU64::new(0),
            reading: Mutex::new(()),
            registry,
        })
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

    /// Counts a connection of a local process; both are words of ours, `refused` where it is no bot.
    pub(crate) fn attested(&self, attestor: &str, refused: Option<&str>) {
        self.attestations
            .with_label_values(&[attestor, refused.unwrap_or("ok")])
            .inc();
    }

    /// Counts a proof in band; `result` is a word of ours.
    pub(crate) fn reproof(&self, result: &str) {
        self.reproofs.with_label_values(&[result]).inc();
    }

    /// Counts a request to end a statement; `result` is a word of ours.
    pub(crate) fn database_cancel(&self, result: &str) {
        self.credentials.cancels.with_label_values(&[result]).inc();
    }

    /// Counts a connection that the other proxy's fault has ended; `reason` is a word of ours.
    pub(crate) fn hop_broken(&self, reason: &str) {
        self.calls.hops_broken.with_label_values(&[reason]).inc();
    }

    /// Counts the connections of a listener; `listener` is a word of ours.
    pub(crate) fn connections(&self, listener: &str) -> IntGauge {
        self.connections.with_label_values(&[listener])
    }

    /// Counts a call of gRPC that is over, by its status; `None` where it ended without one.
    pub(crate) fn grpc(&self, way: Way, status: Option<Status>) {
        self.grpc.count(way, status);
    }

    /// Counts the bytes of a call that is over.
    pub(crate) fn carried(&self, way: Way, bytes: u64) {
        match way {
            Way::Out => self.bytes_out.inc_by(bytes),
            Way::In => self.bytes_in.inc_by(bytes),
        }
    }

    /// Has the policy decide, and takes the time of one decision in [`TIMED_OF`].
    pub(crate) fn timed<T>(&self, decide: impl FnOnce() -> T) -> T {
        if !self.decided.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIMED_OF) {
            return decide();
        }
        let begun = Instant::now();
        let decided = decide();
        self.policy.decisions.observe(begun.elapsed().as_secs_f64());
        decided
    }

    /// Writes everything in the text format.
    pub(crate) fn render(&self, proxy: &Proxy) -> String {
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshot, counted) = (proxy.control.snapshot(), proxy.control.counted());
        let svids = proxy.control.status().svids.into_iter();
        self.host
            .set_svids(svids.filter_map(|svid| Some((svid.bot, svid.not_after?))));
        self.host.set(&counted, snapshot.quarantined(), &proxy.live.cuts());
        self.note_uses(&snapshot.mesh, proxy.control.now());
        let in_force = InForce {
            generation: snapshot.generation,
            sha256: snapshot.slice_sha256(),
            mesh: &snapshot.mesh,
        };
        self.tell_policy(in_force, counted.rejected_revision);
        self.ledger.set(&proxy.ledger.stats(), counted.cosigned);
        self.ledger.set_witnessed(&proxy.control.witnessed());
        self.calls.set(&proxy.places, &proxy.upstreams);
        let valued = snapshot
            .mesh
            .credentials()
            .filter(|(_, credential)| credential.injection.has_value() || credential.injection.federate().is_some());
        let named = valued.map(|(name, _)| name);
        self.credentials.set(&proxy.credentials.states(named));
        self.encode()
    }

    fn tell_policy(&self, in_force: InForce<'_>, rejected: u64) {
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        self.policy.set(in_force, rejected, &uses);
    }

    fn encode(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| {
                tracing::error!(%error, "the metrics cannot be written");
                String::new()
            })
    }
}

#[cfg(test)]
mod tests;
