//! A database outside, at which the proxy authenticates, so that no bot has a password: a real PostgreSQL, psql and psycopg2.

mod drivers;
mod hostile;
mod leased;
pub(crate) mod server;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::json;

use crate::credentials::leaks::memory;
use crate::credentials::scene::{X_KEY, no_key_in, nobody_has_a_key, try_put};
use crate::spine::{CHECKOUT, NOBODY, REPORT};
use crate::support::{PYTHON, as_user, both, botmesh, eventually, ok, root_or_skip, run};
use server::{NAME, Server};

const CREDENTIALS: &str = "credentials:
  orders-db: {postgres: {user: orders_rw}, owner: shop@acme.internal}
  checkout-db: {postgres: {user: checkout_rw, svid: true}, owner: shop@acme.internal}
  anybody-db: {postgres: {user: anybody}, owner: shop@acme.internal}
  anybody-svid: {postgres: {user: anybody, svid: true}, owner: shop@acme.internal}
  old-db: {postgres: {user: old}, owner: shop@acme.internal}
  plain-db: {postgres: {user: plain}, owner: shop@acme.internal}
";

/// A rule of checkout's.
fn rule(databases: &str, credential: &str) -> String {
    format!(r#"id: orders, from: prod/checkout, to: "{NAME}", postgres: [{databases}], inject: {credential}"#)
}

/// A server with two databases and a user whose password is on the host.
fn served() -> Server {
    let server = Server::start();
    let password = X_KEY.replace('\'', "''");
    for sql in [
        &format!("create user orders_rw password '{password}'"),
        "create user checkout_rw",
        "create user anybody",
        &format!("set password_encryption = 'md5'; create user old password '{password}'"),
        &format!("create user plain password '{password}'"),
        "create database orders owner orders_rw",
        "create database stock owner orders_rw",
    ] {
        server.admin("postgres", sql);
    }
    apply(&server, &[&rule("orders", "orders-db")]);
    for name in ["orders-db", "anybody-db", "old-db", "plain-db"] {
        put(&server, name, X_KEY);
    }
    server
}

fn apply(server: &Server, rules: &[&str]) {
    let here = format!(r#""{NAME}": {{addresses: [HERE], ca: CA}}"#);
    server.scene.apply(rules, &[&here], CREDENTIALS);
}

/// Puts a value where the host has a use for the credential, which it has only with a rule.
fn put(server: &Server, name: &str, value: &str) {
    let told = try_put(&server.scene, name, value);
    let fits = told.contains(&format!("ok {name} is on this host")) || told.contains("No bot of this host uses");
    assert!(fits, "{told}");
}

/// A program of a bot that answers line by line.
struct Talk {
    child: Child,
    say: ChildStdin,
    hear: BufReader<std::process::ChildStdout>,
}

impl Talk {
    fn start(uid: u32, script: &str, words: &[&str]) -> Self {
        let mut command: Command = as_user(PYTHON, uid);
        command.args(["-c", script]).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (say, hear) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let hear = BufReader::new(hear);
        Self { child, say, hear }
    }

    fn session(server: &Server, uid: u32, database: &str) -> Self {
        let dsn = format!("host=127.0.0.1 port={} user=x dbname={database}", server.port());
        Self::start(uid, include_str!("support/session.py"), &[&dsn])
    }

    fn by_hand(server: &Server, uid: u32, words: &[&str]) -> Self {
        let port = server.port();
        let words = [&["127.0.0.1", port.as_str()], words].concat();
        Self::start(uid, include_str!("support/startup.py"), &words)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.hear.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn ask(&mut self, order: &str) -> String {
        writeln!(self.say, "{order}").unwrap();
        self.line()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The newest record of a call to the database.
fn last(server: &Server, filter: &str) -> serde_json::Value {
    let calls = server
        .scene
        .host()
        .query(&format!("kind=call protocol=postgres {filter}"));
    calls.last().cloned().unwrap_or_else(|| panic!("no call: {filter}"))
}

#[test]
fn a_bot_without_a_password_reads_its_database_by_scram_and_no_other_one() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let told = server.checkout("orders", "select current_user, current_database(), 6 * 7");
    assert_eq!(told.trim(), "orders_rw|orders|42");
    let call = last(&server, "verdict=allow");
    for (field, value) in [
        ("path", json!("orders")),
        ("port", json!(5432)),
        ("rule", json!("orders")),
        ("credential", json!("orders-db")),
        ("hop", json!("outside")),
    ] {
        assert_eq!(call[field], value, "{call}");
    }
    assert!(call.get("method").is_none(), "{call}");
    assert_eq!(server.scene.host().query("path=orders protocol=postgres").len(), 1);
    let end = server.scene.end_of(&call);
    assert_eq!(
        (&end["outcome"], &end["status"]),
        (&json!("done"), &json!(200)),
        "{end}"
    );
    // The proxy speaks SCRAM bound to the certificate of the server; the bot's own listener has no TLS.
    let how = server.checkout(
        "orders",
        "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()",
    );
    assert_eq!(how.trim(), "t|TLSv1.3");
    let refused = server.checkout("stock", "select 1");
    for words in [
        "FATAL:  No rule allows this call (botmesh: no_rule)",
        "DETAIL:",
        "which differs in: database",
        "HINT:",
        "postgres: [stock], inject: CREDENTIAL",
    ] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let call = last(&server, "verdict=deny");
    assert_eq!((&call["path"], &call["nearest"]), (&json!("stock"), &json!("orders")));
    let refused = server.report("orders", "select 1");
    assert!(refused.contains("(botmesh: outside_forbidden)"), "{refused}");
    let refused = server.psql(NOBODY, "orders", "select 1", "");
    assert!(
        refused.contains("(botmesh: unknown_caller)") && refused.contains("botmesh whoami"),
        "{refused}"
    );
    assert!(server.log().contains("user=orders_rw database=orders"));
    assert!(
        !server.log().contains("database=stock"),
        "nothing of it reached the server"
    );
    // A database that the rule names and the server does not have: the server's own words.
    apply(&server, &[&rule("\"*\"", "orders-db")]);
    let refused = server.checkout("nowhere", "select 1");
    assert!(refused.contains("database \"nowhere\" does not exist"), "{refused}");
    let call = last(&server, "path=nowhere");
    assert_eq!(server.scene.end_of(&call)["status"], json!(404));
    assert_eq!(server.checkout("stock", "select 1").trim(), "1");
}

#[test]
fn a_value_put_anew_is_used_by_the_next_session_and_a_wrong_one_is_the_servers_to_refuse() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let mut session = Talk::session(&server, CHECKOUT, "orders");
    assert_eq!(session.line(), "open True");
    server.admin("postgres", "alter user orders_rw password 'another one 0001'");
    let refused = server.checkout("orders", "select 1");
    assert!(
        refused.contains("password authentication failed for user \"orders_rw\""),
        "{refused}"
    );
    let call = last(&server, "verdict=allow");
    assert_eq!(server.scene.end_of(&call)["status"], json!(401));
    put(&server, "orders-db", "another one 0001");
    assert_eq!(server.checkout("orders", "select 1").trim(), "1");
    assert_eq!(session.ask("select 2"), "row (2,)", "a session that is open goes on");
}

#[test]
fn a_bot_is_known_by_its_svid_and_another_one_is_not() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let report = format!(r#"id: report, from: prod/report, to: "{NAME}", postgres: ["*"], inject: checkout-db"#);
    server.admin("postgres", "create database mine owner checkout_rw");
    apply(&server, &[&rule("mine", "checkout-db"), &report]);
    let told = server.checkout("mine", "select current_user");
    assert_eq!(told.trim(), "checkout_rw");
    let subject = "select client_dn from pg_stat_ssl where pid = pg_backend_pid()";
    let told = server.checkout("mine", subject);
    assert!(told.contains("spiffe://acme.internal/prod/checkout"), "{told}");
    let mut session = Talk::session(&server, CHECKOUT, "mine");
    assert_eq!(session.line(), "open True");
    assert_eq!(session.ask("select current_user"), "row ('checkout_rw',)");
    // A rule lets it, and the server's map does not.
    let refused = server.report("mine", "select 1");
    assert!(refused.contains("certificate authentication failed"), "{refused}");
    let listed = both(&run(botmesh().args([
        "secret",
        "list",
        "--server",
        &server.scene.host().admin(),
    ])));
    let line = listed
        .lines()
        .find(|line| line.contains("checkout-db"))
        .unwrap_or_default();
    assert!(line.contains("svid") && !line.contains("no value"), "{listed}");
    let told = try_put(&server.scene, "checkout-db", X_KEY);
    assert!(told.contains("This credential has no value"), "{told}");
    let admin = server.scene.host().admin();
    let told = both(&run(botmesh().args([
        "secret",
        "test",
        "checkout-db",
        "--server",
        &admin,
    ])));
    assert!(told.contains("This credential has no value"), "{told}");
}

#[test]
fn a_server_that_would_take_less_than_scram_gets_nothing() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    for (credential, word) in [
        ("old-db", "credential_unavailable"),
        ("plain-db", "credential_unavailable"),
        ("anybody-db", "peer_mismatch"),
    ] {
        apply(&server, &[&rule("orders", credential)]);
        put(&server, credential, X_KEY);
        let refused = server.checkout("orders", "select 1");
        assert!(
            refused.contains(&format!("(botmesh: {word})")),
            "{credential}: {refused}"
        );
        assert!(!refused.contains(X_KEY), "{refused}");
    }
    let call = last(&server, "verdict=allow");
    assert_eq!(server.scene.end_of(&call)["outcome"], json!("peer_mismatch"));
    for user in ["old", "plain"] {
        let authorized = format!("connection authorized: user={user} ");
        assert!(!server.log().contains(&authorized), "{}", server.log());
    }
}

#[test]
fn a_session_ends_with_its_right_and_with_its_process() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let sessions = || {
        server.admin(
            "postgres",
            "select count(*) from pg_stat_activity where usename = 'orders_rw'",
        )
    };
    let mut session = Talk::session(&server, CHECKOUT, "orders");
    assert_eq!(session.line(), "open True");
    assert_eq!(sessions(), "1");
    session.child.kill().unwrap();
    session.child.wait().unwrap();
    eventually("the session of a process that is gone", || {
        (sessions() == "0").then_some(())
    });
    for cut in ["rule", "quarantine"] {
        let mut session = Talk::session(&server, CHECKOUT, "orders");
        assert_eq!(session.line(), "open True", "{cut}");
        assert_eq!(session.ask("select 1"), "row (1,)");
        if cut == "rule" {
            apply(&server, &[&rule("stock", "orders-db")]);
        } else {
            // The host that only gave the test the root of the mesh is not there to enforce it.
            let ca = server.scene.mesh.server();
            let told = run(botmesh().args(["quarantine", "prod/checkout", "--reason", "test", "--server", &ca]));
            assert!(both(&told).contains("enforced on 1 of 2 hosts"), "{}", both(&told));
        }
        eventually("the end of the session", || (sessions() == "0").then_some(()));
        let told = session.ask("select 1");
        assert!(
            told.starts_with("OperationalError") || told.starts_with("InterfaceError"),
            "{cut}: {told}"
        );
        if cut == "rule" {
            apply(&server, &[&rule("orders", "orders-db")]);
        }
    }
    let refused = server.checkout("orders", "select 1");
    assert!(refused.contains("(botmesh: quarantined)"), "{refused}");
    for outcome in ["no_rule", "quarantined"] {
        assert_eq!(server.scene.ended(outcome).len(), 1, "{outcome}");
    }
}

#[test]
fn a_statement_is_ended_by_its_own_bot_and_by_nobody_else_who_has_its_key() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let mut session = Talk::session(&server, CHECKOUT, "orders");
    assert_eq!(session.line(), "open True");
    assert!(
        session.ask("cancel").starts_with("QueryCanceled"),
        "psycopg2 ends its statement"
    );
    assert_eq!(session.ask("select 1"), "row (1,)");
    let mut held = Talk::by_hand(&server, CHECKOUT, &["HOLD", "user=x", "database=orders"]);
    let key = held.line();
    let key = key.strip_prefix("key ").unwrap();
    let sleeping = || {
        let active = "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
        server.admin("postgres", active)
    };
    eventually("the statement", || (sleeping() == "1").then_some(()));
    let port = server.port();
    let cancel = |uid: u32| {
        let mut command = as_user(PYTHON, uid);
        command.args(["-c", include_str!("support/cancel.py"), "127.0.0.1", &port, key]);
        assert_eq!(ok(&mut command).trim(), "asked");
    };
    cancel(REPORT);
    cancel(NOBODY);
    assert_eq!(sleeping(), "1", "who has the key of another bot's session ends nothing");
    cancel(CHECKOUT);
    let told = std::iter::repeat_with(|| held.line()).find(|line| line.starts_with('C'));
    assert_eq!(told.as_deref(), Some("C57014"));
}

