//! Both ends of a connection, over a pipe.

mod cost;
mod ends;
mod hostile;
mod room;

use std::task::{Poll, Waker};

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::frame::{HEADER_BYTES, Header, Kind, Last};
use super::state::{End, Event, Id, NotOpened, Payload, State};
use super::stream::Taken;
use super::*;

fn context() -> std::task::Context<'static> {
    std::task::Context::from_waker(Waker::noop())
}

/// What one end has to say, taken from it.
fn said(state: &mut State) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !state.out.is_empty() {
        let mut slices = [std::io::IoSlice::new(&[]); out::SLICES];
        let count = state.out.slices(&mut slices);
        let part: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        state.out.advance(part.len());
        bytes.extend(part);
    }
    state.written();
    bytes
}

/// Has an end hear bytes.
fn hear(state: &mut State, mut bytes: &[u8]) -> Result<Vec<Event>, Ended> {
    let mut events = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::read(*header).map_err(|_refused| Ended::Protocol)?;
        let Some((payload, rest)) = rest.split_at_checked(header.length) else {
            break;
        };
        events.extend(state.take(header, Payload::Passing(payload))?);
        bytes = rest;
    }
    Ok(events)
}

fn frame(kind: Kind, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut out = BytesMut::new();
    Header { kind, length, stream }.put(&mut out);
    out.put_slice(payload);
    out.to_vec()
}

struct Pair {
    calling: State,
    called: State,
}

impl Pair {
    /// Two ends that have told each other of the most room.
    fn new() -> Self {
        Self::of(Room::MOST)
    }

    fn of(room: Room) -> Self {
        let mut pair = Self::strangers(room);
        assert!(pair.carry().is_empty());
        pair
    }

    fn strangers(room: Room) -> Self {
        Self {
            calling: State::new(End::Calling, room),
            called: State::new(End::Called, room),
        }
    }

    /// Carries all that either has to say; gives the calls that came.
    fn carry(&mut self) -> Vec<(Id, bytes::Bytes)> {
        let mut calls = Vec::new();
        loop {
            let (there, back) = (said(&mut self.calling), said(&mut self.called));
            if there.is_empty() && back.is_empty() {
                return calls;
            }
            for event in hear(&mut self.called, &there).unwrap() {
                if let Event::Opened { id, head, .. } = event {
                    calls.push((id, head));
                }
            }
            assert!(hear(&mut self.calling, &back).unwrap().is_empty());
        }
    }

    fn open(&mut self, last: Last) -> Id {
        let id = ask(&mut self.calling, last).unwrap();
        let calls = self.carry();
        assert_eq!((calls.len(), calls[0].0), (1, id));
        assert_eq!(calls[0].1, "ask");
        id
    }

    fn answer(&mut self, id: Id, last: Last) {
        assert!(self.called.answer(id, last, |out| out.put_slice(b"answer")).unwrap());
        self.carry();
        let head = self.calling.poll_answer(id, &context());
        assert!(matches!(head, Poll::Ready(Ok(head)) if head == "answer"));
    }

    fn nothing_is_left(&mut self) {
        self.carry();
        assert_eq!((self.calling.streams(), self.called.streams()), (0, 0));
    }
}

fn ask(calling: &mut State, last: Last) -> Result<Id, NotOpened> {
    let id = calling.reserve()?;
    calling.open(id, last, |out| out.put_slice(b"ask")).map(|()| id)
}

fn read(state: &mut State, id: Id) -> Option<Taken> {
    match state.poll_body(id, &context()) {
        Poll::Ready(taken) => Some(taken.unwrap()),
        Poll::Pending => None,
    }
}

#[test]
fn a_call_is_carried_and_leaves_nothing_behind() {
    let mut pair = Pair::new();
    for _ in 0..3 * STREAMS_MAX {
        let id = pair.open(Last::No);
        pair.calling.send(id, &mut "body".into(), Last::Yes);
        pair.carry();
        assert!(matches!(read(&mut pair.called, id), Some(Taken::Data(data)) if data == "body"));
        assert!(matches!(read(&mut pair.called, id), Some(Taken::End)));
        pair.called.leave(id);
        pair.answer(id, Last::No);
        pair.called.send(id, &mut "part".into(), Last::No);
        let fields = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        pair.called.send_trailers(id, &fields);
        pair.carry();
        assert!(matches!(read(&mut pair.calling, id), Some(Taken::Data(data)) if data == "part"));
        assert!(matches!(read(&mut pair.calling, id), Some(Taken::Trailers(came)) if came == fields));
        pair.calling.leave(id);
        pair.called.task_ended();
        pair.nothing_is_left();
    }
}

#[test]
fn a_caller_that_wants_no_answer_ends_the_call_at_both_ends() {
    let mut pair = Pair::new();
    let id = pair.open(Last::No);
    pair.calling.leave(id);
    pair.nothing_is_left();
    // What was on its way then means nothing.
    let id = pair.open(Last::Yes);
    assert!(
        pair.called
            .answer(id, Last::No, |out| out.put_slice(b"answer"))
            .unwrap()
    );
    pair.called.send(id, &mut "late".into(), Last::Yes);
    pair.calling.leave(id);
    pair.nothing_is_left();
}

