//! The body of an answer, and the end of the call with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use spiffe::id::BotName;
use thiserror::Error;
use tokio::sync::mpsc;

use super::super::end::{CALLEE_GONE, CALLER_GONE, DONE, End};
use super::{HopBody, HopError, strip_trailers};
use crate::callee::{CalleeBody, StreamBody, TunnelBody};
use crate::credentials::Loaded;
use crate::credentials::mask::Frames;
use crate::grpc::{self, Status};
use crate::http1::body::BodyError;
use crate::live::{Held, Lane};
use crate::pool::Lease;
use crate::reason::Reason;

/// The body of an answer. It ends the call when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct AnswerBody {
    kind: AnswerKind,
    end: Option<Box<End>>,
    held: Option<Held>,
}

/// A body out of which a credential is taken.
#[derive(Debug)]
struct Guarded {
    body: AnswerBody,
    credential: Arc<Loaded>,
    from: BotName,
    frames: Frames,
    told: bool,
}

#[derive(Debug, Default)]
enum AnswerKind {
    #[default]
    Empty,
    Whole(Bytes),
    Callee(Box<CalleeBody>),
    /// A bot of this host that speaks another protocol.
    Tunnel(Box<TunnelBody>),
    /// A bot of this host that serves gRPC.
    Stream(Box<StreamBody>),
    Hop {
        body: HopBody,
        /// Given back with the last byte.
        _lease: Lease,
    },
    /// Of no call: what this proxy says to another on a control stream.
    Control(mpsc::Receiver<Bytes>),
    /// From a callee that was shown a credential. In here, so that the many others need no room for it.
    Guarded(Box<Guarded>),
}

impl AnswerBody {
    /// A body that is here already.
    pub(crate) const fn whole(bytes: Bytes) -> Self {
        Self {
            kind: AnswerKind::Whole(bytes),
            end: None,
            held: None,
        }
    }

    /// A body from a callee of this host.
    pub(crate) fn callee(body: CalleeBody, held: Held) -> Self {
        Self {
            kind: AnswerKind::Callee(Box::new(body)),
            end: None,
            held: Some(held),
        }
    }

    /// A body from a callee of this host that serves gRPC.
    pub(crate) fn stream(body: StreamBody, held: Held) -> Self {
        Self {
            kind: AnswerKind::Stream(Box::new(body)),
            end: None,
            held: Some(held),
        }
    }

    /// What a bot of this host says in a tunnel.
    pub(crate) fn tunnel(body: TunnelBody, held: Held) -> Self {
        Self {
            kind: AnswerKind::Tunnel(Box::new(body)),
            end: None,
            held: Some(held),
        }
    }

    /// A body from another proxy.
    pub(crate) const fn hop(body: HopBody, lease: Lease, held: Held) -> Self {
        Self {
            kind: AnswerKind::Hop { body, _lease: lease },
            end: None,
            held: Some(held),
        }
    }

    /// What this proxy says to another on a control stream.
    pub(crate) const fn control(said: mpsc::Receiver<Bytes>) -> Self {
        Self {
            kind: AnswerKind::Control(said),
            end: None,
            held: None,
        }
    }

    /// The same body, in which a credential that the callee was shown is masked.
    pub(crate) fn guarded(mut self, credential: &Arc<Loaded>, from: &BotName) -> Self {
        let (end, held) = (self.end.take(), self.held.take());
        Self {
            kind: AnswerKind::Guarded(Box::new(Guarded {
                body: self,
                credential: Arc::clone(credential),
                from: from.clone(),
                frames: Frames::default(),
                told: false,
            })),
            end,
            held,
        }
    }

    /// The same call's answer without its bytes, for HEAD.
    pub(crate) fn without_bytes(mut self) -> Self {
        if matches!(self.kind, AnswerKind::Whole(_)) {
            self.kind = AnswerKind::Empty;
            self.note_end();
        }
        self
    }

