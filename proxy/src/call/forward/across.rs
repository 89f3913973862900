//! The way to the proxy of the callee's host.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use audit::Receipt;
use bytes::Bytes;
use http::header::HeaderMap;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, StatusCode, Uri, Version};
use policy::{Permit, Protocol};
use spiffe_tls::Svid;

use super::super::accept;
use super::super::body::{AnswerBody, RequestCount};
use super::super::draft::Draft;
use super::super::headers::{BOTMESH_CALL, BOTMESH_UPGRADE};
use super::super::identify::Who;
use super::super::normalize::Rest;
use super::super::refusal::Refusal;
use super::super::route::Route;
use super::{Came, From, admit, ended, hold, patience as patience_of, protocol_value, request_of, target};
use crate::http1::deadline::Deadline;
use crate::live::Lane;
use crate::places::Bound;
use crate::pool::{Peer, PoolFault, Streams, broken_by_caller};
use crate::reason::Reason;
use crate::upstream::Admitted;

/// How often a call that may have begun is sent again, where the mesh says nothing.
const RETRIES: u32 = 1;

/// By whom, and where to.
pub(super) struct Across<'a> {
    pub(super) who: &'a Who,
    pub(super) svid: Arc<Svid>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) peer: Answerer,
    /// The place of the call among those to the callee.
    pub(super) admitted: &'a Admitted,
}

/// Who takes the call there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answerer {
    /// The proxy of the callee's host.
    Proxy,
    /// The callee itself, which has never heard of what is said between proxies.
    Callee,
}

/// Carries the call to the proxy of the callee's host, or to a callee that opens its own mutual TLS.
pub(super) async fn across(
    draft: &Draft,
    permit: Permit,
    _receipt: Receipt,
    rest: Rest<Arc<Route>>,
    towards: Across<'_>,
    patience: &mut Deadline,
) -> Result<Came, Box<Refusal>> {
    let Rest {
        to,
        method,
        query,
        mut headers,
        body,
    } = rest;
    let Across {
        who,
        svid,
        addresses,
        peer: answerer,
        admitted,
    } = towards;
    let call = permit.into_call();
    let ask = request_of(&call)?;
    let target = target(&ask.path, query.as_ref());
    let upgrade = ask.upgrade.clone();
    let held = hold(draft, who, call)?;
    if answerer == Answerer::Proxy {
        tell_proxy(draft, &mut headers, upgrade.as_ref())?;
    }
    let count = body.count();
    let mut request = Request::new(body.held(&held));
    *request.method_mut() = method;
    *request.uri_mut() = uri(&to, target)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    let proxy = draft.proxy();
    let waits = draft.snapshot.mesh.destination(&to.bot);
    let limit = patience_of(draft, &waits, request.headers());
    let peer = Peer {
        svid: &svid,
        callee: &to.id,
        bundle: &draft.snapshot.bundle,
        connect: waits.connect_timeout,
        addresses: &addresses,
        streams: Streams::Requests,
        admitted,
        retries: waits.retries.unwrap_or(RETRIES),
        pending: admit::most_pending(&waits),
    };
    let answered = {
        let calling = std::pin::pin!(proxy.pool.call(proxy, peer, request, &held));
        let calling = std::pin::pin!(within(patience, limit, &count, calling));
        held.while_allowed(Lane::Answer, calling).await
    };
    match answered.map_err(ended)?.unwrap_or(Err(PoolFault::Slow)) {
        Ok((answer, lease)) => {
            let (parts, body) = answer.into_parts();
            // A stream of gRPC may stand still in one direction as long as it moves in the other.
            let silence = draft.grpc.then_some(proxy.bounds.answer_silence);
            held.may_stand_still(waits.stream_idle.or(silence), count);
            let (status, from) = said(&parts, answerer, upgrade);
            Ok((status, parts.headers, (AnswerBody::hop(body, lease, held), from)))
        }
        Err(fault) => Err(pool_refusal(draft, &to, &fault)),
    }
}

/// Adds what the other proxy is told beside the request.
fn tell_proxy(draft: &Draft, headers: &mut HeaderMap, upgrade: Option<&Protocol>) -> Result<(), Box<Refusal>> {
    headers.insert(BOTMESH_CALL, call_value(draft)?);
    if let Some(protocol) = upgrade {
        headers.insert(BOTMESH_UPGRADE, protocol_value(protocol)?);
    }
    Ok(())
}

