//! Calls from another proxy of this kind.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, StatusCode, Version};
use policy::Protocol;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use super::{CLOSING, CLOSING_SAID, FIELDS_OF_PROXY, open_tcp};
use crate::call::{self, Answer, Asked, BOTMESH_TCP, BOTMESH_UPGRADE, Door, RequestBody, To};
use crate::ends::Wide;
use crate::grpc;
use crate::hop::{self, Call, Called};
use crate::http1::FIELDS_MAX;
use crate::http1::deadline::Deadline;
use crate::http1::encode;
use crate::http1::framing::Framing;
use crate::http1::head::{HeadError, RequestHead};
use crate::http1::target::Target;
use crate::proxy::Proxy;
use crate::reproof::Control;

pub(super) use crate::hop::ALPN;

/// The target of what asks for a connection.
const ANYTHING: &[u8] = b"*";

/// Serves a connection to its end.
pub(super) async fn talk(
    proxy: &Arc<Proxy>,
    stream: TlsStream<Wide>,
    source: IpAddr,
    door: Arc<Door>,
    control: Option<Arc<Control>>,
) {
    let (proofs, from) = mpsc::channel(hop::PROOFS_MAX);
    let called = Called {
        tasks: proxy.tasks.clone(),
        closing: proxy.closing.clone(),
        said: CLOSING_SAID,
        proofs,
        window: proxy.windows.take(),
    };
    let began = |to| {
        if let Some(control) = control {
            drop(proxy.tasks.spawn(control.serve_hop(from, to)));
        }
    };
    let ended = hop::serve(stream, called, began, |call| {
        let (proxy, door) = (Arc::clone(proxy), Arc::clone(&door));
        async move { answer(&proxy, &door, call).await }
    })
    .await;
    tracing::debug!(%ended, "a peer's connection ended");
    if let Some(blame) = ended.blame() {
        proxy.metrics.hop_broken(blame);
        proxy.ledger.stranger(source, &format!("hop_{blame}"));
    }
}

/// Answers a call.
async fn answer(proxy: &Arc<Proxy>, door: &Door, call: Call) {
    let Call { head, body, reply } = call;
    let read = hop::check_whole(&head);
    let read = read.and_then(|()| RequestHead::parse_with(&head, FIELDS_MAX + FIELDS_OF_PROXY));
    let asked = read.and_then(|head| asked(door, head, body));
    let is_head = asked.as_ref().is_ok_and(|asked| asked.method == Method::HEAD);
    let Answer {
        status,
        mut headers,
        body,
        ..
    } = match asked {
        Ok(asked) => carry(proxy, door, asked).await,
        Err(error) => call::refuse_head(proxy, door, error),
    };
    if proxy.closing.is_cancelled() {
        headers.insert(CLOSING, HeaderValue::from_static("1"));
    }
    let body = if is_head { body.without_bytes() } else { body };
    reply
        .send(|out| encode::hop_answer_head(out, status, &headers), body)
        .await;
}

async fn carry(proxy: &Arc<Proxy>, door: &Door, asked: Asked) -> Answer {
    if let Some(port) = asked.headers.get(BOTMESH_TCP).filter(|_| asked.target == ANYTHING) {
        let port = port.clone();
        return Box::pin(open_tcp(proxy, door, &port, (asked.to, asked.headers, asked.body))).await;
    }
    let switch = asked
        .upgrade
        .as_ref()
        .and_then(|protocol| HeaderValue::from_str(protocol.as_str()).ok());
    let mut answer = call::serve(proxy, door, asked, &mut Deadline::default()).await;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(switch)) = (answer.status, switch) {
        // The two directions of a tunnel are the bodies of a call that goes on.
        answer.status = StatusCode::OK;
        answer.headers.insert(BOTMESH_UPGRADE, switch);
    }
    answer
}

/// Says which call a head is; `Err` for one that no proxy of ours writes.
fn asked(door: &Door, head: RequestHead, body: hop::Body) -> Result<Asked, HeadError> {
    let opens = head.headers.contains_key(BOTMESH_TCP);
    let target = match head.target {
        Target::Origin(target) if !opens => target,
        // What asks for a connection asks for no path.
        Target::Asterisk if opens => Bytes::from_static(ANYTHING),
        Target::Origin(_) | Target::Absolute(_) | Target::AbsoluteTls | Target::Authority | Target::Asterisk => {
            return Err(HeadError::Target);
        }
    };
    // RFC 9113 §8.2.2 has the same of HTTP/2. The caller's proxy has taken them off.
    if head.headers.keys().any(call::is_hop_by_hop) {
        return Err(HeadError::OfConnection);
    }
    let length = match head.framing {
        Framing::None => None,
        Framing::Length(length) => Some(length),
        // The frames of the hop delimit a body, and nothing else does.
        Framing::Chunked => return Err(HeadError::Coding),
    };
    // A request that would switch carries both directions in its bodies.
    let upgrade = head.headers.get(BOTMESH_UPGRADE);
    let upgrade = upgrade.and_then(|value| Protocol::parse(value.as_bytes()));
    let named = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    Ok(Asked {
        to: super::callee(door, named).map(To::Bot),
        // Bots of the other host that read trailers are told in them, as by HTTP/2.
        grpc: grpc::is_call(Version::HTTP_2, &head.method, &head.headers),
        method: head.method,
        target,
        headers: head.headers,
        body: RequestBody::hop(body.of_length(length).map_err(|_short| HeadError::Length)?),
        upgrade,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of_connection<'a, F>(
        _talk: impl Fn(&'a Arc<Proxy>, TlsStream<Wide>, IpAddr, Arc<Door>, Option<Arc<Control>>) -> F,
    ) -> usize {
        size_of::<F>()
    }

    fn bytes_of_call<'a, F>(_answer: impl Fn(&'a Arc<Proxy>, &'a Door, Call) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_and_a_call_on_it_cost_little_memory() {
        let connection = bytes_of_connection(talk);
        assert!(
            connection <= 5 * 1024,
            "the future of a connection has {connection} bytes"
        );
        let call = bytes_of_call(answer);
        assert!(call <= 11 * 1024, "the future of a call has {call} bytes");
    }
}
