//! What the two configurations leave out, and what they negotiate.

use std::sync::Mutex;

use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::server::ServerSessionMemoryCache;
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};

use super::*;

#[test]
fn the_hybrid_group_and_tls_1_3_are_negotiated() {
    let ends = Mesh::new().shake().established();
    let states: [&rustls::CommonState; 2] = [&ends.client, &ends.server];
    for state in states {
        assert_eq!(state.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let group = state.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
        assert_eq!(state.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn both_ends_offer_the_chosen_algorithms_in_their_order_and_no_others() {
    use rustls::CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    use rustls::SignatureScheme as Scheme;
    let mesh = Mesh::new();
    let (client, server) = (mesh.client_config(), mesh.server_config());
    for provider in [client.crypto_provider(), server.crypto_provider()] {
        let suites: Vec<_> = provider.cipher_suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(
            suites,
            [
                TLS13_AES_128_GCM_SHA256,
                TLS13_AES_256_GCM_SHA384,
                TLS13_CHACHA20_POLY1305_SHA256
            ]
        );
        let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(
            groups,
            [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1]
        );
        let signatures = provider.signature_verification_algorithms.supported_schemes();
        assert_eq!(
            signatures[..2],
            [Scheme::ECDSA_NISTP256_SHA256, Scheme::ECDSA_NISTP384_SHA384]
        );
        assert!(!signatures.contains(&Scheme::ED25519) && !signatures.contains(&Scheme::ECDSA_NISTP521_SHA512));
    }
}

#[test]
fn a_second_connection_is_verified_as_fully_as_the_first() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client_config(), mesh.server_config());
    for _ in 0..2 {
        let ends = handshake(Arc::clone(&client), Arc::clone(&server), sni_for(&orders())).established();
        assert_eq!(ends.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(ends.client.tls13_tickets_received(), 0);
    }
}

/// How the second of two connections went.
fn second(client: Arc<rustls::ClientConfig>, server: Arc<rustls::ServerConfig>) -> Option<HandshakeKind> {
    let shake = || handshake(Arc::clone(&client), Arc::clone(&server), sni_for(&orders())).established();
    shake();
    shake().client.handshake_kind()
}

#[test]
fn a_server_resumes_nothing_even_for_a_client_that_would() {
    let mesh = Mesh::new();
    let mut client = (*mesh.client_config()).clone();
    client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    assert_eq!(
        second(Arc::new(client), mesh.server_config()),
        Some(HandshakeKind::Full)
    );
}

#[test]
fn a_client_resumes_nothing_even_with_a_server_that_would() {
    let mesh = Mesh::new();
    let willing_server = || {
        let mut server = (*mesh.server_config()).clone();
        server.session_storage = ServerSessionMemoryCache::new(8);
        server.send_tls13_tickets = 2;
        Arc::new(server)
    };
    assert_eq!(
        second(mesh.client_config(), willing_server()),
        Some(HandshakeKind::Full)
    );

    let mut willing_client = (*mesh.client_config()).clone();
    willing_client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    let resumed = second(Arc::new(willing_client), willing_server());
    assert_eq!(
        resumed,
        Some(HandshakeKind::Resumed),
        "this test can tell the difference"
    );
}

#[test]
fn no_early_data_no_key_log_and_no_secrets_leave_the_connection() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client_config(), mesh.server_config());
    assert!(!client.enable_early_data);
    assert_eq!(server.max_early_data_size, 0);
    assert!(!server.send_half_rtt_data);
    assert!(!client.enable_secret_extraction && !server.enable_secret_extraction);
    for label in ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0", "EXPORTER_SECRET"] {
        assert!(!client.key_log.will_log(label) && !server.key_log.will_log(label));
    }
}

#[test]
fn the_protocols_offered_are_negotiated() {
    let mesh = Mesh::new();
    let alpn: &[&[u8]] = &[b"h2", b"http/1.1"];
    let svid = mesh.ca.svid(&checkout());
    let server = |alpn| {
        let bundle = Arc::new(FixedBundle(Arc::clone(&mesh.bundle)));
        let identity = Arc::new(Anything(Arc::clone(&mesh.server)));
        server_config(identity, bundle, ClientAuth::Required, &mesh.clock, alpn).unwrap()
    };
    let client = client_config(Some(&svid), &mesh.bundle, Expect::Exact(orders()), &mesh.clock, alpn).unwrap();
    let ends = handshake(Arc::clone(&client), server(&[b"http/1.1"]), sni_for(&orders())).established();
    assert_eq!(ends.client.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(peer_leaf(ends.server.peer_certificates()).unwrap(), *svid.leaf());
    assert!(
        handshake(client, server(&[b"h3"]), sni_for(&orders()))
            .server_result
            .is_err()
    );
}

#[test]
fn both_ends_export_the_same_value() {
    let ends = Mesh::new().shake().established();
    let label = exporter_label().as_bytes();
    assert_eq!(label, b"EXPORTER-botmesh-attest");
    let client = ends.client.export_keying_material([0; 32], label, None).unwrap();
    let server = ends.server.export_keying_material([0; 32], label, None).unwrap();
    assert_eq!(client, server);
}

#[derive(Debug)]
struct Changing(Mutex<Arc<TrustBundle>>);

impl BundleSource for Changing {
    fn current(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.0.lock().unwrap())
    }
}

#[test]
fn a_server_verifies_each_client_with_the_newest_bundle() {
    let mesh = Mesh::new();
    let bundle = Arc::new(Changing(Mutex::new(Arc::clone(&mesh.bundle))));
    let identity = Arc::new(Anything(Arc::clone(&mesh.server)));
    let source: Arc<dyn BundleSource> = Arc::clone(&bundle) as _;
    let server = server_config(identity, source, ClientAuth::Required, &mesh.clock, &[]).unwrap();
    let shake = || handshake(mesh.client_config(), Arc::clone(&server), sni_for(&orders()));
    shake().established();
    *bundle.0.lock().unwrap() = Ca::root("acme").bundle();
    assert_eq!(shake().server_refusal().reason(), "untrusted_chain");
}

#[test]
fn a_client_cannot_expect_a_server_outside_its_bundle() {
    let evil = TrustDomain::parse("evil").unwrap();
    let expectations = [
        Expect::Exact(SpiffeId::parse("spiffe://evil/prod/orders").unwrap()),
        Expect::AnyCa(evil.clone()),
        Expect::PinnedRoots {
            trust_domain: evil,
            sha256: vec![[7; 32]],
        },
    ];
    let mesh = Mesh::new();
    for expect in expectations {
        let refused = client_config(None, &mesh.bundle, expect, &mesh.clock, &[]);
        assert!(matches!(refused, Err(TlsError::ExpectedOtherTrustDomain { .. })));
    }
}

#[test]
fn a_server_names_no_authority_to_strangers() {
    let mesh = Mesh::new();
    #[derive(Debug)]
    struct Hints(Arc<CertifiedKey>, Mutex<Option<usize>>);
    impl rustls::client::ResolvesClientCert for Hints {
        fn resolve(&self, hints: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            *self.1.lock().unwrap() = Some(hints.len());
            Some(Arc::clone(&self.0))
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    let hints = Arc::new(Hints(Arc::clone(mesh.client.as_ref().unwrap()), Mutex::new(None)));
    let mut client = (*mesh.client_config()).clone();
    client.client_auth_cert_resolver = Arc::clone(&hints) as _;
    handshake(Arc::new(client), mesh.server_config(), sni_for(&orders())).established();
    assert_eq!(*hints.1.lock().unwrap(), Some(0));
}
