//! An endpoint that could not be connected to is left out for a while, longer each time. When the time is over one call
//! tries it; the others wait for what comes of that.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How long it is left out at first.
const FIRST: Duration = Duration::from_secs(1);

/// How long at most: a host that is back is found again within this time.
const MOST: Duration = Duration::from_secs(30);

/// How long whoever tries it again has before another does.
const TRIAL: Duration = Duration::from_secs(5);

/// Whether an endpoint is left out. Times are since the start of the process.
#[derive(Debug)]
pub(super) struct Ejection {
    failures: AtomicU32,
    /// In milliseconds; 0 when it is not left out.
    until_ms: AtomicU64,
}

/// What an endpoint is to whoever looks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is used.
    Used,
    /// It was left out for long enough: one may try it.
    Due,
    /// It is left out until then.
    Out(Duration),
}

impl Ejection {
    pub(super) const fn new() -> Self {
        Self {
            failures: AtomicU32::new(0),
            until_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn at(&self, now: Duration) -> Standing {
        match self.until_ms.load(Ordering::Relaxed) {
            0 => Standing::Used,
            until => {
                let until = Duration::from_millis(until);
                if until <= now {
                    Standing::Due
                } else {
                    Standing::Out(until)
                }
            }
        }
    }

    /// How often it failed since the start or since it worked last.
    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Takes the trial that is due, unless another has.
    pub(super) fn claim(&self, now: Duration) -> bool {
        let until = self.until_ms.load(Ordering::Relaxed);
        let due = until != 0 && Duration::from_millis(until) <= now;
        due && self
            .until_ms
            .compare_exchange(until, millis(now + TRIAL), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Notes that nobody could connect. Says whether it was used until now.
    pub(super) fn failed(&self, now: Duration, random: u64) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let until = millis(now + backoff(failures, random)).max(1);
        self.until_ms.swap(until, Ordering::Relaxed) == 0
    }

    /// Notes that a connection was made. Says whether it was left out until now.
    pub(super) fn worked(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) == 0 && self.until_ms.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        self.until_ms.swap(0, Ordering::Relaxed) != 0
    }
}

/// How long it is left out after so many failures in a row: twice as long each time, less up to a quarter, so that the
/// proxies of a mesh do not all come back at once.
fn backoff(failures: u32, random: u64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(MOST);
    let quarter = doubled / 4;
    let less = u64::try_from(quarter.as_millis()).map_or(0, |most| random % most.saturating_add(1));
    doubled - Duration::from_millis(less)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_left_out_for_a_while_and_then_one_tries_it() {
        let ejection = Ejection::new();
        assert_eq!(ejection.at(SECOND), Standing::Used);
        assert!(!ejection.claim(SECOND), "nothing is due");
        assert!(ejection.failed(SECOND, 0));
        assert_eq!(ejection.at(SECOND), Standing::Out(2 * SECOND));
        assert!(!ejection.claim(SECOND));
        assert_eq!(ejection.at(2 * SECOND), Standing::Due);
        assert!(ejection.claim(2 * SECOND));
        assert!(!ejection.claim(2 * SECOND), "one tries it");
        assert!(matches!(ejection.at(3 * SECOND), Standing::Out(_)));
        assert!(!ejection.failed(3 * SECOND, 0), "it was out already");
        assert_eq!(ejection.at(3 * SECOND), Standing::Out(5 * SECOND), "twice as long");
        assert!(ejection.worked());
        assert!(!ejection.worked());
        assert_eq!((ejection.at(3 * SECOND), ejection.failures()), (Standing::Used, 0));
        assert!(ejection.failed(3 * SECOND, 0), "and it begins anew");
        assert_eq!(ejection.at(3 * SECOND), Standing::Out(4 * SECOND));
    }

    #[test]
    fn a_trial_that_comes_to_nothing_is_followed_by_another() {
        let ejection = Ejection::new();
        ejection.failed(SECOND, 0);
        assert!(ejection.claim(2 * SECOND));
        assert!(ejection.claim(2 * SECOND + TRIAL), "whoever tried it has left");
    }

    proptest! {
        #[test]
        fn it_is_never_left_out_for_longer_than_the_most(failures in 1_u32.., random: u64) {
            let out = backoff(failures, random);
            prop_assert!(out <= MOST && out >= FIRST * 3 / 4);
        }
    }
}
