//! The one reading of a request's path.

use std::fmt;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The longest path, in bytes: RFC 9110 §4.1 asks for at least 8000 octets of a whole URI.
pub const PATH_BYTES_MAX: usize = 8 * 1024;

/// The path of a call, without the query, in the only form that is decided on, recorded and forwarded.
///
/// A path that two readers could read differently is refused, never repaired. What is left differs from what came in by
/// two things: percent-encoded unreserved characters are decoded, once, and the hex digits of other escapes are in upper
/// case (RFC 3986 §6.2.2.1 and §6.2.2.2). Reading a canonical path again gives the same path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanonicalPath(Box<str>);

/// Says why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("the path does not start with `/`")]
    NoLeadingSlash,
    /// It has more than 8 KiB.
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// It holds `?`: whoever calls has cut the query off.
    #[error("the path holds `?`; a query is no part of it")]
    Query,
    /// It holds `#`, at which some servers cut.
    #[error("the path holds `#`")]
    Fragment,
    /// It holds `\`, which some servers read as `/`.
    #[error("the path holds a backslash")]
    Backslash,
    /// It holds `;`, from which some servers drop the rest of the segment.
    #[error("the path holds `;`")]
    Semicolon,
    /// It holds a byte below 0x21 or above 0x7e.
    #[error("the path holds the byte {0:#04x}")]
    Byte(u8),
    /// It holds an ASCII character that RFC 3986 §3.3 does not allow unescaped.
    #[error("the path holds {0:?}, which must be percent-encoded")]
    Character(char),
    /// It holds `//`, which some servers merge.
    #[error("the path holds an empty segment")]
    EmptySegment,
    /// It holds the segment `.` or `..`, in plain or escaped form.
    #[error("the path holds a `.` or `..` segment")]
    DotSegment,
    /// It holds `%2F`, which some servers decode to a separator.
    #[error("the path holds an escaped slash")]
    EncodedSlash,
    /// It holds `%5C`.
    #[error("the path holds an escaped backslash")]
    EncodedBackslash,
    /// It holds `%00`.
    #[error("the path holds an escaped NUL")]
    EncodedNul,
    /// It holds `%25` and a hex digit, which decodes to an escape.
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    /// It holds `%` without two hex digits.
    #[error("the path holds `%` without two hex digits")]
    BrokenEscape,
    /// Its escapes are not UTF-8: readers put different characters in their place, some of them `/` and `.` (RFC 3629 §10).
    #[error("the path holds escapes that are not UTF-8")]
    NotUtf8,
}

impl PathError {
    /// Gives the error as one word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoLeadingSlash => "path_no_leading_slash",
            Self::TooLong => "path_too_long",
            Self::Query => "path_query",
            Self::Fragment => "path_fragment",
            Self::Backslash => "path_backslash",
            Self::Semicolon => "path_semicolon",
            Self::Byte(_) => "path_byte",
            Self::Character(_) => "path_character",
            Self::EmptySegment => "path_empty_segment",
            Self::DotSegment => "path_dot_segment",
            Self::EncodedSlash => "path_encoded_slash",
            Self::EncodedBackslash => "path_encoded_backslash",
            Self::EncodedNul => "path_encoded_nul",
            Self::DoubleEncoding => "path_double_encoding",
            Self::BrokenEscape => "path_broken_escape",
            Self::NotUtf8 => "path_not_utf8",
        }
    }
}

impl CanonicalPath {
    /// Reads the path of a request-target, after the query was cut off.
    ///
    /// # Errors
    /// When the path could be read in more than one way, is malformed, or is longer than 8 KiB.
    pub fn parse(raw: &[u8]) -> Result<Self, PathError> {
        if raw.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if raw.first() != Some(&b'/') {
            return Err(PathError::NoLeadingSlash);
        }
        let mut path = String::with_capacity(raw.len());
        let mut high = false;
        let mut rest = raw;
        while let Some((&byte, tail)) = rest.split_first() {
            if byte == b'%' {
                let (escaped, tail) = escape(tail)?;
                high |= escaped >= 0x80;
                push_escaped(&mut path, escaped)?;
                rest = tail;
            } else {
                path.push(plain(byte)?);
                rest = tail;
            }
        }
        check_segments(&path)?;
        check_double_encoding(&path)?;
        if high && !is_utf8(&path) {
            return Err(PathError::NotUtf8);
        }
        Ok(Self(path.into_boxed_str()))
    }

    /// Gives the canonical path; it is ASCII and starts with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for CanonicalPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Reads the two hex digits after `%`, and gives what follows them.
fn escape(tail: &[u8]) -> Result<(u8, &[u8]), PathError> {
    let Some((&[high, low], rest)) = tail.split_first_chunk::<2>() else {
        return Err(PathError::BrokenEscape);
    };
    let (Some(high), Some(low)) = (hex(high), hex(low)) else {
        return Err(PathError::BrokenEscape);
    };
    Ok((high * 16 + low, rest))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Writes an escaped byte: itself if it is unreserved (RFC 3986 §2.3), else the escape in upper case.
fn push_escaped(path: &mut String, byte: u8) -> Result<(), PathError> {
    match byte {
        b'/' => return Err(PathError::EncodedSlash),
        b'\\' => return Err(PathError::EncodedBackslash),
        0 => return Err(PathError::EncodedNul),
        b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
        _ if byte.is_ascii_alphanumeric() => path.push(char::from(byte)),
        _ => {
            path.push('%');
            path.push(hex_digit(byte >> 4));
            path.push(hex_digit(byte & 0x0f));
        }
    }
    Ok(())
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16)
        .unwrap_or('0')
        .to_ascii_uppercase()
}

/// Checks a byte that is not escaped: `/` or a `pchar` of RFC 3986 §3.3, without `;`.
fn plain(byte: u8) -> Result<char, PathError> {
    match byte {
        b'?' => Err(PathError::Query),
        b'#' => Err(PathError::Fragment),
        b'\\' => Err(PathError::Backslash),
        b';' => Err(PathError::Semicolon),
        0..=0x20 | 0x7f.. => Err(PathError::Byte(byte)),
        b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => {
            Err(PathError::Character(char::from(byte)))
        }
        _ => Ok(char::from(byte)),
    }
}

/// Refuses empty segments but the last, and dot segments. Escaped dots are already decoded.
fn check_segments(path: &str) -> Result<(), PathError> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathError::EmptySegment);
        }
        if segment == "." || segment == ".." {
            return Err(PathError::DotSegment);
        }
    }
    Ok(())
}

/// Refuses `%25` before a hex digit. The check reads the result: `%25%32F` becomes `%252F`.
fn check_double_encoding(path: &str) -> Result<(), PathError> {
    let twice = path
        .split("%25")
        .skip(1)
        .any(|after| after.bytes().next().is_some_and(|byte| byte.is_ascii_hexdigit()));
    if twice { Err(PathError::DoubleEncoding) } else { Ok(()) }
}

/// Tells whether a canonical path is text once its escapes are decoded.
fn is_utf8(path: &str) -> bool {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = if byte == b'%' { escape(tail).ok() } else { None };
        let (byte, tail) = escaped.unwrap_or((byte, tail));
        decoded.push(byte);
        rest = tail;
    }
    std::str::from_utf8(&decoded).is_ok()
}

#[cfg(test)]
mod readers;
#[cfg(test)]
mod tests;
