//! Requests that are signed, judged by others: Python's hmac, and botocore.

use std::process::Command;

use super::scene::{HMAC, SIGV4, Service};
use crate::support::{PYTHON, root_or_skip, run};

#[test]
fn a_webhook_is_signed_as_python_signs_it() {
    if !root_or_skip("signed requests") {
        return;
    }
    let service = Service::start("");
    service.put("hook-key", HMAC);
    let mut checkout = service.scene.checkout();
    let order = |body: &str| {
        serde_json::json!({"method": "POST", "target": "/hook", "body": body,
            "headers": [["Host", "hook.example.com"], ["X-Signature", "v1=forged"], ["X-Time", "1"]]})
    };
    for body in ["", "{}", &"x".repeat(100_000)] {
        let answer = checkout.order(&order(body)).unwrap();
        assert_eq!(answer.status, 200, "{} bytes: {}", body.len(), service.server.log());
    }
    assert_eq!(service.server.said("hook True"), 3);
    let head = "POST /hook HTTP/1.1\r\nHost: hook.example.com\r\nContent-Length: 1048577\r\n\r\n";
    let long = checkout.order(&serde_json::json!({"raw": head})).unwrap();
    assert_eq!(
        (long.status, long.reason().as_str()),
        (400, "bad_request"),
        "{}",
        long.body
    );
    assert!(long.body.contains("at most 1024 KiB"), "{}", long.body);
    assert_eq!(service.server.said("hook"), 3, "it was not sent");
}

#[test]
fn a_request_to_aws_is_signed_as_botocore_signs_it() {
    if !root_or_skip("signed requests") {
        return;
    }
    if !run(Command::new(PYTHON).args(["-c", "import botocore"]))
        .status
        .success()
    {
        println!("skipped: botocore is not installed");
        return;
    }
    let service = Service::start("");
    service.put("aws-key", SIGV4);
    service.put("aws-api-key", SIGV4);
    let mut checkout = service.scene.checkout();
    for (host, method, path, body) in [
        ("s3", "GET", "/s3/bucket/key", ""),
        ("s3", "GET", "/s3/bucket/a%20b~c", ""),
        (
            "s3",
            "GET",
            "/s3/bucket?list-type=2&prefix=a%2Fb&delimiter=%2F&marker",
            "",
        ),
        ("s3", "PUT", "/s3/bucket/key", "some bytes"),
        // Kept compressed, and passed as it is: its key was never sent.
        ("s3", "GET", "/s3/bucket/log.gz", ""),
        ("api", "POST", "/api/a%20b/c", "{\"a\": 1}"),
        ("api", "GET", "/api/items?b=2&a=1&a=0", ""),
    ] {
        let host = format!("{host}.example.com");
        let order = serde_json::json!({"method": method, "target": path, "body": body,
            "headers": [["Host", host], ["X-Amz-Meta-A", "1"], ["Authorization", "dummy"]]});
        let answer = checkout.order(&order).unwrap();
        assert_eq!(
            answer.status,
            200,
            "{method} {path}: {}\n{}",
            answer.body,
            service.server.log()
        );
    }
    assert_eq!(service.server.said("sigv4 True"), 7);
    let answer = checkout.call("GET", "s3.example.com", "/s3/x");
    assert_eq!(answer.status, 200);
    service.put("aws-key", "not-an-access-key");
    let answer = checkout.call("GET", "s3.example.com", "/s3/x");
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "credential_unavailable"),
        "{}",
        answer.body
    );
}
