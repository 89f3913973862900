//! Cosignatures (C2SP tlog-cosignature, Ed25519): a witness says that a checkpoint is the largest it has seen of a ledger,
//! and that all it saw before are beginnings of it.

use std::fmt;
use std::time::Duration;

use spiffe::time::Timestamp;
use zeroize::Zeroizing;

use crate::key::{KeyError, KeyName, SignerKey, Use, VerifierKey};
use crate::note::{Note, NoteError};

/// Signs cosignatures, and nothing else.
#[derive(Debug)]
pub struct CosignerKey(SignerKey);

/// Checks the cosignatures of one witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigner(VerifierKey);

impl CosignerKey {
    /// Makes a key from fresh random bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError::Generate`] when the operating system has no random bytes.
    pub fn generate(name: KeyName) -> Result<Self, KeyError> {
        SignerKey::generate_for(Use::Cosignatures, name).map(Self)
    }

    /// Reads the form in which a key is stored.
    ///
    /// # Errors
    ///
    /// When the text has another form, is a key of another use, or its id is not the key's.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        SignerKey::parse_for(Use::Cosignatures, text).map(Self)
    }

    /// Returns the text that [`CosignerKey::parse`] reads: the secret itself, for the key file and nothing else.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        self.0.expose()
    }

    /// Returns the public half.
    #[must_use]
    pub fn verifier(&self) -> Cosigner {
        Cosigner(self.0.verifier())
    }

    /// Adds a cosignature to a note. Whoever calls has seen that the checkpoint in it may have one.
    ///
    /// # Errors
    ///
    /// [`NoteError::TooLong`] when it has as many signatures as a note may.
    pub fn cosign(&self, note: &Note, now: Timestamp) -> Result<Note, NoteError> {
        let verifier = self.0.verifier();
        let seconds = seconds(now);
        let signature = self.0.sign(message(seconds, note.text()).as_bytes());
        let bytes = [&seconds.to_be_bytes()[..], &signature].concat();
        let mut cosigned = note.clone();
        cosigned.add(verifier.name().clone(), verifier.id(), bytes)?;
        Ok(cosigned)
    }
}

impl Cosigner {
    /// Reads `NAME+ID+KEY`.
    ///
    /// # Errors
    ///
    /// When the text is not exactly the one that the key it holds would have, or it is a key of another use.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        VerifierKey::parse_for(Use::Cosignatures, text).map(Self)
    }

    /// Returns the witness's name.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        self.0.name()
    }

    /// Returns when the witness cosigned the note: the last time, if it did more than once.
    ///
    /// # Errors
    ///
    /// When it did not, or a cosignature in its name is false.
    pub fn cosigned(&self, note: &Note) -> Result<Timestamp, NoteError> {
        self.newest(note).map(|(at, _line)| at)
    }

    /// Returns the newest cosignature of the note too.
    pub(crate) fn newest<'a>(&'a self, note: &'a Note) -> Result<(Timestamp, &'a [u8]), NoteError> {
        let key = || self.name().to_string();
        let mut last = None;
        for bytes in note.said_by(self.0.name(), self.0.id()) {
            let seconds = self.time_of(bytes, note.text());
            let seconds = seconds.ok_or_else(|| NoteError::FalseSignature { key: key() })?;
            last = last.max(Some((seconds, bytes)));
        }
        let (seconds, bytes) = last.ok_or_else(|| NoteError::NotSigned { key: key() })?;
        Ok((Timestamp::from_unix_millis(0) + Duration::from_secs(seconds), bytes))
    }

    /// Gives the note this cosignature in place of those that it has of this witness.
    pub(crate) fn replace(&self, note: &mut Note, signature: Vec<u8>) -> Result<(), NoteError> {
        note.remove(self.0.name(), self.0.id());
        note.add(self.0.name().clone(), self.0.id(), signature)
    }

    /// Returns the id that its signature lines begin with, as eight hexadecimal digits: what tells two witnesses of one name apart.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:08x}", self.0.id())
    }

    /// When a true cosignature was made.
    fn time_of(&self, bytes: &[u8], text: &str) -> Option<u64> {
        let (seconds, signature) = bytes.split_first_chunk::<8>()?;
        let seconds = u64::from_be_bytes(*seconds);
        let may_be = i64::try_from(seconds).is_ok();
        (may_be && self.0.accepts(message(seconds, text).as_bytes(), signature)).then_some(seconds)
    }
}

