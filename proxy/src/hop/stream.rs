//! One stream, as one end of its connection knows it.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::AbortHandle;

use super::frame::Last;
use super::state::{Id, wait};
use super::{Ended, PIECE_COST};

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: Id,
    /// The head of the answer, until it is taken.
    pub(super) head: Option<Bytes>,
    pub(super) answered: bool,
    /// Before which write its head waited, at the calling end; nothing where it was not said yet.
    pub(super) opened: Option<u64>,
    pub(super) data: VecDeque<Bytes>,
    pub(super) trailers: Option<Box<HeaderMap>>,
    /// The peer has sent all of its direction.
    pub(super) got_last: bool,
    /// This end has sent all of its direction.
    pub(super) sent_last: bool,
    /// Nobody reads what comes.
    pub(super) left: bool,
    broken: Option<Ended>,
    /// How much more the peer takes.
    pub(super) room: usize,
    /// How much more the peer may send.
    pub(super) expected: usize,
    /// How much was taken and not told to the peer yet.
    pub(super) taken: usize,
    reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// Who answers.
    pub(super) task: Option<AbortHandle>,
}

/// A piece of a body, as it is taken.
#[derive(Debug)]
pub(super) enum Taken {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

impl Stream {
    pub(super) fn new(id: Id, room: usize, expected: usize) -> Self {
        Self {
            id,
            head: None,
            answered: false,
            opened: None,
            data: VecDeque::new(),
            trailers: None,
            got_last: false,
            sent_last: false,
            left: false,
            broken: None,
            room,
            expected,
            taken: 0,
            reader: None,
            writer: None,
            task: None,
        }
    }

    /// Both directions have ended on the wire.
    pub(super) const fn is_over(&self) -> bool {
        self.got_last && self.sent_last
    }

    /// Nothing more comes for whoever reads.
    pub(super) fn is_read_out(&self) -> bool {
        self.got_last && self.head.is_none() && self.data.is_empty() && self.trailers.is_none() && self.broken.is_none()
    }

    /// It was ended before its end.
    pub(super) const fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Something came.
    pub(super) fn got(&mut self, last: Last) {
        self.got_last |= last.is();
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Waits for something to come; ready where nothing will.
    pub(super) fn wait_to_read(&mut self, cx: &Context<'_>) -> Poll<Ended> {
        if let Some(ended) = self.broken {
            return Poll::Ready(ended);
        }
        wait(&mut self.reader, cx);
        Poll::Pending
    }

    /// Takes what came first.
    pub(super) fn poll_take(&mut self, cx: &Context<'_>) -> Poll<Result<Taken, Ended>> {
        if let Some(data) = self.data.pop_front() {
            return Poll::Ready(Ok(Taken::Data(data)));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Ok(Taken::Trailers(*trailers)));
        }
        if self.got_last && self.broken.is_none() {
            return Poll::Ready(Ok(Taken::End));
        }
        self.wait_to_read(cx).map(Err)
    }

    /// Nobody reads any more; says how much room what was not read took.
    pub(super) fn leave(&mut self) -> usize {
        self.left = true;
        self.trailers = None;
        let unread = self.data.drain(..).map(|data| data.len() + PIECE_COST);
        unread.sum()
    }

    /// The connection has ended, or the peer has ended the stream. An answer that is here whole is not less whole for it.
    pub(super) fn broke(&mut self, ended: Ended) {
        if !(self.got_last && self.answered) {
            self.broken.get_or_insert(ended);
        }
        let wakers = [self.reader.take(), self.writer.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// It is forgotten; says how much room what was not read took. Whoever answers it stops.
    pub(super) fn end(mut self) -> usize {
        if let Some(task) = self.task.take().filter(|_| !self.sent_last) {
            task.abort();
        }
        self.broke(Ended::Broken);
        self.leave()
    }
}
