//! Calls paired with their ends, in the order of the calls, in bounded memory: whatever stands for a record.

use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque};

/// Calls that wait for their ends, at most; the oldest is let go without one.
const OPEN_MAX: usize = 10_000;

/// Bytes of records that wait, at most.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The records that wait for those before them, as `T`, and the ids of calls, as `K`.
#[derive(Debug)]
pub(super) struct Pairs<K, T> {
    waiting: VecDeque<Waiting<K, T>>,
    /// Number of the first in `waiting`.
    first: u64,
    /// Calls without an end, by id: their numbers.
    open: BTreeMap<K, u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting<K, T> {
    record: T,
    end: Option<T>,
    /// Bytes of both.
    bytes: usize,
    /// The id under which an end is awaited.
    awaits: Option<K>,
}

impl<K: Ord + Clone, T> Pairs<K, T> {
    pub(super) const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            first: 0,
            open: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes a record whose line has so many bytes, and the id of the end that it awaits.
    pub(super) fn add(&mut self, record: T, bytes: usize, awaits: Option<K>) {
        if let Some(id) = &awaits {
            self.open
                .insert(id.clone(), self.first.saturating_add(self.waiting.len() as u64));
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.waiting.push_back(Waiting {
            record,
            end: None,
            bytes,
            awaits,
        });
    }

    /// Gives an end to its call; says whether the call was there. The end is made only then.
    pub(super) fn end<Q>(&mut self, id: &Q, bytes: usize, end: impl FnOnce() -> T) -> bool
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let number = self.open.remove(id);
        let place = number.and_then(|number| usize::try_from(number.checked_sub(self.first)?).ok());
        let Some(call) = place.and_then(|place| self.waiting.get_mut(place)) else {
            return false;
        };
        call.end = Some(end());
        call.awaits = None;
        call.bytes = call.bytes.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        true
    }

    /// Returns the next record that waits for nothing any more, with its end.
    pub(super) fn ready(&mut self) -> Option<(T, Option<T>)> {
        let first = self.waiting.front()?;
        let full = self.open.len() > OPEN_MAX || self.bytes > WAITING_BYTES_MAX;
        if first.awaits.is_some() && !full {
            return None;
        }
        self.rest()
    }

    /// Returns the next record, complete or not: there is no more to come.
    pub(super) fn rest(&mut self) -> Option<(T, Option<T>)> {
        let first = self.waiting.pop_front()?;
        let number = self.first;
        self.first = number.saturating_add(1);
        self.bytes = self.bytes.saturating_sub(first.bytes);
        if let Some(id) = &first.awaits
            && self.open.get(id) == Some(&number)
        {
            self.open.remove(id);
        }
        Some((first.record, first.end))
    }

    /// Returns the ids of the calls that wait for their ends.
    pub(super) fn open(&self) -> impl Iterator<Item = &K> {
        self.open.keys()
    }

    /// Says whether nothing waits and nothing is counted.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.bytes == 0 && self.open.is_empty()
    }
}
