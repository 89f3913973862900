//! The body of a request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::strip_trailers;
use crate::credentials::mask::{Finder, Frames};
use crate::ends::ReadEnd;
use crate::hop;
use crate::http1::body::BodyError;
use crate::live::{Held, Lane};
use crate::postgres::start::Start;
use crate::reason::Reason;

/// The body of a request.
#[derive(Debug)]
pub(crate) struct RequestBody {
    kind: RequestKind,
    count: RequestCount,
    /// Ends the body with its tunnel.
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Ends the body with the call's right, where nobody else reads on for it.
    held: Option<Held>,
}

#[derive(Debug)]
enum RequestKind {
    Empty,
    Whole(Bytes),
    Http1(crate::http1::body::Body<ReadEnd>),
    Http2(Incoming),
    /// From another proxy.
    Hop(hop::Body),
    /// What a caller says once it is told that its connection is another protocol's; no byte comes before that.
    /// With it goes the session of PostgreSQL that the caller begins, where it is one.
    Later(oneshot::Receiver<crate::http1::body::Body<ReadEnd>>, Option<Arc<Start>>),
    /// Of no call: what this proxy says to another on a control stream.
    Control(mpsc::Receiver<Bytes>),
    /// Any of them, which ends before a credential of this host. In here, so that the many others need no room for it.
    Guarded(Box<Guarded>),
}

/// A body in which credentials of this host are looked for.
#[derive(Debug)]
struct Guarded {
    body: RequestBody,
    live: Arc<Finder>,
    frames: Frames,
}

/// Begins the body of a tunnel: what its connection keeps. Dropped, it leaves the body empty.
#[derive(Debug)]
pub(crate) struct Later {
    give: oneshot::Sender<crate::http1::body::Body<ReadEnd>>,
    stop: CancellationToken,
}

impl Later {
    /// Begins the body. Whoever wants it gone before its end drops the guard.
    pub(crate) fn begin(self, body: crate::http1::body::Body<ReadEnd>) -> DropGuard {
        // Where nobody wants it any more it goes back to its connection.
        drop(self.give.send(body));
        self.stop.drop_guard()
    }
}

/// How many bytes of a request's body have passed.
#[derive(Clone, Debug)]
pub(crate) enum RequestCount {
    /// All are known.
    Known(u64),
    /// They are counted as they pass.
    Counted(Arc<AtomicU64>),
}

impl RequestCount {
    pub(crate) fn get(&self) -> u64 {
        match self {
            Self::Known(bytes) => *bytes,
            Self::Counted(bytes) => bytes.load(Ordering::Relaxed),
        }
    }
}

impl RequestBody {
    /// No body.
    pub(crate) const fn empty() -> Self {
        Self {
            kind: RequestKind::Empty,
            count: RequestCount::Known(0),
            stop: None,
            held: None,
        }
    }

    /// A body that is here already.
    pub(crate) const fn whole(bytes: Bytes) -> Self {
        let count = RequestCount::Known(bytes.len() as u64);
        Self {
            kind: RequestKind::Whole(bytes),
            count,
            stop: None,
            held: None,
        }
    }

    /// A body that comes by HTTP/1.1.
    pub(crate) fn http1(body: crate::http1::body::Body<ReadEnd>) -> Self {
        Self {
            kind: RequestKind::Http1(body),
            count: RequestCount::Counted(Arc::default()),
            stop: None,
            held: None,
        }
    }

