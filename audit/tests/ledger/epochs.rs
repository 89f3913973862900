//! New epochs: of a ledger that is not as it was left, and of one of which a witness says so.

use std::fs;

use audit::note::Note;
use audit::{Checkpoint, Ledger, OpenError, OpenReport, VerifierKey};

use crate::support::{Place, call, copy, files};

fn begun(place: &Place) -> (Ledger, OpenReport) {
    Ledger::open_or_begin(place.config(), place.clock.clone()).unwrap()
}

fn vkey(place: &Place) -> String {
    let text = fs::read_to_string(place.dir().join("ledger.vkey")).unwrap();
    text.trim_end().to_owned()
}

fn origin(place: &Place) -> String {
    let note = fs::read(place.dir().join("checkpoint")).unwrap();
    let note = Note::parse(&note).unwrap();
    note.text().lines().next().unwrap().to_owned()
}

fn segment(place: &Place) -> std::path::PathBuf {
    place.dir().join("segments/00000000000000000000.jsonl")
}

/// Waits until the ledger is in an epoch and a checkpoint of it covers all records.
fn until_in(ledger: &Ledger, epoch: u32) {
    let sealed = || {
        let stats = ledger.stats();
        stats.epoch == epoch && stats.sealed == stats.records
    };
    while !sealed() {
        std::thread::yield_now();
    }
}

#[test]
fn a_ledger_that_is_as_it_was_left_goes_on_in_its_epoch() {
    let place = Place::filled(30);
    let (ledger, report) = begun(&place);
    assert_eq!((report.records, report.begun), (30, None));
    assert_eq!(ledger.stats().epoch, 1);
    ledger.shutdown();
    assert_eq!(origin(&place), "acme.internal/host/web-1");
    assert!(!place.dir().join("set-aside").exists());
}

