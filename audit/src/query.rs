//! Asking a ledger: a filter of `key=value` terms over its records, calls
//! joined with their ends.

mod ahead;
mod bounded;
mod count;
mod filter;
mod index;
mod join;
mod key;
mod pairs;
mod pattern;
mod picks;
mod select;
mod view;

use std::path::Path;

use serde_json::Value;

pub use bounded::{Answer, Bounds, Stop, StopOnDrop, answer};
pub use count::{CountError, Counts, GROUP_KEYS_MAX, Group};
pub use filter::{Filter, FilterError, KEYS, parse, time};
pub use key::Key;
pub use pattern::{NotAPattern, Pattern};

use crate::tail::{ReadError, Start, Tail, tail};
use ahead::Ahead;
use index::{Ids, number_of};
use join::Join;
use picks::Picks;

/// What is done with the indexes of closed segments (`index/` below the ledger's folder).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexes {
    /// Each is made anew from its segment, and what lies there is not believed.
    Ignore,
    /// Those that are there are used, others are made and forgotten.
    Read,
    /// Those that are missing, damaged or of other bytes are stored as well.
    Write,
}

/// The records that match, in order, read as a stream.
#[derive(Debug)]
pub struct Query {
    source: Source,
    join: Join,
    left: u64,
}

/// Where lines come from.
#[derive(Debug)]
enum Source {
    All(Box<Tail>),
    Picks(Box<Picks>),
}

/// Asks the ledger in `dir`, as it was at this moment, by some threads. At most
/// `limit` records are returned. A call that has ended holds `status`,
/// `grpc_status`, `request_bytes`, `response_bytes`, `duration_us`,
/// `upstream_us`, `tries`, `outcome` and `ended` as well.
///
/// # Errors
///
/// When the folder or a segment cannot be read.
pub fn run(dir: &Path, filter: Filter, limit: Option<u64>, indexes: Indexes) -> Result<Query, ReadError> {
    run_until(dir, filter, limit, indexes, &Stop::default())
}

/// The same until `stop` is set; then what was found is not all.
fn run_until(
    dir: &Path,
    filter: Filter,
    limit: Option<u64>,
    indexes: Indexes,
    stop: &Stop,
) -> Result<Query, ReadError> {
    let ahead = Ahead::begin(dir, filter.clone(), indexes, stop)?;
    Ok(Query::new(Source::Picks(Box::new(Picks::new(ahead))), filter, limit))
}

/// Reads the bytes of an index, whatever segment it is of, and writes them
/// again; `None` if they are none. For those who look for bytes that do harm.
#[must_use]
pub fn index_again(bytes: &[u8]) -> Option<Vec<u8>> {
    index::again(bytes)
}

/// Asks the same by reading every line one after the other: what [`run`] has to
/// come to as well.
///
/// # Errors
///
/// When the folder or a segment cannot be read.
pub fn scan(dir: &Path, filter: Filter, limit: Option<u64>) -> Result<Query, ReadError> {
    let tail = tail(dir, Start::First)?;
    Ok(Query::new(Source::All(Box::new(tail)), filter, limit))
}

impl Query {
    fn new(source: Source, filter: Filter, limit: Option<u64>) -> Self {
        Self {
            source,
            join: Join::new(filter),
            left: limit.unwrap_or(u64::MAX),
        }
    }

    /// Adds a line to the join; says whether there was one.
    fn read(&mut self) -> Result<bool, ReadError> {
        match &mut self.source {
            Source::All(tail) => {
                let Some(entry) = tail.next().transpose()? else {
                    return Ok(false);
                };
                self.join.add(&entry.line);
            }
            Source::Picks(picks) => {
                let open = || -> Ids { self.join.open().map(|id| number_of(id)).collect() };
                let Some(line) = picks.next(open)? else {
                    return Ok(false);
                };
                self.join.add(line);
            }
        }
        Ok(true)
    }
}

impl Iterator for Query {
    type Item = Result<Value, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some(record) = self.join.ready() {
                return Some(Ok(record));
            }
            match self.read() {
                Ok(true) => {}
                Ok(false) => return self.join.rest().map(Ok),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
