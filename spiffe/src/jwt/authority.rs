//! The public half of a key that signs JWT-SVIDs.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use thiserror::Error;

/// The most bytes that the name of a key may have.
pub const KEY_ID_BYTES_MAX: usize = 256;

/// A coordinate of a point on P-256.
const COORDINATE_BYTES: usize = 32;

/// A key whose signatures count for the JWT-SVIDs of one trust domain: ECDSA on P-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtAuthority {
    key_id: String,
    x: [u8; COORDINATE_BYTES],
    y: [u8; COORDINATE_BYTES],
}

/// Says why something is no key for JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JwtAuthorityError {
    /// The point is not 04 and two coordinates of 32 bytes (SEC 1 §2.3.3).
    #[error("the key is not an uncompressed point on P-256")]
    Point,
    /// Trust Domain and Bundle §4.2.3: a key for JWT-SVIDs has a name, here of 1 to 256 visible ASCII characters.
    #[error("the key has no proper kid")]
    KeyId,
    /// RFC 7518 §6.2.1: a coordinate is base64url of 32 bytes.
    #[error("the key has no proper {coordinate}")]
    Coordinate {
        /// Which.
        coordinate: &'static str,
    },
}

impl JwtAuthority {
    /// Takes a point: 04 and both coordinates. The key's name is its thumbprint (RFC 7638), so that a name means one key
    /// whoever writes it down.
    ///
    /// # Errors
    /// [`JwtAuthorityError::Point`] when it is anything else.
    pub fn from_point(point: &[u8]) -> Result<Self, JwtAuthorityError> {
        let coordinates = point.strip_prefix(&[4]).ok_or(JwtAuthorityError::Point)?;
        let (x, y) = coordinates
            .split_at_checked(COORDINATE_BYTES)
            .ok_or(JwtAuthorityError::Point)?;
        let (Ok(x), Ok(y)) = (x.try_into(), y.try_into()) else {
            return Err(JwtAuthorityError::Point);
        };
        let mut authority = Self {
            key_id: String::new(),
            x,
            y,
        };
        authority.key_id = authority.thumbprint();
        Ok(authority)
    }

    /// RFC 7638 §3: SHA-256 over the required members in the order of their names.
    fn thumbprint(&self) -> String {
        let (x, y) = (URL_SAFE_NO_PAD.encode(self.x), URL_SAFE_NO_PAD.encode(self.y));
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, members.as_bytes()))
    }

    /// Reads a key for JWT-SVIDs out of a JWK; `None` for one of another kind, whose signatures nobody here can check.
    pub(crate) fn from_jwk(jwk: &Map<String, Value>) -> Result<Option<Self>, JwtAuthorityError> {
        let text = |member| jwk.get(member).and_then(Value::as_str);
        if (text("kty"), text("crv")) != (Some("EC"), Some("P-256")) {
            return Ok(None);
        }
        let coordinate = |name: &'static str| {
            text(name)
                .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok())
                .ok_or(JwtAuthorityError::Coordinate { coordinate: name })
        };
        let key_id = text("kid").filter(|kid| is_key_id(kid));
        Ok(Some(Self {
            key_id: key_id.ok_or(JwtAuthorityError::KeyId)?.to_owned(),
            x: coordinate("x")?,
            y: coordinate("y")?,
        }))
    }

    /// Writes it into a SPIFFE bundle (Trust Domain and Bundle §4.2).
    pub(crate) fn to_spiffe_jwk(&self) -> Value {
        self.to_jwk("jwt-svid")
    }

    /// Writes it for relying parties that know OpenID Connect and not SPIFFE: `use` is `sig` and `alg` is there. Google's
    /// takes no set without them, and none with certificates (`x5c`, `x5t`).
    pub fn to_oidc_jwk(&self) -> Value {
        let mut jwk = self.to_jwk("sig");
        if let Some(members) = jwk.as_object_mut() {
            members.insert("alg".to_owned(), json!("ES256"));
        }
        jwk
    }

    fn to_jwk(&self, usage: &str) -> Value {
        let (x, y) = (URL_SAFE_NO_PAD.encode(self.x), URL_SAFE_NO_PAD.encode(self.y));
        json!({ "kty": "EC", "use": usage, "crv": "P-256", "kid": self.key_id, "x": x, "y": y })
    }

    /// Gives the key's name.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Gives the point: 04 and both coordinates.
    pub fn point(&self) -> [u8; 1 + 2 * COORDINATE_BYTES] {
        let mut point = [4; 1 + 2 * COORDINATE_BYTES];
        for (place, byte) in point.iter_mut().skip(1).zip(self.x.iter().chain(&self.y)) {
            *place = *byte;
        }
        point
    }
}

/// Tells whether a text may name a key.
pub(super) fn is_key_id(text: &str) -> bool {
    (1..=KEY_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
