//! The join token: one line of text that lets one machine become one host, once.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use spiffe::id::{HostName, TrustDomain};
use zeroize::Zeroizing;

use crate::hex;

/// What a token's text begins with; the digit is the version of the format.
pub const PREFIX: &str = "bmj1_";

/// The longest text that is looked at. The longest trust domain (255 bytes), host
/// (63) and 16 pins need less than half of it.
pub const TEXT_BYTES_MAX: usize = 4096;

/// The most roots that a token pins: both slots of a rotation, for several CA servers.
pub const PINS_MAX: usize = 16;

/// The length of the secret.
pub const SECRET_BYTES: usize = 32;

/// The secret of a token: zeroized when dropped, never printed, never copied.
pub struct TokenSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl TokenSecret {
    /// Wraps random bytes.
    #[must_use]
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads the text of `TokenEvidence.secret`: base64url without padding.
    ///
    /// # Errors
    ///
    /// [`TokenError::Secret`] when it is not exactly 32 encoded bytes.
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        let mut secret = Self::new([0; SECRET_BYTES]);
        let read = URL_SAFE_NO_PAD
            .decode_slice(text, secret.0.as_mut_slice())
            .map_err(|_ignored| TokenError::Secret)?;
        if read != SECRET_BYTES {
            return Err(TokenError::Secret);
        }
        Ok(secret)
    }

    /// Gives the bytes away: to hash them, and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// Gives the text of `TokenEvidence.secret`: to send it, and for nothing else.
    #[must_use]
    pub fn expose_text(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0.as_slice()))
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(<redacted>)")
    }
}

/// A join token: names the host, pins the CA, and proves the right to join.
///
/// The text is `bmj1_` and base64url (no padding) of compact JSON. [`fmt::Display`]
/// writes the text *with the secret*: it is for the one line that hands the token
/// to the operator. [`fmt::Debug`] redacts.
#[derive(Debug)]
pub struct JoinToken {
    trust_domain: TrustDomain,
    host: HostName,
    pins: Vec<[u8; 32]>,
    expires_unix_seconds: i64,
    secret: TokenSecret,
}

impl JoinToken {
    /// Makes a token.
    ///
    /// # Errors
    ///
    /// [`TokenError::Pins`] without a pin or with more than [`PINS_MAX`].
    pub fn new(
        trust_domain: TrustDomain,
        host: HostName,
        pins: Vec<[u8; 32]>,
        expires_unix_seconds: i64,
        secret: TokenSecret,
    ) -> Result<Self, TokenError> {
        // A token without a pin would trust whoever answers.
        if pins.is_empty() || pins.len() > PINS_MAX {
            return Err(TokenError::Pins { count: pins.len() });
        }
        Ok(Self {
            trust_domain,
            host,
            pins,
            expires_unix_seconds,
            secret,
        })
    }

    /// Reads a token's text; white space around it (a file's newline) is allowed.
    ///
    /// # Errors
    ///
    /// One [`TokenError`] per rule; none of them shows any part of the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::TooLong { bytes: text.len() });
        }
        let Some(body) = text.trim_ascii().strip_prefix(PREFIX) else {
            return Err(TokenError::Prefix);
        };
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).map_err(|_ignored| TokenError::Encoding)?);
        // The reader's own error would quote the secret's text.
        let wire: Wire = serde_json::from_slice(&json).map_err(|_ignored| TokenError::Json)?;
        let pins = wire
            .pins
            .iter()
            .map(|pin| hex::decode_sha256(pin))
            .collect::<Option<Vec<_>>>()
            .ok_or(TokenError::Pin)?;
        let secret = TokenSecret::from_text(&wire.secret)?;
        Self::new(wire.td, wire.host, pins, wire.exp, secret)
    }

    /// The trust domain that the host will belong to.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The host that the CA will make of the bearer.
    #[must_use]
    pub const fn host(&self) -> &HostName {
        &self.host
    }

    /// SHA-256 of the SubjectPublicKeyInfo of every root in the bundle.
    #[must_use]
    pub fn pins(&self) -> &[[u8; 32]] {
        &self.pins
    }

    /// When the CA will stop taking the token, in seconds since the Unix epoch.
    #[must_use]
    pub const fn expires_unix_seconds(&self) -> i64 {
        self.expires_unix_seconds
    }

    /// The secret.
    #[must_use]
    pub const fn secret(&self) -> &TokenSecret {
        &self.secret
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::parse(text)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = Wire {
            td: self.trust_domain.clone(),
            host: self.host.clone(),
            pins: self.pins.iter().map(|pin| hex::encode(pin)).collect(),
            exp: self.expires_unix_seconds,
            secret: self.secret.expose_text(),
        };
        let json = Zeroizing::new(serde_json::to_vec(&wire).map_err(|_ignored| fmt::Error)?);
        f.write_str(PREFIX)?;
        f.write_str(&Zeroizing::new(URL_SAFE_NO_PAD.encode(&*json)))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    td: TrustDomain,
    host: HostName,
    pins: Vec<String>,
    exp: i64,
    #[serde(with = "zeroizing_text")]
    secret: Zeroizing<String>,
}

