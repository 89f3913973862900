//! The header of a JWT-SVID.

use serde::Deserialize;
use serde_json::{Value, json};

use super::JwtError;
use super::authority::is_key_id;

/// JWT-SVID §2: what is not named here must not be there, so a token cannot point at a key or a critical extension.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    /// Optional in the standard; SPIRE and go-spiffe refuse tokens without it, and so does this.
    kid: String,
    #[serde(default, deserialize_with = "super::claims::present")]
    typ: Option<String>,
}

/// Gives the key that the header names.
pub(super) fn parse(json: &[u8]) -> Result<String, JwtError> {
    let header: Header = serde_json::from_slice(json).map_err(|source| JwtError::Header { source })?;
    if header.alg != "ES256" {
        return Err(JwtError::Algorithm);
    }
    if !matches!(header.typ.as_deref(), None | Some("JWT" | "JOSE")) {
        return Err(JwtError::Type);
    }
    if is_key_id(&header.kid) {
        Ok(header.kid)
    } else {
        Err(JwtError::KeyId)
    }
}

pub(super) fn write(key_id: &str) -> Value {
    json!({ "alg": "ES256", "kid": key_id, "typ": "JWT" })
}