    /// A body that comes by HTTP/2, if one comes.
    pub(crate) fn http2(body: Incoming) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self {
            kind: RequestKind::Http2(body),
            count: RequestCount::Counted(Arc::default()),
            stop: None,
            held: None,
        }
    }

    /// A body that comes from another proxy, if one comes.
    pub(crate) fn hop(body: hop::Body) -> Self {
        if body.is_over() {
            return Self::empty();
        }
        Self {
            kind: RequestKind::Hop(body),
            count: RequestCount::Counted(Arc::default()),
            stop: None,
            held: None,
        }
    }

    /// What this proxy says to another on a control stream.
    pub(crate) const fn control(said: mpsc::Receiver<Bytes>) -> Self {
        Self {
            kind: RequestKind::Control(said),
            count: RequestCount::Known(0),
            stop: None,
            held: None,
        }
    }

    /// A body that may begin later, with a tunnel.
    pub(crate) fn later() -> (Self, Later) {
        Self::later_of(None)
    }

    /// The same, of a session that begins.
    pub(crate) fn later_of(start: Option<Arc<Start>>) -> (Self, Later) {
        let ((give, arrives), stop) = (oneshot::channel(), CancellationToken::new());
        let body = Self {
            kind: RequestKind::Later(arrives, start),
            count: RequestCount::Counted(Arc::default()),
            stop: Some(Box::pin(stop.clone().cancelled_owned())),
            held: None,
        };
        (body, Later { give, stop })
    }

    /// Has the body end with the call's right.
    pub(crate) fn held(mut self, held: &Held) -> Self {
        if matches!(
            self.kind,
            RequestKind::Http1(_) | RequestKind::Http2(_) | RequestKind::Hop(_) | RequestKind::Later(..)
        ) {
            self.held = Some(held.clone());
        } else if let RequestKind::Guarded(guarded) = &mut self.kind {
            guarded.body.held = Some(held.clone());
        }
        self
    }

    /// The session that begins with it, where one does.
    pub(crate) const fn start(&self) -> Option<&Arc<Start>> {
        match &self.kind {
            RequestKind::Later(_, start) => start.as_ref(),
            RequestKind::Empty
            | RequestKind::Whole(_)
            | RequestKind::Http1(_)
            | RequestKind::Http2(_)
            | RequestKind::Hop(_)
            | RequestKind::Control(_)
            | RequestKind::Guarded(_) => None,
        }
    }

    /// Counts its bytes.
    pub(crate) fn count(&self) -> RequestCount {
        self.count.clone()
    }

    /// The same body, which ends before a credential of this host. One that is here whole was looked at already.
    pub(crate) fn guarded(self, live: Option<Arc<Finder>>) -> Self {
        match live {
            Some(live) if self.as_whole().is_none() => Self {
                count: self.count.clone(),
                stop: None,
                held: None,
                kind: RequestKind::Guarded(Box::new(Guarded {
                    body: self,
                    live,
                    frames: Frames::default(),
                })),
            },
            Some(_) | None => self,
        }
    }

    /// Takes the body if it is here whole; then it could be sent a second time.
    pub(crate) fn as_whole(&self) -> Option<Bytes> {
        match &self.kind {
            RequestKind::Empty => Some(Bytes::new()),
            RequestKind::Whole(bytes) => Some(bytes.clone()),
            RequestKind::Http1(_)
            | RequestKind::Http2(_)
            | RequestKind::Hop(_)
            | RequestKind::Later(..)
            | RequestKind::Control(_)
            | RequestKind::Guarded(_) => None,
        }
    }

    /// Waits for all of the body, of at most `most` bytes, and gives it with a body that is here whole. Trailers are dropped:
    /// nothing that is said after a signature is under it.
    pub(crate) async fn into_whole(mut self, most: usize) -> Result<(Bytes, Self), WholeError> {
        if self.is_empty() {
            return Ok((Bytes::new(), self));
        }
        if let Some(bytes) = self.as_whole() {
            return if bytes.len() > most {
                Err(WholeError::Long)
            } else {
                Ok((bytes, self))
            };
        }
        if self.size_hint().lower() > most as u64 {
            return Err(WholeError::Long);
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            let frame = frame.map_err(|source| WholeError::Body { source })?;
            let Ok(data) = frame.into_data() else { break };
            if whole.len() + data.len() > most {
                return Err(WholeError::Long);
            }
            whole.extend_from_slice(&data);
        }
        let whole = whole.freeze();
        Ok((whole.clone(), Self::whole(whole)))
    }

    /// Tells whether there is no body at all, which is not the same as one of length 0 to some callees.
    pub(crate) const fn is_empty(&self) -> bool {
        matches!(self.kind, RequestKind::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        let this = self.get_mut();
        if let Some(held) = &this.held
            && let Poll::Ready(reason) = held.poll_cut(cx, Lane::Request)
        {
            this.kind = RequestKind::Empty;
            return Poll::Ready(Some(Err(RequestError::Cut { reason })));
        }
        if let Some(stop) = &mut this.stop
            && stop.as_mut().poll(cx).is_ready()
        {
            this.kind = RequestKind::Empty;
            return Poll::Ready(Some(Err(RequestError::Gone)));
        }
        if let RequestKind::Later(arrives, _) = &mut this.kind {
            // What never begins is empty.
            this.kind = ready!(Pin::new(arrives).poll(cx)).map_or(RequestKind::Empty, RequestKind::Http1);
        }
        let mut frame = match &mut this.kind {
            RequestKind::Later(..) | RequestKind::Empty => return Poll::Ready(None),
            RequestKind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = RequestKind::Empty;
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            RequestKind::Http1(body) => ready!(Pin::new(body).poll_frame(cx))
                .map(|frame| frame.map_err(|source| RequestError::Http1 { source })),
            RequestKind::Http2(body) => ready!(Pin::new(body).poll_frame(cx))
                .map(|frame| frame.map_err(|source| RequestError::Http2 { source })),
            RequestKind::Hop(body) => {
                ready!(body.poll_frame(cx)).map(|frame| frame.map_err(|source| RequestError::Hop { source }))
            }
            RequestKind::Control(said) => return said.poll_recv(cx).map(|said| said.map(|said| Ok(Frame::data(said)))),
            RequestKind::Guarded(guarded) => return guarded.poll_frame(cx),
        };
        strip_trailers(&mut frame);
        if let (Some(Ok(frame)), RequestCount::Counted(count)) = (&frame, &this.count)
            && let Some(data) = frame.data_ref()
        {
            count.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            RequestKind::Empty => true,
            RequestKind::Whole(bytes) => bytes.is_empty(),
            RequestKind::Http1(body) => body.is_end_stream(),
            RequestKind::Http2(body) => body.is_end_stream(),
            RequestKind::Hop(body) => body.is_over(),
            RequestKind::Later(..) | RequestKind::Control(_) => false,
            RequestKind::Guarded(guarded) => !guarded.frames.holds() && guarded.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            RequestKind::Empty => SizeHint::with_exact(0),
            RequestKind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            RequestKind::Http1(body) => body.size_hint(),
            RequestKind::Http2(body) => body.size_hint(),
            RequestKind::Hop(body) => body.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            RequestKind::Later(..) | RequestKind::Control(_) => SizeHint::default(),
            RequestKind::Guarded(guarded) => guarded.frames.with_held(guarded.body.size_hint()),
        }
    }
}

