//! The reading half of a connection.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::Limits;
use super::deadline::Deadline;
use super::head::HeadError;
use super::scan::Scanner;

/// What one read of a head may take; most heads are far smaller, and more comes with the next read.
const HEAD_READ_BYTES: usize = 4 * 1024;

/// What one read of a body may take at first; doubled by each read that fills it.
const BODY_READ_BYTES: usize = 16 * 1024;

/// What one read of a body may take at most.
const BODY_READ_BYTES_MAX: usize = 64 * 1024;

/// What stands for no bound on the silence of one direction of a tunnel.
pub(super) const TUNNEL_IDLE: Duration = Duration::from_hours(24 * 365);

/// Reads heads and bodies off a connection and keeps what came too early.
///
/// While nothing is buffered it holds no memory: heads are read over the stack.
#[derive(Debug)]
pub struct Reader<R> {
    io: R,
    buf: BytesMut,
    deadline: Deadline,
    limits: Limits,
    body_read_bytes: usize,
    /// Whether the clock of the next head runs already.
    begun: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Starts to read `io`.
    pub fn new(io: R, limits: Limits) -> Self {
        Self {
            io,
            buf: BytesMut::new(),
            deadline: Deadline::default(),
            limits,
            body_read_bytes: BODY_READ_BYTES,
            begun: false,
        }
    }

    /// Gives back what is read from, and what was read and not yet taken.
    pub fn into_parts(self) -> (R, BytesMut) {
        (self.io, self.buf)
    }

    /// Returns what is read from.
    pub const fn io(&self) -> &R {
        &self.io
    }

    /// Returns the limits.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns what was read and not yet taken.
    pub const fn buffered(&mut self) -> &mut BytesMut {
        &mut self.buf
    }

    /// Tells whether the connection goes on with `preface`, as soon as its bytes settle that; nothing is taken. Nothing
    /// when the peer ended the connection, or left it idle, before the first byte.
    ///
    /// Where it goes on otherwise, the next head has come in time by the clock that started with its first byte here.
    ///
    /// Cancel safe: what was read stays buffered.
    ///
    /// # Errors
    ///
    /// As [`Reader::head`] for a head that is cut off or slow.
    pub async fn begins_with(&mut self, preface: &[u8]) -> Result<Option<bool>, ReadError> {
        self.begun = false;
        self.begin_head();
        loop {
            let known = self.buf.len().min(preface.len());
            let same = self.buf.get(..known) == preface.get(..known);
            if !same || known == preface.len() {
                self.begun = true;
                return Ok(Some(same));
            }
            if !self.more_of_head().await? {
                return Ok(None);
            }
        }
    }

    /// Starts the clock for a head, unless its first bytes started it.
    fn begin_head(&mut self) {
        if std::mem::take(&mut self.begun) {
            return;
        }
        self.deadline.set(if self.buf.is_empty() {
            self.limits.idle
        } else {
            self.limits.head
        });
    }

