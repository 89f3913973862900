use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use super::*;
use crate::forge;
use crate::svid::AuthorityKey;

fn acme() -> TrustDomain {
    TrustDomain::parse("acme").unwrap()
}

fn der() -> Vec<u8> {
    forge::issue(&forge::authority("spiffe://acme"))
}

fn authority() -> Authority {
    Authority::parse(&der()).unwrap()
}

fn parse(document: &Value) -> Result<TrustBundle, BundleError> {
    TrustBundle::parse(&acme(), document.to_string().as_bytes())
}

/// A key for X.509-SVIDs with these values in `x5c`.
fn key(x5c: &[Value]) -> Value {
    json!({ "kty": "EC", "use": "x509-svid", "x5c": x5c })
}

fn base64_of(der: &[u8]) -> Value {
    STANDARD.encode(der).into()
}

/// The number of authorities in a bundle of one key.
fn authorities_of(key: Value) -> usize {
    parse(&json!({ "keys": [key] })).unwrap().authorities().len()
}

#[test]
fn a_document_gives_its_authorities_sequence_and_hint() {
    let (first, second) = (der(), der());
    let bundle = parse(&json!({
        "keys": [key(&[base64_of(&first)]), key(&[base64_of(&second)])],
        "spiffe_sequence": 18_446_744_073_709_551_615u64,
        "spiffe_refresh_hint": 300,
        "something_else": [1, 2],
    }))
    .unwrap();
    assert_eq!(bundle.trust_domain(), &acme());
    assert_eq!(
        bundle.authorities().iter().map(Authority::der).collect::<Vec<_>>(),
        [first, second]
    );
    assert_eq!(bundle.sequence(), u64::MAX);
    assert_eq!(bundle.refresh_hint(), Some(Duration::from_secs(300)));
}

#[test]
fn sequence_and_hint_may_be_absent() {
    let bundle = parse(&json!({ "keys": [] })).unwrap();
    assert_eq!((bundle.sequence(), bundle.refresh_hint()), (0, None));
}

#[test]
fn an_empty_set_is_a_bundle_that_trusts_nobody() {
    assert_eq!(parse(&json!({ "keys": [] })).unwrap().authorities(), []);
}

#[test]
fn keys_of_unknown_use_or_kind_are_ignored() {
    let x5c = json!([base64_of(&der())]);
    for ignored in [
        json!({ "kty": "EC", "x5c": x5c }),
        json!({ "use": "x509-svid", "x5c": x5c }),
        json!({ "kty": "EC", "use": "jwt-svid", "kid": "1", "x5c": x5c }),
        json!({ "kty": "EC", "use": "X509-SVID", "x5c": x5c }),
        json!({ "kty": "OKP", "use": "x509-svid", "x5c": x5c }),
        json!({ "kty": "EC", "use": 7, "x5c": x5c }),
        json!({ "kty": "EC", "use": "x509-svid" }),
        json!({ "kty": "EC", "use": "x509-svid", "x5c": [] }),
        json!({}),
    ] {
        assert_eq!(authorities_of(ignored.clone()), 0, "{ignored}");
    }
    for kind in ["EC", "RSA"] {
        assert_eq!(
            authorities_of(json!({ "kty": kind, "use": "x509-svid", "x5c": x5c })),
            1
        );
    }
}

#[test]
fn only_the_first_certificate_of_a_key_is_read() {
    let first = der();
    for second in [json!("?"), json!(7), base64_of(&der())] {
        let bundle = parse(&json!({ "keys": [key(&[base64_of(&first), second])] })).unwrap();
        assert_eq!(
            bundle.authorities().iter().map(Authority::der).collect::<Vec<_>>(),
            [first.as_slice()]
        );
    }
}

#[test]
fn a_key_that_cannot_be_read_refuses_the_bundle() {
    let good = key(&[base64_of(&der())]);
    let refused = |bad: Value| parse(&json!({ "keys": [good, bad] })).unwrap_err();
    assert!(matches!(refused(key(&[json!(7)])), BundleError::X5c { index: 1, .. }));
    assert!(matches!(
        refused(json!({ "kty": "EC", "use": "x509-svid", "x5c": "text" })),
        BundleError::X5c { index: 1, .. }
    ));
    assert!(matches!(
        refused(key(&[json!("no base64")])),
        BundleError::Base64 { index: 1, .. }
    ));
    assert!(matches!(
        refused(key(&[json!("AAAA")])),
        BundleError::Authority { index: 1, .. }
    ));
    let leaf = forge::issue(&forge::leaf("spiffe://acme/x"));
    assert!(matches!(
        refused(key(&[base64_of(&leaf)])),
        BundleError::Authority {
            index: 1,
            source: SvidError::NotCa,
            ..
        }
    ));
}

