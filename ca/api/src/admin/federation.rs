//! Tokens that anyone can verify: how the CA is with them, and the documents that verify them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spiffe::time::Timestamp;

/// How the CA is with JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FederationStatus {
    /// What tokens say in `iss`.
    pub issuer: String,
    /// The keys that are published, in the order in which they sign.
    pub keys: Vec<JwtKeyStatus>,
    /// Tokens signed since the start of this process.
    pub tokens: u64,
    /// Where the documents are served; nowhere when they are brought to those who need them.
    pub endpoint: Option<EndpointStatus>,
}

/// What a key does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JwtKeyState {
    /// It signed, and is published until its last token is long over.
    Old,
    /// It signs.
    Signing,
    /// It is published, so that everybody has it when it signs.
    Next,
}

impl JwtKeyState {
    /// The word of it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Signing => "signing",
            Self::Next => "next",
        }
    }
}

/// One key for JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtKeyStatus {
    /// `kid`, its thumbprint (RFC 7638).
    pub key_id: String,
    /// What it does now.
    pub state: JwtKeyState,
    /// Since when it is published.
    pub published: Timestamp,
    /// From when on it signs.
    pub signs_from: Timestamp,
    /// When it is taken away; not known before there is a next one.
    pub gone: Option<Timestamp>,
}

/// The endpoint that serves the documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its address.
    pub listen: String,
    /// Its certificate; none on loopback behind a web server.
    pub tls: Option<EndpointTls>,
}

/// The certificate of the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointTls {
    /// When it ends.
    pub not_after: Timestamp,
    /// Whether it is for the issuer's host.
    pub names_issuer: bool,
}

/// What relying parties read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleDocuments {
    /// The SPIFFE bundle (Trust Domain and Bundle §4), with keys of both kinds.
    pub bundle: Value,
    /// The keys for JWT-SVIDs alone (RFC 7517), for relying parties that know no SPIFFE; none without `federation:`.
    pub jwks: Option<Value>,
}
