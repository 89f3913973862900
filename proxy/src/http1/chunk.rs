//! Chunked bodies (RFC 9112 §7.1), without I/O.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};

use super::body::BodyError;
use super::field;
use super::head::HeadError;
use super::{TRAILER_BYTES_MAX, TRAILER_FIELDS_MAX};

/// The most digits of a chunk's size: more cannot be counted in 64 bits.
const SIZE_DIGITS_MAX: usize = 16;

/// The longest chunk extension. They are ignored, as RFC 9112 §7.1.1 demands; without a bound they are a way to send
/// for ever without sending anything.
const EXTENSION_BYTES_MAX: usize = 256;

/// Reads a chunked body out of a buffer.
#[derive(Debug, Default)]
pub struct ChunkReader {
    state: State,
    /// Bytes of the trailers that were looked at already.
    seen: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// What a look at the buffer gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Nothing: more bytes are needed.
    More,
    /// Some bytes of the body; never empty.
    Data(Bytes),
    /// The end, with the trailers that may be forwarded.
    End(HeaderMap),
}

impl ChunkReader {
    /// Takes the next piece of the body from the front of `buf`; after [`Chunk::End`] nothing more is taken.
    ///
    /// # Errors
    ///
    /// For everything that is not exactly the grammar of RFC 9112 §7.1, and for sizes, extensions and trailers beyond
    /// their bounds.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Chunk, BodyError> {
        loop {
            match self.state {
                State::Size => match take_size(buf)? {
                    None => return Ok(Chunk::More),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Data(size),
                },
                State::Data(_) if buf.is_empty() => return Ok(Chunk::More),
                State::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
                    let after = left - here as u64;
                    self.state = if after == 0 { State::DataEnd } else { State::Data(after) };
                    return Ok(Chunk::Data(buf.split_to(here).freeze()));
                }
                State::DataEnd => {
                    let Some(end) = buf.get(..2) else {
                        return Ok(Chunk::More);
                    };
                    if end != b"\r\n" {
                        return Err(BodyError::ChunkEnd);
                    }
                    drop(buf.split_to(2));
                    self.state = State::Size;
                }
                State::Trailers => return self.trailers(buf),
                State::Done => return Ok(Chunk::End(HeaderMap::new())),
            }
        }
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Chunk, BodyError> {
        let Some(length) = find_trailers(buf, &mut self.seen)? else {
            return Ok(Chunk::More);
        };
        self.state = State::Done;
        if length == 2 {
            drop(buf.split_to(2));
            return Ok(Chunk::End(HeaderMap::new()));
        }
        let lines = buf.split_to(length).freeze();
        let mut trailers = field::parse(&lines, TRAILER_FIELDS_MAX).map_err(|source| BodyError::Trailers { source })?;
        if trailers.keys().any(field::is_disguised) {
            let source = HeadError::Disguised;
            return Err(BodyError::Trailers { source });
        }
        for name in FORBIDDEN {
            trailers.remove(name);
        }
        Ok(Chunk::End(trailers))
    }
}

/// Fields that RFC 9110 §6.5.1 keeps out of trailers: framing, routing, controls, authentication, and how to read the
/// content. What is dropped here was never ours to forward.
const FORBIDDEN: [header::HeaderName; 21] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::EXPECT,
    header::HOST,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::WWW_AUTHENTICATE,
];

/// Takes a whole line with a chunk's size.
fn take_size(buf: &mut BytesMut) -> Result<Option<u64>, BodyError> {
    const LINE_MAX: usize = SIZE_DIGITS_MAX + 1 + EXTENSION_BYTES_MAX + 2;
    let window = buf.get(..buf.len().min(LINE_MAX)).unwrap_or_default();
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if buf.len() >= LINE_MAX {
            Err(BodyError::ChunkSize)
        } else {
            Ok(None)
        };
    };
    let line = buf.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or(BodyError::ChunkSize)?;
    let digits_end = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (digits, extension) = line.split_at_checked(digits_end).ok_or(BodyError::ChunkSize)?;
    if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX {
        return Err(BodyError::ChunkSize);
    }
    check_extension(extension)?;
    let digits = std::str::from_utf8(digits).map_err(|_not_text| BodyError::ChunkSize)?;
    u64::from_str_radix(digits, 16)
        .map(Some)
        .map_err(|_too_large| BodyError::ChunkSize)
}

/// RFC 9112 §7.1.1: `*( ";" name [ "=" ( token / quoted-string ) ] )`. White space is bad but allowed there; before the
/// first semicolon it is not, for readers differ in whether it ends the size.
fn check_extension(extension: &[u8]) -> Result<(), BodyError> {
    if extension.len() > EXTENSION_BYTES_MAX {
        return Err(BodyError::ChunkExtension);
    }
    let mut rest = extension;
    while let Some((b';', after)) = rest.split_first() {
        rest = field::trim(take_token(field::trim(after))?);
        if let Some((b'=', value)) = rest.split_first() {
            let value = field::trim(value);
            rest = field::trim(match value.split_first() {
                Some((b'"', text)) => take_quoted(text)?,
                Some(_) | None => take_token(value)?,
            });
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(BodyError::ChunkExtension)
    }
}

/// Takes a token off the front.
fn take_token(text: &[u8]) -> Result<&[u8], BodyError> {
    let end = text
        .iter()
        .position(|byte| !field::is_tchar(*byte))
        .unwrap_or(text.len());
    match text.split_at_checked(end) {
        Some((name, rest)) if !name.is_empty() => Ok(rest),
        Some(_) | None => Err(BodyError::ChunkExtension),
    }
}

/// Takes what is left of a quoted string off the front, with its end (RFC 9110 §5.6.4).
fn take_quoted(mut text: &[u8]) -> Result<&[u8], BodyError> {
    let plain = |byte: &u8| *byte == b'\t' || (0x20..0x7f).contains(byte);
    loop {
        text = match text {
            [b'"', rest @ ..] => return Ok(rest),
            [b'\\', byte, rest @ ..] if plain(byte) => rest,
            [byte, rest @ ..] if plain(byte) && *byte != b'\\' => rest,
            _ => return Err(BodyError::ChunkExtension),
        };
    }
}

/// Finds the end of the trailers, the empty line included; `seen` is where the current line starts.
fn find_trailers(buf: &[u8], seen: &mut usize) -> Result<Option<usize>, BodyError> {
    let window = buf.get(..buf.len().min(TRAILER_BYTES_MAX)).unwrap_or_default();
    loop {
        let rest = window.get(*seen..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return if buf.len() >= TRAILER_BYTES_MAX {
                Err(BodyError::TrailersTooLong)
            } else {
                Ok(None)
            };
        };
        let line = rest.get(..end).unwrap_or_default();
        *seen += end + 1;
        match line {
            b"\r" => return Ok(Some(*seen)),
            [.., b'\r'] => {}
            _ => {
                return Err(BodyError::Trailers {
                    source: HeadError::BareLineFeed,
                });
            }
        }
    }
}
