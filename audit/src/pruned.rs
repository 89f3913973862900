//! What a ledger says of records that it pruned, under its own signature: so that what is gone can be told from what
//! somebody cut out.
//!
//! ```text
//! botmesh-pruned/v1
//! acme.internal/host/web-1
//! 0 1200
//! <hash of record 0>
//! <SHA-256 of what is kept>
//! 2026-11-05T23:59:59.000Z
//!
//! — acme.internal/host/web-1 …
//! ```
//!
//! The note stands in a record of its own (`kind=pruned`), which is under a checkpoint before anything is deleted. The
//! hash of the first record ties it to this past of the ledger: after a new epoch the same words hold for nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use spiffe::time::Timestamp;

use crate::epoch;
use crate::hash::Hash;
use crate::key::{SignerKey, VerifierKey};
use crate::note::{Note, NoteError};
use crate::record::{EventKind, EventRecord};

/// The first line. No ledger has that name, so no checkpoint is taken for it, nor it for one.
const VERSION: &str = "botmesh-pruned/v1";

/// The detail of the record that holds the note.
pub(crate) const SIGNED: &str = "signed";

/// One segment that was pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pruned {
    /// Index of the first record that the segment had.
    pub(crate) first: u64,
    /// Index behind the last one.
    pub(crate) end: u64,
    /// The hash of the first record.
    pub(crate) leaf: Hash,
    /// SHA-256 of the file of what is kept.
    pub(crate) kept: Hash,
    /// Time of the newest record that was pruned.
    pub(crate) until: Timestamp,
}

impl Pruned {
    /// Signs it for the ledger of the key, whatever epoch that is in.
    pub(crate) fn sign(&self, key: &SignerKey) -> Result<String, NoteError> {
        let text = format!(
            "{VERSION}\n{}\n{} {}\n{}\n{}\n{}\n",
            key.verifier().name(),
            self.first,
            self.end,
            BASE64.encode(self.leaf.as_bytes()),
            BASE64.encode(self.kept.as_bytes()),
            self.until
        );
        Note::sign(&text, key).map(|note| note.to_string())
    }

    /// Reads what the ledger of `key` has signed; none where it has not.
    pub(crate) fn open(note: &[u8], key: &VerifierKey) -> Option<Self> {
        let (ledger, _epoch) = epoch::split(key.name());
        let key = key.in_epoch(&ledger)?;
        let note = Note::parse(note).ok()?;
        let mut lines = note.verified_by(&key).ok()?.lines();
        if lines.next()? != VERSION || lines.next()? != ledger.as_str() {
            return None;
        }
        let (first, end) = lines.next()?.split_once(' ')?;
        let mut hash = || {
            let bytes = BASE64.decode(lines.next()?).ok()?;
            Some(Hash::from_bytes(bytes.try_into().ok()?))
        };
        let (leaf, kept) = (hash()?, hash()?);
        Some(Self {
            first: first.parse().ok()?,
            end: end.parse().ok()?,
            leaf,
            kept,
            until: Timestamp::from_rfc3339(lines.next()?).ok()?,
        })
    }

    /// Reads what a record of the ledger says: nothing where it tells of something else, and `Err` where it tells of
    /// pruning and the ledger has not signed that.
    pub(crate) fn of_record(line: &[u8], key: &VerifierKey) -> Result<Option<Self>, Forged> {
        #[derive(serde::Deserialize)]
        struct Told<'a> {
            #[serde(borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        // Most records are calls, whose kind is their first word.
        if line.starts_with(br#"{"kind":"call""#) || line.starts_with(br#"{"kind":"end""#) {
            return Ok(None);
        }
        match serde_json::from_slice::<Told<'_>>(line) {
            Ok(told) if told.kind == EventKind::Pruned.as_str() => {}
            Ok(_) | Err(_) => return Ok(None),
        }
        let event = serde_json::from_slice::<EventRecord>(line).map_err(|_no_event| Forged)?;
        let note = event.detail.get(SIGNED).and_then(serde_json::Value::as_str);
        let pruned = note.and_then(|note| Self::open(note.as_bytes(), key));
        pruned.map(Some).ok_or(Forged)
    }
}

/// The ledger did not sign it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyName;

    fn key(name: &str) -> SignerKey {
        SignerKey::generate(KeyName::parse(name).unwrap()).unwrap()
    }

    fn pruned() -> Pruned {
        Pruned {
            first: 5,
            end: 1200,
            leaf: Hash::leaf(b"first"),
            kept: Hash::leaf(b"kept"),
            until: Timestamp::from_rfc3339("2026-11-05T10:00:00Z").unwrap(),
        }
    }

    #[test]
    fn what_was_signed_reads_back_in_every_epoch_after() {
        let key = key("acme.internal/host/web-1");
        let note = pruned().sign(&key).unwrap();
        assert_eq!(Pruned::open(note.as_bytes(), &key.verifier()), Some(pruned()));
        let later = KeyName::parse("acme.internal/host/web-1/epoch/3").unwrap();
        let later = key.renamed(later).unwrap().verifier();
        assert_eq!(Pruned::open(note.as_bytes(), &later), Some(pruned()));
    }

    #[test]
    fn what_another_signed_or_somebody_changed_is_none() {
        let own = key("acme.internal/host/web-1");
        let note = pruned().sign(&own).unwrap();
        let changed = note.replace("5 1200", "0 1200");
        assert_eq!(Pruned::open(changed.as_bytes(), &own.verifier()), None);
        let other = key("acme.internal/host/web-1");
        assert_eq!(Pruned::open(note.as_bytes(), &other.verifier()), None);
        let checkpoint = Note::sign("acme.internal/host/web-1\n5\nAAAA\n", &own).unwrap();
        assert_eq!(Pruned::open(checkpoint.to_string().as_bytes(), &own.verifier()), None);
    }
}
