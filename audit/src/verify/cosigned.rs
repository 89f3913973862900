//! Heads that a witness cosigned, and what they say of a ledger: that nothing of its past was cut off or exchanged since.

use std::path::{Path, PathBuf};

use spiffe::time::Timestamp;

use super::quorum::{Quorum, Tally, WitnessedBy};
use super::{Finding, VerifyFailure};
use crate::checkpoint::Checkpoint;
use crate::cosignature::Cosigner;
use crate::epoch;
use crate::hash::Hash;
use crate::history::History;
use crate::kept::{self, COSIGNED};
use crate::key::{KeyName, VerifierKey};
use crate::ledger::read_file;
use crate::note::{NOTE_BYTES_MAX, Note};

/// Heads from a witness, and the key to check its cosignatures with.
#[derive(Clone, Copy, Debug)]
pub struct Witnessed<'a> {
    /// Where they come from, for messages.
    pub file: &'a Path,
    /// The notes, one after another with a blank line between. Those of other ledgers are passed over.
    pub notes: &'a [u8],
    /// Whose cosignature each must have.
    pub cosigner: &'a Cosigner,
}

/// Heads from elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Notes<'a> {
    /// Where they come from, for messages.
    pub file: &'a Path,
    /// The notes, one after another with a blank line between. Those of other ledgers are passed over.
    pub bytes: &'a [u8],
}

/// Whom an auditor believes besides the key of the ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trust<'a> {
    /// The heads. Without any, those that are kept beside the ledger are looked at for what witnesses have cosigned.
    pub notes: Option<Notes<'a>>,
    /// Whose cosignature each head of the ledger among them must have.
    pub cosigner: Option<&'a Cosigner>,
    /// Who else must have cosigned some.
    pub quorum: Option<Quorum<'a>>,
}

impl<'a> From<Witnessed<'a>> for Trust<'a> {
    fn from(witnessed: Witnessed<'a>) -> Self {
        Self {
            notes: Some(Notes {
                file: witnessed.file,
                bytes: witnessed.notes,
            }),
            cosigner: Some(witnessed.cosigner),
            quorum: None,
        }
    }
}

/// The newest head of the ledger that a witness cosigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CosignedHead {
    /// Records under it.
    pub size: u64,
    /// When it was cosigned; nothing where nobody looked at the cosignature.
    pub time: Option<Timestamp>,
}

/// Who cosigned a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The CA.
    Cosigner,
    /// Witnesses outside.
    Witnesses,
}

/// What a cosigned head says.
#[derive(Debug)]
struct Said {
    size: u64,
    root: Hash,
    /// It is of the epoch that the ledger is in: what it covers must be there.
    current: bool,
    time: Option<Timestamp>,
    by: By,
    file: PathBuf,
    offset: u64,
    /// Whether the ledger begins with what it covers; not known before that is read.
    holds: Option<bool>,
}

/// The cosigned heads of a ledger while its records are read.
#[derive(Debug, Default)]
pub(super) struct CosignedHeads {
    said: Vec<Said>,
    /// Heads of earlier epochs under keys that were lost.
    lost: u64,
    /// What each witness has cosigned, and how much enough of them have.
    witnesses: Vec<WitnessedBy>,
    witnessed: Option<u64>,
}

impl CosignedHeads {
    /// Takes those of the ledger: from elsewhere where there are any, else the one that is kept beside it, as far as it goes.
    pub(super) fn read(dir: &Path, key: &VerifierKey, trust: Trust<'_>) -> Result<Self, VerifyFailure> {
        let mut heads = Self::default();
        if let (Some(notes), Some(cosigner)) = (trust.notes, trust.cosigner) {
            heads.take(key, notes, cosigner)?;
        } else if trust.notes.is_none() {
            let path = dir.join(COSIGNED);
            let note =
                read_file(&path, NOTE_BYTES_MAX as u64).map_err(|source| VerifyFailure::unreadable(&path, source))?;
            if let Some(note) = note {
                let checkpoint = open(&note, key, &path, 0)?;
                heads.push(key, &checkpoint, (None, By::Cosigner), (path, 0));
            }
        }
        if let Some(quorum) = trust.quorum {
            heads.take_witnessed(dir, key, trust.notes, quorum)?;
        }
        heads.said.sort_by_key(|said| said.size);
        Ok(heads)
    }

    /// Takes what witnesses have cosigned: of notes from elsewhere, or of those that are kept beside the ledger, which is as
    /// good, because their keys are not from there.
    fn take_witnessed(
        &mut self,
        dir: &Path,
        key: &VerifierKey,
        notes: Option<Notes<'_>>,
        quorum: Quorum<'_>,
    ) -> Result<(), VerifyFailure> {
        if let Some(notes) = notes {
            let mut tally = Tally::new(quorum, notes.file);
            for (offset, note) in History::split(notes.bytes).notes {
                self.take_note(key, note, quorum, &mut tally, (notes.file, offset as u64))?;
            }
            return self.count(tally);
        }
        let kept = kept::notes(dir).map_err(|source| VerifyFailure::unreadable(dir, source))?;
        let mut tally = Tally::new(quorum, dir);
        for (file, note) in &kept {
            self.take_note(key, note, quorum, &mut tally, (file, 0))?;
        }
        self.count(tally)
    }

    fn count(&mut self, tally: Tally) -> Result<(), VerifyFailure> {
        self.witnessed = Some(tally.size()?);
        self.witnesses = tally.into_by();
        Ok(())
    }

