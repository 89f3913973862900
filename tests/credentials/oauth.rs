//! Credentials that are exchanged for a short token, at an authorization server that is the tests' own and can be bent.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::scene::{nobody_wrote, none_in, try_put};
use super::server::Server;
use crate::away::arrived_at;
use crate::outside::scene::Scene;
use crate::support::hand::Hand;
use crate::support::{Answer, PYTHON, both, botmesh, eventually, http_get, ok, root_or_skip, run};

/// The client's secret, the first refresh token, and what tokens of either kind begin with.
const SECRET: &str = "client-secret/+0123456789";
const REFRESH: &str = "rt-put-by-an-operator-01";
const KEYS: [(&str, &str); 4] = [
    ("the secret", SECRET),
    ("the refresh token", REFRESH),
    ("a token", "at-0123456789abcdef-"),
    ("a new refresh token", "rt-0123456789abcdef-"),
];

const CREDENTIALS: &str = r#"credentials:
  crm: {oauth: {token_url: "https://login.example.com/token", client_id: bot-7, scope: read write, audience: crm, resource: "https://api.example.com/"}, owner: o}
  posted: {oauth: {token_url: "https://login.example.com/token", client_id: bot-7, auth: post}, owner: o}
  mailbox: {oauth: {token_url: "https://login.example.com/token", client_id: bot-7, grant: refresh_token, auth: none}, owner: o}
  inside: {oauth: {token_url: "https://inside.example.com/token", client_id: bot-7}, owner: o}
  app: {github_app: {app_id: 12345, installation_id: 7, base: "https://github.example.com/api/v3"}, owner: o}
  stranger: {oauth: {token_url: "https://stranger.example.com/token", client_id: bot-7}, owner: o}
"#;

/// Name of the service, and the credential of the rule that leads there.
const RULES: [(&str, &str); 6] = [
    ("api", "crm"),
    ("posted", "posted"),
    ("mail", "mailbox"),
    ("one", "inside"),
    ("two", "stranger"),
    ("git", "app"),
];

struct Servers {
    scene: Scene,
    server: Server,
    hand: Hand,
}

impl Servers {
    /// How many tokens of a credential the ledger tells of, each given and none shown.
    fn tokens_recorded(&self, credential: &str) -> usize {
        let mut given = self.scene.host().query("kind=credential_token");
        given.retain(|event| event["subject"] == format!("credential:{credential}"));
        let detail = serde_json::json!({"class": "short", "result": "ok"});
        assert!(given.iter().all(|event| event["detail"] == detail), "{given:?}");
        given.len()
    }

    fn start() -> Self {
        let log = tempfile::tempdir().unwrap();
        let hand = Hand::new(log.path());
        let scene = Scene::with_clock("", Some(hand.path()));
        let services = RULES.iter().map(|(name, _)| *name).chain(["other"]);
        let hosts = services.chain(["login", "inside", "stranger", "github"]);
        let hosts: Vec<String> = hosts.map(|name| format!("{name}.example.com")).collect();
        let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let pem = scene.certificate(443, &names);
        scene.names(&[(&scene.address, &hosts.join(" "))]);
        let script = include_str!("../support/tokens.py");
        let mut command = Command::new(PYTHON);
        command.args(["-c", script, &scene.address, "443", &pem]);
        let servers = Self {
            scene,
            server: Server::start(log, &mut command),
            hand,
        };
        servers.says(&format!("secret {SECRET}"));
        servers.says(&format!("refresh {REFRESH}"));
        servers.apply(CREDENTIALS);
        for name in ["crm", "posted", "inside", "stranger"] {
            servers.put(name, SECRET);
        }
        servers.put("mailbox", REFRESH);
        servers
    }

