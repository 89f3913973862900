//! What a newcomer sees: the demo, its ledgers, and what happens when one byte is changed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{both, botmesh, ok, run};

fn demo(dir: &Path) -> String {
    ok(botmesh().args(["demo", "--once", "--dir"]).arg(dir))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn the_demo_shows_calls_refusals_and_ledgers_that_verify_until_a_byte_is_flipped() {
    let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
    let shown = demo(dir.path());
    let line = |verdict: &str, word: &str| {
        assert!(
            shown.lines().any(|l| l.contains(verdict) && l.contains(word)),
            "{verdict} {word}: {shown}"
        );
    };
    line("ALLOW", "checkout-reads-orders");
    line("DENY", "no_rule");
    line("DENY", "denied_by_rule");
    line("ALLOW", "X25519MLKEM768");

    let mesh = dir.path().join("mesh.yaml");
    ok(botmesh().args(["policy", "check"]).arg(&mesh));
    ok(botmesh().args(["policy", "test"]).arg(&mesh));

    let ledgers: Vec<PathBuf> = ["ca", "web-1", "web-2"]
        .iter()
        .map(|h| dir.path().join(h).join("ledger"))
        .collect();
    for ledger in &ledgers {
        let out = run(botmesh().args(["audit", "verify"]).arg(ledger));
        assert!(out.status.success(), "{}: {}", ledger.display(), both(&out));
    }
    for file in files(&ledgers[1]) {
        let name = file.display().to_string();
        if !(name.contains("/segments/") || name.contains("/tile/")) {
            continue;
        }
        let whole = fs::read(&file).expect("a file");
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x01;
            fs::write(&file, flipped).expect("written");
            let out = run(botmesh().args(["audit", "verify"]).arg(&ledgers[1]));
            assert_eq!(out.status.code(), Some(1), "{name} byte {at}: {}", both(&out));
            assert!(both(&out).contains("record"), "{name} byte {at}: {}", both(&out));
        }
        fs::write(&file, whole).expect("written");
    }
    ok(botmesh().args(["audit", "verify"]).arg(&ledgers[1]));
}

#[test]
fn every_attack_of_the_demo_is_refused() {
    let out = run(botmesh().args(["demo", "--attack", "--once"]));
    assert!(out.status.success(), "{}", both(&out));
    let shown = both(&out);
    assert!(shown.matches("refused").count() >= 7, "{shown}");
}

#[test]
fn the_shipped_build_has_no_test_clock() {
    let Some(shipped) = std::env::var_os("BOTMESH_SHIPPED") else {
        println!("skipped: the shipped build has no test clock: BOTMESH_SHIPPED is set by tests/run");
        return;
    };
    let version = ok(std::process::Command::new(&shipped).arg("--version"));
    assert!(!version.contains("test-clock"), "{version}");
    assert!(
        ok(botmesh().arg("--version")).contains("test-clock"),
        "the build under test says so"
    );
    let out = run(std::process::Command::new(&shipped).args(["ca", "run", "--config", "x", "--clock", "unix:/x"]));
    assert_eq!(out.status.code(), Some(2), "an unknown argument: {}", both(&out));
    assert!(both(&out).contains("--clock"), "{}", both(&out));
    let lies = |program: &std::ffi::OsStr| {
        let bytes = fs::read(program).unwrap();
        memchr::memmem::find(&bytes, b"BOTMESH_TEST_LIES").is_some()
    };
    assert!(!lies(&shipped), "nor can it lie in its ledger");
    assert!(lies(botmesh().get_program()), "the build under test can");
}
