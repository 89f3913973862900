//! Patterns over bot names.

use std::fmt;

use spiffe::id::{BOT_NAME_SEGMENTS_MAX, BotName, HostName, IdError};
use thiserror::Error;

use super::{Misplaced, Segment, Segments};

/// A bot name, or a pattern over bot names: `prod/orders`, `prod/*`, `prod/report-*`, `staging/**`, `**`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamePattern {
    text: Box<str>,
    segments: Segments,
    literal: Option<BotName>,
}

/// Says why a text is no pattern over bot names.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum NamePatternError {
    #[error("`**` can only be the last segment")]
    BelowNotLast,
    #[error("`*` is a whole segment, or the end of one, as in `report-*`")]
    StarInside,
    #[error(transparent)]
    Name(#[from] IdError),
}

impl From<Misplaced> for NamePatternError {
    fn from(misplaced: Misplaced) -> Self {
        match misplaced {
            Misplaced::BelowNotLast => Self::BelowNotLast,
            Misplaced::StarInside => Self::StarInside,
        }
    }
}

impl NamePattern {
    pub(crate) fn parse(text: &str) -> Result<Self, NamePatternError> {
        if !text.contains('*') {
            let literal = BotName::parse(text)?;
            return Ok(Self {
                text: text.into(),
                segments: Segments::parse(text)?,
                literal: Some(literal),
            });
        }
        let segments = Segments::parse(text)?;
        let count = segments.head.len();
        if count > BOT_NAME_SEGMENTS_MAX {
            return Err(IdError::TooManySegments { segments: count }.into());
        }
        for (index, segment) in segments.head.iter().enumerate() {
            match segment {
                // The first segment also must not be one that botmesh keeps for itself.
                Segment::Literal(text) if index == 0 => drop(BotName::parse(text)?),
                Segment::Literal(text) => drop(HostName::parse(text)?),
                // A name must be able to follow: one character stands for the star.
                Segment::Starts(start) => drop(HostName::parse(&format!("{start}0"))?),
                Segment::Any => {}
            }
        }
        Ok(Self {
            text: text.into(),
            segments,
            literal: None,
        })
    }

    /// Gives the bot if the pattern is the name of one.
    pub(crate) fn literal(&self) -> Option<&BotName> {
        self.literal.as_ref()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn matches(&self, name: &BotName) -> bool {
        match &self.literal {
            Some(literal) => literal == name,
            None => self.segments.matches(name.as_str(), |wanted, found| wanted == found),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern)
            .unwrap()
            .matches(&BotName::parse(name).unwrap())
    }

    #[test]
    fn a_name_matches_itself_only() {
        assert!(matches("prod/orders", "prod/orders"));
        assert!(!matches("prod/orders", "prod/orders-db"));
        assert!(!matches("prod/orders", "prod"));
        assert!(!matches("prod", "prod/orders"));
    }

    #[test]
    fn a_star_is_one_segment() {
        assert!(matches("prod/*", "prod/orders"));
        assert!(!matches("prod/*", "prod"));
        assert!(!matches("prod/*", "prod/a/b"));
        assert!(matches("*/orders", "prod/orders"));
        assert!(matches("*", "orders"));
        assert!(!matches("*", "prod/orders"));
    }

    #[test]
    fn a_star_after_text_wants_at_least_one_character() {
        assert!(matches("prod/report-*", "prod/report-1"));
        assert!(!matches("prod/report*", "prod/report"));
        assert!(matches("prod/report*", "prod/report2"));
        assert!(!matches("prod/report-*", "prod/other-1"));
        assert!(!matches("prod/report-*", "prod/report-1/a"));
    }

    #[test]
    fn two_stars_are_zero_or_more_segments() {
        for name in ["staging", "staging/a", "staging/a/b/c/d/e"] {
            assert!(matches("staging/**", name), "{name}");
            assert!(matches("**", name), "{name}");
        }
        assert!(!matches("staging/**", "staging-2"));
        assert!(matches("*/a/**", "x/a"));
        assert!(!matches("*/a/**", "x/b/a"));
    }

    #[test]
    fn what_could_match_no_name_is_refused() {
        for text in [
            "",
            "/a",
            "a/",
            "a//b",
            "A",
            "a_b",
            "-a",
            "-*",
            "a/-*",
            "A*",
            "botmesh/**",
            "mesh/*",
            "localhost/a*",
            "a.b/*",
        ] {
            assert!(
                matches!(NamePattern::parse(text), Err(NamePatternError::Name(_))),
                "{text:?}"
            );
        }
        assert!(NamePattern::parse("a/b/c/d/e/f/**").is_ok());
        assert!(NamePattern::parse("a/b/c/d/e/*").is_ok());
        assert!(NamePattern::parse("a/mesh/*").is_ok());
        for text in ["a/b/c/d/e/f/*", "a/b/c/d/e/f/g/**"] {
            let refused = NamePattern::parse(text).unwrap_err();
            assert_eq!(
                refused,
                NamePatternError::Name(IdError::TooManySegments { segments: 7 })
            );
        }
    }

    #[test]
    fn misplaced_stars_are_refused() {
        for text in ["**/a", "a/**/b", "**/**"] {
            assert_eq!(
                NamePattern::parse(text).unwrap_err(),
                NamePatternError::BelowNotLast,
                "{text}"
            );
        }
        for text in ["a*b", "*a", "a**", "***", "a/b*c/**", "a/***", "a-**"] {
            assert_eq!(
                NamePattern::parse(text).unwrap_err(),
                NamePatternError::StarInside,
                "{text}"
            );
        }
    }

    #[test]
    fn a_pattern_is_shown_as_written() {
        assert_eq!(NamePattern::parse("prod/**").unwrap().to_string(), "prod/**");
        assert_eq!(
            NamePattern::parse("prod/a").unwrap().literal().unwrap().as_str(),
            "prod/a"
        );
        assert_eq!(NamePattern::parse("prod/*").unwrap().literal(), None);
    }
}
