//! Every way to tamper with a ledger that we could think of, and who finds it: `verify` alone, or only a witness that has
//! cosigned a head. And what honest disks do, which accuses nobody.

use std::fs;
use std::path::{Path, PathBuf};

use spiffe::time::Timestamp;

use super::{config, event, filled, open_small, segments};
use crate::cosignature::CosignerKey;
use crate::head::Head;
use crate::key::KeyName;
use crate::ledger::{Ledger, LedgerConfig};
use crate::note::Note;
use crate::segment::Segment;
use crate::verify::{Finding, VerifyFailure, VerifyReport, Witnessed, verify, verify_cosigned};

/// A ledger of two halves of which the first is cosigned, as an auditor finds it.
struct Scene {
    folder: tempfile::TempDir,
    cosigner: CosignerKey,
    /// The head, with its cosignature.
    note: String,
    /// Records under it, and in all.
    cosigned: u64,
    records: u64,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path(), 0..300);
        let cosigner = CosignerKey::generate(KeyName::parse("acme.internal/ca/ca-1/cosigner").unwrap()).unwrap();
        let head = Head::read(&folder.path().join("ledger")).unwrap();
        let note = Note::parse(head.note().as_bytes()).unwrap();
        let note = cosigner
            .cosign(&note, Timestamp::from_unix_millis(0))
            .unwrap()
            .to_string();
        let cosigned = head.checkpoint().size;
        filled(folder.path(), 300..600);
        let records = Head::read(&folder.path().join("ledger")).unwrap().checkpoint().size;
        Self {
            folder,
            cosigner,
            note,
            cosigned,
            records,
        }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn segments(&self) -> Vec<Segment> {
        segments(self.folder.path())
    }

    /// The segment that holds a record, and its line there.
    fn place(&self, index: u64) -> (PathBuf, usize) {
        let segments = self.segments();
        let at = segments.partition_point(|segment| segment.first <= index) - 1;
        let line = usize::try_from(index - segments[at].first).unwrap();
        (segments[at].path.clone(), line)
    }

    /// Changes the lines of the segment that holds a record, which is the first argument's line.
    fn edit(&self, index: u64, change: impl Fn(&mut Vec<String>, usize)) {
        let (path, line) = self.place(index);
        let mut lines: Vec<String> = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(ToOwned::to_owned)
            .collect();
        change(&mut lines, line);
        fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    fn alone(&self) -> Result<VerifyReport, VerifyFailure> {
        verify(&self.dir(), None)
    }

    fn with_a_witness(&self) -> Result<VerifyReport, VerifyFailure> {
        let witnessed = Witnessed {
            file: Path::new("heads"),
            notes: format!("{}\n", self.note).into_bytes().leak(),
            cosigner: &self.cosigner.verifier(),
        };
        verify_cosigned(&self.dir(), None, witnessed)
    }
}

/// A record of the first half that is neither the first nor the last of its segment.
fn inner(scene: &Scene) -> u64 {
    let segments = scene.segments();
    segments[4].first + 5
}

/// What was done, and by what it is found: the record that is named, where one can be.
struct Row {
    done: &'static str,
    found: String,
    index: Option<u64>,
}

fn row(done: &'static str, outcome: Result<VerifyReport, VerifyFailure>) -> Row {
    let failure = outcome.err().unwrap_or_else(|| panic!("{done}: nobody found it"));
    Row {
        done,
        found: failure.what.to_string(),
        index: failure.index,
    }
}

#[test]
fn what_is_done_to_records_is_found_by_the_ledger_itself_with_the_record() {
    type Change = fn(&mut Vec<String>, usize);
    let changes: [(&str, Change, u64); 6] = [
        (
            "a bit of a record is flipped",
            |lines, at| lines[at] = lines[at].replacen("root", "roou", 1),
            0,
        ),
        ("a record is dropped", |lines, at| drop(lines.remove(at)), 0),
        (
            "a record is there twice",
            |lines, at| lines.insert(at, lines[at].clone()),
            1,
        ),
        ("two records change places", |lines, at| lines.swap(at, at + 1), 0),
        (
            "a record is put in",
            |lines, at| lines.insert(at, "{\"kind\":\"stopped\"}".to_owned()),
            0,
        ),
        ("a line is no record", |lines, at| lines[at] = "-".to_owned(), 0),
    ];
    for (done, change, off) in changes {
        let scene = Scene::new();
        let index = inner(&scene);
        scene.edit(index, change);
        let row = row(done, scene.alone());
        println!(
            "{:<34} record {index}: record {}: {}",
            row.done,
            row.index.unwrap(),
            row.found
        );
        assert_eq!(row.index, Some(index + off), "{done}: {}", row.found);
    }
}

