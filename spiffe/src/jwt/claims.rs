//! The claims of a JWT-SVID.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::JwtError;
use crate::id::SpiffeId;
use crate::time::Timestamp;

/// The most audiences that a token may name. Those of this mesh name one: whoever is shown a token can show it to the
/// others that it names.
pub const AUDIENCES_MAX: usize = 16;

/// What a token says. Times are whole seconds (RFC 7519 §2 NumericDate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: whose it is; with a path.
    pub subject: SpiffeId,
    /// `aud`: who it is for; 1 to 16 names.
    pub audience: Vec<String>,
    /// `exp`: when it ends.
    pub expires: Timestamp,
    /// `iat`: when it was signed.
    pub issued_at: Option<Timestamp>,
    /// `nbf`: from when on it is good.
    pub not_before: Option<Timestamp>,
    /// `iss`: the URL of who signed it.
    pub issuer: Option<String>,
    /// `jti`: tells it from every other.
    pub token_id: Option<String>,
}

/// The document. Claims that are not named here are of no concern (RFC 7519 §4).
#[derive(Deserialize)]
struct Document {
    sub: String,
    aud: Audience,
    exp: Seconds,
    #[serde(default, deserialize_with = "present")]
    iat: Option<Seconds>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<Seconds>,
    #[serde(default, deserialize_with = "present")]
    iss: Option<String>,
    #[serde(default, deserialize_with = "present")]
    jti: Option<String>,
}

/// RFC 7519 §4.1.3: one name, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A whole number of seconds since 1970, never before.
#[derive(Clone, Copy, Deserialize)]
struct Seconds(u64);

impl From<Seconds> for Timestamp {
    fn from(seconds: Seconds) -> Self {
        Self::from_unix_seconds(i64::try_from(seconds.0).unwrap_or(i64::MAX))
    }
}

/// Reads a member that may be absent and is never `null`.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<T>, D::Error> {
    T::deserialize(input).map(Some)
}

impl Claims {
    pub(super) fn parse(json: &[u8]) -> Result<Self, JwtError> {
        let document: Document = serde_json::from_slice(json).map_err(|source| JwtError::Claims { source })?;
        let subject = SpiffeId::parse(&document.sub).map_err(|source| JwtError::Subject { source })?;
        if subject.path().is_empty() {
            return Err(JwtError::SubjectPath);
        }
        let audience = match document.aud {
            Audience::One(name) => vec![name],
            Audience::Several(names) => names,
        };
        if !(1..=AUDIENCES_MAX).contains(&audience.len()) || audience.iter().any(String::is_empty) {
            return Err(JwtError::Audience);
        }
        Ok(Self {
            subject,
            audience,
            expires: document.exp.into(),
            issued_at: document.iat.map(Timestamp::from),
            not_before: document.nbf.map(Timestamp::from),
            issuer: document.iss,
            token_id: document.jti,
        })
    }

    /// Writes one audience as a string: some relying parties read no list.
    pub(super) fn write(&self) -> Value {
        let audience = match self.audience.as_slice() {
            [one] => json!(one),
            several => json!(several),
        };
        let seconds = |time: Timestamp| json!(time.unix_seconds());
        let claims = [
            ("sub", Some(json!(self.subject.as_str()))),
            ("aud", Some(audience)),
            ("exp", Some(seconds(self.expires))),
            ("iat", self.issued_at.map(seconds)),
            ("nbf", self.not_before.map(seconds)),
            ("iss", self.issuer.as_ref().map(|issuer| json!(issuer))),
            ("jti", self.token_id.as_ref().map(|id| json!(id))),
        ];
        let members = claims
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(members.collect::<Map<_, _>>())
    }
}
