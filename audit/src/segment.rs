//! Segments: files of JSON lines, each named by the index of its first record.

use std::fs;
use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::record::RECORD_BYTES_MAX;

/// Folder of the segments, below the ledger's.
pub(crate) const SEGMENTS: &str = "segments";

/// Bytes after which a new segment is begun.
pub const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most segments that are listed: 64 TiB of them.
const SEGMENTS_MAX: usize = 1024 * 1024;

/// One segment on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    /// Index of its first record.
    pub first: u64,
    /// Its file.
    pub path: PathBuf,
}

/// Why the segments of a folder cannot be listed.
#[derive(Debug, Error)]
pub enum SegmentsError {
    /// The folder cannot be read.
    #[error("cannot list the segments in {path}")]
    List {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is a file that is no segment.
    #[error("{path} is no segment")]
    Stray {
        /// The file.
        path: PathBuf,
    },
    /// There are more than a million segments.
    #[error("{path} holds more than a million segments")]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
}

/// Returns the name of the segment that begins with a record.
#[must_use]
pub(crate) fn file_name(first: u64) -> String {
    format!("{first:020}.jsonl")
}

/// Reads a name that [`file_name`] wrote.
#[must_use]
pub(crate) fn parse_file_name(name: &str) -> Option<u64> {
    let first = name.strip_suffix(".jsonl")?.parse().ok()?;
    (file_name(first) == name).then_some(first)
}

/// Lists the segments of a ledger, oldest first; none if there is no folder.
pub(crate) fn list(ledger: &Path) -> Result<Vec<Segment>, SegmentsError> {
    let folder = ledger.join(SEGMENTS);
    let list = |source| SegmentsError::List {
        path: folder.clone(),
        source,
    };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(list(source)),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry.map_err(list)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(first) = name.and_then(parse_file_name) else {
            return Err(SegmentsError::Stray { path });
        };
        segments.push(Segment { first, path });
        if segments.len() > SEGMENTS_MAX {
            return Err(SegmentsError::TooMany { path: folder });
        }
    }
    segments.sort();
    Ok(segments)
}

/// Reads lines one at a time, never more than a record's length into memory.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    offset: u64,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A line with its newline; the buffer holds it without.
    Whole,
    /// Bytes after the last newline; the buffer holds them.
    Torn,
    /// A line longer than a record may be; the buffer holds its beginning.
    TooLong,
    /// Nothing is left.
    End,
}

impl<R: BufRead> Lines<R> {
    /// Starts where `reader` is, which is `offset` of its file.
    pub(crate) const fn new(reader: R, offset: u64) -> Self {
        Self { reader, offset }
    }

    /// Returns where the next line begins.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Lends the reader, to be set back to the last offset.
    pub(crate) const fn reader(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Returns the reader, where it is.
    pub(crate) fn into_reader(self) -> R {
        self.reader
    }

    /// Reads a line into `line`. The offset moves on by whole lines only.
    pub(crate) fn read(&mut self, line: &mut Vec<u8>) -> io::Result<Step> {
        line.clear();
        let most = RECORD_BYTES_MAX as u64 + 1;
        let read = self.reader.by_ref().take(most).read_until(b'\n', line)?;
        if line.pop_if(|last| *last == b'\n').is_some() {
            self.offset = self.offset.saturating_add(read as u64);
            return Ok(Step::Whole);
        }
        Ok(match line.len() {
            0 => Step::End,
            bytes if bytes > RECORD_BYTES_MAX => Step::TooLong,
            _ => Step::Torn,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(bytes: &[u8]) -> Vec<(Step, usize, u64)> {
        let mut lines = Lines::new(bytes, 0);
        let mut line = Vec::new();
        let mut steps = Vec::new();
        loop {
            let step = lines.read(&mut line).unwrap();
            steps.push((step, line.len(), lines.offset()));
            if step != Step::Whole {
                return steps;
            }
        }
    }

    #[test]
    fn lines_are_told_from_torn_and_long_ones() {
        assert_eq!(steps(b""), [(Step::End, 0, 0)]);
        assert_eq!(
            steps(b"ab\n\n"),
            [(Step::Whole, 2, 3), (Step::Whole, 0, 4), (Step::End, 0, 4)]
        );
        assert_eq!(steps(b"ab\nc"), [(Step::Whole, 2, 3), (Step::Torn, 1, 3)]);
        let longest = [vec![b'x'; RECORD_BYTES_MAX], vec![b'\n']].concat();
        assert_eq!(
            steps(&longest)[0],
            (Step::Whole, RECORD_BYTES_MAX, longest.len() as u64)
        );
        let too_long = [vec![b'x'; RECORD_BYTES_MAX + 1], vec![b'\n']].concat();
        assert_eq!(steps(&too_long), [(Step::TooLong, RECORD_BYTES_MAX + 1, 0)]);
        assert_eq!(steps(&longest[..RECORD_BYTES_MAX]), [(Step::Torn, RECORD_BYTES_MAX, 0)]);
    }

    #[test]
    fn names_sort_as_their_numbers_do() {
        assert_eq!(file_name(17), "00000000000000000017.jsonl");
        assert!(file_name(9) < file_name(10));
        assert_eq!(parse_file_name(&file_name(u64::MAX)), Some(u64::MAX));
        for name in [
            "17.jsonl",
            "00000000000000000017.json",
            "+0000000000000000017.jsonl",
            "",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_stray_file_is_no_segment() {
        let ledger = tempfile::tempdir().unwrap();
        assert_eq!(list(ledger.path()).unwrap(), []);
        let folder = ledger.path().join(SEGMENTS);
        fs::create_dir(&folder).unwrap();
        for first in [7, 0] {
            fs::write(folder.join(file_name(first)), "").unwrap();
        }
        let found: Vec<u64> = list(ledger.path()).unwrap().iter().map(|s| s.first).collect();
        assert_eq!(found, [0, 7]);
        fs::write(folder.join("notes.txt"), "").unwrap();
        assert!(matches!(list(ledger.path()), Err(SegmentsError::Stray { .. })));
    }
}