#[test]
fn what_is_done_to_files_is_found_by_the_ledger_itself() {
    type Attack = fn(&Scene) -> Option<u64>;
    let attacks: [(&str, Attack); 9] = [
        ("the end is cut off", |scene| {
            scene.edit(scene.records - 3, |lines, at| lines.truncate(at));
            Some(scene.records - 3)
        }),
        ("a middle segment is deleted", |scene| {
            let lost = scene.segments().swap_remove(7);
            fs::remove_file(lost.path).unwrap();
            Some(lost.first)
        }),
        ("the last segment is deleted", |scene| {
            let lost = scene.segments().pop().unwrap();
            fs::remove_file(lost.path).unwrap();
            Some(lost.first)
        }),
        ("two segments change places", |scene| {
            let all = scene.segments();
            let (one, other) = (fs::read(&all[3].path).unwrap(), fs::read(&all[6].path).unwrap());
            fs::write(&all[3].path, other).unwrap();
            fs::write(&all[6].path, one).unwrap();
            Some(all[3].first)
        }),
        ("a segment is there under a later name", |scene| {
            let all = scene.segments();
            fs::rename(&all[3].path, all[3].path.with_file_name("00000000000000099999.jsonl")).unwrap();
            Some(all[3].first)
        }),
        ("the checkpoint is one from before", |scene| {
            let history = fs::read(scene.dir().join("checkpoints")).unwrap();
            let older = crate::history::History::split(&history).notes[0].1.to_vec();
            fs::write(scene.dir().join("checkpoint"), older).unwrap();
            None
        }),
        ("the checkpoint is by another key", |scene| {
            let other = Scene::new();
            fs::copy(other.dir().join("checkpoint"), scene.dir().join("checkpoint")).unwrap();
            None
        }),
        ("the history is gone", |scene| {
            fs::remove_file(scene.dir().join("checkpoints")).unwrap();
            None
        }),
        ("a tile says something else", |scene| {
            let tile = scene.dir().join("tile/0/000");
            let mut bytes = fs::read(&tile).unwrap();
            bytes[32 * 77] ^= 1;
            fs::write(&tile, bytes).unwrap();
            Some(77)
        }),
    ];
    for (done, attack) in attacks {
        let scene = Scene::new();
        let index = attack(&scene);
        let row = row(done, scene.alone());
        println!("{:<38} {:?}: {}", row.done, row.index, row.found);
        assert_eq!(row.index, index, "{done}: {}", row.found);
    }
}

/// Seals other records with the ledger's own key, from a record on, or the same ones under other checkpoints.
fn forged(scene: &Scene, from: u64) {
    let lines: Vec<Vec<u8>> = crate::tail(&scene.dir(), crate::Start::First)
        .unwrap()
        .map(|entry| entry.unwrap().line)
        .collect();
    let old = scene.folder.path().join("old");
    fs::rename(scene.dir(), &old).unwrap();
    let ledger = open_small(scene.folder.path());
    let mut number = 0;
    for (index, line) in lines.iter().enumerate() {
        let Ok(crate::Record::Event(mut event)) = crate::Record::decode(line) else {
            continue;
        };
        if index as u64 == from {
            event.subject = "forged".to_owned();
        }
        ledger.event(&event).unwrap();
        number += 1;
    }
    assert!(number > 500);
    ledger.shutdown();
}

#[test]
fn what_is_done_with_the_ledgers_own_key_is_found_by_a_witness_alone() {
    // A fork: everything is sealed anew, with one record that is another.
    let scene = Scene::new();
    forged(&scene, inner(&scene));
    assert!(scene.alone().is_ok(), "by itself it is whole");
    let failure = scene.with_a_witness().unwrap_err();
    assert!(matches!(failure.what, Finding::NotAsCosigned), "{failure}");
    assert_eq!(failure.index, Some(scene.cosigned));

    // The disk is set back to before the head that was cosigned.
    let scene = Scene::new();
    let older = tempfile::tempdir().unwrap();
    filled(older.path(), 0..1);
    fs::remove_dir_all(older.path().join("ledger")).unwrap();
    fs::copy(scene.folder.path().join("log.key"), older.path().join("log.key")).unwrap();
    filled(older.path(), 0..200);
    fs::remove_dir_all(scene.dir()).unwrap();
    fs::rename(older.path().join("ledger"), scene.dir()).unwrap();
    let records = scene.alone().unwrap().records;
    let failure = scene.with_a_witness().unwrap_err();
    assert!(
        matches!(failure.what, Finding::CutOff { cosigned } if cosigned == scene.cosigned),
        "{failure}"
    );
    assert_eq!(failure.index, Some(records), "where the records end");

    // What came after the head was forged: no witness has seen it, and it is only as good as the key.
    let scene = Scene::new();
    forged(&scene, scene.cosigned + 9);
    assert_eq!(scene.with_a_witness().unwrap().cosigned.unwrap().size, scene.cosigned);
}