#[test]
fn what_is_no_jwk_set_is_refused() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[7]}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[]} x"#,
    ] {
        assert!(
            matches!(
                TrustBundle::parse(&acme(), text.as_bytes()),
                Err(BundleError::NotJwks { .. })
            ),
            "{text}"
        );
    }
    for document in [
        json!({ "keys": [], "spiffe_sequence": -1 }),
        json!({ "keys": [], "spiffe_sequence": 1.5 }),
        json!({ "keys": [], "spiffe_refresh_hint": "5m" }),
    ] {
        assert!(
            matches!(parse(&document), Err(BundleError::NotJwks { .. })),
            "{document}"
        );
    }
}

#[test]
fn a_bundle_has_64_keys_and_no_more() {
    let keys = |count: usize| json!({ "keys": vec![json!({}); count] });
    assert!(parse(&keys(64)).is_ok());
    assert!(matches!(
        parse(&keys(65)),
        Err(BundleError::TooManyKeys { keys: 65, .. })
    ));

    let authority = authority();
    let bundle = |count: usize| TrustBundle::new(acme(), vec![authority.clone(); count], 1, None);
    assert!(bundle(64).is_ok());
    assert!(matches!(bundle(65), Err(BundleError::TooManyKeys { keys: 65, .. })));
}

#[test]
fn a_document_has_one_mebibyte_and_no_more() {
    let padded = |bytes: usize| {
        let text = json!({ "keys": [] }).to_string();
        format!("{text}{}", " ".repeat(bytes - text.len()))
    };
    assert!(TrustBundle::parse(&acme(), padded(1 << 20).as_bytes()).is_ok());
    assert!(matches!(
        TrustBundle::parse(&acme(), padded((1 << 20) + 1).as_bytes()),
        Err(BundleError::Oversize { bytes: 1_048_577, .. })
    ));
}

#[test]
fn an_authority_of_another_trust_domain_is_refused() {
    let foreign = forge::issue(&forge::authority("spiffe://evil"));
    let refused = parse(&json!({ "keys": [key(&[base64_of(&foreign)])] })).unwrap_err();
    let BundleError::ForeignAuthority { trust_domain, found } = refused else {
        panic!("refused for another reason: {refused}");
    };
    assert_eq!((trust_domain.as_str(), found.as_str()), ("acme", "evil"));
}

