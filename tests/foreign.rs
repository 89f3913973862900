//! Peers that are not ours against the mesh side: OpenSSL and curl, with every kind of wrong certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::spine::{CHECKOUT, two_hosts};
use crate::support::join::{Pem, PlayedHost, write_pem};
use crate::support::{Caller, Mesh, both, botmesh, eventually, ok, root_or_skip, run};

/// What is wrong with a certificate that a root of our own making signs.
struct Bent {
    name: &'static str,
    ids: &'static [&'static str],
    ca: bool,
    usage: &'static [ExtendedKeyUsagePurpose],
    reason: &'static str,
}

const BOTH: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

const BENT: &[Bent] = &[
    Bent {
        name: "other-domain",
        ids: &["spiffe://evil.example/prod/checkout"],
        ca: false,
        usage: BOTH,
        reason: "other_trust_domain",
    },
    Bent {
        name: "same-name-other-root",
        ids: &["spiffe://acme.internal/prod/checkout"],
        ca: false,
        usage: BOTH,
        reason: "untrusted_chain",
    },
    Bent {
        name: "two-uris",
        ids: &[
            "spiffe://acme.internal/prod/checkout",
            "spiffe://acme.internal/prod/admin",
        ],
        ca: false,
        usage: BOTH,
        reason: "two_uri_sans",
    },
    Bent {
        name: "ca-bit",
        ids: &["spiffe://acme.internal/prod/checkout"],
        ca: true,
        usage: BOTH,
        reason: "ca_bit",
    },
    Bent {
        name: "wrong-eku",
        ids: &["spiffe://acme.internal/prod/checkout"],
        ca: false,
        usage: &[ExtendedKeyUsagePurpose::CodeSigning],
        reason: "wrong_eku",
    },
];

fn bend(dir: &Path, bent: &Bent) -> Pem {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::OrganizationName, "acme.internal");
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = bent
        .ids
        .iter()
        .map(|id| SanType::URI((*id).try_into().expect("ascii")))
        .collect();
    leaf.is_ca = if bent.ca {
        IsCa::Ca(BasicConstraints::Unconstrained)
    } else {
        IsCa::ExplicitNoCa
    };
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = bent.usage.to_vec();
    let leaf = leaf.signed_by(&key, &issuer).expect("a leaf").der().to_vec();
    write_pem(dir, bent.name, &[leaf], &key.serialize_der())
}

/// Opens TLS with OpenSSL as a client and sends one request; gives what came back.
fn s_client(port: u16, sni: &str, pem: Option<&Pem>, extra: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{port}"),
            "-servername",
            sni,
            "-ign_eof",
        ])
        .args(extra);
    if let Some(pem) = pem {
        command
            .arg("-cert")
            .arg(&pem.chain)
            .arg("-cert_chain")
            .arg(&pem.chain)
            .arg("-key")
            .arg(&pem.key);
    }
    let request = std::fs::File::open("/dev/null").expect("/dev/null");
    let out = command.stdin(Stdio::from(request)).output().expect("openssl runs");
    both(&out)
}

/// One HTTP/1.1 or HTTP/2 request by curl with a client certificate: status and body, or curl's error.
pub(crate) fn curl(port: u16, sni: &str, pem: Option<&Pem>, args: &[&str], path: &str) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "-k", "--max-time", "20", "-w", "\n%{http_code}"]);
    command
        .args(["--resolve", &format!("{sni}:{port}:127.0.0.1")])
        .args(args);
    if let Some(pem) = pem {
        command.arg("--cert").arg(&pem.chain).arg("--key").arg(&pem.key);
    }
    let out = run(command.arg(format!("https://{sni}:{port}{path}")));
    let text = String::from_utf8_lossy(&out.stdout);
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
    (
        status.trim().to_owned(),
        format!("{body}{}", String::from_utf8_lossy(&out.stderr)),
    )
}

pub(crate) fn sni(bot: &str) -> String {
    let td = spiffe::id::TrustDomain::parse("acme.internal").expect("a trust domain");
    let id = spiffe::id::SpiffeId::for_bot(&td, &spiffe::id::BotName::parse(bot).expect("a bot"));
    spiffe_tls::sni_label(&id)
}

/// A third host, played by the test, that may claim `prod/edge` and `prod/checkout`.
pub(crate) fn with_played_host(mesh: &Mesh) -> PlayedHost {
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let text = text
        .replace("hosts: [web-2]", "hosts: [web-2, edge-1]")
        .replace(
            "prod/report: {owner: shop@acme.internal, hosts: [web-1]",
            "prod/edge: {owner: shop@acme.internal, hosts: [edge-1], attest: {uid: 61077}}\n  prod/report: {owner: shop@acme.internal, hosts: [web-1, edge-1]",
        )
        .replace("prod/checkout: {owner: shop@acme.internal, hosts: [web-1]", "prod/checkout: {owner: shop@acme.internal, hosts: [web-1, edge-1]");
    mesh.apply(&text);
    joined(mesh)
}

/// Joins as that host, for the first time or after it was evicted.
pub(crate) fn joined(mesh: &Mesh) -> PlayedHost {
    let token = ok(botmesh().args(["host", "token", "edge-1", "--server", &mesh.server()]));
    let status = ok(botmesh().args(["ca", "status", "-o", "json", "--server", &mesh.server()]));
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let ca: SocketAddr = status["node_api"]
        .as_str()
        .expect("an address")
        .parse()
        .expect("an address");
    PlayedHost::join(ca, &token)
}

