//! The certificates, read by code that had no part in writing them.

use std::process::Command;
use std::time::Duration;

use spiffe_tls::PrivateKey;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::*;

struct Issued {
    root: Vec<u8>,
    leaf: Vec<u8>,
    now: i64,
}

async fn issued() -> Issued {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let csr = PrivateKey::generate().unwrap().csr(&bot_id("prod/checkout")).unwrap();
    let result = ca.connect(&host).await.issue("prod/checkout", csr).await.unwrap();
    let root = host.bundle.authorities()[0].der().to_vec();
    Issued {
        root,
        leaf: result.chain[0].clone(),
        now: ca.clock.now().unix_seconds(),
    }
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let names = certificate.subject_alternative_name().unwrap().unwrap().value;
    let uri = |name: &GeneralName<'a>| match name {
        GeneralName::URI(uri) => *uri,
        other => panic!("{other:?}"),
    };
    names.general_names.iter().map(uri).collect()
}

fn key_ids(certificate: &X509Certificate<'_>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (mut subject, mut authority) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                authority = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    (subject, authority)
}

#[tokio::test]
async fn a_leaf_has_the_fixed_profile() {
    let issued = issued().await;
    let leaf = parse(&issued.leaf);
    assert_eq!(uris(&leaf), ["spiffe://acme.internal/prod/checkout"]);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert!(usage.value.digital_signature());
    assert_eq!(usage.value.flags, 1, "digitalSignature and nothing else");
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth);
    assert!(!extended.any && !extended.code_signing && !extended.email_protection && extended.other.is_empty());
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(!constraints.value.ca);
    assert_eq!(
        leaf.subject().to_string(),
        "O=botmesh, CN=spiffe://acme.internal/prod/checkout"
    );
    assert_eq!(leaf.extensions().len(), 6, "SAN, KU, EKU, basic constraints, SKI, AKI");
}

#[tokio::test]
async fn times_are_backdated_by_a_minute_and_end_with_the_ttl_of_the_bot() {
    let issued = issued().await;
    let leaf = parse(&issued.leaf);
    assert_eq!(leaf.validity().not_before.timestamp(), issued.now - 60);
    assert_eq!(leaf.validity().not_after.timestamp(), issued.now + 15 * 60);
}

#[tokio::test]
async fn serials_are_sixteen_random_bytes_and_positive() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let csr = PrivateKey::generate().unwrap().csr(&bot_id("prod/checkout")).unwrap();
        let chain = connection.issue("prod/checkout", csr).await.unwrap().chain;
        let serial = parse(&chain[0]).raw_serial().to_vec();
        assert_eq!(serial.len(), 16);
        assert!((0x40..0x80).contains(&serial[0]));
        seen.insert(serial);
    }
    assert_eq!(seen.len(), 20);
}

#[tokio::test]
async fn the_root_has_a_name_of_its_own_and_may_sign_leaves_only() {
    let first = issued().await;
    let second = issued().await;
    let root = parse(&first.root);
    assert_ne!(root.subject().as_raw(), parse(&second.root).subject().as_raw());
    assert_eq!(root.subject().as_raw(), root.issuer().as_raw());
    assert_eq!(
        root.subject().iter_organization().next().unwrap().as_str().unwrap(),
        "botmesh"
    );
    assert_eq!(uris(&root), ["spiffe://acme.internal"]);
    let constraints = root.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = root.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature(), "a root does not authenticate");
    let years = root.validity().not_after.timestamp() - root.validity().not_before.timestamp();
    assert_eq!(years, 5 * 365 * 86_400 + 60);
}

#[tokio::test]
async fn key_ids_lead_from_the_leaf_to_the_root() {
    let issued = issued().await;
    let (root, leaf) = (parse(&issued.root), parse(&issued.leaf));
    let (root_subject, root_authority) = key_ids(&root);
    let (leaf_subject, leaf_authority) = key_ids(&leaf);
    assert!(root_subject.is_some() && leaf_subject.is_some());
    assert_eq!(leaf_authority, root_subject);
    assert_eq!(root_authority, root_subject);
    assert_ne!(leaf_subject, root_subject);
    assert_eq!(leaf.issuer().as_raw(), root.subject().as_raw());
}

#[tokio::test]
async fn openssl_verifies_the_chain_strictly() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: this machine has no openssl");
        return;
    }
    let issued = issued().await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, der: &[u8]| {
        let (raw, pem) = (
            dir.path().join(format!("{name}.der")),
            dir.path().join(format!("{name}.pem")),
        );
        std::fs::write(&raw, der).unwrap();
        let convert = [
            "x509",
            "-inform",
            "DER",
            "-in",
            raw.to_str().unwrap(),
            "-out",
            pem.to_str().unwrap(),
        ];
        assert!(Command::new("openssl").args(convert).status().unwrap().success());
        pem.to_str().unwrap().to_owned()
    };
    let (root, leaf) = (file("root", &issued.root), file("leaf", &issued.leaf));
    let time = issued.now.to_string();
    for purpose in ["sslserver", "sslclient"] {
        let arguments = [
            "verify",
            "-x509_strict",
            "-attime",
            &time,
            "-purpose",
            purpose,
            "-CAfile",
            &root,
            &leaf,
        ];
        let output = Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let later = (issued.now + 15 * 60 + 1).to_string();
    let arguments = ["verify", "-x509_strict", "-attime", &later, "-CAfile", &root, &leaf];
    assert!(
        !Command::new("openssl")
            .args(arguments)
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[tokio::test]
async fn the_ca_presents_its_own_svid_with_the_root_behind_it_and_renews_it() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    ca.pinned(&token).await;
    // Past the half of its life and short of its end: whichever it presents is good.
    ca.hand.advance(Duration::from_mins(40));
    ca.pinned(&token).await;
    // The next one is signed when its clock has moved; without it this would be refused.
    eventually(async || {
        let own = |event: &&serde_json::Value| event["subject"] == "spiffe://acme.internal/botmesh/ca/ca-1";
        (ca.events("issued").iter().filter(own).count() == 2).then_some(())
    })
    .await;
    ca.hand.advance(Duration::from_mins(30));
    ca.pinned(&token).await;
}
