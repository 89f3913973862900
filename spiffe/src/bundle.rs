//! The trust bundle: the authorities and keys whose signatures count in one trust domain, and in no other.

mod jwks;

use std::time::Duration;

use thiserror::Error;

use crate::id::TrustDomain;
use crate::jwt::{JwtAuthority, JwtAuthorityError};
use crate::svid::{Authority, SvidError};

/// The most authorities or keys that a bundle may have. A rotation needs two or three for each CA server.
pub const BUNDLE_KEYS_MAX: usize = 64;

/// The most bytes that a bundle document may have.
pub const BUNDLE_BYTES_MAX: usize = 1024 * 1024;

/// The bundle of one trust domain.
///
/// Without authorities it is valid, and says that every SVID of the domain is invalid (Trust Domain and Bundle §4.1).
/// Bundles of two domains are never merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    authorities: Vec<Authority>,
    jwt_authorities: Vec<JwtAuthority>,
    sequence: u64,
    refresh_hint: Option<Duration>,
}

/// Says why a document or a list of authorities is not a bundle.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The document is longer than 1 MiB.
    #[error("the bundle of {trust_domain} has {bytes} bytes; at most 1048576 are allowed")]
    Oversize {
        /// The trust domain it was read for.
        trust_domain: TrustDomain,
        /// Its length in bytes.
        bytes: usize,
    },
    /// The document is not a JWK Set (RFC 7517 §5).
    #[error("the bundle of {trust_domain} is not a JWK Set")]
    NotJwks {
        /// The trust domain it was read for.
        trust_domain: TrustDomain,
        /// What the parser met.
        #[source]
        source: serde_json::Error,
    },
    /// There are more than 64 keys.
    #[error("the bundle of {trust_domain} has {keys} keys; at most 64 are allowed")]
    TooManyKeys {
        /// The trust domain it was read for.
        trust_domain: TrustDomain,
        /// How many there are.
        keys: usize,
    },
    /// The `x5c` of a key for X.509-SVIDs is not a list of strings.
    #[error("key {index} of the bundle of {trust_domain} has no proper x5c")]
    X5c {
        /// The trust domain it was read for.
        trust_domain: TrustDomain,
        /// Its place in `keys`, from 0.
        index: usize,
    },
    /// The first certificate of a key is not base64 (RFC 7517 §4.7).
    #[error("key {index} of the bundle of {trust_domain} is not base64")]
    Base64 {
        /// The trust domain it was read for.
        trust_domain: TrustDomain,
        /// Its place in `keys`, from 0.
        index: usize,
        /// What the decoder met.
        #[source]
        source: base64::DecodeError,
    },
    /// The first certificate of a key is not a signing certificate.
    #[error("key {index} of the bundle of {trust_domain} is not a signing certificate")]
    Authority {
        /// The trust domain it was read for.
        trust_domain: TrustDomain,
        /// Its place in `keys`, from 0.
        index: usize,
        /// Which rule it broke.
        #[source]
        source: SvidError,
    },
    /// A key for JWT-SVIDs on P-256 lacks its name or a coordinate.
    #[error("key {index} of the bundle of {trust_domain} is no key for JWT-SVIDs")]
    JwtAuthority {
        /// The trust domain it was read for.
        trust_domain: TrustDomain,
        /// Its place in `keys`, from 0.
        index: usize,
        /// What it lacks.
        #[source]
        source: JwtAuthorityError,
    },
    /// Two keys for JWT-SVIDs have one name, so a token would not say which one signed it.
    #[error("the bundle of {trust_domain} has two keys for JWT-SVIDs named {key_id:?}")]
    KeyIdTwice {
        /// The trust domain it was read for.
        trust_domain: TrustDomain,
        /// The name.
        key_id: String,
    },
    /// An authority carries the SPIFFE ID of another trust domain.
    #[error("the bundle of {trust_domain} holds an authority of another trust domain, {found}")]
    ForeignAuthority {
        /// The trust domain it was read for.
        trust_domain: TrustDomain,
        /// The trust domain that the authority names.
        found: TrustDomain,
    },
}

