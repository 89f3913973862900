//! Witnesses outside that an auditor believes: how many of them have cosigned a ledger, and how much of it.

use std::path::{Path, PathBuf};

use spiffe::time::Timestamp;

use super::{CosignedHead, Finding, VerifyFailure};
use crate::cosignature::Cosigner;
use crate::note::{Note, NoteError};

/// Whom an auditor believes, and how many of them must have cosigned.
#[derive(Clone, Copy, Debug)]
pub struct Quorum<'a> {
    /// Their keys.
    pub witnesses: &'a [Cosigner],
    /// How many of them are enough.
    pub require: usize,
}

/// What a witness has cosigned of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessedBy {
    /// Its name.
    pub witness: String,
    /// The newest head of the epoch that the ledger is in; nothing where it has cosigned none.
    pub head: Option<CosignedHead>,
}

impl Quorum<'_> {
    /// Says when each of the witnesses cosigned the note.
    ///
    /// # Errors
    ///
    /// When there is a false signature in the name of one.
    pub fn times(&self, note: &Note) -> Result<Vec<Option<Timestamp>>, NoteError> {
        let time = |witness: &Cosigner| match witness.cosigned(note) {
            Ok(at) => Ok(Some(at)),
            Err(NoteError::NotSigned { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        self.witnesses.iter().map(time).collect()
    }
}

/// What each witness of a quorum has cosigned.
#[derive(Debug)]
pub(super) struct Tally {
    require: usize,
    by: Vec<WitnessedBy>,
    /// Where the heads come from, for messages.
    from: PathBuf,
}

impl Tally {
    pub(super) fn new(quorum: Quorum<'_>, from: &Path) -> Self {
        let none = |witness: &Cosigner| WitnessedBy {
            witness: witness.name().to_string(),
            head: None,
        };
        Self {
            require: quorum.require,
            by: quorum.witnesses.iter().map(none).collect(),
            from: from.to_owned(),
        }
    }

    /// Takes a head of the epoch that the ledger is in.
    pub(super) fn take(&mut self, size: u64, times: &[Option<Timestamp>]) {
        for (by, time) in self.by.iter_mut().zip(times) {
            let head = time.map(|at| CosignedHead { size, time: Some(at) });
            let is_newer = |head: CosignedHead| by.head.is_none_or(|known| known.size < head.size);
            if let Some(head) = head.filter(|head| is_newer(*head)) {
                by.head = Some(head);
            }
        }
    }

    /// How many records enough witnesses have cosigned: each of them as many, or more. All that they cosigned is held against
    /// the ledger, so what one says of more records says the same of fewer.
    pub(super) fn size(&self) -> Result<u64, VerifyFailure> {
        let mut sizes: Vec<u64> = self.by.iter().filter_map(|by| Some(by.head?.size)).collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        let least = self.require.checked_sub(1).and_then(|place| sizes.get(place));
        least.copied().ok_or_else(|| {
            let what = Finding::TooFewWitnesses {
                found: sizes.len(),
                required: self.require,
            };
            VerifyFailure::at(&self.from, 0, what)
        })
    }

    pub(super) fn into_by(self) -> Vec<WitnessedBy> {
        self.by
    }
}
