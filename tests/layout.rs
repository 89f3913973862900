//! The house keeps its shape: who may import whom, and that every member lives under the same lints.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Folder, package, our own packages it may import (ARCHITECTURE.md, "Folders, packages, floors").
const TABLE: &[(&str, &str, &[&str])] = &[
    ("spiffe", "botmesh-spiffe", &[]),
    ("spiffe/tls", "botmesh-spiffe-tls", &["spiffe"]),
    ("policy", "botmesh-policy", &["spiffe"]),
    ("audit", "botmesh-audit", &["spiffe"]),
    ("ca/api", "botmesh-ca-api", &["spiffe"]),
    (
        "ca",
        "botmesh-ca",
        &["audit", "ca_api", "policy", "spiffe", "spiffe_tls"],
    ),
    (
        "proxy",
        "botmesh-proxy",
        &["audit", "ca_api", "policy", "spiffe", "spiffe_tls"],
    ),
    (
        ".",
        "botmesh",
        &["audit", "ca", "ca_api", "policy", "proxy", "spiffe", "spiffe_tls"],
    ),
];

const OURS: &[&str] = &["audit", "ca", "ca_api", "policy", "proxy", "spiffe", "spiffe_tls"];

fn manifest(folder: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("Cargo.toml");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The lines of one `[section]` of a manifest.
fn section<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != format!("[{name}]"))
        .skip(1)
        .take_while(|line| !line.trim_start().starts_with('['))
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

fn our_dependencies(manifest: &str) -> Vec<String> {
    let mut found: Vec<String> = section(manifest, "dependencies")
        .iter()
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| OURS.contains(name))
        .map(ToOwned::to_owned)
        .collect();
    found.sort();
    found
}

#[test]
fn each_package_imports_exactly_what_the_table_allows() {
    let seen: BTreeMap<&str, Vec<String>> = TABLE
        .iter()
        .map(|(folder, ..)| (*folder, our_dependencies(&manifest(folder))))
        .collect();
    let wanted: BTreeMap<&str, Vec<String>> = TABLE
        .iter()
        .map(|(folder, _, imports)| (*folder, imports.iter().map(|i| (*i).to_owned()).collect()))
        .collect();
    assert_eq!(seen, wanted);
}

#[test]
fn every_folder_with_a_manifest_is_a_default_member_or_a_fuzz_folder() {
    let root = manifest(".");
    let members = root
        .lines()
        .find(|line| line.starts_with("default-members"))
        .expect("default-members");
    for (folder, package, _) in TABLE {
        assert!(
            members.contains(&format!("\"{folder}\"")),
            "{folder} is not a default member"
        );
        assert!(
            manifest(folder).contains(&format!("name = \"{package}\"")),
            "{folder} is not {package}"
        );
    }
    assert_eq!(
        members.matches('"').count() / 2,
        TABLE.len(),
        "a member is missing from the table"
    );
}

#[test]
fn every_package_inherits_the_lints_and_forbids_unsafe_code() {
    for (folder, ..) in TABLE {
        assert_eq!(section(&manifest(folder), "lints"), ["workspace = true"], "{folder}");
    }
    assert!(manifest(".").contains("unsafe_code = \"forbid\""));
}

#[test]
fn every_feature_is_for_tests() {
    for (folder, ..) in TABLE {
        for line in section(&manifest(folder), "features") {
            let known = ["test-clock =", "test-lies ="]
                .iter()
                .any(|feature| line.starts_with(feature));
            assert!(known, "{folder} has another feature: {line}");
        }
    }
}

#[test]
fn no_second_crypto_provider_is_in_the_build() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--locked",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("utf-8");
    assert!(tree.lines().any(|line| line.starts_with("aws-lc-rs ")));
    for banned in ["ring ", "openssl ", "openssl-sys ", "native-tls "] {
        assert!(
            !tree.lines().any(|line| line.starts_with(banned)),
            "{banned}is in the build"
        );
    }
}
