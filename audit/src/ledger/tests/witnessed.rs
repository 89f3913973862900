//! What an auditor makes of heads that witnesses outside have cosigned, and what a proof shows of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spiffe::time::Timestamp;

use super::filled;
use crate::cosignature::{Cosigner, CosignerKey};
use crate::head::Head;
use crate::kept;
use crate::key::{KeyName, VerifierKey};
use crate::note::Note;
use crate::proof::{LoggedRecord, NotProven, prove};
use crate::verify::{Finding, Notes, Quorum, Trust, VerifyReport, verify_trusting};

const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);

/// A ledger in three parts: the first is cosigned by two witnesses, the second by one of them and by the CA.
struct Scene {
    folder: tempfile::TempDir,
    ca: CosignerKey,
    one: CosignerKey,
    two: CosignerKey,
    sizes: [u64; 3],
    /// All the notes, as they are carried away.
    notes: String,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [ca, one, two] =
            ["ca", "w1", "w2"].map(|name| CosignerKey::generate(KeyName::parse(name).unwrap()).unwrap());
        let dir = folder.path().join("ledger");
        let head = |range| {
            filled(folder.path(), range);
            let head = Head::read(&dir).unwrap();
            (head.checkpoint().size, Note::parse(head.note().as_bytes()).unwrap())
        };
        let (first, note) = head(0..50);
        let by_two = two.cosign(&note, NOW).unwrap();
        let by_one = one.cosign(&note, NOW).unwrap();
        kept::keep_witnessed(&dir, &by_two, &two.verifier()).unwrap();
        let (second, note) = head(50..300);
        let later = one.cosign(&note, NOW + Duration::from_secs(60)).unwrap();
        let by_ca = ca.cosign(&note, NOW).unwrap();
        kept::keep_witnessed(&dir, &later, &one.verifier()).unwrap();
        kept::keep_cosigned(&dir, &by_ca, &ca.verifier()).unwrap();
        let (third, _) = head(300..400);
        let mut merged = later;
        merged.merge(&by_ca);
        Self {
            sizes: [first, second, third],
            notes: format!("{by_two}\n{by_one}\n{merged}\n"),
            folder,
            ca,
            one,
            two,
        }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn witnesses(&self) -> [Cosigner; 2] {
        [self.one.verifier(), self.two.verifier()]
    }

    fn verified(&self, notes: Option<&str>, witnesses: &[Cosigner], require: usize) -> Result<VerifyReport, Finding> {
        let notes = notes.map(|notes| Notes {
            file: Path::new("heads"),
            bytes: notes.as_bytes(),
        });
        let trust = Trust {
            notes,
            cosigner: None,
            quorum: Some(Quorum { witnesses, require }),
        };
        verify_trusting(&self.dir(), None, trust).map_err(|failure| failure.what)
    }

    fn proof(&self, index: u64) -> LoggedRecord {
        let proof = prove(&self.dir(), index).unwrap();
        LoggedRecord::parse(proof.to_string().as_bytes()).unwrap()
    }
}

#[test]
fn as_much_is_witnessed_as_enough_witnesses_have_cosigned_wherever_the_notes_lay() {
    let scene = Scene::new();
    let [first, second, _] = scene.sizes;
    for notes in [None, Some(&*scene.notes)] {
        let report = scene.verified(notes, &scene.witnesses(), 1).unwrap();
        assert_eq!(report.witnessed, Some(second));
        let report = scene.verified(notes, &scene.witnesses(), 2).unwrap();
        assert_eq!(report.witnessed, Some(first));
        let heads: Vec<_> = report.witnesses.iter().map(|by| by.head.unwrap()).collect();
        assert_eq!([heads[0].size, heads[1].size], [second, first]);
        assert_eq!(heads[0].time, Some(NOW + Duration::from_secs(60)));
    }
    let beside = scene.verified(None, &scene.witnesses(), 2).unwrap();
    assert_eq!(
        beside.cosigned.unwrap().size,
        second,
        "the head of the CA is looked at as ever"
    );
}

