//! Patterns over names that are split by `/`, as in the mesh file.

use std::str::FromStr;

use thiserror::Error;

/// Most segments of a pattern.
const SEGMENTS_MAX: usize = 64;

/// A pattern: `*` is one whole segment, `ab-*` a segment that begins so, `**`
/// at the end is zero or more segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Is(String),
    Begins(String),
}

/// A text that is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a pattern has '*' only as the end of a segment and '**' only as the last segment")]
pub struct NotAPattern;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// When a star is where none may be, or there are more than 64 segments.
    pub fn parse(text: &str) -> Result<Self, NotAPattern> {
        let mut segments: Vec<&str> = text.split('/').collect();
        let open = segments.pop_if(|last| *last == "**").is_some();
        if segments.len() > SEGMENTS_MAX {
            return Err(NotAPattern);
        }
        let segments = segments.into_iter().map(Segment::parse).collect::<Result<_, _>>()?;
        Ok(Self { segments, open })
    }

    /// Says whether a name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = name.split('/');
        let begins = self
            .segments
            .iter()
            .all(|wanted| parts.next().is_some_and(|part| wanted.matches(part)));
        begins && (self.open || parts.next().is_none())
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, NotAPattern> {
        let segment = match text.strip_suffix('*') {
            Some(begin) => Self::Begins(begin.to_owned()),
            None => Self::Is(text.to_owned()),
        };
        let (Self::Is(rest) | Self::Begins(rest)) = &segment;
        if rest.contains('*') {
            Err(NotAPattern)
        } else {
            Ok(segment)
        }
    }

    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Is(wanted) => part == wanted,
            // A star stands for at least one character.
            Self::Begins(begin) => part.len() > begin.len() && part.starts_with(begin.as_str()),
        }
    }
}

impl FromStr for Pattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Self, NotAPattern> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_the_mesh_file() {
        for (pattern, name, wanted) in [
            ("prod/orders", "prod/orders", true),
            ("prod/orders", "prod/orders/x", false),
            ("prod/orders", "prod", false),
            ("prod/*", "prod/orders", true),
            ("prod/*", "prod/", false),
            ("prod/*", "prod", false),
            ("prod/*", "prod/a/b", false),
            ("*/orders", "prod/orders", true),
            ("*", "prod", true),
            ("*", "", false),
            ("web-*", "web-1", true),
            ("web-*", "web-", false),
            ("web-*", "wob-1", false),
            ("prod/**", "prod", true),
            ("prod/**", "prod/", true),
            ("prod/**", "prod/a/b", true),
            ("prod/**", "production", false),
            ("**", "anything/at/all", true),
            ("/orders/*", "/orders/17", true),
            ("/orders/*", "/orders/17/items", false),
        ] {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(name),
                wanted,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn stars_elsewhere_are_refused() {
        for text in ["*a", "a*b", "**/a", "a/**/b", "***", "a/***", "a**"] {
            assert_eq!(text.parse::<Pattern>(), Err(NotAPattern), "{text}");
        }
        assert_eq!(Pattern::parse(&"a/".repeat(64)), Err(NotAPattern));
        assert!(Pattern::parse(&"a/".repeat(63)).is_ok());
    }
}
