//! How often a caller may call: limits, and the buckets that count by them.

mod bucket;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::rule::{RuleId, Subject};
use crate::source::Place;

pub use bucket::{Bucket, Spent};

/// The most calls that a rate or a burst says.
pub(crate) const CALLS_MAX: u32 = 1_000_000;

/// The time that a rate is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Per {
    Second,
    Minute,
    Hour,
}

/// So many calls in so much time, as `10/s`, `600/m` or `5000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    calls: u32,
    per: Per,
}

impl Rate {
    /// Reads a rate of 1 to 1 000 000 calls, or gives `None` when the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (calls, per) = text.split_once('/')?;
        let per = match per {
            "s" => Per::Second,
            "m" => Per::Minute,
            "h" => Per::Hour,
            _ => return None,
        };
        if calls.is_empty() || !calls.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let calls = calls.parse().ok().filter(|calls| (1..=CALLS_MAX).contains(calls))?;
        Some(Self { calls, per })
    }

    /// Gives the time that the rate is over, in milliseconds.
    const fn millis(self) -> i128 {
        match self.per {
            Per::Second => 1_000,
            Per::Minute => 60_000,
            Per::Hour => 3_600_000,
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Per::Second => 's',
            Per::Minute => 'm',
            Per::Hour => 'h',
        };
        write!(f, "{}/{per}", self.calls)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a limit grants: calls at a rate, and so many at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Allowance {
    /// How fast calls become possible again.
    pub rate: Rate,
    /// How many are possible at once; at least one.
    pub burst: u32,
}

/// One limit. Its id is the key that it is kept under, and no rule has the same.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) from: Vec<Subject>,
    pub(crate) to: Vec<Subject>,
    pub(crate) allowance: Allowance,
    pub(crate) place: Place,
}

impl PartialEq for Limit {
    /// Compares what the limit says, not where it stands.
    fn eq(&self, other: &Self) -> bool {
        (&self.from, &self.to, self.allowance) == (&other.from, &other.to, other.allowance)
    }
}

/// A limit, as people are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitAbout {
    /// Its id.
    pub limit: RuleId,
    /// Where it stands.
    pub at: Place,
    /// What it grants each caller.
    #[serde(flatten)]
    pub allowance: Allowance,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_whole_number_of_calls_in_a_second_a_minute_or_an_hour() {
        for (text, millis) in [("1/s", 1_000), ("10/m", 60_000), ("1000000/h", 3_600_000)] {
            let rate = Rate::parse(text).unwrap();
            assert_eq!((rate.to_string().as_str(), rate.millis()), (text, millis));
            assert_eq!(serde_json::to_value(rate).unwrap(), text);
        }
        for text in [
            "",
            "/s",
            "10",
            "10/",
            "10/d",
            "10/S",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "1000001/s",
            "99999999999/s",
            " 1/s",
            "1/ s",
            "10/s/s",
        ] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }
}
