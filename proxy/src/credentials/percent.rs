//! Percent-encoding (RFC 3986 §2.1), as queries and signatures have it.

use bytes::{BufMut, BytesMut};

/// What a plus sign means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plus {
    /// Itself.
    Plus,
    /// A space, as forms write it.
    Space,
}

/// Writes all but the unreserved characters (RFC 3986 §2.3) as `%XX`.
pub(super) fn encode(text: &[u8], out: &mut BytesMut) {
    for byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.put_u8(*byte),
            _ => {
                out.put_u8(b'%');
                out.put_slice(format!("{byte:02X}").as_bytes());
            }
        }
    }
}

/// Reads `%XX`; what is no such thing stands for itself.
pub(super) fn decode(text: &[u8], plus: Plus) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = match (byte, after) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(if *byte == b'+' && plus == Plus::Space {
                    b' '
                } else {
                    *byte
                });
                rest = after;
            }
        }
    }
    out
}

fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_to_the_same(text: Vec<u8>) {
            let mut out = BytesMut::new();
            encode(&text, &mut out);
            prop_assert!(out.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(byte)));
            prop_assert_eq!(decode(&out, Plus::Plus), text.clone());
            prop_assert_eq!(decode(&out, Plus::Space), text);
        }
    }

    #[test]
    fn what_is_no_escape_stands_for_itself() {
        for (text, plain) in [
            ("%41+%4a", "A+J"),
            ("%+1", "%+1"),
            ("%4", "%4"),
            ("%", "%"),
            ("%zz%41", "%zzA"),
        ] {
            assert_eq!(decode(text.as_bytes(), Plus::Plus), plain.as_bytes(), "{text}");
        }
        assert_eq!(decode(b"a+b", Plus::Space), b"a b");
    }
}
