//! What ends when its time is over, by a clock that the test moves.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::foreign::{curl, recorded, sni, with_played_host};
use crate::spine::{CHECKOUT, two_hosts_at};
use crate::support::hand::Hand;
use crate::support::join::write_pem;
use crate::support::{Caller, Mesh, eventually, ok, root_or_skip};

const MINUTE: Duration = Duration::from_secs(60);

/// The serial of a bot's SVID that its proxy shows.
pub(crate) fn serial(mesh: &Mesh, host: &str, bot: &str) -> Option<String> {
    let socket = mesh.host(host).admin().replacen("unix:", "", 1);
    let told = ok(Command::new("curl").args(["-sS", "--unix-socket", &socket, "http://proxy/v1/bots"]));
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let bot = told["bots"].as_array()?.iter().find(|b| b["bot"] == bot)?;
    bot["serial"].as_str().map(ToOwned::to_owned)
}

/// Moves the clock and waits until a bot has an SVID that is none of `seen`.
fn forward_to_renewal(hand: &Hand, mesh: &Mesh, host: &str, bot: &str, seen: &mut Vec<String>) {
    // 45 % of an hour is 27 minutes: each step passes one renewal.
    hand.forward(28 * MINUTE);
    renewed(mesh, host, bot, seen);
}

/// Waits until a bot has an SVID that is none of `seen`.
pub(crate) fn renewed(mesh: &Mesh, host: &str, bot: &str, seen: &mut Vec<String>) {
    let renewed = eventually("a renewed SVID", || {
        serial(mesh, host, bot).filter(|serial| !seen.contains(serial))
    });
    seen.push(renewed);
}

#[test]
fn an_svid_is_renewed_long_before_it_ends_and_no_call_notices() {
    if !root_or_skip("renewal") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
    let hand = Hand::new(dir.path());
    let mesh = two_hosts_at(&hand);
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let mut seen = vec![serial(&mesh, "web-1", "prod/checkout").expect("an SVID")];
    for _ in 0..3 {
        forward_to_renewal(&hand, &mesh, "web-1", "prod/checkout", &mut seen);
        let answer = checkout.call("GET", "orders.prod.mesh", "/orders/17");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[test]
fn a_certificate_whose_hour_is_over_opens_nothing() {
    if !root_or_skip("an expired SVID") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
    let hand = Hand::new(dir.path());
    let mesh = two_hosts_at(&hand);
    let edge = with_played_host(&mesh);
    let (chain, key) = edge.issue("prod/checkout").expect("edge-1 may claim prod/checkout");
    let stolen = write_pem(mesh.dir(), "stolen", &chain, &key);
    let port = mesh.host("web-2").ports.mesh;
    let host = ["-H", "Host: orders.prod.mesh", "--http1.1"];
    let (status, body) = curl(port, &sni("prod/orders"), Some(&stolen), &host, "/orders/17");
    assert_eq!(status, "200", "{body}");
    let mut seen = vec![serial(&mesh, "web-2", "prod/orders").expect("an SVID")];
    for _ in 0..2 {
        forward_to_renewal(&hand, &mesh, "web-2", "prod/orders", &mut seen);
    }
    hand.forward(6 * MINUTE);
    let (status, body) = curl(port, &sni("prod/orders"), Some(&stolen), &host, "/orders/17");
    assert_eq!(status, "000", "{body}");
    recorded(&mesh, "expired");
}

#[test]
fn a_rule_with_an_end_ends_on_each_proxy_by_its_own_time() {
    if !root_or_skip("until") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
    let hand = Hand::new(dir.path());
    let mesh = two_hosts_at(&hand);
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let soon = spiffe::time::Clock::system().now() + 20 * MINUTE;
    mesh.apply(&text.replace("2020-01-01T00:00:00Z", &soon.to_string()));
    let mut report = Caller::new(crate::spine::REPORT, &mesh.host("web-1").bot_socket());
    let answer = report.call("GET", "orders.prod.mesh", "/years/2019");
    assert_eq!(answer.status, 200, "{}", answer.body);
    hand.forward(21 * MINUTE);
    // A busy machine brings the clock's word to a proxy a moment later.
    let answer = eventually("the rule to have ended", || {
        let answer = report.call("GET", "orders.prod.mesh", "/years/2019");
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (403, "rule_expired"),
        "{}",
        answer.body
    );
}
