use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn acme() -> TrustDomain {
    TrustDomain::parse("acme.internal").unwrap()
}

fn claims() -> Claims {
    Claims {
        subject: SpiffeId::parse("spiffe://acme.internal/prod/support").unwrap(),
        audience: vec!["https://api.example.com".to_owned()],
        expires: at(NOW + 300),
        issued_at: Some(at(NOW)),
        not_before: None,
        issuer: Some("https://ids.acme.example".to_owned()),
        token_id: Some("4pQ".to_owned()),
    }
}

/// A token of these documents, as they are.
fn token(header: &str, claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode([7; 64]))
}

const HEADER: &str = r#"{"alg":"ES256","kid":"k1","typ":"JWT"}"#;

fn with_header(header: &str) -> Result<JwtSvid, JwtError> {
    JwtSvid::parse(&token(header, &claims().write().to_string()))
}

/// The claims with one of them replaced, or taken away.
fn with_claim(name: &str, value: Option<Value>) -> Result<JwtSvid, JwtError> {
    let mut document = claims().write();
    let members = document.as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(name.to_owned(), value),
        None => members.remove(name),
    };
    JwtSvid::parse(&token(HEADER, &document.to_string()))
}

#[test]
fn what_is_written_is_read_back_and_has_the_header_of_the_standard() {
    let unsigned = UnsignedJwt::new("k1", &claims());
    let text = unsigned.clone().sign(&[9; 64]);
    let svid = JwtSvid::parse(&text).unwrap();
    assert_eq!(svid.claims(), &claims());
    assert_eq!((svid.key_id(), svid.signature()), ("k1", &[9; 64]));
    assert_eq!(JwtSvid::signed(&text).unwrap(), unsigned.bytes());
    let header = URL_SAFE_NO_PAD.decode(text.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(header, json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}));
    let body = URL_SAFE_NO_PAD.decode(text.split('.').nth(1).unwrap()).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["aud"], json!("https://api.example.com"), "one audience is no list");
}

#[test]
fn no_other_algorithm_is_read() {
    for algorithm in [
        "none", "None", "HS256", "HS384", "HS512", "EdDSA", "RS256", "PS256", "ES384", "ES512", "es256", "ES256K", "",
    ] {
        let header = json!({"alg": algorithm, "kid": "k1", "typ": "JWT"}).to_string();
        assert!(matches!(with_header(&header), Err(JwtError::Algorithm)), "{algorithm}");
    }
}

#[test]
fn a_header_holds_what_the_standard_names_and_nothing_else() {
    for header in [
        r#"{"kid":"k1","typ":"JWT"}"#,
        r#"{"alg":"ES256","typ":"JWT"}"#,
        r#"{"alg":"ES256","kid":"k1","typ":"JWT","jku":"https://evil.example/keys"}"#,
        r#"{"alg":"ES256","kid":"k1","typ":"JWT","jwk":{}}"#,
        r#"{"alg":"ES256","kid":"k1","typ":"JWT","x5c":[]}"#,
        r#"{"alg":"ES256","kid":"k1","crit":["exp"]}"#,
        r#"{"alg":"ES256","alg":"none","kid":"k1"}"#,
        r#"{"alg":"ES256","kid":"k1","kid":"k2"}"#,
        r#"{"alg":"ES256","kid":7}"#,
        r#"{"alg":"ES256","kid":null}"#,
        r#"{"alg":"ES256","kid":"k1","typ":null}"#,
        r#"{"alg":"ES256","kid":"k1"} {}"#,
        r#"["ES256","k1","JWT",1]"#,
        "",
        "null",
    ] {
        assert!(matches!(with_header(header), Err(JwtError::Header { .. })), "{header}");
    }
    for typ in ["jwt", "at+jwt", "wit+jwt", ""] {
        let header = json!({"alg": "ES256", "kid": "k1", "typ": typ}).to_string();
        assert!(matches!(with_header(&header), Err(JwtError::Type)), "{typ}");
    }
    for header in [
        r#"{"alg":"ES256","kid":"k1"}"#,
        r#"{"alg":"ES256","kid":"k1","typ":"JOSE"}"#,
    ] {
        assert!(with_header(header).is_ok(), "{header}");
    }
    let longest = "k".repeat(KEY_ID_BYTES_MAX);
    for (kid, good) in [
        ("", false),
        ("a b", false),
        ("ä", false),
        (&*longest, true),
        (&*format!("{longest}k"), false),
    ] {
        let header = json!({"alg": "ES256", "kid": kid}).to_string();
        let read = with_header(&header);
        assert_eq!(read.is_ok(), good, "{kid}");
        assert!(good || matches!(read, Err(JwtError::KeyId)), "{kid}");
    }
}