#[test]
fn each_kind_of_key_is_written_with_its_parameters() {
    let written = |pair: &KeyPair| {
        let der = forge::sign(&forge::authority("spiffe://acme"), pair);
        let bundle = TrustBundle::new(acme(), vec![Authority::parse(&der).unwrap()], 7, None).unwrap();
        let document: Value = serde_json::from_slice(&bundle.to_jwks()).unwrap();
        assert_eq!(document["spiffe_sequence"], 7);
        assert_eq!(document.get("spiffe_refresh_hint"), None);
        let key = document["keys"][0].clone();
        assert_eq!(key["use"], "x509-svid");
        assert_eq!(key["x5c"], json!([STANDARD.encode(&der)]));
        assert_eq!(key.get("kid"), None);
        assert_eq!(TrustBundle::parse(&acme(), &bundle.to_jwks()).unwrap(), bundle);
        (key, bundle)
    };
    let lengths = |key: &Value, members: [&str; 2]| {
        let url_safe = URL_SAFE_NO_PAD;
        members.map(|member| url_safe.decode(key[member].as_str().unwrap()).unwrap().len())
    };

    let (key, _) = written(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
    assert_eq!((&key["kty"], &key["crv"]), (&json!("EC"), &json!("P-256")));
    assert_eq!(lengths(&key, ["x", "y"]), [32, 32]);

    let (key, _) = written(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
    assert_eq!((&key["kty"], &key["crv"]), (&json!("EC"), &json!("P-384")));
    assert_eq!(lengths(&key, ["x", "y"]), [48, 48]);

    let (key, bundle) = written(&KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());
    assert_eq!(key["kty"], "RSA");
    assert_eq!(lengths(&key, ["n", "e"]), [256, 3]);
    assert!(matches!(bundle.authorities()[0].key(), AuthorityKey::Rsa { .. }));
}

#[test]
fn a_hint_counts_whole_seconds() {
    let bundle = TrustBundle::new(acme(), Vec::new(), 1, Some(Duration::from_millis(2500))).unwrap();
    assert_eq!(bundle.refresh_hint(), Some(Duration::from_secs(2)));
    assert_eq!(TrustBundle::parse(&acme(), &bundle.to_jwks()).unwrap(), bundle);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_bundle_comes_back_from_its_document(
        count in 0usize..4,
        sequence in any::<u64>(),
        hint in prop::option::of(any::<u64>()),
    ) {
        let authorities = (0..count).map(|_| authority()).collect();
        let bundle = TrustBundle::new(acme(), authorities, sequence, hint.map(Duration::from_secs)).unwrap();
        prop_assert_eq!(TrustBundle::parse(&acme(), &bundle.to_jwks()).unwrap(), bundle);
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(bundle) = TrustBundle::parse(&acme(), &bytes) {
            prop_assert_eq!(TrustBundle::parse(&acme(), &bundle.to_jwks()).unwrap(), bundle);
        }
    }
}

fn jwt_key(number: u8) -> JwtAuthority {
    let point = [&[4], &[number; 32][..], &[number + 1; 32][..]].concat();
    JwtAuthority::from_point(&point).unwrap()
}

#[test]
fn keys_for_jwt_svids_come_back_and_each_kind_of_relying_party_reads_its_own_form() {
    let bundle = TrustBundle::new(acme(), vec![authority()], 1, Some(Duration::from_mins(5))).unwrap();
    let bundle = bundle.with_jwt_authorities(vec![jwt_key(1), jwt_key(2)], 7).unwrap();
    let read = TrustBundle::parse(&acme(), &bundle.to_jwks()).unwrap();
    assert_eq!(read, bundle);
    assert_eq!((read.sequence(), read.jwt_authorities().len()), (7, 2));
    let spiffe: Value = serde_json::from_slice(&bundle.to_jwks()).unwrap();
    let uses: Vec<_> = spiffe["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["use"])
        .collect();
    assert_eq!(uses, ["x509-svid", "jwt-svid", "jwt-svid"]);
    assert_eq!(spiffe["keys"][1]["kid"], jwt_key(1).key_id());
    let oidc: Value = serde_json::from_slice(&bundle.to_oidc_jwks()).unwrap();
    let x = URL_SAFE_NO_PAD.encode([1; 32]);
    let y = URL_SAFE_NO_PAD.encode([2; 32]);
    let key = json!({
        "kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256", "kid": jwt_key(1).key_id(), "x": x, "y": y
    });
    assert_eq!(oidc["keys"][0], key, "and no certificate is in it");
    assert_eq!(oidc.as_object().unwrap().len(), 1, "no member that only SPIFFE knows");
    assert_eq!(oidc["keys"].as_array().unwrap().len(), 2);
    // Who reads such a set by the rules of SPIFFE finds no key in it.
    assert!(
        TrustBundle::parse(&acme(), &bundle.to_oidc_jwks())
            .unwrap()
            .jwt_authorities()
            .is_empty()
    );
}

#[test]
fn a_key_for_jwt_svids_is_whole_or_refused_and_one_of_another_kind_is_ignored() {
    let good = json!({
        "kty": "EC", "use": "jwt-svid", "crv": "P-256", "kid": "k", "x": URL_SAFE_NO_PAD.encode([1; 32]),
        "y": URL_SAFE_NO_PAD.encode([2; 32]),
    });
    let with = |member: &str, value: Value| {
        let mut key = good.clone();
        key[member] = value;
        parse(&json!({ "keys": [key] }))
    };
    assert_eq!(with("kid", json!("other")).unwrap().jwt_authorities().len(), 1);
    for (member, wrong) in [
        ("kid", json!(null)),
        ("kid", json!("")),
        ("kid", json!("a b")),
        ("kid", json!("k".repeat(257))),
        ("x", json!(null)),
        ("x", json!("")),
        ("x", json!(URL_SAFE_NO_PAD.encode([1; 31]))),
        ("y", json!(URL_SAFE_NO_PAD.encode([1; 33]))),
        ("y", json!(format!("{}=", URL_SAFE_NO_PAD.encode([1; 32])))),
    ] {
        let read = with(member, wrong.clone());
        assert!(
            matches!(read, Err(BundleError::JwtAuthority { index: 0, .. })),
            "{member}: {wrong}"
        );
    }
    for (member, other) in [
        ("use", json!("sig")),
        ("use", json!("wit-svid")),
        ("kty", json!("OKP")),
        ("kty", json!("RSA")),
        ("crv", json!("P-384")),
    ] {
        let read = with(member, other.clone()).unwrap();
        assert!(read.jwt_authorities().is_empty(), "{member}: {other}");
    }
    let twice = parse(&json!({ "keys": [good, good] }));
    assert!(matches!(twice, Err(BundleError::KeyIdTwice { .. })));
    let keys = |count: u8| (0..count).map(jwt_key).collect();
    let many = || TrustBundle::new(acme(), vec![authority()], 1, None).unwrap();
    assert!(many().with_jwt_authorities(keys(63), 2).is_ok());
    let too_many = many().with_jwt_authorities(keys(64), 2);
    assert!(matches!(too_many, Err(BundleError::TooManyKeys { keys: 65, .. })));
}
