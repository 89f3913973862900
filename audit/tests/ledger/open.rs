//! Opening: what is taken up, what is repaired, what is refused.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use audit::OpenError;

use crate::support::{Place, call, copy, end};

fn segment(place: &Place) -> std::path::PathBuf {
    place.dir().join("segments/00000000000000000000.jsonl")
}

fn append(path: &std::path::Path, bytes: &[u8]) {
    fs::OpenOptions::new()
        .append(true)
        .open(path)
        .unwrap()
        .write_all(bytes)
        .unwrap();
}

fn refused(place: &Place) -> OpenError {
    match place.try_open() {
        Ok(_) => panic!("the ledger must not open"),
        Err(error) => error,
    }
}

#[test]
fn a_new_ledger_has_a_key_of_its_owner_and_a_checkpoint_of_nothing() {
    let place = Place::new();
    let (ledger, report) = place.try_open().unwrap();
    assert!(report.created);
    assert_eq!((report.records, report.unsealed), (0, 0));
    let key = fs::metadata(place.folder.path().join("log.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    assert!(
        fs::read_to_string(place.dir().join("checkpoint"))
            .unwrap()
            .starts_with("acme.internal/host/web-1\n0\n")
    );
    assert_eq!(place.verify().unwrap().records, 0);
    drop(ledger);
    let (_ledger, report) = place.try_open().unwrap();
    assert!(!report.created);
}

#[test]
fn a_ledger_goes_on_where_it_was_left() {
    let place = Place::filled(600);
    let (ledger, report) = place.try_open().unwrap();
    assert_eq!(
        (report.records, report.unsealed, report.torn, report.tiles_rebuilt),
        (600, 0, None, false)
    );
    assert_eq!(ledger.call(&call(1)).unwrap().index(), 600);
    ledger.shutdown();
    assert_eq!(place.verify().unwrap().records, 601);
}

#[test]
fn what_was_spent_is_remembered_to_the_byte() {
    let place = Place::new();
    let ledger = place.open();
    for number in 0..200 {
        let _receipt = ledger.call(&call(number)).unwrap();
        ledger.end(&end(number));
        assert!(ledger.deny(&crate::support::refusal(number, "prod/a")).is_ok());
        let nobody = audit::CallRecord {
            from: audit::Party {
                id: None,
                serial: None,
                facts: Some(crate::support::facts(7).into()),
            },
            ..crate::support::refusal(number, "prod/a")
        };
        assert!(ledger.deny(&nobody).is_ok());
        ledger.stranger("192.0.2.1".parse().unwrap(), "expired");
    }
    ledger.shutdown();
    let bytes = ledger.stats().bytes;
    drop(ledger);
    assert_eq!(place.open().stats().bytes, bytes);
}

#[test]
fn two_processes_never_write_one_ledger() {
    let place = Place::new();
    let first = place.open();
    assert!(matches!(refused(&place), OpenError::Locked { .. }));
    first.shutdown();
    place.open();
}

#[test]
fn a_torn_line_is_moved_beside_and_told_of() {
    let place = Place::filled(600);
    append(&segment(&place), b"{\"kind\":\"call\",\"id\":");
    assert_eq!(place.verify().unwrap().torn_bytes, 20);
    let (ledger, report) = place.try_open().unwrap();
    let torn = report.torn.unwrap();
    assert_eq!((torn.index, torn.bytes), (600, 20));
    assert_eq!(torn.file, place.dir().join("torn-600.bin"));
    assert_eq!(fs::read(&torn.file).unwrap(), b"{\"kind\":\"call\",\"id\":");
    assert_eq!(ledger.call(&call(1)).unwrap().index(), 601);
    ledger.shutdown();
    let repaired = &place.lines_of("repaired")[0];
    assert_eq!(
        repaired["detail"],
        serde_json::json!({"record": 600, "bytes": 20, "file": "torn-600.bin"})
    );
    assert_eq!(place.verify().unwrap().records, 602);
}

#[test]
fn what_was_kept_of_an_earlier_tear_is_never_overwritten() {
    let place = Place::filled(10);
    fs::write(place.dir().join("torn-10.bin"), "earlier").unwrap();
    append(&segment(&place), b"later");
    let (_ledger, report) = place.try_open().unwrap();
    assert_eq!(report.torn.unwrap().file, place.dir().join("torn-10-1.bin"));
    assert_eq!(fs::read(place.dir().join("torn-10.bin")).unwrap(), b"earlier");
}

#[test]
fn whole_records_behind_the_checkpoint_are_kept_and_sealed() {
    let place = Place::filled(600);
    let extra = audit::Record::Call(Box::new(call(7))).to_string();
    append(&segment(&place), format!("{extra}\n{extra}\n").as_bytes());
    let report = place.verify().unwrap();
    assert_eq!((report.covered, report.not_covered), (600, 2));
    let (ledger, report) = place.try_open().unwrap();
    assert_eq!((report.records, report.unsealed, report.torn), (602, 2, None));
    // Sealed at start, before anything is written.
    assert_eq!(ledger.stats().sealed, 602);
    assert_eq!(place.verify().unwrap().not_covered, 0);
}

#[test]
fn garbage_behind_the_checkpoint_is_moved_beside() {
    let place = Place::filled(300);
    append(&segment(&place), &[0; 4096]);
    append(&segment(&place), b"\n{\"kind\":\"x\"}\n");
    let (ledger, report) = place.try_open().unwrap();
    assert_eq!(report.torn.unwrap().bytes, 4096 + 14);
    ledger.shutdown();
    assert_eq!(place.verify().unwrap().records, 301);
}

#[test]
fn segments_behind_a_tear_are_moved_beside() {
    let place = Place::filled(300);
    append(&segment(&place), b"{\"torn");
    fs::write(
        place.dir().join("segments/00000000000000000305.jsonl"),
        "{\"kind\":\"x\"}\n",
    )
    .unwrap();
    let (ledger, report) = place.try_open().unwrap();
    assert_eq!(report.torn.unwrap().bytes, 6 + 13);
    assert!(place.dir().join("torn-305.bin").exists());
    ledger.shutdown();
    place.verify().unwrap();
}

#[test]
fn a_segment_that_was_begun_and_not_written_is_gone_on_with() {
    let place = Place::filled(300);
    fs::write(place.dir().join("segments/00000000000000000300.jsonl"), "").unwrap();
    let before = place.open();
    let spent = before.stats().bytes;
    let receipt = before.call(&call(1)).unwrap();
    assert_eq!(receipt.index(), 301);
    before.shutdown();
    let head = &place.lines_of("segment")[1];
    assert_eq!((&head["first"], &head["calls_bytes"]), (&300.into(), &spent.into()));
    assert_eq!(place.verify().unwrap().segments, 2);
}

#[test]
fn a_shrunken_ledger_is_refused() {
    let place = Place::filled(600);
    let text = fs::read_to_string(segment(&place)).unwrap();
    let kept: String = text.lines().take(590).map(|line| format!("{line}\n")).collect();
    fs::write(segment(&place), kept).unwrap();
    assert!(matches!(
        refused(&place),
        OpenError::Shrunken {
            records: 590,
            covered: 600
        }
    ));
    fs::remove_file(segment(&place)).unwrap();
    assert!(matches!(
        refused(&place),
        OpenError::Shrunken {
            records: 0,
            covered: 600
        }
    ));
}

#[test]
fn a_sealed_line_without_its_end_is_not_repaired_but_refused() {
    let place = Place::filled(600);
    let bytes = fs::read(segment(&place)).unwrap();
    fs::write(segment(&place), &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(refused(&place), OpenError::Altered { index: 599, .. }));
}

#[test]
fn an_altered_ledger_is_refused_with_the_record() {
    let place = Place::filled(600);
    let text = fs::read_to_string(segment(&place)).unwrap();
    fs::write(segment(&place), text.replace("/orders/300\"", "/orders/999\"")).unwrap();
    let offset = text.lines().take(300).map(|line| line.len() as u64 + 1).sum::<u64>();
    let error = refused(&place);
    let OpenError::Altered { index, offset: at, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((index, at), (300, offset));
}

#[test]
fn a_record_altered_behind_the_checkpoint_is_refused_where_a_tile_knows_it() {
    let place = Place::filled(200);
    let before = tempfile::tempdir().unwrap();
    for name in ["checkpoint", "checkpoints"] {
        fs::copy(place.dir().join(name), before.path().join(name)).unwrap();
    }
    let ledger = place.open();
    for number in 200..600 {
        let _receipt = ledger.call(&call(number)).unwrap();
    }
    ledger.shutdown();
    // As if the last checkpoint had never been written; the tiles are there.
    for name in ["checkpoint", "checkpoints"] {
        fs::copy(before.path().join(name), place.dir().join(name)).unwrap();
    }
    for folder in ["tile/0/002.p", "tile/1/000.p"] {
        fs::remove_dir_all(place.dir().join(folder)).unwrap();
    }
    let text = fs::read_to_string(segment(&place)).unwrap();
    fs::write(segment(&place), text.replace("/orders/300\"", "/orders/999\"")).unwrap();
    assert!(matches!(refused(&place), OpenError::Altered { index: 300, .. }));
    let failure = place.verify().unwrap_err();
    assert_eq!(failure.index, Some(300), "{failure}");
    let kept: String = text.lines().take(511).map(|line| format!("{line}\n")).collect();
    fs::write(segment(&place), kept).unwrap();
    assert!(matches!(
        refused(&place),
        OpenError::Shrunken {
            records: 511,
            covered: 512
        }
    ));
    fs::write(segment(&place), text).unwrap();
    assert_eq!(place.try_open().unwrap().1.unsealed, 400);
}

#[test]
fn lost_or_false_tiles_are_made_again() {
    for (name, bytes) in [
        ("tile/0/000", None),
        ("tile/0/001", Some(vec![7; 8192])),
        ("tile/0/002.p/88", None),
        ("tile/0/002.p/88", Some(vec![7; 88 * 32])),
        ("tile/1/000.p/2", Some(vec![7; 64])),
    ] {
        let place = Place::filled(600);
        let path = place.dir().join(name);
        match &bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        place.verify().unwrap_err();
        let (ledger, report) = place.try_open().unwrap();
        assert!(report.tiles_rebuilt, "{name}");
        ledger.shutdown();
        place.verify().unwrap();
    }
}

#[test]
fn a_missing_segment_is_a_gap() {
    let place = Place::filled(300);
    fs::write(place.dir().join("segments/00000000000000000301.jsonl"), "").unwrap();
    assert!(matches!(refused(&place), OpenError::Gap { expected: 300, .. }));
}

#[test]
fn a_lost_or_foreign_key_is_refused() {
    let (place, other) = (Place::filled(10), Place::filled(10));
    let key = place.folder.path().join("log.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(matches!(refused(&place), OpenError::OtherKey { .. }));
    assert!(!key.exists(), "a lost key is not replaced");
    fs::copy(other.folder.path().join("log.key"), &key).unwrap();
    assert!(matches!(refused(&place), OpenError::OtherKey { .. }));
    fs::write(&key, "no key").unwrap();
    assert!(matches!(refused(&place), OpenError::Key { .. }));
    fs::write(&key, kept).unwrap();
    place.open();
    let mut config = place.config();
    config.origin = "acme.internal/host/web-2".to_owned();
    assert!(matches!(
        audit::Ledger::open(config.clone(), place.clock.clone()),
        Err(OpenError::OtherLedger { .. })
    ));
    let begun = audit::Ledger::open_or_begin(config, place.clock.clone());
    assert!(
        matches!(begun, Err(OpenError::OtherLedger { .. })),
        "the state of another host is left alone"
    );
    assert_eq!(place.verify().unwrap().records, 10);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let place = Place::filled(10);
    let key = place.folder.path().join("log.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(refused(&place), OpenError::KeyMode { .. }));
}

#[test]
fn settings_out_of_bounds_are_refused() {
    type Change = fn(&mut audit::LedgerConfig);
    let changes: [(&str, Change); 5] = [
        ("sync", |config| config.sync = Duration::ZERO),
        ("sync", |config| config.sync = Duration::from_secs(11)),
        ("max_bytes", |config| config.max_bytes = 65_535),
        ("key_file", |config| config.key_file = config.dir.join("log.key")),
        ("origin", |config| config.origin = "two words".to_owned()),
    ];
    for (setting, change) in changes {
        let place = Place::new();
        let mut config = place.config();
        change(&mut config);
        match audit::Ledger::open(config, place.clock.clone()) {
            Err(OpenError::Setting { setting: found, .. }) => assert_eq!(found, setting),
            Err(OpenError::Key { .. }) => assert_eq!(setting, "origin"),
            other => panic!("{setting}: {other:?}"),
        }
    }
}

#[test]
fn records_without_a_checkpoint_are_refused() {
    let place = Place::filled(10);
    fs::remove_file(place.dir().join("checkpoint")).unwrap();
    assert!(matches!(refused(&place), OpenError::CheckpointLost { .. }));
    fs::remove_file(place.dir().join("checkpoints")).unwrap();
    assert!(matches!(refused(&place), OpenError::CheckpointLost { .. }));
}

#[test]
fn a_false_checkpoint_or_history_is_refused() {
    for name in ["checkpoint", "checkpoints"] {
        let place = Place::filled(10);
        let path = place.dir().join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\n10\n", "\n11\n")).unwrap();
        let error = refused(&place);
        assert!(matches!(error, OpenError::Checkpoint { .. }), "{name}: {error}");
    }
    let place = Place::filled(10);
    fs::remove_file(place.dir().join("checkpoints")).unwrap();
    assert!(matches!(refused(&place), OpenError::CheckpointLost { .. }));
}

#[test]
fn every_moment_at_which_checkpoints_are_written_can_be_killed() {
    let place = Place::filled(10);
    let old = tempfile::tempdir().unwrap();
    copy(place.folder.path(), old.path());
    let ledger = place.open();
    let _receipt = ledger.call(&call(1)).unwrap();
    ledger.shutdown();
    let (dir, old) = (place.dir(), old.path().join("ledger"));
    // The history has the new one, the file still the old one.
    fs::copy(old.join("checkpoint"), dir.join("checkpoint")).unwrap();
    assert_eq!(place.verify().unwrap().covered, 11);
    assert_eq!(place.try_open().unwrap().1.unsealed, 0);
    // The history's new entry is torn.
    fs::copy(old.join("checkpoint"), dir.join("checkpoint")).unwrap();
    let torn = fs::read(old.join("checkpoints")).unwrap();
    fs::write(dir.join("checkpoints"), [&torn, &torn[..40]].concat()).unwrap();
    assert_eq!(place.verify().unwrap().not_covered, 1);
    assert_eq!(place.try_open().unwrap().1.unsealed, 1);
    place.verify().unwrap();
    // The history was moved aside, and nothing is in the new one yet.
    fs::rename(dir.join("checkpoints"), dir.join("checkpoints.old")).unwrap();
    assert_eq!(place.verify().unwrap().covered, 11);
    let ledger = place.open();
    let _receipt = ledger.call(&call(2)).unwrap();
    ledger.shutdown();
    assert!(dir.join("checkpoints").exists());
    assert_eq!(place.verify().unwrap().covered, 12);
    // The first entry of the new history is there, the file still the old one.
    let history = fs::read_to_string(dir.join("checkpoints.old")).unwrap();
    let pieces: Vec<&str> = history.split_inclusive("\n\n").collect();
    let shown = pieces[pieces.len() - 2..].concat();
    fs::write(dir.join("checkpoint"), shown.strip_suffix('\n').unwrap()).unwrap();
    place.verify().unwrap();
    place.open();
}

#[test]
fn a_ledger_killed_at_its_very_beginning_begins_again() {
    let place = Place::new();
    drop(place.open());
    fs::remove_file(place.dir().join("checkpoint")).unwrap();
    drop(place.open());
    fs::remove_file(place.dir().join("checkpoint")).unwrap();
    fs::write(place.dir().join("checkpoints"), "acme").unwrap();
    drop(place.open());
    place.verify().unwrap();
}
