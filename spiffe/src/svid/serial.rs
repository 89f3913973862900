use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// RFC 5280 §4.1.2.2: "Conforming CAs MUST NOT use serialNumber values longer than 20 octets."
pub const SERIAL_BYTES_MAX: usize = 20;

/// The serial number of a certificate: a positive integer of at most 20 bytes in DER.
///
/// Written as lower-case hex, two digits a byte, without leading zero bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial {
    /// Big-endian, filled with zeros in front, so that the derived order is that of the numbers.
    number: [u8; SERIAL_BYTES_MAX],
}

/// Says why bytes or a text are not a serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SerialError {
    /// The number is zero, or there are no bytes.
    #[error("a serial number of zero is not allowed")]
    Zero,
    /// The number is negative, read as a DER integer.
    #[error("a negative serial number is not allowed")]
    Negative,
    /// The number is longer than 20 bytes.
    #[error("the serial number has {bytes} bytes; at most 20 are allowed")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The text is not pairs of lower-case hex digits without a leading zero byte.
    #[error("the serial number is not lower-case hex without leading zero bytes")]
    NotHex,
}

impl Serial {
    /// Reads the content bytes of a DER INTEGER: big-endian, two's complement.
    ///
    /// # Errors
    /// When the number is zero or negative, or there are more than 20 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SerialError> {
        let mut number = [0; SERIAL_BYTES_MAX];
        if bytes.len() > SERIAL_BYTES_MAX {
            return Err(SerialError::TooLong { bytes: bytes.len() });
        }
        if bytes.first().is_some_and(|first| first & 0x80 != 0) {
            return Err(SerialError::Negative);
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(SerialError::Zero);
        }
        for (place, byte) in number.iter_mut().rev().zip(bytes.iter().rev()) {
            *place = *byte;
        }
        Ok(Self { number })
    }

    /// Gives the number, big-endian, without leading zero bytes.
    pub fn as_bytes(&self) -> &[u8] {
        let start = self.number.iter().position(|byte| *byte != 0).unwrap_or_default();
        self.number.get(start..).unwrap_or_default()
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At once, for every record of a call tells two: a formatter for each digit costs more than the rest of the record.
        let mut text = [0; 2 * SERIAL_BYTES_MAX];
        let mut length = 0;
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.as_bytes()) {
            for (digit, half) in pair.iter_mut().zip([byte >> 4, byte & 0xf]) {
                *digit = if half < 10 { b'0' + half } else { b'a' + half - 10 };
            }
            length += 2;
        }
        let text = text.get(..length).unwrap_or_default();
        f.write_str(str::from_utf8(text).unwrap_or_default())
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    /// Reads exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 2 * SERIAL_BYTES_MAX {
            return Err(SerialError::TooLong {
                bytes: text.len().div_ceil(2),
            });
        }
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes = pairs
            .iter()
            .map(|[high, low]| Some(16 * nibble(*high)? + nibble(*low)?))
            .collect::<Option<Vec<u8>>>();
        match bytes {
            Some(bytes) if rest.is_empty() && bytes.first() != Some(&0) => Self::from_bytes(&bytes),
            Some(_) | None => Err(SerialError::NotHex),
        }
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
