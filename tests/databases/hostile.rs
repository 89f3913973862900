//! Servers that are not to be believed, and bots that want more than their sessions.

use std::process::{Command, Stdio};

use serde_json::json;

use super::server::{NAME, Server, port_of, psql};
use super::{CREDENTIALS, Talk, apply, last, put, rule, served, try_put};
use crate::credentials::scene::{X_KEY, no_key_in};
use crate::outside::scene::Scene;
use crate::spine::{CHECKOUT, REPORT};
use crate::support::{PYTHON, Process, as_user, eventually, http_get, root_or_skip};

/// A server that lies in one way, in a mesh that leads to it.
struct Liar {
    scene: Scene,
    process: Process,
}

impl Liar {
    fn start(lie: &str, destination: &str) -> Self {
        let scene = Scene::new(&format!("{{listen: \"127.0.0.1:0\", to: \"{NAME}\"}}"));
        scene.names(&[(&scene.address, "db.example.com")]);
        let pem = scene.certificate(5432, &["db.example.com"]);
        let mut command = Command::new(PYTHON);
        command.args(["-c", include_str!("../support/liar.py"), lie, &scene.address, &pem]);
        let password = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(password.path(), X_KEY).unwrap();
        command.arg(password.path());
        let process = Process::spawn(command, scene.mesh.dir().join("liar.out"));
        let liar = Self { scene, process };
        eventually("the liar to listen", || {
            liar.process.log().contains("ready").then_some(())
        });
        let here = format!(r#""{NAME}": {{addresses: [HERE], ca: CA{destination}}}"#);
        liar.scene.apply(&[&rule("orders", "orders-db")], &[&here], CREDENTIALS);
        try_put(&liar.scene, "orders-db", X_KEY);
        liar
    }

    fn psql(&self) -> String {
        psql(&port_of(&self.scene), CHECKOUT, "orders", "select 1", "")
    }

    /// How the newest call ended.
    fn outcome(&self) -> serde_json::Value {
        let newest = || self.scene.host().query("kind=end").last().cloned();
        eventually("the end of the call", newest)["outcome"].clone()
    }
}

#[test]
fn a_server_that_says_the_password_is_not_heard_saying_it() {
    if !root_or_skip("databases") {
        return;
    }
    let asterisks = "*".repeat(X_KEY.len());
    let liar = Liar::start("error", "");
    let told = liar.psql();
    assert!(told.contains(&format!("the password {asterisks} or ")), "{told}");
    no_key_in("the server's error", told.as_bytes());
    let liar = Liar::start("notice", "");
    let told = liar.psql();
    assert!(told.contains(&format!("NOTICE:  welcome {asterisks}")), "{told}");
    no_key_in("the server's notice", told.as_bytes());
    // It hides that it could be bound to its certificate, and is told so.
    eventually("the session", || {
        liar.process.log().contains("heard b'Q'").then_some(())
    });
    let log = liar.process.log();
    assert!(log.contains("chosen SCRAM-SHA-256 y,,"), "{log}");
    assert!(log.contains("alpn postgresql"), "{log}");
    assert!(
        log.contains(r"startup b'user\x00orders_rw\x00database\x00orders\x00application_name\x00psql"),
        "{log}"
    );
}

#[test]
fn a_session_has_one_of_its_statements_ended_at_a_time() {
    if !root_or_skip("databases") {
        return;
    }
    let liar = Liar::start("turns", "");
    let port = port_of(&liar.scene);
    let words = ["127.0.0.1", port.as_str(), "HOLD", "user=x", "database=orders"];
    let mut held = Talk::start(CHECKOUT, include_str!("../support/startup.py"), &words);
    assert_eq!(
        std::iter::repeat_with(|| held.line())
            .find(|line| line.starts_with("key "))
            .unwrap(),
        "key 7069645f73656372"
    );
    let mut asking: Vec<_> = (0..2)
        .map(|_| {
            let mut command = as_user(PYTHON, CHECKOUT);
            command.args([
                "-c",
                include_str!("../support/cancel.py"),
                "127.0.0.1",
                &port,
                "7069645f73656372",
            ]);
            command.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for child in &mut asking {
        assert!(child.wait().unwrap().success());
    }
    let log = liar.process.log();
    assert!(log.contains("one alone") && !log.contains("two at once"), "{log}");
    eventually("both requests", || {
        (liar.process.log().matches("cancelled pid_secr").count() == 2).then_some(())
    });
    // Nobody else's: neither another bot's, nor by a key that was never given.
    for (uid, key) in [(REPORT, "7069645f73656372"), (CHECKOUT, "7069645f73656373")] {
        let mut command = as_user(PYTHON, uid);
        command.args(["-c", include_str!("../support/cancel.py"), "127.0.0.1", &port, key]);
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
    }
    let events = liar.scene.host().query("kind=database_cancel");
    let call = liar.scene.host().query("kind=call protocol=postgres").pop().unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    for event in &events {
        assert_eq!(event["subject"], call["to"]["outside"], "{event}");
        assert_eq!(
            event["detail"],
            json!({"bot": "prod/checkout", "call": call["id"]}),
            "{event}"
        );
    }
    eventually("all four to be counted", || {
        let (_, metrics) = http_get(liar.scene.host().ports.metrics, "/metrics").unwrap();
        let counted = ["sent", "refused"]
            .map(|result| metrics.contains(&format!("botmesh_database_cancels_total{{result=\"{result}\"}} 2")));
        (counted == [true, true]).then_some(())
    });
}

#[test]
fn a_server_that_does_not_know_the_password_or_begins_wrong_gets_no_session() {
    if !root_or_skip("databases") {
        return;
    }
    for (lie, destination, word) in [
        ("verifier", "", "peer_mismatch"),
        ("plain", "", "credential_unavailable"),
        ("after", "", "credential_unavailable"),
        ("early", "", "peer_unreachable"),
        ("flood", "", "peer_unreachable"),
        ("silent", ", request_timeout: 1s", "timeout"),
    ] {
        let liar = Liar::start(lie, destination);
        let told = liar.psql();
        assert!(told.contains(&format!("(botmesh: {word})")), "{lie}: {told}");
        assert_eq!(liar.outcome(), json!(word), "{lie}");
        let log = liar.process.log();
        assert!(!log.contains("heard"), "{lie}: {log}");
        no_key_in(lie, log.as_bytes());
    }
}

#[test]
fn a_bot_that_sends_a_credential_of_the_host_into_a_database_does_not_get_it_there() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let mut session = Talk::session(&server, CHECKOUT, "orders");
    assert_eq!(session.line(), "open True");
    assert_eq!(
        session.ask("select 'sk-ant-0123', 'sk-ant-'"),
        "row ('sk-ant-0123', 'sk-ant-')"
    );
    let told = session.ask(&format!("select $a${X_KEY}$a$"));
    assert!(told.starts_with("OperationalError"), "{told}");
    eventually("the end of the session", || {
        (server.scene.ended("secret_in_request").len() == 1).then_some(())
    });
    let log = server.log();
    let own = log.find("create user plain").unwrap();
    assert!(!log[own + 80..].contains(X_KEY), "the server has heard it");
}

#[test]
fn a_session_ends_when_its_rule_would_make_it_another_users() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let mut session = Talk::session(&server, CHECKOUT, "orders");
    assert_eq!(session.line(), "open True");
    // Another rule that says the same: the session goes on.
    let other = rule("orders", "orders-db").replace("id: orders", "id: orders-again");
    apply(&server, &[&other]);
    assert_eq!(session.ask("select 1"), "row (1,)");
    apply(&server, &[&rule("orders", "plain-db")]);
    eventually("the end of the session", || {
        (server.scene.ended("no_rule").len() == 1).then_some(())
    });
    let told = session.ask("select 1");
    assert!(
        told.starts_with("OperationalError") || told.starts_with("InterfaceError"),
        "{told}"
    );
    put(&server, "plain-db", X_KEY);
}

#[test]
fn a_client_that_begins_with_tls_or_asks_for_a_newer_protocol_is_told_what_there_is() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    // The first bytes of a ClientHello: sslnegotiation=direct.
    let told = raw(&server, "160301020001000001fc0303");
    assert!(told.contains("C08P01") && told.contains("sslmode=disable"), "{told}");
    let newer = ["MINOR", "2", "user=x", "database=orders", "_pq_.wish=1"];
    let mut talk = Talk::by_hand(&server, CHECKOUT, &newer);
    // Version 3.0, and one option that is not known.
    assert_eq!(
        talk.line(),
        format!("negotiated 0003000000000001{}00", hex(b"_pq_.wish"))
    );
    assert!(talk.line().starts_with("key "));
    assert_eq!(talk.line(), "ready");
    assert_eq!(last(&server, "verdict=allow")["path"], json!("orders"));
}

#[test]
fn who_says_too_little_or_too_much_before_a_session_is_let_go() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    // TLS asked for twice, as no client does.
    let told = raw(&server, "0000000804d2162f0000000804d2162f");
    assert!(told.starts_with("b'NE") && told.contains("C08P01"), "{told}");
    let told = raw(&server, "00002711");
    assert!(told.contains("a first message of this length"), "{told}");
    assert_eq!(raw(&server, "0000000900"), "b''", "there is nobody to answer");
}

/// What comes back to these bytes and nothing after them.
fn raw(server: &Server, bytes: &str) -> String {
    Talk::by_hand(server, CHECKOUT, &["RAW", bytes]).line()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
