//! The segments of a ledger, looked through by some threads ahead of who asks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::Indexes;
use super::bounded::Stop;
use super::filter::Filter;
use super::index::{self, Binding, BuildError, Index};
use super::select::{Pick, select};
use crate::segment::{self, Held, Segment};
use crate::tail::ReadError;

/// Threads that look ahead, at most. Each holds at most two segments' indexes.
const THREADS_MAX: usize = 4;

/// What of one segment can matter to a query.
#[derive(Debug)]
pub(super) struct Selected {
    pub(super) held: Held,
    /// None where no record of it is of the times that are asked for.
    pub(super) index: Option<Index>,
    pub(super) picks: Vec<Pick>,
}

/// The segments in their order. Dropped, it waits for its threads, which end with the segment that they are at.
#[derive(Debug)]
pub(super) struct Ahead {
    ledger: PathBuf,
    /// One for each thread, which takes turns with the others.
    turns: Vec<Receiver<Result<Selected, ReadError>>>,
    next: usize,
    segments: usize,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

/// What all threads work by.
#[derive(Debug)]
struct Work {
    ledger: PathBuf,
    segments: Vec<Segment>,
    filter: Filter,
    indexes: Indexes,
    stop: Stop,
}

impl Ahead {
    pub(super) fn begin(ledger: &Path, filter: Filter, indexes: Indexes, stop: &Stop) -> Result<Self, ReadError> {
        let segments = segment::list(ledger).map_err(|source| ReadError::List { source })?;
        if indexes == Indexes::Write {
            // What cannot be removed is not read either.
            index::sweep(ledger, &segments).unwrap_or_default();
        }
        let count = thread::available_parallelism().map_or(1, usize::from);
        let count = count.min(THREADS_MAX).min(segments.len());
        let work = Arc::new(Work {
            ledger: ledger.to_owned(),
            segments,
            filter,
            indexes,
            stop: stop.clone(),
        });
        let mut ahead = Self {
            ledger: ledger.to_owned(),
            turns: Vec::new(),
            next: 0,
            segments: work.segments.len(),
            stop: stop.clone(),
            threads: Vec::new(),
        };
        for number in 0..count {
            let (found, turn) = sync_channel(1);
            let work = Arc::clone(&work);
            ahead.turns.push(turn);
            ahead
                .threads
                .push(thread::spawn(move || work.run(number, count, &found)));
        }
        Ok(ahead)
    }

    /// Returns the index of a segment of which no record matches.
    pub(super) fn index(&self, held: &Held) -> Result<Index, ReadError> {
        index::of_closed(&self.ledger, held, Indexes::Read).map_err(|error| failed(held.segment(), error))
    }
}

impl Iterator for Ahead {
    type Item = Result<Selected, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.segments {
            return None;
        }
        let turn = self.next.checked_rem(self.turns.len())?;
        self.next = self.next.saturating_add(1);
        match self.turns.get(turn)?.recv() {
            Ok(selected) => Some(selected),
            Err(_ended) if self.stop.is_set() => None,
            // Less than all must not look like all.
            Err(_ended) => Some(Err(ReadError::Segment {
                path: self.ledger.clone(),
                source: io::Error::other("a thread that read segments ended"),
            })),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.turns.clear();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            thread.join().unwrap_or_default();
        }
    }
}

impl Work {
    /// Looks through every `count`th segment from the `number`th on, until nobody asks any more.
    fn run(&self, number: usize, count: usize, found: &SyncSender<Result<Selected, ReadError>>) {
        let last = self.segments.len().saturating_sub(1);
        for (place, segment) in self.segments.iter().enumerate().skip(number).step_by(count) {
            if self.stop.is_set() {
                return;
            }
            let selected = self.select(segment, place < last);
            let goes_on = selected.is_ok();
            if found.send(selected).is_err() || !goes_on {
                return;
            }
        }
    }

    fn select(&self, segment: &Segment, is_closed: bool) -> Result<Selected, ReadError> {
        // Held until all that is asked of it is read, whatever is pruned meanwhile.
        let held = Held::open(segment).map_err(|error| unreadable(segment, error))?;
        let segment = held.segment();
        if is_closed && self.is_of_other_times(&held) {
            return Ok(Selected {
                held,
                index: None,
                picks: Vec::new(),
            });
        }
        let index = if is_closed {
            index::of_closed(&self.ledger, &held, self.indexes)
        } else {
            index::build(&held)
        };
        let index = index.map_err(|error| failed(segment, error))?;
        let picks = select(&self.filter, &held, &index).map_err(|error| unreadable(segment, error))?;
        Ok(Selected {
            held,
            index: Some(index),
            picks,
        })
    }

    fn is_of_other_times(&self, held: &Held) -> bool {
        // Only an index knows: the time of a record is of before it was written, and a host's time can be set back.
        if self.indexes == Indexes::Ignore || !self.filter.has_times() {
            return false;
        }
        let binding = Binding::of(held).ok();
        let stored = binding.and_then(|binding| index::stored(&self.ledger, held.segment(), &binding));
        stored.is_some_and(|stored| self.filter.excludes(stored.span.0, stored.span.1))
    }
}

fn failed(segment: &Segment, error: BuildError) -> ReadError {
    match error {
        BuildError::Read { source } => unreadable(segment, source),
        BuildError::TooLong { lines, offset } => ReadError::TooLong {
            index: segment.first.saturating_add(lines),
            path: segment.path.clone(),
            offset,
        },
    }
}

/// A segment that cannot be read, or whose index says what is not there.
pub(super) fn unreadable(segment: &Segment, source: io::Error) -> ReadError {
    ReadError::Segment {
        path: segment.path.clone(),
        source,
    }
}
