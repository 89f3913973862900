//! Counting the records that match, by what they have in common.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value, json};
use spiffe::time::Timestamp;
use thiserror::Error;

use super::Indexes;
use super::ahead::Ahead;
use super::bounded::Stop;
use super::filter::Filter;
use super::index::{Ids, Index, Row};
use super::key::{self, Key};
use super::pairs::Pairs;
use super::picks::complete;
use super::select::Pick;
use super::view::View;
use crate::tail::ReadError;

/// Groups that are counted, at most.
const GROUPS_MAX: usize = 100_000;

/// Most keys that records are grouped by.
pub const GROUP_KEYS_MAX: usize = 6;

/// Records that have the same values under the keys that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The values, in the order of the keys; none where the records have none.
    pub values: Vec<Option<String>>,
    /// How many there are. A call and its end are one.
    pub count: u64,
    /// The earliest time.
    pub first: Option<Timestamp>,
    /// The latest time.
    pub last: Option<Timestamp>,
}

impl Group {
    /// Returns the group as JSON: its values by their keys, `count`, `first` and `last`.
    #[must_use]
    pub fn document(&self, keys: &[Key]) -> Value {
        let mut document = Map::new();
        for (key, value) in keys.iter().zip(&self.values) {
            document.insert(key.as_str().to_owned(), json!(value));
        }
        document.insert("count".to_owned(), json!(self.count));
        document.insert("first".to_owned(), json!(self.first));
        document.insert("last".to_owned(), json!(self.last));
        Value::Object(document)
    }
}

/// Why records cannot be counted.
#[derive(Debug, Error)]
pub enum CountError {
    /// The ledger cannot be read.
    #[error("cannot read the ledger")]
    Read {
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// There are too many groups.
    #[error("there are more than 100000 groups: ask for fewer keys, or of less time")]
    TooManyGroups,
    /// It was ended before it was done.
    #[error("it took too long: ask of less time")]
    Stopped,
}

/// Counts over one ledger or several.
#[derive(Debug)]
pub struct Counts {
    keys: Vec<Key>,
    /// What records have in common that is no time and no status, and its number.
    bases: BTreeMap<Vec<Option<String>>, usize>,
    tallies: HashMap<Place, Tally>,
}

/// Where a record is counted: its base, its time in the finest unit that is asked for, its status.
type Place = (usize, Option<i64>, Option<u16>);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

/// What is to be known of a record to count it.
#[derive(Clone, Copy, Debug)]
struct Counted {
    base: usize,
    time: Option<Timestamp>,
    status: Option<u16>,
}

impl Counts {
    /// Begins to count by these keys.
    #[must_use]
    pub fn by(keys: &[Key]) -> Self {
        Self {
            keys: keys.to_owned(),
            bases: BTreeMap::new(),
            tallies: HashMap::new(),
        }
    }

    /// Counts the records of a ledger that match.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read, or there are too many groups.
    pub fn add(&mut self, dir: &Path, filter: &Filter, indexes: Indexes) -> Result<(), CountError> {
        self.add_until(dir, filter, indexes, &Stop::default())
    }

    /// The same until `stop` is set; then what was counted is not all.
    pub(super) fn add_until(
        &mut self,
        dir: &Path,
        filter: &Filter,
        indexes: Indexes,
        stop: &Stop,
    ) -> Result<(), CountError> {
        let read = |source| CountError::Read { source };
        let mut ahead = Ahead::begin(dir, filter.clone(), indexes, stop).map_err(read)?;
        let mut pairs = Pairs::new();
        while let Some(selected) = ahead.next() {
            let open: Ids = pairs.open().copied().collect();
            let (selected, index) = complete(&ahead, selected.map_err(read)?, &open).map_err(read)?;
            if let Some(index) = index {
                self.add_segment(&index, &selected.picks, filter, &mut pairs)?;
            }
        }
        while let Some((record, end)) = pairs.rest() {
            self.tally(record, end, filter)?;
        }
        Ok(())
    }

