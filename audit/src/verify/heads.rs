//! The signed heads of a ledger: the newest checkpoint and those before it.

use std::path::Path;

use super::{Finding, VerifyFailure};
use crate::checkpoint::Checkpoint;
use crate::history::History;
use crate::key::VerifierKey;
use crate::ledger::{CHECKPOINT, HISTORY, HISTORY_OLD, HISTORY_READ_MAX, VKEY, read_file};
use crate::note::NOTE_BYTES_MAX;

/// Longest `ledger.vkey`, in bytes.
const VKEY_BYTES_MAX: u64 = 1024;

/// All heads of a ledger, each signed by its key.
#[derive(Debug)]
pub(super) struct Heads {
    pub(super) key: VerifierKey,
    /// The head that covers most.
    pub(super) newest: Checkpoint,
    /// Every head in the order of its size, the newest last.
    pub(super) all: Vec<Head>,
}

/// One head, and where it is written.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) checkpoint: Checkpoint,
    pub(super) file: &'static str,
    pub(super) offset: u64,
}

impl Heads {
    /// Reads and checks key, checkpoint and history.
    pub(super) fn read(dir: &Path, key: Option<&str>) -> Result<Self, VerifyFailure> {
        let key = trusted_key(dir, key)?;
        let shown = read_file(&dir.join(CHECKPOINT), NOTE_BYTES_MAX as u64)
            .map_err(|source| VerifyFailure::unreadable(dir.join(CHECKPOINT), source))?
            .ok_or_else(|| VerifyFailure::at(dir.join(CHECKPOINT), 0, Finding::NoCheckpoint))?;
        let mut all = Vec::new();
        let old = read_history(dir, HISTORY_OLD)?;
        let current = read_history(dir, HISTORY)?;
        let (old, current) = (History::split(&old), History::split(&current));
        for (file, history) in [(HISTORY_OLD, &old), (HISTORY, &current)] {
            for (offset, note) in &history.notes {
                all.push(open(dir, file, *offset as u64, note, &key)?);
            }
        }
        let newest = open(dir, CHECKPOINT, differs_at(&shown, &old, &current), &shown, &key)?;
        check_history(dir, &shown, &old, &current)?;
        check_order(dir, &all)?;
        let newest = all.last().map_or(newest.checkpoint, |head| head.checkpoint.clone());
        Ok(Self { key, newest, all })
    }
}

fn trusted_key(dir: &Path, given: Option<&str>) -> Result<VerifierKey, VerifyFailure> {
    let path = dir.join(VKEY);
    let bytes = read_file(&path, VKEY_BYTES_MAX)
        .map_err(|source| VerifyFailure::unreadable(&path, source))?
        .unwrap_or_default();
    let own = std::str::from_utf8(&bytes).unwrap_or_default();
    let own = own.strip_suffix('\n').unwrap_or("");
    let parse =
        |text: &str| VerifierKey::parse(text).map_err(|source| VerifyFailure::at(&path, 0, Finding::Key { source }));
    match given.map(str::trim) {
        // A key that is trusted stays the ledger's in the epochs after its own.
        Some(given) => {
            let (given, own) = (parse(given)?, parse(own)?);
            if !own.is_same_in_an_epoch(&given) || own.in_epoch(given.name()).is_none() {
                return Err(VerifyFailure::at(&path, 0, Finding::OtherKey));
            }
            Ok(own)
        }
        None => parse(own),
    }
}

fn read_history(dir: &Path, file: &str) -> Result<Vec<u8>, VerifyFailure> {
    let path = dir.join(file);
    read_file(&path, HISTORY_READ_MAX)
        .map(Option::unwrap_or_default)
        .map_err(|source| VerifyFailure::unreadable(path, source))
}

fn open(dir: &Path, file: &'static str, offset: u64, note: &[u8], key: &VerifierKey) -> Result<Head, VerifyFailure> {
    match Checkpoint::open_in_epochs(note, key) {
        Ok(checkpoint) => Ok(Head {
            checkpoint,
            file,
            offset,
        }),
        Err(source) => Err(VerifyFailure::at(
            dir.join(file),
            offset,
            Finding::Checkpoint { source },
        )),
    }
}

/// The history must lead to the shown checkpoint: as its last entry, or as the
/// one before it when a crash came between the two writes. A torn end is
/// honest only behind the shown one.
fn check_history(dir: &Path, shown: &[u8], old: &History<'_>, current: &History<'_>) -> Result<(), VerifyFailure> {
    let mut last = current
        .notes
        .iter()
        .rev()
        .chain(old.notes.iter().rev())
        .map(|(_, note)| *note);
    let is_last = last.next() == Some(shown);
    let is_before = last.next() == Some(shown);
    let torn = |history: &History<'_>| history.torn.map(|at| at as u64);
    if let Some(at) = torn(old) {
        return Err(VerifyFailure::at(dir.join(HISTORY_OLD), at, Finding::History));
    }
    match torn(current) {
        Some(at) if !is_last => Err(VerifyFailure::at(dir.join(HISTORY), at, Finding::History)),
        None if !is_last && !is_before => Err(VerifyFailure::at(dir.join(HISTORY), 0, Finding::History)),
        _ => Ok(()),
    }
}

fn check_order(dir: &Path, all: &[Head]) -> Result<(), VerifyFailure> {
    for pair in all.windows(2) {
        if let [before, after] = pair
            && after.checkpoint.size < before.checkpoint.size
        {
            return Err(VerifyFailure::at(dir.join(after.file), after.offset, Finding::History));
        }
    }
    Ok(())
}

/// Where the shown checkpoint first differs from the history's last one, to
/// name the byte that was changed.
fn differs_at(shown: &[u8], old: &History<'_>, current: &History<'_>) -> u64 {
    let last = current.notes.last().or_else(|| old.notes.last());
    let same = last.map_or(0, |(_, note)| {
        note.iter().zip(shown).take_while(|(left, right)| left == right).count()
    });
    same as u64
}