/// The status that came, and by whose word.
fn said(parts: &http::response::Parts, answerer: Answerer, upgrade: Option<Protocol>) -> (StatusCode, From) {
    match answerer {
        Answerer::Proxy => (status(parts, upgrade), From::Proxy),
        Answerer::Callee => (parts.status, From::Bot),
    }
}

/// The target of a request between proxies.
pub(super) fn uri(to: &Route, target: Bytes) -> Result<Uri, Box<Refusal>> {
    let bad = || {
        Refusal::boxed(
            Reason::BadPath,
            "the query holds a byte that no HTTP/2 request can carry",
        )
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(to.authority.clone());
    uri.path_and_query = Some(PathAndQuery::from_maybe_shared(target).map_err(|_invalid| bad())?);
    Uri::from_parts(uri).map_err(|_invalid| bad())
}

/// What the other proxy says with 200 of a callee that has switched is 101 (RFC 9113 §8.6).
fn status(parts: &http::response::Parts, asked: Option<Protocol>) -> StatusCode {
    let switched = asked.is_some_and(|asked| switches_to(&parts.headers, &asked));
    if switched && parts.status == StatusCode::OK {
        StatusCode::SWITCHING_PROTOCOLS
    } else {
        parts.status
    }
}

/// Tells whether the other proxy says that the callee has switched.
fn switches_to(headers: &HeaderMap, asked: &Protocol) -> bool {
    let said = headers.get(BOTMESH_UPGRADE);
    said.is_some_and(|said| Protocol::parse(said.as_bytes()).is_some_and(|said| said == *asked))
}

/// Waits as long as something of the request moves, and `limit` after that. By reference: a future that is handed over
/// is kept twice.
pub(super) async fn within<T>(
    patience: &mut Deadline,
    limit: Duration,
    count: &RequestCount,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut seen = count.get();
    loop {
        patience.set(limit);
        if let Some(done) = patience.race(work.as_mut()).await {
            return Some(done);
        }
        let moved = count.get();
        if moved == seen {
            return None;
        }
        seen = moved;
    }
}

pub(super) fn call_value(draft: &Draft) -> Result<HeaderValue, Box<Refusal>> {
    HeaderValue::from_maybe_shared(Bytes::from(draft.record.id.to_string()))
        .map_err(|_invalid| Refusal::boxed(Reason::BadRequest, "the call has no id"))
}

pub(super) fn pool_refusal(draft: &Draft, to: &Route, fault: &PoolFault) -> Box<Refusal> {
    tracing::info!(callee = %to.bot, error = fault as &dyn std::error::Error, "the proxy of another host failed");
    let refusal = |reason, detail: &'static str| Refusal::boxed(reason, detail);
    match fault {
        PoolFault::WrongId { .. } => refusal(Reason::PeerMismatch, "somebody else answers at the callee's address"),
        PoolFault::Refused { .. } => refusal(Reason::PeerMismatch, "whoever answers there proved nothing"),
        PoolFault::Connect { .. }
        | PoolFault::Handshake { .. }
        | PoolFault::Protocol { .. }
        | PoolFault::Ejected { .. }
        | PoolFault::NoAddress => refusal(Reason::PeerUnreachable, "the proxy of its host cannot be reached"),
        PoolFault::Config { .. } => refusal(Reason::NoIdentity, "its identity cannot be used"),
        PoolFault::Exchange { source } if broken_by_caller(source) => {
            refusal(Reason::BadRequest, "the body did not come as its head says")
        }
        PoolFault::Exchange { .. } => refusal(Reason::PeerUnreachable, "the proxy of its host broke off"),
        PoolFault::Cut { reason } => refusal(
            *reason,
            "the host of the bot that is called, or the call itself, is cut off",
        ),
        PoolFault::Pending => accept::full(draft, Bound::Pending),
        PoolFault::Full => refusal(Reason::Overloaded, "too many calls to that host are under way"),
        PoolFault::Slow => refusal(Reason::Timeout, "it took longer than is waited for"),
    }
}
