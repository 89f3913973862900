//! Addresses that are secrets: a bot calls a webhook by the name of its credential, and never learns where that leads.

use std::fs;

use serde_json::{Value, json};

use super::leaks::memory;
use super::scene::{nobody_wrote, none_in, readable, told, try_put};
use super::server::Server;
use crate::outside::scene::Scene;
use crate::support::{Answer, Caller, both, botmesh, eventually, ok, root_or_skip, run};

const HOST: &str = "slack-hook.botmesh.mesh";
const PATH: &str = "/services/T00000000/B00000000/q8Xz0Lm3Vb7Nc2Kd9Ts5Rw1Y";
const KEY: &str = "q8Xz0Lm3Vb7Nc2Kd9Ts5Rw1Y";
const NEXT: &str = "/services/T00000000/B00000000/w1Yq8Xz0Lm3Vb7Nc2Kd9Ts5R";

/// What nobody but the proxy and the service may know.
const SECRETS: [(&str, &str); 2] = [("the path", PATH), ("its last segment", KEY)];

const LISTENER: &str = r#"{listen: "127.0.0.1:0", to: "secret://slack-hook"}"#;

const CREDENTIALS: &str = r#"credentials:
  slack-hook: {url: "https://hooks.example.com", owner: cx@acme.internal, rotate_every: 90d}
"#;

const RULES: [&str; 3] = [
    r#"id: tell-ops, from: prod/checkout, to: "secret://slack-hook", http: [POST /]"#,
    r#"id: other, from: prod/checkout, to: "https://other.example.com", http: ["* /**"]"#,
    r#"id: same-host, from: [prod/checkout, prod/report], to: "https://hooks.example.com", http: ["* /**"]"#,
];

const DESTINATIONS: [&str; 3] = [
    r#""secret://slack-hook": {addresses: [HERE], ca: CA}"#,
    r#""https://other.example.com": {addresses: [HERE], ca: CA}"#,
    r#""https://hooks.example.com": {addresses: [HERE], ca: CA}"#,
];

fn address(path: &str) -> String {
    format!("https://hooks.example.com{path}")
}

/// A service whose webhook has an address of its own, and a mesh that may call it.
struct Hooks {
    scene: Scene,
    server: Server,
}

impl Hooks {
    fn start(config: &str) -> Self {
        let scene = Scene::with_config(LISTENER, config);
        let names = ["hooks.example.com", "other.example.com"];
        let pem = scene.certificate(443, &names);
        scene.names(&[(&scene.address, &names.join(" "))]);
        let script = include_str!("../support/service.py");
        let server = Server::python(script, &[&scene.address, "443", &pem]);
        let hooks = Self { scene, server };
        hooks.takes(PATH);
        hooks.scene.apply(&RULES, &DESTINATIONS, CREDENTIALS);
        hooks
    }

    /// The connections of the requests that came, in their order, by their first use.
    fn connections(&self) -> Vec<usize> {
        let log = self.server.log();
        let ports = log.lines().filter_map(|line| line.strip_prefix("connection "));
        let mut known = Vec::new();
        ports
            .map(|port| {
                known.iter().position(|found| found == &port).unwrap_or_else(|| {
                    known.push(port);
                    known.len() - 1
                })
            })
            .collect()
    }

    /// Has that be its webhook's path from now on.
    fn takes(&self, path: &str) {
        self.server.tell(&format!("webhook {path}"), "key webhook");
    }

    fn put(&self, value: &str) -> String {
        try_put(&self.scene, "slack-hook", value)
    }

