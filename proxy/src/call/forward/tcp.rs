//! The ways onward of a connection of which nothing is read.

use std::sync::Arc;
use std::time::Duration;

use audit::Receipt;
use bytes::Bytes;
use http::header::HeaderMap;
use http::{HeaderValue, Method, Request, StatusCode, Version};
use policy::{Permit, What};

use super::super::body::AnswerBody;
use super::super::draft::Draft;
use super::super::end::End;
use super::super::headers::{BOTMESH_CALL, BOTMESH_DENIED, BOTMESH_TCP};
use super::super::identify::{Door, Who};
use super::super::normalize::Rest;
use super::super::refusal::Refusal;
use super::super::route::Route;
use super::across::{Across, Answerer, call_value, pool_refusal, uri, within};
use super::bot::{Towards, callee_refusal};
use super::{Came, From, Leg, admit, as_callee, ended, hold, wants_introduction};
use crate::callee::{Introduction, Opaque};
use crate::http1::deadline::Deadline;
use crate::live::Lane;
use crate::pool::{Peer, PoolFault, Streams};
use crate::reason::Reason;

/// How long nothing may move where the mesh does not say: an application keeps connections for later, and a host that is
/// gone is found otherwise.
const IDLE: Duration = Duration::from_hours(1);

/// Takes the way that was chosen.
pub(super) async fn onward(
    draft: &Draft,
    door: &Door,
    who: &Who,
    next: Leg,
    (permit, receipt, rest): (Permit, Receipt, Rest<Arc<Route>>),
    (end, patience): (&mut End, &mut Deadline),
) -> Result<Came, Box<Refusal>> {
    match next {
        Leg::Callee(at) => {
            let admitted = end.admitted();
            to_callee(draft, door, permit, receipt, rest, Towards { who, at, admitted }).await
        }
        Leg::Local(at, serial) => {
            let (permit, receipt) = as_callee(draft, (who, &rest.to), permit, &receipt, serial, end).await?;
            let admitted = end.admitted_by_callee();
            to_callee(draft, door, permit, receipt, rest, Towards { who, at, admitted }).await
        }
        Leg::Own(..) => Err(Refusal::boxed(
            Reason::PeerUnreachable,
            "it opens its own TLS and serves no TCP",
        )),
        Leg::Mesh(svid, addresses) => {
            let admitted = end.admitted();
            let towards = Across {
                who,
                svid,
                addresses,
                peer: Answerer::Proxy,
                admitted,
            };
            across(draft, permit, receipt, rest, towards, patience).await
        }
    }
}

/// Connects to a bot of this host.
async fn to_callee(
    draft: &Draft,
    door: &Door,
    permit: Permit,
    _receipt: Receipt,
    rest: Rest<Arc<Route>>,
    towards: Towards<'_>,
) -> Result<Came, Box<Refusal>> {
    let Towards { who, at, admitted } = towards;
    admitted.tried();
    let Rest { to, body, .. } = rest;
    let held = hold(draft, who, permit.into_call())?;
    let proxy = draft.proxy();
    let (waits, count) = (draft.snapshot.mesh.destination(&to.bot), body.count());
    let addresses = match door {
        Door::Peer { addresses, .. } => *addresses,
        Door::Bot { .. } | Door::Nobody(_) => None,
    };
    let introduction = wants_introduction(draft, &to).then(|| Introduction {
        caller: who.id.clone(),
        addresses,
    });
    let line = Opaque {
        target: at.target,
        connect: waits.connect_timeout,
        introduction,
        held: held.clone(),
        tasks: proxy.tasks.clone(),
    };
    let opening = std::pin::pin!(proxy.callees.open(&proxy.attestor, &to.bot, line, body.held(&held)));
    let opened = held.while_allowed(Lane::Answer, opening).await.map_err(ended)?;
    let body = opened.map_err(|fault| callee_refusal(&to.bot, &fault))?;
    held.may_stand_still(Some(waits.stream_idle.unwrap_or(IDLE)), count);
    let body = AnswerBody::tunnel(body, held);
    Ok((StatusCode::OK, HeaderMap::new(), (body, From::Bot)))
}

/// Asks the proxy of the callee's host to connect: by a request whose two bodies are the two directions.
///
/// It asks for `*`, which is no path: a proxy that does not know the field refuses it as one.
async fn across(
    draft: &Draft,
    permit: Permit,
    _receipt: Receipt,
    rest: Rest<Arc<Route>>,
    towards: Across<'_>,
    patience: &mut Deadline,
) -> Result<Came, Box<Refusal>> {
    let Rest {
        to, mut headers, body, ..
    } = rest;
    let Across {
        who,
        svid,
        addresses,
        // What is behind a port over mutual TLS of its own is not carried.
        peer: _,
        admitted,
    } = towards;
    let call = permit.into_call();
    let What::Tcp { port } = call.what else {
        return Err(Refusal::boxed(Reason::BadRequest, "the call is no connection"));
    };
    let held = hold(draft, who, call)?;
    headers.insert(BOTMESH_CALL, call_value(draft)?);
    headers.insert(BOTMESH_TCP, HeaderValue::from(port));
    let count = body.count();
    let mut request = Request::new(body.held(&held));
    *request.method_mut() = Method::OPTIONS;
    *request.uri_mut() = uri(&to, Bytes::from_static(b"*"))?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    let proxy = draft.proxy();
    let waits = draft.snapshot.mesh.destination(&to.bot);
    let peer = Peer {
        svid: &svid,
        callee: &to.id,
        bundle: &draft.snapshot.bundle,
        connect: waits.connect_timeout,
        addresses: &addresses,
        streams: Streams::Connections,
        admitted,
        // Its caller's bytes are gone once they were sent.
        retries: 0,
        pending: admit::most_pending(&waits),
    };
    let answered = {
        let calling = std::pin::pin!(proxy.pool.call(proxy, peer, request, &held));
        let calling = std::pin::pin!(within(patience, proxy.bounds.request, &count, calling));
        held.while_allowed(Lane::Answer, calling).await
    };
    let answered = answered.map_err(ended)?.unwrap_or(Err(PoolFault::Slow));
    let (answer, lease) = answered.map_err(|fault| pool_refusal(draft, &to, &fault))?;
    let (mut parts, body) = answer.into_parts();
    let opened = parts.status == StatusCode::OK && says(&parts.headers, port);
    if !opened && !parts.headers.contains_key(BOTMESH_DENIED) {
        let detail = "the proxy of its host opened no connection";
        return Err(Refusal::boxed(Reason::PeerUnreachable, detail));
    }
    if opened {
        parts.headers = HeaderMap::new();
        held.may_stand_still(Some(waits.stream_idle.unwrap_or(IDLE)), count);
    }
    let body = AnswerBody::hop(body, lease, held);
    Ok((parts.status, parts.headers, (body, From::Proxy)))
}

/// Tells whether the other proxy says that it opened the very connection that it was asked for.
fn says(headers: &HeaderMap, port: u16) -> bool {
    let mut said = headers.get_all(BOTMESH_TCP).iter();
    let (Some(said), None) = (said.next(), said.next()) else {
        return false;
    };
    *said == HeaderValue::from(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_open_where_the_other_proxy_says_that_very_port() {
        let says = |values: &[&'static str]| {
            let values = values
                .iter()
                .map(|value| (BOTMESH_TCP, HeaderValue::from_static(value)));
            says(&HeaderMap::from_iter(values), 5432)
        };
        assert!(says(&["5432"]));
        assert!(!says(&[]) && !says(&["5433"]) && !says(&["05432"]) && !says(&["5432", "5432"]));
    }
}
