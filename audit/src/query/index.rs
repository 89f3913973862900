//! The index of a segment: what queries look at, in columns of a fixed width, and the rest of a record by its place.
//!
//! Records have most of what queries look at in common with many others: a rule, a verdict, a method. Each such
//! combination is a *shape* and is kept once, as is each end of calls; a row is their numbers and what is a record's own.
//!
//! An index is derived from its segment alone and can be deleted at any time. What is printed is read from the segment and
//! asked of the filter again, so that a wrong index can leave records out but not make any up. Counts rest on it alone.

mod build;
mod file;

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::ops::Range;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use spiffe::time::Timestamp;

use super::Indexes;
use super::view::{Party, View};
use crate::record::CallId;
use crate::segment::{Held, Segment};

pub(super) use build::{build, lines};
pub(super) use file::{Binding, stored};
use file::{load, write};

/// Folder of the indexes, below the ledger's.
pub(super) const INDEX: &str = "index";

/// The columns of one segment. Each line is a row, also one that is no record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// What records have in common, as the JSON of a record that has nothing else.
    shapes: Vec<Box<[u8]>>,
    /// Ends of calls, as JSON; the first stands for none.
    parties: Vec<Box<[u8]>>,
    /// The number of the record's shape; [`NO_RECORD`] of a line that is none.
    shape: Vec<u32>,
    /// Who calls.
    from: Vec<u32>,
    /// Who is called.
    to: Vec<u32>,
    /// Bytes of the line, without its newline.
    length: Vec<u16>,
    /// The record's time in milliseconds; [`NO_TIME`] if it has none.
    time: Vec<i64>,
    /// Stands for the id; 0 if there is none.
    id: Vec<u64>,
    /// Stands for the id of the same call at its peer.
    peer: Vec<u64>,
    /// The status; [`NO_STATUS`] if there is none.
    status: Vec<u16>,
}

const NO_RECORD: u32 = u32::MAX;
const NO_TIME: i64 = i64::MIN;
const NO_STATUS: u16 = u16::MAX;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) shape: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) length: u16,
    pub(super) time: Option<Timestamp>,
    pub(super) id: u64,
    pub(super) peer: u64,
    pub(super) status: Option<u16>,
}

impl Index {
    /// Returns how many lines the segment has.
    pub(super) const fn rows(&self) -> usize {
        self.shape.len()
    }

    /// Returns a row; `None` of a line that is no record.
    pub(super) fn row(&self, number: usize) -> Option<Row> {
        let shape = *self.shape.get(number).filter(|shape| **shape != NO_RECORD)?;
        let time = *self.time.get(number)?;
        let status = *self.status.get(number)?;
        Some(Row {
            shape: usize::try_from(shape).ok()?,
            from: usize::try_from(*self.from.get(number)?).ok()?,
            to: usize::try_from(*self.to.get(number)?).ok()?,
            length: *self.length.get(number)?,
            time: (time != NO_TIME).then(|| Timestamp::from_unix_millis(time)),
            id: *self.id.get(number)?,
            peer: *self.peer.get(number)?,
            status: (status != NO_STATUS).then_some(status),
        })
    }

    /// Returns the bytes of some lines, with their newlines.
    pub(super) fn bytes_of(&self, rows: Range<usize>) -> u64 {
        let lines = self.length.get(rows).unwrap_or_default();
        let lines = lines.iter().map(|length| u64::from(*length).saturating_add(1));
        lines.fold(0, u64::saturating_add)
    }

    /// Returns where each line begins, in their order.
    pub(super) fn offsets(&self) -> impl Iterator<Item = u64> {
        self.length.iter().scan(0_u64, |next, length| {
            let offset = *next;
            *next = offset.saturating_add(u64::from(*length)).saturating_add(1);
            Some(offset)
        })
    }

    /// Returns the bytes of all lines.
    fn bytes(&self) -> u64 {
        self.bytes_of(0..self.rows())
    }

    /// Returns the shapes; one that cannot be read is of no record.
    pub(super) fn shapes(&self) -> impl Iterator<Item = Option<View<'_>>> {
        self.shapes.iter().map(|shape| View::read(shape))
    }

    /// Returns the ends of calls; none for the first, which stands for none.
    pub(super) fn parties(&self) -> impl Iterator<Item = Option<Party<'_>>> {
        self.parties.iter().map(|party| serde_json::from_slice(party).ok())
    }

    /// Returns the times between which all records are that have one.
    pub(super) fn span(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let times = || self.time.iter().copied().filter(|time| *time != NO_TIME);
        let stamp = Timestamp::from_unix_millis;
        (times().min().map(stamp), times().max().map(stamp))
    }
}

