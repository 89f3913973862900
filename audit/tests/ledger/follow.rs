//! Handing a ledger's records on: nothing twice under two names, nothing lost, and nothing passed over in silence.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use audit::{Cursor, Follow, FollowError, Ledger};

use crate::support::{Place, call, copy};

/// All that can be read now: epoch, number and name of each record.
fn all(follow: &mut Follow) -> Vec<(u32, u64, String)> {
    let mut found = Vec::new();
    while let Some(sealed) = follow.read().unwrap() {
        found.push((sealed.epoch, sealed.index, sealed.uid(follow.ledger())));
    }
    found
}

fn numbers(follow: &mut Follow) -> Vec<u64> {
    all(follow).into_iter().map(|(_, index, _)| index).collect()
}

fn open(place: &Place, after: Option<&Cursor>) -> Follow {
    Follow::open(&place.dir(), after).unwrap()
}

fn refused(place: &Place, after: &Cursor) -> FollowError {
    Follow::open(&place.dir(), Some(after)).unwrap_err()
}

/// The place behind the record of a number.
fn behind(place: &Place, number: u64) -> Cursor {
    let mut follow = open(place, None);
    while let Some(sealed) = follow.read().unwrap() {
        if sealed.index == number {
            return follow.cursor("").unwrap();
        }
    }
    panic!("there is no record {number}")
}

fn write(ledger: &Ledger, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let _receipt = ledger.call(&call(number)).unwrap();
    }
}

/// Cuts the last segment in two, as if the later half had been begun with this record.
fn split(place: &Place, at: u64) {
    let segments = place.dir().join("segments");
    let last = fs::read_dir(&segments)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max();
    let last = last.unwrap();
    let first: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let text = fs::read_to_string(&last).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (kept, moved) = lines.split_at(usize::try_from(at - first).unwrap());
    fs::write(segments.join(format!("{at:020}.jsonl")), moved.concat()).unwrap();
    fs::write(last, kept.concat()).unwrap();
}

fn segment(place: &Place, first: u64) -> PathBuf {
    place.dir().join(format!("segments/{first:020}.jsonl"))
}

#[test]
fn only_what_a_checkpoint_covers_is_read_and_the_rest_is_counted() {
    let place = Place::filled(30);
    let mut text = fs::read_to_string(segment(&place, 0)).unwrap();
    // As a host that lost its power would have them: written, and not on the disk.
    text.push_str("{\"kind\":\"a\"}\n{\"kind\":\"b\"}\n{\"kind\":");
    fs::write(segment(&place, 0), text).unwrap();
    let mut follow = open(&place, None);
    assert_eq!(numbers(&mut follow), (0..30).collect::<Vec<_>>());
    assert_eq!(follow.unsealed().unwrap(), 2);
}

#[test]
fn a_ledger_that_grows_is_read_as_its_checkpoints_come() {
    let place = Place::filled(10);
    let mut follow = open(&place, None);
    assert_eq!(numbers(&mut follow).len(), 10);
    let ledger = place.open();
    write(&ledger, 10..20);
    assert!(numbers(&mut follow).is_empty(), "the next checkpoint is seconds away");
    ledger.shutdown();
    assert_eq!(numbers(&mut follow), (10..20).collect::<Vec<_>>());
    assert!(numbers(&mut follow).is_empty());
}

#[test]
fn reading_goes_on_behind_the_cursor_over_segments() {
    let place = Place::filled(40);
    for at in [10, 20, 30] {
        split(&place, at);
    }
    let whole = all(&mut open(&place, None));
    assert_eq!(whole.len(), 40);
    for number in [0, 9, 10, 19, 38, 39] {
        let mut follow = open(&place, Some(&behind(&place, number)));
        let rest: Vec<_> = all(&mut follow);
        assert_eq!(rest, whole[usize::try_from(number).unwrap() + 1..], "behind {number}");
    }
}

#[test]
fn every_record_has_a_name_of_its_own_that_says_where_it_is() {
    let place = Place::filled(30);
    let whole = all(&mut open(&place, None));
    let names: BTreeSet<&String> = whole.iter().map(|(_, _, name)| name).collect();
    assert_eq!(names.len(), 30);
    let hash = behind(&place, 17).hash.to_hex();
    assert_eq!(
        whole[17].2,
        format!("acme.internal/host/web-1#1.17.{}", hash.get(..32).unwrap())
    );
}

