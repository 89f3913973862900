//! The time of a proxy: a backward jump of the wall clock revives nothing.
//!
//! It is the highest of the wall clock, the time last kept, and the CA's time less
//! a little; so neither a clock set back nor a restart lets an ended rule or an
//! ended SVID live again.
//!
//! A clock that was ahead and is right again would leave this time ahead for as
//! long as it had been. Only the CA can say that the clock is right: where the wall
//! clock agrees with a CA that this host has verified, and the time of this host is
//! ahead of both, it is set back to theirs. Without the CA it stays ahead, and what
//! has ended by it stays shut.
//!
//! While the wall clock is behind, this time goes on by the monotonic clock: what
//! has not ended yet ends when it would have.
//!
//! The link to the CA itself goes by the wall clock: a host whose time is ahead
//! would otherwise find the CA's own certificate ended, and could not be corrected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use spiffe::time::{Clock, Ratchet, Timestamp};

use super::state_dir::SavedTime;

/// How far the CA's time is trusted to be fresh: what a message may be under way.
const TRANSIT: Duration = Duration::from_secs(5);

/// How far the wall clock may be from the CA's before it is said aloud.
pub(super) const SKEW_MAX: Duration = Duration::from_secs(30);

/// How often the time is kept on disk, at most.
const SAVE_EVERY: Duration = Duration::from_mins(1);

/// Never, where a time is kept in an atomic.
const NEVER: i64 = i64::MIN;

#[derive(Debug)]
pub(super) struct HostTime {
    wall: Clock,
    /// The wall clock, kept from going back.
    clock: Clock,
    ratchet: Arc<Ratchet>,
    saved_ms: AtomicI64,
    /// When the CA was last heard, by the time of this host.
    heard_ms: AtomicI64,
    skewed: AtomicBool,
    /// How far the wall clock was ahead of the CA's, when the CA last said its time.
    skew_ms: AtomicI64,
}

