//! Reading a ledger in order, and going on when there is more.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::segment::{self, Lines, Segment, SegmentsError, Step};

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
}

/// Reads whole records in order. As an iterator it ends at the last record
/// that is there, and may be asked again later: then it goes on with what was
/// written meanwhile. The caller does the waiting.
#[derive(Debug)]
pub struct Tail {
    dir: PathBuf,
    open: Option<Open>,
    next: u64,
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

#[derive(Debug)]
struct Open {
    segment: Segment,
    lines: Lines<BufReader<File>>,
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

    /// Returns the index of the record that is read next.
    #[must_use]
    pub const fn next_index(&self) -> u64 {
        self.next
    }

    /// Says, where there is no next record, whether there is none yet.
    ///
    /// # Errors
    ///
    /// When the segments cannot be listed.
    pub fn standing(&mut self) -> Result<Standing, ReadError> {
        let segments = self.list()?;
        let named = self.open.as_mut().map(Open::named).transpose()?;
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
        self.open = Some(Open::new(last)?);
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
        self.open = segment.map(Open::new).transpose()?;
        while self.next < wanted && self.read()?.is_some() {}
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            if let Some(open) = &mut self.open
                && let Some(line) = open.read(self.next)?
            {
                let index = self.next;
                self.next = self.next.saturating_add(1);
                return Ok(Some(Entry { index, line }));
            }
            // A segment is finished when the next begins with our next record.
            let mut segments = self.list()?.into_iter();
            let follows = |segment: &Segment| {
                segment.first == self.next && self.open.as_ref().is_none_or(|open| open.segment != *segment)
            };
            let Some(segment) = segments.find(follows) else {
                return Ok(None);
            };
            self.open = Some(Open::new(segment)?);
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

impl Open {
    fn new(segment: Segment) -> Result<Self, ReadError> {
        match File::open(&segment.path) {
            Ok(file) => Ok(Self {
                segment,
                lines: Lines::new(BufReader::new(file), 0),
            }),
            Err(source) => Err(ReadError::Segment {
                path: segment.path,
                source,
            }),
        }
    }

    /// Says what has the name of the segment that is read.
    fn named(&mut self) -> Result<Named, ReadError> {
        let offset = self.lines.offset();
        let open = self.lines.reader().get_ref().metadata();
        let named = self.segment.path.metadata();
        match (open, named) {
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(Named::Nobody),
            (Ok(open), Ok(named)) => {
                let is_one = (named.dev(), named.ino()) == (open.dev(), open.ino()) && named.len() >= offset;
                Ok(if is_one { Named::It } else { Named::Another })
            }
            (Err(source), _) | (_, Err(source)) => Err(ReadError::Segment {
                path: self.segment.path.clone(),
                source,
            }),
        }
    }

    /// Reads a whole line, or leaves the reader where the next one begins.
    fn read(&mut self, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let failed = |path: &Path, source| ReadError::Segment {
            path: path.to_owned(),
            source,
        };
        let mut line = Vec::new();
        let offset = self.lines.offset();
        match self
            .lines
            .read(&mut line)
            .map_err(|source| failed(&self.segment.path, source))?
        {
            Step::Whole => Ok(Some(line)),
            Step::End => Ok(None),
            Step::Torn => {
                let back = self.lines.reader().seek(SeekFrom::Start(offset));
                back.map_err(|source| failed(&self.segment.path, source))?;
                Ok(None)
            }
            Step::TooLong => Err(ReadError::TooLong {
                index,
                path: self.segment.path.clone(),
                offset,
            }),
        }
    }
}
