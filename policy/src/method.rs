//! The method of a call.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The longest method, in bytes: twice the longest that IANA lists (`BASELINE-CONTROL`).
pub const METHOD_BYTES_MAX: usize = 32;

/// Methods that need no memory of their own.
const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Methods that no call in the mesh may have: `CONNECT` opens a tunnel, which is no call (RFC 9110 §9.3.6), and `TRACE`
/// sends the request's own fields back to the caller (RFC 9110 §9.3.8).
const REFUSED: [&str; 2] = ["CONNECT", "TRACE"];

/// The method of a call: a token (RFC 9110 §9.1) of upper-case letters and `-`, at most 32 bytes.
///
/// Methods are case-sensitive; a lower-case one is refused, because servers differ in how they read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(Cow<'static, str>);

/// Says why a method is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MethodError {
    /// There is no method.
    #[error("the method is empty")]
    Empty,
    /// It has more than 32 bytes.
    #[error("the method is longer than {METHOD_BYTES_MAX} bytes")]
    TooLong,
    /// It holds something else than upper-case letters and `-`, or does not start with a letter.
    #[error("a method holds upper-case letters and `-` only and starts with a letter")]
    Character,
    /// It is `CONNECT` or `TRACE`.
    #[error("{0} is not a method of calls between bots")]
    Refused(&'static str),
}

impl MethodError {
    /// Gives the error as one word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Empty => "method_empty",
            Self::TooLong => "method_too_long",
            Self::Character => "method_character",
            Self::Refused(_) => "method_refused",
        }
    }
}

impl Method {
    /// Reads a method as it came in. The seven usual ones allocate nothing.
    ///
    /// # Errors
    /// When it is empty, longer than 32 bytes, outside the grammar, or one that no call may have.
    pub fn parse(text: &str) -> Result<Self, MethodError> {
        if let Some(known) = KNOWN.into_iter().find(|known| *known == text) {
            return Ok(Self(Cow::Borrowed(known)));
        }
        if text.is_empty() {
            return Err(MethodError::Empty);
        }
        if text.len() > METHOD_BYTES_MAX {
            return Err(MethodError::TooLong);
        }
        if text.starts_with('-') || !text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            return Err(MethodError::Character);
        }
        if let Some(refused) = REFUSED.into_iter().find(|refused| *refused == text) {
            return Err(MethodError::Refused(refused));
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }

    /// Gives the method.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Method {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_and_registered_methods_are_read() {
        for text in [
            "GET",
            "HEAD",
            "POST",
            "PUT",
            "PATCH",
            "DELETE",
            "OPTIONS",
            "PROPFIND",
            "VERSION-CONTROL",
            "A",
            "A-",
        ] {
            assert_eq!(Method::parse(text).unwrap().as_str(), text);
            assert_eq!(text.parse::<Method>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_method_has_at_most_32_bytes() {
        assert!(Method::parse(&"A".repeat(32)).is_ok());
        assert_eq!(Method::parse(&"A".repeat(33)), Err(MethodError::TooLong));
    }

    #[test]
    fn what_is_no_upper_case_token_is_refused() {
        for text in [
            "get", "GEt", "GET ", " GET", "GE T", "G\u{c9}T", "GET1", "M_SEARCH", "*", "-", "-GET",
        ] {
            assert_eq!(Method::parse(text), Err(MethodError::Character), "{text:?}");
        }
        assert_eq!(Method::parse(""), Err(MethodError::Empty));
    }

    #[test]
    fn tunnels_and_traces_are_no_calls() {
        assert_eq!(Method::parse("CONNECT"), Err(MethodError::Refused("CONNECT")));
        assert_eq!(Method::parse("TRACE"), Err(MethodError::Refused("TRACE")));
        assert!(Method::parse("TRACES").is_ok());
    }

    #[test]
    fn each_refusal_has_its_word() {
        let words = [
            MethodError::Empty,
            MethodError::TooLong,
            MethodError::Character,
            MethodError::Refused("TRACE"),
        ]
        .map(MethodError::reason);
        assert_eq!(
            words,
            ["method_empty", "method_too_long", "method_character", "method_refused"]
        );
    }
}