#[test]
fn heads_of_others_and_false_cosignatures_count_for_nothing() {
    let scene = Scene::new();
    assert_eq!(scene.with_a_witness().unwrap().cosigned.unwrap().size, scene.cosigned);
    let stranger = CosignerKey::generate(KeyName::parse("acme.internal/ca/ca-1/cosigner").unwrap()).unwrap();
    let check = |notes: &str, cosigner: &CosignerKey| {
        let witnessed = Witnessed {
            file: Path::new("heads"),
            notes: notes.as_bytes(),
            cosigner: &cosigner.verifier(),
        };
        verify_cosigned(&scene.dir(), None, witnessed).map_err(|failure| failure.what)
    };
    let own = format!("{}\n", scene.note);
    assert!(matches!(check(&own, &stranger), Err(Finding::NotCosigned { .. })));
    let moved = own
        .replace("\n300\n", "\n301\n")
        .replacen(&scene.cosigned.to_string(), "299", 1);
    assert!(check(&moved, &scene.cosigner).is_err());
    assert!(matches!(check("", &scene.cosigner), Err(Finding::NoneCosigned)));
    let other = own.replace("test\n", "other\n");
    assert!(matches!(check(&other, &scene.cosigner), Err(Finding::NoneCosigned)));
    let later = own.replacen("test\n", "test/epoch/2\n", 1);
    assert!(matches!(
        check(&later, &scene.cosigner),
        Err(Finding::OldEpoch { own: 1, cosigned: 2 })
    ));
}

fn begun(folder: &Path) -> (Ledger, Option<crate::Begun>) {
    let clock = spiffe::time::Clock::fixed(Timestamp::from_unix_millis(0)).0;
    let config = LedgerConfig { ..config(folder) };
    let (ledger, report) = Ledger::open_or_begin(config, clock).unwrap();
    (ledger, report.begun)
}

#[test]
fn honest_crashes_and_lost_disks_accuse_nobody() {
    // Killed: the last record is torn, and whole ones are behind the checkpoint.
    let scene = Scene::new();
    let last = scene.segments().pop().unwrap().path;
    let whole = crate::record::Line::event(&event(7)).unwrap();
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, [&bytes, whole.with_newline(), b"{\"kind\":\"ca"].concat()).unwrap();
    let report = scene.with_a_witness().unwrap();
    assert_eq!((report.not_covered, report.torn_bytes), (1, 11));
    let (ledger, anew) = begun(scene.folder.path());
    assert_eq!(anew, None);
    ledger.shutdown();
    scene.with_a_witness().unwrap();

    // The power was cut: what was not synced is gone, and a head covers only what was.
    let scene = Scene::new();
    let sealed = Head::read(&scene.dir()).unwrap();
    let note = scene.cosigner.cosign(
        &Note::parse(sealed.note().as_bytes()).unwrap(),
        Timestamp::from_unix_millis(0),
    );
    let scene = Scene {
        note: note.unwrap().to_string(),
        cosigned: scene.records,
        ..scene
    };
    let ledger = open_small(scene.folder.path());
    for number in 0..40 {
        ledger.event(&event(number)).unwrap();
    }
    std::mem::forget(ledger);
    for segment in scene.segments().iter().filter(|segment| segment.first >= scene.records) {
        fs::remove_file(&segment.path).unwrap();
    }
    scene.edit(scene.records - 1, |lines, at| lines.truncate(at + 1));
    for name in ["checkpoint", "checkpoints"] {
        let text = fs::read_to_string(scene.dir().join(name)).unwrap();
        assert!(text.contains(&format!("\n{}\n", scene.records)), "{name}");
    }
    let report = scene.with_a_witness().unwrap();
    assert_eq!(report.cosigned.unwrap().size, scene.records);

    // The disk was lost, with the key: a new ledger, which a witness has told of the epoch before.
    let scene = Scene::new();
    fs::remove_dir_all(scene.dir()).unwrap();
    fs::remove_file(scene.folder.path().join("log.key")).unwrap();
    let (ledger, anew) = begun(scene.folder.path());
    assert_eq!(anew, None, "it cannot know");
    ledger.begin_epoch(1, "other_key");
    while ledger.stats().epoch != 2 {
        std::thread::yield_now();
    }
    ledger.shutdown();
    let report = scene.with_a_witness().unwrap();
    assert_eq!(
        (report.epoch, report.set_back),
        (2, 1),
        "it is told, and nobody is accused"
    );
}
