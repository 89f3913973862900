//! Private keys, and the SVIDs that hold them.

use super::*;

fn svid_of(chain: Vec<Vec<u8>>) -> Result<Svid, TlsError> {
    Svid::new(chain, PrivateKey::generate().unwrap())
}

#[test]
fn a_signature_is_verified_by_the_public_key() {
    let key = PrivateKey::generate().unwrap();
    let signature = key.sign(b"message").unwrap();
    assert!(verify_p256(&key.spki_der(), b"message", &signature).is_ok());
}

#[test]
fn a_signature_of_another_key_or_message_is_refused() {
    let key = PrivateKey::generate().unwrap();
    let signature = key.sign(b"message").unwrap();
    let refused = |spki: &[u8], message: &[u8], signature: &[u8]| {
        assert!(matches!(
            verify_p256(spki, message, signature),
            Err(KeyError::BadSignature(_))
        ));
    };
    refused(&key.spki_der(), b"massage", &signature);
    refused(&PrivateKey::generate().unwrap().spki_der(), b"message", &signature);
    refused(&key.spki_der(), b"message", &[]);
    refused(&key.spki_der(), b"message", &signature[..signature.len() - 1]);
}

#[test]
fn only_uncompressed_p256_keys_verify() {
    let key = PrivateKey::generate().unwrap();
    let signature = key.sign(b"message").unwrap();
    let spki = key.spki_der();
    assert_eq!(spki.len(), 91);
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)
        .unwrap()
        .subject_public_key_info();
    let mut compressed = spki.clone();
    compressed[26] = 2;
    let longer = [&spki[..], &[0]].concat();
    for bad in [&[][..], &spki[..90], &spki[26..], &longer, &compressed, &other] {
        assert!(
            matches!(verify_p256(bad, b"message", &signature), Err(KeyError::NotP256)),
            "{bad:?}"
        );
    }
}

#[test]
fn the_public_key_is_written_as_others_write_it() {
    let key = PrivateKey::generate().unwrap();
    let other = rcgen::KeyPair::try_from(key.to_pkcs8().unwrap().as_slice()).unwrap();
    assert_eq!(key.spki_der(), other.subject_public_key_info());
}

#[test]
fn a_key_comes_back_from_pkcs8() {
    let key = PrivateKey::generate().unwrap();
    let again = PrivateKey::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
    assert_eq!(key.spki_der(), again.spki_der());
    let signature = again.sign(b"message").unwrap();
    assert!(verify_p256(&key.spki_der(), b"message", &signature).is_ok());
}

#[test]
fn two_keys_are_never_the_same() {
    assert_ne!(
        PrivateKey::generate().unwrap().spki_der(),
        PrivateKey::generate().unwrap().spki_der()
    );
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)
        .unwrap()
        .serialize_der();
    for bad in [&[][..], b"key", &other] {
        assert!(matches!(PrivateKey::from_pkcs8(bad), Err(KeyError::Pkcs8(_))));
    }
}

#[test]
fn a_key_does_not_show_itself() {
    let key = PrivateKey::generate().unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(redacted)");
    let svid = Ca::root("acme").svid(&orders());
    assert!(format!("{svid:?}").contains("PrivateKey(redacted)"));
}

#[test]
fn an_svid_joins_a_chain_and_the_key_of_its_leaf() {
    let root = Ca::root("acme");
    let issuing = root.intermediate("between", |_| ());
    let key = PrivateKey::generate().unwrap();
    let chain = issuing.chain(&key, &orders(), |_| ());
    let spki = key.spki_der();
    let svid = Svid::new(chain.clone(), key).unwrap();
    assert_eq!(svid.leaf(), &Leaf::parse(&chain[0]).unwrap());
    assert_eq!(svid.chain(), chain);
    assert_eq!(svid.key().spki_der(), spki);
    assert_eq!(
        svid.certified_key()
            .cert
            .iter()
            .map(|der| der.to_vec())
            .collect::<Vec<_>>(),
        chain
    );
    svid.certified_key().keys_match().unwrap();
}

#[test]
fn an_svid_has_one_to_four_certificates() {
    assert!(matches!(svid_of(vec![]), Err(TlsError::EmptyChain)));

    let root = Ca::root("acme");
    let key = || PrivateKey::generate().unwrap();
    let with_roots = |count: usize| {
        let key = key();
        let chain = [root.chain(&key, &orders(), |_| ()), vec![root.der.clone(); count]].concat();
        Svid::new(chain, key)
    };
    assert!(with_roots(3).is_ok());
    assert!(matches!(with_roots(4), Err(TlsError::ChainTooLong { certificates: 5 })));
}

#[test]
fn an_svid_keeps_every_rule() {
    let root = Ca::root("acme");
    let key = PrivateKey::generate().unwrap();
    let no_usage = root.chain(&key, &orders(), |params| params.key_usages.clear());
    assert!(matches!(
        Svid::new(no_usage, key),
        Err(TlsError::Leaf(SvidError::NoKeyUsage))
    ));

    let key = PrivateKey::generate().unwrap();
    let leaf = root.chain(&key, &orders(), |_| ());
    let twice = [leaf.clone(), vec![root.der.clone()], leaf].concat();
    assert!(matches!(
        Svid::new(twice, key),
        Err(TlsError::Intermediate {
            index: 2,
            source: SvidError::NotCa
        })
    ));
}

#[test]
fn an_svid_does_not_take_the_key_of_another() {
    let key = PrivateKey::generate().unwrap();
    let chain = Ca::root("acme").chain(&key, &orders(), |_| ());
    assert!(matches!(svid_of(chain), Err(TlsError::KeyMismatch)));
}
