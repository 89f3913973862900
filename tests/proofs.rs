//! Proofs of single records: for somebody who has neither the ledger nor a server, and by other people's code too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{both, botmesh, ok, run};

/// The ledger of a host after the demo, with its folder.
fn ledger() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    ok(botmesh().args(["demo", "--once", "--dir"]).arg(dir.path()));
    let ledger = dir.path().join("web-1/ledger");
    (dir, ledger)
}

fn prove(ledger: &Path, record: &[&str], file: &Path) {
    let text = ok(botmesh().args(["audit", "prove"]).args(record).arg(ledger));
    fs::write(file, text).unwrap();
}

fn verify(proof: &Path, key: &Path) -> std::process::Output {
    run(botmesh().args(["audit", "verify"]).arg(proof).arg("--key").arg(key))
}

#[test]
fn a_record_is_proven_by_its_text_and_the_public_key_alone() {
    let (dir, ledger) = ledger();
    let key = ledger.join("ledger.vkey");
    let found = ok(botmesh()
        .args(["audit", "query", "kind=call verdict=deny", "-o", "jsonl"])
        .arg(&ledger));
    let call: serde_json::Value = serde_json::from_str(found.lines().next().unwrap()).unwrap();
    let id = call["id"].as_str().unwrap();
    let proof = dir.path().join("call.tlog-proof");
    prove(&ledger, &[id], &proof);
    let out = verify(&proof, &key);
    assert!(out.status.success(), "{}", both(&out));
    let shown = both(&out);
    assert!(shown.contains("proven") && shown.contains("DENY"), "{shown}");

    // Somebody else has another key, and somebody has changed the record.
    let out = verify(&proof, &dir.path().join("web-2/ledger/ledger.vkey"));
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    assert!(both(&out).contains("not proven"), "{}", both(&out));
    let text = fs::read_to_string(&proof).unwrap();
    let index: u64 = text.lines().nth(2).unwrap()["index ".len()..].parse().unwrap();
    let moved = text.replace(&format!("\nindex {index}\n"), &format!("\nindex {}\n", index ^ 1));
    fs::write(&proof, moved).unwrap();
    let out = verify(&proof, &key);
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    let wanted = format!("the record is not number {} of those under the checkpoint", index ^ 1);
    assert!(both(&out).contains(&wanted), "{}", both(&out));
}

#[test]
fn every_record_of_a_ledger_has_a_proof_and_no_other_number_has_one() {
    let (dir, ledger) = ledger();
    let report = ok(botmesh().args(["audit", "verify", "-o", "json"]).arg(&ledger));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let records = report["records"].as_u64().unwrap();
    let proof = dir.path().join("p.tlog-proof");
    for index in [0, 1, records / 2, records - 1] {
        prove(&ledger, &[&index.to_string()], &proof);
        let out = verify(&proof, &ledger.join("ledger.vkey"));
        assert!(out.status.success(), "{index}: {}", both(&out));
    }
    let out = run(botmesh().args(["audit", "prove", &records.to_string()]).arg(&ledger));
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    assert!(both(&out).contains("no checkpoint covers record"), "{}", both(&out));
}

#[test]
fn a_proof_without_a_key_and_a_text_that_is_none_are_told_apart() {
    let (dir, ledger) = ledger();
    let proof = dir.path().join("p.tlog-proof");
    prove(&ledger, &["0"], &proof);
    let out = run(botmesh().args(["audit", "verify"]).arg(&proof));
    assert_eq!(out.status.code(), Some(2), "{}", both(&out));
    assert!(both(&out).contains("--key"), "{}", both(&out));
    fs::write(&proof, "c2sp.org/tlog-proof@v1\nindex x\n\n").unwrap();
    let out = verify(&proof, &ledger.join("ledger.vkey"));
    assert_eq!(out.status.code(), Some(3), "{}", both(&out));
    assert!(
        both(&out).contains("line 2 is not `index` and a number"),
        "{}",
        both(&out)
    );
    for record in ["17x", "-1"] {
        let out = run(botmesh().args(["audit", "prove", "--", record]).arg(&ledger));
        assert_eq!(out.status.code(), Some(2), "{record}: {}", both(&out));
    }
}

#[test]
fn a_record_that_was_changed_in_the_ledger_has_no_proof() {
    let (_dir, ledger) = ledger();
    let segment = ledger.join("segments/00000000000000000000.jsonl");
    let text = fs::read_to_string(&segment).unwrap();
    fs::write(
        &segment,
        text.replacen("\"kind\":\"started\"", "\"kind\":\"stopped\"", 1),
    )
    .unwrap();
    let index = text
        .lines()
        .position(|line| line.contains("\"kind\":\"started\""))
        .unwrap();
    let out = run(botmesh().args(["audit", "prove", &index.to_string()]).arg(&ledger));
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    let wanted = format!("record {index} is not the one under the checkpoint");
    assert!(both(&out).contains(&wanted), "{}", both(&out));
}

#[test]
fn the_packages_of_go_take_our_proofs_and_we_take_theirs() {
    let Some(go) = std::env::var_os("BOTMESH_GO") else {
        println!("skipped: proofs by Go: BOTMESH_GO names no go command");
        return;
    };
    let (dir, ledger) = ledger();
    let go = |args: &[&Path], first: &str| {
        let mut command = Command::new(&go);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tlog"));
        command.args(["run", ".", first]).args(args);
        ok(&mut command)
    };
    let report = ok(botmesh().args(["audit", "verify", "-o", "json"]).arg(&ledger));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let proof = dir.path().join("p.tlog-proof");
    for index in [0, report["records"].as_u64().unwrap() - 1] {
        prove(&ledger, &[&index.to_string()], &proof);
        let told = go(&[&ledger.join("ledger.vkey"), &proof], "check");
        print!("{told}");
        assert!(told.contains(&format!("record {index} of ")), "{told}");
    }
    let theirs = tempfile::tempdir().unwrap();
    go(&[theirs.path()], "make");
    let key = theirs.path().join("vkey");
    for index in 0..10 {
        let out = verify(&theirs.path().join(format!("{index}.tlog-proof")), &key);
        assert!(out.status.success(), "{index}: {}", both(&out));
        assert!(
            both(&out).contains("of go.example/log, under a checkpoint over 10"),
            "{}",
            both(&out)
        );
    }
}