    fn apply(&self, credentials: &str) {
        let mut rules: Vec<String> = RULES
            .iter()
            .map(|(name, credential)| {
                format!(r#"id: {name}, from: prod/checkout, to: "https://{name}.example.com", http: ["* /**"], inject: {credential}"#)
            })
            .collect();
        rules.push(r#"id: other, from: prod/checkout, to: "https://other.example.com", http: ["* /**"]"#.to_owned());
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let there = RULES.iter().map(|(name, _)| *name).chain(["other"]);
        let mut said: Vec<String> = there
            .map(|name| format!(r#""https://{name}.example.com": {{addresses: [HERE], ca: CA}}"#))
            .collect();
        said.push(r#""https://login.example.com": {addresses: [HERE], ca: CA, request_timeout: 1s}"#.to_owned());
        said.push(r#""https://github.example.com": {addresses: [HERE], ca: CA}"#.to_owned());
        said.push(r#""https://stranger.example.com": {addresses: [HERE]}"#.to_owned());
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        self.scene.apply(&rules, &said, credentials);
    }

    /// Has the servers be otherwise from now on.
    fn says(&self, line: &str) {
        self.server.tell(line, "set ");
    }

    fn put(&self, name: &str, value: &str) {
        let told = try_put(&self.scene, name, value);
        assert!(told.contains(&format!("ok {name} is on this host")), "{told}");
    }

    fn secret(&self, words: &[&str]) -> String {
        let admin = self.scene.host().admin();
        both(&run(botmesh().arg("secret").args(words).args(["--server", &admin])))
    }

    fn call(&self, host: &str) -> Answer {
        self.scene.checkout().call("GET", &format!("{host}.example.com"), "/")
    }

    /// Moves the clock of the proxy, and waits until it has.
    fn forward(&self, seconds: u64) {
        self.hand.forward(Duration::from_secs(seconds));
        arrived_at("web-1", &self.hand, &self.scene.mesh);
    }

    fn newest_file(&self) -> PathBuf {
        self.scene.host().dir.join("credentials/mailbox.newest.age")
    }
}

#[test]
fn a_token_is_asked_for_once_added_to_calls_and_renewed_before_it_ends() {
    if !root_or_skip("tokens") {
        return;
    }
    let servers = Servers::start();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(servers.call("api").status, 200));
        }
    });
    let asked =
        "token client_credentials basic True good scope=read write audience=crm resource=https://api.example.com/";
    assert_eq!(
        (servers.server.said(asked), servers.server.said("token")),
        (1, 1),
        "{}",
        servers.server.log()
    );
    assert_eq!(servers.server.said("request GET / 0001 True"), 6);
    assert_eq!(servers.call("posted").status, 200);
    assert_eq!(servers.server.said("token client_credentials post True good"), 1);

    // What the bot sends in its place is dropped, and what the service answers is masked: token and secret.
    let headers = [("Authorization", "Bearer dummy"), ("X-Note", "mine")];
    let answer = servers
        .scene
        .checkout()
        .call_with("GET", "api.example.com", "/", &headers);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.body.contains("Bearer ****") && answer.body.contains("mine"),
        "{}",
        answer.body
    );
    none_in("the answer", answer.body.as_bytes(), &KEYS);
    let call = servers.scene.host().query("kind=call rule=api").pop().unwrap();
    assert_eq!(call["credential"], "crm");

    // From 210 s of 300 on the next one is asked for, beside calls that go on.
    let asked = servers.server.said("token");
    servers.forward(200);
    assert_eq!(servers.call("api").status, 200);
    assert_eq!(servers.server.said("token"), asked);
    servers.forward(45);
    eventually("the next token", || {
        assert_eq!(servers.call("api").status, 200);
        (servers.server.said("request GET / 0003 True") > 0).then_some(())
    });
    assert_eq!(servers.server.said("token"), asked + 1, "{}", servers.server.log());

    let listed = servers.secret(&["list"]);
    for word in ["oauth", "short", ", token ", " for 4m"] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    let tested = servers.secret(&["test", "crm"]);
    assert!(
        tested.contains("ok crm: read from file (fingerprint ") && tested.contains(", token "),
        "{tested}"
    );
    assert_eq!(servers.server.said("token"), asked + 2, "an operator sees it done");
    let (_, metrics) = http_get(servers.scene.host().ports.metrics, "/metrics").unwrap();
    let counted = r#"botmesh_credential_exchanges_total{credential="crm",result="ok"} 3"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(servers.tokens_recorded("crm"), 3);
    nobody_wrote(&servers.scene, &KEYS);
    none_in("what the commands said", format!("{listed}{tested}").as_bytes(), &KEYS);
}

#[test]
fn neither_token_nor_secret_is_sent_by_a_bot_or_heard_from_a_service() {
    if !root_or_skip("tokens") {
        return;
    }
    let servers = Servers::start();
    assert_eq!(servers.call("api").status, 200);
    assert_eq!(servers.call("mail").status, 200);
    let sent = servers.server.said("request");
    let held = [
        "at-0123456789abcdef-0001",
        "at-0123456789abcdef-0002",
        SECRET,
        REFRESH,
        "rt-0123456789abcdef-0001",
    ];
    for key in held {
        let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        for text in [key, &hex] {
            let headers = [("X-Note", text)];
            let answer = servers
                .scene
                .checkout()
                .call_with("GET", "other.example.com", "/", &headers);
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (403, "secret_in_request"),
                "{text}: {}",
                answer.body
            );
        }
    }
    assert_eq!(servers.server.said("request"), sent, "nothing was sent");
}

#[test]
fn an_answer_that_is_no_token_is_refused_and_nothing_of_it_is_told() {
    if !root_or_skip("tokens") {
        return;
    }
    let servers = Servers::start();
    for (mode, why) in [
        ("500", "answered 500 Internal Server Error"),
        ("invalid_client", "answered 400 Bad Request invalid_client"),
        ("word", "answered 400 Bad Request"),
        ("redirect", "answered 307 Temporary Redirect"),
        ("html", "it is not application/json"),
        ("type", "it is not application/json"),
        ("no-json", "it is no JSON object of the form that is expected"),
        ("mac", "its token_type is not Bearer"),
        ("endless", "it is longer than 64 KiB"),
        ("slow", "did not answer within 1s"),
        ("cut", "ask https://login.example.com/token"),
    ] {
        servers.says(&format!("mode {mode}"));
        let told = servers.secret(&["test", "crm"]);
        assert!(
            told.contains("not exchanged crm: ") && told.contains(why),
            "{mode}: {told}"
        );
        none_in(mode, told.as_bytes(), &KEYS);
    }
    assert_eq!(servers.server.said("request"), 0, "no redirect was followed");
    eventually("the endless answer to end", || {
        (servers.server.said("hung up") > 0).then_some(())
    });

    // The bot learns that there is none, the operator why.
    let answer = servers.call("api");
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "credential_unavailable"),
        "{}",
        answer.body
    );
    assert!(!answer.body.contains("login.example.com"), "{}", answer.body);
    let (status, ready) = http_get(servers.scene.host().ports.metrics, "/readyz").unwrap();
    let note =
        "note: credential crm cannot be exchanged, calls that need it are refused: ask https://login.example.com/token";
    assert!(status == 200 && ready.contains(note), "{ready}");
    let listed = servers.secret(&["list"]);
    assert!(listed.contains("not exchanged: ask https://login"), "{listed}");

    // Lives that cannot be believed are bounded, and the token is good.
    for (mode, left) in [("no-life", "for 64m"), ("huge", "for 23h")] {
        servers.says(&format!("mode {mode}"));
        let told = servers.secret(&["test", "crm"]);
        assert!(told.contains("ok crm: ") && told.contains(left), "{mode}: {told}");
        assert_eq!(servers.call("api").status, 200);
    }

    // Who may be asked: the rules of destinations hold for token endpoints.
    let inside = servers.secret(&["test", "inside"]);
    assert!(inside.contains(":443 may not be called: it is not public"), "{inside}");
    let stranger = servers.secret(&["test", "stranger"]);
    assert!(
        stranger.contains("reach https://stranger.example.com/token: TLS with"),
        "{stranger}"
    );
    nobody_wrote(&servers.scene, &KEYS);
}

