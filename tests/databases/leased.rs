//! Sessions as a role that a real OpenBao makes for the process that opens them, and drops with it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Talk;
use super::server::{NAME, Server};
use crate::credentials::vault::bao::{Bao, program};
use crate::spine::{CHECKOUT, REPORT};
use crate::support::{eventually, root_or_skip};

const CREDENTIALS: &str = "credentials:
  lease-db: {postgres: {user: whoever}, owner: shop@acme.internal}
";

const POLICY: &str = r#"path "database/creds/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }"#;

const VAULT: &str = "vault-of-the-test-0001";

fn served() -> Option<(Server, Bao)> {
    if !root_or_skip("leased databases") {
        return None;
    }
    let mut bao = Bao::new(program()?);
    let source = "{lease-db: {vault: {lease: database/creds/orders}}}";
    let server = Server::start_with(&bao.config("{cert: {role: hosts}}", source));
    bao.start(&server.scene);
    for sql in [
        "create role leased",
        &format!("create role vault login createrole password '{VAULT}'"),
        "grant leased to vault with admin option",
        "create database orders",
    ] {
        server.admin("postgres", sql);
    }
    bao.ask("POST", "sys/mounts/database", &json!({"type": "database"}));
    let url = format!(
        "postgresql://{{{{username}}}}:{{{{password}}}}@{}:5432/postgres?sslmode=require",
        server.scene.address
    );
    let config = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": "vault", "password": VAULT, "connection_url": url
    });
    bao.ask("POST", "database/config/orders", &config);
    bao.ask("PUT", "sys/policies/acl/hosts", &json!({"policy": POLICY}));
    lives(&bao, "1h", "24h");
    let rule = format!(r#"id: orders, from: prod/checkout, to: "{NAME}", postgres: [orders], inject: lease-db"#);
    let here = format!(r#""{NAME}": {{addresses: [HERE], ca: CA}}"#);
    server.scene.apply(&[&rule], &[&here], CREDENTIALS);
    Some((server, bao))
}

/// Sets how long a role lives at first, and at most.
fn lives(bao: &Bao, ttl: &str, max: &str) {
    let sql = r#"CREATE ROLE "{{name}}" LOGIN IN ROLE leased PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"#;
    let role = json!({"db_name": "orders", "default_ttl": ttl, "max_ttl": max, "creation_statements": [sql]});
    bao.ask("POST", "database/roles/orders", &role);
}

fn roles(server: &Server) -> Vec<String> {
    let told = server.admin(
        "postgres",
        "select rolname from pg_roles where rolname like 'v-%' order by 1",
    );
    told.lines().map(ToOwned::to_owned).collect()
}

fn has(server: &Server, count: usize) {
    eventually(&format!("{count} roles"), || {
        (roles(server).len() == count).then_some(())
    });
}

fn role_of(session: &mut Talk) -> String {
    let told = session.ask("select current_user");
    let role = told.strip_prefix("row ('").and_then(|told| told.strip_suffix("',)"));
    role.unwrap_or_else(|| panic!("{told}")).to_owned()
}

#[test]
fn psql_and_psycopg2_have_a_role_of_their_own_while_they_live() {
    let Some((server, _bao)) = served() else { return };
    let told = server.checkout("orders", "select current_user");
    assert!(told.starts_with("v-"), "{told}");
    has(&server, 0);
    let mut first = Talk::session(&server, CHECKOUT, "orders");
    assert_eq!(first.line(), "open True");
    let role = role_of(&mut first);
    let mut second = Talk::session(&server, CHECKOUT, "orders");
    assert_eq!(second.line(), "open True");
    let other = role_of(&mut second);
    assert_ne!(role, other);
    let (mut all, found) = ([role.clone(), other.clone()], roles(&server));
    all.sort();
    assert_eq!(found, all);
    let refused = server.psql(REPORT, "orders", "select 1", "");
    assert!(refused.contains("(botmesh: outside_forbidden)"), "{refused}");
    // kill -9
    drop(first);
    let killed = Instant::now();
    has(&server, 1);
    println!("the role was gone {:?} after its process", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    assert_eq!(roles(&server), std::slice::from_ref(&other));
    assert_eq!(role_of(&mut second), other);
    let sessions = server.admin(
        "postgres",
        "select usename from pg_stat_activity where usename like 'v-%'",
    );
    assert_eq!(sessions, other, "and its session with it");
}

#[test]
fn a_session_keeps_its_role_alive_and_ends_with_it() {
    let Some((server, bao)) = served() else { return };
    lives(&bao, "2s", "1h");
    let mut session = Talk::session(&server, CHECKOUT, "orders");
    assert_eq!(session.line(), "open True");
    let (role, begun) = (role_of(&mut session), Instant::now());
    eventually("twice its time", || {
        assert_eq!(
            roles(&server),
            std::slice::from_ref(&role),
            "after {:?}",
            begun.elapsed()
        );
        (begun.elapsed() > Duration::from_secs(4)).then_some(())
    });
    assert_eq!(role_of(&mut session), role);
    drop(session);
    has(&server, 0);
    // Its process was gone before it hung up, perhaps, and then its lease ended it.
    eventually("the end of the first session", || {
        (server.scene.host().query("kind=end").len() == 1).then_some(())
    });
    let before = server.scene.ended("credential_unavailable").len();
    lives(&bao, "2s", "2s");
    let mut session = Talk::session(&server, CHECKOUT, "orders");
    assert_eq!(session.line(), "open True");
    has(&server, 1);
    has(&server, 0);
    eventually("the end of the session", || {
        let ended = server.scene.ended("credential_unavailable");
        (ended.len() == before + 1).then_some(())
    });
    let told = session.ask("select 1");
    assert!(
        told.starts_with("OperationalError") || told.starts_with("InterfaceError"),
        "{told}"
    );
}
