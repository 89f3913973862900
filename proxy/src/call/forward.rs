//! Step 6: the call goes where the permit says, and only with a receipt.

mod across;
mod admit;
mod bot;
mod outside;
mod own;
mod postgres;
mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use audit::{CallRecord, Direction, Hop, Receipt, Verdict};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::HeaderMap;
use http::{HeaderValue, StatusCode};
use policy::{CanonicalPath, Destination, Endpoint, HttpAsk, Permit, Protocol, Serve, ServeKind, Target, What};
use spiffe::svid::Serial;
use spiffe_tls::Svid;
use tokio::time::Instant;

use super::body::AnswerBody;
use super::draft::Draft;
use super::end::{End, Half};
use super::headers::BOTMESH_DENIED;
use super::id;
use super::identify::{Door, Who};
use super::limit;
use super::normalize::Rest;
use super::refusal::Refusal;
use super::route::{OutsideRoute, Route, To};
use super::turn;
use crate::config::LocalHop;
use crate::grpc;
use crate::http1::deadline::Deadline;
use crate::live::{Granted, Held, Subject};
use crate::metrics::{SeriesKey, Way};
use crate::reason::{Reason, Side};
use crate::upstream::Admitted;
pub(super) use outside::secret_in_request;

use across::{Across, Answerer, across};
use admit::Outcome;
use bot::{Towards, to_callee};

/// How long after the deadline of a call of gRPC its ends may tell of it themselves.
const DEADLINE_GRACE: Duration = Duration::from_secs(5);

/// Where a bot of this host listens, and what is spoken there.
#[derive(Debug)]
pub(super) struct At {
    pub(super) target: Target,
    pub(super) kind: ServeKind,
}

/// Where a call goes next.
#[derive(Debug)]
pub(super) enum Next {
    /// To a bot.
    Bot(Arc<Route>, Leg),
    /// Out of the mesh.
    Outside(Arc<OutsideRoute>),
}

/// The way to a bot.
#[derive(Debug)]
pub(super) enum Leg {
    /// To the bot, which is on this host: the call came from a peer.
    Callee(At),
    /// To the bot, which is on this host as the caller is: this proxy is both ends.
    Local(At, Option<Serial>),
    /// To the proxy of the callee's host.
    Mesh(Arc<Svid>, Vec<SocketAddr>),
    /// To the bot, which opens its own mutual TLS.
    Own(Arc<Svid>, Vec<Endpoint>),
}

