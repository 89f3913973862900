//! Where an export stops: it says why, and its place is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::collector::{Collector, Plan};
use super::{Place, told, write};
use crate::support::{both, botmesh, free_port, run};

const SECRET: &str = "Hunter2-collector-token";

#[test]
fn a_place_that_is_not_in_the_ledger_is_an_error_and_nothing_is_sent() {
    let place = Place::filled(40);
    let server = Collector::start(&[]);
    assert!(run(&mut place.export(&server.url())).status.success());
    let good = fs::read_to_string(place.file("cursor")).unwrap();
    let ledger = place.open();
    write(&ledger, 40..50);
    ledger.shutdown();
    let hash = place.cursor()["hash"].as_str().unwrap().to_owned();
    let one = if hash.starts_with('0') { "1" } else { "0" };
    for (from, to, wanted) in [
        (
            "host/web-1",
            "host/web-2",
            "this is the ledger acme.internal/host/web-1, and the place is one in acme.internal/host/web-2",
        ),
        (
            "\"record\":39",
            "\"record\":38",
            "record 38 is not the one that was read before",
        ),
        (
            "\"record\":39",
            "\"record\":100",
            "record 100 was read before, and the ledger has 50 records",
        ),
        (
            &hash,
            &hash.replacen(&hash[..1], one, 1),
            "record 39 is not the one that was read before",
        ),
        ("\"epoch\":1", "\"epoch\":0", "is no cursor: its epoch is none"),
        ("}", "", "is no cursor: it is not the JSON of a cursor"),
    ] {
        let changed = good.replacen(from, to, 1);
        fs::write(place.file("cursor"), &changed).unwrap();
        let out = run(&mut place.export(&server.url()));
        assert_eq!(out.status.code(), Some(3), "{to}: {}", both(&out));
        let said = told(&out);
        assert!(said.contains(wanted) && said.contains("hint: "), "{said}");
        assert_eq!(fs::read_to_string(place.file("cursor")).unwrap(), changed);
    }
    assert_eq!(server.batches().len(), 1);
    // What was pruned before it was exported is lost to it, and that is said.
    fs::write(place.file("cursor"), good).unwrap();
    let segments = place.ledger().join("segments");
    let text = fs::read_to_string(segments.join("00000000000000000000.jsonl")).unwrap();
    let kept: Vec<&str> = text.split_inclusive('\n').skip(45).collect();
    fs::remove_file(segments.join("00000000000000000000.jsonl")).unwrap();
    fs::write(segments.join("00000000000000000045.jsonl"), kept.concat()).unwrap();
    let out = run(&mut place.export(&server.url()));
    assert_eq!(out.status.code(), Some(3), "{}", both(&out));
    assert!(
        told(&out).contains("records 39 to 44 were pruned before they were exported"),
        "{}",
        told(&out)
    );
    assert_eq!(server.batches().len(), 1);
}

#[test]
fn a_refusal_stops_it_where_it_was_and_the_servers_words_are_said() {
    let unwanted = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-protobuf\r\ncontent-length: 9\r\n\r\n\x08\x03\x12\x05stale";
    let unknown = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n{\"message\":\"who?\"}";
    let elsewhere =
        "HTTP/1.1 308 Permanent Redirect\r\nlocation: http://127.0.0.1:1/v1/logs\r\ncontent-length: 0\r\n\r\n";
    let welcome = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 7\r\n\r\nwelcome";
    let large = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
    for (said, exit, wanted) in [
        (unwanted, 1, "refused 50 records: it answered 400 Bad Request: stale"),
        (unknown, 5, "it answered 401 Unauthorized: who?"),
        (elsewhere, 1, "redirections are not followed"),
        (
            welcome,
            1,
            "it answered with success, and with what is no answer of OTLP",
        ),
        (large, 1, "--batch-bytes"),
    ] {
        let place = Place::filled(100);
        let server = Collector::start(&[Plan::Take, Plan::Say(said)]);
        let out = run(place.export(&server.url()).args(["--batch-records", "50", "--follow"]));
        assert_eq!(out.status.code(), Some(exit), "{}", both(&out));
        assert!(told(&out).contains(wanted), "{}", told(&out));
        assert_eq!(place.cursor()["record"], 49, "{wanted}");
        // It was not tried again, and goes on from there.
        assert_eq!(server.heads().len(), 2, "{wanted}");
        assert!(run(&mut place.export(&server.url())).status.success());
        assert_eq!(super::all_came(&server.taken(), &place.lines()), 0);
    }
}

#[test]
fn what_a_collector_rejects_is_counted_and_not_sent_again() {
    let place = Place::filled(100);
    let server = Collector::start(&[Plan::Reject(3), Plan::Reject(4)]);
    let out = run(place
        .export(&server.url())
        .args(["--batch-records", "50", "-o", "json"]));
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (report["exported"].clone(), report["rejected"].clone()),
        (100.into(), 7.into())
    );
    assert!(told(&out).contains("rejected 3 records for good"), "{}", told(&out));
    assert_eq!(place.cursor()["record"], 99);
}