    /// Takes one note, if it is of the ledger and a witness has cosigned it.
    fn take_note(
        &mut self,
        key: &VerifierKey,
        bytes: &[u8],
        quorum: Quorum<'_>,
        tally: &mut Tally,
        (file, offset): (&Path, u64),
    ) -> Result<(), VerifyFailure> {
        let (ledger, own) = epoch::split(key.name());
        let Some(epoch) = origin(bytes).and_then(|name| epoch::of(&ledger, &name)) else {
            return Ok(());
        };
        let times = Note::parse(bytes).and_then(|note| quorum.times(&note));
        let times = times.map_err(|source| VerifyFailure::at(file, offset, Finding::NotCosigned { source }))?;
        let Some(newest) = times.iter().copied().max().flatten() else {
            return Ok(());
        };
        if epoch > own {
            let what = Finding::OldEpoch { own, cosigned: epoch };
            return Err(VerifyFailure::at(file, offset, what));
        }
        match open(bytes, key, file, offset) {
            Ok(checkpoint) => {
                if epoch == own {
                    tally.take(checkpoint.size, &times);
                }
                let by = (Some(newest), By::Witnesses);
                self.push(key, &checkpoint, by, (file.to_owned(), offset));
            }
            Err(_other_key) if epoch < own => self.lost = self.lost.saturating_add(1),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn take(&mut self, key: &VerifierKey, notes: Notes<'_>, cosigner: &Cosigner) -> Result<(), VerifyFailure> {
        let (ledger, own) = epoch::split(key.name());
        let file = notes.file;
        for (offset, note) in History::split(notes.bytes).notes {
            let offset = offset as u64;
            let Some(epoch) = origin(note).and_then(|name| epoch::of(&ledger, &name)) else {
                continue;
            };
            if epoch > own {
                return Err(VerifyFailure::at(
                    file,
                    offset,
                    Finding::OldEpoch { own, cosigned: epoch },
                ));
            }
            let cosigned = Note::parse(note).and_then(|note| cosigner.cosigned(&note));
            let time = cosigned.map_err(|source| VerifyFailure::at(file, offset, Finding::NotCosigned { source }))?;
            match open(note, key, file, offset) {
                Ok(checkpoint) => {
                    let by = (Some(time), By::Cosigner);
                    self.push(key, &checkpoint, by, (file.to_owned(), offset));
                }
                // The key of that epoch was lost with what was in it.
                Err(_other_key) if epoch < own => self.lost = self.lost.saturating_add(1),
                Err(failure) => return Err(failure),
            }
        }
        if self.said.is_empty() && self.lost == 0 {
            return Err(VerifyFailure::at(file, 0, Finding::NoneCosigned));
        }
        Ok(())
    }

    fn push(
        &mut self,
        key: &VerifierKey,
        head: &Checkpoint,
        (time, by): (Option<Timestamp>, By),
        (file, offset): (PathBuf, u64),
    ) {
        self.said.push(Said {
            size: head.size,
            root: head.root,
            current: head.origin == *key.name(),
            time,
            by,
            file,
            offset,
            holds: None,
        });
    }

    /// Holds those of this size against the tree.
    pub(super) fn check(&mut self, size: u64, root: impl Fn() -> Hash) {
        let from = self.said.partition_point(|said| said.size < size);
        let here = self.said.iter_mut().skip(from).take_while(|said| said.size == size);
        here.for_each(|said| said.holds = Some(said.root == root()));
    }

    /// Says what is not as it was cosigned. `end` is where the records end.
    pub(super) fn failure(&self, end: impl Fn(Finding) -> VerifyFailure) -> Option<VerifyFailure> {
        let mut current = self.said.iter().filter(|said| said.current);
        current.find_map(|said| match said.holds {
            Some(true) => None,
            Some(false) => {
                let failure = VerifyFailure::at(&said.file, said.offset, Finding::NotAsCosigned);
                Some(failure.with_index(said.size))
            }
            None => Some(end(Finding::CutOff { cosigned: said.size })),
        })
    }

    /// How many records enough witnesses have cosigned.
    pub(super) const fn witnessed(&self) -> Option<u64> {
        self.witnessed
    }

    /// What each witness has cosigned.
    pub(super) fn witnesses(&self) -> Vec<WitnessedBy> {
        self.witnesses.clone()
    }

    /// The newest of the epoch that the ledger is in, of the CA.
    pub(super) fn newest(&self) -> Option<CosignedHead> {
        let is_newest = |said: &&Said| said.current && said.by == By::Cosigner;
        let newest = self.said.iter().rfind(is_newest)?;
        Some(CosignedHead {
            size: newest.size,
            time: newest.time,
        })
    }

    /// How many of earlier epochs cover what is not in the ledger any more: it was set back then, and said so.
    pub(super) fn set_back(&self) -> u64 {
        let earlier = self
            .said
            .iter()
            .filter(|said| !said.current && said.holds != Some(true));
        self.lost.saturating_add(earlier.count() as u64)
    }
}

fn origin(note: &[u8]) -> Option<KeyName> {
    let first = note.split(|byte| *byte == b'\n').next()?;
    KeyName::parse(std::str::from_utf8(first).ok()?).ok()
}

fn open(note: &[u8], key: &VerifierKey, file: &Path, offset: u64) -> Result<Checkpoint, VerifyFailure> {
    let opened = Checkpoint::open_in_epochs(note, key);
    opened.map_err(|source| VerifyFailure::at(file, offset, Finding::Checkpoint { source }))
}