    fn list(&self) -> Value {
        let admin = self.scene.host().admin();
        let out = run(botmesh().args(["secret", "list", "-o", "json", "--server", &admin]));
        none_in("secret list", both(&out).as_bytes(), &SECRETS);
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// The newest record of a call.
    fn last_call(&self) -> Value {
        self.scene.host().query("kind=call").pop().unwrap()
    }
}

fn post(bot: &mut Caller, host: &str, target: &str, body: &str) -> Answer {
    let headers = [["Host", host], ["Content-Type", "application/json"]];
    let order = json!({"method": "POST", "target": target, "headers": headers, "body": body});
    bot.order(&order).unwrap()
}

#[test]
fn a_bot_posts_to_a_webhook_by_its_name_and_the_record_has_no_more() {
    if !root_or_skip("credentials") {
        return;
    }
    let hooks = Hooks::start("");
    let told = hooks.put(&address(PATH));
    assert!(told.contains("ok slack-hook is on this host"), "{told}");
    let mut checkout = hooks.scene.checkout();
    let answer = post(&mut checkout, HOST, "/", r#"{"text": "hello"}"#);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["body"], r#"{"text": "hello"}"#);
    assert_eq!(
        hooks
            .server
            .said("webhook POST hooks.example.com application/json 17 True"),
        1,
        "{}",
        hooks.server.log()
    );
    let call = hooks.last_call();
    assert_eq!(
        (
            &call["to"]["outside"],
            &call["path"],
            &call["credential"],
            &call["rule"]
        ),
        (
            &json!("secret://slack-hook"),
            &json!("/"),
            &json!("slack-hook"),
            &json!("tell-ops")
        ),
        "{call}"
    );
}

#[test]
fn whatever_a_webhook_answers_the_bot_reads_nothing_of_its_address_and_nobody_writes_it_down() {
    if !root_or_skip("credentials") {
        return;
    }
    let hooks = Hooks::start("");
    hooks.put(&address(PATH));
    let (mut checkout, mut all) = (hooks.scene.checkout(), Vec::new());
    // The listener of its own, as a client has it that is given an address.
    let mut by_listener = Caller::new(crate::spine::CHECKOUT, &hooks.scene.listener("secret://slack-hook"));
    for body in ["echo", "error", "away", "forms"] {
        for bot in [&mut checkout, &mut by_listener] {
            let host = if body == "error" {
                HOST
            } else {
                "slack-hook.botmesh.mesh:80"
            };
            all.push(post(bot, host, "/", body));
        }
    }
    let statuses: Vec<_> = all.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 500, 500, 307, 307, 200, 200]);
    for answer in &all {
        let text = format!("{}{}", answer.head(), answer.body);
        none_in("an answer", text.as_bytes(), &SECRETS);
        assert!(text.contains("****************"), "{text}");
    }
    let stars = "*".repeat(PATH.len() - 1);
    assert_eq!(
        all[4].header("location"),
        Some(format!("https://hooks.example.com/{stars}").as_str())
    );
    for name in ["environ", "cmdline", "maps"] {
        let text = fs::read(format!("/proc/{}/{name}", checkout.pid())).unwrap();
        none_in(name, &text, &SECRETS);
    }
    let found = memory(checkout.pid());
    assert!(
        memchr::memmem::find(&found, b"slack-hook").is_some(),
        "its memory was read"
    );
    none_in("the memory of the bot", &found, &SECRETS);
    let listed = &hooks.list()["items"][0];
    assert_eq!(
        (&listed["injection"], &listed["class"]),
        (&json!("url"), &json!("static")),
        "{listed}"
    );
    assert!(listed["masked"].as_u64() >= Some(8), "{listed}");
    assert_eq!(listed["consumers"][0]["rule"], "tell-ops", "{listed}");
    nobody_wrote(&hooks.scene, &SECRETS);
}

fn refused(answer: &Answer, status: u64, reason: &str) {
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (status, reason),
        "{}",
        answer.body
    );
    none_in(
        "a refusal",
        format!("{}{}", answer.head(), answer.body).as_bytes(),
        &SECRETS,
    );
}