    /// Returns the groups, those of most records first.
    #[must_use]
    pub fn groups(self) -> Vec<Group> {
        let bases: BTreeMap<usize, Vec<Option<String>>> =
            self.bases.into_iter().map(|(values, base)| (base, values)).collect();
        let group = |((base, time, status), tally): (Place, Tally)| {
            let texts = bases.get(&base).cloned().unwrap_or_default();
            let values = self.keys.iter().zip(texts);
            let unit = Key::finest(&self.keys);
            Group {
                values: values.map(|(key, text)| key.told(text, time, unit, status)).collect(),
                count: tally.count,
                first: tally.first,
                last: tally.last,
            }
        };
        let mut groups: Vec<Group> = self.tallies.into_iter().map(group).collect();
        groups.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.values.cmp(&other.values)));
        groups
    }

    fn add_segment(
        &mut self,
        index: &Index,
        picks: &[Pick],
        filter: &Filter,
        pairs: &mut Pairs<u64, Counted>,
    ) -> Result<(), CountError> {
        let shapes: Vec<Shape> = index.shapes().map(|shape| Shape::of(&self.keys, shape)).collect();
        let parties: Vec<_> = index
            .parties()
            .map(|party| party.as_ref().and_then(key::party))
            .collect();
        let (by_from, by_to) = (self.keys.contains(&Key::From), self.keys.contains(&Key::To));
        let mut bases = HashMap::new();
        for pick in picks {
            let Some(row) = index.row(pick.row) else { continue };
            let Some(shape) = shapes.get(row.shape) else { continue };
            let common = (row.shape, by_from.then_some(row.from), by_to.then_some(row.to));
            let base = *bases.entry(common).or_insert_with(|| {
                let party = |number: usize| parties.get(number).cloned().flatten();
                self.base(shape, party(row.from), party(row.to))
            });
            let counted = Counted {
                base,
                time: row.time,
                status: row.status,
            };
            add_row(row, shape, counted, pick.admitted, pairs);
            while let Some((record, end)) = pairs.ready() {
                self.tally(record, end, filter)?;
            }
        }
        Ok(())
    }

    /// Returns the number of what a record has in common with others, as far as it is asked for.
    fn base(&mut self, shape: &Shape, from: Option<String>, to: Option<String>) -> usize {
        let values = self.keys.iter().zip(&shape.values).map(|(key, value)| {
            if *key == Key::From {
                from.clone()
            } else if *key == Key::To {
                to.clone()
            } else {
                value.clone()
            }
        });
        let next = self.bases.len();
        *self.bases.entry(values.collect()).or_insert(next)
    }

    fn tally(&mut self, record: Counted, end: Option<Counted>, filter: &Filter) -> Result<(), CountError> {
        let status = end.and_then(|end| end.status).or(record.status);
        if !filter.admits_status(status) {
            return Ok(());
        }
        let unit = Key::finest(&self.keys);
        let time = record
            .time
            .zip(unit)
            .map(|(time, unit)| time.unix_millis().div_euclid(unit));
        let place = (record.base, time, status.filter(|_| self.keys.contains(&Key::Status)));
        let is_full = self.tallies.len() >= GROUPS_MAX;
        let tally = match self.tallies.entry(place) {
            Entry::Vacant(_) if is_full => return Err(CountError::TooManyGroups),
            Entry::Vacant(place) => place.insert(Tally::default()),
            Entry::Occupied(tally) => tally.into_mut(),
        };
        tally.count = tally.count.saturating_add(1);
        if let Some(time) = record.time {
            tally.first = Some(tally.first.map_or(time, |first| first.min(time)));
            tally.last = tally.last.max(Some(time));
        }
        Ok(())
    }
}

/// What counting wants to know of a shape.
#[derive(Clone, Debug, Default)]
struct Shape {
    values: Vec<Option<String>>,
    is_end: bool,
    awaits_end: bool,
}

impl Shape {
    fn of(keys: &[Key], shape: Option<View<'_>>) -> Self {
        let Some(view) = shape else { return Self::default() };
        Self {
            values: keys.iter().map(|key| key.of(&view)).collect(),
            is_end: view.is_end(),
            awaits_end: view.awaits_end(),
        }
    }
}

fn add_row(row: Row, shape: &Shape, counted: Counted, admitted: bool, pairs: &mut Pairs<u64, Counted>) {
    let length = usize::from(row.length);
    if shape.is_end && row.id != 0 && pairs.end(&row.id, length, || counted) {
        return;
    }
    if admitted {
        pairs.add(counted, length, (shape.awaits_end && row.id != 0).then_some(row.id));
    }
}
