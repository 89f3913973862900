//! Step 6: the call goes where the permit says, and only with a receipt.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use audit::{CallRecord, Direction, Hop, Receipt, Verdict};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, StatusCode, Uri, Version};
use policy::{CanonicalPath, Permit, Protocol, Serve, Target};
use spiffe::svid::Serial;
use spiffe_tls::Svid;
use tokio::time::Instant;

use super::body::{AnswerBody, RequestCount};
use super::draft::Draft;
use super::end::{End, Half};
use super::headers::{self, BOTMESH_CALL, BOTMESH_DENIED, BOTMESH_UPGRADE, CALLER, CLIENT_CERT};
use super::id;
use super::identify::{Door, Who};
use super::limit;
use super::normalize::Rest;
use super::refusal::Refusal;
use super::route::Route;
use crate::callee::{CalleeFault, CalleeRequest, Switched, Wish};
use crate::config::LocalHop;
use crate::http1::deadline::Deadline;
use crate::live::{Held, Lane, Subject};
use crate::metrics::{SeriesKey, Way};
use crate::pool::{Peer, PoolFault};
use crate::reason::{Reason, Side};

/// Where a call goes next.
#[derive(Debug)]
pub(super) enum Next {
    /// To the bot, which is on this host: the call came from a peer.
    Callee(Target),
    /// To the bot, which is on this host as the caller is: this proxy is both ends.
    Local(Target, Option<Serial>),
    /// To the proxy of the callee's host.
    Mesh(Arc<Svid>, Vec<SocketAddr>),
}

impl Next {
    pub(super) const fn kind(&self) -> Hop {
        match self {
            Self::Callee(_) | Self::Mesh(..) => Hop::Mtls,
            Self::Local(..) => Hop::Local,
        }
    }
}

/// An answer that came, not yet fit for the caller.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: AnswerBody,
    /// Whether it is a refusal of the callee's proxy.
    pub(super) denied: bool,
    pub(super) end: End,
}

/// Finds out where the call goes, before it is recorded.
pub(super) fn choose(draft: &mut Draft, door: &Door, who: &Who, rest: &Rest) -> Result<Next, Box<Refusal>> {
    let target = local_target(draft, &rest.to);
    if let Door::Peer { proven, .. } = door {
        draft.record.to.serial = Some(proven.own().serial);
        let nothing = || Refusal::boxed(Reason::PeerUnreachable, "the bot serves nothing on this host");
        return target.map(Next::Callee).ok_or_else(nothing);
    }
    let proxy = draft.proxy();
    let svid = proxy.control.svid(&who.bot);
    let svid = svid.ok_or_else(|| {
        Refusal::boxed(
            Reason::NoIdentity,
            "the CA has given it none yet, or its last one ended",
        )
    })?;
    let callee = proxy.control.svid(&rest.to.bot);
    let local = proxy.local_hop == LocalHop::Direct;
    draft.record.from.serial = Some(*svid.leaf().serial());
    if let (true, Some(target), Some(callee)) = (local, target, callee) {
        return Ok(Next::Local(target, Some(*callee.leaf().serial())));
    }
    match draft.snapshot.endpoints.get(&rest.to.bot) {
        Some(addresses) if !addresses.is_empty() => Ok(Next::Mesh(svid, addresses.clone())),
        Some(_) | None if draft.snapshot.may_be_on_quarantined_host(&rest.to.bot) => Err(Refusal::boxed(
            Reason::Quarantined,
            "every host that serves it is quarantined or away",
        )),
        Some(_) | None => Err(Refusal::boxed(
            Reason::PeerUnreachable,
            "no host serves it at the moment",
        )),
    }
}

/// Where a bot that this host may claim serves on it.
fn local_target(draft: &Draft, to: &Route) -> Option<Target> {
    let bot = draft.snapshot.mesh.bots().get(&to.bot)?;
    let Serve::Http(target) = bot.serve.as_ref()?;
    let here = bot.may_run_on(&draft.snapshot.host) && *target != Target::Elsewhere;
    here.then(|| target.clone())
}

/// Everything that a call takes along.
#[derive(Debug)]
pub(super) struct Allowed {
    pub(super) permit: Permit,
    pub(super) receipt: Receipt,
    pub(super) end: End,
    pub(super) rest: Rest,
}