impl fmt::Display for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is signed.
fn message(seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// Whole seconds since 1970; a clock before that says 0.
fn seconds(now: Timestamp) -> u64 {
    u64::try_from(now.unix_millis() / 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> CosignerKey {
        CosignerKey::generate(KeyName::parse(name).unwrap()).unwrap()
    }

    fn note() -> (Note, VerifierKey) {
        let key = SignerKey::generate(KeyName::parse("acme.internal/host/web-1").unwrap()).unwrap();
        let note = Note::sign("acme.internal/host/web-1\n1\nroot\n", &key).unwrap();
        (note, key.verifier())
    }

    const NOW: Timestamp = Timestamp::from_unix_millis(1_679_315_147_900);

    #[test]
    fn the_example_of_the_standard_is_cosigned() {
        // C2SP tlog-cosignature, the checkpoint with a cosignature; the key is that of no text, only its id and time are seen.
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let line = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let note = Note::parse(format!("{text}\n{line}").as_bytes()).unwrap();
        let name = KeyName::parse("witness.example.com/w1").unwrap();
        let bytes: Vec<&[u8]> = note.said_by(&name, 0x8d66_cf3f).collect();
        assert_eq!(bytes.len(), 1);
        assert_eq!(bytes[0].len(), 8 + 64);
        assert_eq!(u64::from_be_bytes(bytes[0][..8].try_into().unwrap()), 1_679_315_147);
        assert!(message(1_679_315_147, text).starts_with("cosignature/v1\ntime 1679315147\nexample.com/"));
    }

    #[test]
    fn a_cosignature_says_when_and_leaves_the_signature_of_the_ledger() {
        let (note, ledger) = note();
        let key = key("acme.internal/ca/cosigner");
        let cosigned = key.cosign(&note, NOW).unwrap();
        let read = Note::parse(cosigned.to_string().as_bytes()).unwrap();
        assert_eq!(read.to_string().lines().count(), note.to_string().lines().count() + 1);
        assert_eq!(
            key.verifier().cosigned(&read).unwrap(),
            Timestamp::from_unix_millis(1_679_315_147_000)
        );
        assert_eq!(read.verified_by(&ledger).unwrap(), note.text());
        let later = key.cosign(&read, NOW + Duration::from_secs(60)).unwrap();
        let last = key.verifier().cosigned(&later).unwrap();
        assert_eq!(last, Timestamp::from_unix_millis(1_679_315_207_000));
    }

    #[test]
    fn a_note_without_or_with_a_false_cosignature_is_told() {
        let (note, ledger) = note();
        let key = key("witness");
        let name = || "witness".to_owned();
        let cosigner = key.verifier();
        assert_eq!(cosigner.cosigned(&note), Err(NoteError::NotSigned { key: name() }));
        let cosigned = key.cosign(&note, NOW).unwrap();
        let bytes = cosigned
            .said_by(cosigner.name(), cosigner.0.id())
            .next()
            .unwrap()
            .to_vec();
        for place in [0, 7, 8, 71] {
            let mut bytes = bytes.clone();
            bytes[place] ^= 1;
            let mut forged = note.clone();
            forged.add(cosigner.name().clone(), cosigner.0.id(), bytes).unwrap();
            let found = cosigner.cosigned(&forged);
            assert_eq!(found, Err(NoteError::FalseSignature { key: name() }), "{place}");
        }
        let mut short = note.clone();
        short
            .add(cosigner.name().clone(), cosigner.0.id(), bytes[..7].to_vec())
            .unwrap();
        assert_eq!(
            cosigner.cosigned(&short),
            Err(NoteError::FalseSignature { key: name() })
        );
        let mut moved = Note::parse(cosigned.to_string().replace("\n1\n", "\n2\n").as_bytes()).unwrap();
        assert_eq!(
            cosigner.cosigned(&moved),
            Err(NoteError::FalseSignature { key: name() })
        );
        assert!(moved.verified_by(&ledger).is_err());
        moved.add(cosigner.name().clone(), cosigner.0.id(), bytes).unwrap();
        assert!(cosigner.cosigned(&moved).is_err());
    }

    #[test]
    fn a_key_of_one_use_is_none_of_another() {
        let cosigner = key("witness");
        let signer = SignerKey::generate(KeyName::parse("witness").unwrap()).unwrap();
        assert_eq!(CosignerKey::parse(&signer.expose()).unwrap_err(), KeyError::Form);
        assert_eq!(SignerKey::parse(&cosigner.expose()).unwrap_err(), KeyError::Form);
        assert_eq!(Cosigner::parse(&signer.verifier().to_string()), Err(KeyError::Form));
        assert_eq!(
            VerifierKey::parse(&cosigner.verifier().to_string()),
            Err(KeyError::Form)
        );
        let again = CosignerKey::parse(&cosigner.expose()).unwrap();
        assert_eq!(again.verifier(), cosigner.verifier());
        assert_eq!(
            Cosigner::parse(&cosigner.verifier().to_string()),
            Ok(cosigner.verifier())
        );
    }

    #[test]
    fn a_note_full_of_signatures_is_not_cosigned() {
        let (mut note, _) = note();
        let key = key("witness");
        while let Ok(more) = key.cosign(&note, NOW) {
            note = more;
        }
        assert_eq!(note.to_string().lines().count(), 4 + 100);
        assert_eq!(key.cosign(&note, NOW), Err(NoteError::TooLong));
    }
}
