//! Reads what was just signed, with other code than wrote it.

use spiffe::id::SpiffeId;
use spiffe::svid::Leaf;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::profile::Validity;
use super::{Authority, SignError};

/// What a leaf was meant to say.
pub(super) struct Meant<'a> {
    pub(super) id: &'a SpiffeId,
    pub(super) spki: &'a [u8],
    pub(super) serial: &'a [u8; 16],
    pub(super) validity: &'a Validity,
}

/// Passes a leaf that says exactly what was meant and that the root has signed.
pub(super) fn leaf(authority: &Authority, der: &[u8], meant: &Meant<'_>) -> Result<Leaf, SignError> {
    let leaf = Leaf::parse(der).map_err(|source| SignError::NotAnSvid { source })?;
    let differs = |what| Err(SignError::Differs { what });
    if leaf.id() != meant.id {
        return differs("SPIFFE ID");
    }
    if leaf.spki() != meant.spki {
        return differs("public key");
    }
    if leaf.serial().as_bytes() != meant.serial {
        return differs("serial");
    }
    if leaf.not_before() != meant.validity.not_before || leaf.not_after() != meant.validity.not_after {
        return differs("validity");
    }
    if leaf.not_after() > authority.not_after() {
        return differs("end after the root's");
    }
    let certificate = parse(der)?;
    let root = parse(authority.certificate())?;
    if certificate.issuer().as_raw() != root.subject().as_raw() {
        return differs("issuer");
    }
    verify(&certificate, &authority.spki)?;
    Ok(leaf)
}

/// Passes a certificate that the key of `spki` has signed.
pub(super) fn signature(der: &[u8], spki: &[u8]) -> Result<(), SignError> {
    verify(&parse(der)?, spki)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, SignError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(SignError::Differs { what: "encoding" }),
    }
}

fn verify(certificate: &X509Certificate<'_>, spki: &[u8]) -> Result<(), SignError> {
    let signed = certificate.tbs_certificate.as_ref();
    spiffe_tls::verify_p256(spki, signed, &certificate.signature_value.data)
        .map_err(|_differs| SignError::Differs { what: "signature" })
}
