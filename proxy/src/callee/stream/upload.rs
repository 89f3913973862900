//! The body of a request on its way to a callee that serves gRPC.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio_util::sync::CancellationToken;

use super::super::CalleeFault;
use crate::call::RequestBody;

/// Sends the rest of a request whose answer has begun. It ends with the answer.
pub(super) async fn carry(mut upload: Upload, stop: CancellationToken) {
    // What is not sent then is for nobody: dropped, it resets the stream.
    tokio::select! {
        sent = std::future::poll_fn(|cx| upload.poll(cx)) => {
            if let Err(fault) = sent {
                tracing::debug!(error = &fault as &dyn std::error::Error, "a request broke off");
            }
        }
        () = stop.cancelled() => {}
    }
}

/// The body of a request on its way to a callee.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    send: SendStream<Bytes>,
    /// What was taken from the body and not sent yet: the callee has to make room.
    rest: Bytes,
    /// Whether something of the body was taken.
    touched: bool,
    ended: bool,
}

impl Upload {
    pub(super) fn new(body: RequestBody, send: SendStream<Bytes>) -> Self {
        let ended = body.is_end_stream();
        Self {
            body,
            send,
            rest: Bytes::new(),
            touched: false,
            ended,
        }
    }

    /// Gives the body back if nothing of it was taken.
    pub(super) fn untouched(self) -> Option<RequestBody> {
        (!self.touched).then_some(self.body)
    }

    /// Sends on until the body is sent, or the callee takes no more of it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CalleeFault>> {
        loop {
            if !self.rest.is_empty() {
                if !ready!(self.poll_room(cx)) {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            // An answer that needs no more of the request ends it so (RFC 9113 §8.1).
            if self.send.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            self.touched = true;
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.take(data),
                Some(Ok(Err(trailers))) => self.end(trailers.into_trailers().unwrap_or_default()),
                None => self.end(HeaderMap::new()),
                Some(Err(source)) => {
                    self.send.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(CalleeFault::Caller { source }));
                }
            }
        }
    }

    /// Waits for room and sends as much as it is for; `false` when the callee takes no more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut room = self.send.capacity();
        if room == 0 {
            self.send.reserve_capacity(self.rest.len());
            room = match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Poll::Ready(false),
            };
        }
        let piece = self.rest.split_to(self.rest.len().min(room));
        let last = self.ended && self.rest.is_empty();
        Poll::Ready(self.send.send_data(piece, last).is_ok())
    }

    fn take(&mut self, data: Bytes) {
        self.rest = data;
        // The end goes with the last piece, where it is known by then.
        if self.body.is_end_stream() {
            if self.rest.is_empty() {
                return self.end(HeaderMap::new());
            }
            self.ended = true;
        }
    }

    fn end(&mut self, trailers: HeaderMap) {
        self.ended = true;
        let done = if trailers.is_empty() {
            self.send.send_data(Bytes::new(), true)
        } else {
            self.send.send_trailers(trailers)
        };
        if let Err(error) = done {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a callee took no more of a request"
            );
        }
    }
}
