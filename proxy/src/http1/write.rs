//! The writing half of a connection: a head and the first bytes of its body leave in one system call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::AsyncWrite;

use super::deadline::Deadline;
use super::read::TUNNEL_IDLE;

/// What is kept of the buffer for heads between two messages.
const KEEP_BYTES: usize = 4 * 1024;

/// Writes messages to a connection.
#[derive(Debug)]
pub struct Writer<W> {
    io: W,
    out: BytesMut,
    deadline: Deadline,
    stall: Duration,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Starts to write to `io`, whose peer may stand still for `stall`.
    pub fn new(io: W, stall: Duration) -> Self {
        Self {
            io,
            out: BytesMut::new(),
            deadline: Deadline::default(),
            stall,
        }
    }

    /// Returns what is written to.
    pub const fn io(&mut self) -> &mut W {
        &mut self.io
    }

    /// Gives back what is written to; what was not sent is lost.
    pub fn into_io(self) -> W {
        self.io
    }

    /// Has what follows be a tunnel, as [`super::read::Reader::begin_tunnel`] does: its peer may take nothing for long.
    pub const fn begin_tunnel(&mut self) {
        self.stall = TUNNEL_IDLE;
    }

    /// Returns the buffer whose bytes go first.
    pub const fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Begins a write of the buffer and what will be given to [`Writer::poll_send`].
    pub fn begin(&mut self) {
        self.deadline.set(self.stall);
    }

    /// Writes the buffer, then what is left of `tail`; after it, both are empty.
    ///
    /// # Errors
    ///
    /// When the peer is gone or takes nothing for too long.
    pub fn poll_send(&mut self, tail: &mut Tail, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        while !(self.out.is_empty() && tail.is_empty()) {
            let [data, end] = tail.slices();
            let slices = [IoSlice::new(&self.out), IoSlice::new(data), IoSlice::new(end)];
            let written = match Pin::new(&mut self.io).poll_write_vectored(cx, &slices) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(WriteError::Ended)),
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(source)) => return Poll::Ready(Err(WriteError::Io { source })),
                Poll::Pending => return self.deadline.poll(cx).map(|()| Err(WriteError::Slow)),
            };
            let from_out = written.min(self.out.len());
            drop(self.out.split_to(from_out));
            tail.advance(written - from_out);
            self.deadline.set(self.stall);
        }
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(source)) => return Poll::Ready(Err(WriteError::Io { source })),
            Poll::Pending => return self.deadline.poll(cx).map(|()| Err(WriteError::Slow)),
        }
        if self.out.capacity() > KEEP_BYTES {
            self.out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the buffer and `tail`.
    ///
    /// # Errors
    ///
    /// As [`Writer::poll_send`].
    pub async fn send(&mut self, mut tail: Tail) -> Result<(), WriteError> {
        self.begin();
        std::future::poll_fn(|cx| self.poll_send(&mut tail, cx)).await
    }

    /// Ends the writing direction.
    ///
    /// # Errors
    ///
    /// When the peer is gone or takes nothing for too long.
    pub async fn shutdown(&mut self) -> Result<(), WriteError> {
        self.begin();
        std::future::poll_fn(|cx| match Pin::new(&mut self.io).poll_shutdown(cx) {
            Poll::Ready(done) => Poll::Ready(done.map_err(|source| WriteError::Io { source })),
            Poll::Pending => self.deadline.poll(cx).map(|()| Err(WriteError::Slow)),
        })
        .await
    }
}

/// What follows the buffer in a write: a frame of a body and what ends it.
#[derive(Debug, Default)]
pub struct Tail {
    data: Bytes,
    end: &'static [u8],
}

impl Tail {
    /// Makes the tail of plain bytes.
    #[must_use]
    pub const fn new(data: Bytes) -> Self {
        Self { data, end: b"" }
    }

    /// Makes the tail of a chunk's data and the line break after it.
    #[must_use]
    pub const fn chunk(data: Bytes) -> Self {
        Self { data, end: b"\r\n" }
    }

    /// Tells whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.data.is_empty() && self.end.is_empty()
    }

    fn slices(&self) -> [&[u8]; 2] {
        [&self.data, self.end]
    }

    fn advance(&mut self, count: usize) {
        let from_data = count.min(self.data.len());
        drop(self.data.split_to(from_data));
        self.end = self.end.get(count - from_data..).unwrap_or_default();
    }
}

/// Why an answer could not be written to its end.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The peer takes no more.
    #[error("the peer ended the connection")]
    Ended,
    /// The peer took nothing for too long.
    #[error("the peer took nothing for too long")]
    Slow,
    /// The body stood still for too long.
    #[error("the body stood still for too long")]
    Silent,
    /// The body failed.
    #[error("the body broke off")]
    Body,
    /// The body is not as long as was said.
    #[error("the body is not as long as its head says")]
    Length,
    /// The connection failed.
    #[error("write to the connection")]
    Io {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
