//! How long an endpoint takes to answer: a moving average that believes a slow answer at once and fast ones by and by
//! (peak-EWMA, as in Finagle and linkerd). What was seen loses its weight with time, so that an endpoint that was slow
//! once is asked again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After this long what was seen has 37 % of its weight.
const DECAY: Duration = Duration::from_secs(10);

/// The average and when it was written, in one word: 32 bits of microseconds, 32 bits of milliseconds.
#[derive(Debug)]
pub(super) struct PeakEwma(AtomicU64);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    average: Duration,
    at_ms: u32,
}

impl PeakEwma {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// What it is at `now`, a time since the start of the process.
    pub(super) fn at(&self, now: Duration) -> Duration {
        let held = Held::from_bits(self.0.load(Ordering::Relaxed));
        held.average.mul_f64(held.weight(now))
    }

    /// Takes into account an answer that took this long.
    pub(super) fn saw(&self, now: Duration, took: Duration) {
        self.change(|held| held.after(now, took));
    }

    /// Takes into account that an answer took longer than this, and nothing else.
    pub(super) fn saw_at_least(&self, now: Duration, took: Duration) {
        self.change(|held| {
            let slower = took > held.average.mul_f64(held.weight(now));
            if slower { held.after(now, took) } else { held }
        });
    }

    fn change(&self, next: impl Fn(Held) -> Held) {
        let next = |bits| Some(next(Held::from_bits(bits)).to_bits());
        // It always gives a next value.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .unwrap_or_default();
    }
}

impl Held {
    fn after(self, now: Duration, took: Duration) -> Self {
        let weight = self.weight(now);
        let average = if took >= self.average {
            took
        } else {
            self.average.mul_f64(weight) + took.mul_f64(1.0 - weight)
        };
        Self {
            average,
            at_ms: low_millis(now),
        }
    }

    /// From 1 down to 0. A clock that threads read in another order than they write is taken as standing still.
    fn weight(self, now: Duration) -> f64 {
        let elapsed = low_millis(now).wrapping_sub(self.at_ms);
        let elapsed = if elapsed > u32::MAX / 2 { 0 } else { elapsed };
        (-f64::from(elapsed) / DECAY.as_secs_f64() / 1_000.0).exp()
    }

    const fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = bits.to_be_bytes();
        Self {
            average: Duration::from_micros(u32::from_be_bytes([a, b, c, d]) as u64),
            at_ms: u32::from_be_bytes([e, f, g, h]),
        }
    }

    fn to_bits(self) -> u64 {
        let micros = u32::try_from(self.average.as_micros()).unwrap_or(u32::MAX);
        u64::from(micros) << 32 | u64::from(self.at_ms)
    }
}

/// The low half of a number of milliseconds: it comes round after 49 days, and differences stay right.
fn low_millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis() & u128::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_answer_is_believed_at_once_and_fast_ones_by_and_by() {
        let ewma = PeakEwma::new();
        ewma.saw(MS, 2 * MS);
        assert_eq!(ewma.at(MS), 2 * MS);
        ewma.saw(MS, 400 * MS);
        assert_eq!(ewma.at(MS), 400 * MS);
        ewma.saw(100 * MS, MS);
        let after_one = ewma.at(100 * MS);
        assert!(after_one > 390 * MS && after_one < 400 * MS, "{after_one:?}");
        let now = 100 * MS + DECAY;
        ewma.saw(now, MS);
        let later = ewma.at(now);
        assert!(later > 140 * MS && later < 150 * MS, "{later:?}");
        assert!(ewma.at(now + 10 * DECAY) < MS, "what is not asked is forgotten");
    }

    #[test]
    fn a_call_that_was_given_up_raises_the_average_and_never_lowers_it() {
        let ewma = PeakEwma::new();
        ewma.saw(MS, 20 * MS);
        ewma.saw_at_least(MS, 5 * MS);
        assert_eq!(ewma.at(MS), 20 * MS);
        ewma.saw_at_least(MS, 30_000 * MS);
        assert_eq!(ewma.at(MS), 30_000 * MS);
    }

    proptest! {
        #[test]
        fn it_stays_between_nothing_and_the_slowest_answer(
            seen in proptest::collection::vec((0_u32..5_000, 0_u32..60_000), 1..40),
        ) {
            let (ewma, mut now, mut most) = (PeakEwma::new(), Duration::ZERO, Duration::ZERO);
            for (wait, took) in seen {
                now += wait * MS;
                let took = took * MS;
                most = most.max(took);
                ewma.saw(now, took);
                prop_assert!(ewma.at(now) <= most);
                prop_assert!(ewma.at(now + MS) <= ewma.at(now));
            }
        }

        #[test]
        fn bits_come_back(micros: u32, at_ms: u32) {
            let held = Held { average: Duration::from_micros(micros.into()), at_ms };
            prop_assert_eq!(Held::from_bits(held.to_bits()), held);
        }
    }
}
