//! The token of a login: in memory alone, wiped with its last holder, and never shown.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};
use zeroize::Zeroizing;

/// The longest token, in bytes; batch tokens are some hundred.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// A token.
pub(super) struct Token(Zeroizing<Vec<u8>>);

impl Token {
    /// Takes visible ASCII of a bounded length.
    fn new(text: &str) -> Option<Self> {
        let fits = (1..=TOKEN_BYTES_MAX).contains(&text.len());
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        (fits && visible).then(|| Self(Zeroizing::new(text.as_bytes().to_vec())))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Token;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Token, E> {
                Token::new(text).ok_or_else(|| E::custom("no token"))
            }
        }
        input.deserialize_str(Text).map_err(D::Error::custom)
    }
}
