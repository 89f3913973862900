use std::sync::Arc;

use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::extensions::{Common, Extensions, certificate};
use super::leaf::sha256;
use super::{Serial, SvidError};
use crate::id::SpiffeId;
use crate::time::Timestamp;

/// RSA keys shorter than this are broken or near it (CA/Browser baseline §6.1.5); longer than the other cost a
/// verifier too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A signing certificate of a trust domain: one authority of its bundle.
///
/// X509-SVID §3.2, §4.1 and §4.3 hold for every value. It must never authenticate anyone by itself. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    der: Arc<[u8]>,
    spki_sha256: [u8; 32],
    serial: Serial,
    not_before: Timestamp,
    not_after: Timestamp,
    id: Option<SpiffeId>,
    key: AuthorityKey,
}

/// The parameters of an authority's public key, big-endian, as a JWK needs them (RFC 7518 §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityKey {
    /// ECDSA on P-256: the coordinates, 32 bytes each.
    P256 {
        /// The first coordinate.
        x: Vec<u8>,
        /// The second coordinate.
        y: Vec<u8>,
    },
    /// ECDSA on P-384: the coordinates, 48 bytes each.
    P384 {
        /// The first coordinate.
        x: Vec<u8>,
        /// The second coordinate.
        y: Vec<u8>,
    },
    /// RSA of 2048 to 8192 bits, without leading zero bytes.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
}

impl Authority {
    /// Parses a signing certificate from DER, at most 16 KiB.
    ///
    /// # Errors
    /// With the rule that the certificate breaks.
    pub fn parse(der: &[u8]) -> Result<Self, SvidError> {
        let certificate = certificate(der)?;
        let found = Extensions::read(&certificate)?;
        let common = Common::read(&certificate, &found)?;
        if !common.ca {
            return Err(SvidError::NotCa);
        }
        if !common.key_usage.key_cert_sign() {
            return Err(SvidError::NoKeyCertSign);
        }
        if common.id.as_ref().is_some_and(|id| !id.path().is_empty()) {
            return Err(SvidError::AuthorityPath);
        }
        let spki = certificate.public_key();
        Ok(Self {
            der: Arc::from(der),
            spki_sha256: sha256(spki.raw),
            serial: common.serial,
            not_before: common.not_before,
            not_after: common.not_after,
            id: common.id,
            key: key(spki).ok_or(SvidError::KeyUnsupported)?,
        })
    }

    /// Gives the certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Gives SHA-256 of its SubjectPublicKeyInfo in DER: the pin that a join token carries.
    pub fn spki_sha256(&self) -> &[u8; 32] {
        &self.spki_sha256
    }

    /// Gives the serial number.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Gives the first moment of its validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Gives the last moment of its validity, itself included.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Gives its SPIFFE ID, which names a trust domain; an authority need not have one.
    pub fn id(&self) -> Option<&SpiffeId> {
        self.id.as_ref()
    }

    /// Gives the parameters of its public key.
    pub fn key(&self) -> &AuthorityKey {
        &self.key
    }
}

/// Takes the parameters out of a public key, or gives `None` for a kind that is not supported.
fn key(spki: &SubjectPublicKeyInfo<'_>) -> Option<AuthorityKey> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind of key is refused")]
    match spki.parsed().ok()? {
        PublicKey::EC(point) => {
            let curve = spki.algorithm.parameters()?.as_oid().ok()?;
            // SEC 1 §2.3.3: 04 and both coordinates. Compressed points are refused, as every verifier here does.
            let coordinates = point.data().strip_prefix(&[4])?;
            let (x, y) = coordinates.split_at_checked(coordinates.len() / 2)?;
            let (x, y) = (x.to_vec(), y.to_vec());
            if curve == OID_EC_P256 && coordinates.len() == 64 {
                return Some(AuthorityKey::P256 { x, y });
            }
            if curve == OID_NIST_EC_P384 && coordinates.len() == 96 {
                return Some(AuthorityKey::P384 { x, y });
            }
            None
        }
        PublicKey::RSA(rsa) => {
            let n = unsigned(rsa.modulus)?;
            let bits = n.len() * 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
            RSA_BITS.contains(&bits).then(|| {
                Some(AuthorityKey::Rsa {
                    n,
                    e: unsigned(rsa.exponent)?,
                })
            })?
        }
        _ => None,
    }
}

/// Reads a positive DER integer, without its leading zero bytes.
fn unsigned(integer: &[u8]) -> Option<Vec<u8>> {
    if integer.first()? & 0x80 != 0 {
        return None;
    }
    let start = integer.iter().position(|byte| *byte != 0)?;
    integer.get(start..).map(<[u8]>::to_vec)
}
