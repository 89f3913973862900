//! Certificate signing requests: what a host sends, and what the CA takes from it.

use proptest::prelude::*;
use rcgen::KeyPair;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::*;

#[test]
fn a_request_carries_the_key_and_one_uri_san() {
    let key = PrivateKey::generate().unwrap();
    let der = key.csr(&orders()).unwrap();
    assert_eq!(csr_public_key(&der).unwrap(), key.spki_der());

    let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
    assert!(request.certification_request_info.subject.iter_rdn().next().is_none());
    let names: Vec<_> = request
        .requested_extensions()
        .unwrap()
        .filter_map(|extension| {
            let ParsedExtension::SubjectAlternativeName(san) = extension else {
                return None;
            };
            Some(san.general_names.clone())
        })
        .flatten()
        .collect();
    assert_eq!(names, [GeneralName::URI("spiffe://acme/prod/orders")]);
}

#[test]
fn the_longest_id_fits_into_a_request() {
    let start = "spiffe://acme/";
    let longest = SpiffeId::parse(&format!("{start}{}", "x".repeat(2048 - start.len()))).unwrap();
    let key = PrivateKey::generate().unwrap();
    assert_eq!(csr_public_key(&key.csr(&longest).unwrap()).unwrap(), key.spki_der());
}

#[test]
fn a_request_has_4_kib_and_no_more() {
    let key = KeyPair::generate().unwrap();
    let sized = |bytes: usize| {
        // The length of an ECDSA signature varies by a few bytes, so some tries may miss.
        (0..200).find_map(|_| {
            let mut params = CertificateParams::default();
            let padding = vec![0; bytes - 300];
            params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], padding)];
            let shorter = params.serialize_request(&key).unwrap().der().len();
            let padding = vec![0; bytes - 300 + bytes - shorter];
            params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], padding)];
            let der = params.serialize_request(&key).unwrap().der().to_vec();
            (der.len() == bytes).then_some(der)
        })
    };
    assert!(csr_public_key(&sized(4096).unwrap()).is_ok());
    assert!(matches!(
        csr_public_key(&sized(4097).unwrap()),
        Err(CsrError::Oversize { bytes: 4097 })
    ));
}

#[test]
fn what_is_no_request_is_refused() {
    for bad in [&[][..], b"request", &Ca::root("acme").der] {
        assert!(matches!(csr_public_key(bad), Err(CsrError::NotDer(_))));
    }
}

#[test]
fn bytes_after_the_request_are_refused() {
    let mut der = PrivateKey::generate().unwrap().csr(&orders()).unwrap();
    der.push(0);
    assert!(matches!(csr_public_key(&der), Err(CsrError::TrailingData { bytes: 1 })));
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let (own, stolen) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let der = own.csr(&orders()).unwrap();
    let place = der.windows(91).position(|window| window == own.spki_der()).unwrap();
    let mut forged = der.clone();
    forged.splice(place..place + 91, stolen.spki_der());
    assert!(matches!(
        csr_public_key(&forged),
        Err(CsrError::Key(KeyError::BadSignature(_)))
    ));
}

#[test]
fn a_changed_request_is_refused() {
    let mut der = PrivateKey::generate().unwrap().csr(&orders()).unwrap();
    let place = der.windows(6).position(|window| window == b"orders").unwrap();
    der[place] = b'O';
    assert!(matches!(
        csr_public_key(&der),
        Err(CsrError::Key(KeyError::BadSignature(_)))
    ));
}

#[test]
fn a_key_or_signature_of_another_kind_is_refused() {
    let request = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .der()
            .to_vec()
    };
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let refused = csr_public_key(&request(algorithm));
        assert!(matches!(refused, Err(CsrError::SignatureAlgorithm)), "{algorithm:?}");
    }
}

#[test]
fn a_p384_key_is_refused_whatever_signature_it_names() {
    // The identifier of ECDSA with SHA-384 ends in 3, that with SHA-256 in 2.
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let mut der = CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .der()
        .to_vec();
    let identifier = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
    let place = der.windows(8).position(|window| window == identifier).unwrap();
    der[place + 7] = 2;
    assert!(matches!(csr_public_key(&der), Err(CsrError::Key(KeyError::NotP256))));
}

#[test]
fn parameters_of_the_signature_algorithm_are_refused() {
    let der = PrivateKey::generate().unwrap().csr(&orders()).unwrap();
    let identifier = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let place = der.windows(12).position(|window| window == identifier).unwrap();
    let mut forged = der.clone();
    let with_null = [&[0x30, 0x0c], &identifier[2..], &[0x05, 0x00]].concat();
    forged.splice(place..place + 12, with_null);
    // The outer SEQUENCE has a length of two bytes, 0x81 or 0x82 forms; both are lengthened by two.
    match forged[1] {
        0x81 => forged[2] += 2,
        0x82 => forged[3] += 2,
        short => panic!("a request is not this short: {short}"),
    }
    assert!(matches!(csr_public_key(&forged), Err(CsrError::SignatureAlgorithm)));
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(csr_public_key(&bytes).is_err());
    }

    #[test]
    fn a_request_with_one_byte_changed_never_gives_another_key(place in any::<prop::sample::Index>(), with in 1u8..) {
        let key = PrivateKey::generate().unwrap();
        let mut der = key.csr(&orders()).unwrap();
        let place = place.index(der.len());
        der[place] ^= with;
        if let Ok(spki) = csr_public_key(&der) {
            prop_assert_eq!(spki, key.spki_der());
        }
    }
}
