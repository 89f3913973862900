//! Whoever changes a ledger is found, with the record and the byte.

use std::fs;
use std::path::Path;

use audit::{Finding, VerifyFailure};

use crate::support::{Place, call, files};

fn flip(path: &Path, at: u64, mask: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= mask;
    fs::write(path, bytes).unwrap();
}

fn segment(place: &Place) -> std::path::PathBuf {
    place.dir().join("segments/00000000000000000000.jsonl")
}

fn found(place: &Place) -> VerifyFailure {
    place.verify().expect_err("a changed ledger must not verify")
}

/// A ledger of several segments' worth of heads: opened three times.
fn reopened() -> Place {
    let place = Place::filled(200);
    for first in [200, 300] {
        let ledger = place.open();
        for number in first..first + 100 {
            let _receipt = ledger.call(&call(number)).unwrap();
        }
        ledger.shutdown();
    }
    place
}

#[test]
fn a_ledger_that_was_shut_down_is_covered_to_its_last_record() {
    let place = reopened();
    let report = place.verify().unwrap();
    assert_eq!((report.records, report.covered, report.not_covered), (400, 400, 0));
    assert_eq!((report.torn_bytes, report.segments), (0, 1));
    assert_eq!(report.checkpoints, 4);
    assert_eq!(report.origin, "acme.internal/host/web-1");
    let vkey = fs::read_to_string(place.dir().join("ledger.vkey")).unwrap();
    assert_eq!(audit::verify(&place.dir(), Some(&vkey)).unwrap(), report);
}

#[test]
fn a_flipped_byte_in_any_file_is_found() {
    let place = reopened();
    let mut flips = 0_u64;
    for (path, bytes) in files(&place.dir()) {
        let is_segment = path.extension().is_some_and(|extension| extension == "jsonl");
        // Every byte of the small files; of the large ones one in so many,
        // and their ends.
        let step = if is_segment {
            997
        } else if bytes > 1024 {
            29
        } else {
            1
        };
        for at in (0..bytes).filter(|at| at % step == 0 || *at + 2 > bytes) {
            let mask = 1 << (at % 8);
            let good = fs::read(&path).unwrap();
            flip(&path, at, mask);
            let failure = found(&place);
            flip(&path, at, mask);
            assert_eq!(
                failure.file,
                named(&path, &failure),
                "byte {at} of {}: {failure}",
                path.display()
            );
            if is_segment {
                let before = &good[..usize::try_from(at).unwrap()];
                let index = before.iter().filter(|byte| **byte == b'\n').count();
                let begin = before
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |newline| newline + 1);
                assert_eq!(
                    (failure.index, failure.offset),
                    (Some(index as u64), begin as u64),
                    "byte {at}: {failure}"
                );
            }
            flips += 1;
        }
    }
    place.verify().unwrap();
    assert!(flips > 1_500, "{flips}");
}

/// The file that a failure must name: the one that was changed. Only between
/// the newest checkpoint and its copy in the history may it be the other one.
fn named(changed: &Path, failure: &VerifyFailure) -> std::path::PathBuf {
    let name = |path: &Path| path.file_name().unwrap().to_owned();
    let pair = |path: &Path| name(path) == "checkpoint" || name(path) == "checkpoints";
    if pair(changed) && pair(&failure.file) {
        failure.file.clone()
    } else {
        changed.to_owned()
    }
}

#[test]
fn a_flipped_byte_in_a_tile_is_named_by_its_offset() {
    let place = Place::filled(600);
    let tile = place.dir().join("tile/0/001");
    flip(&tile, 5 * 32 + 7, 1);
    let failure = found(&place);
    assert!(matches!(failure.what, Finding::Tile), "{failure}");
    assert_eq!(
        (failure.file.as_path(), failure.offset, failure.index),
        (tile.as_path(), 5 * 32 + 7, Some(261))
    );
}

#[test]
fn a_record_that_agrees_with_a_forged_tile_is_still_not_the_sealed_one() {
    let place = Place::filled(600);
    let text = fs::read_to_string(segment(&place)).unwrap();
    fs::write(segment(&place), text.replace("/orders/300\"", "/orders/999\"")).unwrap();
    // The forger makes all tiles anew, as opening without a checkpoint would.
    let forged = fs::read(segment(&place)).unwrap();
    let mut tree = audit::tree::Tree::new();
    let mut tiles = Vec::new();
    for line in forged.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        tree.push(audit::hash::Hash::leaf(line), &mut tiles);
    }
    for tile in tiles.iter().chain(&tree.partial_tiles()) {
        fs::write(place.dir().join(tile.id.path()), tile.to_bytes()).unwrap();
    }
    let failure = found(&place);
    assert!(matches!(failure.what, Finding::Record), "{failure}");
    assert!(failure.index.unwrap() <= 300);
}

#[test]
fn dropped_doubled_and_swapped_records_are_named() {
    for (change, index) in [("drop", 40), ("double", 41), ("swap", 40)] {
        let place = Place::filled(600);
        let text = fs::read_to_string(segment(&place)).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        match change {
            "drop" => drop(lines.remove(40)),
            "double" => lines.insert(40, lines[40]),
            _ => lines.swap(40, 41),
        }
        fs::write(segment(&place), lines.join("\n") + "\n").unwrap();
        let failure = found(&place);
        assert_eq!(failure.index, Some(index), "{change}: {failure}");
        assert!(matches!(failure.what, Finding::Record), "{change}: {failure}");
        let begin: usize = lines[..usize::try_from(index).unwrap()]
            .iter()
            .map(|line| line.len() + 1)
            .sum();
        assert_eq!(failure.offset, begin as u64, "{change}");
    }
}