    /// Reads a whole head, its empty line included; nothing when the peer ended the connection, or left it idle, before
    /// the first byte.
    ///
    /// Cancel safe: what was read stays buffered, and a head begun is found again.
    ///
    /// # Errors
    ///
    /// For a head that is refused before its end, one that is cut off or slow, and when reading fails.
    pub async fn head(&mut self) -> Result<Option<Bytes>, ReadError> {
        let mut scanner = Scanner::default();
        self.begin_head();
        loop {
            if let Some(length) = scanner.scan(&self.buf)? {
                return Ok(Some(self.buf.split_to(length).freeze()));
            }
            if !self.more_of_head().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for more of a head; `false` when the peer ended the connection, or left it idle, before the first byte.
    async fn more_of_head(&mut self) -> Result<bool, ReadError> {
        let first = self.buf.is_empty();
        match std::future::poll_fn(|cx| self.poll_fill_head(cx)).await {
            Ok(0) | Err(ReadError::Slow) if first => return Ok(false),
            Ok(0) => return Err(ReadError::Cut),
            Ok(_) if first => self.deadline.set(self.limits.head),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Reads once, for a head: into the spare room of the buffer, else over the stack into memory of the right size.
    fn poll_fill_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        if self.buf.capacity() - self.buf.len() >= HEAD_READ_BYTES / 4 {
            return self.poll_fill(cx);
        }
        let mut stack = [const { MaybeUninit::uninit() }; HEAD_READ_BYTES];
        let mut read = ReadBuf::uninit(&mut stack);
        match Pin::new(&mut self.io).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) => {
                self.buf.extend_from_slice(read.filled());
                Poll::Ready(Ok(read.filled().len()))
            }
            Poll::Ready(Err(source)) => Poll::Ready(Err(ReadError::Io { source })),
            Poll::Pending => self.deadline.poll(cx).map(|()| Err(ReadError::Slow)),
        }
    }

    /// Reads once, for a body; 0 at the end of the connection.
    pub(super) fn poll_fill_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        if self.buf.capacity() - self.buf.len() < self.body_read_bytes / 2 {
            self.buf.reserve(self.body_read_bytes);
        }
        let room = self.buf.capacity() - self.buf.len();
        let read = ready!(self.poll_fill(cx))?;
        if read == room {
            self.body_read_bytes = (self.body_read_bytes * 2).min(BODY_READ_BYTES_MAX);
        }
        self.deadline.set(self.limits.body_idle);
        Poll::Ready(Ok(read))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buf) {
            Poll::Ready(Ok(read)) => Poll::Ready(Ok(read)),
            Poll::Ready(Err(source)) => Poll::Ready(Err(ReadError::Io { source })),
            Poll::Pending => self.deadline.poll(cx).map(|()| Err(ReadError::Slow)),
        }
    }

    /// Has what follows be a tunnel, whose two directions have one bound on silence between them: not this reader's. It
    /// has none on its length.
    pub fn begin_tunnel(&mut self) {
        self.limits.body_idle = TUNNEL_IDLE;
        self.limits.body_bytes_max = u64::MAX;
        self.deadline.set(TUNNEL_IDLE);
    }

    /// Starts the clock for the first bytes of a body.
    pub(super) fn begin_body(&mut self) {
        self.deadline.set(self.limits.body_idle);
    }

    /// Gives back memory that only a body needed.
    pub(super) fn end_body(&mut self) {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
        }
    }

    /// Tells, without waiting, whether the peer ended the connection or said something unasked: either makes an idle
    /// connection useless.
    pub fn is_stale(&mut self) -> bool {
        if !self.buf.is_empty() {
            return true;
        }
        let mut byte = [0; 1];
        let mut read = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut cx, &mut read).is_ready()
    }

    /// Sets the deadline of the next head by itself: callees have longer than callers.
    ///
    /// # Errors
    ///
    /// As [`Reader::head`], and [`ReadError::Slow`] when nothing at all came within `patience`.
    pub async fn answer_head(&mut self, patience: Duration) -> Result<Bytes, ReadError> {
        let mut scanner = Scanner::default();
        self.deadline.set(patience);
        loop {
            if let Some(length) = scanner.scan(&self.buf)? {
                return Ok(self.buf.split_to(length).freeze());
            }
            match std::future::poll_fn(|cx| self.poll_fill_answer(cx)).await? {
                0 if self.buf.is_empty() => return Err(ReadError::Ended),
                0 => return Err(ReadError::Cut),
                _ => {}
            }
        }
    }

    /// Reads once, for an answer, whose body mostly comes with its head.
    fn poll_fill_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        if self.buf.capacity() - self.buf.len() < HEAD_READ_BYTES / 2 {
            self.buf.reserve(HEAD_READ_BYTES);
        }
        self.poll_fill(cx)
    }
}

/// Why a head could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is refused.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The connection ended before a byte came.
    #[error("the connection ended before an answer came")]
    Ended,
    /// The connection ended inside it.
    #[error("the connection ended inside a head")]
    Cut,
    /// It took longer than its deadline.
    #[error("a head did not come in time")]
    Slow,
    /// The connection failed.
    #[error("read from the connection")]
    Io {
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::time::{Instant, sleep};

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    async fn told(bytes: &[u8]) -> Result<Option<bool>, ReadError> {
        let (mut peer, end) = tokio::io::duplex(1);
        let mut reader = Reader::new(end, Limits::default());
        let writing = async {
            peer.write_all(bytes).await.unwrap();
            drop(peer);
            std::future::pending::<()>().await;
        };
        let begins = tokio::select! {
            begins = reader.begins_with(PREFACE) => begins,
            () = writing => Ok(None),
        };
        assert!(bytes.starts_with(reader.buffered()), "nothing is taken");
        begins
    }

    #[tokio::test]
    async fn the_first_bytes_decide_however_they_are_cut() {
        assert!(matches!(told(PREFACE).await, Ok(Some(true))));
        for other in [
            &b"POST / HTTP/1.1\r\n"[..],
            b"PRI / ",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
            b"\x16\x03",
        ] {
            assert!(matches!(told(other).await, Ok(Some(false))), "{other:?}");
        }
        assert!(matches!(told(b"").await, Ok(None)));
        assert!(matches!(told(&PREFACE[..23]).await, Err(ReadError::Cut)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_preface_is_refused_as_a_slow_head_and_gains_no_time_for_one() {
        let limits = Limits::default();
        for (bytes, expected) in [(&PREFACE[..20], limits.head), (b"", limits.idle)] {
            let (mut peer, end) = tokio::io::duplex(64);
            let mut reader = Reader::new(end, limits);
            let start = Instant::now();
            peer.write_all(bytes).await.unwrap();
            let told = reader.begins_with(PREFACE).await;
            assert_eq!(matches!(told, Err(ReadError::Slow)), !bytes.is_empty(), "{told:?}");
            assert!(start.elapsed() >= expected && start.elapsed() < expected * 2);
        }
        let (mut peer, end) = tokio::io::duplex(64);
        let mut reader = Reader::new(end, limits);
        let start = Instant::now();
        let slow = async {
            peer.write_all(b"P").await.unwrap();
            sleep(limits.head * 3 / 4).await;
            peer.write_all(b"O").await.unwrap();
            std::future::pending::<()>().await;
        };
        let reading = async {
            assert!(matches!(reader.begins_with(PREFACE).await, Ok(Some(false))));
            assert!(matches!(reader.head().await, Err(ReadError::Slow)));
        };
        tokio::select! {
            () = slow => {}
            () = reading => {}
        }
        assert!(start.elapsed() < limits.head * 5 / 4, "{:?}", start.elapsed());
    }
}