#[test]
fn too_few_witnesses_and_those_that_nobody_named_are_not_enough() {
    let scene = Scene::new();
    let stranger = CosignerKey::generate(KeyName::parse("w1").unwrap()).unwrap().verifier();
    for notes in [None, Some(&*scene.notes)] {
        for (witnesses, require, found) in [
            (vec![stranger.clone()], 1, 0),
            (vec![scene.one.verifier(), stranger.clone()], 2, 1),
            (scene.witnesses().to_vec(), 3, 2),
            (scene.witnesses().to_vec(), 0, 2),
        ] {
            let failed = scene.verified(notes, &witnesses, require).unwrap_err();
            let Finding::TooFewWitnesses { found: had, required } = failed else {
                panic!("{failed}")
            };
            assert_eq!((had, required), (found, require));
        }
    }
    let failed = scene.verified(Some(""), &scene.witnesses(), 1).unwrap_err();
    assert!(matches!(failed, Finding::TooFewWitnesses { found: 0, .. }), "{failed}");
}

#[test]
fn a_ledger_that_is_not_what_a_witness_cosigned_is_found() {
    // The key signs another past of the same size: by itself the ledger is whole.
    let scene = Scene::new();
    let other = Scene::new();
    let forged = tempfile::tempdir().unwrap();
    fs::copy(scene.folder.path().join("log.key"), forged.path().join("log.key")).unwrap();
    filled(forged.path(), 1000..1500);
    let forged = Scene {
        folder: forged,
        ..other
    };
    let check = |notes: &str, witnesses: &[Cosigner]| forged.verified(Some(notes), witnesses, 1);
    let failed = check(&scene.notes, &scene.witnesses()).unwrap_err();
    assert!(matches!(failed, Finding::NotAsCosigned), "{failed}");
    // Cut off behind the first head: what only one witness has cosigned is missing, and one is enough to say so.
    let cut = tempfile::tempdir().unwrap();
    fs::copy(scene.folder.path().join("log.key"), cut.path().join("log.key")).unwrap();
    filled(cut.path(), 0..50);
    let cut = Scene {
        folder: cut,
        ..Scene::new()
    };
    let failed = cut.verified(Some(&scene.notes), &scene.witnesses(), 2).unwrap_err();
    assert!(
        matches!(failed, Finding::CutOff { cosigned } if cosigned == scene.sizes[1]),
        "{failed}"
    );
    cut.verified(Some(&scene.notes), &[scene.two.verifier()], 1).unwrap();
}

#[test]
fn false_lines_and_heads_of_later_epochs_are_found() {
    let scene = Scene::new();
    let lines: Vec<&str> = scene.notes.lines().collect();
    let line_of_two = lines.iter().find(|line| line.starts_with("\u{2014} w2 ")).unwrap();
    let moved = scene.notes.trim_end().to_owned() + &format!("\n{line_of_two}\n\n");
    let failed = scene.verified(Some(&moved), &scene.witnesses(), 1).unwrap_err();
    assert!(matches!(failed, Finding::NotCosigned { .. }), "{failed}");
    scene.verified(Some(&moved), &[scene.one.verifier()], 1).unwrap();

    let key = VerifierKey::parse(fs::read_to_string(scene.dir().join("ledger.vkey")).unwrap().trim_end()).unwrap();
    let later = scene
        .notes
        .replacen(key.name().as_str(), &format!("{}/epoch/2", key.name()), 1);
    let note = later.split_inclusive("\n\n").take(1).collect::<String>();
    let text = format!("{note}{}\n", lines[4]);
    let cosigned = scene.two.cosign(&Note::parse(text.as_bytes()).unwrap(), NOW).unwrap();
    let failed = scene
        .verified(Some(&format!("{cosigned}\n")), &scene.witnesses(), 1)
        .unwrap_err();
    assert!(matches!(failed, Finding::OldEpoch { own: 1, cosigned: 2 }), "{failed}");
}