#[test]
fn a_collector_that_is_away_is_given_up_in_time() {
    let place = Place::filled(10);
    let nobody = format!("otlp+http://127.0.0.1:{}", free_port());
    let out = run(place.export(&nobody).args(["--give-up", "1s"]));
    assert_eq!(out.status.code(), Some(4), "{}", both(&out));
    assert!(
        told(&out).contains("took nothing for") && told(&out).contains("goes on from there"),
        "{}",
        told(&out)
    );
    assert!(!place.file("cursor").exists());
}

/// A server's certificate for 127.0.0.1, and the authority that vouches for it.
fn authority(place: &Place, name: &str) -> rustls::ServerConfig {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    fs::write(place.file(name), ca.pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap()
}

fn is_silent(out: &Output) {
    assert!(!both(out).contains(SECRET), "{}", both(out));
}

#[test]
fn a_token_goes_to_the_server_that_the_authority_vouches_for_and_nowhere_else() {
    let place = Place::filled(100);
    let config = authority(&place, "ca.pem");
    authority(&place, "other.pem");
    // It says the token back, as some do.
    let echo = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 44\r\n\r\nthis token is none: Hunter2-collector-token \n";
    let server = Collector::start_tls(&[Plan::Take, Plan::Say(echo)], config);
    let url = format!("otlp+https://127.0.0.1:{}/v1/logs", server.port());
    fs::write(place.file("headers"), format!("Authorization: Bearer {SECRET}\n")).unwrap();
    fs::set_permissions(place.file("headers"), fs::Permissions::from_mode(0o600)).unwrap();
    let export = |ca: &str| {
        let mut export = place.export(&url);
        export
            .arg("--headers")
            .arg(place.file("headers"))
            .arg("--ca")
            .arg(place.file(ca));
        export.args(["--batch-records", "60", "--give-up", "1s"]);
        run(&mut export)
    };
    let out = export("other.pem");
    is_silent(&out);
    assert_eq!(out.status.code(), Some(4), "{}", both(&out));
    assert!(server.heads().is_empty(), "nothing is said to a stranger");
    let out = export("ca.pem");
    is_silent(&out);
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    assert!(told(&out).contains("held what is secret"), "{}", told(&out));
    let heads = server.heads();
    assert_eq!((heads.len(), server.taken().len()), (2, 60));
    assert_eq!(heads[0]["authorization"], format!("Bearer {SECRET}"));
    assert_eq!(heads[0]["request"], "POST /v1/logs HTTP/1.1");
    // By a descriptor as well.
    let mut export = place.export(&url);
    export.arg("--ca").arg(place.file("ca.pem")).args(["--headers-fd", "0"]);
    export.stdin(fs::File::open(place.file("headers")).unwrap());
    let out = export.output().unwrap();
    assert!(out.status.success(), "{}", both(&out));
    assert_eq!(server.heads()[2]["authorization"], format!("Bearer {SECRET}"));
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_read() {
    let place = Place::filled(3);
    let headers = place.file("headers");
    fs::write(&headers, format!("Authorization: {SECRET}\n")).unwrap();
    fs::set_permissions(&headers, fs::Permissions::from_mode(0o600)).unwrap();
    let headers = headers.to_str().unwrap();
    let open = place.file("open");
    fs::write(&open, format!("Authorization: {SECRET}\n")).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    for (args, exit, wanted) in [
        (
            &["--to", "otlp+http://collector.example", "--headers", headers][..],
            2,
            "could be read on the way",
        ),
        (
            &["--to", "otlp+https://127.0.0.1:1", "--headers", open.to_str().unwrap()],
            3,
            "by everybody on this machine",
        ),
        (
            &["--to", "otlp+https://u:Hunter2-collector-token@127.0.0.1"],
            2,
            "no place for a password",
        ),
        (
            &["--to", "otlp+https://127.0.0.1/?k=Hunter2-collector-token"],
            2,
            "what is secret goes into --headers",
        ),
        (
            &["--to", "-", "--cursor", "c"],
            2,
            "a pipe does not say what its reader has taken",
        ),
        (
            &["--to", "otlp+http://127.0.0.1:1", "--format", "ocsf"],
            2,
            "OCSF has no protocol of its own",
        ),
        (&["--format", "otlp"], 2, "OTLP goes to a collector"),
        (&["--filter", "verdikt=deny"], 2, "is no key"),
        (&["--since", "yesterday"], 2, "is no time"),
        (&["--to", "f", "--headers", headers], 2, "are for a collector"),
    ] {
        let out = run(botmesh()
            .args(["audit", "export"])
            .arg(place.ledger())
            .args(args)
            .current_dir(place.0.path()));
        is_silent(&out);
        assert_eq!(out.status.code(), Some(exit), "{args:?}: {}", both(&out));
        assert!(told(&out).contains(wanted), "{args:?}: {}", told(&out));
        assert!(out.stdout.is_empty());
    }
    let out = run(botmesh().args(["audit", "export", "--to", "-"]));
    assert_eq!(out.status.code(), Some(2), "{}", both(&out));
}
