//! Credentials without any stored value: a real CA signs for each bot, real proxies exchange, and a provider that is the tests' own verifies by a
//! library that is not ours. Which providers of the world do so is in README.md.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::scene::{nobody_wrote, try_put};
use super::server::Server;
use crate::away::arrived_at;
use crate::outside::scene::Scene;
use crate::support::hand::Hand;
use crate::support::{Answer, Caller, PYTHON, both, botmesh, eventually, free_port, ok, root_or_skip, run};

const ISSUER: &str = "https://ids.example.com";

const CREDENTIALS: &str = r#"credentials:
  bearer: {federate: {audience: inner}, owner: o}
  exchange: {federate: {audience: "//sts.example.com/pool", token_url: "https://sts.example.com/token", token_audience: data, scope: read}, owner: o}
  rule: {federate: {audience: "https://sts.example.com", token_url: "https://sts.example.com/rule", grant: jwt_bearer, encoding: json, parameters: {federation_rule_id: fdrl_1}}, owner: o}
  client: {federate: {audience: "api://Exchange", token_url: "https://sts.example.com/client", grant: client_credentials, client_id: bot-9}, owner: o}
"#;

/// Name of the service, which is that of the credential and of the rule too.
const WAYS: [&str; 4] = ["bearer", "exchange", "rule", "client"];

struct World {
    scene: Scene,
    server: Server,
    hand: Hand,
    ahead: u64,
}

impl World {
    fn start() -> Self {
        let log = tempfile::tempdir().unwrap();
        let (hand, keys) = (Hand::new(log.path()), free_port());
        let ca = format!("federation: {{issuer: \"{ISSUER}\", listen: \"127.0.0.1:{keys}\"}}\n");
        let scene = Scene::with_ca(&ca, Some(hand.path()));
        let hosts: Vec<String> = WAYS
            .iter()
            .chain(&["sts", "other"])
            .map(|name| format!("{name}.example.com"))
            .collect();
        let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let pem = scene.certificate(443, &names);
        scene.names(&[(&scene.address, &hosts.join(" "))]);
        let keys = format!("http://127.0.0.1:{keys}/keys");
        let script = include_str!("../support/provider.py");
        let mut command = Command::new(PYTHON);
        command.args(["-c", script, &scene.address, "443", &pem, &keys, ISSUER]);
        command.arg(log.path());
        let world = Self {
            scene,
            server: Server::start(log, &mut command),
            hand,
            ahead: 0,
        };
        world.apply("[prod/checkout, prod/report]");
        world
    }

