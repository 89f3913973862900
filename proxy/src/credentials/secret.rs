//! The value of a credential: wiped when it is dropped, and never shown.

use std::fmt;

use aws_lc_rs::digest;
use thiserror::Error;
use zeroize::Zeroizing;

use super::age::{Failed, Recipient};
use super::hook::NoHook;

/// The longest value, in bytes.
pub const SECRET_BYTES_MAX: usize = 16 * 1024;

/// The shortest value, in bytes. A shorter one is guessed, and is found by chance in what services answer.
pub const SECRET_BYTES_MIN: usize = 8;

/// A value. Its `Debug` shows its length alone.
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why bytes are no value of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoSecret {
    /// There are too few of them.
    #[error("the value has {length} bytes, and a credential at least {SECRET_BYTES_MIN}")]
    Short {
        /// How many.
        length: usize,
    },
    /// There are too many.
    #[error("the value is longer than {SECRET_BYTES_MAX} bytes")]
    Long,
    /// Something in it can stand in no field.
    #[error("the value has a byte that is no visible ASCII: byte {at}; a credential is one line of text")]
    Byte {
        /// Which one, from 0.
        at: usize,
    },
    /// It is no address that may be called.
    #[error("the value is not the address that is meant: {0}")]
    Address(NoHook),
}

impl Secret {
    /// Takes a value as a backend gave it. One line feed at its end is none of it: editors and `echo` add it.
    ///
    /// # Errors
    ///
    /// For a value of less than [`SECRET_BYTES_MIN`] or more than [`SECRET_BYTES_MAX`] bytes, and for one that is no text of
    /// visible ASCII and spaces in one line.
    pub fn new(bytes: Vec<u8>) -> Result<Self, NoSecret> {
        Self::within(bytes, |byte| matches!(byte, b' '..=b'~'))
    }

    /// Takes a value that may have several lines, such as a key as PEM, because it is sent to nobody as it is.
    ///
    /// # Errors
    ///
    /// As [`Secret::new`], for what is no text.
    pub fn lines(bytes: Vec<u8>) -> Result<Self, NoSecret> {
        Self::within(bytes, |byte| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t'))
    }

    fn within(bytes: Vec<u8>, fits: fn(u8) -> bool) -> Result<Self, NoSecret> {
        let mut bytes = Zeroizing::new(bytes);
        for end in [b'\n', b'\r'] {
            if bytes.last() == Some(&end) {
                bytes.pop();
            }
        }
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(NoSecret::Long);
        }
        if let Some(at) = bytes.iter().position(|byte| !fits(*byte)) {
            return Err(NoSecret::Byte { at });
        }
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(NoSecret::Short { length: bytes.len() });
        }
        Ok(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A copy that is wiped too, for what looks for it.
    pub(crate) fn copy(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.to_vec())
    }

    /// Encrypts it to a host, whose key alone opens it.
    ///
    /// # Errors
    ///
    /// When there is no randomness, or the recipient's key is none.
    pub fn seal_to(&self, recipient: &Recipient) -> Result<Vec<u8>, Failed> {
        recipient.seal(&self.0)
    }

    /// Tells two values apart without showing either: the first 8 bytes of SHA-256, in hexadecimal, of a prefix of this use
    /// and the value.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"botmesh credential\0");
        context.update(&self.0);
        let whole = context.finish();
        whole
            .as_ref()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_line_of_visible_text_within_bounds() {
        let of = |bytes: &[u8]| Secret::new(bytes.to_vec());
        assert_eq!(of(b"sk-12345\n").unwrap().bytes(), b"sk-12345");
        assert_eq!(
            of(b"sk-12345\r\n").unwrap().bytes(),
            b"sk-12345",
            "as Windows ends lines"
        );
        assert_eq!(of(b"with a space").unwrap().bytes(), b"with a space");
        assert_eq!(of(b"1234567").unwrap_err(), NoSecret::Short { length: 7 });
        assert_eq!(of(b"\n").unwrap_err(), NoSecret::Short { length: 0 });
        assert_eq!(of(b"12345678\n\n").unwrap_err(), NoSecret::Byte { at: 8 });
        assert_eq!(of(b"1234\r\nX: 5678").unwrap_err(), NoSecret::Byte { at: 4 });
        assert_eq!(of(b"1234567\xff").unwrap_err(), NoSecret::Byte { at: 7 });
        assert_eq!(of(&[b'a'; SECRET_BYTES_MAX]).unwrap().bytes().len(), SECRET_BYTES_MAX);
        assert_eq!(of(&[b'a'; SECRET_BYTES_MAX + 1]).unwrap_err(), NoSecret::Long);
    }

    #[test]
    fn a_document_may_have_several_lines_and_is_text_all_the_same() {
        let of = |bytes: &[u8]| Secret::lines(bytes.to_vec());
        assert_eq!(
            of(b"-----\nabc\r\n\t-----\n").unwrap().bytes(),
            b"-----\nabc\r\n\t-----"
        );
        assert_eq!(of(b"1234567\0").unwrap_err(), NoSecret::Byte { at: 7 });
        assert_eq!(of(b"1234567\n").unwrap_err(), NoSecret::Short { length: 7 });
    }

    #[test]
    fn nothing_shows_a_value() {
        let secret = Secret::new(b"sk-ant-0123456789".to_vec()).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(17 bytes)");
        let print = secret.fingerprint();
        assert_eq!(print.len(), 16);
        assert_ne!(print, Secret::new(b"sk-ant-0123456780".to_vec()).unwrap().fingerprint());
    }
}
