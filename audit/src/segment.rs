//! Segments: files of JSON lines, each named by the index of its first record; of one that was pruned, what is kept.

mod held;
mod kept;
mod reader;

use std::fs;
use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use thiserror::Error;

use crate::hash::Hash;
use crate::record::RECORD_BYTES_MAX;

pub(crate) use held::Held;
pub(crate) use kept::{KeptHead, line_of};
pub(crate) use reader::{Read, Reader, kept_path};

/// Reads the bytes of what is kept of a segment that was pruned, and writes them
/// again; `None` if they are none. For those who look for bytes that do harm.
#[must_use]
pub fn kept_again(bytes: &[u8]) -> Option<Vec<u8>> {
    reader::again(bytes)
}

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
    /// What is left of it. A whole one sorts before what is kept of the same.
    pub form: Form,
    /// Its file.
    pub path: PathBuf,
}

/// What is left of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// All of it: lines of JSON.
    Whole,
    /// It was pruned: a head, then the lines that are kept, each behind its index.
    Kept,
}

impl Form {
    /// Reads its lines one at a time, whatever stands in them.
    pub(crate) fn lines<R: BufRead>(self, reader: R) -> Lines<R> {
        match self {
            Self::Whole => Lines::new(reader, 0),
            Self::Kept => Lines::with_most(reader, 0, kept::LINE_BYTES_MAX),
        }
    }

    /// Returns the record in one of its lines; the head of what is kept is none.
    pub(crate) fn record(self, line: &[u8]) -> &[u8] {
        let space = match self {
            Self::Whole => None,
            Self::Kept => line.iter().position(|byte| !byte.is_ascii_digit()),
        };
        let rest = space.and_then(|space| line.get(space..));
        rest.and_then(|rest| rest.strip_prefix(b" ")).unwrap_or(line)
    }
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

/// Returns the name of what is kept of a segment that was pruned.
#[must_use]
pub(crate) fn kept_name(first: u64) -> String {
    format!("{first:020}.kept")
}

/// Reads a name that [`file_name`] or [`kept_name`] wrote.
#[must_use]
pub(crate) fn parse_file_name(name: &str) -> Option<(u64, Form)> {
    let (first, ending) = name.split_once('.')?;
    let first = first.parse().ok()?;
    let (form, written) = match ending {
        "jsonl" => (Form::Whole, file_name(first)),
        _ => (Form::Kept, kept_name(first)),
    };
    (written == name).then_some((first, form))
}

/// Lists the segments of a ledger, oldest first; none if there is no folder. One that is there whole is not pruned yet,
/// whatever else is there of it.
pub(crate) fn list(ledger: &Path) -> Result<Vec<Segment>, SegmentsError> {
    let mut segments = list_all(ledger)?;
    segments.dedup_by_key(|segment| segment.first);
    Ok(segments)
}

/// Lists all files of segments: of one whose pruning was interrupted there are two, the whole one first.
pub(crate) fn list_all(ledger: &Path) -> Result<Vec<Segment>, SegmentsError> {
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
        let Some((first, form)) = name.and_then(parse_file_name) else {
            return Err(SegmentsError::Stray { path });
        };
        segments.push(Segment { first, form, path });
        if segments.len() > SEGMENTS_MAX {
            return Err(SegmentsError::TooMany { path: folder });
        }
    }
    segments.sort();
    Ok(segments)
}

/// SHA-256 of all that is read.
pub(crate) fn hash_of(mut reader: impl io::Read) -> io::Result<Hash> {
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = reader.read(&mut bytes)?;
        if read == 0 {
            break;
        }
        digest.update(bytes.get(..read).unwrap_or_default());
    }
    let mut hash = [0; Hash::BYTES];
    for (to, from) in hash.iter_mut().zip(digest.finish().as_ref()) {
        *to = *from;
    }
    Ok(Hash::from_bytes(hash))
}

/// Reads lines one at a time, never more than a record's length into memory.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    offset: u64,
    /// Longest line, in bytes.
    most: usize,
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
        Self::with_most(reader, offset, RECORD_BYTES_MAX)
    }

    /// Does so for lines that hold more than a record.
    pub(crate) const fn with_most(reader: R, offset: u64, most: usize) -> Self {
        Self { reader, offset, most }
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
        let most = (self.most as u64).saturating_add(1);
        let read = self.reader.by_ref().take(most).read_until(b'\n', line)?;
        if line.pop_if(|last| *last == b'\n').is_some() {
            self.offset = self.offset.saturating_add(read as u64);
            return Ok(Step::Whole);
        }
        Ok(match line.len() {
            0 => Step::End,
            bytes if bytes > self.most => Step::TooLong,
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
        assert_eq!(parse_file_name(&file_name(u64::MAX)), Some((u64::MAX, Form::Whole)));
        assert_eq!(kept_name(17), "00000000000000000017.kept");
        assert_eq!(parse_file_name(&kept_name(17)), Some((17, Form::Kept)));
        for name in [
            "17.jsonl",
            "17.kept",
            "00000000000000000017",
            "00000000000000000017.kept.tmp",
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
        // Pruning of it was interrupted: it is whole as long as it is there.
        fs::write(folder.join(kept_name(7)), "").unwrap();
        fs::write(folder.join(kept_name(3)), "").unwrap();
        let forms = |found: Vec<Segment>| found.iter().map(|s| (s.first, s.form)).collect::<Vec<_>>();
        let whole = [(0, Form::Whole), (3, Form::Kept), (7, Form::Whole)];
        assert_eq!(forms(list(ledger.path()).unwrap()), whole);
        assert_eq!(forms(list_all(ledger.path()).unwrap())[3], (7, Form::Kept));
        fs::write(folder.join("notes.txt"), "").unwrap();
        assert!(matches!(list(ledger.path()), Err(SegmentsError::Stray { .. })));
    }
}
