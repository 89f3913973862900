//! One call, in seven steps, a file each, called in order from this page.
//!
//! [`accept`] (bounds) → [`identify`] (attested bot, or SVID of a peer) → [`normalize`] (one reading of method, path
//! and headers) → [`authorize`] (`Permit` or refusal) → [`record`] (`Receipt`, or `ledger_unavailable`) → [`forward`]
//! (consumes both) → [`respond`] (one table turns a refusal into a status; the end is recorded with the last byte).

mod accept;
mod authorize;
mod body;
mod draft;
mod end;
mod forward;
mod headers;
mod id;
mod identify;
mod limit;
mod normalize;
mod record;
mod refusal;
mod respond;
mod route;
mod tell;
mod turn;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use policy::Protocol;

pub(crate) use body::{AnswerBody, AnswerError, HopBody, HopError, Later, RequestBody, RequestCount, RequestError};
pub(crate) use end::{CALLER_GONE, End};
pub(crate) use headers::{BOTMESH_TCP, BOTMESH_UPGRADE, is_browser_shaped, is_hop_by_hop};
pub(crate) use id::{mint, push_hex};
pub(crate) use identify::{Door, Nobody, Who};
pub(crate) use refusal::Refusal;
pub(crate) use route::{Called, OutsideRoute, Route, Routes, To};
pub(crate) use turn::Turn;

use crate::http1::deadline::Deadline;
use crate::http1::head::HeadError;
use crate::proxy::Proxy;
use crate::reason::Reason;
use draft::Draft;
use forward::Allowed;
use normalize::Plain;

/// A request, as its connection gives it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Whom it is for, or why it is for nobody.
    pub(crate) to: Result<To, Box<Refusal>>,
    pub(crate) method: Method,
    /// Path and query, as they came.
    pub(crate) target: Bytes,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// What the caller asks to switch to.
    pub(crate) upgrade: Option<Protocol>,
    /// Whether its caller reads answers as a client of gRPC does.
    pub(crate) grpc: bool,
}

/// A connection of which nothing is read, as its listener, its CONNECT or its stream gives it.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Whom it is for, or why it is for nobody.
    pub(crate) to: Result<To, Box<Refusal>>,
    /// The port there.
    pub(crate) port: u16,
    /// Of the request that asks for it, where it is one.
    pub(crate) headers: HeaderMap,
    /// The caller's direction.
    pub(crate) body: RequestBody,
}

/// An answer, as its connection writes it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: AnswerBody,
    /// Whether the connection must end with it.
    pub(crate) last: bool,
}

/// Carries one call from its head to its answer.
///
/// `patience` is the connection's own deadline, so that no call needs a timer of its own.
pub(crate) async fn serve(proxy: &Arc<Proxy>, door: &Door, asked: Asked, patience: &mut Deadline) -> Answer {
    let Ok(mut draft) = accept::begin(proxy, door) else {
        return respond::unnamed(proxy, door);
    };
    match attempt(&mut draft, door, asked, patience).await {
        Ok(answer) => answer,
        Err(refusal) => respond::refuse(draft, door, *refusal),
    }
}

async fn attempt(
    draft: &mut Draft,
    door: &Door,
    asked: Asked,
    patience: &mut Deadline,
) -> Result<Answer, Box<Refusal>> {
    draft.speaks_grpc(asked.grpc);
    accept::accept(draft)?;
    let who = identify::identify(draft, door)?;
    let plain = normalize::normalize(draft, who, asked)?;
    carry(draft, door, who, plain, patience).await
}

/// Opens a connection of which nothing is read: one call, whatever passes through it. An answer of 200 has the callee's
/// direction as its body; any other is a refusal.
pub(crate) async fn open(proxy: &Arc<Proxy>, door: &Door, opening: Opening, patience: &mut Deadline) -> Answer {
    let Ok(mut draft) = accept::begin(proxy, door) else {
        return respond::unnamed(proxy, door);
    };
    draft.record.protocol = match &opening.to {
        Ok(To::Outside(_)) => audit::Protocol::Tls,
        Ok(To::Bot(_)) | Err(_) => audit::Protocol::Tcp,
    };
    let opened = match begin_opening(&mut draft, door, opening) {
        Ok((who, plain)) => carry(&mut draft, door, who, plain, patience).await,
        Err(refusal) => Err(refusal),
    };
    match opened {
        Ok(answer) => answer,
        Err(refusal) => respond::refuse(draft, door, *refusal),
    }
}

/// Begins a session of PostgreSQL, which is one call, by the start-up that goes with the body.
pub(crate) async fn begin_session(proxy: &Arc<Proxy>, door: &Door, opening: Opening) -> Answer {
    let Ok(mut draft) = accept::begin(proxy, door) else {
        return respond::unnamed(proxy, door);
    };
    draft.record.protocol = audit::Protocol::Postgres;
    if let Some(start) = opening.body.start() {
        draft.record.path = start.database.as_str().to_owned();
    }
    let begun = match begin_opening(&mut draft, door, opening) {
        Ok((who, plain)) => carry(&mut draft, door, who, plain, &mut Deadline::default()).await,
        Err(refusal) => Err(refusal),
    };
    match begun {
        Ok(answer) => answer,
        Err(refusal) => respond::refuse(draft, door, *refusal),
    }
}

fn begin_opening<'a>(draft: &mut Draft, door: &'a Door, opening: Opening) -> Result<(&'a Who, Plain), Box<Refusal>> {
    draft.record.port = Some(opening.port);
    accept::accept(draft)?;
    let who = identify::identify(draft, door)?;
    Ok((who, normalize::opening(draft, who, opening)?))
}

async fn carry(
    draft: &mut Draft,
    door: &Door,
    who: &Who,
    plain: Plain,
    patience: &mut Deadline,
) -> Result<Answer, Box<Refusal>> {
    let (permit, rest) = authorize::authorize(draft, who, plain)?;
    let (next, admitted) = forward::choose(draft, door, who, &permit, &rest)?;
    let (receipt, end) = record::record(draft, &permit, (next.kind(), admitted), rest.body.count()).await?;
    let allowed = Allowed {
        permit,
        receipt,
        end,
        rest,
    };
    let reached = forward::forward(draft, door, who, next, allowed, patience).await?;
    Ok(respond::answer(draft, reached))
}

/// Refuses a request whose head could not be read.
pub(crate) fn refuse_head(proxy: &Arc<Proxy>, door: &Door, error: HeadError) -> Answer {
    let Ok(mut draft) = accept::begin(proxy, door) else {
        return respond::unnamed(proxy, door);
    };
    let refusal = match identify::identify(&mut draft, door) {
        Ok(_) => Refusal::new(Reason::BadRequest, error.to_string()),
        Err(refusal) => *refusal,
    };
    Answer {
        last: true,
        ..respond::refuse(draft, door, refusal)
    }
}

/// Refuses a request that is no call: one that would open a tunnel, say.
pub(crate) fn refuse(proxy: &Arc<Proxy>, door: &Door, method: &Method, refusal: Box<Refusal>) -> Answer {
    let Ok(mut draft) = accept::begin(proxy, door) else {
        return respond::unnamed(proxy, door);
    };
    draft.record.method = method.as_str().to_owned();
    let refusal = match identify::identify(&mut draft, door) {
        Ok(_) => refusal,
        Err(refusal) => refusal,
    };
    respond::refuse(draft, door, *refusal)
}
