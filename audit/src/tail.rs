//! Reading a ledger in order, and going on when there is more. What was pruned is passed over.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::segment::{self, Form, Read, Reader, Segment, SegmentsError};

/// Where to begin reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record.
    First,
    /// At a record; at the end if there is no such record yet.
    Index(u64),
    /// So that this many records that are there now are read; `Last(0)` reads
    /// only what comes.
    Last(u64),
}

/// A record as it lies in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index.
    pub index: u64,
    /// The bytes of its line, without the newline.
    pub line: Vec<u8>,
}

/// Why a ledger cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A segment cannot be read.
    #[error("cannot read the segment {path}")]
    Segment {
        /// The segment.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The segments cannot be listed.
    #[error("cannot read the ledger")]
    List {
        /// What is wrong.
        #[source]
        source: SegmentsError,
    },
    /// There is a line that is longer than a record may be.
    #[error("record {index} ({path}, byte {offset}) is longer than a record may be")]
    TooLong {
        /// The record.
        index: u64,
        /// Its segment.
        path: PathBuf,
        /// Where it begins.
        offset: u64,
    },
    /// What is kept of a segment that was pruned is not what was kept.
    #[error("{path}, byte {offset}, is not what is kept of a segment: `botmesh audit verify` says more")]
    NotKept {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
}

/// Reads whole records in order. As an iterator it ends at the last record
/// that is there, and may be asked again later: then it goes on with what was
/// written meanwhile. The caller does the waiting.
#[derive(Debug)]
pub struct Tail {
    dir: PathBuf,
    open: Option<Reader>,
    next: u64,
    /// The first record that is wanted, read already.
    found: Option<Entry>,
}

/// How a ledger that has no next record stands to what was read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What comes next will be read.
    Whole,
    /// The segment that was read last is not there any more, or is shorter than what was read.
    Replaced,
    /// The next record is not there, and later ones are.
    Gone {
        /// The first of them.
        first: u64,
    },
}

/// What has the name of a segment that was opened by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// The same file, with all that was read of it.
    It,
    /// Another file, or less of it than was read.
    Another,
    /// Nothing.
    Nobody,
}

/// Begins to read the ledger in `dir`.
///
/// # Errors
///
/// When the folder or a segment cannot be read.
pub fn tail(dir: &Path, start: Start) -> Result<Tail, ReadError> {
    let mut tail = Tail {
        dir: dir.to_owned(),
        open: None,
        next: 0,
        found: None,
    };
    let wanted = match start {
        Start::First => 0,
        Start::Index(index) => index,
        Start::Last(count) => tail.count_records()?.saturating_sub(count),
    };
    tail.go_to(wanted)?;
    Ok(tail)
}

impl Tail {
    /// Reads all records that are there, shows each to `visit`, and returns
    /// how many there were.
    ///
    /// # Errors
    ///
    /// When a segment cannot be read.
    pub fn poll(&mut self, mut visit: impl FnMut(Entry)) -> Result<u64, ReadError> {
        let mut count: u64 = 0;
        while let Some(entry) = self.read()? {
            visit(entry);
            count = count.saturating_add(1);
        }
        Ok(count)
    }

