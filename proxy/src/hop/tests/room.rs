//! How much may be under way, and wait to be written.

use std::task::Poll;

use super::super::frame::Last;
use super::super::stream::Taken;
use super::super::{PIECE_COST, Room};
use super::{Pair, ask, context, read};

#[test]
fn nobody_sends_more_than_the_other_end_has_room_for() {
    let mut pair = Pair::new();
    let id = pair.open(Last::Yes);
    pair.answer(id, Last::No);
    let (mut sent, mut taken) = (0, 0);
    for _ in 0..100 {
        while let Poll::Ready(Some(room)) = pair.called.poll_room(id, &context()) {
            pair.called.send(id, &mut vec![b'x'; room].into(), Last::No);
            sent += room;
            pair.carry();
        }
        assert!(sent - taken <= Room::MOST.one, "{} bytes wait", sent - taken);
        let Some(Taken::Data(data)) = read(&mut pair.calling, id) else {
            panic!("nothing came");
        };
        taken += data.len();
        pair.carry();
    }
    assert!(sent > 3 * Room::MOST.one, "room is given back");
}

#[test]
fn many_slow_readers_have_one_room_between_them() {
    let mut pair = Pair::new();
    let mut sent = 0;
    for _ in 0..10 {
        let id = pair.open(Last::Yes);
        pair.answer(id, Last::No);
        while let Poll::Ready(Some(room)) = pair.called.poll_room(id, &context()) {
            pair.called.send(id, &mut vec![b'x'; room].into(), Last::No);
            sent += room;
            pair.carry();
        }
    }
    assert!(sent <= Room::MOST.all && sent > Room::MOST.all / 2, "{sent}");
}

#[test]
fn an_end_has_the_least_room_until_the_other_says_more() {
    let sent = |pair: &mut Pair| {
        let id = ask(&mut pair.calling, Last::No).unwrap();
        let mut sent = 0;
        while let Poll::Ready(Some(room)) = pair.calling.poll_room(id, &context()) {
            pair.calling.send(id, &mut vec![b'x'; room].into(), Last::No);
            sent += room + PIECE_COST;
        }
        sent
    };
    let mut pair = Pair::strangers(Room::MOST);
    assert!(sent(&mut pair) <= Room::LEAST.one);
    pair.carry();
    assert!(sent(&mut pair) > Room::LEAST.all);
    // Who has no budget left says the least, and bodies go on all the same.
    let mut pair = Pair::of(Room::LEAST);
    let id = pair.open(Last::No);
    for _ in 0..40 {
        while let Poll::Ready(Some(room)) = pair.calling.poll_room(id, &context()) {
            pair.calling.send(id, &mut vec![b'x'; room].into(), Last::No);
            pair.carry();
        }
        while read(&mut pair.called, id).is_some() {}
        pair.carry();
    }
    assert!(matches!(pair.calling.poll_room(id, &context()), Poll::Ready(Some(_))));
}

#[test]
fn small_pieces_count_for_the_memory_that_they_need() {
    let mut pair = Pair::new();
    let id = pair.open(Last::Yes);
    pair.answer(id, Last::No);
    let mut pieces = 0;
    while let Poll::Ready(Some(_)) = pair.called.poll_room(id, &context()) {
        pair.called.send(id, &mut "x".into(), Last::No);
        pair.carry();
        pieces += 1;
    }
    assert!(pieces <= Room::MOST.one / PIECE_COST, "{pieces} pieces of one byte");
}

#[test]
fn what_waits_to_be_written_is_bounded() {
    let mut pair = Pair::new();
    let id = pair.open(Last::Yes);
    pair.answer(id, Last::No);
    while let Poll::Ready(Some(room)) = pair.called.poll_room(id, &context()) {
        pair.called.send(id, &mut vec![b'x'; room].into(), Last::No);
    }
    assert!(pair.called.out.len() <= 384 * 1024, "{}", pair.called.out.len());
}
