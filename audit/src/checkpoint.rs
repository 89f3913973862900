//! Checkpoints (C2SP tlog-checkpoint): the signed head of the ledger.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

use crate::hash::Hash;
use crate::key::{KeyName, SignerKey, VerifierKey};
use crate::note::{Note, NoteError};

/// How many records the ledger of `origin` had, and the root over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which ledger: the name of the key that signs its checkpoints.
    pub origin: KeyName,
    /// Records covered.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

/// Why a note is no checkpoint of the key's ledger.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// It is no note, or the key has not signed it.
    #[error("the checkpoint is not a note that its ledger's key signed")]
    Note {
        /// What the note lacks.
        #[source]
        source: NoteError,
    },
    /// The text is not origin, size and root.
    #[error("the checkpoint's text is not an origin, a size and a root")]
    Body,
    /// The checkpoint is that of another ledger.
    #[error("the checkpoint is that of the ledger {found:?}")]
    Origin {
        /// The origin it names.
        found: String,
    },
}

impl Checkpoint {
    /// Signs the checkpoint with its ledger's key.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Origin`] when the key has another name than the
    /// ledger.
    pub fn sign(&self, key: &SignerKey) -> Result<String, CheckpointError> {
        if self.origin != *key.verifier().name() {
            return Err(CheckpointError::Origin {
                found: self.origin.to_string(),
            });
        }
        match Note::sign(&self.to_string(), key) {
            Ok(note) => Ok(note.to_string()),
            Err(source) => Err(CheckpointError::Note { source }),
        }
    }

    /// Reads a checkpoint that `key` has signed for the ledger of its name.
    /// Lines after the root are extensions and are passed over.
    ///
    /// # Errors
    ///
    /// When the note is not such a checkpoint.
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        let note = Note::parse(note).map_err(|source| CheckpointError::Note { source })?;
        let text = note
            .verified_by(key)
            .map_err(|source| CheckpointError::Note { source })?;
        let checkpoint = Self::parse(text).ok_or(CheckpointError::Body)?;
        if checkpoint.origin != *key.name() {
            return Err(CheckpointError::Origin {
                found: checkpoint.origin.to_string(),
            });
        }
        Ok(checkpoint)
    }

    /// Reads a checkpoint of an epoch of the key's ledger, up to the key's own: what it signed under an earlier name.
    pub(crate) fn open_in_epochs(note: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        let first = note.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let name = std::str::from_utf8(first)
            .ok()
            .and_then(|name| KeyName::parse(name).ok());
        let of_epoch = name.and_then(|name| key.in_epoch(&name));
        Self::open(note, of_epoch.as_ref().unwrap_or(key))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let origin = KeyName::parse(lines.next()?).ok()?;
        let digits = lines.next()?;
        let size: u64 = digits.parse().ok()?;
        let root = BASE64.decode(lines.next()?).ok()?;
        let root = Hash::from_bytes(root.try_into().ok()?);
        (size.to_string() == digits).then_some(Self { origin, size, root })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\n{}\n{}",
            self.origin,
            self.size,
            BASE64.encode(self.root.as_bytes())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(name: &str) -> SignerKey {
        SignerKey::generate(KeyName::parse(name).unwrap()).unwrap()
    }

    fn checkpoint(size: u64) -> Checkpoint {
        let origin = KeyName::parse("acme.internal/host/web-1").unwrap();
        Checkpoint {
            origin,
            size,
            root: Hash::leaf(b"root"),
        }
    }

    #[test]
    fn a_checkpoint_is_three_lines_and_a_signature() {
        let key = key("acme.internal/host/web-1");
        let note = checkpoint(17).sign(&key).unwrap();
        let lines: Vec<&str> = note.lines().collect();
        assert_eq!(lines[..2], ["acme.internal/host/web-1", "17"]);
        assert_eq!(lines[2].len(), 44);
        assert_eq!(lines[3], "");
        assert!(lines[4].starts_with("\u{2014} acme.internal/host/web-1 "));
        assert_eq!(lines.len(), 5);
        assert_eq!(
            Checkpoint::open(note.as_bytes(), &key.verifier()).unwrap(),
            checkpoint(17)
        );
    }

    #[test]
    fn a_checkpoint_of_another_ledger_is_refused() {
        let key = key("other");
        assert_eq!(
            checkpoint(1).sign(&key),
            Err(CheckpointError::Origin {
                found: "acme.internal/host/web-1".into()
            })
        );
        let note = Note::sign(&checkpoint(1).to_string(), &key).unwrap().to_string();
        assert_eq!(
            Checkpoint::open(note.as_bytes(), &key.verifier()),
            Err(CheckpointError::Origin {
                found: "acme.internal/host/web-1".into()
            })
        );
    }

    #[test]
    fn other_texts_are_no_checkpoints() {
        let key = key("o");
        let root = BASE64.encode([0; 32]);
        for text in [
            "o\n".to_owned(),
            "o\n1\n".to_owned(),
            format!("o\n01\n{root}\n"),
            format!("o\n+1\n{root}\n"),
            format!("o\n-1\n{root}\n"),
            format!("o\n18446744073709551616\n{root}\n"),
            format!("\n1\n{root}\n"),
            format!("o\n1\n{}\n", BASE64.encode([0; 31])),
            format!("o\n1\n{}\n", BASE64.encode([0; 33])),
            "o\n1\nroot\n".to_owned(),
        ] {
            let note = Note::sign(&text, &key).unwrap().to_string();
            let opened = Checkpoint::open(note.as_bytes(), &key.verifier());
            assert_eq!(opened, Err(CheckpointError::Body), "{text}");
        }
        let extended = Note::sign(&format!("o\n1\n{root}\nextension\n"), &key)
            .unwrap()
            .to_string();
        assert_eq!(Checkpoint::open(extended.as_bytes(), &key.verifier()).unwrap().size, 1);
    }

    #[test]
    fn an_unsigned_checkpoint_is_refused() {
        let note = checkpoint(1).sign(&key("acme.internal/host/web-1")).unwrap();
        let stranger = key("acme.internal/host/web-1").verifier();
        assert!(matches!(
            Checkpoint::open(note.as_bytes(), &stranger),
            Err(CheckpointError::Note {
                source: NoteError::NotSigned { .. }
            })
        ));
        assert!(matches!(
            Checkpoint::open(b"", &stranger),
            Err(CheckpointError::Note {
                source: NoteError::Split
            })
        ));
    }

    proptest! {
        #[test]
        fn every_checkpoint_reads_back(size: u64, root: [u8; 32]) {
            let key = key("o");
            let checkpoint = Checkpoint {
                origin: KeyName::parse("o").unwrap(), size, root: Hash::from_bytes(root),
            };
            let note = checkpoint.sign(&key).unwrap();
            prop_assert_eq!(Checkpoint::open(note.as_bytes(), &key.verifier()).unwrap(), checkpoint);
        }
    }
}
