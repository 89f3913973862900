//! Where a body ends (RFC 9112 §6) and whether the connection goes on (§9).

use http::header::{self, HeaderMap};

use super::field::{self, is_token, trim};
use super::head::HeadError;

/// The largest `Content-Length` that is accepted.
const LENGTH_MAX: u64 = 1 << 63;

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// By its length, which may be 0.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// The two versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What the field `Connection` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// `close`
    pub close: bool,
    /// `keep-alive`
    pub keep_alive: bool,
    /// `upgrade`
    pub upgrade: bool,
}

/// Reads `Content-Length` and `Transfer-Encoding`, of a request or an answer.
///
/// RFC 9112 §6.3 lets `Transfer-Encoding` win over `Content-Length` and lets equal lengths be folded into one. Both
/// are refused: the reader behind might choose otherwise.
///
/// # Errors
///
/// For any length or coding that could be read in two ways.
pub fn read(headers: &HeaderMap, version: Version) -> Result<Framing, HeadError> {
    let length = field::one(headers, &header::CONTENT_LENGTH, HeadError::TwoLengths)?;
    let coding = field::one(headers, &header::TRANSFER_ENCODING, HeadError::Coding)?;
    match (length, coding) {
        (Some(_), Some(_)) => Err(HeadError::LengthAndCoding),
        (None, None) => Ok(Framing::None),
        (Some(length), None) => parse_length(length).map(Framing::Length),
        (None, Some(_)) if version == Version::Http10 => Err(HeadError::CodingOnHttp10),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (None, Some(_)) => Err(HeadError::Coding),
    }
}

/// Reads a length: digits only, so neither sign nor white space nor a list.
fn parse_length(digits: &[u8]) -> Result<u64, HeadError> {
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Length);
    }
    let text = std::str::from_utf8(digits).map_err(|_not_text| HeadError::Length)?;
    text.parse()
        .ok()
        .filter(|length| *length <= LENGTH_MAX)
        .ok_or(HeadError::Length)
}

/// Reads the options of `Connection` (RFC 9110 §7.6.1).
///
/// # Errors
///
/// For an option that is no token, and for one that names the framing or the host: whoever removed those on its word
/// would read another message.
pub fn connection(headers: &HeaderMap) -> Result<Connection, HeadError> {
    let mut connection = Connection::default();
    for value in headers.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',').map(trim) {
            if option.eq_ignore_ascii_case(b"close") {
                connection.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                connection.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                connection.upgrade = true;
            } else if !is_token(option) || names_framing(option) {
                return Err(HeadError::Connection);
            }
        }
    }
    Ok(connection)
}

fn names_framing(option: &[u8]) -> bool {
    [&b"host"[..], b"content-length", b"transfer-encoding"]
        .iter()
        .any(|name| option.eq_ignore_ascii_case(name))
}

/// Tells whether the connection may carry another message (RFC 9112 §9.3).
#[must_use]
pub const fn persists(version: Version, connection: Connection) -> bool {
    match version {
        Version::Http11 => !connection.close,
        Version::Http10 => connection.keep_alive && !connection.close,
    }
}
