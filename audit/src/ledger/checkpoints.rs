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
    /// The history's last entry while the file `checkpoint` does not show it.
    unshown: Option<Vec<u8>>,
    history_bytes_max: u64,
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
            unshown: None,
            history_bytes_max: HISTORY_BYTES_MAX,
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
    /// that the history holds every checkpoint that was ever shown. After an
    /// error the same step is finished first, so that the history is never
    /// more than one entry ahead.
    pub(super) fn write(&mut self, note: &str) -> io::Result<()> {
        if let Some(unshown) = self.unshown.clone() {
            self.finish(&unshown)?;
            if unshown == note.as_bytes() {
                return Ok(());
            }
        }
        if self.history.len() >= self.history_bytes_max {
            self.begin_anew()?;
        }
        self.history.append(history::entry(note).as_bytes())?;
        self.unshown = Some(note.as_bytes().to_vec());
        self.finish(note.as_bytes())
    }

    fn finish(&mut self, note: &[u8]) -> io::Result<()> {
        self.history.storage().sync_data()?;
        self.show(note)?;
        self.unshown = None;
        Ok(())
    }

    fn begin_anew(&mut self) -> io::Result<()> {
        let path = self.dir.join(HISTORY);
        match fs::rename(&path, self.dir.join(HISTORY_OLD)) {
            // It was moved before, and then the new one could not be made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        self.history = Append::new(Arc::new(disk::open_append(&path)?), 0);
        Ok(())
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
        Checkpoint::open_in_epochs(note, key).map_err(|source| OpenError::Checkpoint { path, source })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;
    use crate::key::{KeyName, SignerKey};

    struct Ledger {
        folder: tempfile::TempDir,
        key: SignerKey,
    }

    impl Ledger {
        fn new() -> Self {
            let key = SignerKey::generate(KeyName::parse("test").unwrap()).unwrap();
            Self {
                folder: tempfile::tempdir().unwrap(),
                key,
            }
        }

        fn open(&self) -> (Checkpoints, Option<u64>) {
            let (checkpoints, newest) = Checkpoints::open(self.folder.path(), &self.key.verifier()).unwrap();
            (checkpoints, newest.map(|checkpoint| checkpoint.size))
        }

        fn note(&self, size: u64) -> String {
            let origin = KeyName::parse("test").unwrap();
            Checkpoint {
                origin,
                size,
                root: Hash::leaf(b""),
            }
            .sign(&self.key)
            .unwrap()
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.folder.path().join(name)).unwrap()
        }
    }

    #[test]
    fn a_history_that_is_full_is_moved_aside_and_one_before_it_dropped() {
        let ledger = Ledger::new();
        let (mut checkpoints, _) = ledger.open();
        let entry = ledger.note(10).len() as u64 + 1;
        checkpoints.history_bytes_max = 3 * entry;
        for size in 10..18 {
            checkpoints.write(&ledger.note(size)).unwrap();
        }
        let sizes = |name: &str| {
            let text = ledger.read(name);
            let notes = History::split(text.as_bytes()).notes;
            let lines: Vec<String> = notes
                .iter()
                .map(|(_, note)| String::from_utf8_lossy(note).into_owned())
                .collect();
            lines
                .iter()
                .map(|note| note.lines().nth(1).unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(HISTORY_OLD), ["13", "14", "15"]);
        assert_eq!(sizes(HISTORY), ["16", "17"]);
        assert_eq!(ledger.read(CHECKPOINT), ledger.note(17));
        assert_eq!(ledger.open().1, Some(17));
    }

    #[test]
    fn a_checkpoint_that_cannot_be_shown_is_shown_before_the_next_and_entered_once() {
        let ledger = Ledger::new();
        let (mut checkpoints, newest) = ledger.open();
        assert_eq!(newest, None);
        checkpoints.write(&ledger.note(0)).unwrap();
        // A folder stands where the new file would be drafted.
        let draft = ledger.folder.path().join("checkpoint.tmp");
        fs::create_dir(&draft).unwrap();
        for _ in 0..3 {
            checkpoints.write(&ledger.note(5)).unwrap_err();
            checkpoints.write(&ledger.note(6)).unwrap_err();
        }
        assert_eq!(ledger.read(CHECKPOINT), ledger.note(0));
        fs::remove_dir(&draft).unwrap();
        checkpoints.write(&ledger.note(6)).unwrap();
        assert_eq!(ledger.read(CHECKPOINT), ledger.note(6));
        let entries = [0, 5, 6].map(|size| history::entry(&ledger.note(size))).concat();
        assert_eq!(ledger.read(HISTORY), entries);
        fs::create_dir(&draft).unwrap();
        checkpoints.write(&ledger.note(7)).unwrap_err();
        fs::remove_dir(&draft).unwrap();
        checkpoints.write(&ledger.note(7)).unwrap();
        assert_eq!(ledger.read(HISTORY), entries + &history::entry(&ledger.note(7)));
        assert_eq!(ledger.open().1, Some(7));
    }

    #[test]
    fn a_history_that_was_moved_and_not_begun_is_begun() {
        let ledger = Ledger::new();
        let (mut checkpoints, _) = ledger.open();
        checkpoints.write(&ledger.note(0)).unwrap();
        checkpoints.history_bytes_max = 1;
        fs::rename(
            ledger.folder.path().join(HISTORY),
            ledger.folder.path().join(HISTORY_OLD),
        )
        .unwrap();
        checkpoints.write(&ledger.note(5)).unwrap();
        assert_eq!(ledger.read(HISTORY), history::entry(&ledger.note(5)));
        assert_eq!(ledger.read(HISTORY_OLD), history::entry(&ledger.note(0)));
    }
}
