//! Answers of a bounded size in a bounded time: for somebody who asks over a network.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{CountError, Counts, Filter, Indexes, Key, run_until};

/// Ends a question that is being answered: set, no further segment is looked through.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Ends it when what is returned is dropped.
    #[must_use]
    pub fn on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }

    /// Says whether it is to end.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ends a question when whoever asked is gone.
#[derive(Debug)]
pub struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// How much an answer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Records, or groups.
    pub rows: usize,
    /// Bytes of their JSON.
    pub bytes: usize,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Records, oldest first, or groups, largest first: one JSON object each.
    pub rows: Vec<String>,
    /// There are more than these.
    pub more: bool,
}

/// Asks the ledger in `dir` for the records that match, or with keys for their groups.
///
/// # Errors
///
/// When the ledger cannot be read, there are too many groups, or `stop` was set before there was a whole answer.
pub fn answer(
    dir: &Path,
    filter: &Filter,
    keys: &[Key],
    bounds: Bounds,
    indexes: Indexes,
    stop: &Stop,
) -> Result<Answer, CountError> {
    let mut answer = Answer::default();
    let mut left = bounds;
    if keys.is_empty() {
        let read = |source| CountError::Read { source };
        for record in run_until(dir, filter.clone(), None, indexes, stop).map_err(read)? {
            if !answer.add(&mut left, record.map_err(read)?.to_string()) {
                break;
            }
        }
    } else {
        let mut counts = Counts::by(keys);
        counts.add_until(dir, filter, indexes, stop)?;
        for group in counts.groups() {
            if !answer.add(&mut left, group.document(keys).to_string()) {
                break;
            }
        }
    }
    if stop.is_set() {
        return Err(CountError::Stopped);
    }
    Ok(answer)
}

impl Answer {
    /// Says whether there was room for the row.
    fn add(&mut self, left: &mut Bounds, row: String) -> bool {
        let room = left.rows.checked_sub(1).zip(left.bytes.checked_sub(row.len()));
        let Some((rows, bytes)) = room else {
            self.more = true;
            return false;
        };
        *left = Bounds { rows, bytes };
        self.rows.push(row);
        true
    }
}