/// Waits until the ledger's aggregates name a refused handshake.
pub(crate) fn recorded(mesh: &Mesh, reason: &str) {
    let port = mesh.host("web-2").ports.metrics;
    eventually(&format!("{reason} in the metrics"), || {
        let (_, text) = crate::support::http_get(port, "/metrics")?;
        text.lines()
            .any(|l| l.starts_with("botmesh_handshakes_refused_total") && l.contains(&format!("\"{reason}\"")))
            .then_some(())
    });
}

#[test]
fn every_wrong_certificate_is_refused_with_its_reason_and_recorded() {
    if !root_or_skip("foreign peers") {
        return;
    }
    let mut mesh = two_hosts("");
    let port = mesh.host("web-2").ports.mesh;
    let orders = sni("prod/orders");
    s_client(port, &orders, None, &[]);
    recorded(&mesh, "no_certificate");
    for bent in BENT {
        let pem = bend(mesh.dir(), bent);
        let (status, body) = curl(port, &orders, Some(&pem), &[], "/orders/17");
        assert_eq!(status, "000", "{}: {body}", bent.name);
        recorded(&mesh, bent.reason);
    }
    s_client(port, &orders, None, &["-tls1_2"]);
    recorded(&mesh, "not_tls13");
    s_client(port, "unknown.example", None, &[]);
    recorded(&mesh, "unknown_name");

    mesh.hosts.get_mut("web-2").expect("web-2").process.terminate();
    let strangers = mesh.host("web-2").query("kind=strangers");
    for reason in BENT
        .iter()
        .map(|b| b.reason)
        .chain(["no_certificate", "not_tls13", "unknown_name"])
    {
        assert!(
            strangers.iter().any(|r| r["reason"] == reason),
            "{reason} is recorded: {strangers:?}"
        );
    }
}

#[test]
fn a_foreign_peer_with_its_own_svid_gets_what_its_rules_allow_and_no_more() {
    if !root_or_skip("foreign peers with an SVID") {
        return;
    }
    let mesh = two_hosts("");
    let edge = with_played_host(&mesh);
    let port = mesh.host("web-2").ports.mesh;
    let orders = sni("prod/orders");
    let (chain, key) = edge.issue("prod/checkout").expect("edge-1 may claim prod/checkout");
    let checkout = write_pem(mesh.dir(), "checkout", &chain, &key);
    let (chain, key) = edge.issue("prod/edge").expect("edge-1 may claim prod/edge");
    let other = write_pem(mesh.dir(), "edge", &chain, &key);
    assert_eq!(
        edge.issue("prod/stock").expect_err("edge-1 may not claim prod/stock"),
        "not_your_bot"
    );

    for version in ["--http1.1", "--http2"] {
        let host = ["-H", "Host: orders.prod.mesh", version];
        let (status, body) = curl(port, &orders, Some(&checkout), &host, "/orders/17");
        assert_eq!(status, "200", "{version}: {body}");
        assert!(
            body.contains("spiffe://acme.internal/prod/checkout"),
            "{version}: {body}"
        );
        let (status, body) = curl(port, &orders, Some(&other), &host, "/orders/17");
        assert_eq!(status, "403", "{version}: a valid certificate of another bot: {body}");
        assert!(body.contains("no_rule"), "{version}: {body}");
        let (status, body) = curl(
            port,
            &orders,
            Some(&checkout),
            &["-H", "Host: stock.prod.mesh", version],
            "/orders/17",
        );
        assert_eq!(status, "421", "{version}: the authority of another bot: {body}");
        assert!(body.contains("callee_mismatch"), "{version}: {body}");
    }
    let denied = mesh.host("web-2").query("direction=in verdict=deny");
    for reason in ["no_rule", "callee_mismatch"] {
        assert!(denied.iter().any(|r| r["reason"] == reason), "{reason}: {denied:?}");
    }
    assert_eq!(edge.trust_domain().as_str(), "acme.internal");
}

/// A TLS server that shows one bot's certificate to whoever asks, and answers no request.
fn imposter(chain: &[Vec<u8>], key: &[u8]) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = chain.iter().map(|der| der.clone().into()).collect();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.to_vec()).expect("PKCS#8");
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().flatten() {
            let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
            while tls.is_handshaking() && tls.complete_io(&mut tcp).is_ok() {}
        }
    });
    address
}

#[test]
fn a_proxy_that_finds_another_bot_at_the_callees_address_refuses() {
    if !root_or_skip("exact ID") {
        return;
    }
    let mut mesh = two_hosts("");
    let edge = with_played_host(&mesh);
    let (chain, key) = edge.issue("prod/edge").expect("edge-1 may claim prod/edge");
    let _stream = edge.announce(imposter(&chain, &key));
    mesh.hosts.get_mut("web-2").expect("web-2").process.terminate();
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let answer = eventually("a call to reach the imposter", || {
        let answer = checkout.call("GET", "orders.prod.mesh", "/orders/17");
        (answer.reason() != "peer_unreachable").then_some(answer)
    });
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (502, "peer_mismatch"),
        "{}",
        answer.body
    );
}
