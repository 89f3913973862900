//! One way to read the records of a segment, whatever is left of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek as _, SeekFrom};
use std::path::Path;

use super::kept::{self, KeptHead};
use super::{Form, Held, Lines, SEGMENTS, Segment, Step, hash_of, kept_name};
use crate::hash::Hash;

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A record; the buffer holds its line without the newline.
    Record {
        /// Its index.
        index: u64,
        /// Where its line begins.
        offset: u64,
    },
    /// Bytes after the last newline.
    Torn,
    /// A line longer than a record may be.
    TooLong,
    /// A line that cannot stand in what is kept of a segment.
    NotKept,
    /// Nothing is left.
    End,
}

/// A segment that is read.
#[derive(Debug)]
pub(crate) struct Reader<R = BufReader<File>> {
    segment: Segment,
    lines: Lines<R>,
    head: Option<KeptHead>,
    /// Index of the record that is next, or may be.
    next: u64,
    /// What stands where the head should.
    headless: bool,
}

impl Reader {
    /// Opens a segment. One that was pruned since it was listed is read as what is kept of it.
    pub(crate) fn open(segment: &Segment) -> io::Result<Self> {
        let held = Held::open(segment)?;
        Self::over(held.segment().clone(), BufReader::new(held.file()?))
    }

    /// What the system says of the file that is read.
    pub(crate) fn metadata(&mut self) -> io::Result<std::fs::Metadata> {
        self.lines.reader().get_ref().metadata()
    }

    /// SHA-256 of the whole file. Nothing can be read after it.
    pub(crate) fn hash(&mut self) -> io::Result<Hash> {
        let reader = self.lines.reader();
        reader.rewind()?;
        hash_of(reader)
    }

    /// Goes back to the beginning of the line that was torn.
    pub(crate) fn back(&mut self) -> io::Result<()> {
        let offset = self.lines.offset();
        self.lines.reader().seek(SeekFrom::Start(offset)).map(drop)
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads a segment from its first byte.
    pub(super) fn over(segment: Segment, reader: R) -> io::Result<Self> {
        let (lines, next) = (segment.form.lines(reader), segment.first);
        let mut opened = Self {
            segment,
            lines,
            head: None,
            next,
            headless: false,
        };
        opened.read_head()?;
        Ok(opened)
    }

    fn read_head(&mut self) -> io::Result<()> {
        if self.segment.form == Form::Whole {
            return Ok(());
        }
        let mut line = Vec::new();
        let step = self.lines.read(&mut line)?;
        let head = (step == Step::Whole).then(|| KeptHead::parse(&line)).flatten();
        self.head = head.filter(|head| head.first == self.segment.first);
        self.headless = self.head.is_none();
        Ok(())
    }

    /// Which segment it is, as it was found.
    pub(crate) const fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The head of one that was pruned.
    pub(crate) const fn head(&self) -> Option<&KeptHead> {
        self.head.as_ref()
    }

    /// Where the next line begins.
    pub(crate) const fn offset(&self) -> u64 {
        self.lines.offset()
    }

    /// Index behind the last record that was read; at the end of one that was pruned, behind all that it had.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Reads a record into `line`.
    pub(crate) fn read(&mut self, line: &mut Vec<u8>) -> io::Result<Read> {
        if self.headless {
            return Ok(Read::NotKept);
        }
        let offset = self.lines.offset();
        let step = self.lines.read(line)?;
        let index = match (step, &self.head) {
            (Step::Torn, _) => return Ok(Read::Torn),
            (Step::TooLong, _) => return Ok(Read::TooLong),
            (Step::End, None) => return Ok(Read::End),
            (Step::End, Some(head)) => {
                self.next = head.end;
                return Ok(Read::End);
            }
            (Step::Whole, None) => self.next,
            (Step::Whole, Some(head)) => {
                let index = kept::take_index(line).filter(|index| (self.next..head.end).contains(index));
                let Some(index) = index else { return Ok(Read::NotKept) };
                index
            }
        };
        self.next = index.saturating_add(1);
        Ok(Read::Record { index, offset })
    }
}

/// Says where what is kept of a segment lies.
pub(crate) fn kept_path(ledger: &Path, first: u64) -> std::path::PathBuf {
    ledger.join(SEGMENTS).join(kept_name(first))
}

/// Reads the bytes of what is kept of a segment, and writes them again; none if they are no such thing.
pub(super) fn again(bytes: &[u8]) -> Option<Vec<u8>> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let first = KeptHead::parse(line)?.first;
    let segment = Segment {
        first,
        form: Form::Kept,
        path: std::path::PathBuf::new(),
    };
    let mut reader = Reader::over(segment, bytes).ok()?;
    let mut again = serde_json::to_vec(reader.head()?).ok()?;
    again.push(b'\n');
    let mut line = Vec::new();
    loop {
        match reader.read(&mut line).ok()? {
            Read::Record { index, .. } => again.extend(kept::line_of(index, &line)),
            Read::End => return Some(again),
            Read::Torn | Read::TooLong | Read::NotKept => return None,
        }
    }
}
