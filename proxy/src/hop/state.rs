//! The state of one end of a connection: its streams, what each may still send, and what waits to be written. It reads
//! frames and writes frames; it reads no socket.

mod heard;
mod read;
mod said;

use std::task::{Context, Waker};

use bytes::Bytes;
use tokio::task::AbortHandle;

use super::frame::{Kind, Last};
use super::out::Out;
use super::stream::Stream;
use super::{Ended, PIECE_COST, Reset, Room};

/// How much of bodies waits to be written before more of them is taken.
const OUT_BYTES: usize = 256 * 1024;

/// How much may wait of what the peer makes this end say without a call: answers to pings, and resets.
const RETORT_BYTES_MAX: usize = 64 * 1024;

/// Calls that were broken off and have not ended yet, beside those that a peer may have open (CVE-2023-44487).
const ENDING_MAX: usize = crate::mesh::PENDING_RESETS_MAX;

/// Calls that are refused because too many were broken off, before the peer is sent away; counted afresh with each ping.
const REFUSED_MAX: usize = crate::mesh::PROVOKED_RESETS_MAX;

/// Which end it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It opens streams.
    Calling,
    /// It answers on them.
    Called,
}

/// The number of a stream: its place, and how often places were taken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

impl Id {
    const PLACES: u32 = crate::mesh::STREAMS_MAX;

    /// Turns are counted from 1, so that no stream has the number 0.
    const TURNS: u32 = u32::MAX / 2 / Self::PLACES;

    fn new(place: usize, turn: u32) -> Self {
        // A place is less than `PLACES`.
        Self(turn * Self::PLACES + u32::try_from(place).unwrap_or_default() % Self::PLACES)
    }

    const fn place(self) -> usize {
        (self.0 % Self::PLACES) as usize
    }
}

/// What a frame is to somebody outside of the state.
#[derive(Debug)]
pub(super) enum Event {
    /// The peer calls.
    Opened { id: Id, head: Bytes, last: Last },
    /// It said a piece of a proof.
    Proof(Bytes),
}

/// The payload of a frame: in the memory of a read that goes on, or in memory of its own.
#[derive(Debug)]
pub(super) enum Payload<'a> {
    Passing(&'a [u8]),
    Own(Bytes),
}

impl Payload<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Passing(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }

    fn keep(self) -> Bytes {
        match self {
            Self::Passing(bytes) => Bytes::copy_from_slice(bytes),
            Self::Own(bytes) => bytes,
        }
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct State {
    end: End,
    pub(super) out: Out,
    places: Vec<Option<Stream>>,
    /// How many places are taken.
    streams: usize,
    /// Places that are not, on the calling end: it is the one that chooses.
    free: Vec<usize>,
    turn: u32,
    /// How much the peer may have under way, and how much this end.
    ours: Room,
    /// Nothing until the peer has said so.
    theirs: Option<Room>,
    /// How much more the peer takes, of all streams.
    room: usize,
    /// How much more the peer may send, of all streams.
    expected: usize,
    /// How much was taken and not told to the peer yet.
    taken: usize,
    /// How often what waited was taken to be written.
    writes: u64,
    /// What the peer made this end say, and is not written yet.
    retorts: usize,
    /// Calls whose tasks run, on the called end.
    running: usize,
    refused: usize,
    /// Somebody waits because much waits to be written.
    crowded: bool,
    /// No stream that comes from here on is begun: this end said so, or the peer.
    pub(super) closing: bool,
    pub(super) ended: Option<Ended>,
    /// Nobody on this side needs the connection any more.
    pub(super) unneeded: bool,
    /// Whoever reads and writes the socket.
    task: Option<Waker>,
    kicked: bool,
}

impl State {
    pub(super) fn new(end: End, ours: Room) -> Self {
        let mut out = Out::default();
        out.frame(Kind::Room, 0, &ours.payload());
        Self {
            end,
            out,
            ours,
            theirs: None,
            places: Vec::new(),
            streams: 0,
            free: Vec::new(),
            turn: 0,
            room: Room::LEAST.all,
            expected: ours.all,
            taken: 0,
            writes: 0,
            retorts: 0,
            running: 0,
            refused: 0,
            crowded: false,
            closing: false,
            ended: None,
            unneeded: false,
            task: None,
            kicked: false,
        }
    }

    /// Wakes whoever writes.
    pub(super) fn kick(&mut self) {
        if !std::mem::replace(&mut self.kicked, true)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }

    /// Notes who is to be woken when there is something to write.
    pub(super) fn attend(&mut self, waker: &Waker) {
        self.kicked = false;
        if self.task.as_ref().is_none_or(|task| !task.will_wake(waker)) {
            self.task = Some(waker.clone());
        }
    }

    /// How many streams there are.
    pub(super) const fn streams(&self) -> usize {
        self.streams
    }

    /// How many calls are being answered.
    #[cfg(test)]
    pub(super) const fn running(&self) -> usize {
        self.running
    }

    /// No call runs, in either direction.
    pub(super) const fn is_idle(&self) -> bool {
        self.running == 0 && self.streams == 0
    }

    fn find(&mut self, id: Id) -> Option<&mut Stream> {
        let stream = self.places.get_mut(id.place())?.as_mut()?;
        (stream.id == id).then_some(stream)
    }

    /// Gives the place of a stream that is over, and that nobody reads, to another.
    fn settle(&mut self, id: Id) {
        let is_called = self.end == End::Called;
        let Some(stream) = self.find(id) else { return };
        if is_called && stream.sent_last && stream.left && !stream.got_last {
            // The answer is whole, and nobody here reads the rest of the request.
            self.out.frame(Kind::Reset, id.0, &[Reset::Enough.number()]);
            self.kick();
            return self.remove(id);
        }
        if stream.is_over() && stream.left {
            self.remove(id);
        }
    }

    fn put(&mut self, stream: Stream) {
        if let Some(place) = self.places.get_mut(stream.id.place()) {
            *place = Some(stream);
            self.streams += 1;
        }
    }

    fn remove(&mut self, id: Id) {
        let Some(place) = self.places.get_mut(id.place()) else {
            return;
        };
        let Some(stream) = place.take_if(|stream| stream.id == id) else {
            return;
        };
        self.streams -= 1;
        if self.end == End::Calling {
            self.free.push(id.place());
        }
        let unread = stream.end();
        self.credit_all(unread);
        if self.unneeded {
            self.kick();
        }
    }

    /// The connection has ended: everybody hears it.
    pub(super) fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
        let (is_calling, writes) = (self.end == End::Calling, self.writes);
        for stream in self.places.iter_mut().flatten() {
            // Nobody began what never left.
            let left = stream.opened.is_some_and(|opened| opened < writes);
            stream.broke(if is_calling && !left {
                Ended::Reset(Reset::Refused)
            } else {
                ended
            });
            // Who answers answers nobody any more.
            stream.task.take().iter().for_each(AbortHandle::abort);
        }
    }
}

/// Why a call was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOpened {
    /// The connection ends.
    Closing,
    /// It carries as many calls as it may.
    Full,
    /// Its head is longer than any may be.
    TooLong,
}

/// What a piece of a body costs of the room for it: small pieces need memory beside their bytes.
const fn cost(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes + PIECE_COST }
}

pub(super) fn wait(place: &mut Option<Waker>, cx: &Context<'_>) {
    if place.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}
