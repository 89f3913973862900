//! TCP and the outside: who may, what denies, what a host is told.

use std::collections::BTreeSet;

use policy::{Call, Generation, HttpAsk, Mesh, Method, Outside, Serve, Target, What};
use spiffe::id::{BotName, HostName, SpiffeId};

use crate::generate::{load, now};

const MESH: &str = r#"
version: 1
trust_domain: acme.internal
bots:
  prod/orders: {owner: o, hosts: [web-1], attest: {user: orders}, serve: {http: 8080}}
  prod/support: {owner: o, hosts: [web-2], attest: {user: support}}
  prod/orders-db: {owner: o, hosts: [db-1], attest: {user: postgres}, serve: {tcp: [5432, 6432], proxy_protocol: v2}}
  prod/cache: {owner: o, hosts: [db-1], attest: {user: redis}, serve: {tcp: {6379: "unix:/run/redis/redis.sock", 6380: 16380}}}
allow:
  - {id: orders-db, from: prod/orders, to: prod/orders-db, tcp: [5432]}
  - {id: caches, from: prod/**, to: prod/*, tcp: 6379}
  - {id: reads, from: prod/support, to: prod/**, http: [GET /**]}
  - {id: llm, from: prod/support, to: "https://api.example.com", http: [POST /v1/messages]}
  - {id: feed, from: prod/support, to: ["http://feed.example.com:8080", "https://feed.example.com"], http: ["GET /**"]}
  - {id: news, from: prod/support, to: "tls://*.news.example", justify: "opaque TLS, by name only"}
  - {id: main-news, from: prod/support, to: "tls://www.news.example", justify: the front page}
deny:
  - {id: no-secrets, from: "**", to: "https://feed.example.com", http: ["* /secret/**"], reason: not ours}
  - {id: no-ads, from: "**", to: "tls://ads.news.example", reason: no ads}
limits:
  - {id: budget, from: prod/support, to: "https://api.example.com", rate: 10/m, burst: 2}
  - {id: connections, from: "**", to: prod/cache, rate: 5/s, burst: 5}
destinations:
  "https://api.example.com": {addresses: [10.20.0.0/16, 192.0.2.7], connect_timeout: 2s}
  "tls://*.news.example": {addresses: 198.51.100.0/24}
  prod/orders-db: {stream_idle: 10m}
tests:
  - {name: db, from: prod/orders, to: prod/orders-db, allow: [tcp 5432], deny: [tcp 6432, "GET /"]}
  - {name: llm, from: prod/support, to: "https://api.example.com", allow: [POST /v1/messages], deny: [GET /v1/messages, tls]}
  - {name: news, from: prod/support, to: "tls://x.news.example", by: news, allow: tls}
"#;

fn mesh() -> Mesh {
    load(MESH.to_owned())
}

fn call(from: &str, to: &str, what: What) -> Call {
    let to = to.parse().unwrap();
    let from = SpiffeId::parse(&format!("spiffe://acme.internal/{from}")).unwrap();
    Call { from, to, what }
}

pub(super) fn get(path: &str) -> What {
    let path = policy::CanonicalPath::parse(path.as_bytes()).unwrap();
    What::Http(HttpAsk::new(Method::parse("GET").unwrap(), path))
}

/// The rule, or the reason and the attributes in which the nearest rule differs.
pub(super) fn decide(mesh: &Mesh, from: &str, to: &str, what: What) -> String {
    let policy = mesh.compile(Generation::default());
    match policy.decide(now(), call(from, to, what)) {
        Ok(permit) => permit.rule().map_or_else(|| "audit".to_owned(), ToString::to_string),
        Err(denial) => {
            let nearest = denial.nearest.map(|nearest| {
                let differs: Vec<_> = nearest
                    .differs
                    .iter()
                    .map(|differs| differs.attribute.as_str())
                    .collect();
                format!(" {} {}", nearest.rule, differs.join(","))
            });
            format!("{}{}", denial.reason, nearest.unwrap_or_default())
        }
    }
}

#[test]
fn a_connection_is_allowed_by_its_port() {
    let mesh = mesh();
    let tcp = |from, to, port| decide(&mesh, from, to, What::Tcp { port });
    assert_eq!(tcp("prod/orders", "prod/orders-db", 5432), "orders-db");
    assert_eq!(tcp("prod/orders", "prod/orders-db", 6432), "no_rule caches port");
    assert_eq!(tcp("prod/support", "prod/orders-db", 5432), "no_rule caches port");
    assert_eq!(tcp("prod/support", "prod/cache", 6379), "caches");
    // The pattern matches a bot that serves HTTP, of which a rule with `tcp` does not speak.
    assert_eq!(tcp("prod/support", "prod/orders", 6379), "no_rule reads protocol");
    assert_eq!(
        decide(&mesh, "prod/support", "prod/orders-db", get("/")),
        "no_rule caches protocol"
    );
}

#[test]
fn what_a_connection_lacks_matches_in_a_deny_rule_and_never_in_an_allow_rule() {
    let text = MESH.replace(
        "deny:\n",
        "deny:\n  - {id: no-admin, from: \"**\", to: prod/orders-d*, http: [\"* /admin/**\"], reason: people only}\n  - {id: no-port, from: prod/support, to: \"prod/**\", tcp: [22], reason: no shells}\n",
    );
    // The tests of the mesh say otherwise; they are not run here.
    let mesh = load(text);
    let deny = "denied_by_rule";
    assert_eq!(
        decide(&mesh, "prod/orders", "prod/orders-db", What::Tcp { port: 5432 }),
        deny
    );
    assert_eq!(decide(&mesh, "prod/support", "prod/orders", get("/x")), deny);
    assert_eq!(
        decide(&mesh, "prod/support", "prod/cache", What::Tcp { port: 6379 }),
        "caches"
    );
    assert_eq!(
        decide(&mesh, "prod/support", "prod/cache", What::Tcp { port: 22 }),
        deny
    );
    let warned = mesh.warnings().render(false);
    for told in [
        "rule `no-admin` denies every tcp call to `prod/orders-db`",
        "rule `no-port` denies every http call to `prod/orders`",
    ] {
        assert!(warned.contains(told), "{warned}");
    }
}

#[test]
fn the_outside_is_called_by_its_very_name_and_port() {
    let mesh = mesh();
    let asked = |to: &str, path: &str| decide(&mesh, "prod/support", to, get(path));
    assert_eq!(asked("https://feed.example.com", "/a"), "feed");
    assert_eq!(asked("http://feed.example.com:8080", "/a"), "feed");
    assert_eq!(asked("https://feed.example.com", "/SECRET/a"), "denied_by_rule");
    assert_eq!(asked("https://api.example.com", "/v1/messages"), "no_rule llm method");
    for to in [
        "http://feed.example.com",
        "https://feed.example.com:8080",
        "https://x.feed.example.com",
        "https://example.com",
        "tls://feed.example.com",
    ] {
        assert_eq!(asked(to, "/a"), "no_rule", "{to}");
    }
    assert_eq!(
        decide(&mesh, "prod/orders", "https://feed.example.com", get("/a")),
        "no_rule"
    );
    assert_eq!(
        decide(&mesh, "prod/support", "https://api.example.com", What::Tls),
        "no_rule llm protocol"
    );
}

#[test]
fn tls_is_allowed_by_name_or_by_one_label_below_it() {
    let mesh = mesh();
    let tls = |to: &str| decide(&mesh, "prod/support", to, What::Tls);
    assert_eq!(tls("tls://www.news.example"), "main-news", "of two the least id");
    assert_eq!(tls("tls://x.news.example"), "news");
    assert_eq!(tls("tls://ads.news.example"), "denied_by_rule");
    for to in [
        "tls://news.example",
        "tls://a.b.news.example",
        "tls://x.news.example:8443",
    ] {
        assert_eq!(tls(to), "no_rule", "{to}");
    }
    assert_eq!(
        decide(&mesh, "prod/support", "tls://x.news.example", get("/")),
        "no_rule news protocol",
        "a request that is not hidden in TLS is no TLS"
    );
}

#[test]
fn everything_survives_writing_and_its_own_tests_pass() {
    let mesh = mesh();
    assert_eq!(load(mesh.canonical_json()), mesh);
    assert_eq!(
        mesh.run_tests(now()).failed(),
        0,
        "{}",
        mesh.run_tests(now()).render(false)
    );
    assert_eq!(
        mesh.features(),
        BTreeSet::from(["destinations", "limits", "outside", "tcp"])
    );
}

#[test]
fn a_host_is_told_of_the_outside_and_of_ports_what_its_bots_need() {
    let mesh = mesh();
    let slice = |host: &str| load(mesh.slice(&HostName::parse(host).unwrap()));
    let (web, db, caller) = (slice("web-1"), slice("db-1"), slice("web-2"));
    for slice in [&web, &db, &caller] {
        assert_eq!(load(slice.canonical_json()), *slice);
    }
    let Some(Serve::Tcp(tcp)) = &web.bots()[&BotName::parse("prod/orders-db").unwrap()].serve else {
        panic!("{web:?}")
    };
    assert_eq!(
        tcp.ports
            .iter()
            .map(|(port, at)| (*port, at.clone()))
            .collect::<Vec<_>>(),
        [(5432, Target::Elsewhere), (6432, Target::Elsewhere)]
    );
    assert!(!tcp.proxy_protocol);
    let Some(Serve::Tcp(tcp)) = &db.bots()[&BotName::parse("prod/cache").unwrap()].serve else {
        panic!("{db:?}")
    };
    assert_eq!(tcp.ports[&6379], Target::Unix("/run/redis/redis.sock".into()));
    assert_eq!(tcp.ports[&6380], Target::Port(16380));
    // The outside is the caller's host's own affair.
    let api = Outside::parse("https://api.example.com").unwrap();
    // It needs to know the rules that deny the outside to everybody.
    assert!(caller.features().contains("outside") && web.features().contains("outside"));
    assert!(!db.features().contains("destinations") || db.outside_destination(&api).is_none());
    assert_eq!(caller.outside_destination(&api), mesh.outside_destination(&api));
    assert_eq!(web.outside_destination(&api), None);
    let news = Outside::parse("tls://x.news.example").unwrap();
    assert_eq!(caller.outside_destination(&news).unwrap().addresses.len(), 1);
    assert_eq!(
        decide(&caller, "prod/support", "tls://x.news.example", What::Tls),
        "news"
    );
    let limits = |slice: &Mesh, from: &str, to: &str, what: What| -> Vec<String> {
        let policy = slice.compile(Generation::default());
        policy
            .limits_of(&call(from, to, what))
            .map(|(id, _)| id.to_string())
            .collect()
    };
    assert_eq!(
        limits(&caller, "prod/support", "https://api.example.com", get("/")),
        ["budget"]
    );
    assert_eq!(
        limits(&db, "prod/orders", "prod/cache", What::Tcp { port: 6379 }),
        ["connections"]
    );
}

#[test]
fn audit_only_carries_connections_to_bots() {
    let text = MESH.replace(
        "limits:\n",
        "audit_only:\n  - {to: prod/orders-db, until: 2027-01-01T00:00:00Z, reason: first rollout}\nlimits:\n",
    );
    let mesh = load(text);
    assert_eq!(
        decide(&mesh, "prod/support", "prod/orders-db", What::Tcp { port: 6432 }),
        "audit"
    );
}

#[test]
fn a_bot_with_its_own_tls_is_told_to_every_host_that_calls_it() {
    let text = |place: &str| {
        format!(
            r#"
version: 1
trust_domain: acme.internal
bots:
  prod/orders: {{owner: o, hosts: [web-1], attest: {{user: orders}}}}
  prod/ledger: {{owner: o, hosts: [bank-1], attest: {{user: ledger}}, serve: {{{place}}}}}
  prod/lonely: {{owner: o, hosts: [web-3], attest: {{user: lonely}}}}
allow:
  - {{id: entries, from: prod/orders, to: prod/ledger, http: [POST /entries]}}
limits:
  - {{id: budget, from: prod/orders, to: prod/ledger, rate: 1/s, burst: 1}}
"#
        )
    };
    let mesh = load(text(
        "http: mtls, endpoints: [\"10.0.0.7:8443\", \"ledger.corp.example:8443\"]",
    ));
    assert!(mesh.features().contains(policy::feature::ENDPOINTS));
    let host = |name: &str| HostName::parse(name).unwrap();
    for name in ["web-1", "bank-1"] {
        let slice = mesh.slice(&host(name));
        let read = load(slice.clone());
        assert!(read.features().contains(policy::feature::ENDPOINTS), "{name}");
        assert_eq!(read.canonical_json(), slice);
        let ledger = read.bots()[&BotName::parse("prod/ledger").unwrap()]
            .serve
            .clone()
            .unwrap();
        assert_eq!(
            ledger.to_string(),
            "http by its own TLS at 10.0.0.7:8443, ledger.corp.example:8443",
            "{name}"
        );
        assert!(slice.contains("budget"), "{name}");
    }
    assert!(!mesh.slice(&host("web-3")).contains("budget"), "whoever calls counts");
    let plain = load(text("http: 8080"));
    assert!(!plain.features().contains(policy::feature::ENDPOINTS));
    assert!(
        !plain.slice(&host("web-1")).contains("budget"),
        "the callee's proxy counts"
    );
}
