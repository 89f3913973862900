//! What is behind the ledger's lock: the open segment, the batch of ends, the
//! budget. No method waits for the disk to sync.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spiffe::time::{Clock, Timestamp};

use super::append::Append;
use super::turn::Written;
use super::{LedgerError, Stats, disk};
use crate::budget::{Budget, Class, Reserve};
use crate::hash::Hash;
use crate::record::{Line, SegmentRecord};
use crate::segment;

/// Bytes of ends that are collected before they are written at once.
const ENDS_BYTES: usize = 64 * 1024;

/// Bytes of ends that are kept while the disk takes none.
const ENDS_BYTES_MAX: usize = 1024 * 1024;

/// Records whose hashes wait for the keeper, at most: 32 MiB.
pub(super) const FRESH_MAX: usize = 1024 * 1024;

/// Age after which a new segment is begun: pruning takes whole segments.
const SEGMENT_AGE_MAX: Duration = Duration::from_hours(24);

/// The appending half of a ledger.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) segments: PathBuf,
    pub(super) clock: Clock,
    pub(super) segment: Option<Append<Arc<File>>>,
    /// Name of the open segment, for messages.
    pub(super) path: PathBuf,
    /// Bytes after which a segment is full.
    pub(super) segment_bytes_max: u64,
    /// When the open segment was begun, as far as that is known.
    pub(super) opened: Option<Timestamp>,
    /// The open segment is old: the next record begins another.
    pub(super) old: bool,
    pub(super) size: u64,
    pub(super) budget: Budget,
    pub(super) stats: Stats,
    ends: Batch,
    /// Calls that were handed over since the last write.
    staged: Batch,
    /// What those who handed them over look at.
    turn: Arc<Written>,
    scratch: Batch,
    pub(super) fresh: Vec<Hash>,
    pub(super) retired: Vec<Arc<File>>,
    begun: bool,
    /// Set by a failed sync, for good.
    pub(super) failed: Option<String>,
    pub(super) closed: bool,
    pub(super) stop: bool,
    /// The keeper waits without a time limit and wants to be woken.
    pub(super) idle: bool,
    /// Counts of refusals or strangers wait.
    pub(super) counting: bool,
    /// A checkpoint is waited for.
    pub(super) seal_wanted: bool,
    /// A new epoch is to begin after this one, and why.
    pub(super) epoch_wanted: Option<(u32, &'static str)>,
}

/// Lines that are written together.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    hashes: Vec<Hash>,
    cost: u64,
}

/// What the keeper takes over to sync.
#[derive(Debug)]
pub(super) struct Taken {
    /// Files with records that may not be on the disk, oldest first.
    pub(super) files: Vec<Arc<File>>,
    /// Hashes of the records since the last time.
    pub(super) hashes: Vec<Hash>,
    /// A segment was begun, so the folder's names are news too.
    pub(super) begun: bool,
}

impl Writer {
    /// Takes up a ledger of `size` records at its open segment.
    pub(super) fn new(segments: PathBuf, clock: Clock, size: u64, budget: Budget, segment_bytes_max: u64) -> Self {
        Self {
            path: segments.clone(),
            segments,
            clock,
            segment: None,
            segment_bytes_max,
            opened: None,
            old: false,
            size,
            budget,
            stats: Stats::default(),
            ends: Batch::default(),
            staged: Batch::default(),
            turn: Arc::default(),
            scratch: Batch::default(),
            fresh: Vec::new(),
            retired: Vec::new(),
            begun: false,
            failed: None,
            closed: false,
            stop: false,
            idle: false,
            counting: false,
            seal_wanted: false,
            epoch_wanted: None,
        }
    }

    /// Appends a record with all ends before it, and returns its index.
    pub(super) fn append(
        &mut self,
        line: &Line,
        hash: Hash,
        class: Class,
        reserve: Reserve,
    ) -> Result<u64, LedgerError> {
        self.usable()?;
        let cost = Budget::cost(line.json().len());
        self.budget
            .check(class, reserve, cost)
            .map_err(|source| LedgerError::Full { source })?;
        self.write(Some((line, hash)))?;
        self.budget.spend(class, cost);
        Ok(self.size.saturating_sub(1))
    }