    /// Lets these bots use every way.
    fn apply(&self, from: &str) {
        let rule = |name: &&str| {
            format!(r#"id: {name}, from: {from}, to: "https://{name}.example.com", http: ["* /**"], inject: {name}"#)
        };
        let mut rules: Vec<String> = WAYS.iter().map(rule).collect();
        rules.push(r#"id: other, from: prod/checkout, to: "https://other.example.com", http: ["* /**"]"#.to_owned());
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let names = WAYS.iter().chain(&["sts", "other"]);
        let said: Vec<String> = names
            .map(|name| format!(r#""https://{name}.example.com": {{addresses: [HERE], ca: CA}}"#))
            .collect();
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        self.scene.apply(&rules, &said, CREDENTIALS);
    }

    /// Has the provider be otherwise from now on.
    fn says(&self, line: &str) {
        self.server.tell(line, "set ");
    }

    /// Moves the clock of the mesh, and waits until the proxy has seen that.
    fn forward(&mut self, seconds: u64) {
        self.ahead += seconds;
        self.says(&format!("ahead {}", self.ahead));
        self.hand.forward(Duration::from_secs(seconds));
        arrived_at("web-1", &self.hand, &self.scene.mesh);
    }

    fn secret(&self, words: &[&str]) -> String {
        let admin = self.scene.host().admin();
        both(&run(botmesh().arg("secret").args(words).args(["--server", &admin])))
    }

    fn listed(&self, name: &str) -> Value {
        let admin = self.scene.host().admin();
        let told = ok(botmesh().args(["secret", "list", "-o", "json", "--server", &admin]));
        let told: Value = serde_json::from_str(&told).unwrap();
        let all = told["items"].as_array().unwrap_or_else(|| panic!("{told}"));
        all.iter().find(|one| one["name"] == name).unwrap().clone()
    }

    /// Every JWT-SVID and token that a provider saw, and the three parts of each.
    fn seen(&self) -> Vec<(String, String)> {
        let seen = fs::read_to_string(self.server.folder().join("seen")).unwrap();
        let mut parts: Vec<(String, String)> = Vec::new();
        for token in seen.lines() {
            parts.push(("a token".to_owned(), token.to_owned()));
            // The header is the same for every token of a key, and says nothing.
            let of_jwt = token.split('.').skip(1);
            parts.extend(of_jwt.map(|part| ("a part of a JWT-SVID".to_owned(), part.to_owned())));
        }
        parts
    }

    fn nobody_wrote_what_a_provider_saw(&self) {
        let seen = self.seen();
        assert!(seen.iter().any(|(_, part)| part.starts_with("eyJ")), "{}", seen.len());
        let seen: Vec<(&str, &str)> = seen.iter().map(|(what, part)| (&**what, &**part)).collect();
        nobody_wrote(&self.scene, &seen);
    }
}

fn call(bot: &mut Caller, way: &str) -> Answer {
    bot.call("GET", &format!("{way}.example.com"), "/")
}

#[test]
fn each_bot_proves_itself_to_a_provider_by_a_token_of_its_own_that_is_nowhere_stored() {
    if !root_or_skip("federation") {
        return;
    }
    let world = World::start();
    let (mut checkout, mut report) = (world.scene.checkout(), world.scene.report());
    for way in WAYS {
        for (bot, name) in [(&mut checkout, "prod/checkout"), (&mut report, "prod/report")] {
            for _ in 0..3 {
                let answer = call(bot, way);
                let told = answer.json();
                assert_eq!(answer.status, 200, "{way}: {told}\n{}", world.secret(&["list"]));
                assert_eq!(told["sub"], format!("spiffe://acme.internal/{name}"), "{way}");
                // What the service echoes is masked.
                let echoed = told["authorization"].as_str().unwrap();
                let masked = echoed.strip_prefix("Bearer ").unwrap();
                assert!(masked.len() > 10 && masked.bytes().all(|byte| byte == b'*'), "{echoed}");
            }
        }
    }
    for path in ["/token", "/rule", "/client"] {
        assert_eq!(
            world.server.said(&format!("token {path} spiffe://acme.internal/")),
            2,
            "once for each bot: {path}"
        );
    }
    // What a bot sends in its place is dropped.
    let own = [("Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.")];
    let answer = checkout.call_with("GET", "exchange.example.com", "/", &own);
    assert_eq!(answer.json()["sub"], "spiffe://acme.internal/prod/checkout");
    assert_eq!(
        world
            .server
            .said("request exchange.example.com spiffe://acme.internal/prod/checkout good"),
        4
    );

    is_listed_for_each_bot(&world);

    // Another host outside is not sent what one bot has.
    let seen = world.seen();
    let tokens = seen.iter().filter(|(what, _)| what == "a token");
    for (_, token) in tokens {
        let answer = checkout.call_with("GET", "other.example.com", "/", &[("X-Note", token)]);
        assert_eq!(answer.status, 403, "{}", answer.body);
    }
    assert_eq!(world.server.said("request other.example.com"), 0);
    world.nobody_wrote_what_a_provider_saw();
    is_recorded_for_each_bot(&world);
    print!("{}", world.server.log());
}

fn is_listed_for_each_bot(world: &World) {
    let listed = world.secret(&["list"]);
    print!("{listed}");
    let exchange = world.listed("exchange");
    assert_eq!(
        (&exchange["class"], &exchange["source"]),
        (&"federated".into(), &"none".into())
    );
    let bots = exchange["bots"].as_array().unwrap();
    let names: Vec<&Value> = bots.iter().map(|one| &one["bot"]).collect();
    assert_eq!(names, ["prod/checkout", "prod/report"]);
    assert!(
        bots.iter()
            .all(|one| one["token"]["left_s"].as_u64().is_some_and(|left| left > 200)),
        "{exchange}"
    );
    assert!(listed.contains("in use by prod/checkout, token "), "{listed}");
}

fn is_recorded_for_each_bot(world: &World) {
    let call = world.scene.host().query("kind=call rule=exchange").pop().unwrap();
    assert_eq!(call["credential"], "exchange");
    let given = world.scene.host().query("kind=credential_token");
    let of_exchange = given.iter().filter(|event| event["subject"] == "credential:exchange");
    let bots: Vec<&Value> = of_exchange.map(|event| &event["detail"]["bot"]).collect();
    assert_eq!(bots, ["prod/checkout", "prod/report"], "{given:?}");
    assert!(
        given.iter().all(|event| event["detail"]["class"] == "federated"),
        "{given:?}"
    );
}

#[test]
fn there_is_nothing_to_put_and_an_operator_can_try_it() {
    if !root_or_skip("federation") {
        return;
    }
    let world = World::start();
    let told = try_put(&world.scene, "exchange", "sk-0123456789");
    assert!(told.contains("each bot's own JWT-SVID"), "{told}");
    let told = world.secret(&["test", "exchange"]);
    assert!(
        told.contains("ok exchange for prod/checkout, token ") && told.contains("ok exchange for prod/report, token "),
        "{told}"
    );
    assert_eq!(world.server.said("token /token spiffe://acme.internal/"), 2);
    world.says("mode down");
    let told = world.secret(&["test", "rule"]);
    assert!(
        told.contains("no token rule for prod/checkout: https://sts.example.com/rule answered 503"),
        "{told}"
    );
    assert!(
        world.secret(&["list"]).contains("no token for prod/report: "),
        "{}",
        world.secret(&["list"])
    );
    world.says("mode good");
    // A JWT-SVID that a provider may have taken is shown to none again: this one would refuse it.
    let told = world.secret(&["test", "rule"]);
    assert!(
        told.contains("ok rule for prod/checkout"),
        "{told}\n{}",
        world.server.log()
    );
    let told = world.secret(&["test", "rule"]);
    assert!(
        told.contains("ok rule for prod/checkout"),
        "{told}\n{}",
        world.server.log()
    );
    world.nobody_wrote_what_a_provider_saw();
}

#[test]
fn a_token_is_renewed_before_it_ends_and_the_kept_one_is_used_while_the_ca_is_away() {
    if !root_or_skip("federation") {
        return;
    }
    let mut world = World::start();
    let mut checkout = world.scene.checkout();
    for way in ["bearer", "exchange"] {
        assert_eq!(call(&mut checkout, way).status, 200);
    }
    // From 70 % of 300 s on the next token is asked for, and from 40 % on the next JWT-SVID, beside calls that go on.
    world.forward(250);
    for way in ["bearer", "exchange"] {
        assert_eq!(call(&mut checkout, way).status, 200, "{way}");
    }
    eventually("the next token", || {
        (world.server.said("token /token spiffe") == 2).then_some(())
    });
    assert_eq!(world.server.said("token /token -"), 0, "{}", world.server.log());

    world.scene.mesh.ca.kill();
    world.forward(150);
    for way in ["bearer", "exchange"] {
        assert_eq!(call(&mut checkout, way).status, 200, "kept, without the CA: {way}");
    }
    world.forward(150);
    for way in ["bearer", "exchange"] {
        let answer = call(&mut checkout, way);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (503, "credential_unavailable"),
            "{way}: {}",
            answer.body
        );
    }
    let listed = world.secret(&["list"]);
    assert!(
        listed.contains("not connected to its CA") || listed.contains("the CA did not answer"),
        "{listed}"
    );
    print!("{listed}");
    world.nobody_wrote_what_a_provider_saw();
}

#[test]
fn a_rule_that_is_revoked_and_a_quarantine_end_what_a_bot_has() {
    if !root_or_skip("federation") {
        return;
    }
    let world = World::start();
    let (mut checkout, mut report) = (world.scene.checkout(), world.scene.report());
    for bot in [&mut checkout, &mut report] {
        assert_eq!(call(bot, "exchange").status, 200);
    }
    world.apply("prod/checkout");
    assert_eq!(call(&mut report, "exchange").reason(), "outside_forbidden");
    let bots = |world: &World| world.listed("exchange")["bots"].as_array().unwrap().clone();
    assert_eq!(bots(&world).len(), 1, "{:?}", bots(&world));
    assert_eq!(bots(&world)[0]["bot"], "prod/checkout");
    ok(botmesh().args([
        "quarantine",
        "prod/checkout",
        "--reason",
        "drill",
        "--server",
        &world.scene.mesh.server(),
    ]));
    eventually("the quarantine", || {
        (call(&mut checkout, "exchange").reason() == "quarantined").then_some(())
    });
    assert!(bots(&world).is_empty());
    let told = world.secret(&["test", "exchange"]);
    assert!(told.contains("no bot of this host may use it now"), "{told}");
    // Nobody asked for another one meanwhile.
    assert_eq!(world.server.said("token /token"), 2);
}
