//! Reading back the end of a ledger: which records there are, what they have
//! cost, and where a crash tore the last one.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use spiffe::time::Timestamp;

use super::OpenError;
use crate::budget::{Budget, Class};
use crate::record::{Record, RecordError, SegmentRecord};
use crate::segment::{Form, Read, Reader, Segment};

/// A record where it lies.
#[derive(Debug)]
pub(super) struct At<'a> {
    pub(super) index: u64,
    pub(super) path: &'a Path,
    pub(super) offset: u64,
    /// Its line; none of one that was pruned.
    pub(super) line: Option<&'a [u8]>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Records in the ledger.
    pub(super) size: u64,
    /// Bytes spent: calls, refusals, strangers.
    pub(super) spent: [u64; 3],
    /// Where bytes begin that are no record.
    pub(super) torn: Option<TornAt>,
}

/// The first byte that belongs to no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TornAt {
    /// Place of the segment in the list.
    pub(super) segment: usize,
    /// Index that the record would have had.
    pub(super) index: u64,
    /// Offset in the segment.
    pub(super) offset: u64,
}

/// Reads all records from a segment on and shows each to `visit`. Records
/// below `sealed` are expected to be whole: anything else there is not a
/// crash's doing.
pub(super) fn scan(
    segments: &[Segment],
    from: usize,
    sealed: u64,
    mut visit: impl FnMut(&At<'_>) -> Result<(), OpenError>,
) -> Result<Found, OpenError> {
    let first = segments.get(from).map_or(0, |segment| segment.first);
    let mut found = Found {
        size: first,
        spent: [0; 3],
        torn: None,
    };
    for (place, segment) in segments.iter().enumerate().skip(from) {
        if segment.first != found.size {
            return Err(OpenError::Gap {
                path: segment.path.clone(),
                expected: found.size,
            });
        }
        if let Some((index, offset)) = scan_one(segment, sealed, &mut found, &mut visit)? {
            found.torn = Some(TornAt {
                segment: place,
                index,
                offset,
            });
            break;
        }
    }
    Ok(found)
}

/// Reads one segment; returns index and offset of what is no record.
fn scan_one(
    segment: &Segment,
    sealed: u64,
    found: &mut Found,
    visit: &mut impl FnMut(&At<'_>) -> Result<(), OpenError>,
) -> Result<Option<(u64, u64)>, OpenError> {
    let path = &segment.path;
    let unreadable = |source| OpenError::File {
        doing: "read",
        path: path.clone(),
        source,
    };
    let mut reader = Reader::open(segment).map_err(unreadable)?;
    let mut line = Vec::new();
    loop {
        let offset = reader.offset();
        let read = reader.read(&mut line).map_err(unreadable)?;
        // What was pruned before it, or before the end.
        let there = match read {
            Read::Record { index, .. } => index,
            Read::End => reader.next(),
            Read::Torn | Read::TooLong | Read::NotKept => found.size,
        };
        let at = |index, line| At {
            index,
            path,
            offset,
            line,
        };
        while found.size < there {
            visit(&at(found.size, None))?;
            found.size = found.size.saturating_add(1);
        }
        let index = found.size;
        let paid = match read {
            Read::End => return Ok(None),
            Read::Record { .. } => serde_json::from_slice::<Paid<'_>>(&line).ok(),
            Read::Torn | Read::TooLong | Read::NotKept => None,
        };
        let Some(paid) = paid else {
            // What a crash tore was never pruned.
            if index < sealed || segment.form == Form::Kept {
                return Err(OpenError::Altered {
                    index,
                    path: path.clone(),
                    offset,
                });
            }
            return Ok(Some((index, offset)));
        };
        visit(&at(index, Some(&line)))?;
        if segment.form == Form::Whole {
            found.pay(&paid, &line);
        }
        found.size = found.size.saturating_add(1);
    }
}

/// Says what a line costs, and whom; nothing where it is no record.
pub(super) fn paid_for(line: &[u8]) -> Option<(Class, u64)> {
    let paid = serde_json::from_slice::<Paid<'_>>(line).ok()?;
    Some((paid.class(), Budget::cost(line.len())))
}

impl Found {
    fn pay(&mut self, paid: &Paid<'_>, line: &[u8]) {
        if let Some(head) = (paid.kind == "segment").then(|| head_of(line)).flatten() {
            self.spent = [head.calls_bytes, head.refusals_bytes, head.strangers_bytes];
        }
        let mut budget = Budget::new(u64::MAX, self.spent);
        budget.spend(paid.class(), Budget::cost(line.len()));
        self.spent = budget.spent();
    }
}

pub(super) fn head_of(line: &[u8]) -> Option<SegmentRecord> {
    match Record::decode(line) {
        Ok(Record::Segment(head)) => Some(head),
        Ok(_) | Err(RecordError::TooLong { .. } | RecordError::Decode { .. } | RecordError::Encode { .. }) => None,
    }
}

/// What decides who pays for a record.
#[derive(Deserialize)]
struct Paid<'a> {
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    verdict: Option<std::borrow::Cow<'a, str>>,
    from: Option<From>,
}

#[derive(Deserialize)]
struct From {
    id: Option<IgnoredAny>,
    uid: Option<IgnoredAny>,
}

impl Paid<'_> {
    fn class(&self) -> Class {
        let named = self.from.as_ref().is_some_and(|from| from.id.is_some());
        let local = self.from.as_ref().is_some_and(|from| from.uid.is_some());
        match (&*self.kind, self.verdict.as_deref()) {
            ("call", Some("deny")) if named => Class::Refusals,
            ("call", Some("deny")) => Class::Strangers,
            ("refusals", _) if named || !local => Class::Refusals,
            ("refusals" | "strangers", _) => Class::Strangers,
            _ => Class::Calls,
        }
    }
}

/// Chooses where to begin reading: at the last segment that begins with its
/// record of the budget, or the one that holds record `sealed`, whichever is
/// earlier.
pub(super) fn begin(segments: &[Segment], sealed: u64) -> Result<usize, OpenError> {
    let holding = segments
        .partition_point(|segment| segment.first <= sealed)
        .saturating_sub(1);
    let Some(last) = segments.len().checked_sub(1) else {
        return Ok(0);
    };
    let Some(segment) = segments.get(last) else {
        return Ok(0);
    };
    let headed = if head(segment)?.is_some() {
        last
    } else {
        last.saturating_sub(1)
    };
    Ok(holding.min(headed))
}

/// Says when a segment was begun: what its first record says, or what is kept of that.
pub(super) fn begun(segment: &Segment) -> Result<Option<Timestamp>, OpenError> {
    let kept = reader(segment)?.head().map(|kept| kept.began);
    Ok(kept.or(head(segment)?.map(|head| head.time)))
}

fn head(segment: &Segment) -> Result<Option<SegmentRecord>, OpenError> {
    let mut line = Vec::new();
    let read = reader(segment)?.read(&mut line);
    let whole = read.map_err(|source| unreadable(segment, source))?;
    Ok(match whole {
        Read::Record { .. } => head_of(&line),
        Read::Torn | Read::TooLong | Read::NotKept | Read::End => None,
    })
}

fn reader(segment: &Segment) -> Result<Reader, OpenError> {
    Reader::open(segment).map_err(|source| unreadable(segment, source))
}

fn unreadable(segment: &Segment, source: std::io::Error) -> OpenError {
    OpenError::File {
        doing: "read",
        path: segment.path.clone(),
        source,
    }
}
