//! `path: hashed`: what a path says is nowhere but in the call itself, and records can be counted by it all the same.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::spine::{CHECKOUT, REPORT, two_hosts};
use crate::support::{Answer, Caller, Mesh, both, botmesh, eventually, http_get, ok, root_or_skip, run};

/// Who a path speaks of.
const PLANTED: &str = "anna-q7x";

/// People's paths at both callees; another rule of the same callee says nothing of them.
fn with_people(mesh: &Mesh) {
    let text = std::fs::read_to_string(mesh.mesh_file()).unwrap();
    let text = text + "audit_only:\n  - {to: prod/stock, until: 2099-01-01T00:00:00Z, reason: first rollout}\n";
    mesh.apply(&text.replacen(
        "allow:\n",
        "allow:\n  - {id: people, from: prod/checkout, to: [prod/orders, prod/stock], http: [GET /people/**], path: hashed}\n",
        1,
    ));
}

/// Every way in which a call about somebody ends.
fn calls(mesh: &Mesh) {
    let socket = mesh.host("web-1").bot_socket();
    let mut checkout = Caller::new(CHECKOUT, &socket);
    let mut report = Caller::new(REPORT, &socket);
    let about = |tail: &str| format!("/people/{PLANTED}{tail}");
    for (host, path) in [
        ("orders.prod.mesh", about(&format!("?of={PLANTED}&{PLANTED}"))),
        ("orders.prod.mesh", about("")),
        ("stock.prod.mesh", about("")),
        ("orders.prod.mesh", "/orders/17?page=2".to_owned()),
    ] {
        let answer = checkout.call("GET", host, &path);
        assert_eq!(
            (answer.status, &answer.json()["path"]),
            (200, &Value::from(path)),
            "as it was sent"
        );
    }
    let refused = |answer: Answer, reason: &str| assert_eq!(answer.reason(), reason, "{}", answer.body);
    refused(checkout.call("DELETE", "orders.prod.mesh", &about("")), "no_rule");
    refused(report.call("GET", "orders.prod.mesh", &about("")), "no_rule");
    let ended = report.call("GET", "orders.prod.mesh", &format!("/years/{PLANTED}"));
    refused(ended, "rule_expired");
    for (host, path, reason) in [
        ("orders.prod.mesh", format!("/admin/{PLANTED}"), "denied_by_rule"),
        ("orders.prod.mesh", about("/../x"), "bad_path"),
        ("order.prod.mesh", about(""), "no_rule"),
        ("nowhere.example", about(""), "outside_forbidden"),
    ] {
        refused(checkout.call("GET", host, &path), reason);
    }
    let tried = checkout.call("GET", "stock.prod.mesh", &format!("/{PLANTED}"));
    assert_eq!(tried.status, 200, "no rule, and carried for a time: {}", tried.body);
}

/// Everything that a mesh writes, but for what its callees do.
fn written(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
            let of_callee = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("callee-"));
            match (kind.is_dir(), kind.is_file() && !of_callee) {
                (true, _) => folders.push(path),
                (false, true) => found.push(path),
                (false, false) => {}
            }
        }
    }
    found
}

fn holds(text: &[u8]) -> bool {
    text.windows(PLANTED.len()).any(|window| window == PLANTED.as_bytes())
}

/// The hashes under which a ledger has a path.
fn hashes(ledger: &Path, filter: &str) -> Vec<String> {
    let out = ok(botmesh().args(["audit", "query", filter, "-o", "jsonl"]).arg(ledger));
    let records = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records
        .map(|record| record["path"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_path_that_a_rule_hides_is_nowhere_but_in_the_call() {
    if !root_or_skip("hashed paths") {
        return;
    }
    let mesh = two_hosts("");
    with_people(&mesh);
    calls(&mesh);
    let shown = eventually("the refusals at the CA", || {
        let shown = ok(botmesh().args(["bot", "show", "prod/orders", "-o", "json", "--server", &mesh.server()]));
        shown.contains("rule_expired").then_some(shown)
    });
    assert!(shown.contains("hashed:") && !holds(shown.as_bytes()), "{shown}");
    let status = ok(botmesh().args(["status", "--server", &mesh.server()]));
    assert!(status.contains("GET hashed:") && !holds(status.as_bytes()), "{status}");
    let (web_1, web_2) = (mesh.host("web-1").ledger(), mesh.host("web-2").ledger());
    by_hash(&web_1, &web_2);
    reconciled(&web_1, &web_2);
    for host in ["web-1", "web-2"] {
        let (_, metrics) = http_get(mesh.host(host).ports.metrics, "/metrics").unwrap();
        assert!(metrics.contains("people") && !holds(metrics.as_bytes()), "{metrics}");
        let key = mesh.host(host).dir.join("path.key");
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let files = written(mesh.dir());
    assert!(files.iter().any(|path| path.ends_with("ca/ca.db")), "{files:?}");
    let mut planted = files
        .iter()
        .filter(|path| holds(&std::fs::read(path).unwrap_or_default()));
    assert_eq!(planted.next(), None);
}

/// What can be counted by a path can be counted by its hash; what no rule hides is as it was.
fn by_hash(web_1: &Path, web_2: &Path) {
    let out = hashes(web_1, "kind=call direction=out rule=people verdict=allow");
    assert_eq!(out.len(), 3);
    assert!(out.iter().all(|path| path.starts_with("hashed:")), "{out:?}");
    assert_eq!(BTreeSet::from_iter(&out).len(), 1, "one path, one hash");
    let there = hashes(web_2, "kind=call direction=in rule=people");
    assert_eq!(there.len(), 2);
    assert_eq!(BTreeSet::from_iter(&there).len(), 1);
    assert_ne!(there[0], out[0], "each host has a key of its own");
    let found = hashes(web_1, &format!("path={} direction=out", out[0]));
    // Two to orders, one to stock, and four refusals: the method, the caller, and two names that nobody has.
    assert_eq!(found.len(), 7, "{found:?}");
    for ledger in [web_1, web_2] {
        assert_eq!(hashes(ledger, "rule=checkout-reads-orders"), ["/orders/17"]);
    }
    let names = ok(botmesh()
        .args(["audit", "query", "rule=people", "-o", "jsonl"])
        .arg(web_2));
    assert!(!names.contains("\"query\""), "{names}");
}

/// Neither proxy is accused of what the other cannot read.
fn reconciled(web_1: &Path, web_2: &Path) {
    let out = run(botmesh().args(["audit", "reconcile"]).args([web_1, web_2]));
    assert!(out.status.success(), "{}", both(&out));
    assert!(both(&out).contains("the paths of 2 are hashes"), "{}", both(&out));
}
