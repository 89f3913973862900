use std::sync::Arc;

use aws_lc_rs::digest;

use super::extensions::{Common, Extensions, certificate};
use super::{Serial, SvidError};
use crate::id::SpiffeId;
use crate::time::Timestamp;

/// The leaf certificate of an X.509-SVID: who its holder is, once a chain is verified.
///
/// Every rule of X509-SVID §2, §4 and §5.2 that concerns the leaf alone holds for every value. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    id: SpiffeId,
    serial: Serial,
    not_before: Timestamp,
    not_after: Timestamp,
    spki: Arc<[u8]>,
    sha256: [u8; 32],
}

impl Leaf {
    /// Parses a leaf from DER, at most 16 KiB.
    ///
    /// # Errors
    /// With the rule that the certificate breaks. Extended key usage may be absent, as X509-SVID §4.4 only recommends
    /// it; where present, it must hold both uses.
    pub fn parse(der: &[u8]) -> Result<Self, SvidError> {
        let certificate = certificate(der)?;
        let found = Extensions::read(&certificate)?;
        let common = Common::read(&certificate, &found)?;
        if common.ca {
            return Err(SvidError::CaBit);
        }
        let id = common.id.ok_or(SvidError::NoUriSan)?;
        if id.path().is_empty() {
            return Err(SvidError::RootPath);
        }
        if !common.key_usage.digital_signature() {
            return Err(SvidError::NoDigitalSignature);
        }
        if common.key_usage.key_cert_sign() {
            return Err(SvidError::KeyCertSign);
        }
        if common.key_usage.crl_sign() {
            return Err(SvidError::CrlSign);
        }
        if found
            .extended_key_usage
            .is_some_and(|usage| !(usage.server_auth && usage.client_auth))
        {
            return Err(SvidError::WrongEku);
        }
        Ok(Self {
            id,
            serial: common.serial,
            not_before: common.not_before,
            not_after: common.not_after,
            spki: Arc::from(certificate.public_key().raw),
            sha256: sha256(der),
        })
    }

    /// Gives the SPIFFE ID, which has a path.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Gives the serial number.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Gives the first moment of its validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Gives the last moment of its validity, itself included (RFC 5280 §4.1.2.5).
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Gives the public key as SubjectPublicKeyInfo in DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Gives SHA-256 of the certificate's DER.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

/// Hashes `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (place, byte) in hash.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *place = *byte;
    }
    hash
}
