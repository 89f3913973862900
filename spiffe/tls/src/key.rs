//! The private key of an SVID.

use std::fmt;

use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, PublicKeyData, SanType, SigningKey};
use spiffe::id::SpiffeId;
use thiserror::Error;
use zeroize::Zeroizing;

/// The bytes before the point in the SubjectPublicKeyInfo of every P-256 key: id-ecPublicKey, prime256v1, and a bit
/// string of 65 bytes (RFC 5480 §2).
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// An ECDSA P-256 private key.
///
/// It cannot be cloned or printed, and its memory is wiped when it is dropped. [`PrivateKey::to_pkcs8`] is the one way
/// out.
pub struct PrivateKey {
    pair: EcdsaKeyPair,
}

/// Says what a private or public key could not do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No key could be made.
    #[error("generate a P-256 key")]
    Generate(#[source] Unspecified),
    /// The bytes are not a P-256 key in PKCS#8.
    #[error("read a P-256 key from PKCS#8")]
    Pkcs8(#[source] KeyRejected),
    /// The key could not be written.
    #[error("write a P-256 key")]
    Write(#[source] Unspecified),
    /// Nothing could be signed.
    #[error("sign with a P-256 key")]
    Sign(#[source] Unspecified),
    /// No certificate signing request could be made.
    #[error("make a certificate signing request for {id}")]
    Csr {
        /// The ID it asks for.
        id: SpiffeId,
        /// What went wrong.
        #[source]
        source: rcgen::Error,
    },
    /// The public key is not P-256 with an uncompressed point.
    #[error("the public key is not P-256")]
    NotP256,
    /// The signature is not of this key over this message.
    #[error("the signature does not match the P-256 key and the message")]
    BadSignature(#[source] Unspecified),
}

impl PrivateKey {
    /// Makes a new key from the system's randomness.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(KeyError::Generate)?;
        Ok(Self { pair })
    }

    /// Reads a key from PKCS#8 in DER.
    ///
    /// # Errors
    /// When the bytes are not a P-256 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map_err(KeyError::Pkcs8)?;
        Ok(Self { pair })
    }

    /// Exposes the key, as PKCS#8 in DER: for the sealed cache of its own host, and nothing else.
    ///
    /// # Errors
    /// When the key cannot be encoded.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.pair.to_pkcs8v1().map_err(KeyError::Write)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Gives the public key as SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> Vec<u8> {
        let point = self.pair.public_key().as_ref();
        P256_SPKI_PREFIX.iter().chain(point).copied().collect()
    }

    /// Signs `message`: ECDSA with SHA-256, the signature in DER (RFC 3279 §2.2.3).
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(KeyError::Sign)?;
        Ok(signature.as_ref().to_vec())
    }

    /// Makes a PKCS#10 request in DER for an SVID of `id`: an empty subject and one URI SAN.
    ///
    /// # Errors
    /// When it cannot be encoded or signed.
    pub fn csr(&self, id: &SpiffeId) -> Result<Vec<u8>, KeyError> {
        let failed = |source| KeyError::Csr { id: id.clone(), source };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.as_str()).map_err(failed)?)];
        let request = params.serialize_request(&Signer(self)).map_err(failed)?;
        Ok(request.der().to_vec())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

/// Verifies an ECDSA P-256 signature in DER over SHA-256 of `message` by the key `spki` (SubjectPublicKeyInfo in DER).
///
/// # Errors
/// When the key is not P-256 with an uncompressed point, or the signature does not match.
pub fn verify_p256(spki: &[u8], message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
    let point = p256_point(spki).ok_or(KeyError::NotP256)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(message, signature)
        .map_err(KeyError::BadSignature)
}

/// Gives the point of a P-256 key: 04 and two coordinates of 32 bytes (SEC 1 §2.3.3).
fn p256_point(spki: &[u8]) -> Option<&[u8]> {
    let point = spki.strip_prefix(&P256_SPKI_PREFIX)?;
    (point.len() == 65 && point.first() == Some(&4)).then_some(point)
}

/// Lends the key to rcgen for as long as a request takes.
struct Signer<'a>(&'a PrivateKey);

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        #[expect(clippy::map_err_ignore, reason = "rcgen has no error that could carry the source")]
        self.0.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