    /// Puts a call into the turn, and returns its place there.
    pub(super) fn stage(&mut self, line: &Line, hash: Hash) -> Result<(Arc<Written>, u64), LedgerError> {
        self.usable()?;
        let cost = Budget::cost(line.json().len());
        let waiting = self.staged.cost.saturating_add(cost);
        self.budget
            .check(Class::Calls, Reserve::Keep, waiting)
            .map_err(|source| LedgerError::Full { source })?;
        let place = self.staged.hashes.len() as u64;
        self.staged.push(line, hash, cost);
        Ok((Arc::clone(&self.turn), place))
    }

    /// Puts an end into the batch. One that finds no room is counted as lost;
    /// its call stays unfinished.
    pub(super) fn end(&mut self, line: &Line, hash: Hash) {
        let cost = Budget::cost(line.json().len());
        let waiting = self.ends.cost.saturating_add(cost);
        let fits = self.budget.check(Class::Calls, Reserve::Spend, waiting).is_ok()
            && self.ends.bytes.len() < ENDS_BYTES_MAX
            && self.usable().is_ok();
        if !fits {
            self.stats.ends_lost = self.stats.ends_lost.saturating_add(1);
            return;
        }
        self.ends.push(line, hash, cost);
        self.stats.ends = self.stats.ends.saturating_add(1);
        if self.ends.bytes.len() >= ENDS_BYTES {
            // A failure leaves the batch as it is; the next write tries again
            // and has somebody to tell.
            self.flush().unwrap_or_default();
        }
    }

    /// Writes the batch of ends and the turn.
    pub(super) fn flush(&mut self) -> Result<(), LedgerError> {
        if self.ends.hashes.is_empty() && self.staged.hashes.is_empty() {
            return Ok(());
        }
        self.write(None)
    }

    /// Says whether the keeper has something to do.
    pub(super) fn has_news(&self) -> bool {
        self.counting
            || self.seal_wanted
            || self.epoch_wanted.is_some()
            || !self.fresh.is_empty()
            || !self.ends.hashes.is_empty()
            || !self.staged.hashes.is_empty()
    }

    /// Hands over what is to be synced.
    pub(super) fn take(&mut self) -> Taken {
        let hashes = std::mem::take(&mut self.fresh);
        let mut files = std::mem::take(&mut self.retired);
        if let (Some(segment), false) = (&self.segment, hashes.is_empty()) {
            files.push(Arc::clone(segment.storage()));
        }
        Taken {
            files,
            hashes,
            begun: std::mem::take(&mut self.begun),
        }
    }

    /// Has a segment that is old end with its last record. Its time is not looked at with each record: that is work for
    /// whoever waits anyway.
    pub(super) fn age(&mut self, now: Timestamp) {
        let opened = self
            .opened
            .filter(|opened| now.duration_since(*opened) >= SEGMENT_AGE_MAX);
        self.old |= opened.is_some();
    }

    /// Begins a segment of which there is nothing but its first record, so that the one before it can be pruned.
    pub(super) fn begin_segment(&mut self) -> Result<(), LedgerError> {
        self.usable()?;
        if self.closed {
            return Err(LedgerError::Closed);
        }
        self.old = true;
        self.write(None)
    }

    fn usable(&self) -> Result<(), LedgerError> {
        match &self.failed {
            Some(error) => Err(LedgerError::Sync { error: error.clone() }),
            None if self.fresh.len() >= FRESH_MAX => Err(LedgerError::Behind),
            None => Ok(()),
        }
    }

    /// Writes the segment's first record if it has none, the turn, the ends,
    /// and a line, all at once.
    fn write(&mut self, line: Option<(&Line, Hash)>) -> Result<(), LedgerError> {
        let mut batch = std::mem::take(&mut self.scratch);
        batch.clear();
        let written = self.write_with(&mut batch, line);
        self.scratch = batch;
        if self.staged.hashes.is_empty() {
            return written.map(drop);
        }
        // A turn that could not be written is not tried again: its calls are refused.
        self.staged.clear();
        let turn = std::mem::take(&mut self.turn);
        let written = written.map_err(Arc::new);
        turn.tell(written.as_ref().copied().map_err(Arc::clone));
        written.map(drop).map_err(|source| LedgerError::Turn { source })
    }

