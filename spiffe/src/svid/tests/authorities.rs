use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize,
    SignatureAlgorithm,
};

use super::*;

#[test]
fn an_authority_that_keeps_every_rule_is_parsed() {
    let key = KeyPair::generate().unwrap();
    let der = forge::sign(&forge::authority("spiffe://acme"), &key);
    let authority = Authority::parse(&der).unwrap();
    assert_eq!(authority.der(), der);
    let spki = PublicKeyData::subject_public_key_info(&key);
    assert_eq!(
        authority.spki_sha256(),
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki).as_ref()
    );
    assert_eq!(authority.serial().to_string(), "0abc");
    assert_eq!(
        authority.id().map(ToString::to_string),
        Some("spiffe://acme".to_owned())
    );
    assert_eq!(
        authority.not_before(),
        Timestamp::from_rfc3339("2026-01-01T00:00:00Z").unwrap()
    );
    assert_eq!(
        authority.not_after(),
        Timestamp::from_rfc3339("2026-01-01T01:00:00Z").unwrap()
    );
}

#[test]
fn an_authority_need_not_have_an_id() {
    let authority = authority_with(|params| params.subject_alt_names.clear()).unwrap();
    assert_eq!(authority.id(), None);
}

#[test]
fn an_authority_has_the_ca_bit() {
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        assert_eq!(authority_with(|params| params.is_ca = is_ca), Err(SvidError::NotCa));
    }
}

#[test]
fn an_authority_may_sign_certificates() {
    assert_eq!(
        authority_with(|params| params.key_usages.clear()),
        Err(SvidError::NoKeyUsage)
    );
    assert_eq!(
        authority_with(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign]),
        Err(SvidError::NoKeyCertSign)
    );
    assert!(authority_with(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]).is_ok());
}

#[test]
fn the_key_usage_of_an_authority_is_critical() {
    let refused = authority_with(|params| {
        params.key_usages.clear();
        params.custom_extensions = vec![forge::extension(forge::KEY_USAGE, false, &[0x03, 0x02, 0x02, 0x04])];
    });
    assert_eq!(refused, Err(SvidError::KeyUsageNotCritical));
}

#[test]
fn the_id_of_an_authority_has_no_path() {
    let refused = authority_with(|params| params.subject_alt_names = vec![forge::uri(ID)]);
    assert_eq!(refused, Err(SvidError::AuthorityPath));
}

#[test]
fn an_authority_has_at_most_one_uri_san() {
    let refused = authority_with(|params| params.subject_alt_names.push(forge::uri("spiffe://acme")));
    assert_eq!(refused, Err(SvidError::TwoUriSans { count: 2 }));
}

#[test]
fn a_leaf_is_no_authority() {
    assert_eq!(Authority::parse(&forge::issue(&forge::leaf(ID))), Err(SvidError::NotCa));
}

#[test]
fn an_authority_has_16_kib_and_no_more() {
    let params = forge::authority("spiffe://acme");
    assert!(Authority::parse(&forge::issue_sized(&params, 16 * 1024)).is_ok());
    let over = forge::issue_sized(&params, 16 * 1024 + 1);
    assert_eq!(
        Authority::parse(&over),
        Err(SvidError::Oversize { bytes: 16 * 1024 + 1 })
    );
}

fn key_of(key: &impl PublicKeyData) -> Result<AuthorityKey, SvidError> {
    Authority::parse(&forge::sign(&forge::authority("spiffe://acme"), key)).map(|authority| authority.key().clone())
}

#[test]
fn the_keys_of_both_curves_give_their_coordinates() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let point = key.public_key_raw();
    assert_eq!(
        key_of(&key),
        Ok(AuthorityKey::P256 {
            x: point[1..33].to_vec(),
            y: point[33..].to_vec()
        })
    );

    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let point = key.public_key_raw();
    assert_eq!(
        key_of(&key),
        Ok(AuthorityKey::P384 {
            x: point[1..49].to_vec(),
            y: point[49..].to_vec()
        })
    );
}

