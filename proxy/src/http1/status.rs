//! The head of an answer. A callee's mistakes are refused as a caller's are: whoever reads the answer after us must
//! not find another one in it.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::FIELDS_MAX;
use super::field;
use super::framing::{self, Framing, Version};
use super::head::HeadError;

/// An answer's head.
#[derive(Clone, Debug)]
pub struct AnswerHead {
    /// The status, 100 to 599.
    pub status: StatusCode,
    /// All fields, those of this connection included.
    pub headers: HeaderMap,
    /// Where the body ends.
    pub body: AnswerFraming,
    /// Whether the connection may carry another call.
    pub persists: bool,
}

/// How the body of an answer is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFraming {
    /// There is none.
    None,
    /// By its length.
    Length(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl AnswerHead {
    /// Reads a whole head of the answer to a request with `method`.
    ///
    /// # Errors
    ///
    /// For everything that [`RequestHead::parse`](super::head::RequestHead::parse) would refuse in the same places.
    pub fn parse(head: &Bytes, method: &Method) -> Result<Self, HeadError> {
        Self::parse_with(head, method, FIELDS_MAX)
    }

    /// The same with at most `fields_max` fields: another proxy adds its own to those of its bot.
    ///
    /// # Errors
    ///
    /// As [`AnswerHead::parse`].
    pub fn parse_with(head: &Bytes, method: &Method, fields_max: usize) -> Result<Self, HeadError> {
        let (line, rest) = field::split_line(head)?;
        let (version, status) = parse_status_line(line)?;
        let headers = field::parse(&head.slice_ref(rest), fields_max)?;
        let framing = framing::read(&headers, version)?;
        let connection = framing::connection(&headers)?;
        let body = body(method, status, framing);
        let persists = framing::persists(version, connection) && body != AnswerFraming::Close;
        Ok(Self {
            status,
            headers,
            body,
            persists,
        })
    }
}

/// RFC 9112 §4. The reason phrase may be empty, and some servers leave out the space before it.
fn parse_status_line(line: &[u8]) -> Result<(Version, StatusCode), HeadError> {
    let (version, rest) = match line.split_at_checked(9) {
        Some((b"HTTP/1.1 ", rest)) => (Version::Http11, rest),
        Some((b"HTTP/1.0 ", rest)) => (Version::Http10, rest),
        _ => return Err(HeadError::StatusLine),
    };
    let (code, reason) = rest.split_at_checked(3).ok_or(HeadError::StatusLine)?;
    let plain = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f);
    if !(reason.is_empty() || reason.starts_with(b" ")) || !reason.iter().all(plain) {
        return Err(HeadError::StatusLine);
    }
    let status = StatusCode::from_bytes(code).map_err(|_invalid| HeadError::StatusLine)?;
    if status.as_u16() > 599 {
        Err(HeadError::StatusLine)
    } else {
        Ok((version, status))
    }
}

/// RFC 9112 §6.3, points 1, 4, 6 and 8.
fn body(method: &Method, status: StatusCode, framing: Framing) -> AnswerFraming {
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    if method == Method::HEAD || bodiless {
        return AnswerFraming::None;
    }
    match framing {
        Framing::None => AnswerFraming::Close,
        Framing::Length(0) => AnswerFraming::None,
        Framing::Length(length) => AnswerFraming::Length(length),
        Framing::Chunked => AnswerFraming::Chunked,
    }
}