#[test]
fn a_place_in_another_ledger_or_at_another_record_is_refused() {
    let place = Place::filled(30);
    let cursor = behind(&place, 17);
    let other = Cursor {
        ledger: audit::key::KeyName::parse("acme.internal/host/web-2").unwrap(),
        ..cursor.clone()
    };
    let told = refused(&place, &other);
    assert!(matches!(told, FollowError::OtherLedger { .. }), "{told:?}");
    let another = Cursor {
        record: 18,
        ..cursor.clone()
    };
    let told = refused(&place, &another);
    assert!(matches!(told, FollowError::Differs { record: 18 }), "{told:?}");
    let ahead = Cursor { record: 100, ..cursor };
    let told = refused(&place, &ahead);
    assert!(
        matches!(
            told,
            FollowError::Short {
                record: 100,
                records: 30
            }
        ),
        "{told:?}"
    );
}

#[test]
fn a_ledger_that_was_set_back_is_refused_and_not_read_past() {
    let place = Place::filled(20);
    let early = tempfile::tempdir().unwrap();
    copy(place.folder.path(), early.path());
    let ledger = place.open();
    write(&ledger, 20..30);
    ledger.shutdown();
    let cursor = behind(&place, 25);
    let mut follow = open(&place, Some(&cursor));
    all(&mut follow);
    fs::remove_dir_all(place.folder.path()).unwrap();
    copy(early.path(), place.folder.path());
    let told = refused(&place, &cursor);
    assert!(matches!(told, FollowError::Short { record: 25, .. }), "{told:?}");
    // Also by whoever was reading it.
    let told = follow.read().unwrap_err();
    assert!(matches!(told, FollowError::Short { record: 29, .. }), "{told:?}");
    // Other calls get the numbers of those that were lost.
    let ledger = place.open();
    write(&ledger, 50..70);
    ledger.shutdown();
    let told = refused(&place, &cursor);
    assert!(matches!(told, FollowError::Differs { record: 25 }), "{told:?}");
    let told = follow.read().unwrap_err();
    assert!(matches!(told, FollowError::Differs { record: 29 }), "{told:?}");
}

#[test]
fn records_that_were_pruned_before_they_were_read_are_not_passed_over() {
    let place = Place::filled(40);
    for at in [10, 20, 30] {
        split(&place, at);
    }
    let cursor = behind(&place, 5);
    let mut follow = open(&place, Some(&cursor));
    assert_eq!(follow.read().unwrap().unwrap().index, 6);
    fs::remove_file(segment(&place, 0)).unwrap();
    fs::remove_file(segment(&place, 10)).unwrap();
    let told = refused(&place, &cursor);
    assert!(
        matches!(
            told,
            FollowError::Gone {
                record: 5,
                first: 20,
                ..
            }
        ),
        "{told:?}"
    );
    // Whoever has the first open reads it to its end, and then is told.
    let mut last = 6;
    let told = loop {
        match follow.read() {
            Ok(Some(sealed)) => last = sealed.index,
            Ok(None) => panic!("this looks as if there was no more"),
            Err(told) => break told,
        }
    };
    assert_eq!(last, 9);
    assert!(
        matches!(
            told,
            FollowError::Gone {
                record: 10,
                first: 20,
                ..
            }
        ),
        "{told:?}"
    );
    // Somebody new begins with what there is.
    assert_eq!(numbers(&mut open(&place, None)), (20..40).collect::<Vec<_>>());
}

#[test]
fn a_segment_that_is_not_there_in_the_middle_or_at_the_end_is_an_error() {
    let place = Place::filled(40);
    for at in [10, 20, 30] {
        split(&place, at);
    }
    let last = fs::read(segment(&place, 30)).unwrap();
    fs::remove_file(segment(&place, 30)).unwrap();
    let mut follow = open(&place, None);
    let told = (0..50).find_map(|_| follow.read().err()).unwrap();
    assert!(matches!(told, FollowError::Short { records: 30, .. }), "{told:?}");
    fs::write(segment(&place, 30), last).unwrap();
    assert_eq!(numbers(&mut follow), (30..40).collect::<Vec<_>>(), "it was put back");
}