    /// Has the call end with the body.
    pub(crate) fn ending(mut self, end: End) -> Self {
        self.end = Some(Box::new(end));
        self.note_end();
        self
    }

    /// Notes how the call ended, for whoever knows better than the body.
    pub(crate) fn ended(&mut self, outcome: &'static str) {
        if let Some(end) = &mut self.end {
            end.ended(outcome);
        }
    }

    /// The call, for whoever writes the answer and may have to wait for its caller.
    pub(crate) fn call_held(&self) -> Option<Held> {
        self.held.clone().filter(|_| !self.is_end_stream())
    }

    /// Why the call was cut, if it was.
    pub(crate) fn held_cut(&self) -> Option<Reason> {
        self.held.as_ref().and_then(Held::cut)
    }

    /// How many of its bytes have passed.
    pub(crate) fn wrote(&self) -> u64 {
        self.end.as_ref().map_or(0, |end| end.response_bytes())
    }

    /// Ends the body, for the call may not go on: nothing more comes of it.
    fn cut(&mut self, reason: Reason) -> Result<Frame<Bytes>, AnswerError> {
        self.kind = AnswerKind::Empty;
        self.ended(reason.as_str());
        let text = || format!("botmesh ended the call: {reason}: {}", reason.title());
        self.told(Status::of(reason), text).ok_or(AnswerError::Cut { reason })
    }

    /// Says how the callee's answer broke off. One that it reset is reset in the same way; of one that was lost a client
    /// of gRPC is told that the callee is gone, where a reset would tell it of a fault in the protocol.
    fn broke(&mut self, error: AnswerError) -> Result<Frame<Bytes>, AnswerError> {
        if error.is_reset() {
            return Err(error);
        }
        let lost = Status::of(Reason::PeerUnreachable);
        match self.told(lost, || "the answer of the bot that was called broke off".to_owned()) {
            Some(trailers) => {
                self.kind = AnswerKind::Empty;
                Ok(trailers)
            }
            None => Err(error),
        }
    }

    /// Makes the last frame of an answer of gRPC, whose status is in its trailers; nothing for any other answer.
    fn told(&mut self, status: Status, text: impl FnOnce() -> String) -> Option<Frame<Bytes>> {
        let end = self.end.as_mut().filter(|end| end.is_grpc())?;
        end.grpc(status);
        Some(Frame::trailers(grpc::trailers(status, &text())))
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match &mut self.kind {
            AnswerKind::Empty => Poll::Ready(None),
            AnswerKind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = AnswerKind::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            AnswerKind::Callee(body) => body
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|source| AnswerError::Callee { source }))),
            AnswerKind::Tunnel(body) => body
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|source| AnswerError::Callee { source }))),
            AnswerKind::Stream(body) => body
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|source| AnswerError::Stream { source }))),
            AnswerKind::Hop { body, .. } => body
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|source| AnswerError::Hop { source }))),
            AnswerKind::Control(said) => said.poll_recv(cx).map(|said| said.map(|said| Ok(Frame::data(said)))),
            AnswerKind::Guarded(guarded) => guarded.poll_frame(cx),
        }
    }

    fn note_end(&mut self) {
        if self.is_end_stream() {
            self.ended(DONE);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = self.get_mut();
        if let Some(reason) = this.held.as_ref().and_then(Held::cut) {
            return Poll::Ready(Some(this.cut(reason)));
        }
        let Poll::Ready(mut frame) = this.poll_kind(cx) else {
            // Only where the body makes its reader wait does anything have to wake it.
            let held = this.held.as_ref();
            let Some(Poll::Ready(reason)) = held.map(|held| held.poll_cut(cx, Lane::Answer)) else {
                return Poll::Pending;
            };
            return Poll::Ready(Some(this.cut(reason)));
        };
        strip_trailers(&mut frame);
        match &frame {
            None => this.ended(DONE),
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                if let Some(end) = &mut this.end {
                    end.wrote(bytes);
                    if let Some(trailers) = frame.trailers_ref() {
                        end.said(trailers);
                    }
                }
                if let Some(held) = &this.held {
                    held.moved(bytes);
                }
                this.note_end();
            }
            Some(Err(error)) => {
                tracing::debug!(error = error as &dyn std::error::Error, "an answer broke off");
                let cut = this.held.as_ref().and_then(Held::cut);
                let is_caller = matches!(&this.kind, AnswerKind::Tunnel(body) if body.is_caller_gone());
                let gone = if is_caller { CALLER_GONE } else { CALLEE_GONE };
                this.ended(cut.map_or(gone, Reason::as_str));
            }
        }
        Poll::Ready(match frame {
            Some(Err(error)) => Some(this.broke(error)),
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            AnswerKind::Empty => true,
            AnswerKind::Whole(bytes) => bytes.is_empty(),
            AnswerKind::Callee(body) => body.is_end_stream(),
            AnswerKind::Tunnel(body) => body.is_end_stream(),
            AnswerKind::Stream(body) => body.is_end_stream(),
            AnswerKind::Hop { body, .. } => body.is_end_stream(),
            AnswerKind::Control(_) => false,
            AnswerKind::Guarded(guarded) => !guarded.frames.holds() && guarded.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            AnswerKind::Empty => SizeHint::with_exact(0),
            AnswerKind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            AnswerKind::Callee(body) => body.size_hint(),
            AnswerKind::Tunnel(_) => SizeHint::default(),
            AnswerKind::Stream(body) => body.size_hint(),
            AnswerKind::Hop { body, .. } => body.size_hint(),
            AnswerKind::Control(_) => SizeHint::default(),
            AnswerKind::Guarded(guarded) => guarded.frames.with_held(guarded.body.size_hint()),
        }
    }
}

