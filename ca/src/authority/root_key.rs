//! P-256 keys in the shape that the certificate writer wants.

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use spiffe_tls::PrivateKey;

use super::SignError;

/// The SubjectPublicKeyInfo of every P-256 key begins with this (RFC 5480 §2):
/// ecPublicKey, prime256v1, a BIT STRING of an uncompressed point.
const SPKI_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// A public P-256 key: `04 || x || y`.
#[derive(Clone, Debug)]
pub(crate) struct P256Key([u8; 65]);

impl P256Key {
    /// Takes the point out of a SubjectPublicKeyInfo.
    pub(super) fn from_spki(spki: &[u8]) -> Result<Self, SignError> {
        let coordinates: &[u8; 64] = spki
            .strip_prefix(&SPKI_PREFIX)
            .and_then(|rest| rest.try_into().ok())
            .ok_or(SignError::NotP256)?;
        let mut point = [4; 65];
        let (_form, xy) = point.split_at_mut(1);
        xy.copy_from_slice(coordinates);
        Ok(Self(point))
    }
}

impl PublicKeyData for P256Key {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// The root's key.
pub(super) struct RootKey {
    private: PrivateKey,
    public: P256Key,
}

impl RootKey {
    pub(super) fn new(private: PrivateKey) -> Result<Self, SignError> {
        let public = P256Key::from_spki(&private.spki_der())?;
        Ok(Self { private, public })
    }
}

impl PublicKeyData for RootKey {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl SigningKey for RootKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.private
            .sign(message)
            .map_err(|_logged_by_caller| rcgen::Error::RemoteKeyError)
    }
}
