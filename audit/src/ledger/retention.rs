//! How long records are kept, and what a segment holds of which kind.

use std::time::Duration;

use serde::Deserialize;
use spiffe::time::Timestamp;

use crate::record::EventKind;

/// How long a ledger keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Calls, their ends, and the counts of refusals and strangers.
    pub calls: Duration,
    /// Everything else. Not shorter than `calls`.
    pub events: Duration,
    /// Whose word is waited for before anything is pruned.
    pub under: Under,
}

/// What a record must be under before it may be pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// A checkpoint of the ledger's own.
    Checkpoint,
    /// A checkpoint that the witness cosigned: what is gone can then not be told differently later, even by the ledger.
    Cosigned,
}

/// The shortest time that anything is kept.
pub const KEEP_MIN: Duration = Duration::from_hours(1);

/// The longest: a hundred years.
pub const KEEP_MAX: Duration = Duration::from_hours(24 * 36_500);

impl Retention {
    /// Says whether it can be kept.
    pub(super) fn is_sound(&self) -> bool {
        let bounds = KEEP_MIN..=KEEP_MAX;
        bounds.contains(&self.calls) && bounds.contains(&self.events) && self.calls <= self.events
    }
}

/// Which time a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// That of a call.
    Call,
    /// That of the calls of its segment: the segment's own first record.
    Segment,
    /// That of an event.
    Event,
    /// It stays: what was pruned is known by it.
    Lasting,
}

/// What decides how long a record is kept.
#[derive(Deserialize)]
pub(super) struct Dated<'a> {
    #[serde(borrow)]
    pub(super) kind: std::borrow::Cow<'a, str>,
    pub(super) time: Timestamp,
}

impl Dated<'_> {
    pub(super) fn sort(&self) -> Sort {
        match &*self.kind {
            "call" | "end" | "refusals" | "strangers" => Sort::Call,
            "segment" => Sort::Segment,
            kind if kind == EventKind::Pruned.as_str() => Sort::Lasting,
            _ => Sort::Event,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_within_bounds_and_events_stay_as_long_as_calls() {
        let sound = |calls, events| {
            Retention {
                calls,
                events,
                under: Under::Checkpoint,
            }
            .is_sound()
        };
        let (hour, day) = (Duration::from_hours(1), Duration::from_hours(24));
        assert!(sound(hour, hour) && sound(day, KEEP_MAX));
        assert!(!sound(day, hour));
        assert!(!sound(hour - Duration::from_millis(1), day));
        assert!(!sound(hour, KEEP_MAX + hour));
    }
}
