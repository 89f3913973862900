//! JWT-SVIDs: a SPIFFE ID in a signed token, for whoever speaks no mutual TLS.
//!
//! Parsing checks every rule that a token can break by itself (JWT-SVID §2 to §4). What else it takes to believe one is
//! [`JwtSvid::accept`], for time, audience and trust domain, and `spiffe_tls`, which holds the signature against the
//! [`JwtAuthority`] that the header names.
//!
//! One algorithm, ES256. The standard knows eight more; each would be another way in, and no token of this mesh has one.

mod authority;
mod claims;
mod error;
mod header;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::id::{SpiffeId, TrustDomain};
use crate::time::Timestamp;

pub use authority::{JwtAuthority, JwtAuthorityError, KEY_ID_BYTES_MAX};
pub use claims::{AUDIENCES_MAX, Claims};
pub use error::JwtError;

/// The most bytes that a token may have: a SPIFFE ID of 2048 bytes (SPIFFE-ID §2.3), an audience and an issuer of one KiB
/// fit in base64, and so does what else is in it.
pub const JWT_BYTES_MAX: usize = 8 * 1024;

/// A signature of ES256: two numbers of 32 bytes (RFC 7518 §3.4).
pub const SIGNATURE_BYTES: usize = 64;

/// How far clocks may differ (JWT-SVID §4.3 allows a small leeway).
pub const LEEWAY: std::time::Duration = std::time::Duration::from_mins(1);

/// A JWT-SVID that keeps every rule of its form. Who signed it is not known yet.
///
/// It holds none of the token's text, so that nothing that prints it gives the token away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSvid {
    key_id: String,
    claims: Claims,
    signature: [u8; SIGNATURE_BYTES],
}

impl JwtSvid {
    /// Parses the compact form of JWS, the only one that JWT-SVID §5 allows; at most 8 KiB.
    ///
    /// # Errors
    /// With the rule that the token breaks.
    pub fn parse(token: &str) -> Result<Self, JwtError> {
        if token.len() > JWT_BYTES_MAX {
            return Err(JwtError::Oversize { bytes: token.len() });
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtError::NotCompact);
        };
        let key_id = header::parse(&decode("header", header)?)?;
        let claims = Claims::parse(&decode("claims", claims)?)?;
        let signature = decode("signature", signature)?;
        let signature = <[u8; SIGNATURE_BYTES]>::try_from(signature.as_slice())
            .map_err(|_length| JwtError::SignatureLength { bytes: signature.len() })?;
        Ok(Self {
            key_id,
            claims,
            signature,
        })
    }

    /// Gives the part of a token that its signature is over (RFC 7515 §5.1).
    ///
    /// # Errors
    /// [`JwtError::NotCompact`] where there is no signature to cut off.
    pub fn signed(token: &str) -> Result<&[u8], JwtError> {
        let (signed, _signature) = token.rsplit_once('.').ok_or(JwtError::NotCompact)?;
        Ok(signed.as_bytes())
    }

    /// Passes a token that a member of `trust_domain` may show to `audience` now.
    ///
    /// # Errors
    /// With what does not hold: it ended, or is not good yet (a minute of leeway), is for others, or names somebody of
    /// another trust domain.
    pub fn accept(&self, trust_domain: &TrustDomain, audience: &str, now: Timestamp) -> Result<(), JwtError> {
        let claims = &self.claims;
        if now >= claims.expires + LEEWAY {
            return Err(JwtError::Expired { ended: claims.expires });
        }
        for begins in [claims.not_before, claims.issued_at].into_iter().flatten() {
            if begins > now + LEEWAY {
                return Err(JwtError::NotYet { begins });
            }
        }
        if !claims.audience.iter().any(|named| named == audience) {
            return Err(JwtError::OtherAudience);
        }
        if !claims.subject.is_member_of(trust_domain) {
            return Err(JwtError::OtherTrustDomain {
                found: claims.subject.trust_domain(),
            });
        }
        Ok(())
    }

    /// Gives the SPIFFE ID, which has a path.
    pub fn id(&self) -> &SpiffeId {
        &self.claims.subject
    }

    /// Gives the name of the key that it says it is signed with.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Gives what it claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Gives the signature.
    pub fn signature(&self) -> &[u8; SIGNATURE_BYTES] {
        &self.signature
    }
}

/// A token without its signature: header and claims, as they are signed.
///
/// Its text is no credential yet; [`UnsignedJwt::sign`] makes it one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedJwt(String);

impl UnsignedJwt {
    /// Writes header and claims: `alg`, `kid` and `typ`, and nothing else in the header.
    pub fn new(key_id: &str, claims: &Claims) -> Self {
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        Self(format!("{}.{}", part(header::write(key_id)), part(claims.write())))
    }

    /// Gives what is to be signed.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Puts the signature to it.
    #[must_use]
    pub fn sign(self, signature: &[u8; SIGNATURE_BYTES]) -> String {
        format!("{}.{}", self.0, URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Reads base64url without padding, in its one form (RFC 7515 §2): one token has one text.
fn decode(part: &'static str, text: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|source| JwtError::Base64 { part, source })
}

#[cfg(test)]
mod tests;