    /// Returns the index of the first record of the turn.
    fn write_with(&mut self, batch: &mut Batch, line: Option<(&Line, Hash)>) -> Result<u64, LedgerError> {
        if let Some(error) = &self.failed {
            return Err(LedgerError::Sync { error: error.clone() });
        }
        let header = self.header()?;
        let segment = ready(&mut self.segment, &mut self.path, &mut self.retired, &header)?;
        if header.file.is_some() {
            (self.begun, self.old) = (true, false);
        }
        let head_cost = match &header.line {
            Some(head) => batch.push(head, head.hash(), Budget::cost(head.json().len())),
            None => 0,
        };
        let first = self.size.saturating_add(batch.hashes.len() as u64);
        batch.extend(&self.staged);
        // After them, for a call of this turn may have ended already.
        batch.extend(&self.ends);
        if let Some((line, hash)) = line {
            batch.push(line, hash, 0);
        }
        segment.append(&batch.bytes).map_err(|source| LedgerError::Append {
            path: self.path.clone(),
            source,
        })?;
        self.opened = header.time.or(self.opened);
        let cost = self.ends.cost.saturating_add(self.staged.cost);
        self.budget.spend(Class::Calls, cost.saturating_add(head_cost));
        self.ends.clear();
        self.size = self.size.saturating_add(batch.hashes.len() as u64);
        self.fresh.append(&mut batch.hashes);
        Ok(first)
    }

    /// Decides whether the write opens a segment, and with which record.
    fn header(&self) -> Result<Header, LedgerError> {
        // One that is old but empty is gone on with.
        let full = |segment: &Append<_>| segment.len() >= self.segment_bytes_max || (self.old && segment.len() > 0);
        let fresh = self.segment.as_ref().is_none_or(full);
        if !fresh && self.segment.as_ref().is_some_and(|segment| segment.len() > 0) {
            return Ok(Header::default());
        }
        let [calls_bytes, refusals_bytes, strangers_bytes] = self.budget.spent();
        let record = SegmentRecord {
            time: self.clock.now(),
            first: self.size,
            calls_bytes,
            refusals_bytes,
            strangers_bytes,
        };
        let line = Line::segment(&record).map_err(|source| LedgerError::Record { source })?;
        let file = fresh.then(|| self.segments.join(segment::file_name(self.size)));
        Ok(Header {
            file,
            line: Some(line),
            time: Some(record.time),
        })
    }
}

/// The file and the record with which a segment begins, if one is to begin.
#[derive(Debug, Default)]
struct Header {
    file: Option<PathBuf>,
    line: Option<Line>,
    time: Option<Timestamp>,
}

/// Returns the segment to write to, after beginning it if need be.
fn ready<'a>(
    segment: &'a mut Option<Append<Arc<File>>>,
    path: &mut PathBuf,
    retired: &mut Vec<Arc<File>>,
    header: &Header,
) -> Result<&'a mut Append<Arc<File>>, LedgerError> {
    if let Some(new) = &header.file {
        let begin = |source| LedgerError::Begin {
            path: new.clone(),
            source,
        };
        let file = Append::new(Arc::new(disk::create_append(new).map_err(begin)?), 0);
        if let Some(old) = segment.replace(file) {
            retired.push(Arc::clone(old.storage()));
        }
        path.clone_from(new);
    }
    match segment {
        Some(segment) => Ok(segment),
        None => Err(LedgerError::Closed),
    }
}

impl Batch {
    /// Adds a line and returns its cost.
    fn push(&mut self, line: &Line, hash: Hash, cost: u64) -> u64 {
        self.bytes.extend_from_slice(line.with_newline());
        self.hashes.push(hash);
        self.cost = self.cost.saturating_add(cost);
        cost
    }

    fn extend(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.hashes.extend_from_slice(&other.hashes);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.hashes.clear();
        self.cost = 0;
    }
}
