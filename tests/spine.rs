//! Two hosts, real users, every call over a real mutual-TLS hop: what is allowed, what is refused, and what the ledgers say.

use serde_json::Value;

use crate::support::hand::Hand;
use crate::support::{Caller, Mesh, Setup, both, botmesh, free_port, ok, root_or_skip, run};

pub(crate) const CHECKOUT: u32 = 61_001;
pub(crate) const ORDERS: u32 = 61_002;
pub(crate) const REPORT: u32 = 61_003;
pub(crate) const LOCAL: u32 = 61_004;
pub(crate) const NOBODY: u32 = 61_099;

/// `prod/checkout` and `prod/report` live on web-1, `prod/orders` on web-2; `prod/stock` shares web-1 with its callers.
pub(crate) fn mesh_file(orders: u16, stock: &str) -> String {
    format!(
        r#"version: 1
trust_domain: acme.internal
bots:
  prod/checkout: {{owner: shop@acme.internal, hosts: [web-1], attest: {{uid: {CHECKOUT}}}}}
  prod/report: {{owner: shop@acme.internal, hosts: [web-1], attest: {{uid: {REPORT}}}}}
  prod/orders: {{owner: shop@acme.internal, hosts: [web-2], attest: {{uid: {ORDERS}}}, serve: {{http: {orders}}}}}
  prod/stock: {{owner: shop@acme.internal, hosts: [web-1], attest: {{uid: {LOCAL}}}, serve: {{http: "{stock}"}}}}
allow:
  - {{id: checkout-reads-orders, from: prod/checkout, to: prod/orders, http: [GET /orders/*, POST /refunds, GET /admin/keys]}}
  - {{id: checkout-reads-stock, from: prod/checkout, to: prod/stock, http: [GET /stock/*]}}
  - {{id: report-last-year, from: prod/report, to: prod/orders, http: [GET /years/*], until: 2020-01-01T00:00:00Z, reason: closing of the books}}
deny:
  - {{id: nobody-touches-admin, from: "**", to: prod/**, http: ["* /admin/**"], reason: admin API is for people only}}
tests:
  - {{name: one order, from: prod/checkout, to: prod/orders, allow: [GET /orders/17], deny: [DELETE /orders/17, GET /admin/keys]}}
"#
    )
}

/// A mesh of two hosts with its callees running.
pub(crate) fn two_hosts(extra: &str) -> Mesh {
    with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        extra,
        ..Setup::default()
    })
}

/// The same with eighteen hosts more, on which nothing runs, by the clock of a test.
pub(crate) fn twenty_hosts_at(hand: &Hand) -> Mesh {
    let names: Vec<String> = (1..=20).map(|n| format!("web-{n}")).collect();
    with_callees(&Setup {
        hosts: &names.iter().map(String::as_str).collect::<Vec<_>>(),
        clock: Some(hand.path()),
        alone: true,
        ..Setup::default()
    })
}

/// The same, by the clock of a test.
pub(crate) fn two_hosts_at(hand: &Hand) -> Mesh {
    with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        clock: Some(hand.path()),
        ..Setup::default()
    })
}

/// The same, with what else a test wants.
pub(crate) fn with_callees(setup: &Setup<'_>) -> Mesh {
    let mut mesh = Mesh::start(setup);
    let orders = free_port();
    let stock_dir = mesh.dir().join("stock");
    crate::support::socket_folder(&stock_dir, LOCAL);
    let stock = format!("unix:{}", stock_dir.join("stock.sock").display());
    mesh.callee(ORDERS, &orders.to_string());
    mesh.callee(LOCAL, &stock);
    mesh.apply(&mesh_file(orders, &stock));
    mesh
}

#[test]
fn a_call_across_two_hosts_is_allowed_named_and_recorded_at_both_ends() {
    if !root_or_skip("a call across two hosts") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let answer = checkout.call("GET", "orders.prod.mesh", "/orders/17?page=2");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["path"], "/orders/17?page=2");
    assert_eq!(answer.json()["uid"], ORDERS);
    assert_eq!(
        answer.callee_saw("x-botmesh-caller"),
        ["spiffe://acme.internal/prod/checkout"]
    );
    let id = answer
        .header("botmesh-call")
        .expect("every answer names its call")
        .to_owned();

    let out = mesh.host("web-1").query(&format!("id={id}"));
    let call = out.iter().find(|r| r["kind"] == "call").expect("the caller's record");
    assert_eq!(call["from"]["id"], "spiffe://acme.internal/prod/checkout");
    assert_eq!(call["from"]["uid"], CHECKOUT);
    assert_eq!(call["to"]["id"], "spiffe://acme.internal/prod/orders");
    assert_eq!(
        (&call["method"], &call["path"]),
        (&Value::from("GET"), &Value::from("/orders/17"))
    );
    assert_eq!(call["query"], serde_json::json!(["page"]));
    assert_eq!(
        (&call["verdict"], &call["rule"]),
        (&Value::from("allow"), &Value::from("checkout-reads-orders"))
    );
    assert_eq!(call["hop"], "mtls");

    let inbound = mesh.host("web-2").query("direction=in verdict=allow");
    let paired: Vec<_> = inbound.iter().filter(|r| r["peer_call"] == id.as_str()).collect();
    assert_eq!(
        paired.len(),
        1,
        "the callee's end names the caller's call once: {inbound:?}"
    );
    assert_ne!(
        paired[0]["id"],
        id.as_str(),
        "the callee's proxy mints an id of its own"
    );
    assert!(
        !serde_json::to_string(&(out, inbound)).expect("json").contains("page=2"),
        "no query value is recorded"
    );
}

#[test]
fn a_call_on_one_host_is_decided_and_recorded_twice_and_never_encrypted() {
    if !root_or_skip("a call on one host") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_tcp());
    let answer = checkout.call("GET", "stock.prod.mesh", "/stock/4");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let records = mesh.host("web-1").query("to=prod/stock verdict=allow kind=call");
    let directions: Vec<_> = records
        .iter()
        .map(|r| (r["direction"].as_str(), r["hop"].as_str()))
        .collect();
    assert!(directions.contains(&(Some("out"), Some("local"))), "{records:?}");
    assert!(directions.contains(&(Some("in"), Some("local"))), "{records:?}");
}

#[test]
fn what_no_rule_allows_is_refused_with_the_nearest_rule_and_what_differed() {
    if !root_or_skip("no_rule") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let answer = checkout.call("DELETE", "orders.prod.mesh", "/orders/17");
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (403, "no_rule"),
        "{}",
        answer.body
    );
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("botmesh-denied"), answer.header("botmesh-call"));
    assert_eq!(
        answer.json()["nearest"]["rule"],
        "checkout-reads-orders",
        "{}",
        answer.body
    );
    assert!(answer.body.contains("method"), "{}", answer.body);
    let denied = mesh.host("web-1").query("verdict=deny from=prod/*");
    assert_eq!(denied.len(), 1, "a refusal is one record: {denied:?}");
    assert_eq!(denied[0]["nearest"], "checkout-reads-orders");
    assert!(
        mesh.host("web-2").query("kind=call").is_empty(),
        "nothing left the host"
    );
}

#[test]
fn deny_wins_over_allow_whatever_the_case_of_the_path() {
    if !root_or_skip("deny wins") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    for path in ["/admin/keys", "/ADMIN/keys", "/admin", "/%61dmin/keys"] {
        let answer = checkout.call("GET", "orders.prod.mesh", path);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (403, "denied_by_rule"),
            "{path}: {}",
            answer.body
        );
        assert_eq!(answer.json()["rule"], "nobody-touches-admin", "{path}");
    }
}

#[test]
fn an_expired_rule_says_so() {
    if !root_or_skip("expired rule") {
        return;
    }
    let mesh = two_hosts("");
    let mut report = Caller::new(REPORT, &mesh.host("web-1").bot_socket());
    let answer = report.call("GET", "orders.prod.mesh", "/years/2019");
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (403, "rule_expired"),
        "{}",
        answer.body
    );
}

#[test]
fn a_name_that_no_rule_links_the_caller_to_is_not_told_from_one_that_does_not_exist() {
    if !root_or_skip("no_such_bot") {
        return;
    }
    let mesh = two_hosts("");
    let mut report = Caller::new(REPORT, &mesh.host("web-1").bot_socket());
    for host in ["stock.prod.mesh", "ghost.prod.mesh"] {
        let answer = report.call("GET", host, "/");
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (403, "no_rule"),
            "{host}: {}",
            answer.body
        );
    }
}

#[test]
fn a_process_that_no_entry_names_is_nobody() {
    if !root_or_skip("unknown caller") {
        return;
    }
    let mesh = two_hosts("");
    for way in [mesh.host("web-1").bot_socket(), mesh.host("web-1").bot_tcp()] {
        let answer = Caller::new(NOBODY, &way).call("GET", "orders.prod.mesh", "/orders/17");
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (403, "unknown_caller"),
            "{way}: {}",
            answer.body
        );
    }
}

#[test]
fn identity_headers_of_a_bot_never_reach_the_callee() {
    if !root_or_skip("identity headers") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let forged = "spiffe://acme.internal/prod/admin";
    let headers = [
        ("x-botmesh-caller", forged),
        ("X-BOTMESH-CALLER", forged),
        ("X_Botmesh_Caller", forged),
        ("x-botmesh_caller", forged),
        ("X-Forwarded-Client-Cert", "URI=spiffe://acme.internal/prod/admin"),
        ("x_forwarded_client_cert", "URI=spiffe://acme.internal/prod/admin"),
        ("Botmesh-Call", "forged"),
        ("Connection", "x-botmesh-caller, keep-alive"),
    ];
    for host in ["orders.prod.mesh", "stock.prod.mesh"] {
        let path = if host.starts_with("orders") {
            "/orders/17"
        } else {
            "/stock/4"
        };
        let answer = checkout.call_with("GET", host, path, &headers);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(
            answer.callee_saw("x-botmesh-caller"),
            ["spiffe://acme.internal/prod/checkout"],
            "{host}"
        );
        assert!(!answer.body.contains("prod/admin"), "{host}: {}", answer.body);
        assert!(!answer.body.contains("forged"), "{host}: {}", answer.body);
        let xfcc = answer.callee_saw("x-forwarded-client-cert");
        assert_eq!(xfcc.len(), 1, "{host}");
        assert!(
            xfcc[0].contains("URI=spiffe://acme.internal/prod/checkout"),
            "{host}: {xfcc:?}"
        );
    }
}

#[test]
fn a_path_that_two_readers_could_read_differently_is_refused() {
    if !root_or_skip("path tricks") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    for path in [
        "/orders/../admin/keys",
        "/orders/%2e%2e/admin/keys",
        "/orders//17",
        "/orders%2f17",
        "/orders/17%00",
        "/orders/%252e%252e",
        "/orders\\17",
        "/orders/17;a=b",
        "/orders/%zz",
        "/orders/17#x",
    ] {
        let answer = checkout.call("GET", "orders.prod.mesh", path);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (400, "bad_path"),
            "{path}: {}",
            answer.body
        );
    }
}

#[test]
fn a_browser_shaped_call_is_refused() {
    if !root_or_skip("browser") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_tcp());
    for header in [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
        let answer = checkout.call_with("GET", "orders.prod.mesh", "/orders/17", &[header]);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (403, "browser_refused"),
            "{header:?}: {}",
            answer.body
        );
    }
}

#[test]
fn smuggled_and_malformed_requests_are_refused_and_reach_nobody() {
    if !root_or_skip("smuggling") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_tcp());
    let h = "GET /orders/1 HTTP/1.1\r\n";
    let o = "Host: orders.prod.mesh\r\n";
    for raw in [
        format!("POST /refunds HTTP/1.1\r\n{o}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x"),
        format!("POST /refunds HTTP/1.1\r\n{o}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        format!("POST /refunds HTTP/1.1\r\n{o}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("{h}{o}Host: admin.prod.mesh\r\n\r\n"),
        format!("{h}\r\n"),
        format!("{h}Host : orders.prod.mesh\r\n\r\n"),
        format!("GET /orders/1 HTTP/1.1\n{o}\n"),
        format!("GET http://admin.prod.mesh/orders/1 HTTP/1.1\r\n{o}\r\n"),
        format!("{h}{o}X: a\r\n b\r\n\r\n"),
        format!("get /orders/1 HTTP/1.1\r\n{o}\r\n"),
    ] {
        let answer = checkout
            .order(&serde_json::json!({"raw": raw}))
            .unwrap_or_else(|e| panic!("{raw:?}: {e}"));
        assert_eq!(answer.status, 400, "{raw:?}: {}", answer.body);
    }
    assert!(mesh.host("web-2").query("kind=call").is_empty());
}

#[test]
fn a_request_body_and_its_answer_cross_the_hop_whole() {
    if !root_or_skip("bodies") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let body = "refund ".repeat(40_000);
    let answer = checkout
        .order(&serde_json::json!({"method": "POST", "target": "/refunds", "headers": [["Host", "orders.prod.mesh"]], "body": body}))
        .expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["body"], body.as_str());
    let chunked = "POST /refunds HTTP/1.1\r\nHost: orders.prod.mesh\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let answer = checkout.order(&serde_json::json!({"raw": chunked})).expect("an answer");
    assert_eq!(answer.json()["body"], "hello world", "{}", answer.body);
}

#[test]
fn the_ledgers_of_both_hosts_and_the_ca_verify_and_one_flipped_byte_does_not() {
    if !root_or_skip("ledgers verify") {
        return;
    }
    let mut mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    for n in 0..20 {
        checkout.call("GET", "orders.prod.mesh", &format!("/orders/{n}"));
    }
    drop(checkout);
    for host in mesh.hosts.values_mut() {
        assert!(
            host.process.terminate().success(),
            "a proxy ends well on SIGTERM: {}",
            host.process.log()
        );
    }
    assert!(mesh.ca.terminate().success(), "{}", mesh.ca.log());
    for host in mesh.hosts.values() {
        let out = host.verify();
        assert!(out.status.success(), "{}", both(&out));
    }
    ok(botmesh().args(["audit", "verify"]).arg(mesh.ca_ledger()));

    let segments = mesh.host("web-1").ledger().join("segments");
    let segment = std::fs::read_dir(segments)
        .expect("segments")
        .next()
        .expect("one")
        .expect("entry")
        .path();
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let out = mesh.host("web-1").verify();
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    assert!(both(&out).contains("record"), "it names the record: {}", both(&out));
}

#[test]
fn apply_is_whole_or_not_at_all() {
    if !root_or_skip("apply") {
        return;
    }
    let mesh = two_hosts("");
    let good = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());

    let failing = good.replace("allow: [GET /orders/17]", "allow: [GET /orders/17, PUT /orders/17]");
    let out = mesh.try_apply(&failing);
    assert_eq!(out.status.code(), Some(1), "a failing test of the file: {}", both(&out));
    let broken = good.replace("hosts: [web-2]", "hosts: [web-2], hots: [x]");
    let out = mesh.try_apply(&broken);
    assert_eq!(out.status.code(), Some(3), "an invalid file: {}", both(&out));
    assert!(both(&out).contains("hots"), "{}", both(&out));
    assert_eq!(checkout.call("GET", "orders.prod.mesh", "/orders/17").status, 200);

    let narrower = good
        .replace(
            "http: [GET /orders/*, POST /refunds, GET /admin/keys]",
            "http: [POST /refunds]",
        )
        .replace("allow: [GET /orders/17], deny", "deny");
    let out = mesh.try_apply(&narrower);
    assert!(out.status.success(), "{}", both(&out));
    assert!(both(&out).contains("live on 2 of 2"), "{}", both(&out));
    assert_eq!(
        checkout.call("GET", "orders.prod.mesh", "/orders/17").reason(),
        "no_rule"
    );

    let out = run(botmesh().args(["rollback", "1", "--server", &mesh.server()]));
    assert!(out.status.success(), "{}", both(&out));
    assert_eq!(checkout.call("GET", "orders.prod.mesh", "/orders/17").status, 200);
}

#[test]
fn a_ca_that_dies_stops_no_call_and_comes_back_with_what_it_knew() {
    if !root_or_skip("the CA dies") {
        return;
    }
    let mut mesh = two_hosts("");
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    mesh.ca.kill();
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    assert_eq!(
        checkout.call("GET", "orders.prod.mesh", "/orders/17").status,
        200,
        "without the CA"
    );
    mesh.restart_ca();
    let out = crate::support::eventually("both hosts at the new CA", || {
        let out = mesh.try_apply(&text.replace("GET /orders/*", "GET /orders/*, GET /years/*"));
        both(&out).contains("live on 2 of 2").then_some(out)
    });
    assert!(out.status.success(), "{}", both(&out));
    assert_eq!(checkout.call("GET", "orders.prod.mesh", "/years/1").status, 200);
    let status = ok(botmesh().args(["ca", "status", "-o", "json", "--server", &mesh.server()]));
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert!(
        status["generation"]["revision"].as_u64() >= Some(2),
        "the revisions go on: {status}"
    );
}

#[test]
fn what_a_bot_reached_is_told_from_what_it_could_have() {
    if !root_or_skip("what a bot reached") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    for _ in 0..3 {
        assert_eq!(checkout.call("GET", "orders.prod.mesh", "/orders/17").status, 200);
    }
    checkout.call("DELETE", "orders.prod.mesh", "/orders/17");
    let blast = |format: &str| {
        let mut command = botmesh();
        command.args([
            "bot",
            "blast",
            "prod/checkout",
            "--server",
            &mesh.server(),
            "--since",
            "1h",
        ]);
        ok(command.args(["-o", format]).arg(mesh.host("web-1").ledger()))
    };
    let told: Value = serde_json::from_str(&blast("json")).expect("JSON");
    assert_eq!(told["reached"].as_array().expect("a list").len(), 1, "{told:#}");
    assert_eq!(
        (&told["reached"][0]["to"], &told["reached"][0]["calls"]["GET"]),
        (&"prod/orders".into(), &3.into())
    );
    assert_eq!(told["refused"]["prod/orders"]["no_rule"], 1);
    let could: Vec<&str> = told["could_reach"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|way| way["to"].as_str().expect("a name"))
        .collect();
    assert_eq!(could, ["prod/stock"], "{told:#}");
    let shown = blast("table");
    assert!(
        shown.contains("could have reached too") && shown.contains("prod/stock"),
        "{shown}"
    );
    let none = run(botmesh().args(["bot", "blast", "prod/nobody", "--server", &mesh.server()]));
    assert_eq!(none.status.code(), Some(1), "{}", both(&none));
}
