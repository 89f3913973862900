//! `path: hashed`: of which calls the records have a hash in the place of the path.

use policy::{Call, Callee, CanonicalPath, Generation, HttpAsk, Mesh, Method, What};
use spiffe::id::{HostName, SpiffeId};

use crate::generate::load;

const MESH: &str = r#"version: 1
trust_domain: acme.internal
bots:
  prod/ward: {owner: o, hosts: [web-1], attest: {user: ward}}
  prod/desk: {owner: o, hosts: [web-3], attest: {user: desk}}
  prod/patients: {owner: o, hosts: [web-2], attest: {user: patients}, serve: {http: 80}}
  prod/stock: {owner: o, hosts: [web-2], attest: {user: stock}, serve: {http: 81}}
allow:
  - {id: a-health, from: "**", to: prod/**, http: [GET /health, "GET /patients/*/photo"]}
  - {id: reads, from: prod/ward, to: prod/patients, http: ["GET /patients/**"], path: hashed}
  - {id: stock, from: prod/ward, to: prod/stock, http: ["GET /**"]}
  - {id: mail, from: prod/ward, to: "https://mail.example", http: ["POST /**"], path: hashed}
  - {id: news, from: prod/ward, to: "https://news.example", http: ["GET /**"]}
  - {id: last-year, from: prod/desk, to: prod/stock, http: ["GET /people/*"], path: hashed, until: 2020-01-01T00:00:00Z, reason: over}
deny:
  - {id: no-notes, from: [prod/ward, prod/desk], to: prod/patients, http: ["* /notes/**"], reason: no, path: hashed}
"#;

fn id(bot: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://acme.internal/{bot}")).unwrap()
}

fn get(path: &str) -> What {
    let path = CanonicalPath::parse(path.as_bytes()).unwrap();
    What::Http(HttpAsk::new(Method::parse("GET").unwrap(), path))
}

#[test]
fn one_rule_that_speaks_of_an_allowed_call_hides_its_path_whichever_rule_allows_it() {
    let policy = load(MESH.to_owned()).compile(Generation::default());
    for (from, to, path, hides) in [
        ("prod/ward", "prod/patients", "/patients/17", true),
        // The rule that allows it by its id says nothing of that.
        ("prod/ward", "prod/patients", "/patients/17/photo", true),
        ("prod/ward", "prod/patients", "/health", false),
        ("prod/desk", "prod/patients", "/patients/17/photo", false),
        // A deny rule that does not speak of the call is none of its.
        ("prod/ward", "prod/stock", "/patients/17", false),
        ("prod/ward", "https://news.example", "/patients/17", false),
        ("prod/desk", "prod/stock", "/people/17", true),
    ] {
        let call = Call {
            from: id(from),
            to: to.parse().unwrap(),
            what: get(path),
        };
        assert_eq!(policy.hides_path(&call), hides, "{from} {to} {path}");
    }
    let post = HttpAsk::new(
        Method::parse("POST").unwrap(),
        CanonicalPath::parse(b"/letters/17").unwrap(),
    );
    let call = Call {
        from: id("prod/ward"),
        to: "https://mail.example".parse().unwrap(),
        what: What::Http(post),
    };
    assert!(policy.hides_path(&call));
    assert!(!policy.hides_path(&Call {
        what: What::Tcp { port: 80 },
        ..call
    }));
}

#[test]
fn of_a_refused_call_one_rule_about_its_callee_is_enough_or_about_its_caller_where_nobody_is_called() {
    let policy = load(MESH.to_owned()).compile(Generation::default());
    let ends = |from: &str, to: &str| policy.may_hide_path(&id(from), Some(&to.parse::<Callee>().unwrap()));
    assert!(ends("prod/ward", "prod/patients"));
    assert!(ends("prod/stock", "prod/patients"), "whoever calls it");
    assert!(ends("prod/nobody", "prod/patients"), "also one that does not exist");
    assert!(!ends("prod/ward", "prod/desk"));
    assert!(!ends("prod/ward", "https://news.example"));
    assert!(ends("prod/ward", "https://mail.example"));
    assert!(ends("prod/ward", "prod/patient"), "a name that was mistyped");
    assert!(ends("prod/ward", "https://mail.exampel"));
    assert!(!ends("prod/stock", "prod/patient"));
    assert!(policy.may_hide_path(&id("prod/ward"), None));
    assert!(!policy.may_hide_path(&id("prod/patients"), None));
    assert!(!policy.may_hide_path(&id("prod/nobody"), None));
    let plain = load(MESH.replace(", path: hashed", "")).compile(Generation::default());
    assert!(!plain.may_hide_path(&id("prod/ward"), None));
}

#[test]
fn slices_have_it_and_need_hosts_that_know_it() {
    let mesh = load(MESH.to_owned());
    let host = |name: &str| HostName::parse(name).unwrap();
    let slice = |name: &str| load(mesh.slice(&host(name)));
    let hides = |mesh: &Mesh| {
        let policy = mesh.compile(Generation::default());
        policy.may_hide_path(&id("prod/ward"), Some(&"prod/patients".parse().unwrap()))
    };
    assert!(hides(&slice("web-1")) && hides(&slice("web-2")));
    for name in ["web-1", "web-2"] {
        assert!(mesh.features_for(&host(name)).contains("path_hashed"), "{name}");
    }
    assert!(policy::feature::ENFORCED.contains(&"path_hashed"));
    assert_eq!(load(mesh.canonical_json()), mesh);
    let plain = load(MESH.replacen(", path: hashed", "", 1));
    assert_ne!(plain, mesh);
    assert!(
        !load(MESH.replace(", path: hashed", ""))
            .features()
            .contains("path_hashed")
    );
}