impl TrustBundle {
    /// Makes the bundle of `trust_domain`.
    ///
    /// `sequence` rises with each change. `refresh_hint` says how often to look for a new one, in whole seconds.
    ///
    /// # Errors
    /// When there are more than 64 authorities, or one carries the ID of another trust domain.
    pub fn new(
        trust_domain: TrustDomain,
        authorities: Vec<Authority>,
        sequence: u64,
        refresh_hint: Option<Duration>,
    ) -> Result<Self, BundleError> {
        if authorities.len() > BUNDLE_KEYS_MAX {
            return Err(BundleError::TooManyKeys {
                trust_domain,
                keys: authorities.len(),
            });
        }
        let foreign = authorities
            .iter()
            .filter_map(Authority::id)
            .find(|id| !id.is_member_of(&trust_domain));
        if let Some(id) = foreign {
            return Err(BundleError::ForeignAuthority {
                trust_domain,
                found: id.trust_domain(),
            });
        }
        let refresh_hint = refresh_hint.map(|hint| Duration::from_secs(hint.as_secs()));
        Ok(Self {
            trust_domain,
            authorities,
            jwt_authorities: Vec::new(),
            sequence,
            refresh_hint,
        })
    }

    /// Gives the bundle with these keys for JWT-SVIDs, under the sequence number that the change makes.
    ///
    /// # Errors
    /// When there are more than 64 keys of both kinds, or two for JWT-SVIDs have one name.
    pub fn with_jwt_authorities(self, keys: Vec<JwtAuthority>, sequence: u64) -> Result<Self, BundleError> {
        let trust_domain = || self.trust_domain.clone();
        let count = self.authorities.len() + keys.len();
        if count > BUNDLE_KEYS_MAX {
            return Err(BundleError::TooManyKeys {
                trust_domain: trust_domain(),
                keys: count,
            });
        }
        let mut names: Vec<&str> = keys.iter().map(JwtAuthority::key_id).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.array_windows().find(|[one, next]| one == next) {
            return Err(BundleError::KeyIdTwice {
                trust_domain: trust_domain(),
                key_id: (*twice).to_owned(),
            });
        }
        Ok(Self {
            jwt_authorities: keys,
            sequence,
            ..self
        })
    }

    /// Parses the JWK Set of `trust_domain` by Trust Domain and Bundle §4.
    ///
    /// Keys with an unknown or missing `use` or `kty`, and keys without certificates, are ignored, as the standard asks;
    /// of several certificates in a key only the first is read. Keys for JWT-SVIDs are ignored where they are not on P-256.
    ///
    /// # Errors
    /// When the document is no JWK Set, breaks a bound, or a key that is not ignored holds no signing certificate of
    /// this trust domain, or no key for JWT-SVIDs. An empty set is no error.
    pub fn parse(trust_domain: &TrustDomain, jwks: &[u8]) -> Result<Self, BundleError> {
        jwks::parse(trust_domain, jwks)
    }

    /// Writes the bundle as a JWK Set, which [`TrustBundle::parse`] reads back.
    pub fn to_jwks(&self) -> Vec<u8> {
        jwks::write(self)
    }

    /// Gives the trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Gives the authorities, in the order of the document.
    pub fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// Gives the keys for JWT-SVIDs, in the order of the document; without any the trust domain has no JWT-SVIDs.
    pub fn jwt_authorities(&self) -> &[JwtAuthority] {
        &self.jwt_authorities
    }

    /// Writes the keys for JWT-SVIDs alone, as the JWK Set (RFC 7517 §5) that relying parties of OpenID Connect read.
    pub fn to_oidc_jwks(&self) -> Vec<u8> {
        jwks::write_oidc(self)
    }

    /// Gives the sequence number; 0 where the document had none.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Gives how often to look for a new bundle.
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }
}

#[cfg(test)]
mod tests;
