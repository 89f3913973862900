//! `tls-server-end-point`: the hash of a server's certificate (RFC 5929 §4.1), to which SCRAM is bound.

use aws_lc_rs::digest::{self, Algorithm, SHA256, SHA384, SHA512};
use tokio_rustls::client::TlsStream;
use x509_parser::parse_x509_certificate;

use crate::ends::Wide;

/// Gives the hash of the certificate that the server showed; nothing for one whose signature names no hash.
pub(crate) fn end_point(stream: &TlsStream<Wide>) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    hash(certificate)
}

fn hash(der: &[u8]) -> Option<Vec<u8>> {
    let (rest, certificate) = parse_x509_certificate(der).ok()?;
    let algorithm = algorithm(&certificate.signature_algorithm.algorithm.to_id_string())?;
    rest.is_empty()
        .then(|| digest::digest(algorithm, der).as_ref().to_vec())
}

/// By the hash of the signature. MD5 and SHA-1, in whose place SHA-256 would stand, no verifier takes; RSASSA-PSS says its
/// hash elsewhere, and Ed25519 has none that is named (RFC 5929 leaves it open).
fn algorithm(signature: &str) -> Option<&'static Algorithm> {
    match signature {
        // ecdsa-with-SHA256 (RFC 5758 §3.2), sha256WithRSAEncryption (RFC 8017 A.2.4), and so on.
        "1.2.840.10045.4.3.2" | "1.2.840.113549.1.1.11" => Some(&SHA256),
        "1.2.840.10045.4.3.3" | "1.2.840.113549.1.1.12" => Some(&SHA384),
        "1.2.840.10045.4.3.4" | "1.2.840.113549.1.1.13" => Some(&SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec!["db.example.com".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature_and_one_without_has_none() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(hash(&der).unwrap(), digest::digest(&SHA256, &der).as_ref());
        let der = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(hash(&der).unwrap(), digest::digest(&SHA384, &der).as_ref());
        assert_eq!(hash(&certificate(&rcgen::PKCS_ED25519)), None);
        assert_eq!(hash(b"none"), None);
        assert_eq!(hash(&[&der[..], b"more"].concat()), None);
    }
}
