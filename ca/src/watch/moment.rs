//! The time that the CA has watched, which is not the time of day.

use std::ops::Sub;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spiffe::time::Timestamp;

/// A longer step of the clock counts as this: the machine slept, the CA was away, or somebody set the clock.
const STEP_MAX: Duration = Duration::from_hours(1);

/// A point in it, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Moment(i64);

impl Moment {
    #[cfg(test)]
    pub(super) const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub(super) const fn millis(self) -> i64 {
        self.0
    }

    pub(super) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

impl Sub for Moment {
    type Output = i64;

    /// Milliseconds.
    fn sub(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Goes on with the clock of the CA, by at most [`STEP_MAX`] at once, and never back. So a clock that is set neither makes
/// days pass, in which everything that was learned would be forgotten, nor stands still until it has caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hours {
    at: Moment,
    wall: Timestamp,
}

impl Hours {
    pub(super) fn begin(now: Timestamp) -> Self {
        Self {
            at: Moment::default(),
            wall: now,
        }
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Moment {
        let passed = now.duration_since(self.wall).min(STEP_MAX);
        self.wall = now;
        self.at = Moment(self.at.0.saturating_add(millis(passed)));
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_clock_that_is_set_takes_an_hour_at_most_and_gives_none() {
        let at = Timestamp::from_unix_millis;
        let mut hours = Hours::begin(at(0));
        for (wall, watched) in [
            (1_000, 1_000),
            (1_000 - 7 * HOUR, 1_000),
            (2_000 - 7 * HOUR, 2_000),
            (2_000 - 6 * HOUR, 2_000 + HOUR),
            (9_000 * HOUR, 2_000 + 2 * HOUR),
            (9_000 * HOUR + 500, 2_500 + 2 * HOUR),
        ] {
            assert_eq!(hours.tick(at(wall)).millis(), watched, "{wall}");
        }
    }
}
