//! When a call may be sent a second time, and where: when it is known that nobody has begun to carry it, or when to
//! carry it twice is the same as once.

use std::io;
use std::sync::Arc;

use http::{Method, Request};

use super::PoolFault;
use crate::call::{HopError, RequestBody};
use crate::hop;
use crate::upstream::{Endpoint, Endpoints, Mask, Upstreams};

/// How many of a callee's endpoints are tried for one call.
const ENDPOINTS_MOST: usize = 3;

/// How often a call that was not begun is sent again: proxies of one callee that restart one after another.
const NOT_BEGUN_MOST: u32 = 3;

/// Why a call may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chance {
    /// It was not sent, and that endpoint is no use.
    Elsewhere,
    /// It is known not to have begun, at an endpoint that may carry it yet.
    NotBegun,
    /// It may have begun, and to begin it twice is the same as once.
    Repeatable,
}

/// What is left to try of one call.
#[derive(Debug)]
pub(super) struct Chances<'a> {
    endpoints: &'a Endpoints,
    tried: Mask,
    elsewhere: usize,
    not_begun: u32,
    repeats: u32,
}

impl<'a> Chances<'a> {
    pub(super) fn new(endpoints: &'a Endpoints, repeats: u32) -> Self {
        Self {
            endpoints,
            tried: Mask::default(),
            elsewhere: endpoints.len().min(ENDPOINTS_MOST).saturating_sub(1),
            not_begun: NOT_BEGUN_MOST,
            repeats,
        }
    }

    /// Chooses the endpoint that is tried first.
    pub(super) fn first(&mut self, upstreams: &Upstreams) -> Option<&'a Arc<Endpoint>> {
        self.choose(upstreams)
    }

    /// Chooses the endpoint that is tried next, if another try is left: one that was not tried, where there is one.
    pub(super) fn next(&mut self, upstreams: &Upstreams, chance: Chance) -> Option<&'a Arc<Endpoint>> {
        match chance {
            Chance::Elsewhere => self.elsewhere = self.elsewhere.checked_sub(1)?,
            Chance::NotBegun => self.not_begun = self.not_begun.checked_sub(1)?,
            Chance::Repeatable => self.repeats = self.repeats.checked_sub(1)?,
        }
        self.choose(upstreams).or_else(|| {
            if chance == Chance::Elsewhere {
                return None;
            }
            self.tried = Mask::default();
            self.choose(upstreams)
        })
    }

    fn choose(&mut self, upstreams: &Upstreams) -> Option<&'a Arc<Endpoint>> {
        let (now, random) = (upstreams.now(), upstreams.random());
        let (index, endpoint) = self.endpoints.choose(self.tried, now, random)?;
        self.tried.add(index);
        Some(endpoint)
    }
}

/// Tells whether nobody takes connections there. A handshake that was refused is an answer, and one that was broken off
/// comes from a proxy that ends and will be followed by another.
pub(super) fn is_down(fault: &PoolFault) -> bool {
    match fault {
        PoolFault::Connect { .. } | PoolFault::Protocol { .. } => true,
        PoolFault::Handshake { source, .. } => source.kind() == io::ErrorKind::TimedOut,
        PoolFault::NoAddress
        | PoolFault::Config { .. }
        | PoolFault::WrongId { .. }
        | PoolFault::Refused { .. }
        | PoolFault::Exchange { .. }
        | PoolFault::Cut { .. }
        | PoolFault::Ejected { .. }
        | PoolFault::Pending
        | PoolFault::Full
        | PoolFault::Slow => false,
    }
}

