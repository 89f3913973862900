//! Reads and writes the socket of a connection. It is the one task that does; whoever calls or answers only ever touches
//! the state.

use std::cell::RefCell;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;

use super::frame::{HEADER_BYTES, Header, PAYLOAD_BYTES_MAX};
use super::link::Shared;
use super::out::{Out, SLICES};
use super::state::{Event, Payload};
use super::{Ended, PIECE_COST};

/// What one read may bring.
const READ_BYTES: usize = 64 * 1024;

/// From which length on payloads are read into memory of their own.
const OWN_BYTES: usize = 8 * 1024;

/// For how many calls that came at once room is kept.
const EVENTS_KEPT: usize = 32;

/// How often it is looked whether the peer still says something; it is asked when it did not, and has as long to answer.
const BEAT: Duration = Duration::from_secs(20);

thread_local! {
    /// Where reads go first: connections that are idle need no memory for them.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The socket of a connection.
#[derive(Debug)]
pub(super) struct Drive<IO> {
    io: IO,
    shared: Arc<Shared>,
    /// The beginning of a frame whose end has not come.
    rest: BytesMut,
    /// Long payloads come one after another.
    bulk: bool,
    writing: Out,
    /// What was read and is not the state's.
    events: Vec<Event>,
    /// Whoever was ready to write had its turn.
    deferred: bool,
    flushing: bool,
    beat: Pin<Box<Sleep>>,
    heard: bool,
    asked: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Drive<IO> {
    pub(super) fn new(io: IO, shared: Arc<Shared>) -> Self {
        Self {
            io,
            shared,
            rest: BytesMut::new(),
            bulk: false,
            writing: Out::default(),
            events: Vec::new(),
            deferred: false,
            flushing: false,
            beat: Box::pin(tokio::time::sleep(BEAT)),
            heard: true,
            asked: false,
        }
    }

    /// Reads, writes, and says when the connection has ended. Cancel safe: what is lost with it is the connection.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, on: &mut impl FnMut(Event)) -> Poll<Ended> {
        let polled = match self.poll_all(cx, on) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(ended)) | Err(ended) => ended,
        };
        Poll::Ready(polled)
    }

    fn poll_all(&mut self, cx: &mut Context<'_>, on: &mut impl FnMut(Event)) -> Result<Poll<Ended>, Ended> {
        self.shared.lock().attend(cx.waker());
        self.poll_read(cx, on)?;
        self.poll_beat(cx)?;
        self.poll_write(cx)?;
        let idle = {
            let state = self.shared.lock();
            state.unneeded && state.streams() == 0 && state.out.is_empty() && self.writing.is_empty()
        };
        if !idle {
            return Ok(Poll::Pending);
        }
        // Whatever becomes of the farewell, the connection is over.
        Ok(Pin::new(&mut self.io).poll_shutdown(cx).map(|_farewell| Ended::Closed))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, on: &mut impl FnMut(Event)) -> Result<(), Ended> {
        loop {
            let read = if self.rest.is_empty() && !self.bulk {
                self.poll_read_passing(cx)?
            } else {
                self.poll_read_on(cx)?
            };
            // Outside of the lock: what begins a call takes it too.
            self.events.drain(..).for_each(&mut *on);
            if self.events.capacity() > EVENTS_KEPT {
                self.events = Vec::new();
            }
            match read {
                Poll::Pending => return Ok(()),
                Poll::Ready(0) => return Err(Ended::Closed),
                Poll::Ready(_) => (self.heard, self.asked) = (true, false),
            }
        }
    }

    /// Reads where others read too, and keeps what has to be kept.
    fn poll_read_passing(&mut self, cx: &mut Context<'_>) -> Result<Poll<usize>, Ended> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut read) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(_error)) => return Err(Ended::Broken),
                Poll::Ready(Ok(())) => {}
            }
            let count = read.filled().len();
            let mut left = read.filled();
            let mut state = self.shared.lock();
            while let Some((bytes, after)) = left.split_first_chunk::<HEADER_BYTES>() {
                let header = Header::read(*bytes).map_err(|_refused| Ended::Protocol)?;
                let Some((payload, after)) = after.split_at_checked(header.length) else {
                    self.rest.reserve(HEADER_BYTES + header.length);
                    break;
                };
                self.events.extend(state.take(header, Payload::Passing(payload))?);
                left = after;
            }
            self.rest.extend_from_slice(left);
            Ok(Poll::Ready(count))
        })
    }

    /// Reads on in memory of its own: the rest of a frame that has begun, or long payloads.
    fn poll_read_on(&mut self, cx: &mut Context<'_>) -> Result<Poll<usize>, Ended> {
        let most = if self.bulk { PAYLOAD_BYTES_MAX } else { PIECE_COST };
        if self.rest.capacity() == self.rest.len() {
            self.rest.reserve(HEADER_BYTES + most);
        }
        let count = match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.rest) {
            Poll::Pending => {
                if self.rest.is_empty() {
                    // A connection that waits keeps no memory.
                    (self.rest, self.bulk) = (BytesMut::new(), false);
                }
                return Ok(Poll::Pending);
            }
            Poll::Ready(Err(_error)) => return Err(Ended::Broken),
            Poll::Ready(Ok(count)) => count,
        };
        let mut state = self.shared.lock();
        while let Some((bytes, after)) = self.rest.split_first_chunk::<HEADER_BYTES>() {
            let header = Header::read(*bytes).map_err(|_refused| Ended::Protocol)?;
            let Some((payload, _)) = after.split_at_checked(header.length) else {
                let wanted = HEADER_BYTES + header.length - self.rest.len();
                self.rest.reserve(wanted);
                break;
            };
            self.bulk = header.length >= OWN_BYTES;
            let event = if self.bulk {
                self.rest.advance(HEADER_BYTES);
                state.take(header, Payload::Own(self.rest.split_to(header.length).freeze()))?
            } else {
                let event = state.take(header, Payload::Passing(payload))?;
                self.rest.advance(HEADER_BYTES + header.length);
                event
            };
            self.events.extend(event);
        }
        if self.rest.is_empty() {
            self.rest = BytesMut::new();
        }
        Ok(Poll::Ready(count))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        loop {
            if self.writing.is_empty() {
                let mut state = self.shared.lock();
                if state.out.is_empty() {
                    break;
                }
                // Whoever else is ready now has its turn first, and what it says leaves in the same write.
                self.deferred = !self.deferred;
                if self.deferred {
                    cx.waker().wake_by_ref();
                    break;
                }
                std::mem::swap(&mut self.writing, &mut state.out);
                state.written();
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.writing.slices(&mut slices);
            let slices = slices.get(..count).unwrap_or_default();
            match Pin::new(&mut self.io).poll_write_vectored(cx, slices) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0) | Err(_)) => return Err(Ended::Broken),
                Poll::Ready(Ok(written)) => self.writing.advance(written),
            }
            self.writing.reuse();
            self.flushing = true;
        }
        if self.flushing {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.flushing = false,
                Poll::Ready(Err(_error)) => return Err(Ended::Broken),
            }
        }
        Ok(())
    }

    /// Looks whether the peer is there.
    fn poll_beat(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        while self.beat.as_mut().poll(cx).is_ready() {
            self.beat.as_mut().reset(Instant::now() + BEAT);
            if std::mem::take(&mut self.heard) {
                continue;
            }
            if std::mem::replace(&mut self.asked, true) {
                return Err(Ended::Silent);
            }
            self.shared.lock().ping();
        }
        Ok(())
    }
}
