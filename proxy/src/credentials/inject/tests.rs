use std::sync::Arc;

use policy::{Hmac, HmacEncoding, HmacHash, Outside};

use super::*;

const KEY: &str = "sk-ant-0123456789";

fn injected(
    injection: &Injection,
    key: &str,
    target: &str,
    own: &[(&'static str, &str)],
) -> Result<(String, HeaderMap), Misfit> {
    let secret = Secret::new(key.as_bytes().to_vec()).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in own {
        headers.append(*name, value.parse().unwrap());
    }
    let mut target = Bytes::copy_from_slice(target.as_bytes());
    let to = Target {
        method: &Method::POST,
        host: "api.example.com",
        target: &mut target,
        headers: &mut headers,
        body: b"{}",
    };
    inject(injection, &secret, Timestamp::from_unix_millis(0), to)?;
    Ok((String::from_utf8(target.to_vec()).unwrap(), headers))
}

fn header(prefix: &str) -> Injection {
    Injection::Header {
        name: "x-api-key".into(),
        prefix: prefix.into(),
    }
}

fn query() -> Injection {
    Injection::Query {
        name: "key".into(),
        unsafe_query: Arc::from("r"),
    }
}

#[test]
fn a_credential_takes_the_place_of_what_the_bot_sent() {
    let dummies = [
        ("x-api-key", "dummy"),
        ("x-api-key", "another"),
        ("authorization", "Bearer dummy"),
    ];
    let (_, headers) = injected(&header(""), KEY, "/", &dummies).unwrap();
    assert_eq!(headers.get_all("x-api-key").iter().collect::<Vec<_>>(), [KEY]);
    assert_eq!(
        headers["authorization"], "Bearer dummy",
        "another field is the bot's own affair"
    );
    assert!(headers["x-api-key"].is_sensitive());
    let (_, headers) = injected(&header("Token "), KEY, "/", &dummies).unwrap();
    assert_eq!(headers["x-api-key"], format!("Token {KEY}"));
    let (_, headers) = injected(&Injection::Bearer, KEY, "/", &dummies).unwrap();
    assert_eq!(
        headers.get_all("authorization").iter().collect::<Vec<_>>(),
        [&format!("Bearer {KEY}")]
    );
    let basic = Injection::Basic { user: "robot".into() };
    let (_, headers) = injected(&basic, KEY, "/", &dummies).unwrap();
    assert_eq!(headers["authorization"], "Basic cm9ib3Q6c2stYW50LTAxMjM0NTY3ODk=");
}

#[test]
fn a_field_that_this_value_does_not_need_is_not_the_bots_to_set() {
    let sigv4 = Injection::Sigv4 {
        region: "eu".into(),
        service: "s3".into(),
    };
    let own = [("x-amz-security-token", "of-the-bot"), ("accept-encoding", "gzip")];
    let (_, headers) = injected(&sigv4, "AKIA:secretsecret", "/", &own).unwrap();
    assert!(headers.get("x-amz-security-token").is_none());
    assert_eq!(
        headers["accept-encoding"], "gzip",
        "the value is not in the request, so nothing can echo it"
    );
}

#[test]
fn an_answer_is_asked_for_that_can_be_looked_through() {
    let (_, headers) = injected(&header(""), KEY, "/", &[("accept-encoding", "gzip, br")]).unwrap();
    assert_eq!(
        headers.get_all("accept-encoding").iter().collect::<Vec<_>>(),
        ["identity"]
    );
}

#[test]
fn a_parameter_takes_the_place_of_those_of_its_name() {
    for (target, expected) in [
        ("/v1", "/v1?key=a%2Fb%20c%2Bd9"),
        ("/v1?", "/v1?key=a%2Fb%20c%2Bd9"),
        ("/v1?q=1&key=dummy&r=2", "/v1?q=1&r=2&key=a%2Fb%20c%2Bd9"),
        ("/v1?k%65y=dummy&key", "/v1?key=a%2Fb%20c%2Bd9"),
        ("/v1?keys=1&q", "/v1?keys=1&q&key=a%2Fb%20c%2Bd9"),
    ] {
        assert_eq!(
            injected(&query(), "a/b c+d9", target, &[]).unwrap().0,
            expected,
            "{target}"
        );
    }
}

#[test]
fn a_value_of_another_kind_is_told_and_nothing_is_sent() {
    let sigv4 = Injection::Sigv4 {
        region: "eu".into(),
        service: "s3".into(),
    };
    assert_eq!(injected(&sigv4, KEY, "/", &[]).unwrap_err(), Misfit::AccessKey);
    let hook = Injection::Url(Outside::parse("https://hooks.example.com").unwrap());
    let elsewhere = injected(&hook, "https://evil.example/services/1", "/", &[]).unwrap_err();
    assert!(matches!(elsewhere, Misfit::Address(_)), "{elsewhere:?}");
}

#[test]
fn an_address_takes_the_place_of_the_whole_target() {
    let hook = Injection::Url(Outside::parse("https://hooks.example.com").unwrap());
    let value = "https://hooks.example.com/services/1?key=2";
    let (target, headers) = injected(&hook, value, "/", &[("content-type", "application/json")]).unwrap();
    assert_eq!(target, "/services/1?key=2");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(
        headers["accept-encoding"], "identity",
        "what is compressed cannot be searched"
    );
}

#[test]
fn what_is_guarded_is_the_secret_part_in_every_form_in_which_it_is_sent() {
    let parts = |injection: &Injection, value: &str| {
        let secret = Secret::new(value.as_bytes().to_vec()).unwrap();
        let parts = guarded(injection, &secret);
        parts
            .iter()
            .map(|part| String::from_utf8(part.to_vec()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(parts(&header("Token "), KEY), [KEY]);
    assert_eq!(parts(&query(), KEY), [KEY]);
    let basic = Injection::Basic { user: "robot".into() };
    assert_eq!(parts(&basic, KEY), [KEY, "cm9ib3Q6c2stYW50LTAxMjM0NTY3ODk="]);
    let sigv4 = Injection::Sigv4 {
        region: "eu".into(),
        service: "s3".into(),
    };
    assert_eq!(
        parts(&sigv4, "AKIA:secretsecret:session-token"),
        ["secretsecret", "session-token"]
    );
    assert_eq!(parts(&sigv4, "nonsense-12"), ["nonsense-12"]);
    let hmac = Injection::Hmac(Hmac {
        header: "x-signature".into(),
        hash: HmacHash::Sha256,
        encoding: HmacEncoding::Hex,
        prefix: "".into(),
        timestamp: None,
    });
    assert_eq!(parts(&hmac, KEY), [KEY]);
}
