//! Holding the two ends of calls against each other: the caller's proxy and the callee's each record a call, and who leaves
//! one out, or writes another, is found by the other's ledger.
//!
//! It proves nothing about what two ledgers of one owner both leave out.

mod pairs;

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::path::Path;

use spiffe::time::Timestamp;

use crate::record::{CallId, Record};
use crate::tail::{ReadError, Start, Tail, tail};
use pairs::Pairs;

/// Findings that are listed one by one; the others are counted.
pub const FINDINGS_MAX: usize = 10_000;

/// What two ends of calls do not agree on, and how many do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Calls between bots that a caller's proxy let go.
    pub outgoing: u64,
    /// Calls that came by the mesh side of a callee's proxy, or over the same host.
    pub incoming: u64,
    /// Calls whose both ends are here.
    pub paired: u64,
    /// What is wrong, in the order of the calls.
    pub findings: Vec<Finding>,
    /// Findings that are not listed.
    pub more: u64,
    /// Paired calls whose paths were not compared, because a ledger has a hash of it that nobody else can make.
    pub hashed: u64,
    /// Calls with one end here of which nothing is said, by why.
    pub open: BTreeMap<Open, u64>,
}

/// Why nothing is said of a call that has one end here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Open {
    /// No ledger of the other end is here.
    NotGiven,
    /// Its caller's proxy says that it never got there, or it was broken off.
    NotReached,
    /// It has no end, or lies at the edge of what the other ledger covers.
    Edge,
    /// The callee's proxy counted refusals of this caller at that time, in place of a record each.
    Counted,
    /// It comes from a peer that is no botmesh.
    Foreign,
    /// There are too many with one end to look at each.
    TooMany,
}

/// One call that is not as both ends should have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub what: Disagreement,
    /// The id of the call, as the caller has it.
    pub call: CallId,
    /// When.
    pub time: Timestamp,
    /// The SPIFFE ID of the caller.
    pub from: String,
    /// The SPIFFE ID of the callee.
    pub to: String,
    /// The records that are there: the number of the ledger, and their index in it.
    pub records: Vec<(usize, u64)>,
}

/// What is wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// The caller's ledger says that the callee answered, and the callee's has no such call.
    NotAtCallee,
    /// The callee's ledger has a call that its caller's has not.
    NotAtCaller,
    /// The callee's ledger has the call more often than its caller's proxy made it.
    Repeated {
        /// How often.
        times: usize,
        /// How often it was made.
        tries: u32,
    },
    /// The ends record it differently.
    Differs {
        /// In what.
        key: &'static str,
        /// As the caller's has it.
        caller: String,
        /// As the callee's has it.
        callee: String,
    },
}

impl Open {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotGiven => "not_given",
            Self::NotReached => "not_reached",
            Self::Edge => "edge",
            Self::Counted => "counted",
            Self::Foreign => "foreign",
            Self::TooMany => "too_many",
        }
    }
}

impl Disagreement {
    /// The word for it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotAtCallee => "not_at_callee",
            Self::NotAtCaller => "not_at_caller",
            Self::Repeated { .. } => "repeated",
            Self::Differs { .. } => "differs",
        }
    }
}

/// Reads ledgers side by side, in the order of time, and holds the ends of the calls in them against each other. Memory is
/// bounded: a call waits for its other end for five minutes of the ledgers' time.
///
/// # Errors
///
/// When a ledger cannot be read.
pub fn reconcile(dirs: &[&Path]) -> Result<Report, ReadError> {
    let mut ledgers = Vec::with_capacity(dirs.len());
    for dir in dirs {
        ledgers.push(Ledger {
            tail: tail(dir, Start::First)?,
        });
    }
    let mut ledgers: Vec<Peekable<Ledger>> = ledgers.into_iter().map(Iterator::peekable).collect();
    let mut pairs = Pairs::new(dirs.len());
    while let Some((number, read)) = next(&mut ledgers) {
        let (index, record) = read?;
        pairs.add(number, index, &record);
    }
    Ok(pairs.finish())
}

/// The records of a ledger that tell of calls.
struct Ledger {
    tail: Tail,
}

type Read = Result<(u64, Record), ReadError>;

impl Iterator for Ledger {
    type Item = Read;

    fn next(&mut self) -> Option<Read> {
        loop {
            let entry = match self.tail.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            // What is no record is for `verify` to tell.
            let Ok(record) = Record::decode(&entry.line) else {
                continue;
            };
            if time_of(&record).is_some() {
                return Some(Ok((entry.index, record)));
            }
        }
    }
}

/// The earliest of the ledgers' next records; what cannot be read first.
fn next(ledgers: &mut [Peekable<Ledger>]) -> Option<(usize, Read)> {
    let heads = ledgers.iter_mut().enumerate().filter_map(|(number, ledger)| {
        let time = match ledger.peek()? {
            Ok((_, record)) => time_of(record),
            Err(_unreadable) => None,
        };
        Some((time, number))
    });
    let (_, earliest) = heads.min()?;
    Some((earliest, ledgers.get_mut(earliest)?.next()?))
}

/// When a record was written that tells of calls.
const fn time_of(record: &Record) -> Option<Timestamp> {
    match record {
        Record::Call(call) => Some(call.time),
        Record::End(end) => Some(end.time),
        Record::Refusals(refusals) => Some(refusals.time),
        Record::Segment(segment) => Some(segment.time),
        Record::Strangers(_) | Record::Event(_) => None,
    }
}

#[cfg(test)]
mod tests;