/// Carries the call to the next end and brings back its answer.
pub(super) async fn forward(
    draft: &Draft,
    door: &Door,
    who: &Who,
    next: Next,
    allowed: Allowed,
    patience: &mut Deadline,
) -> Result<Reached, Box<Refusal>> {
    let Allowed {
        permit,
        receipt,
        mut end,
        rest,
    } = allowed;
    let started = Instant::now();
    let route = Arc::clone(&rest.to);
    let reached = match next {
        Next::Callee(target) => to_callee(draft, permit, receipt, rest, Towards { who, target }).await,
        Next::Local(target, serial) => match as_callee(draft, who, permit, &receipt, serial, &mut end) {
            Ok((permit, receipt)) => to_callee(draft, permit, receipt, rest, Towards { who, target }).await,
            Err(refusal) => Err(refusal),
        },
        Next::Mesh(svid, addresses) => across(draft, permit, receipt, rest, (who, svid, addresses), patience).await,
    };
    match reached {
        Ok((status, headers, body)) => {
            end.answered(status, started.elapsed());
            let denied = headers.contains_key(BOTMESH_DENIED) && matches!(body.1, From::Proxy);
            Ok(Reached {
                status,
                headers,
                body: body.0,
                denied,
                end,
            })
        }
        Err(refusal) => {
            end.failed(refusal.reason.status(door.side()), refusal.reason);
            Err(refusal.to(&route))
        }
    }
}

/// Who wrote an answer: what a proxy says of itself a bot must not be able to say.
#[derive(Clone, Copy, Debug)]
enum From {
    Bot,
    Proxy,
}

type Came = (StatusCode, HeaderMap, (AnswerBody, From));

/// Decides and records as the callee's proxy, which this one is too.
fn as_callee(
    draft: &Draft,
    who: &Who,
    permit: Permit,
    _receipt: &Receipt,
    serial: Option<Serial>,
    end: &mut End,
) -> Result<(Permit, Receipt), Box<Refusal>> {
    let proxy = draft.proxy();
    let id = id::mint(draft.now).map_err(|_none| Refusal::boxed(Reason::Overloaded, "no randomness for an id"))?;
    let mut record = CallRecord {
        id,
        direction: Direction::In,
        peer_call: Some(draft.record.id),
        ..draft.record.clone()
    };
    record.to.serial = serial;
    let decided = draft.snapshot.policy.decide(draft.now, permit.into_call());
    let permit = match decided.map_err(|denial| Box::new(Refusal::from(denial))) {
        Ok(permit) => limit::admit(draft, &permit, &who.bot).map(|()| permit),
        Err(refusal) => Err(refusal),
    };
    let permit = permit.map_err(|refusal| refused_as_callee(draft, record.clone(), refusal))?;
    let receipt = proxy
        .ledger
        .call(&record)
        .map_err(|error| super::record::unrecorded(&error))?;
    let mut series = draft.series.clone();
    series.way = Way::In;
    end.join(Half { id, series });
    Ok((permit, receipt))
}

/// Records and counts the refusal as the callee's proxy does; the caller's half of the call has been recorded already.
fn refused_as_callee(draft: &Draft, mut record: CallRecord, refusal: Box<Refusal>) -> Box<Refusal> {
    record.verdict = Verdict::Deny;
    record.reason = Some(refusal.reason.as_str().to_owned());
    record.rule = refusal.rule.as_ref().map(|rule| rule.as_str().to_owned());
    record.nearest = refusal.nearest.as_ref().map(|nearest| nearest.rule.as_str().to_owned());
    if let Err(error) = draft.proxy().ledger.deny(&record) {
        return super::record::unrecorded(&error);
    }
    let mut key = draft.series.clone();
    key.way = Way::In;
    key.denied = Some(refusal.reason);
    key.rule.clone_from(&refusal.rule);
    key.class = SeriesKey::class_of(refusal.reason.status(Side::Mesh));
    draft.proxy().metrics.series(&key).observe(draft.started.elapsed());
    refusal
}

/// Whom the callee is told about, and where it listens.
struct Towards<'a> {
    who: &'a Who,
    target: Target,
}

