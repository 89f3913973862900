//! Asking ledgers: counts, and the way from the serial number in a call to what was issued.

use std::path::Path;

use serde_json::Value;

use crate::support::{both, botmesh, ok, run};

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