#[test]
fn nobody_else_calls_it_and_nothing_else_of_it_is_called() {
    if !root_or_skip("credentials") {
        return;
    }
    let hooks = Hooks::start("");
    hooks.put(&address(PATH));
    let (mut checkout, mut report) = (hooks.scene.checkout(), hooks.scene.report());
    assert_eq!(post(&mut checkout, HOST, "/", "echo").status, 200);
    refused(&post(&mut report, HOST, "/", "echo"), 403, "outside_forbidden");
    refused(
        &post(&mut checkout, "other-hook.botmesh.mesh", "/", "echo"),
        403,
        "outside_forbidden",
    );
    refused(&checkout.call("GET", HOST, "/"), 403, "no_rule");
    // What a bot says of the address is not even written down: it may have guessed, or been told.
    for target in [PATH, "/?a=b", "/x", "/?", "//"] {
        let answer = post(&mut checkout, HOST, target, "echo");
        refused(&answer, 400, "bad_request");
        assert!(
            answer.body.contains("called at `/` and without a query"),
            "{}",
            answer.body
        );
        let call = hooks.last_call();
        assert_eq!((&call["path"], call.get("query")), (&json!("/"), None), "{call}");
    }
    let tunnel = format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n");
    refused(
        &checkout.order(&json!({"raw": tunnel})).unwrap(),
        403,
        "outside_forbidden",
    );
    let upgrade = [("Connection", "upgrade"), ("Upgrade", "websocket")];
    let mut checkout = hooks.scene.checkout();
    let answer = checkout.call_with("POST", HOST, "/", &upgrade);
    assert_ne!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        hooks.server.said("webhook"),
        1,
        "nothing else was sent: {}",
        hooks.server.log()
    );
    nobody_wrote(&hooks.scene, &SECRETS);
}

#[test]
fn what_is_secret_of_it_is_sent_to_nobody_else_by_a_bot_and_is_in_no_record() {
    if !root_or_skip("credentials") {
        return;
    }
    let hooks = Hooks::start("");
    hooks.put(&address(PATH));
    let (mut checkout, mut report) = (hooks.scene.checkout(), hooks.scene.report());
    assert_eq!(post(&mut checkout, HOST, "/", "echo").status, 200);
    // It goes to no other host, and not to its own by another rule, whatever it is written as; nor into the ledger.
    let encoded = KEY.replace('q', "%71").replace('Y', "%59");
    for (bot, host) in [(&mut checkout, "other.example.com"), (&mut report, "hooks.example.com")] {
        for target in [
            PATH,
            &format!("/x?key={KEY}"),
            &format!("/{KEY}"),
            &format!("/{encoded}"),
        ] {
            refused(&post(bot, host, target, "x"), 403, "secret_in_request");
        }
        for body in [&address(PATH), KEY] {
            refused(&post(bot, host, "/echo", body), 403, "secret_in_request");
        }
    }
    assert_eq!(
        hooks.server.said("webhook"),
        1,
        "nothing else was sent: {}",
        hooks.server.log()
    );
    assert_eq!(hooks.server.said("request"), 0, "{}", hooks.server.log());
    nobody_wrote(&hooks.scene, &SECRETS);
}

#[test]
fn its_answers_share_no_connection_with_those_that_are_not_searched_for_it() {
    if !root_or_skip("credentials") {
        return;
    }
    let hooks = Hooks::start("");
    hooks.put(&address(PATH));
    let mut checkout = hooks.scene.checkout();
    for _ in 0..2 {
        assert_eq!(post(&mut checkout, HOST, "/", "echo").status, 200);
        // The same bot and the same host, by another rule.
        assert_eq!(post(&mut checkout, "hooks.example.com", "/echo", "x").status, 401);
    }
    assert_eq!(hooks.connections(), [0, 1, 0, 1]);
}

