//! How many calls may be sent again: a share of the calls that are made, and a few more, so that retries never become
//! the load that keeps a callee down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One retry in so many calls.
const CALLS_PER_RETRY: u64 = 5;

/// And so many in a second, for callers that call seldom.
const PER_SECOND: u64 = 10;

/// The most that are saved up.
const SAVED_MOST: u64 = 200;

/// What is left of a budget.
#[derive(Debug, Default)]
pub(super) struct Budget {
    calls: AtomicU64,
    left: Mutex<Left>,
}

/// In thousandths of a retry, as of `at`, a time since the start of the process, and `calls`.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    thousandths: u64,
    calls: u64,
    at: Duration,
}

impl Default for Left {
    fn default() -> Self {
        Self {
            thousandths: PER_SECOND * 1_000,
            calls: 0,
            at: Duration::ZERO,
        }
    }
}

impl Budget {
    /// Counts a call; all that a call without a retry costs.
    pub(super) fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a retry out of the budget, if there is one left.
    pub(super) fn take(&self, now: Duration) -> bool {
        let calls = self.calls.load(Ordering::Relaxed);
        // A thread that panicked while it held the lock left a whole value.
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.take(now, calls)
    }
}

impl Left {
    fn take(&mut self, now: Duration, calls: u64) -> bool {
        let by_calls = calls.saturating_sub(self.calls).saturating_mul(1_000 / CALLS_PER_RETRY);
        let elapsed = now.saturating_sub(self.at).as_millis();
        let by_time = u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_mul(PER_SECOND);
        let saved = self.thousandths.saturating_add(by_calls).saturating_add(by_time);
        (self.calls, self.at) = (calls.max(self.calls), now.max(self.at));
        let saved = saved.min(SAVED_MOST * 1_000);
        let taken = saved.checked_sub(1_000);
        self.thousandths = taken.unwrap_or(saved);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fifth_of_the_calls_and_ten_a_second_may_be_sent_again() {
        let budget = Budget::default();
        let taken = |now| (0..1_000).filter(|_| budget.take(now)).count();
        assert_eq!(taken(Duration::ZERO), 10);
        (0..100).for_each(|_| budget.called());
        assert_eq!(taken(Duration::ZERO), 20);
        assert_eq!(taken(Duration::from_secs(1)), 10);
        (0..1_000_000).for_each(|_| budget.called());
        assert_eq!(taken(Duration::from_secs(1)), 200, "no more are saved up");
        assert_eq!(taken(Duration::ZERO), 0, "a moment that is read late gives nothing");
    }

    proptest! {
        #[test]
        fn retries_never_exceed_the_share_and_the_few(
            steps in proptest::collection::vec((0_u64..3_000, 0_u64..200, 0_u64..300), 1..40),
        ) {
            let (mut left, mut now, mut calls, mut taken) = (Left::default(), Duration::ZERO, 0, 0);
            for (wait, more, wanted) in steps {
                now += Duration::from_millis(wait);
                calls += more;
                taken += (0..wanted).filter(|_| left.take(now, calls)).count() as u128;
                let most = PER_SECOND as u128 + calls as u128 / 5 + now.as_millis() * 10 / 1_000 + 1;
                prop_assert!(taken <= most, "{taken} of {most}");
            }
        }
    }
}