/// How a ledger is damaged, and the word for what is found.
type Damage = (&'static str, fn(&Place));

const DAMAGES: [Damage; 8] = [
    ("shrunken", |place| fs::remove_file(segment(place)).unwrap()),
    ("shrunken", |place| {
        let text = fs::read_to_string(segment(place)).unwrap();
        let kept: Vec<&str> = text.split_inclusive('\n').take(20).collect();
        fs::write(segment(place), kept.concat()).unwrap();
    }),
    ("altered", |place| {
        let text = fs::read_to_string(segment(place)).unwrap();
        fs::write(segment(place), text.replace("/orders/7\"", "/orders/8\"")).unwrap();
    }),
    ("checkpoint_lost", |place| {
        fs::remove_file(place.dir().join("checkpoint")).unwrap()
    }),
    ("checkpoint_lost", |place| {
        fs::write(place.dir().join("checkpoint"), "x").unwrap()
    }),
    ("stray_file", |place| {
        fs::write(place.dir().join("segments/notes"), "x").unwrap()
    }),
    ("key_lost", |place| {
        fs::remove_file(place.folder.path().join("log.key")).unwrap()
    }),
    ("key_lost", |place| {
        fs::write(place.folder.path().join("log.key"), "x").unwrap()
    }),
];

#[test]
fn a_damaged_ledger_is_put_aside_and_calls_go_on_in_a_new_epoch() {
    for (place_of, (word, damage)) in DAMAGES.into_iter().enumerate() {
        let place = Place::filled(30);
        damage(&place);
        let damaged = files(&place.dir().join("segments"));
        assert!(place.try_open().is_err(), "{place_of}: {word}");
        let (ledger, report) = begun(&place);
        let epoch = report.begun.unwrap();
        assert_eq!((epoch.epoch, epoch.why), (2, word), "{place_of}: {}", epoch.found);
        assert_eq!(epoch.set_aside, place.dir().join("set-aside/1"));
        assert_eq!(files(&epoch.set_aside.join("segments")).len(), damaged.len());
        assert_eq!(ledger.stats().epoch, 2);
        let _receipt = ledger.call(&call(1)).unwrap();
        ledger.shutdown();
        let first = &place.lines_of("epoch_begun")[0];
        assert_eq!(first["detail"]["why"], word);
        assert_eq!(first["detail"]["epoch"], 2);
        assert_eq!(first["detail"]["set_aside"], epoch.set_aside.to_str().unwrap());
        assert_eq!(place.lines_of("call").len(), 1);
        assert_eq!(origin(&place), "acme.internal/host/web-1/epoch/2");
        place.verify().unwrap();
        // It is not begun again.
        drop(ledger);
        let (_ledger, report) = begun(&place);
        assert_eq!(report.begun, None, "{place_of}: {word}");
    }
}

#[test]
fn the_key_that_was_trusted_before_is_trusted_still_unless_it_was_lost() {
    let place = Place::filled(30);
    let before = vkey(&place);
    fs::remove_file(segment(&place)).unwrap();
    begun(&place).0.shutdown();
    assert_ne!(vkey(&place), before);
    assert_eq!(audit::verify(&place.dir(), Some(&before)).unwrap().records, 2);
    // An auditor who knows the new one is not content with the old one.
    let now = vkey(&place);
    assert!(audit::verify(&place.dir().join("set-aside/1"), Some(&now)).is_err());
    fs::remove_file(place.folder.path().join("log.key")).unwrap();
    begun(&place).0.shutdown();
    assert!(audit::verify(&place.dir(), Some(&before)).is_err());
}

#[test]
fn only_so_many_damaged_ledgers_are_kept() {
    let place = Place::filled(30);
    for epoch in 2..9 {
        fs::remove_file(segment(&place)).unwrap();
        let (ledger, report) = begun(&place);
        assert_eq!(report.begun.unwrap().epoch, epoch);
        ledger.shutdown();
    }
    let kept = fs::read_dir(place.dir().join("set-aside")).unwrap().count();
    assert_eq!(kept, 4);
    assert!(place.dir().join("set-aside/7").exists());
}

#[test]
fn a_wrong_setting_or_a_second_process_is_no_damage() {
    let place = Place::filled(30);
    let first = place.open();
    let second = Ledger::open_or_begin(place.config(), place.clock.clone());
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    first.shutdown();
    drop(first);
    let mut config = place.config();
    config.origin = "two words".to_owned();
    let wrong = Ledger::open_or_begin(config, place.clock.clone());
    assert!(matches!(wrong, Err(OpenError::Key { .. })));
    assert!(!place.dir().join("set-aside").exists());
    assert_eq!(place.verify().unwrap().records, 30);
}

#[test]
fn a_witness_can_have_a_running_ledger_begin_a_new_epoch() {
    let place = Place::filled(30);
    let before = vkey(&place);
    let ledger = place.open();
    ledger.begin_epoch(4, "forked");
    until_in(&ledger, 5);
    // Said again by somebody who does not know yet.
    ledger.begin_epoch(4, "forked");
    ledger.begin_epoch(1, "forked");
    let _receipt = ledger.call(&call(99)).unwrap();
    ledger.shutdown();
    let begun = &place.lines_of("epoch_begun")[0];
    assert_eq!(
        (&begun["detail"]["epoch"], &begun["detail"]["why"]),
        (&5.into(), &"forked".into())
    );
    assert_eq!(origin(&place), "acme.internal/host/web-1/epoch/5");
    // What was signed under the name before is verified too: the records stayed.
    let report = audit::verify(&place.dir(), Some(&before)).unwrap();
    assert_eq!((report.records, report.not_covered), (32, 0));
    assert!(report.checkpoints > 2);
    let again = place.open();
    assert_eq!(again.stats().epoch, 5);
}

#[test]
fn a_key_file_or_a_ledger_that_was_set_back_is_brought_up_to_the_other() {
    for part in ["log.key", "ledger/ledger.vkey"] {
        let place = Place::filled(30);
        let old = fs::read(place.folder.path().join(part)).unwrap();
        let ledger = place.open();
        ledger.begin_epoch(1, "forked");
        until_in(&ledger, 2);
        ledger.shutdown();
        drop(ledger);
        fs::write(place.folder.path().join(part), old).unwrap();
        let (ledger, report) = begun(&place);
        assert_eq!((ledger.stats().epoch, report.begun), (2, None), "{part}");
        ledger.shutdown();
        let key = VerifierKey::parse(&vkey(&place)).unwrap();
        assert_eq!(key.name().as_str(), "acme.internal/host/web-1/epoch/2", "{part}");
        let note = fs::read(place.dir().join("checkpoint")).unwrap();
        assert!(Checkpoint::open(&note, &key).is_ok(), "{part}");
    }
}

#[test]
fn a_crash_while_a_ledger_is_put_aside_loses_none_of_it() {
    let place = Place::filled(30);
    fs::remove_file(segment(&place)).unwrap();
    // As if it had been killed after the first of its files was moved.
    let half = place.dir().join("set-aside/1");
    fs::create_dir_all(&half).unwrap();
    fs::rename(place.dir().join("checkpoints"), half.join("checkpoints")).unwrap();
    let (ledger, report) = begun(&place);
    let rest = report.begun.unwrap().set_aside;
    assert_eq!(rest, place.dir().join("set-aside/1-2"));
    assert!(half.join("checkpoints").exists() && rest.join("checkpoint").exists());
    ledger.shutdown();
    place.verify().unwrap();
}

#[test]
fn an_older_copy_of_the_whole_folder_opens_and_only_a_witness_can_tell() {
    let place = Place::filled(30);
    let copied = tempfile::tempdir().unwrap();
    copy(&place.dir(), copied.path());
    let ledger = place.open();
    for number in 0..40 {
        let _receipt = ledger.call(&call(number)).unwrap();
    }
    ledger.shutdown();
    drop(ledger);
    fs::remove_dir_all(place.dir()).unwrap();
    copy(copied.path(), &place.dir());
    let (_ledger, report) = begun(&place);
    assert_eq!((report.records, report.begun), (30, None));
}
