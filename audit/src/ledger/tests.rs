//! What needs the inside of a ledger to be shown: small segments, a disk that
//! does not sync, a thread that died.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use spiffe::time::Timestamp;

use super::writer::FRESH_MAX;
use super::*;
use crate::hash::Hash;
use crate::record::{EventKind, Record};
use crate::verify::{Finding, verify};

fn config(folder: &Path) -> LedgerConfig {
    LedgerConfig {
        dir: folder.join("ledger"),
        key_file: folder.join("log.key"),
        origin: "test".to_owned(),
        sync: Duration::from_millis(1),
        max_bytes: 1 << 30,
        retention: None,
    }
}

/// Opens a ledger whose segments are full at 4 KiB.
fn open_small(folder: &Path) -> Ledger {
    let clock = Clock::fixed(Timestamp::from_unix_millis(0)).0;
    let config = config(folder);
    let mut opened = open::open(&config, &clock).unwrap();
    opened.writer.segment_bytes_max = 4096;
    Ledger::start(opened, &config, clock).unwrap().0
}

fn event(number: u64) -> EventRecord {
    EventRecord {
        kind: EventKind::Operator,
        time: Timestamp::from_unix_millis(0),
        actor: "operator:root".to_owned(),
        subject: number.to_string(),
        detail: [("padding".to_owned(), "x".repeat(200).into())].into(),
    }
}

fn segments(folder: &Path) -> Vec<crate::segment::Segment> {
    crate::segment::list(&folder.join("ledger")).unwrap()
}

fn filled(folder: &Path, numbers: std::ops::Range<u64>) {
    let ledger = open_small(folder);
    for number in numbers {
        let _index = ledger.event(&event(number)).unwrap();
    }
    ledger.shutdown();
}

#[test]
fn a_full_segment_is_followed_by_one_that_is_named_by_its_first_record() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 0..200);
    filled(folder.path(), 200..400);
    let all = segments(folder.path());
    assert!(all.len() > 20, "{}", all.len());
    let mut next = 0;
    for segment in &all {
        assert_eq!(segment.first, next);
        let text = std::fs::read_to_string(&segment.path).unwrap();
        assert!((1..4096 + 400).contains(&text.len()));
        let first = text.lines().next().unwrap();
        let Ok(Record::Segment(head)) = Record::decode(first.as_bytes()) else {
            panic!("{first}")
        };
        assert_eq!(head.first, next);
        next += text.lines().count() as u64;
    }
    let report = verify(&folder.path().join("ledger"), None).unwrap();
    assert_eq!(
        (report.records, report.covered, report.segments),
        (next, next, all.len() as u64)
    );
    let mut subjects = Vec::new();
    for entry in crate::tail(&folder.path().join("ledger"), crate::Start::First).unwrap() {
        if let Ok(Record::Event(event)) = Record::decode(&entry.unwrap().line) {
            subjects.push(event.subject);
        }
    }
    assert_eq!(subjects, (0..400).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_tail_follows_from_segment_to_segment() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open_small(folder.path());
    let mut tail = crate::tail(&folder.path().join("ledger"), crate::Start::Last(0)).unwrap();
    let mut seen = 0;
    for number in 0..100 {
        let index = ledger.event(&event(number)).unwrap();
        seen += tail.poll(drop).unwrap();
        assert_eq!(tail.next_index(), index + 1);
    }
    assert_eq!(seen, tail.next_index());
    assert!(segments(folder.path()).len() > 3);
}

