//! Asking ledgers: counts, and the way from the serial number in a call to what was issued.

use std::path::Path;

use serde_json::Value;

use crate::spine::{CHECKOUT, two_hosts};
use crate::support::{Caller, Mesh, both, botmesh, eventually, ok, root_or_skip, run};

fn asked(ledger: &Path, args: &[&str]) -> Vec<Value> {
    let text = ok(botmesh()
        .args(["audit", "query"])
        .args(args)
        .arg("-o")
        .arg("json")
        .arg(ledger));
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["items"].as_array().unwrap().clone()
}

#[test]
fn records_are_counted_and_a_serial_leads_to_its_issuance() {
    let dir = tempfile::tempdir().unwrap();
    ok(botmesh().args(["demo", "--once", "--dir"]).arg(dir.path()));
    let ledger = dir.path().join("web-1/ledger");

    let calls = asked(&ledger, &["kind=call"]);
    for more in [&[][..], &["--no-index"]] {
        let groups = asked(&ledger, &[&["kind=call", "--by", "verdict,status"], more].concat());
        let sum: u64 = groups.iter().map(|group| group["count"].as_u64().unwrap()).sum();
        assert_eq!(sum, calls.len() as u64, "{groups:?}");
        let counts = |verdict: &str| -> usize {
            let all = calls.iter().filter(|call| call["verdict"] == verdict);
            all.count()
        };
        let denied = groups.iter().find(|group| group["verdict"] == "deny").unwrap();
        assert_eq!(denied["count"], counts("deny"));
        assert_eq!(denied["status"], Value::Null);
        assert!(denied["first"].as_str().unwrap() <= denied["last"].as_str().unwrap());
    }
    assert_eq!(asked(&ledger, &["", "--by", "kind", "--limit", "1"]).len(), 1);
    let table = ok(botmesh()
        .args(["audit", "query", "kind=call", "--by", "from,rule"])
        .arg(&ledger));
    assert!(table.starts_with("COUNT") && table.contains("demo/checkout"), "{table}");
    let out = run(botmesh().args(["audit", "query", "", "--by", "verdikt"]).arg(&ledger));
    assert_eq!(out.status.code(), Some(2), "{}", both(&out));
    assert!(both(&out).contains("verdict"), "{}", both(&out));
    let many = ["from", "to", "kind", "rule", "reason", "method", "day"].join(",");
    let out = run(botmesh().args(["audit", "query", "", "--by", &many]).arg(&ledger));
    assert_eq!(out.status.code(), Some(2), "{}", both(&out));

    let ends = calls.iter().flat_map(|call| [&call["from"], &call["to"]]);
    let serial = ends.filter_map(|end| end["serial"].as_str()).next().unwrap();
    let wanted = format!("serial={serial}");
    assert!(asked(&ledger, &[&wanted]).iter().any(|record| record["kind"] == "call"));
    let issued = asked(&dir.path().join("ca/ledger"), &[&wanted]);
    assert_eq!(issued.len(), 1, "{issued:?}");
    assert_eq!(issued[0]["kind"], "issued");
    assert_eq!(issued[0]["detail"]["serial"], serial);
}

/// Asks all ledgers; gives the exit code, the answer, and what was said beside it.
fn asked_all(mesh: &Mesh, args: &[&str]) -> (Option<i32>, Value, String) {
    let mut query = botmesh();
    query.args(["audit", "query", "--all", "-o", "json", "--server", &mesh.server()]);
    let out = run(query.args(args));
    let answer = serde_json::from_slice(&out.stdout).unwrap_or_default();
    (
        out.status.code(),
        answer,
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

/// Whose records were found.
fn ledgers(found: &Value) -> Vec<String> {
    let items = found["items"].as_array().unwrap().iter();
    items.map(|item| item["ledger"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_operator_asks_all_ledgers_at_once_and_hears_which_did_not_answer() {
    if !root_or_skip("an_operator_asks_all_ledgers_at_once_and_hears_which_did_not_answer") {
        return;
    }
    let mut mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let answer = checkout.call("GET", "orders.prod.mesh", "/orders/17");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let id = answer.header("botmesh-call").unwrap().to_owned();

    // Both ends of the call, and where its SVID comes from, also from a host that is quarantined.
    let server = mesh.server();
    ok(botmesh().args([
        "quarantine",
        "--host",
        "web-2",
        "--reason",
        "stolen",
        "--server",
        &server,
    ]));
    let (code, found, said) = asked_all(&mesh, &[&format!("id={id}")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 of 3 ledgers answered"), "{said}");
    let mut both_ends = ledgers(&found);
    both_ends.sort();
    assert_eq!(both_ends, ["host:web-1", "host:web-2"], "{found}");
    let items = found["items"].as_array().unwrap();
    let serial = items.iter().find_map(|item| item["from"]["serial"].as_str()).unwrap();
    let (_, found, said) = asked_all(&mesh, &[&format!("serial={serial} kind=issued")]);
    let [ca, host] = ledgers(&found).try_into().unwrap();
    assert!(ca.starts_with("ca:") && host == "host:web-1", "{found} {said}");

    // Counts are of all together.
    let (_, found, _) = asked_all(&mesh, &["kind=call verdict=allow", "--by", "rule"]);
    assert_eq!(found["items"][0]["count"], 2, "{found}");

    // Rows are bounded, and that there are more is said.
    let (code, found, said) = asked_all(&mesh, &["", "--limit", "1"]);
    assert_eq!((code, ledgers(&found).len()), (Some(0), 1), "{said}");
    assert!(said.contains("host:web-1 has more"), "{said}");

    who_asked_is_recorded(&mesh, &id);

    // A host that is away is named, and less than all is no success.
    mesh.host_mut("web-2").process.kill();
    let (found, said) = eventually("web-2 to be gone", || {
        let (code, found, said) = asked_all(&mesh, &["kind=call"]);
        (code == Some(1) && said.contains("not connected")).then_some((found, said))
    });
    assert!(
        said.contains("2 of 3 ledgers answered") && said.contains("host:web-2"),
        "{said}"
    );
    assert_eq!(ledgers(&found), ["host:web-1"]);

    // What no ledger can answer is asked of none, and folders are no part of it.
    assert_eq!(asked_all(&mesh, &["verdikt=deny"]).0, Some(2));
    assert_eq!(asked_all(&mesh, &["", "/tmp"]).0, Some(2));
}

/// Who asked and what is in the CA's ledger and in each host's.
fn who_asked_is_recorded(mesh: &Mesh, id: &str) {
    let by = ok(botmesh()
        .args(["audit", "query", "kind=operator", "-o", "jsonl"])
        .arg(mesh.ca_ledger()));
    let asked = by.lines().filter(|line| line.contains(&format!("id={id}"))).count();
    assert_eq!(asked, 1, "{by}");
    let there = mesh.host("web-2").query("kind=operator");
    assert!(
        there
            .iter()
            .any(|record| record["detail"]["filter"] == format!("id={id}")),
        "{there:?}"
    );
}
