//! How long to wait before the CA is asked again: decorrelated jitter.

use std::time::Duration;

use aws_lc_rs::rand;

/// The first wait, at least.
const SHORTEST: Duration = Duration::from_millis(200);

/// The longest wait: how late a host may notice that the CA is back.
const LONGEST: Duration = Duration::from_secs(30);

/// The wait that comes next. Each is drawn between the shortest and three times
/// the last, so that hosts that lost the CA together do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    last: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { last: SHORTEST }
    }

    /// Starts over, after a success.
    pub(super) const fn reset(&mut self) {
        self.last = SHORTEST;
    }

    /// Draws the next wait.
    pub(super) fn next(&mut self) -> Duration {
        self.last = drawn(self.last, random_u32());
        self.last
    }
}

fn drawn(last: Duration, random: u32) -> Duration {
    let ceiling = last.saturating_mul(3).min(LONGEST);
    let span = ceiling.saturating_sub(SHORTEST);
    SHORTEST + span.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A random number for spreading; where the system has no randomness, the number
/// in the middle spreads nothing and breaks nothing.
pub(super) fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    match rand::fill(&mut bytes) {
        Ok(()) => u32::from_be_bytes(bytes),
        Err(_no_randomness) => u32::MAX / 2,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_over_after_a_success() {
        let mut wait = SHORTEST;
        for _ in 0..20 {
            wait = drawn(wait, u32::MAX);
        }
        assert_eq!(wait, LONGEST);
        let mut backoff = Backoff { last: LONGEST };
        backoff.reset();
        assert!(backoff.next() <= SHORTEST * 3);
    }

    #[test]
    fn two_hosts_do_not_wait_the_same() {
        assert_ne!(drawn(LONGEST, 1), drawn(LONGEST, u32::MAX / 2));
    }

    proptest! {
        #[test]
        fn every_wait_is_within_its_bounds(last_ms in 200u64..30_000, random in any::<u32>()) {
            let wait = drawn(Duration::from_millis(last_ms), random);
            prop_assert!(wait >= SHORTEST && wait <= LONGEST);
        }
    }
}
