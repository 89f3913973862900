use thiserror::Error;

use crate::id::{IdError, TrustDomain};
use crate::time::Timestamp;

/// Says which rule of JWT-SVID a token broke. No part of a token is in any message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JwtError {
    /// It is longer than 8 KiB.
    #[error("the token has {bytes} bytes; at most 8192 are allowed")]
    Oversize {
        /// Its length.
        bytes: usize,
    },
    /// JWT-SVID §5: three parts with two dots between them.
    #[error("the token is not a JWS in its compact form")]
    NotCompact,
    /// RFC 7515 §2: base64url without padding, and in its one form.
    #[error("the token's {part} is not base64url")]
    Base64 {
        /// Which part.
        part: &'static str,
        /// What the decoder met.
        #[source]
        source: base64::DecodeError,
    },
    /// JWT-SVID §2: the header is an object with `alg`, `kid` and `typ` and nothing else, each once.
    #[error("the token's header is not one of a JWT-SVID")]
    Header {
        /// What the parser met.
        #[source]
        source: serde_json::Error,
    },
    /// JWT-SVID §2.1, and of those that it allows this is the one in use.
    #[error("the token's algorithm is not ES256")]
    Algorithm,
    /// The key is not named by 1 to 256 visible ASCII characters.
    #[error("the token's kid names no key")]
    KeyId,
    /// JWT-SVID §2.3: `typ`, where it is there, is `JWT` or `JOSE`.
    #[error("the token's typ is neither JWT nor JOSE")]
    Type,
    /// The claims are no JSON object, one of them is absent that must be there, is there twice, or is of another kind.
    #[error("the token's claims are not those of a JWT-SVID")]
    Claims {
        /// What the parser met.
        #[source]
        source: serde_json::Error,
    },
    /// JWT-SVID §3.1: `sub` is a SPIFFE ID.
    #[error("the token's sub is not a SPIFFE ID")]
    Subject {
        /// Which rule it breaks.
        #[source]
        source: IdError,
    },
    /// JWT-SVID §3.1: of somebody, so it has a path.
    #[error("the token's sub names a trust domain and nobody in it")]
    SubjectPath,
    /// JWT-SVID §3.2: there is an audience. More than 16, or an empty one, is nothing that anybody means.
    #[error("the token's aud is not 1 to 16 names")]
    Audience,
    /// A signature of ES256 has 64 bytes.
    #[error("the token's signature has {bytes} bytes; one of ES256 has 64")]
    SignatureLength {
        /// How many there are.
        bytes: usize,
    },
    /// JWT-SVID §3.3: it ended.
    #[error("the token ended at {ended}")]
    Expired {
        /// When.
        ended: Timestamp,
    },
    /// Its `nbf` or `iat` is in the future.
    #[error("the token is good from {begins} on only")]
    NotYet {
        /// From when on.
        begins: Timestamp,
    },
    /// JWT-SVID §3.2: it is for others.
    #[error("the token is for another audience")]
    OtherAudience,
    /// JWT-SVID §3.1: the trust domain is the one expected.
    #[error("the token names somebody of {found}")]
    OtherTrustDomain {
        /// Whose.
        found: TrustDomain,
    },
}