#[test]
fn nothing_that_a_bot_does_has_tokens_asked_for_again_and_again() {
    if !root_or_skip("tokens") {
        return;
    }
    let servers = Servers::start();
    assert_eq!(servers.call("api").status, 200);
    // The service takes the token no longer.
    servers.says("revoke");
    for _ in 0..20 {
        assert_eq!(servers.call("api").status, 401, "the answer is the service's");
    }
    assert_eq!(servers.server.said("token"), 1, "it is too young to be doubted");
    servers.forward(61);
    assert_eq!(servers.call("api").status, 200);
    assert_eq!(servers.server.said("token"), 2);
    servers.says("revoke");
    for _ in 0..20 {
        assert_eq!(servers.call("api").status, 401);
    }
    assert_eq!(servers.server.said("token"), 2, "once a minute");

    // It is doubted, and there is no other: the pauses are the proxy's.
    servers.says("mode 500");
    servers.forward(61);
    for _ in 0..20 {
        assert_eq!(servers.call("api").status, 401, "the old one is used on");
    }
    let asked = servers.server.said("token");
    assert!((3..=5).contains(&asked), "{asked}");
    // And with none at all.
    servers.put("crm", "another-secret-01");
    for _ in 0..20 {
        assert_eq!(servers.call("api").status, 503);
    }
    let more = servers.server.said("token") - asked;
    assert!((1..=3).contains(&more), "{more}");
    servers.says("mode good");
    servers.put("crm", SECRET);
    assert_eq!(servers.call("api").status, 200, "a value that was put is tried at once");
}