#[test]
fn each_claim_that_must_be_there_is_and_each_is_of_its_kind() {
    for name in ["sub", "aud", "exp"] {
        assert!(
            matches!(with_claim(name, None), Err(JwtError::Claims { .. })),
            "{name} absent"
        );
    }
    for name in ["iat", "iss", "jti"] {
        assert!(with_claim(name, None).is_ok(), "{name} may be absent");
    }
    for (name, wrong) in [
        ("sub", json!(null)),
        ("sub", json!(17)),
        ("aud", json!(null)),
        ("aud", json!(17)),
        ("aud", json!([17])),
        ("aud", json!({"a": 1})),
        ("exp", json!(null)),
        ("exp", json!("1800000300")),
        ("exp", json!(-1)),
        ("exp", json!(1_800_000_300.5)),
        ("iat", json!(null)),
        ("iat", json!("now")),
        ("iat", json!(-1)),
        ("nbf", json!(null)),
        ("nbf", json!("now")),
        ("iss", json!(null)),
        ("iss", json!(["https://ids.acme.example"])),
        ("jti", json!(null)),
        ("jti", json!(17)),
    ] {
        let read = with_claim(name, Some(wrong.clone()));
        assert!(matches!(read, Err(JwtError::Claims { .. })), "{name}: {wrong}");
    }
    let twice = claims().write().to_string().replacen('{', r#"{"exp":1,"#, 1);
    let read = JwtSvid::parse(&token(HEADER, &twice));
    assert!(matches!(read, Err(JwtError::Claims { .. })), "exp twice");
    assert!(with_claim("anything", Some(json!({"else": [1]}))).is_ok());
}

#[test]
fn the_subject_is_somebody_by_a_spiffe_id() {
    for wrong in ["", "prod/support", "https://acme.internal/a", "spiffe://acme.internal/"] {
        let read = with_claim("sub", Some(json!(wrong)));
        assert!(matches!(read, Err(JwtError::Subject { .. })), "{wrong}");
    }
    let read = with_claim("sub", Some(json!("spiffe://acme.internal")));
    assert!(matches!(read, Err(JwtError::SubjectPath)));
}

#[test]
fn an_audience_has_one_to_sixteen_names() {
    let names = |count: usize| json!((0..count).map(|n| n.to_string()).collect::<Vec<_>>());
    for wrong in [json!([]), json!(""), json!(["a", ""]), names(17)] {
        let read = with_claim("aud", Some(wrong.clone()));
        assert!(matches!(read, Err(JwtError::Audience)), "{wrong}");
    }
    assert_eq!(with_claim("aud", Some(names(16))).unwrap().claims().audience.len(), 16);
}

#[test]
fn a_token_has_one_form() {
    let good = token(HEADER, &claims().write().to_string());
    assert!(JwtSvid::parse(&good).is_ok());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    for (text, why) in [
        (String::new(), "empty"),
        (signed.to_owned(), "no signature"),
        (format!("{good}."), "four parts"),
        (format!("{good}.{signature}"), "four parts"),
        (format!(".{good}"), "a part before"),
        (format!("{{\"payload\":\"{signed}\"}}"), "the JSON form"),
    ] {
        assert!(matches!(JwtSvid::parse(&text), Err(JwtError::NotCompact)), "{why}");
    }
    // 64 bytes end in four bits that say nothing: they are zero, and so is what follows them.
    let (rest, last) = signature.split_at(signature.len() - 1);
    let other = after(last);
    for (text, why) in [
        (format!("{good}=="), "padding"),
        (format!("{signed}.{rest}{other}"), "bits after the end"),
        (format!("{signed}.+{rest}"), "another alphabet"),
        (format!(" {good}"), "a space before"),
        (format!("{good}\n"), "a line end"),
    ] {
        assert!(matches!(JwtSvid::parse(&text), Err(JwtError::Base64 { .. })), "{why}");
    }
    for bytes in [0, 63, 65, 96] {
        let text = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(vec![7; bytes]));
        let read = JwtSvid::parse(&text);
        assert!(
            matches!(read, Err(JwtError::SignatureLength { bytes: found }) if found == bytes),
            "{bytes}"
        );
    }
}

/// The letter after one, in the alphabet's order: the same bits with another last one.
fn after(letter: &str) -> char {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = ALPHABET.find(letter).unwrap() + 1;
    ALPHABET.chars().nth(place).unwrap()
}

#[test]
fn a_token_is_not_longer_than_any_has_to_be() {
    let of = |key_id: usize, audience: usize| {
        let claims = Claims {
            audience: vec!["a".repeat(audience)],
            ..claims()
        };
        UnsignedJwt::new(&"k".repeat(key_id), &claims).sign(&[7; 64])
    };
    let most = (JWT_BYTES_MAX - of(1, 0).len()) / 4 * 3;
    let lengths = (1..4).flat_map(|key_id| (most - 8..most + 8).map(move |audience| (key_id, audience)));
    let mut sizes = std::collections::BTreeSet::new();
    for (key_id, audience) in lengths {
        let text = of(key_id, audience);
        sizes.insert(text.len());
        let read = JwtSvid::parse(&text);
        assert_eq!(read.is_ok(), text.len() <= JWT_BYTES_MAX, "{} bytes", text.len());
        assert!(read.is_ok() || matches!(read, Err(JwtError::Oversize { .. })));
    }
    assert!(
        sizes.contains(&JWT_BYTES_MAX) && sizes.contains(&(JWT_BYTES_MAX + 1)),
        "{sizes:?}"
    );
    // The longest that this mesh makes.
    let path = "a".repeat(2048 - "spiffe://acme.internal/".len());
    let longest = Claims {
        subject: SpiffeId::parse(&format!("spiffe://acme.internal/{path}")).unwrap(),
        audience: vec!["a".repeat(1024)],
        issuer: Some("i".repeat(255)),
        ..claims()
    };
    assert!(JwtSvid::parse(&UnsignedJwt::new(&"k".repeat(43), &longest).sign(&[7; 64])).is_ok());
}

