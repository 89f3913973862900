//! What the CA takes from a certificate signing request: the public key, and nothing else.

use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::error::X509Error;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::FromDer;

use crate::key::{KeyError, verify_p256};

/// The most bytes that a request may have. One of ours has about 300, or 2.3 KiB with the longest SPIFFE ID.
pub const CSR_BYTES_MAX: usize = 4 * 1024;

/// Says why bytes are not a certificate signing request that the CA takes a key from.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CsrError {
    /// It is longer than 4 KiB.
    #[error("the certificate signing request has {bytes} bytes; at most 4096 are allowed")]
    Oversize {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It is not PKCS#10 in DER.
    #[error("the certificate signing request is not PKCS#10 in DER")]
    NotDer(#[source] X509Error),
    /// Bytes follow the request.
    #[error("{bytes} bytes follow the certificate signing request")]
    TrailingData {
        /// How many.
        bytes: usize,
    },
    /// It is not signed with ECDSA and SHA-256.
    #[error("the certificate signing request is not signed with ECDSA and SHA-256")]
    SignatureAlgorithm,
    /// Its key is not P-256, or its signature is not by that key.
    #[error("the certificate signing request does not prove a P-256 key")]
    Key(#[source] KeyError),
}

/// Parses a PKCS#10 request (RFC 2986) and gives its public key as SubjectPublicKeyInfo in DER, P-256.
///
/// Whatever else the request asks for is not looked at: the CA builds certificates from a fixed profile.
///
/// # Errors
/// When `der` is longer than 4 KiB, is not exactly one request, or is not signed by the P-256 key that it carries.
pub fn csr_public_key(der: &[u8]) -> Result<Vec<u8>, CsrError> {
    if der.len() > CSR_BYTES_MAX {
        return Err(CsrError::Oversize { bytes: der.len() });
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|source| CsrError::NotDer(X509Error::from(source)))?;
    if !rest.is_empty() {
        return Err(CsrError::TrailingData { bytes: rest.len() });
    }
    let algorithm = &request.signature_algorithm;
    // RFC 5758 §3.2: the parameters are absent.
    if *algorithm.oid() != OID_SIG_ECDSA_WITH_SHA256 || algorithm.parameters().is_some() {
        return Err(CsrError::SignatureAlgorithm);
    }
    let info = &request.certification_request_info;
    let spki = info.subject_pki.raw;
    verify_p256(spki, info.raw, &request.signature_value.data).map_err(CsrError::Key)?;
    Ok(spki.to_vec())
}
