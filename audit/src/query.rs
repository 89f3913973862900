//! Asking a ledger: a filter of `key=value` terms over its records, calls
//! joined with their ends.

mod filter;
mod join;
mod pattern;
mod view;

use std::path::Path;

use serde_json::Value;

pub use filter::{Filter, FilterError, KEYS, parse};
pub use pattern::{NotAPattern, Pattern};

use crate::tail::{ReadError, Start, Tail, tail};
use join::Join;

/// The records that match, in order, read as a stream.
#[derive(Debug)]
pub struct Query {
    tail: Tail,
    join: Join,
    left: u64,
}

/// Asks the ledger in `dir`. At most `limit` records are returned. A call that
/// has ended holds `status`, `grpc_status`, `request_bytes`, `response_bytes`,
/// `duration_us`, `upstream_us`, `tries`, `outcome` and `ended` as well.
///
/// # Errors
///
/// When the folder or a segment cannot be read.
pub fn run(dir: &Path, filter: Filter, limit: Option<u64>) -> Result<Query, ReadError> {
    let tail = tail(dir, Start::First)?;
    Ok(Query {
        tail,
        join: Join::new(filter),
        left: limit.unwrap_or(u64::MAX),
    })
}

impl Iterator for Query {
    type Item = Result<Value, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some(record) = self.join.ready() {
                return Some(Ok(record));
            }
            match self.tail.next() {
                Some(Ok(entry)) => self.join.add(&entry.line),
                Some(Err(error)) => return Some(Err(error)),
                None => return self.join.rest().map(Ok),
            }
        }
    }
}
