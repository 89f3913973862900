//! The forms of questions and answers, and what answers mean.

use proptest::prelude::*;

use super::*;
use crate::cosignature::CosignerKey;
use crate::key::{KeyName, SignerKey};

const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);

/// A checkpoint over 7 records, and a witness.
struct Scene {
    note: Note,
    checkpoint: Checkpoint,
    witness: CosignerKey,
    cosigner: Cosigner,
}

impl Scene {
    fn new() -> Self {
        let key = SignerKey::generate(KeyName::parse("acme.internal/host/web-1").unwrap()).unwrap();
        let checkpoint = Checkpoint {
            origin: key.verifier().name().clone(),
            size: 7,
            root: Hash::leaf(b"root"),
        };
        let witness = witness("witness.example/w1");
        Self {
            note: Note::parse(checkpoint.sign(&key).unwrap().as_bytes()).unwrap(),
            checkpoint,
            cosigner: witness.verifier(),
            witness,
        }
    }

    fn read(&self, old: u64, status: u16, body: &str) -> Result<Cosigned, NotCosigned> {
        self.typed(old, status, Some(SIZE_TYPE), body)
    }

    fn typed(&self, old: u64, status: u16, kind: Option<&str>, body: &str) -> Result<Cosigned, NotCosigned> {
        let asked = Asked {
            note: &self.note,
            checkpoint: &self.checkpoint,
            old,
            cosigner: &self.cosigner,
        };
        let answer = Answer {
            status,
            content_type: kind.map(str::as_bytes),
            body: body.as_bytes(),
        };
        read(asked, answer, NOW)
    }

    /// The lines with which a witness answers.
    fn lines(&self, witness: &CosignerKey, at: Timestamp) -> String {
        let cosigned = witness.cosign(&self.note, at).unwrap().to_string();
        let before = self.note.to_string();
        cosigned.strip_prefix(&before).unwrap().to_owned()
    }
}

fn witness(name: &str) -> CosignerKey {
    CosignerKey::generate(KeyName::parse(name).unwrap()).unwrap()
}

#[test]
fn a_question_is_the_old_size_the_proof_a_blank_line_and_the_note() {
    let scene = Scene::new();
    let hash = Hash::leaf(b"beside");
    let text = question(3, &[hash, hash], &scene.note);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[1].len(), lines[1]), ("old 3", 44, lines[2]));
    assert_eq!(lines[3..6], ["", "acme.internal/host/web-1", "7"]);
    assert!(text.ends_with(&scene.note.to_string()));
    assert!(question(0, &[], &scene.note).starts_with("old 0\n\nacme.internal/host/web-1\n"));
}

#[test]
fn a_true_cosignature_is_added_to_the_note_and_others_are_left_out() {
    let scene = Scene::new();
    let other = witness("witness.example/w2");
    let body = scene.lines(&other, NOW) + &scene.lines(&scene.witness, NOW);
    let cosigned = scene.read(0, 200, &body).unwrap();
    assert_eq!(cosigned.at, NOW);
    assert_eq!(
        cosigned.note.to_string(),
        scene.note.to_string() + &scene.lines(&scene.witness, NOW)
    );
    // The newest counts where there are several.
    let later = NOW + Duration::from_secs(2);
    let body = scene.lines(&scene.witness, later) + &scene.lines(&scene.witness, NOW);
    let cosigned = scene.read(0, 200, &body).unwrap();
    assert_eq!((cosigned.at, cosigned.note.to_string().lines().count()), (later, 6));
}

#[test]
fn what_is_no_cosignature_of_the_witness_is_not_taken() {
    let scene = Scene::new();
    let not_signed = |source| Err(NotCosigned::NotSigned { source });
    let key = || "witness.example/w1".to_owned();
    let stranger = scene.lines(&witness("witness.example/w1"), NOW);
    assert_eq!(
        scene.read(0, 200, &stranger),
        not_signed(NoteError::NotSigned { key: key() })
    );
    let of_another = {
        let other = Note::parse(scene.note.to_string().replace("\n7\n", "\n8\n").as_bytes()).unwrap();
        let cosigned = scene.witness.cosign(&other, NOW).unwrap().to_string();
        cosigned.lines().last().unwrap().to_owned() + "\n"
    };
    assert_eq!(
        scene.read(0, 200, &of_another),
        not_signed(NoteError::FalseSignature { key: key() })
    );
    let both = scene.lines(&scene.witness, NOW) + &of_another;
    assert_eq!(
        scene.read(0, 200, &both),
        not_signed(NoteError::FalseSignature { key: key() })
    );
}

#[test]
fn a_cosignature_of_another_time_is_not_taken() {
    let scene = Scene::new();
    for (apart, taken) in [(599, true), (601, false)] {
        let apart = Duration::from_secs(apart);
        let early = Timestamp::from_unix_millis(NOW.unix_millis() - i64::try_from(apart.as_millis()).unwrap());
        for at in [early, NOW + apart] {
            let found = scene.read(0, 200, &scene.lines(&scene.witness, at));
            let wanted = if taken { Ok(at) } else { Err(NotCosigned::Clock { at }) };
            assert_eq!(found.map(|cosigned| cosigned.at), wanted);
        }
    }
}

