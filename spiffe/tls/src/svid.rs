//! A chain and its key, ready for rustls.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::bundle::TrustBundle;
use spiffe::id::TrustDomain;
use spiffe::svid::{Leaf, SvidError};
use spiffe::time::Timestamp;
use thiserror::Error;

use crate::key::{KeyError, PrivateKey};
use crate::refusal::HandshakeRefusal;
use crate::verify::{CHAIN_CERTIFICATES_MAX, Peer, Role, Roots, verify};

/// An X.509-SVID of this side: a certificate chain, leaf first, and the private key of the leaf.
#[derive(Debug)]
pub struct Svid {
    leaf: Leaf,
    chain: Vec<Vec<u8>>,
    key: PrivateKey,
    certified: Arc<CertifiedKey>,
}

/// Says why this side cannot take part in TLS.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    EmptyChain,
    /// The chain is longer than any peer accepts.
    #[error("the certificate chain has {certificates} certificates; at most 4 are allowed")]
    ChainTooLong {
        /// How many it has.
        certificates: usize,
    },
    /// The first certificate of the chain is not an SVID.
    #[error("the first certificate of the chain is not an X.509-SVID")]
    Leaf(#[source] SvidError),
    /// A later certificate of the chain is not a signing certificate.
    #[error("certificate {index} of the chain is not a signing certificate")]
    Intermediate {
        /// Its place in the chain; the leaf is 0.
        index: usize,
        /// Which rule it broke.
        #[source]
        source: SvidError,
    },
    /// The private key is not the one of the leaf.
    #[error("the private key is not the one of the certificate")]
    KeyMismatch,
    /// The private key cannot be used.
    #[error("use the private key")]
    Key(#[from] KeyError),
    /// What is expected of the server cannot hold with this bundle.
    #[error("a server of {expected} cannot be verified with the bundle of {bundle}")]
    ExpectedOtherTrustDomain {
        /// The trust domain expected.
        expected: TrustDomain,
        /// The trust domain of the bundle.
        bundle: TrustDomain,
    },
    /// rustls refuses the configuration.
    #[error("configure TLS")]
    Rustls(#[from] rustls::Error),
}

impl Svid {
    /// Joins a chain, leaf first and at most 4 certificates in DER, and the key of its leaf.
    ///
    /// # Errors
    /// When the chain is empty or too long, a certificate breaks a rule of X.509-SVID, or the key is another one.
    pub fn new(chain: Vec<Vec<u8>>, key: PrivateKey) -> Result<Self, TlsError> {
        if chain.len() > CHAIN_CERTIFICATES_MAX {
            return Err(TlsError::ChainTooLong {
                certificates: chain.len(),
            });
        }
        let (first, rest) = chain.split_first().ok_or(TlsError::EmptyChain)?;
        let leaf = Leaf::parse(first).map_err(TlsError::Leaf)?;
        for (before, der) in rest.iter().enumerate() {
            spiffe::svid::Authority::parse(der).map_err(|source| TlsError::Intermediate {
                index: before + 1,
                source,
            })?;
        }
        if leaf.spki() != key.spki_der() {
            return Err(TlsError::KeyMismatch);
        }
        let pkcs8 = key.to_pkcs8()?;
        let signing = any_ecdsa_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_slice())))?;
        let certificates = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let certified = Arc::new(CertifiedKey::new(certificates, signing));
        Ok(Self {
            leaf,
            chain,
            key,
            certified,
        })
    }

    /// Verifies this side's own chain as a peer that trusts `bundle` would at `now`, in both roles.
    ///
    /// # Errors
    /// When such a peer would refuse it.
    pub fn verify(&self, bundle: &TrustBundle, now: Timestamp) -> Result<(), HandshakeRefusal> {
        let certificates: Vec<_> = self
            .chain
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let (leaf, rest) = certificates.split_first().ok_or(HandshakeRefusal::NoCertificate)?;
        for role in [Role::Server, Role::Client] {
            verify(
                leaf,
                rest,
                Roots::Bundle(bundle),
                Peer::Exact(self.leaf.id()),
                role,
                now,
            )?;
        }
        Ok(())
    }

    /// Gives the parsed leaf.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// Gives the chain in DER, leaf first.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Gives the private key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Gives chain and key in the shape that rustls asks for.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}
