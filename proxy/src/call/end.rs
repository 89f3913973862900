//! The end of a call, written exactly once, whatever ends it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use audit::{CallId, EndRecord};
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::body::RequestCount;
use crate::grpc::Status;
use crate::metrics::SeriesKey;
use crate::places::Place;
use crate::proxy::Proxy;
use crate::reason::Reason;
use crate::upstream::Admitted;

/// The answer was given whole.
pub(super) const DONE: &str = "done";

/// The answer ended before its body did, and it is not known whose fault it is.
pub(super) const CUT: &str = "cut";

/// The proxy ended before the call did.
const STOPPED: &str = "stopped";

/// The callee's answer broke off.
pub(super) const CALLEE_GONE: &str = "callee_gone";

/// The caller did not take the answer.
pub(crate) const CALLER_GONE: &str = "caller_gone";

/// What one of the two ends of a call is known by.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) id: CallId,
    pub(super) series: SeriesKey,
    /// Its place among the calls to the callee.
    pub(super) admitted: Admitted,
}

/// Writes the end of a call when it is dropped.
#[derive(Debug)]
pub(crate) struct End {
    proxy: Arc<Proxy>,
    /// Gives the call's place to another when the call is over.
    _place: Option<Place>,
    half: Half,
    /// The other end, when it is this proxy too.
    other: Option<Half>,
    /// Whether the call was recorded, as far as is known.
    recorded: bool,
    started: Instant,
    status: Option<StatusCode>,
    upstream: Duration,
    request: RequestCount,
    response_bytes: u64,
    outcome: &'static str,
    fault: Option<Reason>,
    /// The address outside that was connected to.
    address: Option<SocketAddr>,
    grpc: Grpc,
}

/// What a call of gRPC has come to.
#[derive(Clone, Copy, Debug)]
enum Grpc {
    /// It is none.
    No,
    /// Its status is to come.
    Awaited,
    /// It has ended so.
    Told(Status),
}

impl End {
    pub(super) fn new(
        proxy: &Arc<Proxy>,
        place: Option<Place>,
        half: Half,
        started: Instant,
        request: RequestCount,
    ) -> Self {
        Self {
            proxy: Arc::clone(proxy),
            _place: place,
            half,
            other: None,
            recorded: true,
            started,
            status: None,
            upstream: Duration::ZERO,
            request,
            response_bytes: 0,
            outcome: CUT,
            fault: None,
            address: None,
            grpc: Grpc::No,
        }
    }

    /// Ends the callee's half too.
    pub(super) fn join(&mut self, other: Half) {
        self.other = Some(other);
    }

    /// Notes that the call was not recorded, and so has no end.
    pub(super) const fn never_began(&mut self) {
        self.recorded = false;
    }

    /// Notes that the callee's half was not recorded.
    pub(super) fn part(&mut self) {
        self.other = None;
    }

    /// The call's place among those to the callee, as its caller's proxy counts them, or the only one that does.
    pub(super) const fn admitted(&self) -> &Admitted {
        &self.half.admitted
    }

    /// The same as the callee's proxy counts them.
    pub(super) fn admitted_by_callee(&self) -> &Admitted {
        self.other.as_ref().map_or(&self.half.admitted, |other| &other.admitted)
    }

    /// How often it was tried, at whichever end.
    fn tries(&self) -> u32 {
        self.half.admitted.tries().max(self.admitted_by_callee().tries())
    }

    /// Notes the answer.
    pub(super) const fn answered(&mut self, status: StatusCode, upstream: Duration) {
        self.status = Some(status);
        self.upstream = upstream;
    }

    /// Notes the address outside that the call goes to.
    pub(super) const fn leads_to(&mut self, address: SocketAddr) {
        self.address = Some(address);
    }

    /// Notes that the call is one of gRPC, and the head of its answer.
    pub(super) fn is_of_grpc(&mut self, headers: &HeaderMap) {
        self.grpc = Grpc::Awaited;
        self.said(headers);
    }

    /// Notes the status of gRPC in a head or in trailers.
    pub(super) fn said(&mut self, fields: &HeaderMap) {
        if let (true, Some(status)) = (self.is_grpc(), Status::read(fields)) {
            self.grpc = Grpc::Told(status);
        }
    }

    /// Notes the status of gRPC that a proxy gives a call.
    pub(super) const fn grpc(&mut self, status: Status) {
        self.grpc = Grpc::Told(status);
    }

    /// Tells whether the call is one of gRPC.
    pub(super) const fn is_grpc(&self) -> bool {
        matches!(self.grpc, Grpc::Awaited | Grpc::Told(_))
    }

    /// The class that the call counts in: HTTP says 200 of every call of gRPC that was answered. One that ended without a
    /// status has failed, and by whose fault its outcome says.
    fn class(&self) -> u16 {
        let answered = self.status == Some(StatusCode::OK);
        match self.grpc {
            Grpc::Told(status) if answered => status.class(),
            Grpc::Awaited if answered && self.outcome == CALLER_GONE => 4,
            Grpc::Awaited if answered => 5,
            Grpc::No | Grpc::Awaited | Grpc::Told(_) => self.status.map_or(5, SeriesKey::class_of),
        }
    }

    /// Notes that the call was recorded and could not be carried.
    pub(super) const fn failed(&mut self, status: StatusCode, fault: Reason) {
        self.status = Some(status);
        self.fault = Some(fault);
        self.outcome = fault.as_str();
    }

    /// Notes bytes of the answer.
    pub(super) const fn wrote(&mut self, bytes: usize) {
        self.response_bytes = self.response_bytes.saturating_add(bytes as u64);
    }

    /// How many bytes of the answer have passed.
    pub(super) const fn response_bytes(&self) -> u64 {
        self.response_bytes
    }

    /// Notes how it ended; a fault stays the cause.
    pub(crate) const fn ended(&mut self, outcome: &'static str) {
        if self.fault.is_none() {
            self.outcome = outcome;
        }
    }

    /// Whatever a call seems to have ended by once the proxy cuts what is left, it is the proxy.
    fn outcome(&self) -> &'static str {
        match self.proxy.cutting.load(Ordering::Acquire) {
            true if self.outcome != DONE => STOPPED,
            true | false => self.outcome,
        }
    }

    fn write(&self, half: &Half, duration: Duration) {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.proxy.ledger.end(&EndRecord {
            id: half.id,
            time: self.proxy.control.now(),
            status: self.status.map(|status| status.as_u16()),
            grpc_status: match self.grpc {
                Grpc::Told(status) => Some(status.number()),
                Grpc::No | Grpc::Awaited => None,
            },
            request_bytes: self.request.get(),
            response_bytes: self.response_bytes,
            duration_us: micros(duration),
            upstream_us: micros(self.upstream),
            tries: self.tries(),
            address: self.address,
            outcome: self.outcome().to_owned(),
        });
        let bytes = self.request.get().saturating_add(self.response_bytes);
        self.proxy.metrics.carried(half.series.way, bytes);
        let mut key = half.series.clone();
        key.class = self.class();
        match self.grpc {
            Grpc::No => {}
            Grpc::Awaited => self.proxy.metrics.grpc(half.series.way, None),
            Grpc::Told(status) => self.proxy.metrics.grpc(half.series.way, Some(status)),
        }
        self.proxy.metrics.series(&key).observe(duration);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.recorded {
            return;
        }
        let duration = self.started.elapsed();
        self.write(&self.half, duration);
        if let Some(other) = &self.other {
            self.write(other, duration);
        }
        if let Some(fault) = self.fault {
            self.proxy.metrics.denied(fault);
        }
    }
}
