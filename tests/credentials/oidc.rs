//! A certified authorization server, and a service that verifies its tokens by a library of its own.
//!
//! It is not in Debian: `BOTMESH_OIDC=FOLDER` names a folder in which `npm install oidc-provider` was run.

use std::process::Command;

use super::scene::try_put;
use super::server::Server;
use crate::outside::scene::Scene;
use crate::support::{both, botmesh, eventually, root_or_skip, run};

/// As the server has it.
const SECRET: &str = "client-secret/+0123456789";

const CREDENTIALS: &str = r#"credentials:
  basic: {oauth: {token_url: "https://login.example.com/token", client_id: bot-basic, scope: read write, resource: "https://api.example.com/"}, owner: o}
  post: {oauth: {token_url: "https://login.example.com/token", client_id: bot-post, auth: post, scope: read, resource: "https://api.example.com/"}, owner: o}
  refresh: {oauth: {token_url: "https://login.example.com/token", client_id: bot-refresh, grant: refresh_token, scope: read, resource: "https://api.example.com/"}, owner: o}
  elsewhere: {oauth: {token_url: "https://login.example.com/token", client_id: bot-basic, resource: "https://b.example.com/"}, owner: o}
"#;

struct Provider {
    scene: Scene,
    server: Server,
}

impl Provider {
    fn start(modules: &str) -> Self {
        let (scene, log) = (Scene::new(""), tempfile::tempdir().unwrap());
        let names = ["basic", "post", "refresh", "elsewhere", "login"].map(|name| format!("{name}.example.com"));
        let hosts: Vec<&str> = names.iter().map(String::as_str).collect();
        let pem = scene.certificate(443, &hosts);
        scene.names(&[(&scene.address, &names.join(" "))]);
        let script = log.path().join("oidc.mjs");
        std::fs::write(&script, include_str!("../support/oidc.mjs")).unwrap();
        let mut command = Command::new("node");
        command.arg(script).args([modules, &scene.address, "443", &pem]);
        let server = Server::start(log, &mut command);
        let rules = ["basic", "post", "refresh", "elsewhere"].map(|name| {
            format!(
                r#"id: {name}, from: prod/checkout, to: "https://{name}.example.com", http: ["* /**"], inject: {name}"#
            )
        });
        let said = names.map(|name| format!(r#""https://{name}": {{addresses: [HERE], ca: CA}}"#));
        let [rules, said] = [&rules[..], &said[..]].map(|lines| lines.iter().map(String::as_str).collect::<Vec<_>>());
        scene.apply(&rules, &said, CREDENTIALS);
        Self { scene, server }
    }

    /// What the server said that begins so, each time.
    fn said(&self, words: &str) -> Vec<String> {
        let log = self.server.log();
        let found = log.lines().filter(|line| line.starts_with(words));
        found.map(ToOwned::to_owned).collect()
    }

    /// The refresh token that it gave at its start.
    fn refresh_token(&self) -> String {
        eventually("the server to listen", || {
            let log = self.server.log();
            let mut lines = log.lines().skip_while(|line| *line != "ready");
            lines.nth(1).map(ToOwned::to_owned)
        })
    }
}

#[test]
fn a_certified_server_gives_tokens_that_an_independent_library_verifies() {
    if !root_or_skip("oidc-provider") {
        return;
    }
    let Ok(modules) = std::env::var("BOTMESH_OIDC") else {
        println!("skipped: oidc-provider: BOTMESH_OIDC names no folder with it");
        return;
    };
    let server = Provider::start(&modules);
    let refresh = server.refresh_token();
    for name in ["basic", "post", "elsewhere"] {
        try_put(&server.scene, name, SECRET);
    }
    let both_of = serde_json::json!({"type": "authorized_user", "client_secret": SECRET, "refresh_token": refresh});
    try_put(
        &server.scene,
        "refresh",
        &serde_json::to_string_pretty(&both_of).unwrap(),
    );
    let mut checkout = server.scene.checkout();
    for (name, client, scope) in [
        ("basic", "bot-basic", "read write"),
        ("post", "bot-post", "read"),
        ("refresh", "bot-refresh", "read"),
    ] {
        for _ in 0..3 {
            let answer = checkout.call("GET", &format!("{name}.example.com"), "/");
            let told = answer.json();
            assert_eq!(answer.status, 200, "{name}: {told}");
            assert_eq!(
                (&told["client_id"], &told["scope"]),
                (&client.into(), &scope.into()),
                "{told}"
            );
        }
    }
    let given = |words: &str| server.said(&format!("token grant.success {words}")).len();
    assert_eq!(
        (given("client_credentials"), given("refresh_token")),
        (2, 1),
        "three calls each"
    );

    // It gives a new refresh token each time, and would end them all for an old one.
    let admin = server.scene.host().admin();
    for turn in 2..4 {
        let told = both(&run(botmesh().args(["secret", "test", "refresh", "--server", &admin])));
        assert!(told.contains("ok refresh: "), "{told}");
        assert_eq!(given("refresh_token"), turn);
    }
    let told = both(&run(botmesh().args([
        "secret",
        "test",
        "elsewhere",
        "--server",
        &admin,
    ])));
    assert!(told.contains("answered 400 Bad Request invalid_target"), "{told}");
    let log = server.scene.host().process.log();
    for key in [SECRET, refresh.as_str(), "eyJ"] {
        assert!(!log.contains(key) && !told.contains(key), "{key}");
    }
    print!("{}", server.said("token").join("\n"));
}
