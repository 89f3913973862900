//! Who the peer is: the trust domain, the exact ID, the name asked for, the key.

use super::*;

#[test]
fn both_ends_learn_the_exact_id_of_the_other() {
    let ends = Mesh::new().shake().established();
    assert_eq!(peer_leaf(ends.client.peer_certificates()).unwrap().id(), &orders());
    assert_eq!(peer_leaf(ends.server.peer_certificates()).unwrap().id(), &checkout());
}

#[test]
fn a_server_that_is_somebody_else_is_refused() {
    let mesh = Mesh {
        expect: Expect::Exact(checkout()),
        ..Mesh::new()
    };
    let refusal = mesh.shake().client_refusal();
    assert_eq!(
        refusal,
        HandshakeRefusal::WrongId {
            expected: checkout(),
            got: orders()
        }
    );
}

#[test]
fn a_longer_or_shorter_id_is_not_the_expected_one() {
    for expected in [
        "spiffe://acme/prod/order",
        "spiffe://acme/prod/orders/x",
        "spiffe://acme/prod",
        "spiffe://acme/prod/Orders",
    ] {
        let mesh = Mesh {
            expect: Expect::Exact(SpiffeId::parse(expected).unwrap()),
            ..Mesh::new()
        };
        assert_eq!(mesh.shake().client_refusal().reason(), "wrong_id", "{expected}");
    }
}

#[test]
fn a_client_without_certificate_is_refused_where_one_is_required() {
    let mesh = Mesh {
        client: None,
        ..Mesh::new()
    };
    assert_eq!(mesh.shake().server_refusal(), HandshakeRefusal::NoCertificate);
}

#[test]
fn a_client_without_certificate_is_let_in_where_one_is_optional() {
    let ends = Mesh {
        client: None,
        auth: ClientAuth::Optional,
        ..Mesh::new()
    }
    .shake()
    .established();
    assert_eq!(
        peer_leaf(ends.server.peer_certificates()),
        Err(HandshakeRefusal::NoCertificate)
    );
    assert_eq!(peer_leaf(Some(&[])), Err(HandshakeRefusal::NoCertificate));
}

#[test]
fn a_certificate_that_is_optional_is_verified_all_the_same() {
    let stranger = Ca::root("acme").certified(&checkout(), |_| ());
    let mesh = Mesh {
        client: Some(stranger),
        auth: ClientAuth::Optional,
        ..Mesh::new()
    };
    assert_eq!(mesh.shake().server_refusal().reason(), "untrusted_chain");
}

#[test]
fn a_peer_of_another_trust_domain_is_refused_whoever_signed_it() {
    let evil = TrustDomain::parse("evil").unwrap();
    let in_evil = |id: &SpiffeId| SpiffeId::parse(&format!("spiffe://evil{}", id.path())).unwrap();
    let refused = HandshakeRefusal::OtherTrustDomain {
        expected: acme(),
        got: evil,
    };

    let foreign = Ca::root("evil");
    let by_foreign = Mesh::new().refusals_of(|_, id| foreign.certified(&in_evil(id), |_| ()));
    assert_eq!(by_foreign, [refused.clone(), refused.clone()]);

    let by_own = Mesh::new().refusals_of(|mesh, id| mesh.ca.certified(&in_evil(id), |_| ()));
    assert_eq!(by_own, [refused.clone(), refused]);
}

#[test]
fn a_peer_that_does_not_hold_its_key_is_refused() {
    let refusals = Mesh::new().refusals_of(|mesh, id| {
        let (own, stolen) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        forge::certified(mesh.ca.chain(&stolen, id, |_| ()), &own)
    });
    assert_eq!(
        refusals,
        [HandshakeRefusal::BadSignature, HandshakeRefusal::BadSignature]
    );
}

#[test]
fn any_server_of_the_ca_is_accepted_where_one_is_expected() {
    let mesh = Mesh::new();
    let id = SpiffeId::for_ca(&acme(), &HostName::parse("ca-1").unwrap());
    let server = mesh.ca.svid(&id).certified_key();
    Mesh {
        server,
        expect: Expect::AnyCa(acme()),
        ..mesh
    }
    .shake()
    .established();
}

#[test]
fn a_bot_or_a_host_is_no_server_of_the_ca() {
    let host = SpiffeId::for_host(&acme(), &HostName::parse("ca-1").unwrap());
    let nested = SpiffeId::parse("spiffe://acme/botmesh/ca/a/b").unwrap();
    for id in [orders(), host, nested] {
        let mesh = Mesh::new();
        let server = mesh.ca.svid(&id).certified_key();
        let refusal = Mesh {
            server,
            expect: Expect::AnyCa(acme()),
            ..mesh
        }
        .shake()
        .client_refusal();
        assert_eq!(refusal, HandshakeRefusal::NotCa { got: id });
    }
}

/// A server with one bot, by its label.
#[derive(Debug)]
struct OneBot(Arc<CertifiedKey>);

impl ServerIdentity for OneBot {
    fn resolve(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        (sni == Some(sni_label(&orders()).as_str())).then(|| Arc::clone(&self.0))
    }
}

#[test]
fn an_unknown_or_missing_server_name_ends_the_handshake() {
    let mesh = Mesh::new();
    let bundle = Arc::new(FixedBundle(Arc::clone(&mesh.bundle)));
    let identity = Arc::new(OneBot(Arc::clone(&mesh.server)));
    let server = server_config(identity, bundle, ClientAuth::Required, &mesh.clock, &[]).unwrap();
    let ask = |name| handshake(mesh.client_config(), Arc::clone(&server), name);

    ask(sni_for(&orders())).established();
    ask(ServerName::try_from(sni_label(&orders()).to_uppercase()).unwrap()).established();
    assert_eq!(
        ask(sni_for(&checkout())).server_refusal(),
        HandshakeRefusal::UnknownName
    );
    let nameless = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    assert_eq!(ask(nameless).server_refusal(), HandshakeRefusal::UnknownName);
}

#[test]
fn a_server_name_tells_nothing_and_differs_by_id() {
    // `printf spiffe://acme/prod/orders | sha256sum | cut -c1-40`
    assert_eq!(sni_label(&orders()), format!("{}.botmesh.invalid", ORDERS_HASH));
    assert_ne!(sni_label(&orders()), sni_label(&checkout()));
    assert_eq!(sni_for(&orders()), ServerName::try_from(sni_label(&orders())).unwrap());
}

const ORDERS_HASH: &str = "82eb26ac2d6d06d887dcf0f29249ca9c3f6e3096";
