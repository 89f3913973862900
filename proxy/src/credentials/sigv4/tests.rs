//! Against the signatures in AWS's own examples ("Signature Calculations for the Authorization Header", Amazon S3 API reference).

use bytes::Bytes;
use http::{HeaderMap, Method};
use spiffe::time::Timestamp;

use super::super::secret::Secret;
use super::*;

const KEY: &[u8] = b"AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn signed(value: &[u8], service: &str, target: &str, mut headers: HeaderMap, body: &[u8]) -> HeaderMap {
    let secret = Secret::new(value.to_vec()).unwrap();
    let key = AccessKey::read(secret.bytes()).unwrap();
    let mut target = Bytes::copy_from_slice(target.as_bytes());
    let to = Target {
        method: &Method::GET,
        host: "examplebucket.s3.amazonaws.com",
        target: &mut target,
        headers: &mut headers,
        body,
    };
    let scope = Scope {
        region: "us-east-1",
        service,
    };
    let now = Timestamp::from_rfc3339("2013-05-24T00:00:00Z").unwrap();
    sign(&key, scope, now, to).unwrap();
    headers
}

fn signature(headers: &HeaderMap) -> &str {
    let text = headers["authorization"].to_str().unwrap();
    text.rsplit_once("Signature=").unwrap().1
}

#[test]
fn the_signatures_are_those_of_the_examples() {
    for (target, expected) in [
        (
            "/?lifecycle",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "/?max-keys=2&prefix=J",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
        (
            "/?prefix=J&max-keys=2",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ] {
        let headers = signed(KEY, S3, target, HeaderMap::new(), b"");
        assert_eq!(signature(&headers), expected, "{target}");
        let text = headers["authorization"].to_str().unwrap();
        let begin = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
                     SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=";
        assert!(text.starts_with(begin), "{text}");
        assert_eq!(headers["x-amz-date"], "20130524T000000Z");
        assert!(headers["authorization"].is_sensitive());
    }
}

#[test]
fn every_amz_field_is_signed_and_the_session_with_them() {
    let mut fields = HeaderMap::new();
    fields.append("x-amz-meta-a", "1".parse().unwrap());
    fields.append("x-amz-meta-a", " 2 ".parse().unwrap());
    let value = [KEY, b":session-token"].concat();
    let headers = signed(&value, S3, "/", fields, b"body");
    assert_eq!(headers["x-amz-security-token"], "session-token");
    let text = headers["authorization"].to_str().unwrap();
    let names = "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-meta-a;x-amz-security-token,";
    assert!(text.contains(names), "{text}");
    let plain = signed(KEY, S3, "/", HeaderMap::new(), b"body");
    assert_ne!(signature(&headers), signature(&plain));
    assert_ne!(
        signature(&plain),
        signature(&signed(KEY, S3, "/", HeaderMap::new(), b"bodY")),
        "the body is signed"
    );
}

#[test]
fn only_s3_reads_a_path_as_it_came() {
    let path = |service: &str| {
        let mut out = BytesMut::new();
        put_path(b"/a%20b/c~d", service, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    };
    assert_eq!(
        (path(S3).as_str(), path("execute-api").as_str()),
        ("/a%20b/c~d", "/a%2520b/c~d")
    );
}

#[test]
fn an_access_key_has_two_parts_or_three() {
    let read = |text: &str| {
        let key = AccessKey::read(text.as_bytes())?;
        Some((key.id.len(), key.secret.len(), key.session.map(<[u8]>::len)))
    };
    assert_eq!(read("AKIA:12345678"), Some((4, 8, None)));
    assert_eq!(read("AKIA:12345678:tok"), Some((4, 8, Some(3))));
    for text in [
        "AKIA",
        "AKIA:1234567",
        ":12345678",
        "AK IA:12345678",
        "AKIA:12345678:a:b",
        "AK/A:12345678",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}
