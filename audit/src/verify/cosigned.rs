//! Heads that a witness cosigned, and what they say of a ledger: that nothing of its past was cut off or exchanged since.

use std::path::{Path, PathBuf};

use spiffe::time::Timestamp;

use super::{Finding, VerifyFailure};
use crate::checkpoint::Checkpoint;
use crate::cosignature::Cosigner;
use crate::epoch;
use crate::hash::Hash;
use crate::head::COSIGNED;
use crate::history::History;
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

/// The newest head of the ledger that a witness cosigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CosignedHead {
    /// Records under it.
    pub size: u64,
    /// When it was cosigned; nothing where nobody looked at the cosignature.
    pub time: Option<Timestamp>,
}

/// What a cosigned head says.
#[derive(Debug)]
struct Said {
    size: u64,
    root: Hash,
    /// It is of the epoch that the ledger is in: what it covers must be there.
    current: bool,
    time: Option<Timestamp>,
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
}

impl CosignedHeads {
    /// Takes those of the ledger: from a witness where there are any, else the one that is kept beside it, as far as it goes.
    pub(super) fn read(dir: &Path, key: &VerifierKey, witnessed: Option<Witnessed<'_>>) -> Result<Self, VerifyFailure> {
        let mut heads = Self::default();
        if let Some(witnessed) = witnessed {
            heads.take(key, witnessed)?;
        } else {
            let path = dir.join(COSIGNED);
            let note =
                read_file(&path, NOTE_BYTES_MAX as u64).map_err(|source| VerifyFailure::unreadable(&path, source))?;
            if let Some(note) = note {
                let checkpoint = open(&note, key, &path, 0)?;
                heads.push(key, &checkpoint, None, (path, 0));
            }
        }
        heads.said.sort_by_key(|said| said.size);
        Ok(heads)
    }

    fn take(&mut self, key: &VerifierKey, witnessed: Witnessed<'_>) -> Result<(), VerifyFailure> {
        let (ledger, own) = epoch::split(key.name());
        let file = witnessed.file;
        for (offset, note) in History::split(witnessed.notes).notes {
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
            let cosigned = Note::parse(note).and_then(|note| witnessed.cosigner.cosigned(&note));
            let time = cosigned.map_err(|source| VerifyFailure::at(file, offset, Finding::NotCosigned { source }))?;
            match open(note, key, file, offset) {
                Ok(checkpoint) => self.push(key, &checkpoint, Some(time), (file.to_owned(), offset)),
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

    fn push(&mut self, key: &VerifierKey, head: &Checkpoint, time: Option<Timestamp>, (file, offset): (PathBuf, u64)) {
        self.said.push(Said {
            size: head.size,
            root: head.root,
            current: head.origin == *key.name(),
            time,
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

    /// The newest of the epoch that the ledger is in.
    pub(super) fn newest(&self) -> Option<CosignedHead> {
        let newest = self.said.iter().rfind(|said| said.current)?;
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
