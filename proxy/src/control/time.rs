//! The time of a proxy: a backward jump of the wall clock revives nothing.
//!
//! It is the highest of the wall clock, the time last kept, and the CA's time less
//! a little; so neither a clock set back nor a restart lets an ended rule or an
//! ended SVID live again.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use spiffe::time::{Clock, Timestamp};

/// How far the CA's time is trusted to be fresh: what a message may be under way.
const TRANSIT: Duration = Duration::from_secs(5);

/// How far the wall clock may be from the CA's before it is said aloud.
pub(super) const SKEW_MAX: Duration = Duration::from_secs(30);

/// How often the time is kept on disk, at most.
const SAVE_EVERY: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) struct HostTime {
    clock: Clock,
    highest_ms: AtomicI64,
    saved_ms: AtomicI64,
    skewed: AtomicBool,
}

/// How the wall clock stands to the CA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skew {
    /// Within [`SKEW_MAX`].
    Fine,
    /// Beyond, since this message.
    Begun,
    /// Beyond, as before.
    Still,
    /// Within, after it had been beyond.
    Ended,
}

impl HostTime {
    /// `saved` is what [`HostTime::to_save`] gave before a restart.
    pub(super) fn new(clock: Clock, saved: Option<i64>) -> Self {
        let saved = saved.unwrap_or(i64::MIN);
        Self {
            clock,
            highest_ms: AtomicI64::new(saved),
            saved_ms: AtomicI64::new(saved),
            skewed: AtomicBool::new(false),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let wall = self.clock.now().unix_millis();
        let highest = self.highest_ms.load(Ordering::Relaxed);
        // Written at most once per millisecond, so that calls on many threads do not
        // wait for each other here.
        if wall > highest {
            self.highest_ms.fetch_max(wall, Ordering::Relaxed);
        }
        Timestamp::from_unix_millis(highest.max(wall))
    }

    /// Takes the CA's time into account.
    pub(super) fn heard(&self, ca: Timestamp) -> Skew {
        let wall = self.clock.now();
        self.highest_ms
            .fetch_max((ca - TRANSIT).unix_millis(), Ordering::Relaxed);
        let apart = wall.duration_since(ca).max(ca.duration_since(wall));
        let skewed = apart > SKEW_MAX;
        match (self.skewed.swap(skewed, Ordering::Relaxed), skewed) {
            (false, false) => Skew::Fine,
            (false, true) => Skew::Begun,
            (true, true) => Skew::Still,
            (true, false) => Skew::Ended,
        }
    }

    pub(super) fn skewed(&self) -> bool {
        self.skewed.load(Ordering::Relaxed)
    }

    /// The time to keep on disk, when it is worth a write.
    pub(super) fn to_save(&self) -> Option<i64> {
        let now = self.now().unix_millis();
        let saved = self.saved_ms.load(Ordering::Relaxed);
        let due = i64::try_from(SAVE_EVERY.as_millis()).unwrap_or(i64::MAX);
        if now.saturating_sub(saved) < due {
            return None;
        }
        self.saved_ms.store(now, Ordering::Relaxed);
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn a_clock_set_back_does_not_set_time_back() {
        let (clock, hand) = Clock::fixed(at(1000));
        let time = HostTime::new(clock, None);
        assert_eq!(time.now(), at(1000));
        hand.set(at(10));
        assert_eq!(time.now(), at(1000));
        hand.set(at(1001));
        assert_eq!(time.now(), at(1001));
    }

    #[test]
    fn a_restart_does_not_set_time_back() {
        let (clock, _hand) = Clock::fixed(at(10));
        let time = HostTime::new(clock, Some(at(500).unix_millis()));
        assert_eq!(time.now(), at(500));
    }

    #[test]
    fn the_time_of_the_ca_counts_less_what_it_was_under_way() {
        let (clock, _hand) = Clock::fixed(at(100));
        let time = HostTime::new(clock, None);
        assert_eq!(time.heard(at(120)), Skew::Fine);
        assert_eq!(time.now(), at(115));
        assert_eq!(time.heard(at(104)), Skew::Fine);
        assert_eq!(time.now(), at(115));
    }

    #[test]
    fn skew_in_either_direction_begins_and_ends_once() {
        let (clock, hand) = Clock::fixed(at(100));
        let time = HostTime::new(clock, None);
        assert_eq!(time.heard(at(130)), Skew::Fine);
        assert_eq!(time.heard(at(131)), Skew::Begun);
        assert!(time.skewed());
        assert_eq!(time.heard(at(69)), Skew::Still);
        hand.set(at(70));
        assert_eq!(time.heard(at(69)), Skew::Ended);
        assert!(!time.skewed());
    }

    #[test]
    fn time_is_kept_once_a_minute() {
        let (clock, hand) = Clock::fixed(at(100));
        let time = HostTime::new(clock, None);
        assert_eq!(time.to_save(), Some(100_000));
        hand.set(at(159));
        assert_eq!(time.to_save(), None);
        hand.set(at(160));
        assert_eq!(time.to_save(), Some(160_000));
    }
}