#[test]
fn a_body_that_breaks_off_ends_the_call_and_the_caller_is_to_blame() {
    let mut pair = Pair::new();
    let id = pair.open(Last::No);
    pair.calling.break_off(id, Reset::Failed);
    let answer = pair.calling.poll_answer(id, &context());
    assert_eq!(answer, Poll::Ready(Err(Ended::Body)));
    pair.calling.leave(id);
    pair.nothing_is_left();
}

#[test]
fn the_rest_of_a_request_is_not_sent_once_its_answer_is_whole() {
    let mut pair = Pair::new();
    let id = pair.open(Last::No);
    pair.called.leave(id);
    pair.answer(id, Last::Yes);
    assert_eq!(pair.calling.poll_room(id, &context()), Poll::Ready(None));
    pair.calling.leave(id);
    pair.nothing_is_left();
}

#[test]
fn an_answer_goes_on_when_nobody_reads_the_request() {
    let mut pair = Pair::new();
    let id = pair.open(Last::No);
    pair.called.leave(id);
    pair.answer(id, Last::No);
    // More than all the room there is.
    for _ in 0..8 {
        while let Poll::Ready(Some(room)) = pair.calling.poll_room(id, &context()) {
            pair.calling.send(id, &mut vec![b'x'; room].into(), Last::No);
            pair.carry();
        }
    }
    pair.called.send(id, &mut "answer".into(), Last::Yes);
    pair.carry();
    assert!(matches!(read(&mut pair.calling, id), Some(Taken::Data(data)) if data == "answer"));
    pair.calling.leave(id);
    pair.nothing_is_left();
}

#[test]
fn a_connection_that_closes_begins_no_call_and_says_so_of_each() {
    let mut pair = Pair::new();
    let before = pair.open(Last::Yes);
    let raced = ask(&mut pair.calling, Last::Yes).unwrap();
    pair.called.close();
    assert!(pair.carry().is_empty());
    let refused = pair.calling.poll_answer(raced, &context());
    assert!(matches!(refused, Poll::Ready(Err(Ended::Reset(Reset::Refused)))));
    let closing = ask(&mut pair.calling, Last::Yes);
    assert_eq!(closing, Err(NotOpened::Closing));
    pair.answer(before, Last::Yes);
}

#[test]
fn a_connection_carries_no_more_calls_than_it_may() {
    let mut pair = Pair::new();
    for _ in 0..STREAMS_MAX {
        pair.open(Last::Yes);
    }
    let full = ask(&mut pair.calling, Last::Yes);
    assert_eq!(full, Err(NotOpened::Full));
}

#[test]
fn an_end_of_the_connection_reaches_everybody_and_an_answer_that_is_here_stays() {
    let mut pair = Pair::new();
    let (whole, part) = (pair.open(Last::Yes), pair.open(Last::Yes));
    pair.answer(whole, Last::No);
    pair.called.send(whole, &mut "all".into(), Last::Yes);
    pair.answer(part, Last::No);
    pair.carry();
    pair.calling.end(Ended::Broken);
    assert!(matches!(read(&mut pair.calling, whole), Some(Taken::Data(_))));
    assert!(matches!(read(&mut pair.calling, whole), Some(Taken::End)));
    assert!(matches!(
        pair.calling.poll_body(part, &context()),
        Poll::Ready(Err(Ended::Broken))
    ));
    assert_eq!(pair.calling.poll_room(part, &context()), Poll::Ready(None));
}

#[test]
fn a_call_that_never_left_was_begun_by_nobody_when_its_connection_ends() {
    let mut pair = Pair::new();
    let left = pair.open(Last::Yes);
    let waits = ask(&mut pair.calling, Last::Yes).unwrap();
    let reserved = pair.calling.reserve().unwrap();
    pair.calling.end(Ended::Broken);
    let mut told = |id| pair.calling.poll_answer(id, &context());
    assert_eq!(told(left), Poll::Ready(Err(Ended::Broken)));
    for id in [waits, reserved] {
        assert_eq!(told(id), Poll::Ready(Err(Ended::Reset(Reset::Refused))));
    }
}

#[test]
fn a_code_of_http2_goes_over_the_hop_and_anything_else_is_a_failure() {
    #[derive(Debug, Error)]
    #[error("outer")]
    struct Outer(#[source] h2::Error);
    for code in 0..=20u8 {
        let why = Reset::by(&Outer(h2::Reason::from(u32::from(code)).into()));
        let said = Reset::of(&[why.number()]);
        assert_eq!(said, why);
        assert_eq!(matches!(why, Reset::Code(same) if same == code), code <= 13, "{code}");
    }
    let by = Reset::by(&std::io::Error::other("gone"));
    assert_eq!(by, Reset::Failed);
    for number in [0, 5, 15, 30, 255] {
        assert_eq!(Reset::of(&[number]), Reset::Failed);
    }
}
