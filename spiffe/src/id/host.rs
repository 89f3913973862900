use std::sync::Arc;

use super::IdError;
use super::text::{is_segment, quote, text_type};

/// Names a host, a machine with a proxy: one segment of `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`, such as `web-1`.
///
/// Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Arc<str>);

text_type!(HostName);

impl HostName {
    /// Parses a host name.
    ///
    /// # Errors
    /// When it is outside the grammar.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if !is_segment(text) {
            return Err(IdError::Segment { segment: quote(text) });
        }
        Ok(Self(Arc::from(text)))
    }

    /// Gives the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Matches host names: a whole name, the start of one followed by `*` (`web-*`), or `*` for every host.
///
/// `web-*` wants at least one character after `web-`. Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern(Arc<str>);

text_type!(HostPattern);

impl HostPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// When it is none of the three forms, or its fixed part could not start a host name.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let valid = match text.strip_suffix('*') {
            Some("") => true,
            // A name must be able to follow, and no name is longer than 63: one character replaces the star.
            Some(start) => is_segment(&format!("{start}0")),
            None => is_segment(text),
        };
        if !valid {
            return Err(IdError::Pattern { pattern: quote(text) });
        }
        Ok(Self(Arc::from(text)))
    }

    /// Gives the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether `host` is one of the hosts meant.
    pub fn matches(&self, host: &HostName) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => host.as_str().strip_prefix(start).is_some_and(|rest| !rest.is_empty()),
            None => *self.0 == *host.0,
        }
    }
}
