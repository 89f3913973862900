//! Tokens that are signed, and what of them is not believed.

use std::time::Duration;

use spiffe::bundle::TrustBundle;
use spiffe::id::{SpiffeId, TrustDomain};
use spiffe::jwt::{Claims, JwtError, UnsignedJwt};
use spiffe::time::Timestamp;

use crate::{JwsError, JwtKey, PrivateKey, verify_jwt};

const AUDIENCE: &str = "https://api.example.com";

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000)
}

fn key() -> JwtKey {
    JwtKey::new(&PrivateKey::generate().unwrap()).unwrap()
}

fn bundle(domain: &str, keys: &[&JwtKey]) -> TrustBundle {
    let keys = keys.iter().map(|key| key.authority().clone()).collect();
    let domain = TrustDomain::parse(domain).unwrap();
    let bundle = TrustBundle::new(domain, Vec::new(), 1, None).unwrap();
    bundle.with_jwt_authorities(keys, 2).unwrap()
}

fn claims() -> Claims {
    Claims {
        subject: SpiffeId::parse("spiffe://acme.internal/prod/support").unwrap(),
        audience: vec![AUDIENCE.to_owned()],
        expires: now() + Duration::from_mins(5),
        issued_at: Some(now()),
        not_before: None,
        issuer: None,
        token_id: None,
    }
}

fn signed(key: &JwtKey) -> String {
    key.sign(UnsignedJwt::new(key.authority().key_id(), &claims())).unwrap()
}

#[test]
fn a_signed_token_is_believed_by_whom_it_is_for_while_it_lasts() {
    let (one, other) = (key(), key());
    let acme = bundle("acme.internal", &[&one, &other]);
    for key in [&one, &other] {
        let svid = verify_jwt(&signed(key), &acme, AUDIENCE, now()).unwrap();
        assert_eq!(svid.claims(), &claims());
    }
    let late = verify_jwt(&signed(&one), &acme, AUDIENCE, now() + Duration::from_hours(1));
    assert!(matches!(late, Err(JwsError::Token(JwtError::Expired { .. }))));
    let elsewhere = verify_jwt(&signed(&one), &acme, "https://other.example.com", now());
    assert!(matches!(elsewhere, Err(JwsError::Token(JwtError::OtherAudience))));
    let foreign = verify_jwt(&signed(&one), &bundle("other.internal", &[&one]), AUDIENCE, now());
    assert!(matches!(
        foreign,
        Err(JwsError::Token(JwtError::OtherTrustDomain { .. }))
    ));
}

#[test]
fn a_token_that_no_key_of_the_domain_has_signed_is_not_believed() {
    let (ours, theirs) = (key(), key());
    let acme = bundle("acme.internal", &[&ours]);
    let unknown = verify_jwt(&signed(&theirs), &acme, AUDIENCE, now());
    assert!(matches!(unknown, Err(JwsError::UnknownKey)));
    let named = UnsignedJwt::new(ours.authority().key_id(), &claims());
    let forged = verify_jwt(&theirs.sign(named).unwrap(), &acme, AUDIENCE, now());
    assert!(matches!(forged, Err(JwsError::BadSignature(_))));
    let good = signed(&ours);
    let (header, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let other = Claims {
        subject: SpiffeId::parse("spiffe://acme.internal/prod/admin").unwrap(),
        ..claims()
    };
    let other = UnsignedJwt::new(ours.authority().key_id(), &other);
    let body = String::from_utf8(other.bytes().to_vec()).unwrap();
    let swapped = format!("{header}.{}.{signature}", body.split_once('.').unwrap().1);
    let swapped = verify_jwt(&swapped, &acme, AUDIENCE, now());
    assert!(matches!(swapped, Err(JwsError::BadSignature(_))));
    let nobody = verify_jwt(&good, &bundle("acme.internal", &[]), AUDIENCE, now());
    assert!(matches!(nobody, Err(JwsError::UnknownKey)));
}

#[test]
fn a_key_shows_its_name_and_nothing_else() {
    let key = key();
    assert_eq!(format!("{key:?}"), format!("JwtKey({})", key.authority().key_id()));
}
