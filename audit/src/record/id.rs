//! The id of a call.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// A UUID in its 36-character form, lower case. The proxy of the caller mints
/// it (version 7, RFC 9562 §5.7); the ledger stores it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId([u8; 16]);

/// A text that is no call id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a call id is a UUID of 36 characters in lower case")]
pub struct NotACallId;

impl CallId {
    /// Length of the text form.
    const TEXT: usize = 36;

    /// Takes the 16 bytes of a UUID.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads the text form and no other spelling, so that what a peer sends is
    /// stored as it was or not at all.
    ///
    /// # Errors
    ///
    /// [`NotACallId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, NotACallId> {
        if text.len() != Self::TEXT {
            return Err(NotACallId);
        }
        let mut nibbles = text.bytes().filter(|byte| *byte != b'-');
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let high = nibbles.next().and_then(nibble).ok_or(NotACallId)?;
            let low = nibbles.next().and_then(nibble).ok_or(NotACallId)?;
            *byte = high << 4 | low;
        }
        // Writing it again checks the places of the hyphens.
        let id = Self(bytes);
        if *text.as_bytes() == id.text() {
            Ok(id)
        } else {
            Err(NotACallId)
        }
    }

    /// Returns the text form as bytes.
    pub(super) fn text(&self) -> [u8; Self::TEXT] {
        let mut text = [b'-'; Self::TEXT];
        // A hyphen stands before the bytes 4, 6, 8 and 10 (RFC 9562 §4).
        let places = text.iter_mut().enumerate();
        let mut free = places.filter(|(at, _)| ![8, 13, 18, 23].contains(at)).map(|(_, to)| to);
        for byte in self.0 {
            for half in [byte >> 4, byte & 0xf] {
                if let Some(to) = free.next() {
                    *to = if half < 10 { b'0' + half } else { b'a' + half - 10 };
                }
            }
        }
        text
    }
}

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text()))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({self})")
    }
}

impl FromStr for CallId {
    type Err = NotACallId;

    fn from_str(text: &str) -> Result<Self, NotACallId> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for CallId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_reads_and_writes_as_rfc_9562_has_it() {
        let text = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        let id = CallId::parse(text).unwrap();
        assert_eq!(id.as_bytes()[..3], [0x01, 0x7f, 0x22]);
        assert_eq!(id.to_string(), text);
        assert_eq!(format!("{id:?}"), format!("CallId({text})"));
        assert_eq!(text.parse(), Ok(id));
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "017f22e279b07cc398c4dc0c0c07398f",
            "017F22E2-79b0-7cc3-98c4-dc0c0c07398f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
            "017f22e2-79b0-7cc3-98c4dc0c0c07398f-",
            "017f22e2--79b07cc3-98c4-dc0c0c07398f",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
            "{17f22e2-79b0-7cc3-98c4-dc0c0c07398}",
            "------------------------------------",
        ] {
            assert_eq!(CallId::parse(text), Err(NotACallId), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_id_reads_back(bytes: [u8; 16]) {
            let id = CallId::from_bytes(bytes);
            prop_assert_eq!(CallId::parse(&id.to_string()), Ok(id));
        }
    }
}
