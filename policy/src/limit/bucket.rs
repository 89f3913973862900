//! The bucket of one caller under one limit.
//!
//! A virtual clock (GCRA), not a count that a timer fills: the state is the moment at which the bucket will be full again.
//! Times are whole: a millisecond is as many units as the rate has calls, so a call costs as many units as the rate's time
//! has milliseconds, and no rate is rounded.

use std::time::Duration;

use spiffe::time::Timestamp;

use super::Allowance;

/// How much a caller has used of an allowance.
///
/// A bucket that was never used is full, and one that is full again is as one that was never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    allowance: Allowance,
    /// When it is full again, in milliseconds times the calls of the rate.
    full_at: i128,
}

/// The bucket holds no whole call at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spent {
    /// When it will, if nothing is taken meanwhile; at least one millisecond.
    pub wait: Duration,
}

impl Bucket {
    /// A full one.
    pub const fn full(allowance: Allowance) -> Self {
        Self {
            allowance,
            full_at: i128::MIN,
        }
    }

    /// Gives the bucket after one call at `now`; the caller keeps it if the call is made.
    ///
    /// `allowance` is the limit's own at the moment: where it has changed, what was used stays used, at most the whole.
    ///
    /// # Errors
    /// With [`Spent`] when there is no whole call in it.
    pub fn take(&self, now: Timestamp, allowance: Allowance) -> Result<Self, Spent> {
        let (cost, whole) = (allowance.cost(), allowance.whole());
        let used = self.used_of(now, allowance) + cost;
        if used > whole {
            let units = allowance.calls();
            // Rounded up: who waits so long is let in.
            let millis = (used - whole + units - 1) / units;
            return Err(Spent {
                wait: Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)),
            });
        }
        Ok(Self {
            allowance,
            full_at: allowance.units(now) + used,
        })
    }

    /// Says whether it is full, and need not be kept.
    pub fn is_full(&self, now: Timestamp) -> bool {
        self.full_at <= self.allowance.units(now)
    }

    /// What is used of an allowance that may be another than the one it was counted by.
    fn used_of(&self, now: Timestamp, allowance: Allowance) -> i128 {
        if self.is_full(now) {
            return 0;
        }
        let used = self.full_at - self.allowance.units(now);
        // In calls: what a call costs depends on the rate. Rounded up, for a change is no refill.
        let old = self.allowance.cost();
        let used = (used * allowance.cost() + old - 1) / old;
        // Nobody can have used more than the whole: the time was set back, or the burst is smaller now.
        used.min(allowance.whole())
    }
}

impl Allowance {
    /// A moment in the units of the rate.
    fn units(self, now: Timestamp) -> i128 {
        i128::from(now.unix_millis()) * self.calls()
    }

    fn calls(self) -> i128 {
        i128::from(self.rate.calls)
    }

    /// What one call costs.
    const fn cost(self) -> i128 {
        self.rate.millis()
    }