#[test]
fn a_start_up_that_is_no_plain_session_is_refused_in_words() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    for (words, wanted) in [
        (&["user=x", "database=orders", "replication=true"][..], "replication"),
        (&["user=x", "database=orders", "options=-c x=y"], "options"),
        (&["user=x", "database=a b"], "the name of the database"),
        (&["user=x", "user=y"], "more than one way"),
        (&[], "neither a database nor a user"),
    ] {
        let mut talk = Talk::by_hand(&server, CHECKOUT, words);
        let lines: Vec<String> = std::iter::repeat_with(|| talk.line())
            .take_while(|line| line != "end" && !line.is_empty())
            .collect();
        assert!(lines.contains(&"C08P01".to_owned()), "{words:?}: {lines:?}");
        let detail = lines.iter().find(|line| line.starts_with('D')).unwrap();
        assert!(detail.contains(wanted), "{words:?}: {detail}");
    }
    let denied = server
        .scene
        .host()
        .query("kind=call protocol=postgres reason=bad_request");
    assert_eq!(denied.len(), 5, "{denied:?}");
    let own = server.psql(CHECKOUT, "orders", "show application_name", "application_name=reports");
    assert_eq!(own.trim(), "reports", "what changes how the server writes is passed on");
}

#[test]
fn the_password_is_nowhere_but_in_the_proxy() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let mut session = Talk::session(&server, CHECKOUT, "orders");
    assert_eq!(session.line(), "open True");
    assert_eq!(session.ask("select current_user"), "row ('orders_rw',)");
    let found = memory(session.child.id());
    assert!(memchr::memmem::find(&found, b"orders_rw").is_some());
    no_key_in("the memory of the bot", &found);
    for name in ["environ", "cmdline", "maps"] {
        no_key_in(
            name,
            &std::fs::read(format!("/proc/{}/{name}", session.child.id())).unwrap(),
        );
    }
    nobody_has_a_key(&server.scene);
}

