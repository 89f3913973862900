//! How long to wait before a request is sent again.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// The first wait, and the longest without a word of the server.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// The longest wait that a server is believed.
const ASKED_MAX: Duration = Duration::from_secs(300);

/// Waits that get longer while nothing is taken (OTLP specification, "OTLP/HTTP Throttling": exponential, with jitter).
#[derive(Debug, Default)]
pub(super) struct Pace {
    tries: u32,
}

impl Pace {
    /// Something was taken.
    pub(super) const fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next wait. `asked` is what the server wants, and `random` spreads those that were cut off together.
    pub(super) fn next(&mut self, asked: Option<Duration>, random: u64) -> Duration {
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(self.tries)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        let share = f64::from(u32::try_from(random >> 32).unwrap_or_default()) / f64::from(u32::MAX);
        let part = |of: Duration| of.mul_f64(share);
        let own = doubled / 2 + part(doubled / 2);
        let asked = asked.unwrap_or_default().min(ASKED_MAX);
        own.max(asked.saturating_add(part(asked / 10)))
    }
}

/// A number that nobody has to be unable to guess.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_are_spread_over_half_of_it() {
        let waits = |random| {
            let mut pace = Pace::default();
            (0..9).map(|_| pace.next(None, random).as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(
            waits(u64::MAX),
            [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000]
        );
        assert_eq!(waits(0), [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000, 15_000]);
        let mut pace = Pace::default();
        pace.next(None, 0);
        pace.next(None, 0);
        pace.reset();
        assert_eq!(pace.next(None, 0).as_millis(), 500);
    }

    #[test]
    fn a_server_is_waited_for_as_long_as_it_asks_within_bounds() {
        let wait = |seconds, random| {
            Pace::default()
                .next(Some(Duration::from_secs(seconds)), random)
                .as_secs()
        };
        assert_eq!(wait(20, 0), 20);
        assert_eq!(wait(20, u64::MAX), 22);
        assert_eq!(wait(1_000_000, u64::MAX), 330);
        assert_eq!(wait(0, u64::MAX), 1, "a server cannot ask for haste");
    }

    #[test]
    fn two_numbers_differ() {
        assert_ne!(random(), random());
    }
}
