//! Tunnels for a bot's own TLS, and what ends what is under way.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use super::scene::Scene;
use crate::kill::now_ms;
use crate::spine::CHECKOUT;
use crate::support::{PYTHON, as_user, botmesh, eventually, ok, root_or_skip};

const NEWS: &str = r#"id: news, from: prod/checkout, to: "tls://*.news.example", justify: "by name only""#;
const NEWS_HERE: &str = r#""tls://*.news.example": {addresses: [HERE]}"#;

/// A bot that reads an answer without an end.
pub(super) struct Reading {
    child: Child,
    from: BufReader<ChildStdout>,
}

impl Reading {
    fn start(scene: &Scene, words: &[&str]) -> Self {
        let mut command = as_user(PYTHON, CHECKOUT);
        command
            .args([
                "-c",
                include_str!("../support/outside_client.py"),
                &scene.host().bot_tcp(),
            ])
            .args(words);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, from }
    }

    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("it runs");
        line.trim_end().to_owned()
    }

    /// The same, once the answer has begun.
    pub(super) fn open(scene: &Scene, words: &[&str]) -> Self {
        let mut reading = Self::start(scene, words);
        assert_eq!(reading.line(), "open", "{words:?}");
        reading
    }

    /// Waits for the end, and says how long after `since` it came.
    pub(super) fn cut_since(mut self, since: u128) -> u128 {
        let line = self.line();
        assert!(line.starts_with("end ") && !line.ends_with("it"), "{line}");
        let at = line.split(' ').nth(1).and_then(|at| at.parse::<u128>().ok());
        at.unwrap_or_else(|| panic!("{line}")).saturating_sub(since)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn is_refused(line: &str) {
    let refused = line.starts_with("refused 403") && line.contains("outside_forbidden");
    assert!(refused, "{line}");
}

#[test]
fn a_tunnel_leads_to_whom_it_was_opened_to_and_nothing_leaves_before_that_is_said() {
    if !root_or_skip("tunnels to the outside") {
        return;
    }
    let scene = Scene::new("");
    let server = scene.tls(443, &["www.news.example", "evil.news.example"]);
    scene.names(&[(&scene.address, "www.news.example evil.news.example evil.example")]);
    scene.apply(&[NEWS], &[NEWS_HERE], "");
    let ca = scene.ca_file().display().to_string();
    let say = |words: &[&str]| Reading::start(&scene, words).line();
    let name = "www.news.example:443";
    assert_eq!(say(&["tls", name, "www.news.example", &ca]), "open");
    assert_eq!(say(&["tls", "WWW.news.example:443", "WWW.NEWS.example", &ca]), "open");
    let before = server.said("request");
    for (words, outcome) in [
        (&["tls", name, "evil.news.example", &ca][..], "outside_forbidden"),
        (&["tls", name, "-", &ca], "outside_forbidden"),
        (&["bytes", name, r"GET / HTTP/1.1\r\n\r\n"], "bad_request"),
        (&["bytes", name, r"\x16\x03\x01\x00\x05\x02"], "bad_request"),
    ] {
        let ends = scene.ended(outcome).len();
        let line = say(words);
        assert!(
            line.starts_with("tls ") || line.starts_with("end "),
            "{words:?}: {line}"
        );
        eventually("the end of the tunnel", || {
            (scene.ended(outcome).len() == ends + 1).then_some(())
        });
    }
    for refused in [
        "news.example:443",
        "a.www.news.example:443",
        "evil.example:443",
        "www.news.example:8443",
    ] {
        is_refused(&say(&["tls", refused, "www.news.example", &ca]));
    }
    assert_eq!(server.said("request"), before, "{}", server.log());
    // Of four connections that were not for it the server heard nothing but their end.
    eventually("the server to hear the ends", || {
        (server.said("error") + server.said("end") >= 4).then_some(())
    });
    assert!(
        !server.log().contains("HTTP_REQUEST") && !server.log().contains("NO_SHARED"),
        "{}",
        server.log()
    );
    // A name inside is as little an address of a tunnel as of a request.
    scene.names(&[("127.0.0.1", "www.news.example")]);
    is_refused(&say(&["tls", name, "www.news.example", &ca]));
}

#[test]
fn a_listener_leads_outside_without_a_word_of_http() {
    if !root_or_skip("listeners to the outside") {
        return;
    }
    let scene = Scene::new(r#"{listen: "127.0.0.1:0", to: "tls://www.news.example"}"#);
    let _server = scene.tls(443, &["www.news.example"]);
    scene.names(&[(&scene.address, "www.news.example")]);
    scene.apply(&[NEWS], &[NEWS_HERE], "");
    let ca = scene.ca_file().display().to_string();
    let mut curl = as_user("curl", CHECKOUT);
    let to = format!("www.news.example:443:{}", scene.listener("tls://www.news.example"));
    curl.args([
        "-sS",
        "--cacert",
        &ca,
        "--connect-to",
        &to,
        "https://www.news.example/a",
    ]);
    assert!(ok(&mut curl).contains("\"/a\""));
    let calls = scene.host().query("kind=call verdict=allow protocol=tls");
    assert!(
        calls
            .iter()
            .all(|call| call["rule"] == "news" && call["hop"] == "outside"),
        "{calls:?}"
    );
}

#[test]
fn a_request_switches_to_another_protocol_outside_where_the_rule_says_so() {
    if !root_or_skip("switching outside") {
        return;
    }
    let scene = Scene::new("");
    let _server = scene.plain(&scene.address, 80);
    scene.names(&[(&scene.address, "plain.example.com")]);
    let here = r#""http://plain.example.com": {addresses: [HERE]}"#;
    let rule = r#"id: ws, from: prod/checkout, to: "http://plain.example.com", http: [GET /ws]"#;
    scene.apply(&[&format!("{rule}, upgrade: [websocket]")], &[here], "");
    let say = || Reading::start(&scene, &["switch", "plain.example.com", "/ws"]).line();
    assert_eq!(say(), "open");
    scene.apply(&[rule], &[here], "");
    let line = say();
    assert!(line.starts_with("refused 403"), "{line}");
}

#[test]
fn what_is_under_way_ends_with_its_right() {
    if !root_or_skip("cuts of calls to the outside") {
        return;
    }
    let scene = Scene::new("");
    let _tls = scene.tls(443, &["www.news.example", "api.example.com"]);
    scene.names(&[(&scene.address, "www.news.example api.example.com")]);
    let api = r#"id: api, from: prod/checkout, to: "https://api.example.com", http: [GET /ticks]"#;
    let api_here = r#""https://api.example.com": {addresses: [HERE], ca: CA}"#;
    let allow = || scene.apply(&[NEWS, api], &[NEWS_HERE, api_here], "");
    let ca = scene.ca_file().display().to_string();
    let both = || {
        [
            Reading::open(&scene, &["http", "api.example.com", "/ticks"]),
            Reading::open(&scene, &["tls", "www.news.example:443", "www.news.example", &ca]),
        ]
    };
    let cut = |readings: [Reading; 2], since: u128, what: &str| {
        for reading in readings {
            let after = reading.cut_since(since);
            println!("{what}: cut {after} ms after the command began");
            // The command itself takes its time; what it costs from being in force is less.
            assert!(after < 3_000, "{what}: {after} ms");
        }
    };
    allow();
    let (readings, since) = (both(), now_ms());
    scene.apply(&[], &[], "");
    cut(readings, since, "rules that are gone");
    allow();
    let (readings, since) = (both(), now_ms());
    let elsewhere = [
        r#""tls://*.news.example": {addresses: [10.0.0.0/8]}"#,
        r#""https://api.example.com": {addresses: [10.0.0.0/8], ca: CA}"#,
    ];
    scene.apply(&[NEWS, api], &elsewhere, "");
    cut(readings, since, "addresses that are not listed any more");
    allow();
    let (readings, since) = (both(), now_ms());
    let quarantine = [
        "quarantine",
        "prod/checkout",
        "--reason",
        "test",
        "--server",
        &scene.mesh.server(),
    ];
    ok(botmesh().args(quarantine));
    cut(readings, since, "a quarantine");
    for outcome in ["no_rule", "outside_forbidden", "quarantined"] {
        eventually(outcome, || (scene.ended(outcome).len() == 2).then_some(()));
    }
}
