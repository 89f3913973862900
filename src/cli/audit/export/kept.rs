//! The file that says how far an export got.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use audit::Cursor;
use audit::cursor::CURSOR_BYTES_MAX;

use crate::config::read_bounded;
use crate::exit::Failure;
use crate::output::{Screen, printable};

/// The file and what is in it.
#[derive(Debug)]
pub(super) struct Kept {
    file: PathBuf,
    cursor: Option<Cursor>,
    /// Held as long as this lives: of two that keep their place in one file, one would set the other back.
    _lock: File,
}

impl Kept {
    /// Reads the file; none is a beginning.
    pub(super) fn open(file: &Path, filter: &str, screen: &Screen) -> Result<Self> {
        let mut kept = Self {
            file: file.to_owned(),
            cursor: None,
            _lock: locked(file)?,
        };
        if !file
            .try_exists()
            .with_context(|| format!("look for {}", file.display()))?
        {
            return Ok(kept);
        }
        let text = read_bounded(file, CURSOR_BYTES_MAX as u64)?;
        let cursor = Cursor::parse(text.as_bytes()).map_err(|error| {
            let message = format!("{} is no cursor: {:#}", file.display(), anyhow::Error::new(error));
            Failure::invalid_file(message)
                .hint("remove it to export all from the beginning: what arrives twice has the same id")
        })?;
        if cursor.filter != filter {
            screen.warn(format!(
                "the cursor was written under the filter {:?}: what that left out up to record {} stays left out",
                printable(&cursor.filter),
                cursor.record
            ));
        }
        kept.cursor = Some(cursor);
        Ok(kept)
    }

    pub(super) const fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Replaces the file as a whole: after a crash it holds the old place or the new one.
    pub(super) fn keep(&mut self, cursor: Cursor) -> Result<()> {
        let file = &self.file;
        let failed = || format!("write {}", file.display());
        let draft = beside(file, ".new");
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let mut written = opened.with_context(failed)?;
        written.write_all(cursor.to_string().as_bytes()).with_context(failed)?;
        written.sync_data().with_context(failed)?;
        fs::rename(&draft, file).with_context(failed)?;
        File::open(folder(file))
            .and_then(|folder| folder.sync_all())
            .with_context(failed)?;
        self.cursor = Some(cursor);
        Ok(())
    }
}

/// Takes the lock beside the file.
fn locked(file: &Path) -> Result<File> {
    let path = beside(file, ".lock");
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::invalid_file(format!("cannot keep a cursor in {}: {error}", folder(file).display()))
    };
    let mut options = OpenOptions::new();
    let lock = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    let lock = lock.map_err(|error| unusable(&error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another export keeps its place in {}", file.display());
            Err(Failure::usage(message).hint("one file is one export's").into())
        }
        Err(TryLockError::Error(error)) => Err(unusable(&error).into()),
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    name.into()
}

fn folder(file: &Path) -> &Path {
    file.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use audit::hash::Hash;
    use audit::key::KeyName;

    use super::*;
    use crate::args::Cli;
    use crate::exit::{Exit, code_of};
    use clap::Parser as _;

    fn screen() -> Screen {
        Screen::new(&Cli::try_parse_from(["botmesh", "status"]).unwrap().global)
    }

    fn cursor(record: u64) -> Cursor {
        Cursor {
            ledger: KeyName::parse("acme.internal/host/web-1").unwrap(),
            epoch: 1,
            record,
            hash: Hash::leaf(b"x"),
            whole_from: 0,
            filter: String::new(),
        }
    }

    #[test]
    fn a_place_is_kept_as_a_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cursor");
        let mut kept = Kept::open(&file, "", &screen()).unwrap();
        assert_eq!(kept.cursor(), None);
        for record in [3, 17] {
            kept.keep(cursor(record)).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), cursor(record).to_string());
        }
        let second = Kept::open(&file, "", &screen()).unwrap_err();
        assert_eq!(code_of(&second), Exit::Usage, "{second}");
        drop(kept);
        assert_eq!(Kept::open(&file, "", &screen()).unwrap().cursor(), Some(&cursor(17)));
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|one| one.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["cursor", "cursor.lock"]);
    }

    #[test]
    fn what_is_no_cursor_is_invalid_input_and_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cursor");
        for text in ["", "{}", "17", &cursor(17).to_string().replace("17", "018")] {
            fs::write(&file, text).unwrap();
            let error = Kept::open(&file, "", &screen()).unwrap_err();
            assert_eq!(code_of(&error), Exit::InvalidFile, "{text}");
            assert!(error.to_string().contains("remove it"), "{error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        let nowhere = dir.path().join("none/cursor");
        assert_eq!(
            code_of(&Kept::open(&nowhere, "", &screen()).unwrap_err()),
            Exit::InvalidFile
        );
    }
}