#[test]
fn an_address_that_leads_elsewhere_is_not_called() {
    if !root_or_skip("credentials") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    readable(folder.path());
    let file = folder.path().join("value");
    let elsewhere = format!("https://other.example.com{PATH}");
    fs::write(&file, &elsewhere).unwrap();
    let hooks = Hooks::start(&format!(
        "credentials: {{ttl: 1h, sources: {{slack-hook: {{command: [/bin/cat, {}]}}}}}}\n",
        file.display()
    ));
    let mut checkout = hooks.scene.checkout();
    let unavailable = |checkout: &mut Caller| {
        let answer = post(checkout, HOST, "/", "echo");
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (503, "credential_unavailable"),
            "{}",
            answer.body
        );
        let error = hooks.list()["items"][0]["error"].to_string();
        assert!(error.contains("another scheme, host or port"), "{error}");
    };
    unavailable(&mut checkout);
    fs::write(&file, address(PATH)).unwrap();
    ok(botmesh().args(["secret", "test", "slack-hook", "--server", &hooks.scene.host().admin()]));
    assert_eq!(post(&mut checkout, HOST, "/", "echo").status, 200);
    // The mesh file says another place: what was read for the one before is not sent there.
    let moved = CREDENTIALS.replace("hooks.example.com", "other.example.com");
    hooks.scene.apply(&RULES, &DESTINATIONS, &moved);
    eventually("the host to know the new place", || {
        (post(&mut checkout, HOST, "/", "echo").status == 503).then_some(())
    });
    unavailable(&mut checkout);
    assert_eq!(
        hooks.server.said("webhook POST other.example.com"),
        0,
        "{}",
        hooks.server.log()
    );
    // Nor is what it says now, by the connection that was kept to the place before: the new one may not be called.
    hooks.scene.names(&[("127.0.0.9", "other.example.com")]);
    fs::write(&file, &elsewhere).unwrap();
    ok(botmesh().args(["secret", "test", "slack-hook", "--server", &hooks.scene.host().admin()]));
    let answer = post(&mut checkout, HOST, "/", "echo");
    assert_eq!(answer.reason(), "outside_forbidden", "{}", answer.body);
    nobody_wrote(&hooks.scene, &SECRETS);
}

#[test]
fn a_new_address_takes_the_place_of_the_old_one_and_one_that_leads_elsewhere_does_not() {
    if !root_or_skip("credentials") {
        return;
    }
    let hooks = Hooks::start("");
    let wrong = hooks.put(&format!("https://other.example.com{PATH}"));
    assert!(
        wrong.contains("another scheme, host or port") && !wrong.contains(KEY),
        "{wrong}"
    );
    hooks.put(&address(PATH));
    let mut checkout = hooks.scene.checkout();
    assert_eq!(post(&mut checkout, HOST, "/", "echo").status, 200);
    let server = hooks.scene.mesh.server();
    let rotate = |words: &[&str], value: &str| {
        let mut all = vec!["secret", "rotate", "slack-hook", "--server", &server];
        all.extend(words);
        told(&all, value)
    };
    let begin = ["--reason", "it was seen in a log", "--canary-for", "1s"];
    let refused = rotate(&begin, &format!("https://other.example.com{NEXT}"));
    assert!(
        !refused.status.success() && both(&refused).contains("another scheme, host or port"),
        "{}",
        both(&refused)
    );
    // Both are good while it goes on.
    hooks.server.tell(&format!("webhook+ {NEXT}"), "key webhook+");
    let out = rotate(&begin, &address(NEXT));
    assert!(
        both(&out).contains("not: whatever is sent to a webhook, people are told"),
        "{}",
        both(&out)
    );
    hooks.takes(NEXT);
    let answer = post(&mut checkout, HOST, "/", "echo");
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, both(&out));
    let secrets = [SECRETS[0], SECRETS[1], ("the next path", NEXT)];
    none_in("the answer", answer.body.as_bytes(), &secrets);
    // The old one is guarded until it is known to be worth nothing.
    assert_eq!(
        post(&mut checkout, "other.example.com", "/echo", KEY).reason(),
        "secret_in_request"
    );
    nobody_wrote(&hooks.scene, &secrets);
}
