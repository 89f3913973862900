//! The way to a bot of this host.

use std::fmt;
use std::sync::Arc;

use audit::Receipt;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use policy::{Destination, Permit, Protocol, ServeKind, Target};

use super::super::body::{AnswerBody, RequestBody, RequestError};
use super::super::draft::Draft;
use super::super::headers::{self, CALLER, CLIENT_CERT};
use super::super::identify::Who;
use super::super::normalize::Rest;
use super::super::refusal::Refusal;
use super::super::route::Route;
use super::{At, Came, From, ended, hold, patience, protocol_value, request_of, target};
use crate::callee::{Again, CalleeFault, CalleeRequest, StreamRequest, Switched, Whom, Wish};
use crate::live::{Held, Lane};
use crate::reason::Reason;
use crate::upstream::Admitted;

/// Whom the callee is told about, and where it listens.
pub(super) struct Towards<'a> {
    pub(super) who: &'a Who,
    pub(super) at: At,
    /// The place of the call among those to the callee.
    pub(super) admitted: &'a Admitted,
}

pub(super) async fn to_callee(
    draft: &Draft,
    permit: Permit,
    _receipt: Receipt,
    rest: Rest<Arc<Route>>,
    towards: Towards<'_>,
) -> Result<Came, Box<Refusal>> {
    let Towards { who, at, admitted } = towards;
    let place = &at.target;
    let Rest {
        to,
        method,
        query,
        mut headers,
        body,
    } = rest;
    headers.insert(CALLER, who.header.clone());
    headers.insert(CLIENT_CERT, client_cert(draft, who, &to)?);
    let call = permit.into_call();
    let ask = request_of(&call)?;
    let (target, upgrade) = (target(&ask.path, query.as_ref()), ask.upgrade.clone());
    let held = hold(draft, who, call)?;
    let proxy = draft.proxy();
    let (waits, count) = (draft.snapshot.mesh.destination(&to.bot), body.count());
    if at.kind == ServeKind::Grpc {
        admitted.tried();
        // Few hosts have such callees, and every connection would keep the room.
        let callee = Streaming {
            to: &to,
            place,
            held,
            waits,
        };
        return Box::pin(stream(draft, callee, (method, target, headers, body))).await;
    }
    fields_of_http1(&mut headers, &to.host, upgrade.as_ref())?;
    let request = CalleeRequest {
        method,
        target,
        headers,
        patience: waits.request_timeout.unwrap_or(proxy.bounds.request),
        connect: waits.connect_timeout,
    };
    let answer = if let Some(protocol) = upgrade {
        admitted.tried();
        // Switching is rare and needs much room, which every connection would keep.
        Box::pin(switch(draft, (&to, place), (request, protocol), body, held.clone())).await?
    } else {
        let again = Again {
            admitted,
            now: proxy.upstreams.now(),
        };
        let calling = std::pin::pin!(
            proxy
                .callees
                .call(&proxy.attestor, &to.bot, place, request, body, again)
        );
        let (head, body) = match held.while_allowed(Lane::Answer, calling).await.map_err(ended)? {
            Ok(came) => came,
            Err(fault) => return Err(callee_refusal(&to.bot, &fault)),
        };
        let body = AnswerBody::callee(body, held.clone());
        (head.status, head.headers, (body, From::Bot))
    };
    held.may_stand_still(waits.stream_idle, count);
    Ok(answer)
}

/// Writes what HTTP/1.1 says in fields and HTTP/2 does not.
pub(super) fn fields_of_http1(
    headers: &mut HeaderMap,
    host: &HeaderValue,
    upgrade: Option<&Protocol>,
) -> Result<(), Box<Refusal>> {
    headers::join_cookies(headers);
    headers.insert(header::HOST, host.clone());
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol_value(protocol)?);
    }
    Ok(())
}

/// A callee that serves gRPC, and how long it is waited for.
struct Streaming<'a> {
    to: &'a Route,
    place: &'a Target,
    held: Held,
    waits: Destination,
}

/// Calls a bot that serves gRPC.
async fn stream(
    draft: &Draft,
    callee: Streaming<'_>,
    (method, target, mut headers, body): (Method, Bytes, HeaderMap, RequestBody),
) -> Result<Came, Box<Refusal>> {
    let Streaming { to, place, held, waits } = callee;
    let (proxy, count) = (draft.proxy(), body.count());
    // The proxy reads trailers, whoever calls it (RFC 9110 §10.1.4), and servers of gRPC ask for that.
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let asked = StreamRequest {
        request: CalleeRequest {
            method,
            target,
            patience: patience(draft, &waits, &headers),
            connect: waits.connect_timeout,
            headers,
        },
        authority: to.authority.clone(),
    };
    let whom = Whom {
        attestor: &proxy.attestor,
        bot: &to.bot,
        target: place,
        connect: waits.connect_timeout,
        tasks: &proxy.tasks,
    };
    let calling = std::pin::pin!(proxy.callees.stream(whom, &asked, body.held(&held)));
    let (status, headers, body) = match held.while_allowed(Lane::Answer, calling).await.map_err(ended)? {
        Ok(came) => came,
        Err(fault) => return Err(callee_refusal(&to.bot, &fault)),
    };
    let body = AnswerBody::stream(body, held.clone());
    held.may_stand_still(Some(waits.stream_idle.unwrap_or(proxy.bounds.answer_silence)), count);
    Ok((status, headers, (body, From::Bot)))
}

/// Asks to switch to another protocol, and waits for the answer to that.
async fn switch(
    draft: &Draft,
    (to, place): (&Route, &Target),
    (request, protocol): (CalleeRequest, Protocol),
    body: RequestBody,
    held: Held,
) -> Result<Came, Box<Refusal>> {
    let proxy = draft.proxy();
    let wish = Wish {
        request,
        protocol,
        held: held.clone(),
        tasks: proxy.tasks.clone(),
    };
    let body = body.held(&held);
    let switching = proxy.callees.switch(&proxy.attestor, &to.bot, place, wish, body);
    let switching = std::pin::pin!(switching);
    match held.while_allowed(Lane::Answer, switching).await.map_err(ended)? {
        Ok((head, Switched::Tunnel(body))) => {
            Ok((head.status, head.headers, (AnswerBody::tunnel(body, held), From::Bot)))
        }
        Ok((head, Switched::Not(body))) => Ok((head.status, head.headers, (AnswerBody::callee(body, held), From::Bot))),
        Err(fault) => Err(callee_refusal(&to.bot, &fault)),
    }
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

pub(super) fn callee_refusal(callee: &dyn fmt::Display, fault: &CalleeFault) -> Box<Refusal> {
    tracing::info!(%callee, error = fault as &dyn std::error::Error, "a callee failed");
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
        CalleeFault::Stream { .. } | CalleeFault::Gone { .. } => {
            refusal(Reason::PeerUnreachable, "it ended the connection without an answer")
        }
        CalleeFault::Full => refusal(Reason::Overloaded, "it takes no more calls at a time"),
        CalleeFault::Target => refusal(
            Reason::BadPath,
            "the query holds a byte that no HTTP/2 request can carry",
        ),
        CalleeFault::Slow => refusal(Reason::Timeout, "it took longer than is waited for"),
        CalleeFault::Caller {
            source: RequestError::Cut {
                reason: reason @ Reason::SecretInRequest,
            },
        } => refusal(*reason, "the proxy adds it where it belongs, and nobody else sends it"),
        CalleeFault::Caller { .. } | CalleeFault::Length => {
            refusal(Reason::BadRequest, "the body did not come as its head says")
        }
    }
}