impl Guarded {
    /// The next frame as it may be passed on.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let body = &mut self.body;
        let next = || Pin::new(&mut *body).poll_frame(cx);
        let frame = self.frames.poll(&self.credential.finder, next);
        if self.frames.found() && !std::mem::replace(&mut self.told, true) {
            self.credential.masked(&self.from);
        }
        frame
    }
}

/// A tunnel's call ends with its last direction: where the other one goes on, the record of the end goes with it.
impl Drop for AnswerBody {
    fn drop(&mut self) {
        if matches!(&self.kind, AnswerKind::Stream(body) if !body.is_end_stream()) {
            // Whoever lets go of a stream that goes on was let go of by its caller, or the call was cut.
            self.ended(self.held_cut().map_or(CALLER_GONE, Reason::as_str));
        }
        if let (AnswerKind::Tunnel(body), Some(end)) = (&mut self.kind, self.end.take()) {
            body.hand_over(end);
        }
    }
}

/// Why the rest of an answer's body did not come.
#[derive(Debug, Error)]
pub(crate) enum AnswerError {
    /// The call may not go on.
    #[error("the call was ended: {reason}")]
    Cut {
        /// Why.
        reason: Reason,
    },
    /// From a callee of this host.
    #[error("read the callee's body")]
    Callee {
        /// What happened.
        #[source]
        source: BodyError,
    },
    /// From a callee of this host that serves gRPC.
    #[error("read the callee's stream")]
    Stream {
        /// What happened.
        #[source]
        source: h2::Error,
    },
    /// From another proxy.
    #[error("read the body from the other proxy")]
    Hop {
        /// What happened.
        #[source]
        source: HopError,
    },
}

impl AnswerError {
    /// Tells whether whoever answers ended this answer alone.
    fn is_reset(&self) -> bool {
        match self {
            Self::Stream { source } => source.is_reset() && source.is_remote(),
            Self::Hop { source } => source.is_reset(),
            Self::Cut { .. } | Self::Callee { .. } => false,
        }
    }
}
