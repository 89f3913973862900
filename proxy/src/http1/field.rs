//! Field lines (RFC 9112 §5, RFC 9110 §5), read the same in heads and in trailers.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::head::HeadError;

/// Which bytes may stand in a token, a bit each: every name of a field is looked up byte by byte.
const TCHARS: u128 = {
    let (mut tchars, mut byte) = (0u128, 0u8);
    while byte < 128 {
        let is_one = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        if is_one {
            tchars |= 1 << byte;
        }
        byte += 1;
    }
    tchars
};

/// Tells whether `byte` may stand in a token (RFC 9110 §5.6.2).
#[must_use]
pub const fn is_tchar(byte: u8) -> bool {
    byte < 128 && (TCHARS >> byte) & 1 == 1
}

/// Tells whether `text` is a token: one or more token characters.
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_tchar)
}

/// Tells whether a name is that of a field that frames a message, in a spelling that only some readers take for it: CGI and
/// its heirs turn `-` into `_`, some turn every sign into `_`.
#[must_use]
pub fn is_disguised(name: &HeaderName) -> bool {
    let name = name.as_str();
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
        .iter()
        .any(|frames| {
            let same = |(a, b): (u8, u8)| a == b || (b == b'-' && !a.is_ascii_alphanumeric());
            name.len() == frames.as_str().len()
                && name != frames.as_str()
                && name.bytes().zip(frames.as_str().bytes()).all(same)
        })
}

/// Takes optional white space (RFC 9110 §5.6.3) from both ends.
#[must_use]
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Reads the field lines of `lines`, each with its CRLF, up to and including the empty line.
///
/// The values share the memory of `lines`.
///
/// # Errors
///
/// For more than `max` fields and for a line that is no field line.
pub fn parse(lines: &Bytes, max: usize) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(8);
    let mut count = 0;
    let mut rest: &[u8] = lines;
    loop {
        let (line, after) = split_line(rest)?;
        if line.is_empty() {
            return Ok(headers);
        }
        count += 1;
        if count > max {
            return Err(HeadError::TooManyFields);
        }
        let (name, value) = parse_line(line)?;
        let value = HeaderValue::from_maybe_shared(lines.slice_ref(value)).map_err(|_invalid| value_error(line))?;
        headers
            .try_append(name, value)
            .map_err(|_full| HeadError::TooManyFields)?;
        rest = after;
    }
}

/// Splits off the first line, without its CRLF.
pub(super) fn split_line(text: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    let end = memchr(b'\n', text).ok_or(HeadError::BareLineFeed)?;
    let (line, rest) = text.split_at_checked(end + 1).unwrap_or((text, &[]));
    let line = line.strip_suffix(b"\r\n").ok_or(HeadError::BareLineFeed)?;
    Ok((line, rest))
}

/// Splits one field line into its name and its value without the white space around it.
fn parse_line(line: &[u8]) -> Result<(HeaderName, &[u8]), HeadError> {
    // RFC 9112 §5.2: a line that starts with white space continues the one before; a server may refuse that, and must
    // not read it as a field of its own.
    if let Some(b' ' | b'\t') = line.first() {
        return Err(HeadError::Fold);
    }
    let end = line
        .iter()
        .position(|byte| !is_tchar(*byte))
        .ok_or(HeadError::NoColon)?;
    let (name, rest) = line.split_at_checked(end).ok_or(HeadError::NoColon)?;
    match rest.first() {
        // RFC 9112 §5.1: a server MUST refuse white space between the name and the colon.
        Some(b' ' | b'\t') => return Err(HeadError::SpaceBeforeColon),
        Some(b':') if !name.is_empty() => {}
        Some(_) | None => return Err(HeadError::FieldName),
    }
    let name = HeaderName::from_bytes(name).map_err(|_invalid| HeadError::FieldName)?;
    Ok((name, trim(rest.get(1..).unwrap_or_default())))
}

/// Says what is wrong with the value in `line`: RFC 9110 §5.5 allows no control character but the tab.
fn value_error(line: &[u8]) -> HeadError {
    if line.contains(&b'\r') {
        HeadError::BareCarriageReturn
    } else {
        HeadError::FieldValue
    }
}

/// Returns the one value of `name`, or nothing.
///
/// # Errors
///
/// With `twice` when there are several, equal or not.
pub fn one<'a>(headers: &'a HeaderMap, name: &HeaderName, twice: HeadError) -> Result<Option<&'a [u8]>, HeadError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(twice);
    }
    Ok(first.map(HeaderValue::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_token_are_those_of_rfc_9110() {
        let listed = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let found: Vec<u8> = (0..=u8::MAX).filter(|byte| is_tchar(*byte)).collect();
        let mut listed = listed.as_bytes().to_vec();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }
}
