//! The newest checkpoint and the history of those before it, on disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::append::Append;
use super::{OpenError, disk};
use crate::checkpoint::Checkpoint;
use crate::history::{self, HISTORY_BYTES_MAX, History};
use crate::key::VerifierKey;
use crate::note::NOTE_BYTES_MAX;

/// File of the newest checkpoint.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// File of the history.
pub(crate) const HISTORY: &str = "checkpoints";
/// File of the history before that.
pub(crate) const HISTORY_OLD: &str = "checkpoints.old";

/// Longest history file that is read: one entry may cross the limit.
pub(crate) const HISTORY_READ_MAX: u64 = HISTORY_BYTES_MAX + NOTE_BYTES_MAX as u64 + 1;

/// The files of checkpoints, ready to be written.
#[derive(Debug)]
pub(super) struct Checkpoints {
    dir: PathBuf,
    history: Append<Arc<File>>,
}

impl Checkpoints {
    /// Opens the files, finishes what a crash interrupted, and returns the
    /// newest checkpoint; `None` in a ledger without any.
    pub(super) fn open(dir: &Path, key: &VerifierKey) -> Result<(Self, Option<Checkpoint>), OpenError> {
        let path = dir.join(HISTORY);
        let file = |doing| {
            let path = path.clone();
            move |source| OpenError::File { doing, path, source }
        };
        let bytes = disk::read(&path, HISTORY_READ_MAX)
            .map_err(file("read"))?
            .unwrap_or_default();
        let history = History::split(&bytes);
        let newest = newest(dir, key, &history)?;
        let good = history.torn.unwrap_or(bytes.len()) as u64;
        let open = disk::open_append(&path).map_err(file("open"))?;
        if history.torn.is_some() {
            open.set_len(good).map_err(file("cut"))?;
        }
        let checkpoints = Self {
            dir: dir.to_owned(),
            history: Append::new(Arc::new(open), good),
        };
        match newest {
            Some(Newest::Shown(checkpoint)) => Ok((checkpoints, Some(checkpoint))),
            Some(Newest::Ahead(checkpoint, note)) => {
                checkpoints.show(&note).map_err(file("finish writing"))?;
                Ok((checkpoints, Some(checkpoint)))
            }
            None => Ok((checkpoints, None)),
        }
    }

    /// Writes a checkpoint: first into the history, then as the newest, so
    /// that the history holds every checkpoint that was ever shown.
    pub(super) fn write(&mut self, note: &str) -> io::Result<()> {
        let path = self.dir.join(HISTORY);
        if self.history.len() >= HISTORY_BYTES_MAX {
            fs::rename(&path, self.dir.join(HISTORY_OLD))?;
            self.history = Append::new(Arc::new(disk::open_append(&path)?), 0);
        }
        self.history.append(history::entry(note).as_bytes())?;
        self.history.storage().sync_data()?;
        self.show(note.as_bytes())
    }

    fn show(&self, note: &[u8]) -> io::Result<()> {
        let newest = self.dir.join(CHECKPOINT);
        disk::replace(&self.dir.join("checkpoint.tmp"), &newest, note, disk::FILE_MODE)?;
        disk::sync_folder(&self.dir)
    }
}

/// The newest checkpoint, and whether the file `checkpoint` shows it.
enum Newest {
    Shown(Checkpoint),
    /// A crash came before the file was written; this is its note.
    Ahead(Checkpoint, Vec<u8>),
}

/// Finds the newest checkpoint: the last of the history, which may be one
/// ahead of the file `checkpoint`.
fn newest(dir: &Path, key: &VerifierKey, history: &History<'_>) -> Result<Option<Newest>, OpenError> {
    let path = dir.join(CHECKPOINT);
    let shown = disk::read(&path, NOTE_BYTES_MAX as u64).map_err(|source| OpenError::File {
        doing: "read",
        path: path.clone(),
        source,
    })?;
    let open = |path: PathBuf, note: &[u8]| {
        Checkpoint::open(note, key).map_err(|source| OpenError::Checkpoint { path, source })
    };
    let lost = || OpenError::CheckpointLost { dir: dir.to_owned() };
    let mut last = history.notes.iter().rev().map(|(_, note)| *note).take(2);
    match (shown, last.next()) {
        (None, None) => Ok(None),
        // Killed between the first entry of the history and the file.
        (None, Some(note)) if history.notes.len() == 1 => {
            let first = open(dir.join(HISTORY), note)?;
            if first.size == 0 {
                Ok(Some(Newest::Ahead(first, note.to_owned())))
            } else {
                Err(lost())
            }
        }
        (None, Some(_)) => Err(lost()),
        // Killed between the renaming of the history and its first entry.
        (Some(shown), None) => match fs::exists(dir.join(HISTORY_OLD)) {
            Ok(true) => open(path, &shown).map(Newest::Shown).map(Some),
            Ok(false) | Err(_) => Err(lost()),
        },
        (Some(shown), Some(note)) => {
            let checkpoint = open(path, &shown)?;
            if note == shown {
                return Ok(Some(Newest::Shown(checkpoint)));
            }
            let newest = open(dir.join(HISTORY), note)?;
            let one_behind = last.next().is_none_or(|before| before == shown);
            if one_behind && newest.size >= checkpoint.size {
                Ok(Some(Newest::Ahead(newest, note.to_owned())))
            } else {
                Err(lost())
            }
        }
    }
}
