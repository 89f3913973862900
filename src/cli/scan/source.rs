//! Streams that readers of archives need: one to look ahead in, a part of one, and one whose bytes are counted.

use std::cell::Cell;
use std::io::{self, BufRead, ErrorKind, Read};

use super::look::{Bounds, Fault};

/// How much is kept to look ahead in. A block of tar is 512 bytes, a header of zip 30.
pub(crate) const AHEAD_BYTES: usize = 64 * 1024;

/// A stream in which one can look ahead.
pub(crate) struct Source<'a> {
    from: &'a mut dyn Read,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    passed: u64,
    /// What came before an error is given first.
    failed: Option<io::Error>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(from: &'a mut dyn Read) -> Self {
        Self {
            from,
            buffer: vec![0; AHEAD_BYTES].into_boxed_slice(),
            at: 0,
            end: 0,
            passed: 0,
            failed: None,
        }
    }

    /// How many bytes were taken.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// The bytes that come next: at least so many, or all that there are.
    pub(crate) fn peek(&mut self, least: usize) -> io::Result<&[u8]> {
        while self.end - self.at < least && self.failed.is_none() {
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.from.read(room) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.failed = Some(error),
            }
        }
        if self.at == self.end
            && let Some(error) = self.failed.take()
        {
            return Err(error);
        }
        Ok(self.buffer.get(self.at..self.end).unwrap_or_default())
    }

    /// Takes exactly so many bytes, which must be few.
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let taken = self.peek(N)?.first_chunk().copied().ok_or(Fault::Cut)?;
        self.consume(N);
        Ok(taken)
    }

    /// Passes over so many bytes.
    pub(crate) fn skip(&mut self, bytes: u64) -> Result<(), Fault> {
        let mut left = bytes;
        while left > 0 {
            let ready = self.fill_buf()?.len();
            if ready == 0 {
                return Err(Fault::Cut);
            }
            let passed = ready.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.consume(passed);
            left -= passed as u64;
        }
        Ok(())
    }
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // A large read goes past the buffer.
        if self.at == self.end && self.failed.is_none() && into.len() >= AHEAD_BYTES {
            let read = self.from.read(into)?;
            self.passed += read as u64;
            return Ok(read);
        }
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.peek(1)
    }

    fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.end);
        self.passed += bytes as u64;
    }
}

/// So many bytes of a stream, which must have them.
pub(crate) struct Part<'s, 'a> {
    from: &'s mut Source<'a>,
    left: u64,
}

impl<'s, 'a> Part<'s, 'a> {
    pub(crate) fn new(from: &'s mut Source<'a>, bytes: u64) -> Self {
        Self { from, left: bytes }
    }

    /// Passes over what was not read.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        self.from.skip(self.left)
    }
}

impl Read for Part<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(into) = into.get_mut(..most).filter(|into| !into.is_empty()) else {
            return Ok(0);
        };
        let read = self.from.read(into)?;
        if read == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, Fault::Cut));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// What was read of a file, and how much came out of all that is compressed in it.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) bounds: Bounds,
    read: Cell<u64>,
    unpacked: Cell<u64>,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            read: Cell::new(0),
            unpacked: Cell::new(0),
        }
    }

    fn unpack(&self, bytes: usize) -> io::Result<()> {
        let unpacked = self.unpacked.get().saturating_add(bytes as u64);
        self.unpacked.set(unpacked);
        let by_ratio = self.read.get().saturating_mul(self.bounds.unpacked_ratio);
        if unpacked > self.bounds.unpacked_bytes.max(by_ratio) {
            return Err(io::Error::other(Fault::Unpacked));
        }
        Ok(())
    }
}

/// What comes out of something compressed.
pub(crate) struct Unpacked<'b, R> {
    pub(crate) from: R,
    pub(crate) budget: &'b Budget,
}

impl<R: Read> Read for Unpacked<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.budget.unpack(read)?;
        Ok(read)
    }
}

/// The file itself. What goes wrong here is no fault of what is in it.
pub(crate) struct Outermost<'b, R> {
    pub(crate) from: R,
    pub(crate) budget: &'b Budget,
    pub(crate) failed: Option<io::Error>,
}

impl<R: Read> Read for Outermost<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.from.read(into) {
            Ok(read) => {
                self.budget.read.set(self.budget.read.get().saturating_add(read as u64));
                Ok(read)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let again = io::Error::new(error.kind(), error.to_string());
                self.failed = Some(error);
                Err(again)
            }
        }
    }
}
