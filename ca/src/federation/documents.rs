//! What relying parties read: who signs, with which keys, and the SPIFFE bundle.

use bytes::Bytes;
use http::HeaderValue;
use serde_json::json;
use spiffe::bundle::TrustBundle;

use crate::authority::sha256;
use crate::config::Issuer;

/// One document, as it is served.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) body: Bytes,
    /// Changes with the body (RFC 9110 §8.8.3).
    pub(super) etag: HeaderValue,
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// OpenID Connect Discovery §4.
    Discovery,
    /// RFC 7517 §5, without what only SPIFFE knows.
    Keys,
    /// SPIFFE Trust Domain and Bundle §4.
    Bundle,
}

impl Which {
    pub(super) const ALL: [Self; 3] = [Self::Discovery, Self::Keys, Self::Bundle];

    /// Its path below the issuer's.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Discovery => "/.well-known/openid-configuration",
            Self::Keys => "/keys",
            Self::Bundle => "/bundle.json",
        }
    }

    /// The word of metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Keys => "keys",
            Self::Bundle => "bundle",
        }
    }
}

/// All of them, written when the keys change.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    discovery: Document,
    keys: Document,
    bundle: Document,
}

impl Documents {
    pub(super) fn new(issuer: &Issuer, bundle: &TrustBundle) -> Self {
        Self {
            discovery: Document::new(discovery(issuer)),
            keys: Document::new(bundle.to_oidc_jwks()),
            bundle: Document::new(bundle.to_jwks()),
        }
    }

    pub(super) fn get(&self, which: Which) -> &Document {
        match which {
            Which::Discovery => &self.discovery,
            Which::Keys => &self.keys,
            Which::Bundle => &self.bundle,
        }
    }
}

impl Document {
    fn new(body: Vec<u8>) -> Self {
        let hash = crate::hex(&sha256(&body));
        let etag = HeaderValue::from_str(&format!("\"{}\"", hash.get(..32).unwrap_or(&hash)));
        Self {
            body: body.into(),
            etag: etag.unwrap_or(HeaderValue::from_static("\"\"")),
        }
    }
}

/// Writes what the providers ask for that exchange tokens. There is nobody to log in here, so there is no endpoint for that;
/// Kubernetes leaves it away too.
fn discovery(issuer: &Issuer) -> Vec<u8> {
    let document = json!({
        "issuer": issuer.as_str(),
        "jwks_uri": format!("{issuer}{}", Which::Keys.path()),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["aud", "exp", "iat", "iss", "jti", "sub"],
    });
    document.to_string().into_bytes()
}