impl Next {
    pub(super) const fn kind(&self) -> Hop {
        match self {
            Self::Bot(_, Leg::Callee(_) | Leg::Mesh(..) | Leg::Own(..)) => Hop::Mtls,
            Self::Bot(_, Leg::Local(..)) => Hop::Local,
            Self::Outside(_) => Hop::Outside,
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

/// Finds out where the call goes and whether there is room for it on the way, before it is recorded.
pub(super) fn choose(
    draft: &mut Draft,
    door: &Door,
    who: &Who,
    permit: &Permit,
    rest: &Rest,
) -> Result<(Next, Admitted), Box<Refusal>> {
    let next = match &rest.to {
        To::Bot(route) => Next::Bot(Arc::clone(route), find(draft, door, who, permit, route)?),
        To::Outside(route) => outside::may_leave(draft, who).map(|()| Next::Outside(Arc::clone(route)))?,
    };
    let admitted = admit::admit(draft, door.way(), &who.bot, &rest.to)?;
    Ok((next, admitted))
}

fn find(draft: &mut Draft, door: &Door, who: &Who, permit: &Permit, to: &Route) -> Result<Leg, Box<Refusal>> {
    let at = local_at(draft, to, &permit.call().what);
    if let Door::Peer { proven, .. } = door {
        draft.record.to.serial = Some(proven.own().serial);
        let nothing = || Refusal::boxed(Reason::PeerUnreachable, "the bot serves nothing on this host");
        return at.map(Leg::Callee).ok_or_else(nothing);
    }
    let svid = own_svid(draft, who)?;
    if let Some(endpoints) = draft.snapshot.own_endpoints(&to.bot) {
        return Ok(Leg::Own(svid, endpoints.to_vec()));
    }
    let callee = draft.proxy().control.svid(&to.bot);
    let local = draft.proxy().local_hop == LocalHop::Direct;
    if let (true, Some(at), Some(callee)) = (local, at, callee) {
        return Ok(Leg::Local(at, Some(*callee.leaf().serial())));
    }
    match draft.snapshot.endpoints.get(&to.bot) {
        Some(addresses) if !addresses.is_empty() => Ok(Leg::Mesh(svid, addresses.clone())),
        Some(_) | None if draft.snapshot.may_be_on_quarantined_host(&to.bot) => Err(Refusal::boxed(
            Reason::Quarantined,
            "every host that serves it is quarantined or away",
        )),
        Some(_) | None => Err(Refusal::boxed(
            Reason::PeerUnreachable,
            "no host serves it at the moment",
        )),
    }
}

/// The SVID of a caller of this host, without which it makes no call.
fn own_svid(draft: &mut Draft, who: &Who) -> Result<Arc<Svid>, Box<Refusal>> {
    let svid = draft.proxy().control.svid(&who.bot);
    let svid = svid.ok_or_else(|| {
        Refusal::boxed(
            Reason::NoIdentity,
            "the CA has given it none yet, or its last one ended",
        )
    })?;
    draft.record.from.serial = Some(*svid.leaf().serial());
    Ok(svid)
}

/// Where a bot that this host may claim listens on it for what is asked for.
fn local_at(draft: &Draft, to: &Route, what: &What) -> Option<At> {
    let bot = draft.snapshot.mesh.bots().get(&to.bot)?;
    let serve = bot.serve.as_ref()?;
    let target = match (serve, what) {
        (Serve::Http(target) | Serve::Grpc(target), What::Http(_)) => target,
        (Serve::Tcp(serve), What::Tcp { port }) => serve.ports.get(port)?,
        (
            Serve::Http(_) | Serve::Grpc(_) | Serve::Tcp(_),
            What::Http(_) | What::Tcp { .. } | What::Tls | What::Postgres { .. },
        ) => return None,
    };
    let elsewhere = matches!(target, Target::Elsewhere | Target::Endpoints(_));
    let here = bot.may_run_on(&draft.snapshot.host) && !elsewhere;
    here.then(|| At {
        kind: serve.kind(),
        target: target.clone(),
    })
}

/// Tells whether a bot wants to be told first whose connection it gets.
fn wants_introduction(draft: &Draft, to: &Route) -> bool {
    let bot = draft.snapshot.mesh.bots().get(&to.bot);
    matches!(bot.and_then(|bot| bot.serve.as_ref()), Some(Serve::Tcp(serve)) if serve.proxy_protocol)
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
    let (route, next) = match next {
        Next::Bot(route, leg) => (route, leg),
        Next::Outside(route) => {
            let (to, rest) = rest.with(route);
            // Boxed: the way out needs much room, and every connection of a bot would keep it.
            let way = outside::onward(draft, (door, who), (permit, receipt, rest), &mut end);
            let reached = Box::pin(way).await;
            return finish(draft, (door, who, &to), end, started.elapsed(), reached);
        }
    };
    let (to, rest) = rest.with(route);
    // Not parted further: each step that waits would keep the request a second time.
    let reached = if matches!(permit.call().what, What::Tcp { .. }) {
        // Boxed: it is begun once, and every connection of a bot would keep its room.
        let way = tcp::onward(draft, door, who, next, (permit, receipt, rest), (&mut end, patience));
        Box::pin(way).await
    } else {
        match next {
            Leg::Callee(at) => {
                let admitted = end.admitted();
                to_callee(draft, permit, receipt, rest, Towards { who, at, admitted }).await
            }
            Leg::Local(at, serial) => match as_callee(draft, (who, &rest.to), permit, &receipt, serial, &mut end).await
            {
                Ok((permit, receipt)) => {
                    let admitted = end.admitted_by_callee();
                    to_callee(draft, permit, receipt, rest, Towards { who, at, admitted }).await
                }
                Err(refusal) => Err(refusal),
            },
            Leg::Mesh(svid, addresses) => {
                let towards = Across {
                    who,
                    svid,
                    addresses,
                    peer: Answerer::Proxy,
                    admitted: end.admitted(),
                };
                across(draft, permit, receipt, rest, towards, patience).await
            }
            Leg::Own(svid, endpoints) => {
                // Boxed: few callees are such, and every connection of a bot would keep its room.
                let way = own::onward(draft, who, (svid, endpoints), (permit, receipt, rest), (&end, patience));
                Box::pin(way).await
            }
        }
    };
    finish(draft, (door, who, &to), end, started.elapsed(), reached)
}

/// Notes how the call went, for its record and for those that come after it.
fn finish(
    draft: &Draft,
    (door, who, to): (&Door, &Who, &To),
    mut end: End,
    took: Duration,
    reached: Result<Came, Box<Refusal>>,
) -> Result<Reached, Box<Refusal>> {
    match reached {
        Ok((status, headers, (body, from))) => {
            end.answered(status, took);
            if draft.grpc {
                end.is_of_grpc(&headers);
            }
            let denied = headers.contains_key(BOTMESH_DENIED) && matches!(from, From::Proxy);
            // A refusal of gRPC has its status beside HTTP's.
            let told = grpc::Status::read(&headers).filter(|_| denied && draft.grpc);
            let judged = told.map_or(status, grpc::Status::http);
            let outcome = Outcome::Answered { status: judged, denied };
            admit::judge(draft, who, to, end.admitted(), outcome);
            Ok(Reached {
                status,
                headers,
                body,
                denied,
                end,
            })
        }
        Err(refusal) => {
            admit::judge(draft, who, to, end.admitted(), Outcome::Failed(refusal.reason));
            end.failed(refusal.reason.status(door.side()), refusal.reason);
            if draft.grpc {
                end.grpc(grpc::Status::of(refusal.reason));
            }
            Err(refusal.to(to))
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
async fn as_callee(
    draft: &Draft,
    (who, to): (&Who, &Arc<Route>),
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
        Ok(permit) => limit::admit(draft, &permit, &who.bot)
            .and_then(|()| admit::admit(draft, Way::In, &who.bot, &to.into()))
            .map(|admitted| (permit, admitted)),
        Err(refusal) => Err(refusal),
    };
    let (permit, admitted) = permit.map_err(|refusal| refused_as_callee(draft, record.clone(), refusal))?;
    let staged = proxy.ledger.stage(&record);
    let staged = staged.map_err(|error| super::record::unrecorded(&error))?;
    // Handed over, it needs no room in what waits.
    drop(record);
    let mut series = draft.series.clone();
    series.way = Way::In;
    end.join(Half { id, series, admitted });
    let written = turn::written(proxy, staged).await;
    let receipt = written.map_err(|error| {
        end.part();
        super::record::unrecorded(&error)
    })?;
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

/// Enters the call among those that are decided again with each change.
fn hold(draft: &Draft, who: &Who, call: policy::Call) -> Result<Held, Box<Refusal>> {
    hold_as(draft, who, call, None)
}

/// The same for what goes on as somebody.
fn hold_as(draft: &Draft, who: &Who, call: policy::Call, granted: Option<Box<Granted>>) -> Result<Held, Box<Refusal>> {
    let subject = Subject {
        call,
        from: who.bot.clone(),
        from_proven: who.proven.clone(),
        granted,
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

/// The request that was decided on. Another call than a request never comes here.
fn request_of(call: &policy::Call) -> Result<&HttpAsk, Box<Refusal>> {
    call.http()
        .ok_or_else(|| Refusal::boxed(Reason::BadRequest, "the call is no request"))
}

/// How long the head of an answer is waited for while nothing of the request moves.
///
/// In gRPC it may come with the first message of a stream, which is the bots' own affair: there the caller's deadline
/// counts, and without one the bound on silence. The ends keep a deadline themselves; the proxy waits a little longer.
fn patience(draft: &Draft, waits: &Destination, headers: &HeaderMap) -> Duration {
    let bounds = &draft.proxy().bounds;
    match waits.request_timeout {
        Some(said) => said,
        None if !draft.grpc => bounds.request,
        None => {
            let deadline = grpc::timeout(headers).map(|deadline| deadline.saturating_add(DEADLINE_GRACE));
            deadline.map_or(bounds.answer_silence, |deadline| deadline.min(bounds.answer_silence))
        }
    }
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

fn protocol_value(protocol: &Protocol) -> Result<HeaderValue, Box<Refusal>> {
    HeaderValue::from_str(protocol.as_str())
        .map_err(|_invalid| Refusal::boxed(Reason::BadRequest, "the protocol is no field value"))
}
