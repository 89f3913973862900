//! After so many failures in a row calls are refused at once for a while; then one call tries, and what comes of it
//! decides.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How long it stays open at first.
const FIRST: Duration = Duration::from_secs(1);

/// How long at most.
const MOST: Duration = Duration::from_secs(30);

/// A circuit breaker. Times are since the start of the process.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures in a row.
    failures: AtomicU32,
    /// How often it has opened since a call succeeded.
    opened: AtomicU32,
    /// In milliseconds; 0 when it is closed.
    until_ms: AtomicU64,
}

/// A call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// As every call.
    Usual,
    /// It tries whether calls succeed again.
    Trial,
}

impl Breaker {
    /// Lets a call through, or says for how long none is.
    pub(super) fn admit(&self, now: Duration) -> Result<Pass, Duration> {
        let until = self.until_ms.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(Pass::Usual);
        }
        let left = Duration::from_millis(until).saturating_sub(now);
        if !left.is_zero() {
            return Err(left);
        }
        // Half open: one tries, and another one after as long again, for the first may hang.
        let length = length(self.opened.load(Ordering::Relaxed));
        self.until_ms
            .compare_exchange(until, millis(now + length), Ordering::Relaxed, Ordering::Relaxed)
            .map(|_was| Pass::Trial)
            .map_err(|_other| length)
    }

    /// For how long it refuses calls; nothing where it lets them through.
    pub(super) fn open_for(&self, now: Duration) -> Option<Duration> {
        let until = Duration::from_millis(self.until_ms.load(Ordering::Relaxed));
        until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Notes a call that succeeded.
    pub(super) fn worked(&self) {
        // Most calls succeed after one that did, and write nothing.
        if self.failures.load(Ordering::Relaxed) == 0 && self.until_ms.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.failures.store(0, Ordering::Relaxed);
        self.opened.store(0, Ordering::Relaxed);
        self.until_ms.store(0, Ordering::Relaxed);
    }

    /// Notes a call that failed; with `most` of them in a row it opens, with 0 never. Says whether it did.
    pub(super) fn failed(&self, now: Duration, pass: Pass, most: u32) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let until = self.until_ms.load(Ordering::Relaxed);
        // A call that began before it opened tells nothing new.
        let opens = match pass {
            Pass::Usual => until == 0 && failures >= most,
            Pass::Trial => true,
        };
        if most == 0 || !opens {
            return false;
        }
        let opened = self.opened.load(Ordering::Relaxed).saturating_add(1);
        let next = millis(now + length(opened)).max(1);
        let opens = self
            .until_ms
            .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if opens {
            self.opened.store(opened, Ordering::Relaxed);
        }
        opens
    }
}

/// How long it stays open, having opened so often.
fn length(opened: u32) -> Duration {
    FIRST.saturating_mul(1 << opened.saturating_sub(1).min(8)).min(MOST)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failed(breaker: &Breaker, times: u32, now: Duration) -> Vec<bool> {
        (0..times).map(|_| breaker.failed(now, Pass::Usual, 5)).collect()
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let breaker = Breaker::default();
        assert_eq!(failed(&breaker, 4, SECOND), [false; 4]);
        breaker.worked();
        assert_eq!(failed(&breaker, 5, SECOND), [false, false, false, false, true]);
        assert_eq!(breaker.admit(SECOND), Err(SECOND));
        assert_eq!(breaker.open_for(SECOND), Some(SECOND));
    }

    #[test]
    fn one_call_tries_and_what_comes_of_it_decides() {
        let breaker = Breaker::default();
        failed(&breaker, 5, SECOND);
        assert_eq!(breaker.admit(2 * SECOND), Ok(Pass::Trial));
        assert_eq!(breaker.admit(2 * SECOND), Err(SECOND), "the others wait for it");
        assert!(breaker.failed(2 * SECOND, Pass::Trial, 5));
        assert_eq!(breaker.admit(2 * SECOND), Err(2 * SECOND), "twice as long");
        assert_eq!(breaker.admit(4 * SECOND), Ok(Pass::Trial));
        breaker.worked();
        assert_eq!(breaker.admit(4 * SECOND), Ok(Pass::Usual));
        assert_eq!(failed(&breaker, 5, 4 * SECOND).last(), Some(&true));
        assert_eq!(breaker.admit(4 * SECOND), Err(SECOND), "and it begins anew");
    }

    #[test]
    fn calls_that_began_before_it_opened_do_not_open_it_again_or_longer() {
        let breaker = Breaker::default();
        assert_eq!(
            failed(&breaker, 100, SECOND).iter().filter(|opened| **opened).count(),
            1
        );
        assert_eq!(breaker.admit(SECOND), Err(SECOND));
    }

    #[test]
    fn a_trial_that_hangs_is_followed_by_another_and_0_never_opens() {
        let breaker = Breaker::default();
        failed(&breaker, 5, SECOND);
        assert_eq!(breaker.admit(2 * SECOND), Ok(Pass::Trial));
        assert_eq!(breaker.admit(3 * SECOND), Ok(Pass::Trial));
        let never = Breaker::default();
        assert!((0..100).all(|_| !never.failed(SECOND, Pass::Usual, 0)));
        assert_eq!(never.admit(SECOND), Ok(Pass::Usual));
    }

    proptest! {
        #[test]
        fn it_is_never_open_for_longer_than_the_most_and_a_success_closes_it(
            steps in proptest::collection::vec((0_u32..40_000, any::<bool>()), 0..60),
        ) {
            let (breaker, mut now) = (Breaker::default(), Duration::ZERO);
            for (wait, works) in steps {
                now += Duration::from_millis(wait.into());
                match breaker.admit(now) {
                    Ok(_) if works => breaker.worked(),
                    Ok(pass) => drop(breaker.failed(now, pass, 3)),
                    Err(wait) => prop_assert!(wait <= MOST && wait > Duration::ZERO),
                }
            }
            breaker.worked();
            prop_assert_eq!(breaker.admit(now), Ok(Pass::Usual));
        }
    }
}