mod zeroizing_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(text: &Zeroizing<String>, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(input).map(Zeroizing::new)
    }
}

/// Why a text is not a join token. No variant carries any of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("a join token has at most {TEXT_BYTES_MAX} bytes, this text has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Does not begin with [`PREFIX`].
    #[error("a join token begins with `{PREFIX}`")]
    Prefix,
    /// What follows the prefix is not base64url without padding.
    #[error("the join token is damaged: not base64url")]
    Encoding,
    /// The decoded text is not the JSON of a token.
    #[error("the join token is damaged: not the JSON of a token")]
    Json,
    /// A pin is not 64 lower-case hexadecimal digits.
    #[error("the join token is damaged: a pin is not a SHA-256 in hexadecimal")]
    Pin,
    /// No pin, or too many.
    #[error("a join token pins 1 to {PINS_MAX} roots, this one pins {count}")]
    Pins {
        /// How many it has.
        count: usize,
    },
    /// The secret is not 32 bytes of base64url.
    #[error("the join token is damaged: its secret is not {SECRET_BYTES} bytes")]
    Secret,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(pins: Vec<[u8; 32]>, exp: i64, secret: [u8; 32]) -> Result<JoinToken, TokenError> {
        let domain = TrustDomain::parse("acme.internal").unwrap();
        JoinToken::new(
            domain,
            HostName::parse("web-1").unwrap(),
            pins,
            exp,
            TokenSecret::new(secret),
        )
    }

    fn encode(json: &str) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    fn json(pin: &str, secret: &str, more: &str) -> String {
        format!(r#"{{"td":"acme.internal","host":"web-1","pins":["{pin}"],"exp":1,"secret":"{secret}"{more}}}"#)
    }

    proptest! {
        #[test]
        fn a_token_survives_its_text(
            pins in proptest::collection::vec(any::<[u8; 32]>(), 1..=PINS_MAX),
            exp: i64,
            secret: [u8; 32],
        ) {
            let text = token(pins.clone(), exp, secret).unwrap().to_string();
            prop_assert!(text.len() <= TEXT_BYTES_MAX);
            let read = JoinToken::parse(&format!("{text}\n")).unwrap();
            prop_assert_eq!(read.pins(), &pins[..]);
            prop_assert_eq!(read.expires_unix_seconds(), exp);
            prop_assert_eq!(read.secret().expose(), &secret);
            prop_assert_eq!(read.to_string(), text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,300}", body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ignored = JoinToken::parse(&text).is_ok();
            let _ignored = JoinToken::parse(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(body))).is_ok();
        }
    }

    #[test]
    fn debug_shows_neither_secret_nor_its_text() {
        let token = token(vec![[7; 32]], 1, [0x41; 32]).unwrap();
        let debug = format!("{token:?}");
        assert!(debug.contains("redacted"));
        assert!(!debug.contains("65, 65"));
        assert!(!debug.contains(token.secret().expose_text().as_str()));
    }

    #[test]
    fn a_token_without_a_pin_is_refused() {
        assert_eq!(token(vec![], 1, [0; 32]).unwrap_err(), TokenError::Pins { count: 0 });
        assert_eq!(
            token(vec![[0; 32]; 17], 1, [0; 32]).unwrap_err(),
            TokenError::Pins { count: 17 }
        );
    }

    #[test]
    fn every_damage_has_its_word() {
        let pin = "ab".repeat(32);
        let secret = URL_SAFE_NO_PAD.encode([1; 32]);
        assert!(JoinToken::parse(&encode(&json(&pin, &secret, ""))).is_ok());
        let refused = |text: &str| JoinToken::parse(text).unwrap_err();
        assert_eq!(refused(&" ".repeat(5000)), TokenError::TooLong { bytes: 5000 });
        assert_eq!(refused("bmj2_e30"), TokenError::Prefix);
        assert_eq!(refused("bmj1_e30="), TokenError::Encoding);
        assert_eq!(refused("bmj1_e30"), TokenError::Json);
        assert_eq!(refused(&encode(&json(&pin, &secret, r#","x":1"#))), TokenError::Json);
        assert_eq!(
            refused(&encode(&json(&pin.to_uppercase(), &secret, ""))),
            TokenError::Pin
        );
        assert_eq!(
            refused(&encode(&json(pin.trim_start_matches("ab"), &secret, ""))),
            TokenError::Pin
        );
        assert_eq!(
            refused(&encode(&json(&pin, secret.trim_start_matches("AQ"), ""))),
            TokenError::Secret
        );
        assert_eq!(
            refused(&encode(&json(&pin, &format!("{secret}AAAA"), ""))),
            TokenError::Secret
        );
    }
}