#[test]
fn a_ledger_cut_below_its_checkpoint_is_named_where_it_ends() {
    let place = Place::filled(600);
    let text = fs::read_to_string(segment(&place)).unwrap();
    let kept: String = text.lines().take(590).map(|line| format!("{line}\n")).collect();
    fs::write(segment(&place), &kept).unwrap();
    let failure = found(&place);
    assert!(matches!(failure.what, Finding::Missing { covered: 600 }), "{failure}");
    assert_eq!((failure.index, failure.offset), (Some(590), kept.len() as u64));
}

#[test]
fn a_record_longer_than_32_kib_is_no_record() {
    let place = Place::filled(10);
    let text = fs::read_to_string(segment(&place)).unwrap();
    let long = format!("{{\"kind\":\"x\",\"y\":\"{}\"}}\n", "z".repeat(33_000));
    fs::write(segment(&place), text + &long).unwrap();
    let failure = found(&place);
    assert!(matches!(failure.what, Finding::NotARecord), "{failure}");
    assert_eq!(failure.index, Some(10));
}

#[test]
fn a_missing_tile_is_named() {
    for name in ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"] {
        let place = Place::filled(600);
        fs::remove_file(place.dir().join(name)).unwrap();
        let failure = found(&place);
        assert!(matches!(failure.what, Finding::TileMissing), "{name}: {failure}");
        assert_eq!(failure.file, place.dir().join(name));
    }
}

#[test]
fn a_file_that_is_no_part_of_a_ledger_is_named() {
    for name in ["tile/0/notes", "tile/0/003.p/0", "segments/notes"] {
        let place = Place::filled(600);
        let path = place.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        let failure = found(&place);
        assert!(matches!(failure.what, Finding::Stray), "{name}: {failure}");
        assert_eq!(failure.file, path);
    }
}

#[test]
fn tiles_beyond_the_records_betray_a_cut() {
    let place = Place::filled(600);
    fs::write(place.dir().join("tile/0/003"), [7; 8192]).unwrap();
    let failure = found(&place);
    assert!(matches!(failure.what, Finding::Missing { covered: 1024 }), "{failure}");
}

#[test]
fn another_key_than_the_given_one_is_refused() {
    let (place, other) = (Place::filled(10), Place::filled(10));
    let vkey = fs::read_to_string(other.dir().join("ledger.vkey")).unwrap();
    let failure = audit::verify(&place.dir(), Some(&vkey)).unwrap_err();
    assert!(matches!(failure.what, Finding::OtherKey), "{failure}");
    let failure = audit::verify(&place.dir(), Some("no key")).unwrap_err();
    assert!(matches!(failure.what, Finding::Key { .. }), "{failure}");
}

#[test]
fn a_checkpoint_or_history_of_another_ledger_is_refused() {
    for name in ["checkpoint", "checkpoints"] {
        let (place, other) = (Place::filled(10), Place::filled(10));
        fs::copy(other.dir().join(name), place.dir().join(name)).unwrap();
        let failure = found(&place);
        assert!(matches!(failure.what, Finding::Checkpoint { .. }), "{name}: {failure}");
        assert_eq!(failure.file, place.dir().join(name));
    }
}

#[test]
fn a_checkpoint_rolled_back_or_removed_is_refused() {
    let place = reopened();
    let history = fs::read_to_string(place.dir().join("checkpoints")).unwrap();
    let oldest = history.split_inclusive("\n\n").take(2).collect::<String>();
    fs::write(place.dir().join("checkpoint"), oldest.strip_suffix('\n').unwrap()).unwrap();
    assert!(matches!(found(&place).what, Finding::History));
    fs::remove_file(place.dir().join("checkpoint")).unwrap();
    assert!(matches!(found(&place).what, Finding::NoCheckpoint));
}

#[test]
fn a_history_out_of_order_or_removed_is_refused() {
    let place = reopened();
    let path = place.dir().join("checkpoints");
    let history = fs::read_to_string(&path).unwrap();
    let pieces: Vec<&str> = history.split_inclusive("\n\n").collect();
    let swapped = [&pieces[2..4], &pieces[0..2], &pieces[4..]].concat().concat();
    fs::write(&path, swapped).unwrap();
    assert!(matches!(found(&place).what, Finding::History));
    fs::remove_file(&path).unwrap();
    assert!(matches!(found(&place).what, Finding::History));
}

#[test]
fn an_older_head_over_other_records_is_a_fork() {
    let place = reopened();
    let text = fs::read_to_string(place.folder.path().join("log.key")).unwrap();
    let key = audit::key::SignerKey::parse(text.trim_end()).unwrap();
    let forked = audit::Checkpoint {
        origin: key.verifier().name().clone(),
        size: 300,
        root: audit::hash::Hash::leaf(b"other records"),
    };
    let path = place.dir().join("checkpoints");
    let history = fs::read_to_string(&path).unwrap();
    let pieces: Vec<&str> = history.split_inclusive("\n\n").collect();
    let entry = audit::history::entry(&forked.sign(&key).unwrap());
    // Before the head at 300 records that was really signed.
    let (before, after) = pieces.split_at(4);
    fs::write(
        &path,
        [&before.concat(), &entry, &after.concat()].map(String::as_str).concat(),
    )
    .unwrap();
    let failure = found(&place);
    assert!(matches!(failure.what, Finding::NotAPrefix), "{failure}");
    assert_eq!(
        (failure.index, failure.offset),
        (Some(300), before.concat().len() as u64)
    );
}
