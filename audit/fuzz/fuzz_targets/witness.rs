//! No answer of a witness harms who reads it, and none that was not signed by its key is a cosignature.

#![no_main]

use std::sync::LazyLock;

use audit::cosignature::{Cosigner, CosignerKey};
use audit::hash::Hash;
use audit::key::{KeyName, SignerKey};
use audit::note::Note;
use audit::witness::http::{Answer, Asked, read};
use audit::Checkpoint;
use spiffe::time::Timestamp;

/// A checkpoint, and the key of a witness whose private half is gone.
static SCENE: LazyLock<(Note, Checkpoint, Cosigner)> = LazyLock::new(|| {
    let name = |name| KeyName::parse(name).expect("a name");
    let key = SignerKey::generate(name("acme.internal/host/web-1")).expect("a key");
    let checkpoint = Checkpoint {
        origin: key.verifier().name().clone(),
        size: 7,
        root: Hash::leaf(b"root"),
    };
    let note = checkpoint.sign(&key).expect("signed");
    let witness = CosignerKey::generate(name("w")).expect("a key").verifier();
    (Note::parse(note.as_bytes()).expect("a note"), checkpoint, witness)
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (note, checkpoint, cosigner) = &*SCENE;
    let Some(([status, old], body)) = bytes.split_first_chunk() else { return };
    let status = [200, 409, 403, 404, 422, 429, 500, 301][usize::from(status % 8)];
    let asked = Asked {
        note,
        checkpoint,
        old: u64::from(old % 8),
        cosigner,
    };
    let answer = Answer {
        status,
        content_type: Some(b"text/x.tlog.size"),
        body,
    };
    assert!(read(asked, answer, Timestamp::from_unix_millis(0)).is_err());
});
