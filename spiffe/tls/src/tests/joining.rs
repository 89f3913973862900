//! A host that joins has no bundle, only the hashes of the authorities' keys that its token carries.

use super::*;

fn ca_server() -> SpiffeId {
    SpiffeId::for_ca(&acme(), &HostName::parse("ca-1").unwrap())
}

fn pin(ca: &Ca) -> [u8; 32] {
    *Authority::parse(&ca.der).unwrap().spki_sha256()
}

/// A joining host's handshake with a server that presents `chain`: the reason of the refusal, if there is one.
fn join(server: Arc<CertifiedKey>, sha256: Vec<[u8; 32]>) -> Option<HandshakeRefusal> {
    let ends = Mesh {
        bundle: forge::bundle("acme", &[]),
        server,
        client: None,
        expect: Expect::PinnedRoots {
            trust_domain: acme(),
            sha256,
        },
        auth: ClientAuth::Optional,
        ..Mesh::new()
    }
    .shake();
    ends.client_result.is_err().then(|| ends.client_refusal())
}

/// The leaf of `id`, and `roots` behind it.
fn presented(ca: &Ca, id: &SpiffeId, roots: &[&Ca]) -> Arc<CertifiedKey> {
    let key = PrivateKey::generate().unwrap();
    let roots = roots.iter().map(|root| root.der.clone());
    forge::certified(ca.chain(&key, id, |_| ()).into_iter().chain(roots).collect(), &key)
}

#[test]
fn a_ca_server_with_a_pinned_root_is_accepted() {
    let root = Ca::root("acme");
    assert_eq!(
        join(presented(&root, &ca_server(), &[&root]), vec![[7; 32], pin(&root)]),
        None
    );
}

#[test]
fn a_pinned_root_may_lie_behind_an_intermediate() {
    let root = Ca::root("acme");
    let issuing = root.intermediate("between", |_| ());
    assert_eq!(
        join(presented(&issuing, &ca_server(), &[&root]), vec![pin(&root)]),
        None
    );
}

#[test]
fn a_root_that_is_not_pinned_is_refused() {
    let root = Ca::root("acme");
    for pins in [vec![], vec![[7; 32]], vec![pin(&Ca::root("acme"))]] {
        assert_eq!(
            join(presented(&root, &ca_server(), &[&root]), pins),
            Some(HandshakeRefusal::UnpinnedRoot)
        );
    }
}

#[test]
fn a_pinned_root_has_to_be_presented() {
    let root = Ca::root("acme");
    assert_eq!(
        join(presented(&root, &ca_server(), &[]), vec![pin(&root)]),
        Some(HandshakeRefusal::UnpinnedRoot)
    );
}

#[test]
fn a_pinned_root_that_did_not_sign_is_of_no_use() {
    let (root, rogue) = (Ca::root("acme"), Ca::root("acme"));
    for roots in [vec![&root], vec![&root, &rogue], vec![&rogue, &root]] {
        let refusal = join(presented(&rogue, &ca_server(), &roots), vec![pin(&root)]).unwrap();
        assert_eq!(refusal.reason(), "untrusted_chain");
    }
}

#[test]
fn the_pin_of_a_leaf_key_is_no_root() {
    let root = Ca::root("acme");
    let server = presented(&root, &ca_server(), &[&root]);
    let leaf = Leaf::parse(&server.cert[0]).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf.spki());
    let pins = vec![hash.as_ref().try_into().unwrap()];
    assert_eq!(join(server, pins), Some(HandshakeRefusal::UnpinnedRoot));
}

#[test]
fn a_bot_with_a_pinned_root_is_no_ca_server() {
    let root = Ca::root("acme");
    let refusal = join(presented(&root, &orders(), &[&root]), vec![pin(&root)]);
    assert_eq!(refusal, Some(HandshakeRefusal::NotCa { got: orders() }));
}

#[test]
fn a_ca_server_of_another_trust_domain_is_refused() {
    let evil = Ca::root("evil");
    let id = SpiffeId::parse("spiffe://evil/botmesh/ca/ca-1").unwrap();
    let refusal = join(presented(&evil, &id, &[&evil]), vec![pin(&evil)]).unwrap();
    assert_eq!(refusal.reason(), "other_trust_domain");

    let refusal = join(presented(&evil, &ca_server(), &[&evil]), vec![pin(&evil)]).unwrap();
    assert_eq!(
        refusal.reason(),
        "other_trust_domain",
        "the root names another trust domain"
    );
}

#[test]
fn an_expired_pinned_root_is_refused() {
    let root = Ca::root_with("acme", &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.not_after = forge::date(NOW - Duration::from_secs(1));
    });
    let refusal = join(presented(&root, &ca_server(), &[&root]), vec![pin(&root)]).unwrap();
    assert_eq!(refusal, HandshakeRefusal::Expired);
}

#[test]
fn the_bundle_does_not_stand_in_for_a_pin() {
    let root = Ca::root("acme");
    let mesh = Mesh {
        bundle: root.bundle(),
        server: presented(&root, &ca_server(), &[&root]),
        expect: Expect::PinnedRoots {
            trust_domain: acme(),
            sha256: vec![[7; 32]],
        },
        ..Mesh::new()
    };
    assert_eq!(mesh.shake().client_refusal(), HandshakeRefusal::UnpinnedRoot);
}
