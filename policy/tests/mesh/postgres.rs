//! Rules about databases of PostgreSQL.

use std::collections::BTreeSet;

use policy::{Injection, Mesh, Outside, What};
use spiffe::id::HostName;

use crate::generate::{load, now};
use crate::protocols::{decide, get};

const MESH: &str = r#"
version: 1
trust_domain: acme.internal
bots:
  prod/checkout: {owner: o@acme.internal, hosts: [web-1], attest: {user: checkout}}
  prod/report: {owner: o@acme.internal, hosts: [web-2], attest: {user: report}}
credentials:
  orders-db: {owner: o@acme.internal, postgres: {user: orders_rw}, rotate_every: 90d}
  report-db: {owner: o@acme.internal, postgres: {user: report_ro, svid: true}}
allow:
  - {id: orders, from: prod/checkout, to: "postgres://db.example.com", postgres: [stock, orders, orders], inject: orders-db}
  - {id: all, from: prod/report, to: ["postgres://db.example.com", "postgres://db.example.com:6432"], postgres: "*", inject: report-db}
  - {id: news, from: prod/checkout, to: "tls://db.example.com:5432", justify: an older client}
deny:
  - {id: no-templates, from: prod/report, to: "postgres://db.example.com", postgres: [template1], reason: nobody opens it}
  - {id: closed, from: "**", to: "postgres://db.example.com:6432", reason: it is being moved}
destinations:
  "postgres://db.example.com": {addresses: [10.0.0.0/8], connect_timeout: 2s, stream_idle: 5m}
tests:
  - {name: orders, from: prod/checkout, to: "postgres://db.example.com", by: orders, allow: [postgres orders, postgres stock]}
  - {name: others, from: prod/checkout, to: "postgres://db.example.com", deny: [postgres report, tls, tcp 5432, GET /]}
"#;

fn mesh() -> Mesh {
    load(MESH.to_owned())
}

#[test]
fn a_database_is_opened_by_its_very_name_at_its_very_server() {
    let mesh = mesh();
    let opens = |from: &str, to: &str, name: &str| {
        let what = What::connection(&format!("postgres {name}")).unwrap();
        decide(&mesh, from, to, what)
    };
    let db = "postgres://db.example.com";
    assert_eq!(opens("prod/checkout", db, "orders"), "orders");
    assert_eq!(opens("prod/checkout", db, "Orders"), "no_rule orders database");
    assert_eq!(opens("prod/report", db, "anything"), "all");
    assert_eq!(opens("prod/report", db, "template1"), "denied_by_rule");
    assert_eq!(
        opens("prod/report", "postgres://db.example.com:6432", "orders"),
        "denied_by_rule"
    );
    for other in ["postgres://db2.example.com", "https://db.example.com"] {
        assert_eq!(opens("prod/checkout", other, "orders"), "no_rule", "{other}");
    }
    // Who may open TLS of its own to the same port opens no session by that, nor the other way round.
    let tls = "tls://db.example.com:5432";
    assert_eq!(decide(&mesh, "prod/checkout", tls, What::Tls), "news");
    assert_eq!(opens("prod/checkout", tls, "orders"), "no_rule news protocol");
    assert_eq!(decide(&mesh, "prod/checkout", db, What::Tls), "no_rule orders protocol");
    assert_eq!(decide(&mesh, "prod/checkout", db, get("/")), "no_rule orders protocol");
}

#[test]
fn everything_survives_writing_and_old_hosts_refuse_it() {
    let mesh = mesh();
    assert_eq!(load(mesh.canonical_json()), mesh);
    let report = mesh.run_tests(now());
    assert_eq!(report.failed(), 0, "{}", report.render(false));
    assert_eq!(
        mesh.features(),
        BTreeSet::from(["credentials", "outside", "postgres"]),
        "a host that does not know the word refuses the slice"
    );
    let of = |name: &str| mesh.credential(name).unwrap().injection.clone();
    let wanted = |user: &str, svid| Injection::Postgres {
        user: user.into(),
        svid,
    };
    assert_eq!(of("orders-db"), wanted("orders_rw", false));
    assert_eq!(of("report-db"), wanted("report_ro", true));
    assert!(of("orders-db").has_value() && !of("report-db").has_value());
}

#[test]
fn a_host_is_told_of_the_databases_of_its_own_bots() {
    let mesh = mesh();
    let slice = load(mesh.slice(&HostName::parse("web-1").unwrap()));
    assert_eq!(load(slice.canonical_json()), slice);
    let names: Vec<_> = slice.credentials().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["orders-db"]);
    let db = Outside::parse("postgres://db.example.com").unwrap();
    assert_eq!(slice.outside_destination(&db), mesh.outside_destination(&db));
    let opens = What::connection("postgres orders").unwrap();
    assert_eq!(
        decide(&slice, "prod/checkout", "postgres://db.example.com", opens),
        "orders"
    );
}
