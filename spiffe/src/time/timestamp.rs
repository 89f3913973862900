use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// A point in time: milliseconds since the Unix epoch, without leap seconds.
///
/// The range is that of RFC 3339, the years 0000 to 9999. Everything outside saturates, so that every value can be
/// written and read back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Says why a text is not a timestamp.
#[derive(Debug, Error)]
#[error("{text:?} is not an RFC 3339 time such as 2026-12-01T18:00:00Z")]
pub struct TimeError {
    text: String,
    #[source]
    source: time::error::Parse,
}

const MIN_MILLIS: i64 = -62_167_219_200_000;
const MAX_MILLIS: i64 = 253_402_300_799_999;

impl Timestamp {
    /// 0000-01-01T00:00:00.000Z, the earliest time that RFC 3339 can write.
    pub const MIN: Self = Self(MIN_MILLIS);
    /// 9999-12-31T23:59:59.999Z, the latest time that RFC 3339 can write.
    pub const MAX: Self = Self(MAX_MILLIS);

    /// Makes a timestamp from milliseconds since the Unix epoch, saturating.
    pub const fn from_unix_millis(millis: i64) -> Self {
        match millis {
            ..MIN_MILLIS => Self::MIN,
            MIN_MILLIS..=MAX_MILLIS => Self(millis),
            _ => Self::MAX,
        }
    }

    /// Makes a timestamp from seconds since the Unix epoch, saturating.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_unix_millis(seconds.saturating_mul(1000))
    }

    /// Gives milliseconds since the Unix epoch, negative before it.
    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    /// Gives whole seconds since the Unix epoch, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Parses an RFC 3339 time with any offset; what is finer than a millisecond is cut off.
    ///
    /// # Errors
    /// When `text` is not of that form.
    pub fn from_rfc3339(text: &str) -> Result<Self, TimeError> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|source| TimeError {
            text: text.chars().take(64).collect(),
            source,
        })?;
        let millis = parsed.unix_timestamp_nanos().div_euclid(1_000_000);
        // Years have four digits, so the value is far inside an i64.
        Ok(Self::from_unix_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
    }

    /// Gives how long after `earlier` this is: zero when it is not after.
    pub fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Adds, saturating at [`Timestamp::MAX`]; a part of a millisecond is cut off.
    fn add(self, duration: Duration) -> Self {
        Self::from_unix_millis(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    /// Subtracts, saturating at [`Timestamp::MIN`]; a part of a millisecond is cut off.
    fn sub(self, duration: Duration) -> Self {
        Self::from_unix_millis(
            self.0
                .saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339 in UTC, always with three digits of a second and `Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|moment| moment.format(form).ok())
            .ok_or(fmt::Error)?;
        f.write_str(&moment)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_rfc3339(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}
