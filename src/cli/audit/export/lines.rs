//! Lines that are added to a file, or printed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::exit::Failure;
use crate::output::Screen;

/// The longest line that is looked for at the end of a file.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Where lines go.
#[derive(Debug)]
pub(super) enum Lines {
    Stdout,
    File(PathBuf),
}

impl Lines {
    /// Writes whole lines. To a file they are on the disk when this returns.
    pub(super) fn write(&self, lines: &[u8], screen: &Screen) -> Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)
                    .and_then(|()| out.flush())
                    .context("write to stdout")
            }
            Self::File(path) => append(path, lines, screen),
        }
    }
}

/// Adds lines to a file. It is opened each time, so that whoever takes it away, as `logrotate` does, gets a whole one.
fn append(path: &Path, lines: &[u8], screen: &Screen) -> Result<()> {
    let failed = || format!("write {}", path.display());
    let mut file = open(path)?;
    let torn = torn(&mut file).with_context(failed)?;
    if torn > LINE_BYTES_MAX {
        return Err(Failure::invalid_file(format!("{} does not end with a line", path.display())).into());
    }
    if torn > 0 {
        // Of a line that was being written when a run was ended: its record is exported again.
        let length = file.metadata().with_context(failed)?.len();
        file.set_len(length.saturating_sub(torn)).with_context(failed)?;
        screen.warn(format!("cut {torn} bytes of an unfinished line off {}", path.display()));
    }
    file.write_all(lines).with_context(failed)?;
    file.sync_data().with_context(failed)
}

/// Opens the file for adding to it.
pub(super) fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).append(true).create(true).mode(0o640).open(path);
    let opened = opened.map_err(|error| Failure::invalid_file(format!("cannot write {}: {error}", path.display())))?;
    if opened.metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(opened);
    }
    Err(Failure::usage(format!(
        "{} is no file: only a file says what it has taken",
        path.display()
    ))
    .into())
}

/// Counts the bytes after the last newline, up to one more than a line has.
fn torn(file: &mut File) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
    }
    if last == *b"\n" {
        return Ok(0);
    }
    let from = length.saturating_sub(LINE_BYTES_MAX + 1);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(LINE_BYTES_MAX + 1).read_to_end(&mut end)?;
    let after = end.iter().rev().take_while(|byte| **byte != b'\n').count();
    Ok(after as u64)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;
    use crate::exit::{Exit, code_of};

    fn add(path: &Path, lines: &str) -> Result<()> {
        let screen = Screen::new(&Cli::try_parse_from(["botmesh", "status"]).unwrap().global);
        append(path, lines.as_bytes(), &screen)
    }

    #[test]
    fn lines_are_added_and_half_of_one_is_cut_off_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        add(&path, "{}\n[]\n").unwrap();
        add(&path, "1\n").unwrap();
        std::fs::write(&path, "{}\n[]\n1\n{\"half").unwrap();
        add(&path, "2\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n[]\n1\n2\n");
        std::fs::write(&path, "half").unwrap();
        add(&path, "3\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3\n");
        // Somebody took it away.
        std::fs::remove_file(&path).unwrap();
        add(&path, "4\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4\n");
    }

    #[test]
    fn what_is_no_file_of_lines_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let image = vec![b'x'; 1024 * 1024 + 1];
        std::fs::write(&path, &image).unwrap();
        assert_eq!(code_of(&add(&path, "1\n").unwrap_err()), Exit::InvalidFile);
        assert_eq!(std::fs::read(&path).unwrap(), image);
        assert_eq!(code_of(&add(dir.path(), "1\n").unwrap_err()), Exit::InvalidFile);
        assert_eq!(code_of(&add(Path::new("/dev/null"), "1\n").unwrap_err()), Exit::Usage);
    }
}