#[test]
fn a_token_is_accepted_in_its_time_by_whom_it_is_for() {
    let svid = JwtSvid::parse(&token(HEADER, &claims().write().to_string())).unwrap();
    let accept = |audience: &str, now| svid.accept(&acme(), audience, at(now));
    let audience = "https://api.example.com";
    for now in [NOW - 60, NOW, NOW + 299, NOW + 359] {
        assert!(accept(audience, now).is_ok(), "{now}");
    }
    for now in [NOW + 360, NOW + 3600] {
        assert!(matches!(accept(audience, now), Err(JwtError::Expired { .. })), "{now}");
    }
    assert!(matches!(accept(audience, NOW - 61), Err(JwtError::NotYet { .. })));
    for other in ["https://api.example.com/", "https://API.example.com", "", "api"] {
        assert!(matches!(accept(other, NOW), Err(JwtError::OtherAudience)), "{other}");
    }
    let other = TrustDomain::parse("other.internal").unwrap();
    let refused = svid.accept(&other, audience, at(NOW));
    assert!(matches!(refused, Err(JwtError::OtherTrustDomain { .. })));
    let later = with_claim("nbf", Some(json!(NOW + 61))).unwrap();
    let refused = later.accept(&acme(), audience, at(NOW));
    assert!(matches!(refused, Err(JwtError::NotYet { .. })));
    let for_ever = with_claim("exp", Some(json!(u64::MAX))).unwrap();
    assert_eq!(for_ever.claims().expires, Timestamp::MAX);
}

#[test]
fn a_key_is_a_point_and_its_name_is_its_thumbprint() {
    // The point of RFC 7517 §A.1; its thumbprint was computed by another implementation (joserfc).
    let x = URL_SAFE_NO_PAD
        .decode("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4")
        .unwrap();
    let y = URL_SAFE_NO_PAD
        .decode("4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM")
        .unwrap();
    let point = [&[4], &x[..], &y[..]].concat();
    let key = JwtAuthority::from_point(&point).unwrap();
    assert_eq!(key.key_id(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
    assert_eq!(key.point().as_slice(), point);
    let compressed = [&[2], &x[..]].concat();
    let hybrid = [&[6], &point[1..]].concat();
    for wrong in [
        &point[..64],
        &point[1..],
        &[&point[..], &[0]].concat(),
        &compressed,
        &hybrid,
        &[],
    ] {
        assert_eq!(JwtAuthority::from_point(wrong), Err(JwtAuthorityError::Point));
    }
}

fn text(most: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 1..most).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn claims_come_back_from_what_they_write(
        path in "(/[a-zA-Z0-9._-]{1,20}x){1,4}",
        audience in proptest::collection::vec(text(30), 1..=AUDIENCES_MAX),
        times in proptest::array::uniform3(0_i64..253_402_300_799),
        optional in proptest::option::of((text(40), text(40))),
        kid in "[!-~]{1,256}",
        signature in proptest::collection::vec(any::<u8>(), SIGNATURE_BYTES),
    ) {
        let [expires, issued_at, not_before] = times.map(at);
        let meant = Claims {
            subject: SpiffeId::parse(&format!("spiffe://acme.internal{path}")).unwrap(),
            audience,
            expires,
            issued_at: optional.is_some().then_some(issued_at),
            not_before: optional.is_none().then_some(not_before),
            issuer: optional.as_ref().map(|(issuer, _)| issuer.clone()),
            token_id: optional.map(|(_, id)| id),
        };
        let signature: [u8; SIGNATURE_BYTES] = signature.try_into().unwrap();
        let token = UnsignedJwt::new(&kid, &meant).sign(&signature);
        prop_assume!(token.len() <= JWT_BYTES_MAX);
        let read = JwtSvid::parse(&token).unwrap();
        prop_assert_eq!(read.claims(), &meant);
        prop_assert_eq!(read.key_id(), kid);
        prop_assert_eq!(read.signature(), &signature);
    }

    #[test]
    fn any_text_is_refused_or_read(text in ".{0,200}") {
        if let Ok(svid) = JwtSvid::parse(&text) {
            prop_assert!(!svid.id().path().is_empty());
        }
    }
}