#[test]
fn records_of_an_epoch_that_a_witness_asked_for_have_its_number() {
    let place = Place::filled(10);
    let ledger = place.open();
    let mut follow = open(&place, None);
    assert_eq!(all(&mut follow).len(), 10);
    ledger.begin_epoch(3, "set_back");
    for _ in 0..2000 {
        if ledger.stats().epoch == 4 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    write(&ledger, 10..12);
    ledger.shutdown();
    let epochs = |found: Vec<(u32, u64, String)>| found.into_iter().map(|one| (one.1, one.0)).collect::<Vec<_>>();
    assert_eq!(epochs(all(&mut follow)), [(10, 4), (11, 4), (12, 4)]);
    // Whoever begins later comes to the same.
    let anew = epochs(all(&mut open(&place, None)));
    assert_eq!(anew[..10].iter().map(|one| one.1).collect::<Vec<_>>(), [1; 10]);
    assert_eq!(anew[10..], [(10, 4), (11, 4), (12, 4)]);
    let cursor = follow.cursor("").unwrap();
    assert_eq!((cursor.epoch, cursor.record), (4, 12));
}

/// A ledger of thirty records of which one is altered, so that it is put aside when it is opened.
fn put_aside(place: &Place) -> Ledger {
    let text = fs::read_to_string(segment(place, 0)).unwrap();
    fs::write(segment(place, 0), text.replace("/orders/7\"", "/orders/8\"")).unwrap();
    let (ledger, report) = Ledger::open_or_begin(place.config(), place.clock.clone()).unwrap();
    assert!(report.begun.is_some());
    ledger
}

#[test]
fn what_was_put_aside_is_read_to_its_end_before_the_ledger_in_its_place() {
    let place = Place::filled(30);
    let cursor = behind(&place, 20);
    let mut follow = open(&place, Some(&cursor));
    assert_eq!(follow.read().unwrap().unwrap().index, 21);
    let ledger = put_aside(&place);
    write(&ledger, 1..3);
    ledger.shutdown();
    let place_of = |found: Vec<(u32, u64, String)>| found.into_iter().map(|one| (one.0, one.1)).collect::<Vec<_>>();
    let rest: Vec<(u32, u64)> = (22..30)
        .map(|index| (1, index))
        .chain((0..4).map(|index| (2, index)))
        .collect();
    assert_eq!(place_of(all(&mut follow)), rest);
    // And after a restart.
    let mut follow = open(&place, Some(&cursor));
    assert_eq!(place_of(all(&mut follow))[1..], rest);
    let names: BTreeSet<String> = all(&mut open(&place, Some(&cursor)))
        .into_iter()
        .map(|one| one.2)
        .collect();
    assert_eq!(names.len(), rest.len() + 1, "no record of the two has another's name");
    // A second time, with one ledger between.
    let text = fs::read_to_string(segment(&place, 0)).unwrap();
    fs::write(segment(&place, 0), text.replace("/orders/1\"", "/orders/9\"")).unwrap();
    let (ledger, _report) = Ledger::open_or_begin(place.config(), place.clock.clone()).unwrap();
    ledger.shutdown();
    let epochs: Vec<u32> = all(&mut open(&place, Some(&cursor)))
        .into_iter()
        .map(|one| one.0)
        .collect();
    assert_eq!(epochs, [[1; 9].as_slice(), &[2; 4], &[3; 2]].concat());
}

#[test]
fn a_ledger_begun_anew_is_not_taken_for_the_rest_of_the_one_before_where_its_numbers_fit() {
    let place = Place::filled(30);
    let mut follow = open(&place, Some(&behind(&place, 20)));
    assert_eq!(follow.read().unwrap().unwrap().index, 21);
    let ledger = put_aside(&place);
    write(&ledger, 1..59);
    ledger.shutdown();
    split(&place, 30);
    let rest = all(&mut follow);
    let epochs = rest.iter().map(|one| (one.0, one.1));
    assert!(epochs.eq((22..30).map(|index| (1, index)).chain((0..60).map(|index| (2, index)))));
}

#[test]
fn a_record_that_was_altered_after_it_was_read_is_found_nowhere() {
    let place = Place::filled(30);
    let cursor = behind(&place, 7);
    let ledger = put_aside(&place);
    write(&ledger, 1..20);
    ledger.shutdown();
    let told = refused(&place, &cursor);
    assert!(matches!(told, FollowError::Differs { record: 7 }), "{told:?}");
}

#[test]
fn a_gap_in_what_was_put_aside_is_an_error_too() {
    let place = Place::filled(30);
    let cursor = behind(&place, 5);
    put_aside(&place).shutdown();
    let aside = place.dir().join("set-aside/1/segments");
    let text = fs::read_to_string(aside.join("00000000000000000000.jsonl")).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(aside.join("00000000000000000000.jsonl"), lines[..10].concat()).unwrap();
    fs::write(aside.join("00000000000000000020.jsonl"), lines[20..].concat()).unwrap();
    let mut follow = open(&place, Some(&cursor));
    let told = (0..50).find_map(|_| follow.read().err()).unwrap();
    assert!(
        matches!(
            told,
            FollowError::Gone {
                record: 10,
                first: 20,
                ..
            }
        ),
        "{told:?}"
    );
}

#[test]
fn a_folder_without_a_key_and_a_checkpoint_of_another_key_are_refused() {
    let place = Place::filled(5);
    let other = Place::filled(5);
    fs::copy(other.dir().join("checkpoint"), place.dir().join("checkpoint")).unwrap();
    let told = Follow::open(&place.dir(), None).unwrap_err();
    assert!(matches!(told, FollowError::Checkpoint { .. }), "{told:?}");
    fs::remove_file(place.dir().join("ledger.vkey")).unwrap();
    let told = Follow::open(&place.dir(), None).unwrap_err();
    assert!(matches!(told, FollowError::Unreadable { .. }), "{told:?}");
}