#[test]
fn a_new_refresh_token_takes_the_place_of_the_old_one_for_good() {
    if !root_or_skip("tokens") {
        return;
    }
    let mut servers = Servers::start();
    assert_eq!(servers.call("mail").status, 200);
    let sealed = fs::read(servers.newest_file()).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1\n"));
    let tested = servers.secret(&["test", "mailbox"]);
    assert!(tested.contains("ok mailbox: "), "{tested}");
    servers.scene.mesh.restart("web-1");
    servers.scene.mesh.wait_for("web-1", "/readyz");
    assert_eq!(servers.call("mail").status, 200);
    assert_eq!(
        servers.server.said("token refresh_token none True good"),
        3,
        "{}",
        servers.server.log()
    );
    assert_eq!(servers.server.said("stolen"), 0, "the newest, and never an older one");
    nobody_wrote(&servers.scene, &KEYS);

    // An operator begins anew, as after the server ended them all.
    servers.says("refresh rt-put-by-an-operator-02");
    let tested = servers.secret(&["test", "mailbox"]);
    assert!(tested.contains("answered 400 Bad Request invalid_grant"), "{tested}");
    servers.put("mailbox", "rt-put-by-an-operator-02");
    assert_eq!(servers.call("mail").status, 200);
}

/// A private key as GitHub gives it, of so many bits, whose public half the servers know.
fn key_of_app(servers: &Servers, bits: &str) -> String {
    let [key, public] = ["key.pem", "public.pem"].map(|name| servers.server.folder().join(name));
    ok(Command::new("openssl")
        .args(["genrsa", "-traditional", "-out"])
        .arg(&key)
        .arg(bits));
    ok(Command::new("openssl")
        .args(["rsa", "-pubout", "-in"])
        .arg(&key)
        .arg("-out")
        .arg(&public));
    servers.says(&format!("github {}", public.display()));
    let pem = fs::read_to_string(&key).unwrap();
    assert!(pem.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"), "{pem}");
    pem
}

#[test]
fn an_app_of_github_is_believed_by_its_signature_and_its_key_is_nowhere() {
    if !root_or_skip("tokens") {
        return;
    }
    let servers = Servers::start();
    // Longer than GitHub's are.
    let pem = key_of_app(&servers, "4096");
    servers.put("app", &pem);
    for _ in 0..3 {
        assert_eq!(servers.call("git").status, 200);
    }
    let asked = "installation POST /api/v3/app/installations/7/access_tokens None True";
    assert_eq!(
        (servers.server.said(asked), servers.server.said("installation")),
        (1, 1),
        "{}",
        servers.server.log()
    );
    let tested = servers.secret(&["test", "app"]);
    assert!(tested.contains("ok app: ") && tested.contains(" for 59m"), "{tested}");

    // No line of the key is written, said or sent by anybody.
    let is_secret = |line: &&str| line.len() >= 16 && !line.starts_with("-----");
    let lines: Vec<&str> = pem.lines().filter(is_secret).collect();
    let keys = lines.iter().map(|line| ("a line of the key", *line));
    let keys: Vec<(&str, &str)> = keys.chain(KEYS).collect();
    nobody_wrote(&servers.scene, &keys);
    for line in [lines[0], lines[9], lines[lines.len() - 2]] {
        let headers = [("X-Note", line)];
        let mut checkout = servers.scene.checkout();
        let answer = checkout.call_with("GET", "other.example.com", "/", &headers);
        assert_eq!(answer.reason(), "secret_in_request", "{line}");
    }
    let headers = [["Host", "git.example.com"]];
    let whole = serde_json::json!({"method": "POST", "target": "/", "body": pem, "headers": headers});
    let answer = servers.scene.checkout().order(&whole).unwrap();
    assert_eq!(answer.reason(), "secret_in_request");
}

#[test]
fn an_app_of_github_with_another_key_or_none_gets_no_token() {
    if !root_or_skip("tokens") {
        return;
    }
    let servers = Servers::start();
    servers.put("app", &key_of_app(&servers, "2048"));
    // The servers know the next one.
    key_of_app(&servers, "2048");
    let tested = servers.secret(&["test", "app"]);
    assert!(tested.contains("answered 401 Unauthorized"), "{tested}");
    let asked = "installation POST /api/v3/app/installations/7/access_tokens signature True";
    assert_eq!(servers.server.said(asked), 1, "{}", servers.server.log());
    none_in(
        "what the command said",
        tested.as_bytes(),
        &[("the app's own token", "eyJhbGciOiJSUzI1NiI")],
    );
    servers.put("app", "a-client-secret-0001");
    let tested = servers.secret(&["test", "app"]);
    assert!(
        tested.contains("cannot be exchanged: it is no private key as PEM"),
        "{tested}"
    );
    assert_eq!(servers.call("git").status, 503);
    servers.says("mode 500");
    servers.put("app", &key_of_app(&servers, "2048"));
    let tested = servers.secret(&["test", "app"]);
    assert!(tested.contains("answered 500 Internal Server Error"), "{tested}");
    nobody_wrote(&servers.scene, &[("the app's own token", "eyJhbGciOiJSUzI1NiI")]);
}
