//! Two unlike drivers as they are: psycopg2 is libpq, asyncpg speaks the protocol itself.

use super::{Talk, apply, rule, served};
use crate::spine::{CHECKOUT, NOBODY, REPORT};
use crate::support::{PYTHON, as_user, root_or_skip, run};

fn asyncpg(port: &str, uid: u32, database: &str) -> Vec<String> {
    let mut command = as_user(PYTHON, uid);
    let script = include_str!("../support/session_asyncpg.py");
    // It looks for keys in the home of its user.
    command
        .args(["-c", script, "127.0.0.1", port, database])
        .env("HOME", "/");
    let told = run(&mut command);
    let (out, errors) = (
        String::from_utf8(told.stdout).unwrap(),
        String::from_utf8(told.stderr).unwrap(),
    );
    assert_eq!(errors, "", "{out}");
    out.lines().map(str::to_owned).collect()
}

#[test]
fn a_driver_that_is_no_libpq_works_by_scram_and_by_svid_and_another_bot_is_told_why_not() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let port = server.port();
    let does = |user: &str, database: &str| {
        let rest = ["set reports off", "sum 49995000", "cancelled 1"];
        let row = format!("row {user} {database} 42");
        [&[row.as_str()], &rest[..]].concat().join("\n")
    };
    assert_eq!(
        asyncpg(&port, CHECKOUT, "orders").join("\n"),
        does("orders_rw", "orders")
    );
    server.admin("postgres", "create database mine owner checkout_rw");
    apply(&server, &[&rule("mine", "checkout-db")]);
    assert_eq!(asyncpg(&port, CHECKOUT, "mine").join("\n"), does("checkout_rw", "mine"));
    let told = asyncpg(&port, CHECKOUT, "orders");
    assert!(
        told[0].starts_with("refused InsufficientPrivilegeError 42501 No rule allows this call (botmesh: no_rule)"),
        "{told:?}"
    );
    let hint = told.last().unwrap();
    assert!(
        hint.starts_with("hint ") && hint.contains("inject: CREDENTIAL"),
        "{hint}"
    );
    let told = asyncpg(&port, REPORT, "mine");
    assert!(
        told[0].contains("42501") && told[0].contains("(botmesh: outside_forbidden)"),
        "{told:?}"
    );
    let told = asyncpg(&port, NOBODY, "mine");
    assert!(
        told[0].starts_with("refused InvalidAuthorizationSpecificationError 28000"),
        "{told:?}"
    );
    let mut other = Talk::session(&server, REPORT, "mine");
    let told = other.line();
    assert!(
        told.starts_with("refused") && told.contains("(botmesh: outside_forbidden)"),
        "{told}"
    );
}

#[test]
fn a_client_that_takes_a_folder_as_its_host_finds_the_database_at_a_socket() {
    if !root_or_skip("databases") {
        return;
    }
    let server = served();
    let at = format!("host={} port=5432", server.sockets().display());
    let told = server.psql(CHECKOUT, "orders", "select current_user", &at);
    assert_eq!(told.trim(), "orders_rw");
    let refused = server.psql(REPORT, "orders", "select 1", &at);
    assert!(refused.contains("(botmesh: outside_forbidden)"), "{refused}");
}
