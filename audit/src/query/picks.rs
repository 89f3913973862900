//! The lines of a ledger that can matter to a query, in their order.

use std::vec;

use super::ahead::{Ahead, Selected, unreadable};
use super::index::{Ids, Index};
use super::select::{Pick, Places, add_ends};
use crate::tail::ReadError;

/// Reads them one by one.
#[derive(Debug)]
pub(super) struct Picks {
    ahead: Ahead,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    selected: Selected,
    index: Index,
    picks: vec::IntoIter<Pick>,
    lines: Places,
    /// The line at which `offset` is.
    row: usize,
    offset: u64,
}

impl Picks {
    pub(super) const fn new(ahead: Ahead) -> Self {
        Self { ahead, reading: None }
    }

    /// Reads the next line. `open` tells the calls of before that wait for their ends.
    pub(super) fn next(&mut self, open: impl Fn() -> Ids) -> Result<Option<&[u8]>, ReadError> {
        while self
            .reading
            .as_ref()
            .is_none_or(|reading| reading.picks.as_slice().is_empty())
        {
            let Some(selected) = self.ahead.next() else {
                return Ok(None);
            };
            let (selected, index) = complete(&self.ahead, selected?, &open())?;
            self.reading = index.map(|index| Reading::open(selected, index)).transpose()?;
        }
        self.reading.as_mut().map_or(Ok(None), Reading::next)
    }
}

/// Adds the ends of calls of segments before; without an index there is nothing that matters.
pub(super) fn complete(
    ahead: &Ahead,
    mut selected: Selected,
    open: &Ids,
) -> Result<(Selected, Option<Index>), ReadError> {
    let mut index = selected.index.take();
    if !open.is_empty() {
        let known = index.map_or_else(|| ahead.index(&selected.held), Ok)?;
        add_ends(&mut selected.picks, &known, open);
        index = Some(known);
    }
    let matters = !selected.picks.is_empty();
    Ok((selected, index.filter(|_| matters)))
}

impl Reading {
    fn open(mut selected: Selected, index: Index) -> Result<Self, ReadError> {
        let lines = Places::open(&selected.held).map_err(|error| unreadable(selected.held.segment(), error))?;
        Ok(Self {
            picks: std::mem::take(&mut selected.picks).into_iter(),
            selected,
            index,
            lines,
            row: 0,
            offset: 0,
        })
    }

    fn next(&mut self) -> Result<Option<&[u8]>, ReadError> {
        let Some(pick) = self.picks.next() else { return Ok(None) };
        self.offset = self.offset.saturating_add(self.index.bytes_of(self.row..pick.row));
        self.row = pick.row;
        let Some(row) = self.index.row(pick.row) else {
            return Ok(None);
        };
        let line = self.lines.read(self.offset, row.length);
        line.map(Some)
            .map_err(|error| unreadable(self.selected.held.segment(), error))
    }
}
