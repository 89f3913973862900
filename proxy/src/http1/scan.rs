//! Finds the end of a head in bytes that arrive as they please.

use memchr::memchr;

use super::HEAD_BYTES_MAX;
use super::head::HeadError;

/// The first byte of a TLS record that carries a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Looks for the empty line that ends a head, and remembers how far it looked.
///
/// Its verdict depends only on the bytes, never on how they were cut into reads: it stops at the first byte that
/// settles the matter.
#[derive(Debug, Default)]
pub struct Scanner {
    seen: usize,
    line: usize,
}

impl Scanner {
    /// Looks at `buf`, which starts with the head, and returns its length once it is whole.
    ///
    /// # Errors
    ///
    /// For a first byte that starts no method, for a line that does not end in CRLF (RFC 9112 §2.2 lets a recipient
    /// take a bare LF; two readers that differ in this are how requests are smuggled), and for a head longer than
    /// [`HEAD_BYTES_MAX`].
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, HeadError> {
        if self.seen == 0 {
            match buf.first() {
                None => return Ok(None),
                Some(&TLS_HANDSHAKE) => return Err(HeadError::Tls),
                Some(byte) if !byte.is_ascii_uppercase() => return Err(HeadError::Method),
                Some(_) => {}
            }
        }
        loop {
            let bounded = buf.get(self.seen..buf.len().min(HEAD_BYTES_MAX)).unwrap_or_default();
            let Some(found) = memchr(b'\n', bounded) else {
                self.seen = buf.len().min(HEAD_BYTES_MAX);
                return if buf.len() >= HEAD_BYTES_MAX {
                    Err(HeadError::TooLong)
                } else {
                    Ok(None)
                };
            };
            let end = self.seen + found;
            let line = buf.get(self.line..end).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(HeadError::BareLineFeed);
            };
            self.seen = end + 1;
            if line.is_empty() {
                return Ok(Some(self.seen));
            }
            self.line = self.seen;
        }
    }
}
