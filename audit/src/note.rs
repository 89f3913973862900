//! Signed notes (C2SP signed-note): a text, a blank line, signatures.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

use crate::key::{KeyError, KeyName, SignerKey, VerifierKey};

/// Longest note that is read, in bytes. A checkpoint needs 300; cosigners add
/// 100 each.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;

/// Most signatures that are read in one note: as many as Go's package takes.
pub const SIGNATURES_MAX: usize = 100;

/// A note that has the form of one: nothing is said about its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    name: KeyName,
    id: u32,
    bytes: Vec<u8>,
}

/// Why bytes are no note, or no note of the key at hand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    /// More than [`NOTE_BYTES_MAX`] or [`SIGNATURES_MAX`].
    #[error("the note is longer than 64 KiB or has more than 100 signatures")]
    TooLong,
    /// Not UTF-8, or with control characters other than newlines.
    #[error("the note is not plain UTF-8 text")]
    Text,
    /// No blank line between text and signatures, or nothing on one side.
    #[error("the note has no blank line between its text and its signatures")]
    Split,
    /// A signature line has another form.
    #[error("signature line {line} of the note is malformed")]
    SignatureLine {
        /// Which signature line, from 1.
        line: usize,
    },
    /// A signature line names a key by a name that no key can have.
    #[error("signature line {line} of the note names no key")]
    SignatureName {
        /// Which signature line, from 1.
        line: usize,
        /// What is wrong with the name.
        #[source]
        source: KeyError,
    },
    /// The key that was asked about has not signed.
    #[error("the note is not signed by {key}")]
    NotSigned {
        /// Name of the key.
        key: String,
    },
    /// There is a signature in the key's name, and it is not the key's.
    #[error("the note's signature in the name of {key} is false")]
    FalseSignature {
        /// Name of the key.
        key: String,
    },
}

impl Note {
    /// Signs a text. It must end in a newline, hold no control characters, and
    /// no text that a peer may choose.
    ///
    /// # Errors
    ///
    /// [`NoteError::Text`], [`NoteError::Split`] or [`NoteError::TooLong`] when
    /// the result could not be read back.
    pub fn sign(text: &str, key: &SignerKey) -> Result<Self, NoteError> {
        let verifier = key.verifier();
        let signature = Signature {
            name: verifier.name().clone(),
            id: verifier.id(),
            bytes: key.sign(text.as_bytes()),
        };
        let note = Self {
            text: text.to_owned(),
            signatures: vec![signature],
        };
        // What was built is read back, so that no note leaves that others
        // would refuse.
        let read = Self::parse(note.to_string().as_bytes())?;
        if read == note { Ok(note) } else { Err(NoteError::Split) }
    }

    /// Reads a note without checking its signatures.
    ///
    /// # Errors
    ///
    /// When the bytes are not exactly in the form that [`Note`] is written in.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        let Ok(note) = std::str::from_utf8(bytes) else {
            return Err(NoteError::Text);
        };
        if note.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteError::Text);
        }
        // The last blank line counts (C2SP signed-note, "Format").
        let Some((text, lines)) = note.rsplit_once("\n\n") else {
            return Err(NoteError::Split);
        };
        let Some(lines) = lines.strip_suffix('\n') else {
            return Err(NoteError::Split);
        };
        let mut signatures = Vec::new();
        for (place, line) in lines.split('\n').enumerate() {
            if signatures.len() == SIGNATURES_MAX {
                return Err(NoteError::TooLong);
            }
            signatures.push(Signature::parse(line, place.saturating_add(1))?);
        }
        Ok(Self {
            text: format!("{text}\n"),
            signatures,
        })
    }

    /// Returns the text, whoever has signed it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns how many signatures there are, whosever they are.
    #[must_use]
    pub const fn signatures(&self) -> usize {
        self.signatures.len()
    }

    /// Returns the signatures that are said to be those of a key.
    pub(crate) fn said_by<'a>(&'a self, name: &'a KeyName, id: u32) -> impl Iterator<Item = &'a [u8]> {
        let of_key = move |signature: &&Signature| signature.name == *name && signature.id == id;
        self.signatures.iter().filter(of_key).map(|signature| &*signature.bytes)
    }

    /// Adds a signature, which others may have made.
    pub(crate) fn add(&mut self, name: KeyName, id: u32, bytes: Vec<u8>) -> Result<(), NoteError> {
        if self.signatures.len() >= SIGNATURES_MAX {
            return Err(NoteError::TooLong);
        }
        self.signatures.push(Signature { name, id, bytes });
        Ok(())
    }

    /// Removes the signatures that are said to be those of a key.
    pub(crate) fn remove(&mut self, name: &KeyName, id: u32) {
        self.signatures
            .retain(|signature| signature.name != *name || signature.id != id);
    }

    /// Adds what others have signed of the same text, as far as it is not there yet and there is room.
    pub fn merge(&mut self, other: &Self) {
        if self.text != other.text {
            return;
        }
        for signature in &other.signatures {
            if self.signatures.len() < SIGNATURES_MAX && !self.signatures.contains(signature) {
                self.signatures.push(signature.clone());
            }
        }
    }

    /// Returns the text if `key` has signed it. Signatures of other keys are
    /// not looked at.
    ///
    /// # Errors
    ///
    /// [`NoteError::NotSigned`] and [`NoteError::FalseSignature`].
    pub fn verified_by(&self, key: &VerifierKey) -> Result<&str, NoteError> {
        let mut signed = false;
        for signature in self.said_by(key.name(), key.id()) {
            if !key.accepts(self.text.as_bytes(), signature) {
                return Err(NoteError::FalseSignature {
                    key: key.name().to_string(),
                });
            }
            signed = true;
        }
        if signed {
            Ok(&self.text)
        } else {
            Err(NoteError::NotSigned {
                key: key.name().to_string(),
            })
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| {
            let mut bytes = signature.id.to_be_bytes().to_vec();
            bytes.extend_from_slice(&signature.bytes);
            writeln!(f, "\u{2014} {} {}", signature.name, BASE64.encode(bytes))
        })
    }
}