#[test]
fn a_witness_that_stands_elsewhere_says_where() {
    let scene = Scene::new();
    let set_back = NotCosigned::SetBack { size: 8, told: 7 };
    assert_eq!(scene.read(3, 409, "5\n"), Err(NotCosigned::Behind { size: 5 }));
    assert_eq!(scene.read(3, 409, "0\n"), Err(NotCosigned::Behind { size: 0 }));
    assert_eq!(scene.read(3, 409, "7\n"), Err(NotCosigned::Behind { size: 7 }));
    assert_eq!(scene.read(3, 409, "8\n"), Err(set_back.clone()));
    assert_eq!(scene.read(7, 409, "7\n"), Err(NotCosigned::Forked { size: 7 }));
    assert_eq!(scene.typed(7, 409, None, ""), Err(NotCosigned::Forked { size: 7 }));
    assert_eq!(scene.read(3, 422, ""), Err(NotCosigned::Forked { size: 3 }));
    assert!(set_back.is_other_past() && !NotCosigned::Behind { size: 5 }.is_other_past());
    let kind = Some("Text/X.TLog.Size; charset=utf-8");
    assert_eq!(scene.typed(3, 409, kind, "5\n"), Err(NotCosigned::Behind { size: 5 }));
}

#[test]
fn other_answers_are_told_by_their_status() {
    let scene = Scene::new();
    let origin = || "acme.internal/host/web-1".to_owned();
    assert_eq!(
        scene.read(0, 404, "x"),
        Err(NotCosigned::UnknownLedger { origin: origin() })
    );
    assert_eq!(scene.read(0, 403, ""), Err(NotCosigned::OtherKey { origin: origin() }));
    for status in [429, 500, 503, 599] {
        assert_eq!(scene.read(0, status, ""), Err(NotCosigned::Away { status }));
    }
    for status in [100, 201, 204, 301, 307, 400, 405, 600] {
        assert_eq!(scene.read(0, status, ""), Err(NotCosigned::Unreadable { status }));
    }
}

#[test]
fn answers_of_another_form_are_not_read() {
    let scene = Scene::new();
    let line = scene.lines(&scene.witness, NOW);
    for body in [
        "",
        "\n",
        "OK\n",
        &format!("\n{line}"),
        &format!("more text\n\n{line}"),
        &format!("{line}\n"),
        line.trim_end(),
        &line.replacen('\u{2014}', "-", 1),
        &format!("{line}\u{2014} x AAAA\n"),
        &line.repeat(101),
        &("a".repeat(ANSWER_BYTES_MAX) + "\n"),
    ] {
        let found = scene.read(0, 200, body);
        assert_eq!(found, Err(NotCosigned::Unreadable { status: 200 }), "{body:.80}");
    }
    for body in [
        "",
        "5",
        "5\n\n",
        "05\n",
        "+5\n",
        "-1\n",
        " 5\n",
        "5 \n",
        "18446744073709551616\n",
        "five\n",
    ] {
        assert_eq!(
            scene.read(3, 409, body),
            Err(NotCosigned::Unreadable { status: 409 }),
            "{body:?}"
        );
    }
    for kind in [None, Some("text/plain"), Some("")] {
        assert_eq!(
            scene.typed(3, 409, kind, "5\n"),
            Err(NotCosigned::Unreadable { status: 409 })
        );
    }
    let long = "9".repeat(ANSWER_BYTES_MAX + 1);
    for status in [200, 404, 409, 503] {
        assert_eq!(scene.read(3, status, &long), Err(NotCosigned::Unreadable { status }));
    }
}

proptest! {
    #[test]
    fn nothing_but_the_witnesss_own_signature_makes_a_cosigned_note(status in any::<u16>(), body in ".{0,200}") {
        let scene = Scene::new();
        prop_assert!(scene.read(3, status, &body).is_err());
    }

    #[test]
    fn every_size_is_read_as_it_is_written(size: u64, old in 0u64..7) {
        let scene = Scene::new();
        let wanted = match size {
            8.. => NotCosigned::SetBack { size, told: 7 },
            _ if size == old => NotCosigned::Forked { size },
            _ => NotCosigned::Behind { size },
        };
        prop_assert_eq!(scene.read(old, 409, &format!("{size}\n")), Err(wanted));
    }

    #[test]
    fn a_note_that_was_cosigned_reads_back(seconds in 0u64..500) {
        let scene = Scene::new();
        let at = NOW + Duration::from_secs(seconds);
        let cosigned = scene.read(0, 200, &scene.lines(&scene.witness, at)).unwrap();
        let again = Note::parse(cosigned.note.to_string().as_bytes()).unwrap();
        prop_assert_eq!(scene.cosigner.cosigned(&again).unwrap(), at);
        prop_assert_eq!(again, cosigned.note);
    }
}
