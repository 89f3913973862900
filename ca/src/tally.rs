//! What may happen too often to be written each time: the first is written at once, those that follow are counted
//! exactly and written together when their window is over.

use std::collections::BTreeMap;
use std::time::Duration;

use spiffe::time::Timestamp;

/// How long the same thing is counted before it is written again.
pub(crate) const WINDOW: Duration = Duration::from_mins(10);

/// Things that are told apart; those beyond are one.
const KEYS_MAX: usize = 4096;

/// What to do with one occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Admission {
    /// Write it.
    Write,
    /// It will be among those that [`Tally::take`] gives.
    Counted,
}

/// Occurrences after the first, not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) count: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

/// Occurrences by what they are.
#[derive(Debug)]
pub(crate) struct Tally<K> {
    /// When each was written last, and what came since.
    keys: BTreeMap<K, (Timestamp, Option<Count>)>,
    beyond: Option<Count>,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            beyond: None,
        }
    }
}

impl<K: Ord + Clone> Tally<K> {
    /// Decides about one occurrence, and counts it if it is not to be written.
    pub(crate) fn admit(&mut self, key: &K, now: Timestamp) -> Admission {
        if let Some((_written, count)) = self.keys.get_mut(key) {
            Count::add(count, now);
            return Admission::Counted;
        }
        if self.keys.len() >= KEYS_MAX {
            Count::add(&mut self.beyond, now);
            return Admission::Counted;
        }
        self.keys.insert(key.clone(), (now, None));
        Admission::Write
    }

    /// Takes what is to be written: the counts whose window is over, or `all`. `None` is what was beyond the bound. A key
    /// that has been quiet for a window is forgotten, and its next occurrence is a first one again.
    pub(crate) fn take(&mut self, now: Timestamp, all: bool) -> Vec<(Option<K>, Count)> {
        let over = |since: Timestamp| all || now.duration_since(since) >= WINDOW;
        let mut taken = Vec::new();
        self.keys.retain(|key, (written, count)| {
            if !over(*written) {
                return true;
            }
            *written = now;
            let Some(count) = count.take() else { return false };
            taken.push((Some(key.clone()), count));
            true
        });
        if self.beyond.is_some_and(|count| over(count.first)) {
            taken.extend(self.beyond.take().map(|count| (None, count)));
        }
        taken
    }
}

impl Count {
    fn add(count: &mut Option<Self>, now: Timestamp) {
        let count = count.get_or_insert(Self {
            count: 0,
            first: now,
            last: now,
        });
        count.count = count.count.saturating_add(1);
        count.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1000)
    }

    #[test]
    fn the_first_is_written_and_the_rest_counted_until_the_window_is_over() {
        let mut tally = Tally::default();
        assert_eq!(tally.admit(&"a", at(0)), Admission::Write);
        assert_eq!(tally.admit(&"b", at(1)), Admission::Write);
        for second in 1..=5 {
            assert_eq!(tally.admit(&"a", at(second)), Admission::Counted);
        }
        assert_eq!(tally.take(at(599), false), []);
        let count = Count {
            count: 5,
            first: at(1),
            last: at(5),
        };
        assert_eq!(tally.take(at(600), false), [(Some("a"), count)]);
        assert_eq!(tally.admit(&"a", at(601)), Admission::Counted, "it goes on");
        assert_eq!(tally.take(at(601), false), [], "b is quiet");
        assert_eq!(tally.admit(&"b", at(602)), Admission::Write);
        assert_eq!(tally.take(at(603), true).len(), 1);
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted_together() {
        let mut tally = Tally::default();
        for key in 0..KEYS_MAX + 3 {
            let written = tally.admit(&key, at(0)) == Admission::Write;
            assert_eq!(written, key < KEYS_MAX);
        }
        let taken = tally.take(at(0), true);
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].0, taken[0].1.count), (None, 3));
    }
}
