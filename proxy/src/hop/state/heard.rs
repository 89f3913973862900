//! What the peer says: each frame is taken, or ends the connection.

use std::task::Waker;

use bytes::Bytes;

use super::super::frame::{HEADER_BYTES, Header, Kind, Last};
use super::super::{Ended, Reset, Room, STREAMS_MAX, are_whole};
use super::{ENDING_MAX, End, Event, Id, Payload, REFUSED_MAX, RETORT_BYTES_MAX, State, cost};
use crate::http1::{TRAILER_FIELDS_MAX, field};

impl State {
    /// Takes a frame.
    pub(in crate::hop) fn take(&mut self, header: Header, payload: Payload<'_>) -> Result<Option<Event>, Ended> {
        let id = Id(header.stream);
        match header.kind {
            Kind::Head(last) => return self.take_head(id, payload.keep(), last),
            Kind::Data(last) => self.take_data(id, payload, last)?,
            Kind::Trailers => self.take_trailers(id, &payload.keep())?,
            Kind::Reset => self.take_reset(id, Reset::of(payload.bytes())),
            Kind::Credit => self.take_credit(id, payload.bytes())?,
            Kind::Ping => {
                self.out.frame(Kind::Pong, 0, payload.bytes());
                self.retort()?;
            }
            Kind::Pong => {}
            Kind::Last if self.end == End::Calling => self.closing = true,
            Kind::Last => return Err(Ended::Protocol),
            Kind::Room => self.take_room(payload.bytes())?,
            Kind::Proof => return Ok(Some(Event::Proof(payload.keep()))),
        }
        Ok(None)
    }

    /// Bounds what the peer can have this end say while it reads nothing.
    fn retort(&mut self) -> Result<(), Ended> {
        self.retorts += 2 * HEADER_BYTES;
        self.kick();
        if self.retorts > RETORT_BYTES_MAX {
            return Err(Ended::Flood);
        }
        Ok(())
    }

    fn take_head(&mut self, id: Id, head: Bytes, last: Last) -> Result<Option<Event>, Ended> {
        match self.end {
            End::Calling => {
                // One that nobody waits for any more was reset by this end.
                let Some(stream) = self.find(id) else {
                    return Ok(None);
                };
                if stream.answered || stream.got_last {
                    return Err(Ended::Protocol);
                }
                stream.answered = true;
                stream.head = Some(head);
                stream.got(last);
                Ok(None)
            }
            End::Called => self.take_call(id, head, last),
        }
    }

    fn take_call(&mut self, id: Id, head: Bytes, last: Last) -> Result<Option<Event>, Ended> {
        let crowd = self.running >= STREAMS_MAX + ENDING_MAX;
        if crowd || self.closing {
            self.out.frame(Kind::Reset, id.0, &[Reset::Refused.number()]);
            self.refused += usize::from(crowd);
            if self.refused > REFUSED_MAX {
                return Err(Ended::Flood);
            }
            self.retort()?;
            return Ok(None);
        }
        let place = id.place();
        while self.places.len() <= place {
            self.places.push(None);
        }
        if let Some(Some(before)) = self.places.get(place) {
            // A place is taken again once its stream has ended in both directions.
            if !before.is_over() {
                return Err(Ended::Protocol);
            }
            let before = before.id;
            self.remove(before);
        }
        let mut stream = self.stream(id);
        (stream.got_last, stream.left) = (last.is(), last.is());
        self.put(stream);
        self.running += 1;
        Ok(Some(Event::Opened { id, head, last }))
    }

    fn take_data(&mut self, id: Id, payload: Payload<'_>, last: Last) -> Result<(), Ended> {
        let length = payload.bytes().len();
        let cost = cost(length);
        self.expected = self.expected.checked_sub(cost).ok_or(Ended::Protocol)?;
        let is_calling = self.end == End::Calling;
        let Some(stream) = self.find(id) else {
            // Of a stream that ended here, while this was on its way.
            self.credit_all(cost);
            return Ok(());
        };
        if stream.got_last || (is_calling && !stream.answered) {
            return Err(Ended::Protocol);
        }
        stream.expected = stream.expected.checked_sub(cost).ok_or(Ended::Protocol)?;
        let wanted = !stream.left && length > 0;
        if wanted {
            stream.data.push_back(payload.keep());
        }
        stream.got(last);
        if !wanted {
            self.credit_all(cost);
        }
        self.settle(id);
        Ok(())
    }

    fn take_trailers(&mut self, id: Id, lines: &Bytes) -> Result<(), Ended> {
        if !are_whole(lines) {
            return Err(Ended::Protocol);
        }
        let fields = field::parse(lines, TRAILER_FIELDS_MAX).map_err(|_refused| Ended::Protocol)?;
        let is_calling = self.end == End::Calling;
        let Some(stream) = self.find(id) else {
            return Ok(());
        };
        if stream.got_last || (is_calling && !stream.answered) {
            return Err(Ended::Protocol);
        }
        stream.trailers = Some(Box::new(fields));
        stream.got(Last::Yes);
        self.settle(id);
        Ok(())
    }

    fn take_reset(&mut self, id: Id, why: Reset) {
        let is_calling = self.end == End::Calling;
        let Some(stream) = self.find(id) else { return };
        if is_calling && (stream.got_last || why == Reset::Enough) {
            // The answer is whole, or goes on; nobody reads the rest of the request.
            stream.sent_last = true;
            stream.writer.take().into_iter().for_each(Waker::wake);
            return self.settle(id);
        }
        if is_calling {
            // Whoever waits reads why.
            stream.broke(Ended::Reset(why));
            stream.sent_last = true;
        } else {
            self.remove(id);
        }
    }

    /// The peer says once how much this end may have under way; until then it is the least.
    fn take_room(&mut self, payload: &[u8]) -> Result<(), Ended> {
        let room = Room::read(payload).ok_or(Ended::Protocol)?;
        if self.theirs.replace(room).is_some() {
            return Err(Ended::Protocol);
        }
        self.room += room.all - Room::LEAST.all;
        for stream in self.places.iter_mut().flatten() {
            stream.room += room.one - Room::LEAST.one;
        }
        self.wake_writers();
        Ok(())
    }

    fn take_credit(&mut self, id: Id, payload: &[u8]) -> Result<(), Ended> {
        let bytes = payload.try_into().map_or(0, u32::from_be_bytes);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let most = self.theirs.unwrap_or(Room::LEAST);
        let more = |room: usize, most: usize| {
            room.checked_add(bytes)
                .filter(|room| *room <= most)
                .ok_or(Ended::Protocol)
        };
        if id.0 == 0 {
            self.room = more(self.room, most.all)?;
            self.wake_writers();
        } else if let Some(stream) = self.find(id) {
            stream.room = more(stream.room, most.one)?;
            stream.writer.take().into_iter().for_each(Waker::wake);
        }
        Ok(())
    }
}
