//! Signatures of JWT-SVIDs.

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use spiffe::bundle::TrustBundle;
use spiffe::jwt::{JwtAuthority, JwtAuthorityError, JwtError, JwtSvid, SIGNATURE_BYTES, UnsignedJwt};
use spiffe::time::Timestamp;
use thiserror::Error;

use crate::{KeyError, PrivateKey};

/// A private key in the shape that signs JWT-SVIDs: ES256, whose signatures are two numbers of fixed length (RFC 7518 §3.4)
/// where those of TLS are DER.
///
/// It cannot be cloned or printed, and its memory is wiped when it is dropped.
pub struct JwtKey {
    pair: EcdsaKeyPair,
    authority: JwtAuthority,
}

/// Says why nothing was signed, or why a token is not believed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JwsError {
    /// The private key could not be used.
    #[error("use a P-256 key")]
    Key(#[source] KeyError),
    /// Its public half is no key for JWT-SVIDs.
    #[error("read the public half of a P-256 key")]
    Authority(#[source] JwtAuthorityError),
    /// Nothing could be signed.
    #[error("sign a JWT-SVID")]
    Sign(#[source] Unspecified),
    /// The token breaks a rule of its form, or is not for this reader now.
    #[error("the token is no JWT-SVID for this reader")]
    Token(#[source] JwtError),
    /// No key of the trust domain has the name that the token says.
    #[error("no key of the trust domain is the one that the token names")]
    UnknownKey,
    /// The signature is not of that key over this token.
    #[error("the signature of the token is not of the key that it names")]
    BadSignature(#[source] Unspecified),
}

impl JwtKey {
    /// Takes a key into use.
    ///
    /// # Errors
    /// When the crypto library does not take it.
    pub fn new(key: &PrivateKey) -> Result<Self, JwsError> {
        let pkcs8 = key.to_pkcs8().map_err(JwsError::Key)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8)
            .map_err(|source| JwsError::Key(KeyError::Pkcs8(source)))?;
        let authority = JwtAuthority::from_point(pair.public_key().as_ref()).map_err(JwsError::Authority)?;
        Ok(Self { pair, authority })
    }

    /// Gives the public half.
    pub fn authority(&self) -> &JwtAuthority {
        &self.authority
    }

    /// Signs a token and gives its text, which is a credential from here on.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn sign(&self, unsigned: UnsignedJwt) -> Result<String, JwsError> {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), unsigned.bytes())
            .map_err(JwsError::Sign)?;
        let signature: [u8; SIGNATURE_BYTES] = signature
            .as_ref()
            .try_into()
            .map_err(|_length| JwsError::Sign(Unspecified))?;
        Ok(unsigned.sign(&signature))
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtKey({})", self.authority.key_id())
    }
}

/// Believes a token that a key of this bundle has signed, for this audience, now.
///
/// # Errors
/// With what does not hold. Nothing of a token counts before its signature was checked.
pub fn verify_jwt(token: &str, bundle: &TrustBundle, audience: &str, now: Timestamp) -> Result<JwtSvid, JwsError> {
    let svid = JwtSvid::parse(token).map_err(JwsError::Token)?;
    let mut keys = bundle.jwt_authorities().iter();
    let key = keys
        .find(|key| key.key_id() == svid.key_id())
        .ok_or(JwsError::UnknownKey)?;
    let signed = JwtSvid::signed(token).map_err(JwsError::Token)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.point())
        .verify(signed, svid.signature())
        .map_err(JwsError::BadSignature)?;
    svid.accept(bundle.trust_domain(), audience, now)
        .map_err(JwsError::Token)?;
    Ok(svid)
}