async fn to_callee(
    draft: &Draft,
    permit: Permit,
    _receipt: Receipt,
    rest: Rest,
    towards: Towards<'_>,
) -> Result<Came, Box<Refusal>> {
    let Towards { who, target: place } = towards;
    let Rest {
        to,
        method,
        query,
        mut headers,
        body,
    } = rest;
    headers::join_cookies(&mut headers);
    headers.insert(header::HOST, to.host.clone());
    headers.insert(CALLER, who.header.clone());
    headers.insert(CLIENT_CERT, client_cert(draft, who, &to)?);
    let call = permit.into_call();
    let target = target(&call.path, query.as_ref());
    let upgrade = call.upgrade.clone();
    let held = hold(draft, who, call)?;
    let proxy = draft.proxy();
    let (waits, count) = (draft.snapshot.mesh.destination(&to.bot), body.count());
    if let Some(protocol) = &upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol_value(protocol)?);
    }
    let request = CalleeRequest {
        method,
        target,
        headers,
        patience: waits.request_timeout.unwrap_or(proxy.bounds.request),
        connect: waits.connect_timeout,
    };
    if let Some(protocol) = upgrade {
        let wish = Wish {
            request,
            protocol,
            tasks: proxy.tasks.clone(),
        };
        let switching = proxy
            .callees
            .switch(&proxy.attestor, &to.bot, &place, wish, body.held(&held));
        // Switching is rare and needs much room.
        let switching = Box::pin(switching);
        return match held
            .while_allowed(Lane::Answer, std::pin::pin!(switching))
            .await
            .map_err(ended)?
        {
            Ok((head, Switched::Tunnel(body))) => {
                held.may_stand_still(waits.stream_idle, count);
                Ok((head.status, head.headers, (AnswerBody::tunnel(body, held), From::Bot)))
            }
            Ok((head, Switched::Not(body))) => {
                held.may_stand_still(waits.stream_idle, count);
                Ok((head.status, head.headers, (AnswerBody::callee(body, held), From::Bot)))
            }
            Err(fault) => Err(callee_refusal(&to, &fault)),
        };
    }
    let calling = std::pin::pin!(proxy.callees.call(&proxy.attestor, &to.bot, &place, request, body));
    match held.while_allowed(Lane::Answer, calling).await.map_err(ended)? {
        Ok((head, body)) => {
            held.may_stand_still(waits.stream_idle, count);
            Ok((head.status, head.headers, (AnswerBody::callee(body, held), From::Bot)))
        }
        Err(fault) => Err(callee_refusal(&to, &fault)),
    }
}

/// Enters the call among those that are decided again with each change.
fn hold(draft: &Draft, who: &Who, call: policy::Call) -> Result<Held, Box<Refusal>> {
    let subject = Subject {
        call,
        from: who.bot.clone(),
        from_proven: who.proven.clone(),
    };
    let proxy = draft.proxy();
    proxy.live.hold(proxy, subject, &draft.snapshot).map_err(ended)
}

fn ended(reason: Reason) -> Box<Refusal> {
    if reason == Reason::Overloaded {
        return Refusal::boxed(reason, "the proxy ends and waited for the answer as long as it could");
    }
    Refusal::boxed(reason, "it was allowed when it began and is not any more")
}

/// What the callee reads of the caller's certificate, in Envoy's form; on this host there is none to hash.
fn client_cert(draft: &Draft, who: &Who, to: &Route) -> Result<HeaderValue, Box<Refusal>> {
    if let Some(shown) = &draft.shown {
        let told = shown.client_cert.clone();
        return told.ok_or_else(|| Refusal::boxed(Reason::BadRequest, "the caller's ID is no field value"));
    }
    // Neither ID holds `;`, `,`, `=` or quotes (SPIFFE-ID §2.1, §2.2), so nothing has to be quoted.
    HeaderValue::from_str(&format!("By={};URI={}", to.id, who.id))
        .map_err(|_invalid| Refusal::boxed(Reason::BadRequest, "the caller's ID is no field value"))
}

/// The request target: the very path that was decided on, and the query as it came.
fn target(path: &CanonicalPath, query: Option<&Bytes>) -> Bytes {
    let path = path.as_str().as_bytes();
    let mut target = BytesMut::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
    target.put_slice(path);
    if let Some(query) = query {
        target.put_u8(b'?');
        target.put_slice(query);
    }
    target.freeze()
}

fn callee_refusal(to: &Route, fault: &CalleeFault) -> Box<Refusal> {
    tracing::info!(callee = %to.bot, error = fault as &dyn std::error::Error, "a callee of this host failed");
    let refusal = |reason, detail: &'static str| Refusal::boxed(reason, detail);
    match fault {
        CalleeFault::Mismatch { .. } => refusal(
            Reason::CalleeMismatch,
            "another process than that bot listens there; its operator finds it in the log",
        ),
        CalleeFault::Connect { .. } => refusal(Reason::PeerUnreachable, "it does not listen"),
        CalleeFault::NotHttp { .. } | CalleeFault::Interim => refusal(
            Reason::PeerUnreachable,
            "its answer could be read in more than one way, or not at all",
        ),
        CalleeFault::Gone { .. } => refusal(Reason::PeerUnreachable, "it ended the connection without an answer"),
        CalleeFault::Slow => refusal(Reason::Timeout, "it took longer than is waited for"),
        CalleeFault::Caller { .. } | CalleeFault::Length => {
            refusal(Reason::BadRequest, "the body did not come as its head says")
        }
    }
}

