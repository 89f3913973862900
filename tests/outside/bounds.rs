//! How long a destination is waited for, how much it is called, by what authority, and by whom: what the mesh says of it.

use std::time::{Duration, Instant};

use super::scene::Scene;
use super::tls::Reading;
use super::{API, API_HERE, refused};
use crate::kill::now_ms;
use crate::spine::CHECKOUT;
use crate::support::hand::Hand;
use crate::support::{as_user, eventually, http_get, ok, root_or_skip};

const PLAIN: &str = r#"id: plain, from: prod/checkout, to: "http://plain.example.com", http: ["GET /**"]"#;

fn plain_here(more: &str) -> String {
    format!(r#""http://plain.example.com": {{addresses: [HERE]{more}}}"#)
}

#[test]
fn a_destination_is_waited_for_and_called_as_the_mesh_says() {
    if !root_or_skip("bounds of destinations") {
        return;
    }
    let scene = Scene::new("");
    let server = scene.plain(&scene.address, 80);
    scene.names(&[(&scene.address, "plain.example.com")]);
    let mut checkout = scene.checkout();
    scene.apply(&[PLAIN], &[&plain_here(", max_in_flight: 2, max_failures: 0")], "");
    let open = || Reading::open(&scene, &["http", "plain.example.com", "/still"]);
    let both = [open(), open()];
    refused(&checkout.call("GET", "plain.example.com", "/a"), "overloaded", "");
    drop(both);
    eventually("a place to be free", || {
        (checkout.call("GET", "plain.example.com", "/a").status == 200).then_some(())
    });
    scene.apply(&[PLAIN], &[&plain_here(", stream_idle: 500ms")], "");
    assert!(open().line().starts_with("end "), "it stood still");
    eventually("the end for standing still", || {
        (scene.ended("timeout").len() == 1).then_some(())
    });
    let before = server.said("request");
    scene.apply(
        &[PLAIN],
        &[&plain_here(", request_timeout: 300ms, max_failures: 2")],
        "",
    );
    for (reason, status) in [("timeout", 504), ("timeout", 504), ("breaker_open", 503)] {
        let began = Instant::now();
        let answer = checkout.call("GET", "plain.example.com", "/never");
        refused(&answer, reason, "");
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    assert_eq!(server.said("request") - before, 2, "the third was not made");
    let metrics = http_get(scene.host().ports.metrics, "/metrics").expect("the metrics").1;
    assert!(
        metrics.contains(r#"botmesh_breaker_opened_total{to="http://plain.example.com"} 1"#),
        "{metrics}"
    );
}

#[test]
fn a_connection_is_as_good_as_the_authority_that_the_mesh_names_and_speaks_http_1() {
    if !root_or_skip("authorities of the outside") {
        return;
    }
    let scene = Scene::new("");
    let server = scene.tls(443, &["api.example.com"]);
    scene.names(&[(&scene.address, "api.example.com")]);
    scene.apply(&[API], &[API_HERE], "");
    let mut checkout = scene.checkout();
    assert_eq!(checkout.call("GET", "api.example.com", "/v1/a").status, 200);
    let to = format!("api.example.com:80:{}", scene.host().bot_tcp());
    let h2c = |more: &[&str]| {
        let mut curl = as_user("curl", CHECKOUT);
        curl.args(["-sS", "-i", "--http2-prior-knowledge", "--connect-to", &to])
            .args(more);
        ok(curl.arg("http://api.example.com/v1/b"))
    };
    let told = h2c(&[]);
    assert!(
        told.starts_with("HTTP/2 200") && told.contains("\"host\", \"api.example.com\""),
        "{told}"
    );
    let told = h2c(&[
        "-X",
        "POST",
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
    ]);
    assert!(
        told.contains("grpc-message: bad_request") && told.contains("grpc-status"),
        "{told}"
    );
    assert_eq!(server.said("request"), 2, "{}", server.log());
    assert_eq!(server.said("connection"), 1);
    // By the web's authorities nobody vouches for it, and what is open does not help.
    scene.apply(&[API], &[r#""https://api.example.com": {addresses: [HERE]}"#], "");
    refused(
        &checkout.call("GET", "api.example.com", "/v1/c"),
        "peer_mismatch",
        "no authority",
    );
    assert_eq!(server.said("request"), 2, "{}", server.log());
}

#[test]
fn a_bot_whose_svid_has_ended_calls_nobody_outside() {
    if !root_or_skip("callers without an SVID") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
    let hand = Hand::new(dir.path());
    let mut scene = Scene::with_clock("", Some(hand.path()));
    let server = scene.plain(&scene.address, 80);
    scene.names(&[(&scene.address, "plain.example.com")]);
    scene.apply(&[PLAIN], &[&plain_here("")], "");
    let mut checkout = scene.checkout();
    assert_eq!(checkout.call("GET", "plain.example.com", "/a").status, 200);
    let reading = Reading::open(&scene, &["http", "plain.example.com", "/ticks"]);
    scene.mesh.ca.kill();
    let since = now_ms();
    hand.forward(Duration::from_secs(70 * 60));
    let answer = eventually("the SVID to end", || {
        Some(checkout.call("GET", "plain.example.com", "/b")).filter(|answer| answer.status != 200)
    });
    refused(&answer, "no_identity", "");
    // What was under way ends with it.
    let after = reading.cut_since(since);
    assert!(after < 3_000, "{after} ms");
    eventually("the end of the stream", || {
        (scene.ended("no_identity").len() == 1).then_some(())
    });
    let before = server.said("request");
    refused(&checkout.call("GET", "plain.example.com", "/c"), "no_identity", "");
    assert_eq!(server.said("request"), before);
}
