//! What a mesh says of its calls beside allow and deny: `audit_only`, `limits`.

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
    // Whichever end looked first ended it for both.
    eventually("the end of the call", || {
        let ends = ["web-1", "web-2"].map(|host| mesh.host(host).query("kind=end"));
        ends.iter()
            .flatten()
            .find(|end| end["outcome"] == "no_rule")
            .map(|_| ())
    });
}

/// Says that the call was refused by a limit, and by which headers and fields its caller knows.
fn limited(answer: &Answer, limit: &str, seconds: u64) {
    assert_eq!(refused(answer), (429, "rate_limited".to_owned()), "{}", answer.body);
    assert_eq!(answer.header("retry-after"), Some(seconds.to_string().as_str()));
    assert!(answer.header("botmesh-denied").is_some());
    let problem = answer.json();
    assert_eq!(
        (&problem["rule"], &problem["retry_after"], &problem["status"]),
        (&Value::from(limit), &Value::from(seconds), &Value::from(429))
    );
}

const LIMITS: &str = "limits:\n\
    \x20 - {id: orders-budget, from: prod/checkout, to: prod/orders, rate: 6/m, burst: 3}\n\
    \x20 - {id: stock-budget, from: prod/**, to: prod/stock, rate: 1/s, burst: 2}\n\
    audit_only: [{to: prod/orders, until: 2099-01-01T00:00:00Z, reason: limited like others}]\n";

#[test]
fn a_limit_is_counted_once_at_the_callees_end_and_no_apply_refills_it() {
    if !root_or_skip("limits") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
    let hand = Hand::new(dir.path());
    let mesh = two_hosts_at(&hand);
    apply_with(&mesh, LIMITS);
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let mut get = || checkout.call("GET", ORDERS, "/orders/17");
    assert_eq!([get().status, get().status], [200, 200]);
    let tested = ok(botmesh().args(["policy", "test"]).arg(mesh.mesh_file()));
    assert!(tested.contains("2 passed, 0 failed"), "{tested}");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let audit = checkout.call("DELETE", ORDERS, "/orders/17");
    assert_eq!(audit.status, 200, "{}", audit.body);
    let mut get = || checkout.call("GET", ORDERS, "/orders/17");
    let refusal = get();
    limited(&refusal, "orders-budget", 10);

    // The caller's end let it go; the callee's is the one that refused.
    let [out, within] = both_ends(&mesh, &refusal);
    assert_eq!(
        (&out["verdict"], &out["rule"]),
        (&Value::from("allow"), &Value::from("checkout-reads-orders"))
    );
    assert_eq!(
        (&within["verdict"], &within["rule"], &within["reason"]),
        (
            &Value::from("deny"),
            &Value::from("orders-budget"),
            &Value::from("rate_limited")
        )
    );
    let metrics = metrics(&mesh, "web-2");
    assert!(
        metrics.contains("botmesh_denied_total{reason=\"rate_limited\"} 1"),
        "{metrics}"
    );
    let counted = metrics.lines().find(|line| line.contains("rule=\"orders-budget\""));
    let counted = counted.unwrap_or_else(|| panic!("{metrics}"));
    assert!(
        counted.contains("verdict=\"deny\"") && counted.ends_with(" 1"),
        "{counted}"
    );

    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    mesh.apply(&text.replace("GET /orders/*", "GET /orders/*, GET /more"));
    limited(&get(), "orders-budget", 10);
    hand.forward(Duration::from_secs(10));
    eventually("one call to be given back", || (get().status == 200).then_some(()));
    limited(&get(), "orders-budget", 10);

    let told = ok(botmesh()
        .args(["policy", "explain", "prod/checkout", "prod/orders", "GET /orders/17"])
        .args(["--server", &mesh.server()]));
    assert!(
        told.contains("orders-budget") && told.contains("6/m, 3 at once"),
        "{told}"
    );
}

#[test]
fn a_limit_on_one_host_is_counted_once_though_the_proxy_is_both_ends() {
    if !root_or_skip("limits on one host") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
    let hand = Hand::new(dir.path());
    let mesh = two_hosts_at(&hand);
    apply_with(&mesh, LIMITS);
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let mut get = || checkout.call("GET", "stock.prod.mesh", "/stock/4");
    assert_eq!([get().status, get().status], [200, 200]);
    limited(&get(), "stock-budget", 1);
    let records = mesh.host("web-1").query("kind=call to=prod/stock");
    let of = |direction: &str, verdict: &str| {
        records
            .iter()
            .filter(|record| record["direction"] == direction && record["verdict"] == verdict)
            .count()
    };
    assert_eq!(
        [
            of("out", "allow"),
            of("in", "allow"),
            of("in", "deny"),
            of("out", "deny")
        ],
        [3, 2, 1, 0],
        "{records:?}"
    );
    let metrics = metrics(&mesh, "web-1");
    assert!(
        metrics.contains("botmesh_denied_total{reason=\"rate_limited\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("rule=\"stock-budget\",to=\"prod/stock\",verdict=\"deny\"} 1"),
        "{metrics}"
    );
}