/// Carries the call to the proxy of the callee's host.
async fn across(
    draft: &Draft,
    permit: Permit,
    _receipt: Receipt,
    rest: Rest,
    (who, svid, addresses): (&Who, Arc<Svid>, Vec<SocketAddr>),
    patience: &mut Deadline,
) -> Result<Came, Box<Refusal>> {
    let Rest {
        to,
        method,
        query,
        mut headers,
        body,
    } = rest;
    let bad = || {
        Refusal::boxed(
            Reason::BadPath,
            "the query holds a byte that no HTTP/2 request can carry",
        )
    };
    let call = permit.into_call();
    let target = target(&call.path, query.as_ref());
    let upgrade = call.upgrade.clone();
    let held = hold(draft, who, call)?;
    let target = PathAndQuery::from_maybe_shared(target).map_err(|_invalid| bad())?;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(to.authority.clone());
    uri.path_and_query = Some(target);
    headers.insert(BOTMESH_CALL, call_value(draft)?);
    if let Some(protocol) = &upgrade {
        headers.insert(BOTMESH_UPGRADE, protocol_value(protocol)?);
    }
    let count = body.count();
    let mut request = Request::new(body.held(&held));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_invalid| bad())?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    let proxy = draft.proxy();
    let waits = draft.snapshot.mesh.destination(&to.bot);
    let limit = waits.request_timeout.unwrap_or(proxy.bounds.request);
    let peer = Peer {
        svid: &svid,
        callee: &to.id,
        bundle: &draft.snapshot.bundle,
        connect: waits.connect_timeout,
        addresses: &addresses,
    };
    let answered = {
        let calling = proxy.pool.call(proxy, peer, request, &held);
        let calling = std::pin::pin!(within(patience, limit, &count, calling));
        held.while_allowed(Lane::Answer, calling).await
    };
    match answered.map_err(ended)?.unwrap_or(Err(PoolFault::Slow)) {
        Ok((answer, lease)) => {
            let (parts, body) = answer.into_parts();
            held.may_stand_still(waits.stream_idle, count);
            let switched = upgrade.is_some_and(|asked| switches_to(&parts.headers, &asked));
            let status = if switched && parts.status == StatusCode::OK {
                StatusCode::SWITCHING_PROTOCOLS
            } else {
                parts.status
            };
            Ok((status, parts.headers, (AnswerBody::hop(body, lease, held), From::Proxy)))
        }
        Err(fault) => Err(pool_refusal(&to, &fault)),
    }
}

fn protocol_value(protocol: &Protocol) -> Result<HeaderValue, Box<Refusal>> {
    HeaderValue::from_str(protocol.as_str())
        .map_err(|_invalid| Refusal::boxed(Reason::BadRequest, "the protocol is no field value"))
}

/// Tells whether the other proxy says that the callee has switched.
fn switches_to(headers: &HeaderMap, asked: &Protocol) -> bool {
    let said = headers.get(BOTMESH_UPGRADE);
    said.is_some_and(|said| Protocol::parse(said.as_bytes()).is_some_and(|said| said == *asked))
}

/// Waits as long as something of the request moves, and `limit` after that.
async fn within<T>(
    patience: &mut Deadline,
    limit: Duration,
    count: &RequestCount,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
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

fn call_value(draft: &Draft) -> Result<HeaderValue, Box<Refusal>> {
    HeaderValue::from_maybe_shared(Bytes::from(draft.record.id.to_string()))
        .map_err(|_invalid| Refusal::boxed(Reason::BadRequest, "the call has no id"))
}

fn pool_refusal(to: &Route, fault: &PoolFault) -> Box<Refusal> {
    tracing::info!(callee = %to.bot, error = fault as &dyn std::error::Error, "the proxy of another host failed");
    let refusal = |reason, detail: &'static str| Refusal::boxed(reason, detail);
    match fault {
        PoolFault::WrongId { .. } => refusal(Reason::PeerMismatch, "somebody else answers at the callee's address"),
        PoolFault::Refused { .. } => refusal(Reason::PeerMismatch, "whoever answers there proved nothing"),
        PoolFault::Connect { .. } | PoolFault::Handshake { .. } | PoolFault::Protocol { .. } | PoolFault::NoAddress => {
            refusal(Reason::PeerUnreachable, "the proxy of its host cannot be reached")
        }
        PoolFault::Config { .. } => refusal(Reason::NoIdentity, "its identity cannot be used"),
        PoolFault::Exchange { .. } => refusal(Reason::PeerUnreachable, "the proxy of its host broke off"),
        PoolFault::Cut { reason } => refusal(
            *reason,
            "the host of the bot that is called, or the call itself, is cut off",
        ),
        PoolFault::Full => refusal(Reason::Overloaded, "too many calls to that host are under way"),
        PoolFault::Slow => refusal(Reason::Timeout, "it took longer than is waited for"),
    }
}
