//! What this end says.

use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::task::AbortHandle;

use super::super::frame::{Kind, Last, PAYLOAD_BYTES_MAX};
use super::super::out::TooLong;
use super::super::stream::Stream;
use super::super::{Ended, PIECE_COST, Reset, Room, STREAMS_MAX};
use super::{End, Id, NotOpened, OUT_BYTES, State, cost, wait};
use crate::http1::{HEAD_BYTES_MAX, TRAILER_BYTES_MAX, encode};

impl State {
    /// Takes a place for a call, of which nothing is said yet.
    pub(in crate::hop) fn reserve(&mut self) -> Result<Id, NotOpened> {
        if self.ended.is_some() || self.closing {
            return Err(NotOpened::Closing);
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() < STREAMS_MAX => {
                self.places.push(None);
                self.places.len() - 1
            }
            None => return Err(NotOpened::Full),
        };
        self.turn = self.turn % (Id::TURNS - 1) + 1;
        let id = Id::new(place, self.turn);
        self.put(self.stream(id));
        Ok(id)
    }

    pub(super) fn stream(&self, id: Id) -> Stream {
        Stream::new(id, self.theirs.unwrap_or(Room::LEAST).one, self.ours.one)
    }

    /// Opens a stream with the head of a call. Where the connection has ended since its place was taken, the call reads that
    /// when it waits for the answer.
    pub(in crate::hop) fn open(
        &mut self,
        id: Id,
        last: Last,
        write: impl FnOnce(&mut BytesMut),
    ) -> Result<(), NotOpened> {
        let writes = self.writes;
        let Some(stream) = self.find(id).filter(|stream| !stream.is_broken()) else {
            return Ok(());
        };
        stream.sent_last |= last.is();
        stream.opened = Some(writes);
        let written = self.out.write(Kind::Head(last), id.0, HEAD_BYTES_MAX, write);
        if let Err(TooLong) = written {
            self.remove(id);
            return Err(NotOpened::TooLong);
        }
        self.kick();
        Ok(())
    }

    /// Answers on a stream. `false` where there is nobody to answer any more.
    pub(in crate::hop) fn answer(
        &mut self,
        id: Id,
        last: Last,
        write: impl FnOnce(&mut BytesMut),
    ) -> Result<bool, TooLong> {
        let Some(stream) = self.find(id) else {
            return Ok(false);
        };
        stream.sent_last |= last.is();
        self.out.write(Kind::Head(last), id.0, HEAD_BYTES_MAX, write)?;
        self.settle(id);
        self.kick();
        Ok(true)
    }

    /// How many bytes of a body may be sent now; `None` where nobody takes any more.
    fn room(&mut self, id: Id) -> Option<usize> {
        if self.ended.is_some() {
            return None;
        }
        let (all, crowded) = (self.room, self.out.len() >= OUT_BYTES);
        let stream = self.find(id).filter(|stream| !stream.sent_last)?;
        let room = all.min(stream.room).saturating_sub(PIECE_COST);
        Some(if crowded { 0 } else { room.min(PAYLOAD_BYTES_MAX) })
    }

    /// Waits until bytes of a body may be sent, and says how many; `None` where nobody takes any more.
    pub(in crate::hop) fn poll_room(&mut self, id: Id, cx: &Context<'_>) -> Poll<Option<usize>> {
        let Some(room) = self.room(id) else {
            return Poll::Ready(None);
        };
        // Woken too when nobody takes any more, whatever it waits for then.
        if let Some(stream) = self.find(id) {
            wait(&mut stream.writer, cx);
        }
        if room == 0 {
            self.crowded = true;
            return Poll::Pending;
        }
        Poll::Ready(Some(room))
    }

    /// Sends as much of `data` as there is room for and leaves the rest; `last` counts once all of it is sent.
    pub(in crate::hop) fn send(&mut self, id: Id, data: &mut Bytes, last: Last) {
        let Some(room) = self.room(id) else {
            return data.clear();
        };
        let piece = data.split_to(room.min(data.len()));
        let last = Last::when(last.is() && data.is_empty());
        if piece.is_empty() && !last.is() {
            return;
        }
        let cost = cost(piece.len());
        self.room = self.room.saturating_sub(cost);
        if let Some(stream) = self.find(id) {
            stream.room = stream.room.saturating_sub(cost);
            stream.sent_last |= last.is();
        }
        self.out.data(Kind::Data(last), id.0, piece);
        self.settle(id);
        self.kick();
    }

    /// Ends a body with fields.
    pub(in crate::hop) fn send_trailers(&mut self, id: Id, fields: &HeaderMap) {
        let Some(stream) = self.find(id).filter(|stream| !stream.sent_last) else {
            return;
        };
        stream.sent_last = true;
        let write = |out: &mut BytesMut| encode::lines(out, fields);
        if let Err(TooLong) = self.out.write(Kind::Trailers, id.0, TRAILER_BYTES_MAX, write) {
            // Fields that are too long can be dropped (RFC 9110 §6.5.1); the end of the body cannot.
            self.out.frame(Kind::Data(Last::Yes), id.0, &[]);
        }
        self.settle(id);
        self.kick();
    }

    /// Ends a stream in both directions.
    pub(in crate::hop) fn reset(&mut self, id: Id, why: Reset) {
        if self.find(id).is_none() {
            return;
        }
        if self.ended.is_none() {
            self.out.frame(Kind::Reset, id.0, &[why.number()]);
            self.kick();
        }
        self.remove(id);
    }

    /// Ends a stream in both directions because what this end sends on it does not go on.
    pub(in crate::hop) fn break_off(&mut self, id: Id, why: Reset) {
        let is_calling = self.end == End::Calling;
        match self.find(id) {
            Some(stream) if is_calling => {
                // Whoever waits for the answer reads why none comes.
                stream.sent_last = true;
                stream.broke(Ended::Body);
                self.out.frame(Kind::Reset, id.0, &[why.number()]);
                self.kick();
            }
            Some(_) | None => self.reset(id, why),
        }
    }

    /// Notes who answers a call, so that it can be broken off.
    pub(in crate::hop) fn answered_by(&mut self, id: Id, task: AbortHandle) {
        match self.find(id) {
            Some(stream) => stream.task = Some(task),
            // It was broken off already.
            None => task.abort(),
        }
    }

    pub(in crate::hop) const fn task_ended(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Says a piece of a proof.
    pub(in crate::hop) fn prove(&mut self, piece: &[u8]) {
        self.out.frame(Kind::Proof, 0, piece);
        self.kick();
    }

    /// Says that no stream that comes from here on is begun.
    pub(in crate::hop) fn close(&mut self) {
        if !std::mem::replace(&mut self.closing, true) {
            self.out.frame(Kind::Last, 0, &[]);
            self.kick();
        }
    }

    /// Asks whether the peer is there.
    pub(in crate::hop) fn ping(&mut self) {
        self.refused = 0;
        self.out.frame(Kind::Ping, 0, &[0; 8]);
    }

    /// What waited was taken to be written, so others may go on.
    pub(in crate::hop) fn written(&mut self) {
        self.writes += 1;
        self.retorts = 0;
        if std::mem::take(&mut self.crowded) {
            self.wake_writers();
        }
    }

    pub(super) fn wake_writers(&mut self) {
        for stream in self.places.iter_mut().flatten() {
            stream.writer.take().into_iter().for_each(Waker::wake);
        }
    }
}