    /// Returns the index of the record that is read next, as far as it was not pruned.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.found.as_ref().map_or(self.next, |found| found.index)
    }

    /// Says, where there is no next record, whether there is none yet.
    ///
    /// # Errors
    ///
    /// When the segments cannot be listed.
    pub fn standing(&mut self) -> Result<Standing, ReadError> {
        let segments = self.list()?;
        let named = self.open.as_mut().map(named).transpose()?;
        if named == Some(Named::Another) {
            return Ok(Standing::Replaced);
        }
        if segments.iter().any(|segment| segment.first == self.next) {
            return Ok(Standing::Whole);
        }
        let later = segments.iter().find(|segment| segment.first > self.next);
        Ok(match (later, named) {
            (Some(later), _) => Standing::Gone { first: later.first },
            (None, Some(Named::Nobody)) => Standing::Replaced,
            (None, _) => Standing::Whole,
        })
    }

    /// Counts the whole records that are there: the name of the last segment
    /// says how many are before it.
    fn count_records(&mut self) -> Result<u64, ReadError> {
        let Some(last) = self.list()?.pop() else { return Ok(0) };
        self.next = last.first;
        self.open = Some(opened(&last)?);
        self.poll(drop)?;
        Ok(self.next)
    }

    fn go_to(&mut self, wanted: u64) -> Result<(), ReadError> {
        let segments = self.list()?;
        let holding = segments
            .partition_point(|segment| segment.first <= wanted)
            .saturating_sub(1);
        let segment = segments.into_iter().nth(holding);
        self.next = segment.as_ref().map_or(0, |segment| segment.first);
        self.open = segment.as_ref().map(opened).transpose()?;
        while self.next < wanted && self.found.is_none() {
            let Some(entry) = self.read()? else { break };
            // What was wanted may be pruned: then it begins with what is behind it.
            self.found = Some(entry).filter(|entry| entry.index >= wanted);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Entry>, ReadError> {
        if let Some(found) = self.found.take() {
            return Ok(Some(found));
        }
        loop {
            if let Some(open) = &mut self.open {
                let entry = read_one(open)?;
                self.next = open.next();
                if entry.is_some() {
                    return Ok(entry);
                }
            }
            // A segment is finished when the next begins with our next record.
            let mut segments = self.list()?.into_iter();
            let follows = |segment: &Segment| {
                segment.first == self.next
                    && self
                        .open
                        .as_ref()
                        .is_none_or(|open| open.segment().first != segment.first)
            };
            let Some(segment) = segments.find(follows) else {
                return Ok(None);
            };
            self.open = Some(opened(&segment)?);
        }
    }

    fn list(&self) -> Result<Vec<Segment>, ReadError> {
        segment::list(&self.dir).map_err(|source| ReadError::List { source })
    }
}

impl Iterator for Tail {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

fn opened(segment: &Segment) -> Result<Reader, ReadError> {
    Reader::open(segment).map_err(|source| ReadError::Segment {
        path: segment.path.clone(),
        source,
    })
}

/// Says what has the name of the segment that is read.
fn named(open: &mut Reader) -> Result<Named, ReadError> {
    let (offset, kept) = (open.offset(), open.segment().form == Form::Kept);
    let named = open.segment().path.metadata();
    match (open.metadata(), named) {
        (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(Named::Nobody),
        (Ok(open), Ok(named)) => {
            // Of what is kept of a segment more may be pruned.
            let is_one = (named.dev(), named.ino()) == (open.dev(), open.ino()) && named.len() >= offset;
            Ok(if is_one || kept { Named::It } else { Named::Another })
        }
        (Err(source), _) | (_, Err(source)) => Err(ReadError::Segment {
            path: open.segment().path.clone(),
            source,
        }),
    }
}

/// Reads a whole line, or leaves the reader where the next one begins.
fn read_one(open: &mut Reader) -> Result<Option<Entry>, ReadError> {
    let failed = |open: &Reader, source| ReadError::Segment {
        path: open.segment().path.clone(),
        source,
    };
    let mut line = Vec::new();
    match open.read(&mut line) {
        Ok(Read::Record { index, .. }) => Ok(Some(Entry { index, line })),
        Ok(Read::End) => Ok(None),
        Ok(Read::Torn) => open.back().map(|()| None).map_err(|source| failed(open, source)),
        Ok(Read::TooLong) => Err(ReadError::TooLong {
            index: open.next(),
            path: open.segment().path.clone(),
            offset: open.offset(),
        }),
        Ok(Read::NotKept) => Err(ReadError::NotKept {
            path: open.segment().path.clone(),
            offset: open.offset(),
        }),
        Err(source) => Err(failed(open, source)),
    }
}