impl Signature {
    fn parse(text: &str, line: usize) -> Result<Self, NoteError> {
        let malformed = NoteError::SignatureLine { line };
        let Some((name, base64)) = text.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' ')) else {
            return Err(malformed);
        };
        let Ok(decoded) = BASE64.decode(base64) else {
            return Err(malformed);
        };
        let Some((id, bytes)) = decoded.split_first_chunk() else {
            return Err(malformed);
        };
        if bytes.is_empty() {
            return Err(malformed);
        }
        let name = KeyName::parse(name).map_err(|source| NoteError::SignatureName { line, source })?;
        Ok(Self {
            name,
            id: u32::from_be_bytes(*id),
            bytes: bytes.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example in the documentation of Go's `sumdb/note` package.
    const SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                        then you don't know what your problem is.\n";
    const SIGNATURE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn key() -> SignerKey {
        SignerKey::parse(SECRET).unwrap()
    }

    fn other(name: &str) -> SignerKey {
        SignerKey::generate(KeyName::parse(name).unwrap()).unwrap()
    }

    #[test]
    fn the_note_of_go_is_signed_and_read_alike() {
        let note = Note::sign(TEXT, &key()).unwrap();
        assert_eq!(note.to_string(), format!("{TEXT}\n{SIGNATURE}"));
        assert_eq!(note.verified_by(&key().verifier()).unwrap(), TEXT);
    }

    #[test]
    fn only_the_key_that_signed_verifies() {
        let note = Note::sign(TEXT, &other("PeterNeumann")).unwrap();
        let key = key().verifier();
        assert_eq!(
            note.verified_by(&key),
            Err(NoteError::NotSigned {
                key: "PeterNeumann".into()
            })
        );
        let forged = note.to_string().replace("key", "");
        let mut forged = Note::parse(forged.as_bytes()).unwrap();
        forged.signatures[0].id = key.id();
        assert_eq!(
            forged.verified_by(&key),
            Err(NoteError::FalseSignature {
                key: "PeterNeumann".into()
            })
        );
    }

    #[test]
    fn a_false_signature_beside_a_true_one_is_refused() {
        let mut note = Note::sign(TEXT, &key()).unwrap();
        let mut second = note.signatures[0].clone();
        second.bytes[0] ^= 1;
        note.signatures.push(second);
        assert!(matches!(
            note.verified_by(&key().verifier()),
            Err(NoteError::FalseSignature { .. })
        ));
    }

    #[test]
    fn signatures_of_others_are_passed_over() {
        let mut note = Note::sign(TEXT, &other("witness")).unwrap();
        note.signatures.extend(Note::sign(TEXT, &key()).unwrap().signatures);
        let read = Note::parse(note.to_string().as_bytes()).unwrap();
        assert_eq!(read.verified_by(&key().verifier()).unwrap(), TEXT);
    }

    #[test]
    fn notes_of_one_text_are_merged_and_of_another_are_not() {
        let mut note = Note::sign(TEXT, &key()).unwrap();
        let witnessed = Note::sign(TEXT, &other("witness")).unwrap();
        note.merge(&witnessed);
        note.merge(&witnessed);
        assert_eq!(note.signatures.len(), 2);
        note.merge(&Note::sign("another\n", &other("witness")).unwrap());
        assert_eq!(note.signatures.len(), 2);
        note.remove(&witnessed.signatures[0].name, witnessed.signatures[0].id);
        assert_eq!(note, Note::sign(TEXT, &key()).unwrap());
        while note.signatures.len() < SIGNATURES_MAX {
            note.merge(&Note::sign(TEXT, &other("witness")).unwrap());
        }
        note.merge(&witnessed);
        assert_eq!(note.signatures.len(), SIGNATURES_MAX);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = Note::sign(TEXT, &key()).unwrap().to_string().into_bytes();
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[place] ^= 1 << bit;
                let found = Note::parse(&bad).and_then(|note| note.verified_by(&key().verifier()).map(drop));
                assert!(found.is_err(), "byte {place} bit {bit}");
            }
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let line = "\u{2014} n AAAAAAE=\n";
        assert!(Note::parse(format!("text\n\n{line}").as_bytes()).is_ok());
        for (bytes, error) in [
            (String::new(), NoteError::Split),
            ("text\n".into(), NoteError::Split),
            ("text\n\n".into(), NoteError::Split),
            (format!("text\n{line}"), NoteError::Split),
            (format!("text\n\n{}", line.trim_end()), NoteError::Split),
            (format!("te\txt\n\n{line}"), NoteError::Text),
            (format!("te\rxt\n\n{line}"), NoteError::Text),
            ("text\n\n- n AAAAAAE=\n".into(), NoteError::SignatureLine { line: 1 }),
            (
                format!("text\n\n{line}\u{2014} n\n"),
                NoteError::SignatureLine { line: 2 },
            ),
            (
                "text\n\n\u{2014} n AAAAAA==\n".into(),
                NoteError::SignatureLine { line: 1 },
            ),
            ("text\n\n\u{2014} n AAAA\n".into(), NoteError::SignatureLine { line: 1 }),
            (
                "text\n\n\u{2014} n AAAAAAF=\n".into(),
                NoteError::SignatureLine { line: 1 },
            ),
            (
                "text\n\n\u{2014} a+b AAAAAAE=\n".into(),
                NoteError::SignatureName {
                    line: 1,
                    source: KeyError::Name,
                },
            ),
            (format!("text\n\n{}", line.repeat(101)), NoteError::TooLong),
            (format!("{}\n\n{line}", "t".repeat(NOTE_BYTES_MAX)), NoteError::TooLong),
        ] {
            assert_eq!(Note::parse(bytes.as_bytes()), Err(error), "{bytes:.80}");
        }
        assert_eq!(
            Note::parse(b"te\xffxt\n\n\xe2\x80\x94 n AAAAAAE=\n"),
            Err(NoteError::Text)
        );
        assert!(Note::parse(format!("text\n\n{}", line.repeat(100)).as_bytes()).is_ok());
    }

    #[test]
    fn a_text_that_could_not_be_read_back_is_not_signed() {
        assert_eq!(Note::sign("no newline", &key()), Err(NoteError::Split));
        assert_eq!(Note::sign("a\u{1b}[2J\n", &key()), Err(NoteError::Text));
        assert_eq!(Note::sign(&"t".repeat(NOTE_BYTES_MAX), &key()), Err(NoteError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_signed_reads_back(lines in prop::collection::vec("[^\\p{C}\n]{0,40}", 1..6)) {
            let text = format!("{}\n", lines.join("\n"));
            let note = Note::sign(&text, &key()).unwrap();
            let read = Note::parse(note.to_string().as_bytes()).unwrap();
            prop_assert_eq!(&read, &note);
            prop_assert_eq!(read.verified_by(&key().verifier()).unwrap(), text);
        }

        #[test]
        fn what_is_read_is_written_alike(bytes in "[a\n\u{2014} =A/0-9]{0,60}") {
            if let Ok(note) = Note::parse(bytes.as_bytes()) {
                prop_assert_eq!(note.to_string(), bytes);
            }
        }
    }
}
