//! What is kept beside a ledger of heads that were cosigned: by the CA, and by witnesses outside. What an auditor is content with
//! has to be signed by a key that he has from elsewhere; where the note lay meanwhile does not matter then.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spiffe::time::Timestamp;

use crate::checkpoint::Checkpoint;
use crate::cosignature::Cosigner;
use crate::key::VerifierKey;
use crate::ledger::{VKEY, read_file, replace_file};
use crate::note::{NOTE_BYTES_MAX, Note};

/// The file of the newest head that the CA cosigned.
pub(crate) const COSIGNED: &str = "cosigned";
/// The file of its verifier key.
const COSIGNER: &str = "cosigner.vkey";

/// The folder of the newest heads that witnesses cosigned: a note and a verifier key for each, named by the key's id.
const WITNESSED: &str = "witnessed";
const NOTE: &str = "note";
const KEY: &str = "vkey";

/// How many notes are read there: of witnesses that a mesh has, and of those that it had.
const NOTES_MAX: usize = 64;

/// Keeps a head that the CA cosigned, with the key of the cosigner: what is here must fit what an auditor has.
///
/// # Errors
///
/// When a file cannot be written.
pub fn keep_cosigned(dir: &Path, note: &Note, cosigner: &Cosigner) -> io::Result<()> {
    let files = [(COSIGNED, note.to_string()), (COSIGNER, format!("{cosigner}\n"))];
    for (name, text) in files {
        replace_file(&dir.join("cosigned.tmp"), &dir.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Keeps a head that a witness cosigned, in place of the one before.
///
/// # Errors
///
/// When a file cannot be written.
pub fn keep_witnessed(dir: &Path, note: &Note, witness: &Cosigner) -> io::Result<()> {
    let (folder, id) = (dir.join(WITNESSED), witness.id());
    fs::create_dir_all(&folder)?;
    let files = [(NOTE, note.to_string()), (KEY, format!("{witness}\n"))];
    for (kind, text) in files {
        let path = folder.join(&id).with_extension(kind);
        replace_file(&folder.join("draft"), &path, text.as_bytes())?;
    }
    Ok(())
}

/// A cosigned head that is kept beside a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// When it was cosigned.
    pub at: Timestamp,
}

/// Reads the head that [`keep_cosigned`] has kept beside the ledger in `dir`. There is none where the ledger has not signed it,
/// or the cosigner whose key is beside it has not.
#[must_use]
pub fn kept_cosigned(dir: &Path) -> Option<Kept> {
    let cosigner = Cosigner::parse(text(&dir.join(COSIGNER))?.trim_end()).ok()?;
    kept(dir, &dir.join(COSIGNED), &cosigner)
}

/// Reads the head that [`keep_witnessed`] has kept of a witness, alike.
#[must_use]
pub fn kept_witnessed(dir: &Path, witness: &Cosigner) -> Option<Kept> {
    let path = dir.join(WITNESSED).join(witness.id()).with_extension(NOTE);
    kept(dir, &path, witness)
}

fn kept(dir: &Path, path: &Path, cosigner: &Cosigner) -> Option<Kept> {
    let key = VerifierKey::parse(text(&dir.join(VKEY))?.trim_end()).ok()?;
    let note = text(path)?;
    Some(Kept {
        checkpoint: Checkpoint::open_in_epochs(note.as_bytes(), &key).ok()?,
        at: cosigner.cosigned(&Note::parse(note.as_bytes()).ok()?).ok()?,
    })
}

/// Reads all notes that are kept beside the ledger, with the files that they are in. Nothing is said about their signatures.
///
/// # Errors
///
/// When a file cannot be read.
pub fn notes(dir: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = dir.join(WITNESSED);
    let mut paths = Vec::new();
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    for entry in entries.into_iter().flatten().take(2 * NOTES_MAX) {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == NOTE) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.push(dir.join(COSIGNED));
    let mut notes = Vec::new();
    for path in paths {
        if let Some(note) = read_file(&path, NOTE_BYTES_MAX as u64)? {
            notes.push((path, note));
        }
    }
    Ok(notes)
}

fn text(path: &Path) -> Option<String> {
    let found = read_file(path, NOTE_BYTES_MAX as u64).ok()??;
    String::from_utf8(found).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosignature::CosignerKey;
    use crate::hash::Hash;
    use crate::key::{KeyName, SignerKey};

    const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);

    fn witness(name: &str) -> CosignerKey {
        CosignerKey::generate(KeyName::parse(name).unwrap()).unwrap()
    }

    /// The folder of a ledger, its key, and a head of it.
    fn ledger() -> (tempfile::TempDir, SignerKey, Note) {
        let dir = tempfile::tempdir().unwrap();
        let key = SignerKey::generate(KeyName::parse("acme.internal/host/web-1").unwrap()).unwrap();
        fs::write(dir.path().join(VKEY), format!("{}\n", key.verifier())).unwrap();
        let checkpoint = Checkpoint {
            origin: key.verifier().name().clone(),
            size: 7,
            root: Hash::leaf(b"root"),
        };
        let note = Note::parse(checkpoint.sign(&key).unwrap().as_bytes()).unwrap();
        (dir, key, note)
    }

    #[test]
    fn what_was_kept_of_each_witness_is_read_and_so_is_that_of_the_ca() {
        let (dir, _key, note) = ledger();
        let dir = dir.path();
        let [ca, one, two] = ["ca", "w", "w"].map(witness);
        assert_eq!(notes(dir).unwrap(), []);
        assert_eq!(kept_cosigned(dir), None);
        keep_cosigned(dir, &ca.cosign(&note, NOW).unwrap(), &ca.verifier()).unwrap();
        for witness in [&one, &two, &two] {
            keep_witnessed(dir, &witness.cosign(&note, NOW).unwrap(), &witness.verifier()).unwrap();
        }
        for kept in [
            kept_cosigned(dir),
            kept_witnessed(dir, &one.verifier()),
            kept_witnessed(dir, &two.verifier()),
        ] {
            let kept = kept.unwrap();
            assert_eq!((kept.checkpoint.size, kept.at), (7, NOW));
        }
        assert_eq!(kept_witnessed(dir, &ca.verifier()), None);
        assert_eq!(notes(dir).unwrap().len(), 3);
    }

    #[test]
    fn a_kept_head_that_either_has_not_signed_is_none() {
        let (dir, key, note) = ledger();
        let dir = dir.path();
        let one = witness("w");
        let path = dir.join(WITNESSED).join(one.verifier().id()).with_extension(NOTE);
        keep_witnessed(dir, &one.cosign(&note, NOW).unwrap(), &one.verifier()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("\n7\n", "\n8\n", 1)).unwrap();
        assert_eq!(kept_witnessed(dir, &one.verifier()), None);
        fs::write(&path, note.to_string()).unwrap();
        assert_eq!(kept_witnessed(dir, &one.verifier()), None);
        fs::write(&path, text).unwrap();
        assert!(kept_witnessed(dir, &one.verifier()).is_some());
        let other = SignerKey::generate(key.verifier().name().clone()).unwrap();
        fs::write(dir.join(VKEY), format!("{}\n", other.verifier())).unwrap();
        assert_eq!(kept_witnessed(dir, &one.verifier()), None);
    }
}