#[test]
fn a_database_whose_certificate_or_address_is_another_one_gets_nothing() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let tries = |destination: &str, word: &str| {
        server
            .scene
            .apply(&[&rule("orders", "orders-db")], &[destination], CREDENTIALS);
        let refused = server.checkout("orders", "select 1");
        assert!(
            refused.contains(&format!("(botmesh: {word})")),
            "{destination}: {refused}"
        );
    };
    // By the web's authorities, none of which vouches for it.
    tries(&format!(r#""{NAME}": {{addresses: [HERE]}}"#), "peer_mismatch");
    tries(&format!(r#""{NAME}": {{ca: CA}}"#), "outside_forbidden");
    // A server that asks for no certificate has not known the bot by it, whatever it says.
    server.admin("postgres", "alter system set ssl_ca_file = ''");
    server.admin("postgres", "select pg_reload_conf()");
    eventually("the server to ask for no certificate", || {
        (server.admin("postgres", "show ssl_ca_file").is_empty()).then_some(())
    });
    let here = format!(r#""{NAME}": {{addresses: [HERE], ca: CA}}"#);
    let rules = [&*rule("orders", "anybody-svid")];
    server.scene.apply(&rules, &[&here], CREDENTIALS);
    let refused = server.checkout("orders", "select 1");
    assert!(refused.contains("did not ask for the certificate"), "{refused}");
    server.admin("postgres", "alter system set ssl = off");
    server.admin("postgres", "select pg_reload_conf()");
    eventually("the server to take no TLS", || {
        (server.admin("postgres", "show ssl") == "off").then_some(())
    });
    tries(
        &format!(r#""{NAME}": {{addresses: [HERE], ca: CA}}"#),
        "peer_unreachable",
    );
    let refused = server.checkout("orders", "select 1");
    assert!(
        refused.contains("it takes no TLS, without which nothing is sent"),
        "{refused}"
    );
}