/// Hashes numbers that stand for ids, which are random as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(5) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Numbers that stand for ids.
pub(super) type Ids = HashSet<u64, BuildHasherDefault<Spread>>;

/// Returns the number that stands for an id: of a UUID its halves over each other, of which at least 62 bits are random.
pub(super) const fn folded(id: &[u8; 16]) -> u64 {
    let whole = u128::from_be_bytes(*id);
    #[expect(clippy::cast_possible_truncation, reason = "the halves are laid over each other")]
    let folded = (whole >> 64) as u64 ^ whole as u64;
    // 0 stands for none.
    if folded == 0 { 1 } else { folded }
}

/// Returns the number that stands for an id, whatever text it is.
pub(super) fn number_of(id: &str) -> u64 {
    if let Ok(id) = CallId::parse(id) {
        return folded(id.as_bytes());
    }
    let hash = digest(&SHA256, id.as_bytes());
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    folded(&half)
}

/// Returns the index of a segment that is closed: as it is stored, else made from the segment, and stored where that is
/// allowed. What cannot be stored is not worth an error.
pub(super) fn of_closed(ledger: &Path, held: &Held, indexes: Indexes) -> Result<Index, BuildError> {
    if indexes == Indexes::Ignore {
        return build(held);
    }
    let segment = held.segment();
    let binding = Binding::of(held).map_err(|source| BuildError::Read { source })?;
    if let Some(index) = load(ledger, segment, &binding) {
        return Ok(index);
    }
    let index = build(held)?;
    if indexes == Indexes::Write && index.bytes() == binding.bytes {
        write(ledger, segment, &binding, &index).unwrap_or_default();
        // Who prunes removes the index, and may have done so already: nothing is to be left of what is gone.
        if !held.is_there() {
            file::remove(ledger, segment);
        }
    }
    Ok(index)
}

/// Reads an index and writes it again.
pub(super) fn again(bytes: &[u8]) -> Option<Vec<u8>> {
    let (binding, index) = file::parse(bytes)?;
    let rows = (0..index.rows()).filter_map(|number| index.row(number)).count();
    std::hint::black_box((rows, index.shapes().flatten().count()));
    Some(file::encode(&binding, &index))
}

/// Removes indexes of segments that there are none of any more.
pub(super) fn sweep(ledger: &Path, segments: &[Segment]) -> io::Result<()> {
    for entry in fs::read_dir(ledger.join(INDEX))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(first) = file::parse_file_name(name) else {
            continue;
        };
        if segments.binary_search_by_key(&first, |segment| segment.first).is_err() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Why an index cannot be made.
#[derive(Debug)]
pub(super) enum BuildError {
    /// The segment cannot be read.
    Read {
        /// What the system says.
        source: io::Error,
    },
    /// A line is longer than a record may be.
    TooLong {
        /// How many lines are before it.
        lines: u64,
        /// Where it begins.
        offset: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{self, Form};

    #[test]
    fn a_segment_that_is_held_is_read_as_it_was_and_leaves_no_index_once_it_is_gone() {
        let ledger = tempfile::tempdir().unwrap();
        let segments = ledger.path().join(segment::SEGMENTS);
        fs::create_dir(&segments).unwrap();
        let line = br#"{"kind":"end","id":"01990000-0000-7000-8000-000000000001"}"#;
        let path = segments.join(segment::file_name(0));
        fs::write(&path, [line, &b"\n"[..]].concat()).unwrap();
        let form = Form::Whole;
        let found = Segment { first: 0, form, path };
        let index = ledger.path().join(INDEX).join("00000000000000000000.index");
        let held = Held::open(&found).unwrap();
        assert_eq!(of_closed(ledger.path(), &held, Indexes::Write).unwrap().rows(), 1);
        assert!(index.exists());
        fs::remove_file(&index).unwrap();
        // It is pruned.
        let kept = segment::kept_path(ledger.path(), 0);
        fs::write(&kept, "{}\n").unwrap();
        fs::remove_file(&found.path).unwrap();
        let read = of_closed(ledger.path(), &held, Indexes::Write).unwrap();
        assert_eq!(
            (read.rows(), read.row(0).unwrap().id),
            (1, number_of("01990000-0000-7000-8000-000000000001"))
        );
        assert!(!index.exists());
        assert_eq!(
            Held::open(&found).unwrap().segment().path,
            kept,
            "and is found as what is kept of it"
        );
    }
}
