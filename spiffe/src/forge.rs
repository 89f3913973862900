//! Certificates for the tests of this crate, good and bad.

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
};

/// Object identifiers of extensions that tests write by hand.
pub(crate) const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
pub(crate) const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
pub(crate) const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

pub(crate) fn extension(oid: &[u64], critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// A leaf that keeps every rule.
pub(crate) fn leaf(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0xbc]));
    params.subject_alt_names = vec![uri(id)];
    params.not_before = time::macros::datetime!(2026-01-01 00:00:00 UTC);
    params.not_after = time::macros::datetime!(2026-01-01 01:00:00 UTC);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A signing certificate that keeps every rule.
pub(crate) fn authority(id: &str) -> CertificateParams {
    let mut params = leaf(id);
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = Vec::new();
    params
}

/// Signs `params` with an Ed25519 key, so that equal contents give equal lengths.
pub(crate) fn sign(params: &CertificateParams, key: &impl PublicKeyData) -> Vec<u8> {
    let issuer = Issuer::new(
        authority("spiffe://acme"),
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
    );
    params.signed_by(key, &issuer).unwrap().der().to_vec()
}

/// Signs `params` for a new P-256 key.
pub(crate) fn issue(params: &CertificateParams) -> Vec<u8> {
    sign(params, &KeyPair::generate().unwrap())
}

/// Pads `params` with an extension so that the certificate has exactly `bytes` bytes, which must be over 1000.
pub(crate) fn issue_sized(params: &CertificateParams, bytes: usize) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let padded = |padding: usize| {
        let mut params = params.clone();
        params
            .custom_extensions
            .push(extension(&[1, 2, 3, 4], false, &vec![0; padding]));
        sign(&params, &key)
    };
    let shorter = padded(bytes - 800);
    let der = padded(bytes - 800 + bytes - shorter.len());
    assert_eq!(der.len(), bytes, "the padding does not reach the length");
    der
}
