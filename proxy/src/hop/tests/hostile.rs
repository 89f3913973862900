//! What no peer of ours says.

use bytes::BufMut as _;
use proptest::prelude::*;

use super::super::frame::{Kind, Last};
use super::super::state::{End, State};
use super::super::{Ended, Room, STREAMS_MAX};
use super::{Pair, ask, frame, hear, said};

#[test]
fn who_breaks_calls_off_without_end_is_sent_away() {
    let mut called = State::new(End::Called, Room::MOST);
    let ended = (1..10_000u32).find_map(|turn| {
        let id = turn * 256;
        let mut bytes = frame(Kind::Head(Last::Yes), id, b"ask");
        bytes.extend(frame(Kind::Reset, id, &[2]));
        hear(&mut called, &bytes).err()
    });
    assert_eq!(ended, Some(Ended::Flood));
    // Each began no more than the bound.
    assert!(called.running() <= STREAMS_MAX + 20);
}

#[test]
fn who_pings_and_takes_no_answer_is_sent_away() {
    for kind in [Kind::Ping, Kind::Head(Last::Yes)] {
        let mut called = State::new(End::Called, Room::MOST);
        called.close();
        let ended = (1..100_000u32).find_map(|turn| {
            let (stream, payload) = if kind == Kind::Ping {
                (0, &[0; 8][..])
            } else {
                (turn * 256, &b"ask"[..])
            };
            hear(&mut called, &frame(kind, stream, payload)).err()
        });
        assert_eq!(ended, Some(Ended::Flood), "{kind:?}");
        assert!(called.out.len() < 256 * 1024);
    }
}

#[test]
fn what_no_peer_of_ours_says_ends_the_connection() {
    let calls = |frames: &[(Kind, u32, &[u8])]| {
        let mut called = State::new(End::Called, Room::MOST);
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|(kind, id, bytes)| frame(*kind, *id, bytes))
            .collect();
        hear(&mut called, &bytes).err()
    };
    let (head, data, more) = (Kind::Head(Last::No), Kind::Data(Last::Yes), Kind::Data(Last::No));
    for (what, frames) in [
        (
            "a second call in the same place",
            vec![(head, 256, &b"a"[..]), (head, 512, b"b")],
        ),
        (
            "more after the last piece",
            vec![(head, 256, b"a"), (data, 256, b"b"), (more, 256, b"c")],
        ),
        (
            "trailers twice",
            vec![
                (head, 256, b"a"),
                (Kind::Trailers, 256, b"\r\n"),
                (Kind::Trailers, 256, b"\r\n"),
            ],
        ),
        (
            "trailers that are none",
            vec![(head, 256, b"a"), (Kind::Trailers, 256, b"a b\r\n\r\n")],
        ),
        ("an end of calls by the caller", vec![(Kind::Last, 0, b"")]),
        ("more room than there can be", vec![(Kind::Credit, 0, &[0, 0, 0, 1])]),
        ("room twice", vec![(Kind::Room, 0, &Room::MOST.payload()[..]); 2]),
        (
            "less room than the least",
            vec![(Kind::Room, 0, &[0, 0, 0xff, 0xfe, 0, 0, 0x3f, 0xff])],
        ),
        (
            "more room than the most",
            vec![(Kind::Room, 0, &[0, 0x40, 0, 1, 0, 0x10, 0, 0])],
        ),
        (
            "more room for a stream",
            vec![(head, 256, b"a"), (Kind::Credit, 256, &[0, 0, 0, 1])],
        ),
    ] {
        assert_eq!(calls(&frames), Some(Ended::Protocol), "{what}");
    }
    // More bytes than there is room for, of one stream and of all.
    let piece = vec![b'x'; 60_000];
    let over: Vec<_> = std::iter::once((head, 256, &b"a"[..]))
        .chain(std::iter::repeat_n((more, 256, &piece[..]), 18))
        .collect();
    assert_eq!(calls(&over), Some(Ended::Protocol), "too much of one body");
    let mut of_all = Vec::new();
    for stream in (1..6).map(|place| 256 + place) {
        of_all.push((head, stream, &b"a"[..]));
        of_all.extend(std::iter::repeat_n((more, stream, &piece[..]), 17));
    }
    assert_eq!(calls(&of_all), Some(Ended::Protocol), "too much of all bodies");
}

#[test]
fn an_answer_that_nobody_asked_for_means_nothing_and_two_end_the_connection() {
    let mut pair = Pair::new();
    assert!(hear(&mut pair.calling, &frame(Kind::Head(Last::Yes), 256, b"answer")).is_ok());
    let id = pair.open(Last::Yes);
    pair.called
        .answer(id, Last::No, |out| out.put_slice(b"answer"))
        .unwrap();
    let bytes = said(&mut pair.called);
    hear(&mut pair.calling, &bytes).unwrap();
    assert_eq!(hear(&mut pair.calling, &bytes).err(), Some(Ended::Protocol));
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = (1u8..=12, 0u32..4, 1u32..3, prop::collection::vec(any::<u8>(), 0..40));
    kind.prop_map(|(kind, place, turn, payload)| {
        let length = u8::try_from(payload.len()).unwrap();
        let stream = if kind > 7 { 0 } else { turn * 256 + place };
        let mut bytes = vec![kind, 0, 0, length];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    })
}

proptest! {
    #[test]
    fn whatever_comes_is_taken_or_refused(frames in prop::collection::vec(any_frame(), 0..200), calls in 0usize..4) {
        for end in [End::Calling, End::Called] {
            let mut state = State::new(end, Room::MOST);
            if end == End::Calling {
                for _ in 0..calls {
                    ask(&mut state, Last::No).unwrap();
                }
            }
            let heard = hear(&mut state, &frames.concat());
            prop_assert!(state.streams() <= STREAMS_MAX);
            prop_assert!(state.out.len() <= 128 * 1024);
            if let Err(ended) = heard {
                state.end(ended);
            }
        }
    }
}
