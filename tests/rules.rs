//! What a mesh says of its calls beside allow and deny: `audit_only`.

use std::time::Duration;

use serde_json::Value;
use spiffe::time::Timestamp;

use crate::kill::{Streaming, now_ms};
use crate::spine::{CHECKOUT, REPORT, two_hosts_at};
use crate::support::hand::Hand;
use crate::support::{Answer, Caller, Mesh, botmesh, eventually, http_get, ok, root_or_skip};

const ORDERS: &str = "orders.prod.mesh";

fn refused(answer: &Answer) -> (u64, String) {
    (answer.status, answer.reason())
}

/// Applies the mesh file that is live, with more sections.
fn apply_with(mesh: &Mesh, more: &str) {
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    // The tests of the mesh say that what no rule allows is refused, which is not so for a while.
    let text = text.replace("DELETE /orders/17, ", "");
    mesh.apply(&format!("{text}{more}"));
}

fn metrics(mesh: &Mesh, host: &str) -> String {
    http_get(mesh.host(host).ports.metrics, "/metrics").expect("metrics").1
}

/// The call's records at both ends: the caller's, then the callee's.
fn both_ends(mesh: &Mesh, answer: &Answer) -> [Value; 2] {
    let id = answer.header("botmesh-call").expect("an id").to_owned();
    let out = mesh.host("web-1").query(&format!("kind=call id={id}"));
    let within = mesh.host("web-2").query("kind=call direction=in");
    let within = within.into_iter().find(|record| record["peer_call"] == id.as_str());
    [out[0].clone(), within.unwrap_or_default()]
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told from top to bottom")]
fn audit_only_carries_and_records_what_no_rule_allows_and_ends_with_its_time() {
    if !root_or_skip("audit_only") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
    let hand = Hand::new(dir.path());
    let mesh = two_hosts_at(&hand);
    let socket = mesh.host("web-1").bot_socket();
    let (mut checkout, mut report) = (Caller::new(CHECKOUT, &socket), Caller::new(REPORT, &socket));
    let delete = |caller: &mut Caller| caller.call("DELETE", ORDERS, "/orders/17");
    assert_eq!(refused(&delete(&mut checkout)), (403, "no_rule".to_owned()));

    let until = Timestamp::from_unix_millis(hand.shows() + 600_000);
    apply_with(
        &mesh,
        &format!("audit_only:\n  - {{to: prod/orders, until: \"{until}\", reason: first rollout}}\n"),
    );
    let answer = delete(&mut checkout);
    assert_eq!(answer.status, 200, "{}", answer.body);
    for record in both_ends(&mesh, &answer) {
        assert_eq!(
            (&record["verdict"], &record["nearest"]),
            (&Value::from("audit"), &Value::from("checkout-reads-orders")),
            "{record}"
        );
        assert_eq!((&record["rule"], &record["reason"]), (&Value::Null, &Value::Null));
    }
    for (host, way) in [("web-1", "out"), ("web-2", "in")] {
        let metrics = metrics(&mesh, host);
        let counted = metrics
            .lines()
            .find(|line| line.starts_with("botmesh_requests_total{") && line.contains("verdict=\"audit\""))
            .unwrap_or_else(|| panic!("{metrics}"));
        assert!(
            counted.contains(&format!("direction=\"{way}\"")) && counted.ends_with(" 1"),
            "{counted}"
        );
    }
    let told = ok(botmesh()
        .args([
            "policy",
            "explain",
            "prod/checkout",
            "prod/orders",
            "DELETE /orders/17",
            "-o",
            "json",
        ])
        .args(["--server", &mesh.server()]));
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        (&told["verdict"], &told["audit_until"], &told["nearest"]["rule"]),
        (
            &Value::from("audit"),
            &Value::from(until.to_string()),
            &Value::from("checkout-reads-orders")
        )
    );

    // Whatever is refused for another reason than that no rule speaks of it stays refused.
    let admin = checkout.call("GET", ORDERS, "/admin/keys");
    assert_eq!(refused(&admin), (403, "denied_by_rule".to_owned()));
    let ended = report.call("GET", ORDERS, "/years/1");
    assert_eq!(refused(&ended), (403, "rule_expired".to_owned()));
    for (method, reason) in [("GET", "browser_refused"), ("DELETE", "no_rule")] {
        let browser = [("Origin", "http://evil.example")];
        let answer = checkout.call_with(method, ORDERS, "/orders/17", &browser);
        assert_eq!(refused(&answer), (403, reason.to_owned()), "{method}");
    }
    let stock = checkout.call("DELETE", "stock.prod.mesh", "/stock/1");
    assert_eq!(refused(&stock), (403, "no_rule".to_owned()), "of another callee");

    // A call that it carries ends with it.
    let stream = Streaming::open(REPORT, &socket, "/orders/ticks-idle", "get");
    let since = now_ms();
    hand.forward(Duration::from_secs(600));
    let after = stream.cut_since(since);
    println!("a call that no rule allows was ended {after} ms after audit_only");
    assert_eq!(refused(&delete(&mut checkout)), (403, "no_rule".to_owned()));
    let outcomes = eventually("the end of the call", || {
        let ends = mesh.host("web-2").query("kind=end");
        ends.into_iter().find(|end| end["outcome"] == "no_rule")
    });
    assert_eq!(outcomes["kind"], "end");
}
