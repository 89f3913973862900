//! Patterns over paths.

use thiserror::Error;

use super::{Misplaced, Segments};
use crate::path::{CanonicalPath, PathError};

/// The longest path pattern in bytes, as in Gateway API's `HTTPPathMatch`.
const PATH_PATTERN_BYTES_MAX: usize = 1024;

/// A pattern over canonical paths: `/orders/*`, `/refunds`, `/admin/**`, `/**`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PathPattern {
    text: Box<str>,
    segments: Segments,
}

/// Says why a text is no pattern over paths.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum PathPatternError {
    #[error("`**` can only be the last segment")]
    BelowNotLast,
    #[error("`*` is a whole segment, or the end of one, as in `/report-*`")]
    StarInside,
    #[error("a path pattern has at most {PATH_PATTERN_BYTES_MAX} bytes")]
    TooLong,
    #[error("no path matches it: requests are read as `{canonical}`")]
    NotCanonical { canonical: String },
    #[error("no path matches it: {0}")]
    Path(#[from] PathError),
}

impl From<Misplaced> for PathPatternError {
    fn from(misplaced: Misplaced) -> Self {
        match misplaced {
            Misplaced::BelowNotLast => Self::BelowNotLast,
            Misplaced::StarInside => Self::StarInside,
        }
    }
}

impl PathPattern {
    /// Reads a pattern. `*` is an ordinary character of a path, so a pattern passes the same reading as a path; what
    /// that reading changes or refuses could never match.
    pub(crate) fn parse(text: &str) -> Result<Self, PathPatternError> {
        if text.len() > PATH_PATTERN_BYTES_MAX {
            return Err(PathPatternError::TooLong);
        }
        let canonical = CanonicalPath::parse(text.as_bytes())?;
        if canonical.as_str() != text {
            return Err(PathPatternError::NotCanonical {
                canonical: canonical.as_str().to_owned(),
            });
        }
        let segments = Segments::parse(text.strip_prefix('/').unwrap_or_default())?;
        Ok(Self {
            text: text.into(),
            segments,
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Says whether a path matches, byte for byte: the reading of allow rules.
    pub(crate) fn matches(&self, path: &CanonicalPath) -> bool {
        self.segments
            .matches(path.as_str().strip_prefix('/').unwrap_or_default(), |wanted, found| {
                wanted == found
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern)
            .unwrap()
            .matches(&CanonicalPath::parse(path.as_bytes()).unwrap())
    }

    #[test]
    fn a_literal_path_matches_itself_only() {
        assert!(matches("/orders", "/orders"));
        assert!(matches("/", "/"));
        assert!(matches("/orders/", "/orders/"));
        for path in ["/", "/orders/", "/Orders", "/orders/1", "/order", "/orderss"] {
            assert!(!matches("/orders", path), "{path}");
        }
        assert!(!matches("/", "/a"));
    }

    #[test]
    fn a_star_is_one_segment_that_is_not_empty() {
        assert!(matches("/orders/*", "/orders/17"));
        assert!(matches("/*/items", "/17/items"));
        assert!(matches("/*", "/a"));
        for path in ["/orders", "/orders/", "/orders/17/", "/orders/17/items"] {
            assert!(!matches("/orders/*", path), "{path}");
        }
        assert!(!matches("/*", "/"));
    }

    #[test]
    fn a_star_after_text_stays_inside_its_segment() {
        assert!(matches("/v-*/x", "/v-1/x"));
        for path in ["/v-/x", "/v-1/y", "/v-1/1/x", "/w-1/x"] {
            assert!(!matches("/v-*/x", path), "{path}");
        }
    }

    #[test]
    fn two_stars_match_the_path_itself_with_and_without_slash_and_all_below() {
        for path in ["/a", "/a/", "/a/b", "/a/b/", "/a/b/c"] {
            assert!(matches("/a/**", path), "{path}");
            assert!(matches("/**", path), "{path}");
        }
        assert!(matches("/**", "/"));
        for path in ["/", "/ab", "/A/b", "/b/a"] {
            assert!(!matches("/a/**", path), "{path}");
        }
    }

    #[test]
    fn escapes_compare_as_they_are() {
        assert!(matches("/%C3%A9", "/%c3%a9"));
        assert!(matches("/%C3%A9*", "/%C3%A9%C3%A9"));
    }

    #[test]
    fn what_could_match_no_path_is_refused() {
        for (text, error) in [
            ("", PathError::NoLeadingSlash),
            ("orders", PathError::NoLeadingSlash),
            ("*", PathError::NoLeadingSlash),
            ("/a//b", PathError::EmptySegment),
            ("/a/../b", PathError::DotSegment),
            ("/a/./b", PathError::DotSegment),
            ("/a/..", PathError::DotSegment),
            ("/a%2fb", PathError::EncodedSlash),
            ("/a#b", PathError::Fragment),
            ("/a?b=c", PathError::Query),
            ("/a;b", PathError::Semicolon),
            ("/{id}", PathError::Character('{')),
            ("/%zz", PathError::BrokenEscape),
            ("/%C3*", PathError::NotUtf8),
        ] {
            assert_eq!(
                PathPattern::parse(text).unwrap_err(),
                PathPatternError::Path(error),
                "{text}"
            );
        }
        for (text, canonical) in [("/%61", "/a"), ("/%c3%a9", "/%C3%A9")] {
            let wanted = PathPatternError::NotCanonical {
                canonical: canonical.to_owned(),
            };
            assert_eq!(PathPattern::parse(text).unwrap_err(), wanted);
        }
    }

    #[test]
    fn misplaced_stars_are_refused() {
        for text in ["/**/a", "/a/**/b", "/**/**", "/**/"] {
            assert_eq!(
                PathPattern::parse(text).unwrap_err(),
                PathPatternError::BelowNotLast,
                "{text}"
            );
        }
        for text in ["/*.json", "/a*b", "/a**", "/a/***"] {
            assert_eq!(
                PathPattern::parse(text).unwrap_err(),
                PathPatternError::StarInside,
                "{text}"
            );
        }
    }

    #[test]
    fn a_pattern_has_at_most_1024_bytes() {
        let longest = format!("/{}", "a".repeat(1023));
        assert_eq!(PathPattern::parse(&longest).unwrap().as_str(), longest);
        assert_eq!(
            PathPattern::parse(&format!("{longest}a")).unwrap_err(),
            PathPatternError::TooLong
        );
    }
}