    /// What a full bucket holds.
    fn whole(self) -> i128 {
        i128::from(self.burst) * self.cost()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit::Rate;

    fn allowance(rate: &str, burst: u32) -> Allowance {
        Allowance {
            rate: Rate::parse(rate).unwrap(),
            burst,
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    /// Takes one call; says how many milliseconds are to wait, or 0.
    fn take(bucket: &mut Bucket, now: i64, allowance: Allowance) -> u128 {
        match bucket.take(at(now), allowance) {
            Ok(next) => {
                *bucket = next;
                0
            }
            Err(spent) => spent.wait.as_millis(),
        }
    }

    #[test]
    fn a_burst_is_let_in_at_once_and_then_one_call_for_each_that_the_rate_gives_back() {
        let ten = allowance("10/s", 3);
        let mut bucket = Bucket::full(ten);
        let waits: Vec<_> = [0, 0, 0, 0, 99, 100, 100, 350, 350, 350]
            .map(|now| take(&mut bucket, now, ten))
            .into();
        assert_eq!(waits, [0, 0, 0, 100, 1, 0, 100, 0, 0, 50]);
        assert!(!bucket.is_full(at(599)) && bucket.is_full(at(600)));
    }

    #[test]
    fn no_rate_is_rounded() {
        let three = allowance("3/s", 1);
        let mut bucket = Bucket::full(three);
        // A third of a second is no whole number of milliseconds; three of them are.
        assert_eq!(take(&mut bucket, 0, three), 0);
        assert_eq!(take(&mut bucket, 333, three), 1);
        let mut let_in = 0;
        for now in 1..=3_000 {
            let_in += u32::from(take(&mut bucket, now, three) == 0);
        }
        assert_eq!(
            let_in, 8,
            "each waits for a whole millisecond: 334, 668, 1002 and so on"
        );
        let mut slow = Bucket::full(allowance("7/h", 1));
        assert_eq!(take(&mut slow, 0, allowance("7/h", 1)), 0);
        assert_eq!(take(&mut slow, 0, allowance("7/h", 1)), 514_286);
    }

    #[test]
    fn a_change_of_the_limit_is_no_refill_and_no_debt_beyond_the_whole() {
        let (old, new) = (allowance("10/s", 20), allowance("10/m", 5));
        let mut bucket = Bucket::full(old);
        for _ in 0..20 {
            assert_eq!(take(&mut bucket, 0, old), 0);
        }
        assert_eq!(take(&mut bucket, 0, new), 6_000, "empty stays empty, at the new rate");
        let mut half = Bucket::full(old);
        for _ in 0..3 {
            take(&mut half, 0, old);
        }
        assert_eq!(
            [
                take(&mut half, 0, new),
                take(&mut half, 0, new),
                take(&mut half, 0, new)
            ],
            [0, 0, 6_000],
            "three of five are used"
        );
    }

    #[test]
    fn a_clock_that_is_set_back_costs_at_most_one_whole_bucket() {
        let ten = allowance("10/s", 5);
        let mut bucket = Bucket::full(ten);
        assert_eq!(take(&mut bucket, 86_400_000, ten), 0);
        assert_eq!(take(&mut bucket, 0, ten), 100);
        assert_eq!(
            take(&mut bucket, 100, ten),
            100,
            "nothing was taken, so nothing was moved"
        );
        let mut kept = Bucket::full(ten);
        assert_eq!(take(&mut kept, 1_000, ten), 0);
        assert_eq!(take(&mut kept, 900, ten), 0, "a little back is a little used");
    }

    proptest! {
        /// Against a count in whole calls that time fills, in exact fractions.
        #[test]
        fn a_bucket_counts_as_one_that_time_fills(
            calls in 1..50_u32, per in 0..3_usize, burst in 1..20_u32,
            steps in proptest::collection::vec((0..400_i64, 1..4_usize), 1..60),
        ) {
            let (unit, millis) = [("s", 1_000_i128), ("m", 60_000), ("h", 3_600_000)][per];
            let allowance = allowance(&format!("{calls}/{unit}"), burst);
            let whole = i128::from(burst) * millis;
            let (mut bucket, mut left, mut now, mut last) = (Bucket::full(allowance), whole, 1_700_000_000_000, 0);
            for (step, asks) in steps {
                // Steps of all sizes, in the rate's own measure.
                now += step * i64::try_from(millis).unwrap() / 1_000;
                for _ in 0..asks {
                    left = whole.min(left + i128::from(now - last) * i128::from(calls));
                    last = now;
                    let wait = take(&mut bucket, now, allowance);
                    if left >= millis {
                        left -= millis;
                        prop_assert_eq!(wait, 0);
                    } else {
                        let lacks = millis - left;
                        let wait = i128::try_from(wait).unwrap() * i128::from(calls);
                        prop_assert!(wait >= lacks && wait - i128::from(calls) < lacks, "{} of {}", wait, lacks);
                    }
                    prop_assert_eq!(bucket.is_full(at(now)), left == whole);
                }
            }
        }
    }
}