impl Guarded {
    /// The next frame, unless a credential is in it.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        let body = &mut self.body;
        let frame = self.frames.poll(&self.live, || Pin::new(&mut *body).poll_frame(cx));
        if self.frames.found() {
            let reason = Reason::SecretInRequest;
            // Who waits for the other direction of a tunnel hears the same.
            if let Some(held) = &self.body.held {
                held.end(reason);
            }
            self.body = RequestBody::empty();
            return Poll::Ready(Some(Err(RequestError::Cut { reason })));
        }
        frame
    }
}

/// Why a body is not here whole.
#[derive(Debug, Error)]
pub(crate) enum WholeError {
    /// It is longer than it may be.
    #[error("the body is too long to be held whole")]
    Long,
    /// It broke off.
    #[error("read the whole body")]
    Body {
        /// What happened.
        #[source]
        source: RequestError,
    },
}

/// Why the rest of a request's body did not come.
#[derive(Debug, Error)]
pub(crate) enum RequestError {
    /// The call may not go on.
    #[error("the call was ended: {reason}")]
    Cut {
        /// Why.
        reason: Reason,
    },
    /// Its tunnel has ended.
    #[error("the tunnel has ended")]
    Gone,
    /// By HTTP/1.1.
    #[error("read the caller's body")]
    Http1 {
        /// What happened.
        #[source]
        source: BodyError,
    },
    /// From another proxy.
    #[error("read the caller's body")]
    Hop {
        /// What happened.
        #[source]
        source: hop::Ended,
    },
    /// By HTTP/2.
    #[error("read the caller's body")]
    Http2 {
        /// What happened.
        #[source]
        source: hyper::Error,
    },
}