#[test]
fn a_lost_segment_is_found_by_verifying_and_by_opening() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 0..200);
    let ledger = folder.path().join("ledger");
    let lost = &segments(folder.path())[5];
    let bytes = std::fs::read(&lost.path).unwrap();
    std::fs::remove_file(&lost.path).unwrap();
    let failure = verify(&ledger, None).unwrap_err();
    assert!(
        matches!(failure.what, Finding::Gap { expected } if expected == lost.first),
        "{failure}"
    );
    assert_eq!(failure.index, Some(lost.first));
    std::fs::write(&lost.path, bytes).unwrap();
    // The end of the list is another matter: those records were sealed.
    std::fs::remove_file(&segments(folder.path()).last().unwrap().path).unwrap();
    assert!(matches!(
        verify(&ledger, None).unwrap_err().what,
        Finding::Missing { .. }
    ));
    let opened = open::open(&config(folder.path()), &Clock::system());
    assert!(matches!(opened, Err(OpenError::Shrunken { .. })), "{opened:?}");
}

#[test]
fn an_older_segment_is_not_read_when_a_ledger_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 0..200);
    let old = &segments(folder.path())[5].path;
    let text = std::fs::read_to_string(old).unwrap();
    std::fs::write(old, text.replace("operator:root", "operator:toor")).unwrap();
    open::open(&config(folder.path()), &Clock::system()).unwrap();
    verify(&folder.path().join("ledger"), None).unwrap_err();
}

#[test]
fn a_disk_that_does_not_sync_stops_the_ledger_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open_small(folder.path());
    let _index = ledger.event(&event(0)).unwrap();
    // The null device takes bytes and refuses to sync.
    ledger
        .owner
        .shared
        .writer()
        .retired
        .push(Arc::new(File::open("/dev/null").unwrap()));
    let refused = loop {
        match ledger.event(&event(1)) {
            Ok(_) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LedgerError::Sync { .. }), "{refused}");
    let lost = ledger.stats().ends_lost;
    ledger.end(&EndRecord {
        id: CallId::from_bytes([0; 16]),
        time: Timestamp::from_unix_millis(0),
        status: None,
        grpc_status: None,
        request_bytes: 0,
        response_bytes: 0,
        duration_us: 0,
        upstream_us: 0,
        tries: 1,
        address: None,
        outcome: "done".to_owned(),
    });
    let sealed = ledger.stats().sealed;
    ledger.shutdown();
    let stats = ledger.stats();
    assert_eq!(
        (stats.ends_lost, stats.sealed),
        (lost + 1, sealed),
        "nothing is sealed after that"
    );
    assert!(stats.trouble.unwrap().contains("could not be synced"));
    drop(ledger);
    // Opening again looks at what is on the disk.
    open_small(folder.path());
    verify(&folder.path().join("ledger"), None).unwrap();
}

#[test]
fn a_disk_that_falls_far_behind_refuses_records() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let mut writer = open::open(&config(folder.path()), &clock).unwrap().writer;
    let line = Line::event(&event(0)).unwrap();
    writer.fresh = vec![Hash::of_empty_tree(); FRESH_MAX - 1];
    assert!(writer.append(&line, line.hash(), Class::Calls, Reserve::Keep).is_ok());
    let refused = writer.append(&line, line.hash(), Class::Calls, Reserve::Keep);
    assert!(matches!(refused, Err(LedgerError::Behind)), "{refused:?}");
}

#[test]
fn many_ends_are_written_without_a_call_to_carry_them() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let mut writer = open::open(&config(folder.path()), &clock).unwrap().writer;
    let line = Line::event(&event(0)).unwrap();
    for _ in 0..64 * 1024 / line.with_newline().len() {
        writer.end(&line, line.hash());
    }
    assert_eq!(writer.size, 0);
    writer.end(&line, line.hash());
    assert!(writer.size > 200);
    assert_eq!(writer.stats.ends, writer.size - 1, "the segment's own record is no end");
}

#[test]
fn a_thread_that_panics_stops_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open_small(folder.path());
    let shared = Arc::clone(&ledger.owner.shared);
    let died = std::thread::spawn(move || {
        let _alarm = keeper::Alarm { shared };
        panic!("as the ledger's thread would");
    })
    .join();
    assert!(died.is_err());
    assert!(matches!(ledger.event(&event(0)), Err(LedgerError::Sync { .. })));
}

mod matrix;
mod pruning;
mod witnessed;