/// Tells whether the other end broke a handshake off, as a proxy does that ends: nothing was sent, and who listens there
/// now may be another process.
pub(super) fn broke_off(fault: &PoolFault) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let PoolFault::Handshake { source, .. } = fault else {
        return false;
    };
    matches!(
        source.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

/// Keeps what a call needs to be sent again, where its body is here whole.
pub(super) fn spare(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let body = request.body();
    let mut spare = Request::new(match body.as_whole()? {
        _ if body.is_empty() => RequestBody::empty(),
        bytes => RequestBody::whole(bytes),
    });
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.version_mut() = request.version();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

/// Says why a call may be sent again after this error, if it may.
pub(super) fn chance(error: &hyper::Error, method: &Method) -> Option<Chance> {
    if was_not_begun(error) {
        return Some(Chance::NotBegun);
    }
    // The connection failed under it. A stream that was reset was answered, if only by that.
    let failed = |source: &(dyn std::error::Error + 'static)| source.is::<io::Error>();
    let connection_failed = error.is_timeout() || std::error::Error::source(error).is_some_and(failed);
    (connection_failed && method.is_idempotent()).then_some(Chance::Repeatable)
}

/// The same of a call that went by what two proxies of this kind speak: each that is not begun is refused one by one.
pub(super) fn chance_of(ended: hop::Ended, method: &Method) -> Option<Chance> {
    match ended {
        hop::Ended::Reset(hop::Reset::Refused) => Some(Chance::NotBegun),
        hop::Ended::Closed | hop::Ended::Broken | hop::Ended::Silent => {
            method.is_idempotent().then_some(Chance::Repeatable)
        }
        hop::Ended::Protocol | hop::Ended::Flood | hop::Ended::Body | hop::Ended::Length | hop::Ended::Reset(_) => None,
    }
}

/// Tells whether the other end says that it did not begin to carry a call.
///
/// RFC 9113 §8.7: REFUSED_STREAM says so of any call, and a GOAWAY of those above its last stream (§6.8). hyper gives the
/// latter's error to no call that went out, see [`OneTask`](super::one_task::OneTask).
fn was_not_begun(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let gone = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (refused || gone)
    })
}

/// Tells whether a call ended because its own body broke off: nobody else is to blame.
pub(crate) fn broken_by_caller(error: &HopError) -> bool {
    let error = match error {
        HopError::Own { source } => return *source == hop::Ended::Body,
        HopError::Head { .. } | HopError::Reset { .. } => return false,
        HopError::Http2 { source } => source,
    };
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| error.is_reset() && !error.is_remote() && !error.is_library())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;

    /// A frame of RFC 9113 §4.1 whose payload is a few numbers.
    fn frame(kind: u8, stream: u32, payload: &[u32]) -> Vec<u8> {
        let length = u8::try_from(payload.len() * 4).unwrap();
        let mut frame = vec![0, 0, length, kind, 0];
        frame.extend(stream.to_be_bytes());
        payload.iter().for_each(|number| frame.extend(number.to_be_bytes()));
        frame
    }

    fn go_away(last: u32, code: u32) -> Vec<u8> {
        frame(7, 0, &[last, code])
    }

    fn reset(code: u32) -> Vec<u8> {
        frame(3, 1, &[code])
    }

    /// Reads the client's frames up to the head of its call, says `answer`, and closes.
    async fn answer(mut peer: DuplexStream, answer: Vec<u8>) {
        peer.write_all(&SETTINGS).await.unwrap();
        let mut preface = [0; PREFACE];
        peer.read_exact(&mut preface).await.unwrap();
        loop {
            let mut head = [0; 9];
            peer.read_exact(&mut head).await.unwrap();
            let length = usize::from(head[1]) * 256 + usize::from(head[2]);
            let mut payload = vec![0; length];
            peer.read_exact(&mut payload).await.unwrap();
            if head[3] == HEADERS {
                break;
            }
        }
        peer.write_all(&answer).await.unwrap();
        peer.shutdown().await.unwrap();
        // What the client still says is read, or its error would be that nobody listens.
        peer.read_to_end(&mut Vec::new()).await.unwrap();
    }

    /// Sends a call to a peer that answers like this, and says why it may be sent again.
    async fn answered(method: Method, said: Vec<u8>) -> Option<Chance> {
        let (here, there) = tokio::io::duplex(1 << 16);
        let (mut send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(here))
            .await
            .unwrap();
        let mut request = Request::new(RequestBody::whole(Bytes::from_static(b"hi")));
        *request.method_mut() = method.clone();
        *request.uri_mut() = "https://orders.prod.mesh/".parse().unwrap();
        let (failed, _, _) = tokio::join!(
            async {
                let failed = send.try_send_request(request).await.unwrap_err();
                drop(send);
                failed
            },
            connection,
            answer(there, said)
        );
        chance(failed.error(), &method)
    }

    async fn begun(method: Method, said: Vec<u8>) -> bool {
        answered(method, said).await != Some(Chance::NotBegun)
    }

    #[tokio::test]
    async fn only_what_the_peer_says_it_did_not_begin_is_sent_again() {
        let refused = 7;
        assert!(
            !begun(Method::POST, reset(refused)).await,
            "REFUSED_STREAM speaks of any call"
        );
        assert!(
            begun(Method::GET, reset(8)).await,
            "CANCEL says nothing about what was done"
        );
        assert!(!begun(Method::GET, go_away(0, 0)).await, "above the last stream");
        assert!(!begun(Method::POST, go_away(0, 0)).await, "whatever its method");
        assert!(
            begun(Method::GET, go_away(0, 1)).await,
            "a peer that saw an error in us knows no last stream"
        );
        assert!(
            begun(Method::GET, go_away(1, 0)).await,
            "it was begun, and then the connection ended"
        );
        assert!(
            begun(Method::GET, Vec::new()).await,
            "a connection that ends says nothing"
        );
    }

    #[tokio::test]
    async fn what_was_lost_with_its_connection_is_repeated_where_that_is_the_same_as_once() {
        assert_eq!(answered(Method::GET, Vec::new()).await, Some(Chance::Repeatable));
        assert_eq!(answered(Method::DELETE, Vec::new()).await, Some(Chance::Repeatable));
        assert_eq!(answered(Method::POST, Vec::new()).await, None);
        assert_eq!(answered(Method::GET, reset(8)).await, None, "a reset is an answer");
        assert_eq!(
            answered(Method::GET, go_away(0, 11)).await,
            None,
            "and so is ENHANCE_YOUR_CALM"
        );
    }

    #[test]
    fn a_call_is_kept_whole_with_its_body_or_not_at_all() {
        let mut request = Request::new(RequestBody::whole(Bytes::from_static(b"hi")));
        *request.method_mut() = Method::PUT;
        request.headers_mut().insert("x-a", "1".parse().unwrap());
        let kept = spare(&request).unwrap();
        assert_eq!((kept.method(), kept.headers()), (request.method(), request.headers()));
        assert_eq!(kept.body().as_whole().unwrap(), "hi");
        assert!(spare(&Request::new(RequestBody::empty())).unwrap().body().is_empty());
    }

    #[test]
    fn a_handshake_that_was_broken_off_is_tried_again_and_one_that_was_refused_is_not() {
        let handshake = |kind: io::ErrorKind| PoolFault::Handshake {
            address: ([127, 0, 0, 1], 1).into(),
            source: kind.into(),
        };
        assert!(broke_off(&handshake(io::ErrorKind::ConnectionReset)));
        assert!(broke_off(&handshake(io::ErrorKind::UnexpectedEof)));
        assert!(
            !broke_off(&handshake(io::ErrorKind::InvalidData)),
            "an alert is an answer"
        );
        assert!(
            !broke_off(&handshake(io::ErrorKind::TimedOut)),
            "the time for it is over"
        );
        assert!(!broke_off(&PoolFault::Slow));
    }
}