#[test]
fn rsa_keys_give_modulus_and_exponent() {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let Ok(AuthorityKey::Rsa { n, e }) = key_of(&key) else {
        panic!("not an RSA key");
    };
    assert_eq!(n.len(), 256);
    assert!(n[0] & 0x80 != 0);
    assert_eq!(e, [1, 0, 1]);
}

#[test]
fn keys_of_other_kinds_are_refused() {
    for algorithm in [&PKCS_ED25519, &rcgen::PKCS_ECDSA_P521_SHA512] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(key_of(&key), Err(SvidError::KeyUnsupported), "{algorithm:?}");
    }
}

/// A public key that nobody made, as it stands in a certificate.
struct Forged {
    bytes: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for Forged {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// An RSA public key of these DER integers (RFC 8017 §A.1.1).
fn rsa(modulus: &[u8], exponent: &[u8]) -> Forged {
    let element = |tag: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        let length = if content.len() < 128 {
            vec![length[1]]
        } else {
            [&[0x82], &length[..]].concat()
        };
        [&[tag], &length[..], content].concat()
    };
    let integers = [element(2, modulus), element(2, exponent)].concat();
    Forged {
        bytes: element(0x30, &integers),
        algorithm: &PKCS_RSA_SHA256,
    }
}

/// The modulus of this many bits that is a power of two, as a DER integer.
fn modulus(bits: usize) -> Vec<u8> {
    let mut bytes = vec![0; bits / 8 + 1];
    let place = bytes.len() - 1 - (bits - 1) / 8;
    bytes[place] = 1 << ((bits - 1) % 8);
    bytes
}

#[test]
fn rsa_keys_have_2048_to_8192_bits() {
    const EXPONENT: [u8; 3] = [1, 0, 1];
    for bits in [2048, 2049, 4096, 8191, 8192] {
        assert!(
            matches!(key_of(&rsa(&modulus(bits), &EXPONENT)), Ok(AuthorityKey::Rsa { .. })),
            "{bits}"
        );
    }
    for bits in [8, 1024, 2040, 2047, 8193, 8200] {
        assert_eq!(
            key_of(&rsa(&modulus(bits), &EXPONENT)),
            Err(SvidError::KeyUnsupported),
            "{bits}"
        );
    }
}

#[test]
fn rsa_keys_have_positive_numbers() {
    let good = modulus(2048);
    assert_eq!(
        key_of(&rsa(&good[1..], &[3])),
        Err(SvidError::KeyUnsupported),
        "a negative modulus"
    );
    assert_eq!(
        key_of(&rsa(&[0; 257], &[3])),
        Err(SvidError::KeyUnsupported),
        "a modulus of zero"
    );
    assert_eq!(
        key_of(&rsa(&good, &[0x83])),
        Err(SvidError::KeyUnsupported),
        "a negative exponent"
    );
    assert_eq!(
        key_of(&rsa(&good, &[0])),
        Err(SvidError::KeyUnsupported),
        "an exponent of zero"
    );
    assert!(key_of(&rsa(&good, &[3])).is_ok());
}

#[test]
fn points_are_uncompressed_and_of_the_length_of_their_curve() {
    let point = |start: u8, coordinates: usize| [vec![start], vec![7; coordinates]].concat();
    let key = |bytes, algorithm| key_of(&Forged { bytes, algorithm });
    assert!(key(point(4, 64), &PKCS_ECDSA_P256_SHA256).is_ok());
    assert!(key(point(4, 96), &PKCS_ECDSA_P384_SHA384).is_ok());
    for (start, coordinates) in [(4, 63), (4, 65), (4, 96), (2, 32), (3, 32), (6, 64), (0, 64)] {
        let refused = key(point(start, coordinates), &PKCS_ECDSA_P256_SHA256);
        assert_eq!(
            refused,
            Err(SvidError::KeyUnsupported),
            "{start} and {coordinates} bytes on P-256"
        );
    }
    for (start, coordinates) in [(4, 64), (4, 95), (4, 97), (2, 48)] {
        let refused = key(point(start, coordinates), &PKCS_ECDSA_P384_SHA384);
        assert_eq!(
            refused,
            Err(SvidError::KeyUnsupported),
            "{start} and {coordinates} bytes on P-384"
        );
    }
}
