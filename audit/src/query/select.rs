//! Which lines of a segment can matter to a query, found out by its index.

use std::fs::File;
use std::io::{self, BufReader, Read as _};

use super::filter::Filter;
use super::index::{Ids, Index, Row};
use super::view::{Party, View};
use crate::segment::{Form, Held};

/// Bytes that are read around a record that is wanted alone.
const READ_BYTES: usize = 16 * 1024;

/// A line that can matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    /// Its number in the segment.
    pub(super) row: usize,
    /// The filter admits it; else it is an end that a call may wait for.
    pub(super) admitted: bool,
}

/// What a query wants to know of a shape.
#[derive(Clone, Copy, Debug, Default)]
struct Shape {
    admitted: bool,
    is_end: bool,
    awaits_end: bool,
    serials: u64,
}

/// What a query wants to know of an end of calls.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    admitted_from: bool,
    admitted_to: bool,
    serials: u64,
}

/// A filter over what the records of a segment have in common.
#[derive(Debug)]
struct Lens<'a> {
    filter: &'a Filter,
    shapes: Vec<Shape>,
    ends: Vec<End>,
    /// All serial numbers that are wanted.
    serials: u64,
    has_own: bool,
}

/// Returns the lines of a segment that a filter admits, its statuses left aside, and the ends of such calls.
pub(super) fn select(filter: &Filter, held: &Held, index: &Index) -> io::Result<Vec<Pick>> {
    let lens = Lens::new(filter, index);
    if !lens.shapes.iter().any(|shape| shape.admitted) {
        return Ok(Vec::new());
    }
    let mut lines = filter.needs_lines().then(|| Places::open(held)).transpose()?;
    let mut awaited = Ids::default();
    let mut picks = Vec::new();
    for (number, offset) in index.offsets().enumerate() {
        let Some(row) = index.row(number) else { continue };
        let shape = lens.shapes.get(row.shape).copied().unwrap_or_default();
        let mut admitted = lens.admits(row, shape);
        if admitted && let Some(lines) = &mut lines {
            let line = lines.read(offset, row.length)?;
            admitted = View::read(line).is_some_and(|view| filter.admits(&view));
        }
        if admitted && shape.awaits_end && row.id != 0 {
            awaited.insert(row.id);
        }
        if admitted || shape.is_end && awaited.contains(&row.id) {
            picks.push(Pick { row: number, admitted });
        }
    }
    Ok(picks)
}

impl<'a> Lens<'a> {
    fn new(filter: &'a Filter, index: &Index) -> Self {
        Self {
            filter,
            shapes: index.shapes().map(|shape| Shape::of(filter, shape)).collect(),
            ends: index.parties().map(|party| End::of(filter, party.as_ref())).collect(),
            serials: filter.serials(|_wanted| true),
            has_own: filter.has_own(),
        }
    }

    fn admits(&self, row: Row, shape: Shape) -> bool {
        if !shape.admitted {
            return false;
        }
        let end = |number| self.ends.get(number).copied().unwrap_or_default();
        let (from, to) = (end(row.from), end(row.to));
        from.admitted_from
            && to.admitted_to
            && shape.serials | from.serials | to.serials == self.serials
            && (!self.has_own || self.filter.admits_row(row.time, [row.id, row.peer]))
    }
}

/// Adds the ends of calls that are open from segments before.
pub(super) fn add_ends(picks: &mut Vec<Pick>, index: &Index, open: &Ids) {
    let ends: Vec<bool> = index
        .shapes()
        .map(|shape| shape.is_some_and(|view| view.is_end()))
        .collect();
    let is_awaited = |row: Row| ends.get(row.shape) == Some(&true) && open.contains(&row.id);
    let found = (0..index.rows()).filter(|number| index.row(*number).is_some_and(is_awaited));
    picks.extend(found.map(|row| Pick { row, admitted: false }));
    // Of one that is there twice, what the filter says of it stays.
    picks.sort_by_key(|pick| (pick.row, !pick.admitted));
    picks.dedup_by_key(|pick| pick.row);
}

impl Shape {
    fn of(filter: &Filter, shape: Option<View<'_>>) -> Self {
        let Some(view) = shape else { return Self::default() };
        Self {
            admitted: filter.admits_shape(&view),
            is_end: view.is_end(),
            awaits_end: view.awaits_end(),
            serials: filter.serials(|wanted| view.serials().any(|serial| serial == wanted)),
        }
    }
}

impl End {
    fn of(filter: &Filter, party: Option<&Party<'_>>) -> Self {
        let is_there = |wanted: &str| party.is_some_and(|party| party.serial.as_deref() == Some(wanted));
        Self {
            admitted_from: filter.admits_from(party),
            admitted_to: filter.admits_to(party),
            serials: filter.serials(is_there),
        }
    }
}

/// Reads lines of a segment by their places, which only go on.
#[derive(Debug)]
pub(super) struct Places {
    reader: BufReader<File>,
    at: u64,
    line: Vec<u8>,
    form: Form,
}

impl Places {
    pub(super) fn open(held: &Held) -> io::Result<Self> {
        Ok(Self {
            reader: super::index::lines(held, READ_BYTES)?.into_reader(),
            at: 0,
            line: Vec::new(),
            form: held.segment().form,
        })
    }

    /// Reads the line of so many bytes that begins at `offset`.
    ///
    /// # Errors
    ///
    /// `InvalidData` when no line ends there.
    pub(super) fn read(&mut self, offset: u64, length: u16) -> io::Result<&[u8]> {
        let far = i64::try_from(offset).ok().zip(i64::try_from(self.at).ok());
        let (to, from) = far.ok_or(io::ErrorKind::InvalidData)?;
        self.reader.seek_relative(to.saturating_sub(from))?;
        self.line.resize(usize::from(length).saturating_add(1), 0);
        self.reader.read_exact(&mut self.line)?;
        self.at = offset.saturating_add(self.line.len() as u64);
        match self.line.split_last() {
            Some((b'\n', line)) => Ok(self.form.record(line)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Segment;

    #[test]
    fn what_is_read_by_its_place_has_to_be_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        std::fs::write(&path, "{}\n[17]\n{}\n").unwrap();
        let form = Form::Whole;
        let segment = Segment { first: 0, form, path };
        let mut places = Places::open(&Held::open(&segment).unwrap()).unwrap();
        assert_eq!(places.read(0, 2).unwrap(), b"{}");
        assert_eq!(places.read(8, 2).unwrap(), b"{}");
        assert_eq!(places.read(3, 4).unwrap(), b"[17]");
        for (offset, length) in [(0, 1), (3, 3), (0, 3)] {
            let refused = places.read(offset, length).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{offset} {length}");
        }
        assert!(places.read(8, 9).is_err());
    }
}
