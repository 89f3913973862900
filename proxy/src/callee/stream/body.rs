//! The body of a callee's answer as it comes by HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};
use tokio_util::sync::DropGuard;

use super::super::lines::Lease;

/// The body of a callee's answer, with its trailers. Dropped before its end, it cancels the call at the callee.
#[derive(Debug)]
pub(crate) struct StreamBody {
    pub(super) receive: RecvStream,
    /// Until the answer has ended: its place on the connection, and what the request is sent by.
    pub(super) open: Option<(Lease, DropGuard)>,
    pub(super) length: Option<u64>,
}

impl StreamBody {
    /// Takes the next frame.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.open.is_none() {
            return Poll::Ready(None);
        }
        loop {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Room is made for as much as is handed on, so what is under way is bounded by the window.
                    self.receive.flow_control().release_capacity(data.len())?;
                    if data.is_empty() {
                        continue;
                    }
                    self.length = self.length.map(|left| left.saturating_sub(data.len() as u64));
                    if self.receive.is_end_stream() {
                        self.open = None;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return self.failed(error),
                None => break,
            }
        }
        match ready!(self.receive.poll_trailers(cx)) {
            Ok(trailers) => {
                self.open = None;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: h2::Error) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        self.open = None;
        Poll::Ready(Some(Err(error)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.open.is_none() || self.receive.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) => SizeHint::with_exact(length),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}
