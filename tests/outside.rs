//! Destinations outside of the mesh: what leaves, to which address, to whom, and what never does.

mod bounds;
mod clients;
pub(crate) mod scene;
mod tls;

use serde_json::{Value, json};

use crate::spine::CHECKOUT;
use crate::support::{Answer, Caller, both, botmesh, eventually, http_get, ok, planted, root_or_skip, run};
use scene::Scene;

/// What most of these tests' rules are about.
const API: &str = r#"id: api, from: prod/checkout, to: "https://api.example.com", http: [GET /v1/*, POST /v1/*, GET /redirect, GET /once]"#;
const PLAIN: &str =
    r#"id: plain, from: [prod/checkout, prod/report], to: "http://plain.example.com", http: ["GET /**"]"#;
const API_HERE: &str = r#""https://api.example.com": {addresses: [HERE], ca: CA}"#;
const PLAIN_HERE: &str = r#""http://plain.example.com": {addresses: [HERE]}"#;

fn refused(answer: &Answer, reason: &str, detail: &str) {
    let told = answer.json();
    assert_eq!(told["reason"], reason, "{told}");
    let text = told["detail"].as_str().unwrap_or_default();
    assert!(text.contains(detail), "{told}");
}

#[test]
fn a_request_leaves_over_verified_tls_with_nothing_of_the_mesh_and_is_recorded() {
    if !root_or_skip("requests to the outside") {
        return;
    }
    let scene = Scene::new(r#"{listen: "127.0.0.1:0", to: "https://api.example.com"}"#);
    let api = scene.tls(443, &["api.example.com"]);
    scene.names(&[(&scene.address, "api.example.com plain.example.com")]);
    scene.apply(&[API, PLAIN], &[API_HERE, PLAIN_HERE], "");
    let listener = scene.listener("https://api.example.com");
    let ways = [
        (scene.host().bot_socket(), "api.example.com", "/v1/a?key=secret"),
        (
            scene.host().bot_tcp(),
            "api.example.com",
            "http://api.example.com/v1/a?key=secret",
        ),
        (scene.host().bot_tcp(), "api.example.com:443", "/v1/a?key=secret"),
        (listener.clone(), &listener, "/v1/a?key=secret"),
        (listener.clone(), "api.example.com", "/v1/a?key=secret"),
    ];
    for (at, host, target) in &ways {
        leaves(at, host, target);
    }
    assert_eq!(api.said("request"), ways.len());
    is_recorded(&scene, ways.len());
    let series = r#"direction="out",from="prod/checkout",rule="api",to="https://api.example.com",verdict="allow"} 5"#;
    eventually(series, || {
        let (_, metrics) = http_get(scene.host().ports.metrics, "/metrics")?;
        metrics.lines().any(|line| line.ends_with(series)).then_some(())
    });
}

/// A request whose head has all that must not leave, and how it came to the server.
fn leaves(at: &str, host: &str, target: &str) {
    let answer = Caller::new(CHECKOUT, at).call_with(
        "GET",
        host,
        target,
        &[
            ("Authorization", "Bearer of-the-bot"),
            ("Proxy-Authorization", "Basic for-the-proxy"),
            ("Referer", "http://orders.prod.mesh/orders/17"),
            ("X-Botmesh-Caller", "forged"),
            ("X_Forwarded_Client_Cert", "forged"),
            ("Cookie", "a=b"),
        ],
    );
    assert_eq!(answer.status, 200, "{at} {host}: {}", answer.body);
    let told = answer.json();
    assert_eq!(told["target"], "/v1/a?key=secret");
    let headers = json!([
        ["authorization", "Bearer of-the-bot"],
        ["cookie", "a=b"],
        ["host", "api.example.com"],
        ["x-planted", planted::HEADER]
    ]);
    assert_eq!(sorted(&told["headers"]), headers, "{at} {host}");
    assert!(answer.header("botmesh-denied").is_none() && answer.header("x-botmesh-caller").is_none());
    assert!(answer.header("botmesh-call").is_some_and(|id| id != "forged"));
}

/// Each of so many calls has one record and one end.
fn is_recorded(scene: &Scene, count: usize) {
    let calls = scene.host().query("kind=call");
    assert_eq!(calls.len(), count, "the ledger has each once: nobody else decides");
    for call in &calls {
        assert_eq!(call["to"], json!({"outside": "https://api.example.com"}), "{call}");
        assert_eq!(
            (&call["rule"], &call["hop"]),
            (&"api".into(), &"outside".into()),
            "{call}"
        );
        assert_eq!((&call["method"], &call["path"]), (&"GET".into(), &"/v1/a".into()));
        assert_eq!(call["query"], json!(["key"]));
        let end = scene.end_of(call);
        assert_eq!(end["address"], format!("{}:443", scene.address), "{end}");
        assert_eq!(
            (&end["status"], &end["outcome"]),
            (&200.into(), &"done".into()),
            "{end}"
        );
    }
}

/// Names in lower case, in order.
fn sorted(headers: &Value) -> Value {
    let pairs = headers.as_array().expect("headers").iter();
    let mut pairs: Vec<[String; 2]> = pairs
        .map(|pair| {
            [
                pair[0].as_str().unwrap().to_ascii_lowercase(),
                pair[1].as_str().unwrap().to_owned(),
            ]
        })
        .collect();
    pairs.sort();
    json!(pairs)
}

#[test]
fn a_connection_is_used_again_by_the_same_bot_and_by_no_other() {
    if !root_or_skip("connections to the outside") {
        return;
    }
    let scene = Scene::new("");
    let server = scene.plain(&scene.address, 80);
    scene.names(&[(&scene.address, "plain.example.com")]);
    scene.apply(&[PLAIN], &[PLAIN_HERE], "");
    let (mut checkout, mut report) = (scene.checkout(), scene.report());
    let connection = |caller: &mut Caller, path: &str| {
        let answer = caller.call("GET", "plain.example.com", path);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["connection"].as_u64().expect("a number")
    };
    assert_eq!(connection(&mut checkout, "/a"), 1);
    assert_eq!(connection(&mut checkout, "/b"), 1);
    assert_eq!(connection(&mut report, "/c"), 2, "another bot has another connection");
    assert_eq!(
        connection(&mut scene.checkout(), "/d"),
        1,
        "the same bot, another process"
    );
    // The server ends it without a word; the next call finds out and is made all the same.
    assert_eq!(connection(&mut checkout, "/once"), 1);
    eventually("the connection to end", || (server.said("end 1") == 1).then_some(()));
    assert_eq!(connection(&mut checkout, "/e"), 3);
    // It is of this address. One that the mesh does not allow any more is not used, open or not.
    scene.apply(
        &[PLAIN],
        &[r#""http://plain.example.com": {addresses: [10.0.0.0/8]}"#],
        "",
    );
    refused(
        &checkout.call("GET", "plain.example.com", "/f"),
        "outside_forbidden",
        "address",
    );
    assert_eq!(server.said("request"), 6);
}

#[test]
fn what_no_rule_allows_does_not_leave_and_is_not_even_resolved() {
    if !root_or_skip("rules to the outside") {
        return;
    }
    let scene = Scene::new("");
    let server = scene.tls(443, &["api.example.com"]);
    scene.names(&[(&scene.address, "api.example.com other.example.com")]);
    let deny = r#"deny:
  - {id: never, from: "**", to: "https://api.example.com", http: ["* /v1/admin"], reason: people only}
limits:
  - {id: slowly, from: prod/checkout, to: "https://api.example.com", rate: 1/h, burst: 2}
"#;
    scene.apply(&[API], &[API_HERE], deny);
    let (mut checkout, mut report) = (scene.checkout(), scene.report());
    for (host, path, reason, detail) in [
        ("other.example.com", "/v1/a", "outside_forbidden", "no rule"),
        ("api.example.com:8443", "/v1/a", "outside_forbidden", "no rule"),
        ("api.example.com", "/v2/a", "no_rule", "api"),
        ("api.example.com", "/v1/admin", "denied_by_rule", "people only"),
        ("api.example.com", "/v1/../v2", "bad_path", ""),
        ("169.254.169.254", "/latest/meta-data/", "outside_forbidden", ""),
        (&scene.address, "/v1/a", "outside_forbidden", ""),
    ] {
        refused(&checkout.call("GET", host, path), reason, detail);
    }
    let browser = checkout.call_with("GET", "api.example.com", "/v1/a", &[("Origin", "https://evil.example")]);
    refused(&browser, "browser_refused", "");
    refused(
        &report.call("GET", "api.example.com", "/v1/a"),
        "outside_forbidden",
        "no rule",
    );
    let mut connect = |authority: &str| {
        let raw = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        checkout.order(&json!({"raw": raw})).expect("an answer")
    };
    refused(
        &connect("api.example.com:443"),
        "outside_forbidden",
        "call http://api.example.com/",
    );
    refused(&connect("other.example.com:443"), "outside_forbidden", "no rule");
    refused(&connect("10.0.0.1:443"), "outside_forbidden", "no rule");
    let raw = "CONNECT api.example.com:80 HTTP/1.1\r\nHost: api.example.com:80\r\n\r\n";
    let another = report.order(&json!({"raw": raw})).expect("an answer");
    refused(&another, "outside_forbidden", "no rule");
    // Two calls are admitted in an hour, and what was refused has not counted.
    for expected in [200, 200, 429] {
        let answer = checkout.call("GET", "api.example.com", "/v1/a");
        assert_eq!(answer.status, expected, "{}", answer.body);
        assert_eq!(answer.header("retry-after").is_some(), expected == 429);
    }
    assert_eq!(server.said("request"), 2);
    let refusals = scene.host().query("verdict=deny to=https://api.example.com");
    assert!(
        refusals
            .iter()
            .any(|call| call["rule"] == "slowly" && call["reason"] == "rate_limited"),
        "{refusals:?}"
    );
    assert!(refusals.iter().any(|call| call["nearest"] == "api"), "{refusals:?}");
}

#[test]
fn a_name_leads_to_no_address_inside_however_it_is_written_and_whenever_it_changes() {
    if !root_or_skip("addresses of the outside") {
        return;
    }
    let scene = Scene::new("");
    let inside = scene.plain("127.0.0.1", crate::support::free_port());
    let listed = scene.plain(&scene.address, 80);
    let public = r#"id: public, from: prod/checkout, to: "http://public.example.com", http: ["GET /**"]"#;
    let credentials =
        r#"id: credentials, from: prod/checkout, to: "http://credentials.example.com", http: ["GET /**"]"#;
    let anywhere = r#""http://credentials.example.com": {addresses: [0.0.0.0/0, "::/0"]}"#;
    scene.apply(&[PLAIN, public, credentials], &[PLAIN_HERE, anywhere], "");
    let mut checkout = scene.checkout();
    let mut call = |name: &str, at: &[&str]| {
        let lines: Vec<_> = at.iter().map(|at| (*at, name)).collect();
        scene.names(&lines);
        checkout.call("GET", name, "/redirect")
    };
    for at in [
        &scene.address,
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::1",
        "0.0.0.0",
    ] {
        refused(&call("public.example.com", &[at]), "outside_forbidden", "address");
    }
    for at in [
        "169.254.169.254",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "100.100.100.200",
    ] {
        refused(&call("credentials.example.com", &[at]), "outside_forbidden", "address");
    }
    let ends = eventually("the ends of all of them", || {
        Some(scene.ended("outside_forbidden")).filter(|ends| ends.len() == 21)
    });
    assert!(
        ends.iter().all(|end| end["address"].is_null()),
        "none was connected to: {ends:?}"
    );
    assert!(
        scene.host().process.log().contains("169.254.169.254"),
        "the operator reads which address it was"
    );
    assert_eq!(inside.said("connection") + listed.said("connection"), 0);
}

#[test]
fn a_redirect_is_the_bots_to_follow_and_a_name_that_turns_leads_nowhere_else() {
    if !root_or_skip("redirects and names that turn") {
        return;
    }
    let scene = Scene::new("");
    let port = crate::support::free_port();
    let (inside, listed) = (scene.plain("127.0.0.1", port), scene.plain(&scene.address, port));
    let name = format!("plain.example.com:{port}");
    let rules = [
        &format!(r#"id: plain, from: prod/checkout, to: "http://{name}", http: ["GET /**"]"#),
        r#"id: credentials, from: prod/checkout, to: "http://credentials.example.com", http: ["GET /**"]"#,
    ];
    let here = format!(r#""http://{name}": {{addresses: [HERE]}}"#);
    scene.apply(
        &rules,
        &[
            &here,
            r#""http://credentials.example.com": {addresses: [0.0.0.0/0, "::/0"]}"#,
        ],
        "",
    );
    let mut checkout = scene.checkout();
    let at = |lines: &[&str]| {
        let mut all: Vec<_> = lines.iter().map(|at| (*at, "plain.example.com")).collect();
        all.push(("169.254.169.254", "credentials.example.com"));
        scene.names(&all);
    };
    at(&[&scene.address]);
    let answer = checkout.call("GET", &name, "/redirect");
    assert_eq!(answer.status, 302, "{}", answer.body);
    assert_eq!(
        answer.header("location"),
        Some("http://credentials.example.com/latest/meta-data/")
    );
    let followed = checkout.call("GET", "credentials.example.com", "/latest/meta-data/");
    refused(&followed, "outside_forbidden", "address");
    // The connection that is there leads where it led; the next one is looked up and judged anew.
    at(&["127.0.0.1"]);
    assert_eq!(checkout.call("GET", &name, "/once").status, 200);
    eventually("the connection to end", || (listed.said("end 1") == 1).then_some(()));
    refused(&checkout.call("GET", &name, "/a"), "outside_forbidden", "address");
    // Of two answers at once the one that is allowed is called.
    at(&["127.0.0.1", "::ffff:127.0.0.1", &scene.address]);
    assert_eq!(checkout.call("GET", &name, "/b").status, 200);
    assert_eq!(inside.said("connection"), 0, "{}", inside.log());
    assert_eq!(listed.said("request"), 3);
}

#[test]
fn whoever_does_not_prove_to_be_the_destination_hears_no_request() {
    if !root_or_skip("certificates of the outside") {
        return;
    }
    let scene = Scene::new("");
    let servers = [
        scene.tls(443, &["api.example.com"]),
        scene.tls_until(8443, &["old.example.com"], 2020),
    ];
    // Takes connections and says nothing. One that reads HTTP would find the end of a line in some greetings, and hang up.
    let _silent = std::net::TcpListener::bind((scene.address.as_str(), 8080)).unwrap();
    let names = "other.example.com old.example.com unknown.example.com plain.example.com nobody.example.com";
    scene.names(&[(&scene.address, names)]);
    let all = [
        ("https://other.example.com", true),
        ("https://old.example.com:8443", true),
        ("https://unknown.example.com", false),
        ("https://plain.example.com:8080", true),
        ("https://nobody.example.com:9", true),
    ];
    let rules: Vec<String> = all
        .iter()
        .enumerate()
        .map(|(number, (to, _))| format!("id: r{number}, from: prod/checkout, to: \"{to}\", http: [GET /a]"))
        .collect();
    let said: Vec<String> = all
        .iter()
        .map(|(to, ca)| {
            format!(
                "\"{to}\": {{addresses: [HERE], max_failures: 0, connect_timeout: 500ms{}}}",
                if *ca { ", ca: CA" } else { "" }
            )
        })
        .collect();
    let (rules, said): (Vec<_>, Vec<_>) = (
        rules.iter().map(String::as_str).collect(),
        said.iter().map(String::as_str).collect(),
    );
    scene.apply(&rules, &said, "");
    let mut checkout = scene.checkout();
    for (host, reason, detail) in [
        ("other.example.com", "peer_mismatch", "of another name"),
        ("old.example.com:8443", "peer_mismatch", "has expired"),
        ("unknown.example.com", "peer_mismatch", "no authority"),
        ("plain.example.com:8080", "timeout", "in time"),
        ("nobody.example.com:9", "peer_unreachable", "nobody answers"),
    ] {
        let answer = checkout.call("GET", host, "/a");
        refused(&answer, reason, detail);
        assert_eq!(answer.status, if reason == "timeout" { 504 } else { 502 }, "{host}");
    }
    for server in &servers {
        assert_eq!(server.said("request"), 0, "{}", server.log());
    }
    eventually("the ends of three of them", || {
        (scene.ended("peer_mismatch").len() == 3).then_some(())
    });
}

#[test]
fn explain_and_the_ledger_speak_of_destinations_as_rules_do() {
    if !root_or_skip("explaining calls to the outside") {
        return;
    }
    let scene = Scene::new("");
    scene.names(&[(&scene.address, "api.example.com")]);
    let _api = scene.tls(443, &["api.example.com"]);
    scene.apply(&[API], &[API_HERE], "");
    assert_eq!(scene.checkout().call("GET", "api.example.com", "/v1/a").status, 200);
    // Both directions are long enough to fill every buffer on the way.
    let big = "x".repeat(400_000);
    let order = json!({"method": "POST", "target": "/v1/big", "headers": [["Host", "api.example.com"]], "body": big});
    let answer = scene.checkout().order(&order).expect("an answer");
    assert_eq!(answer.json()["body"], big);
    let explain = |call: &str| {
        let mut command = botmesh();
        command
            .args([
                "policy",
                "explain",
                "prod/checkout",
                "https://api.example.com",
                call,
                "-o",
                "json",
            ])
            .args(["--server", &scene.mesh.server()]);
        let out = run(&mut command);
        serde_json::from_slice::<Value>(&out.stdout).unwrap_or_else(|error| panic!("{error}: {}", both(&out)))
    };
    println!("{}", explain("GET /v1/a"));
    assert_eq!(explain("GET /v1/a")["verdict"], "allow");
    assert_eq!(explain("DELETE /v1/a")["verdict"], "deny");
    // The whole mesh is told too: who was called, and what was refused.
    refused(
        &scene.checkout().call("PUT", "api.example.com", "/v1/a"),
        "no_rule",
        "api",
    );
    let told = |words: &[&str]| ok(botmesh().args(words).args(["--server", &scene.mesh.server()]));
    eventually("the calls at the CA", || {
        let told = told(&["bot", "show", "prod/checkout"]);
        (told.contains("https://api.example.com  2×  api") && told.contains("no_rule")).then_some(())
    });
    let status = told(&["status"]);
    let fix = r#"{id: NEW-ID, from: prod/checkout, to: "https://api.example.com", http: [PUT /v1/a]}"#;
    assert!(status.contains(fix), "{status}");
    let found = scene
        .host()
        .query("to=https://api.example.com verdict=allow from=prod/checkout");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(scene.host().verify().status.success());
}
