//! Lengths of time and sizes, as people write them: a whole number and a unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

const SPAN_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("ms", 1),
    ("m", 60_000),
    ("s", 1000),
];

const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A length of time with its unit: `100ms`, `30s`, `15m`, `4h`, `90d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// The length.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

/// What is wrong with the text of a [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a length of time: write a whole number and ms, s, m, h or d, as in 100ms")]
pub struct SpanError {
    text: String,
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        match whole(text, &SPAN_UNITS) {
            Some(millis) => Ok(Self(Duration::from_millis(millis))),
            None => Err(SpanError { text: shown(text) }),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}

/// A size with its unit: `512MiB`, `20GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// What is wrong with the text of a [`ByteSize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a size: write a whole number and B, KiB, MiB, GiB or TiB, as in 20GiB")]
pub struct ByteSizeError {
    text: String,
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        match whole(text, &SIZE_UNITS) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(ByteSizeError { text: shown(text) }),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}

/// A number without a unit is refused: nobody can see whether it means seconds.
fn whole(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    // `u64::from_str` would take a sign.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

fn shown(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(text: &str) -> Option<Duration> {
        text.parse::<Span>().ok().map(Span::duration)
    }

    fn size(text: &str) -> Option<u64> {
        text.parse::<ByteSize>().ok().map(ByteSize::bytes)
    }

    #[test]
    fn spans_are_a_whole_number_and_a_unit() {
        assert_eq!(span("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(span("30s"), Some(Duration::from_secs(30)));
        assert_eq!(span("15m"), Some(Duration::from_secs(900)));
        assert_eq!(span("4h"), Some(Duration::from_secs(14_400)));
        assert_eq!(span("90d"), Some(Duration::from_secs(90 * 86_400)));
    }

    #[test]
    fn spans_of_any_other_form_are_refused() {
        for text in [
            "",
            "100",
            "ms",
            "1.5s",
            "-1s",
            "+1s",
            "1 s",
            "1S",
            "1w",
            "1h30m",
            "99999999999999999999d",
        ] {
            assert_eq!(span(text), None, "{text}");
        }
        assert_eq!(
            span("18446744073709551615d"),
            None,
            "a product that does not fit is refused"
        );
    }

    #[test]
    fn sizes_are_a_whole_number_and_a_binary_unit() {
        assert_eq!(size("20GiB"), Some(20 << 30));
        assert_eq!(size("512MiB"), Some(512 << 20));
        assert_eq!(size("7B"), Some(7));
    }

    #[test]
    fn sizes_of_any_other_form_are_refused() {
        for text in ["", "20", "20GB", "20 GiB", "20gib", "-1B", "99999999TiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(millis in 0..u64::MAX, bytes in any::<u64>()) {
            let span = Span(Duration::from_millis(millis));
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
            let size = ByteSize(bytes);
            prop_assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,40}") {
            prop_assert_eq!(text.parse::<Span>().is_err(), span(&text).is_none());
            prop_assert_eq!(text.parse::<ByteSize>().is_err(), size(&text).is_none());
        }
    }
}