/// What the CA's time said about this host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) skew: Skew,
    /// Where this host's time was, when it was set back.
    pub(super) was: Option<Timestamp>,
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
    pub(super) fn new(wall: Clock, saved: Option<SavedTime>) -> Self {
        let seen = saved.map(|saved| Timestamp::from_unix_millis(saved.seen_unix_ms));
        let (clock, ratchet) = wall.ratcheted(seen);
        // Heard later than anything was seen is no time that this program wrote.
        let heard = saved.and_then(|saved| Some(saved.ca_heard_unix_ms?.min(saved.seen_unix_ms)));
        Self {
            wall,
            clock,
            ratchet,
            saved_ms: AtomicI64::new(saved.map_or(NEVER, |saved| saved.seen_unix_ms)),
            heard_ms: AtomicI64::new(heard.unwrap_or(NEVER)),
            skewed: AtomicBool::new(false),
            skew_ms: AtomicI64::new(0),
        }
    }

    /// The clock that shows this time.
    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Notes that the CA said something.
    pub(super) fn listened(&self) {
        self.heard_ms.store(self.now().unix_millis(), Ordering::Relaxed);
    }

    /// When the CA was last heard, before a restart too.
    pub(super) fn last_heard(&self) -> Option<Timestamp> {
        let heard = self.heard_ms.load(Ordering::Relaxed);
        (heard != NEVER).then(|| Timestamp::from_unix_millis(heard))
    }

    /// Takes the CA's time into account.
    pub(super) fn heard(&self, ca: Timestamp) -> Compared {
        let wall = self.wall.now();
        let apart = wall.duration_since(ca).max(ca.duration_since(wall));
        let skewed = apart > SKEW_MAX;
        let skew_ms = wall.unix_millis().saturating_sub(ca.unix_millis());
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
        let was = self.now();
        let ahead = was.duration_since(ca) > SKEW_MAX;
        let set_back = ahead && !skewed;
        if set_back {
            self.ratchet.lower(wall.max(ca - TRANSIT));
            // What is on disk is ahead too.
            self.saved_ms.store(NEVER, Ordering::Relaxed);
        } else {
            self.ratchet.raise(ca - TRANSIT);
        }
        self.listened();
        let skew = match (self.skewed.swap(skewed, Ordering::Relaxed), skewed) {
            (false, false) => Skew::Fine,
            (false, true) => Skew::Begun,
            (true, true) => Skew::Still,
            (true, false) => Skew::Ended,
        };
        Compared {
            skew,
            was: set_back.then_some(was),
        }
    }

    /// Whether the wall clock is known to be wrong: it was far from the CA's when the
    /// CA was last heard, or it is behind what this host has seen.
    pub(super) fn skewed(&self) -> bool {
        self.skewed.load(Ordering::Relaxed) || self.behind() > SKEW_MAX
    }

    /// By how many milliseconds the wall clock was ahead of the CA's when the CA last said its time; 0 before that.
    pub(super) fn skew_ms(&self) -> i64 {
        self.skew_ms.load(Ordering::Relaxed)
    }

    /// How far the wall clock is behind this time.
    pub(super) fn behind(&self) -> Duration {
        let wall = self.wall.now();
        self.now().duration_since(wall)
    }

    /// Goes on by what the monotonic clock counted, while the wall clock is behind:
    /// standing still would let everything live until the wall clock is there again.
    pub(super) fn passed(&self, elapsed: Duration) {
        if self.behind() > SKEW_MAX {
            self.ratchet.raise(self.now() + elapsed);
        }
    }

    /// The wall clock, for messages.
    pub(super) fn wall(&self) -> Timestamp {
        self.wall.now()
    }

    /// The time to keep on disk, when it is worth a write.
    pub(super) fn to_save(&self) -> Option<SavedTime> {
        let now = self.now().unix_millis();
        let saved = self.saved_ms.load(Ordering::Relaxed);
        let due = i64::try_from(SAVE_EVERY.as_millis()).unwrap_or(i64::MAX);
        (now.saturating_sub(saved) >= due).then(|| self.to_save_now())
    }

    /// The time to keep on disk, for somebody who writes it in any case.
    pub(super) fn to_save_now(&self) -> SavedTime {
        let now = self.now().unix_millis();
        self.saved_ms.store(now, Ordering::Relaxed);
        let heard = self.heard_ms.load(Ordering::Relaxed);
        SavedTime {
            seen_unix_ms: now,
            ca_heard_unix_ms: (heard != NEVER).then_some(heard),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn saved(seen: i64, heard: Option<i64>) -> SavedTime {
        SavedTime {
            seen_unix_ms: seen * 1000,
            ca_heard_unix_ms: heard.map(|heard| heard * 1000),
        }
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
        let time = HostTime::new(clock, Some(saved(500, None)));
        assert_eq!(time.now(), at(500));
    }

    #[test]
    fn the_time_of_the_ca_counts_less_what_it_was_under_way() {
        let (clock, _hand) = Clock::fixed(at(100));
        let time = HostTime::new(clock, None);
        assert_eq!(time.heard(at(120)).skew, Skew::Fine);
        assert_eq!(time.now(), at(115));
        assert_eq!(time.heard(at(104)).skew, Skew::Fine);
        assert_eq!(time.now(), at(115));
    }

    #[test]
    fn skew_in_either_direction_begins_and_ends_once() {
        let (clock, hand) = Clock::fixed(at(100));
        let time = HostTime::new(clock, None);
        assert_eq!(time.heard(at(130)).skew, Skew::Fine);
        assert_eq!(time.heard(at(131)).skew, Skew::Begun);
        assert!(time.skewed());
        assert_eq!(time.skew_ms(), -31_000);
        assert_eq!(time.heard(at(69)).skew, Skew::Still);
        assert_eq!(time.skew_ms(), 31_000);
        hand.set(at(70));
        assert_eq!(time.heard(at(69)).skew, Skew::Ended);
        assert!(!time.skewed());
    }

    #[test]
    fn time_is_kept_once_a_minute() {
        let (clock, hand) = Clock::fixed(at(100));
        let time = HostTime::new(clock, None);
        assert_eq!(time.to_save(), Some(saved(100, None)));
        hand.set(at(159));
        assert_eq!(time.to_save(), None);
        hand.set(at(160));
        assert_eq!(time.to_save(), Some(saved(160, None)));
    }

    const DAY: i64 = 86_400;

    #[test]
    fn a_clock_that_was_ahead_is_corrected_by_the_ca_once_it_is_right() {
        let (clock, hand) = Clock::fixed(at(100));
        let time = HostTime::new(clock, None);
        hand.set(at(100 + DAY));
        assert_eq!(time.now(), at(100 + DAY));
        let still_ahead = time.heard(at(105));
        assert_eq!((still_ahead.skew, still_ahead.was), (Skew::Begun, None));
        assert_eq!(
            time.now(),
            at(100 + DAY),
            "a CA that the clock does not agree with sets nothing back"
        );
        hand.set(at(110));
        assert_eq!(time.now(), at(100 + DAY), "without the CA it stays ahead");
        assert!(time.skewed());
        let corrected = time.heard(at(110));
        assert_eq!((corrected.skew, corrected.was), (Skew::Ended, Some(at(100 + DAY))));
        assert_eq!((time.now(), time.last_heard()), (at(110), Some(at(110))));
        assert!(!time.skewed());
        assert_eq!(
            time.to_save(),
            Some(saved(110, Some(110))),
            "what is on disk is corrected at once"
        );
    }

    #[test]
    fn a_clock_that_is_back_is_not_right_and_corrects_nothing() {
        let (clock, hand) = Clock::fixed(at(DAY));
        let time = HostTime::new(clock, None);
        assert_eq!(time.now(), at(DAY));
        hand.set(at(0));
        let compared = time.heard(at(DAY - 600));
        assert_eq!((compared.skew, compared.was), (Skew::Begun, None));
        assert_eq!(time.now(), at(DAY));
    }

    #[test]
    fn a_little_ahead_is_waited_for_and_not_set_back() {
        let (clock, hand) = Clock::fixed(at(130));
        let time = HostTime::new(clock, None);
        assert_eq!(time.now(), at(130));
        hand.set(at(100));
        assert_eq!(time.heard(at(100)).was, None);
        assert_eq!(time.now(), at(130));
    }

    #[test]
    fn a_clock_behind_what_was_seen_is_known_without_the_ca() {
        let (clock, hand) = Clock::fixed(at(100));
        let time = HostTime::new(clock, None);
        assert_eq!(time.now(), at(100));
        hand.set(at(70));
        assert!(!time.skewed());
        hand.set(at(69));
        assert!(time.skewed());
    }

    #[test]
    fn time_goes_on_while_the_clock_is_behind_and_only_then() {
        let (clock, hand) = Clock::fixed(at(100));
        let time = HostTime::new(clock, None);
        time.passed(Duration::from_secs(7));
        assert_eq!(time.now(), at(100));
        hand.set(at(70));
        time.passed(Duration::from_secs(7));
        assert_eq!(time.now(), at(100), "so little is not worth it");
        hand.set(at(10));
        time.passed(Duration::from_secs(7));
        time.passed(Duration::from_secs(7));
        assert_eq!(time.now(), at(114));
    }

    #[test]
    fn when_the_ca_was_heard_is_known_after_a_restart_and_never_later_than_now() {
        let (clock, _hand) = Clock::fixed(at(100));
        let time = HostTime::new(clock.clone(), None);
        assert_eq!(time.last_heard(), None);
        time.listened();
        let kept = time.to_save_now();
        assert_eq!(kept, saved(100, Some(100)));
        let later = HostTime::new(clock.clone(), Some(kept));
        assert_eq!(later.last_heard(), Some(at(100)));
        let odd = HostTime::new(clock, Some(saved(50, Some(5000))));
        assert_eq!(odd.last_heard(), Some(at(50)));
    }
}