#[test]
fn a_proof_is_under_the_head_that_the_most_have_cosigned_and_covers_the_record() {
    let scene = Scene::new();
    let key = Head::read(&scene.dir()).unwrap().key().clone();
    let [first, second, third] = scene.sizes;
    let under = |index| scene.proof(index).verify(&key).unwrap().size;
    // Two have cosigned the second: the witness and the CA. The first is kept of one alone.
    assert_eq!([under(0), under(first), under(second - 1)], [second; 3]);
    assert_eq!([under(second), under(third - 1)], [third; 2]);
    let witnesses = [scene.one.verifier(), scene.ca.verifier(), scene.two.verifier()];
    let count = |index: u64, require| {
        let quorum = Quorum {
            witnesses: &witnesses,
            require,
        };
        scene.proof(index).witnessed(quorum)
    };
    let times = count(0, 2).unwrap();
    assert_eq!(times, [Some(NOW + Duration::from_secs(60)), Some(NOW), None]);
    let too_few = |found, required| Err(NotProven::TooFewWitnesses { found, required });
    assert_eq!(count(0, 3), too_few(2, 3));
    assert_eq!(count(0, 0), too_few(2, 0));
    assert_eq!(count(second, 1), too_few(0, 1));
}

#[test]
fn an_older_head_has_proofs_and_one_that_is_newer_than_the_ledger_has_none() {
    let scene = Scene::new();
    let head = Head::read(&scene.dir()).unwrap();
    let [first, second, third] = scene.sizes;
    assert_eq!(third, head.checkpoint().size);
    assert!(head.includes_under(0, first).unwrap().is_some());
    assert!(head.extends_under(first, second).unwrap().is_some());
    assert_eq!(head.includes_under(first, first).unwrap(), None);
    assert_eq!(head.extends_under(second, first).unwrap(), None);
    assert_eq!(head.includes_under(0, third + 1).ok(), Some(None));
    assert_eq!(head.extends_under(first, third + 1).ok(), Some(None));
}

#[test]
fn a_proof_with_a_false_line_is_none_and_a_kept_head_of_another_past_is_passed_over() {
    let scene = Scene::new();
    let key = Head::read(&scene.dir()).unwrap().key().clone();
    let mut proof = scene.proof(0);
    let line = scene
        .notes
        .lines()
        .find(|line| line.starts_with("\u{2014} w2 "))
        .unwrap();
    proof.checkpoint.push_str(&format!("{line}\n"));
    let witnesses = scene.witnesses();
    let quorum = Quorum {
        witnesses: &witnesses,
        require: 1,
    };
    assert!(matches!(proof.witnessed(quorum), Err(NotProven::Witness { .. })));
    // As after a disk was set back and written on: the same key has signed a head that is not of these records.
    let other = tempfile::tempdir().unwrap();
    fs::copy(scene.folder.path().join("log.key"), other.path().join("log.key")).unwrap();
    filled(other.path(), 1000..1300);
    let head = Head::read(&other.path().join("ledger")).unwrap();
    assert!(head.checkpoint().size <= scene.sizes[2]);
    let note = Note::parse(head.note().as_bytes()).unwrap();
    let cosigned = scene.ca.cosign(&scene.one.cosign(&note, NOW).unwrap(), NOW).unwrap();
    kept::keep_witnessed(&scene.dir(), &cosigned, &scene.one.verifier()).unwrap();
    kept::keep_witnessed(&scene.dir(), &cosigned, &scene.two.verifier()).unwrap();
    kept::keep_cosigned(&scene.dir(), &cosigned, &scene.ca.verifier()).unwrap();
    assert_eq!(scene.proof(0).verify(&key).unwrap().size, scene.sizes[2]);
}
