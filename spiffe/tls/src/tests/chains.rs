//! The leaf's own rules and its way to an authority, in both directions.

use super::*;

#[test]
fn a_leaf_is_valid_in_its_first_and_last_moment() {
    for now in [NOT_BEFORE, NOT_AFTER] {
        let clock = Clock::fixed(now).0;
        Mesh { clock, ..Mesh::new() }.shake().established();
    }
}

#[test]
fn a_leaf_is_refused_a_millisecond_before_and_after() {
    let at = |now| Mesh {
        clock: Clock::fixed(now).0,
        ..Mesh::new()
    };
    let instant = Duration::from_millis(1);
    assert_eq!(
        at(NOT_BEFORE - instant).shake().client_refusal(),
        HandshakeRefusal::NotYetValid
    );
    assert_eq!(
        at(NOT_AFTER + instant).shake().client_refusal(),
        HandshakeRefusal::Expired
    );

    // For the server to get so far, its own certificate has to live longer than the client's.
    let long = |mut mesh: Mesh| {
        mesh.server = mesh.ca.certified(&orders(), |params| {
            params.not_before = forge::date(NOT_BEFORE - Duration::from_secs(60));
            params.not_after = forge::date(NOT_AFTER + Duration::from_secs(60));
        });
        mesh
    };
    assert_eq!(
        long(at(NOT_BEFORE - instant)).shake().server_refusal(),
        HandshakeRefusal::NotYetValid
    );
    assert_eq!(
        long(at(NOT_AFTER + instant)).shake().server_refusal(),
        HandshakeRefusal::Expired
    );
}

#[test]
fn a_clock_before_1970_finds_nothing_valid() {
    let clock = Clock::fixed(spiffe::time::Timestamp::from_unix_seconds(-5)).0;
    assert_eq!(
        Mesh { clock, ..Mesh::new() }.shake().client_refusal(),
        HandshakeRefusal::NotYetValid
    );
}

#[test]
fn the_clock_is_read_anew_for_each_handshake() {
    let (clock, hand) = Clock::fixed(NOW);
    let mesh = Mesh { clock, ..Mesh::new() };
    let (client, server) = (mesh.client_config(), mesh.server_config());
    let shake = || handshake(Arc::clone(&client), Arc::clone(&server), sni_for(&orders()));
    shake().established();
    hand.set(NOT_AFTER + Duration::from_secs(1));
    assert_eq!(shake().client_refusal(), HandshakeRefusal::Expired);
}

#[test]
fn an_svid_of_this_side_is_verified_as_a_peer_would() {
    let (ca, other) = (Ca::root("acme"), Ca::root("acme"));
    let trusted = forge::bundle("acme", &[&ca]);
    let svid = ca.svid(&orders());
    assert_eq!(svid.verify(&trusted, NOW), Ok(()));
    let untrusted = svid.verify(&forge::bundle("acme", &[&other]), NOW).unwrap_err();
    assert_eq!(untrusted.reason(), "untrusted_chain");
    let instant = Duration::from_millis(1);
    assert_eq!(
        svid.verify(&trusted, NOT_AFTER + instant),
        Err(HandshakeRefusal::Expired)
    );
    assert_eq!(
        svid.verify(&trusted, NOT_BEFORE - instant),
        Err(HandshakeRefusal::NotYetValid)
    );
}

#[test]
fn a_chain_to_another_authority_of_the_same_name_is_refused() {
    let other = Ca::root("acme");
    let refusals = Mesh::new().refusals_of(|_, id| other.certified(id, |_| ()));
    assert_eq!(reasons(&refusals), ["untrusted_chain", "untrusted_chain"]);
}

#[test]
fn a_bundle_without_authorities_trusts_nobody() {
    let mesh = Mesh {
        bundle: forge::bundle("acme", &[]),
        ..Mesh::new()
    };
    assert_eq!(mesh.shake().client_refusal().reason(), "untrusted_chain");
}

#[test]
fn any_authority_of_the_bundle_will_do() {
    let mesh = Mesh::new();
    let bundle = forge::bundle("acme", &[&Ca::root("acme"), &mesh.ca]);
    Mesh { bundle, ..mesh }.shake().established();
}

#[test]
fn an_authority_that_is_not_valid_now_does_not_count() {
    let instant = Duration::from_secs(1);
    let expired = |params: &mut CertificateParams| params.not_after = forge::date(NOW - instant);
    let early = |params: &mut CertificateParams| params.not_before = forge::date(NOW + instant);
    let ends_now = |params: &mut CertificateParams| params.not_after = forge::date(NOW);
    let begins_now = |params: &mut CertificateParams| params.not_before = forge::date(NOW);
    let refusal = |change: &dyn Fn(&mut CertificateParams)| {
        let ca = Ca::root_with("acme", &rcgen::PKCS_ECDSA_P256_SHA256, change);
        let server = ca.svid(&orders()).certified_key();
        let client = Some(ca.svid(&checkout()).certified_key());
        let ends = Mesh {
            bundle: ca.bundle(),
            server,
            client,
            ..Mesh::new()
        }
        .shake();
        ends.client_result.is_err().then(|| ends.client_refusal().reason())
    };
    assert_eq!(refusal(&expired), Some("untrusted_chain"));
    assert_eq!(refusal(&early), Some("untrusted_chain"));
    assert_eq!(refusal(&ends_now), None);
    assert_eq!(refusal(&begins_now), None);
}

#[test]
fn authorities_with_p384_keys_are_supported() {
    let ca = Ca::root_with("acme", &rcgen::PKCS_ECDSA_P384_SHA384, |_| ());
    let server = ca.svid(&orders()).certified_key();
    let client = Some(ca.svid(&checkout()).certified_key());
    Mesh {
        bundle: ca.bundle(),
        server,
        client,
        ..Mesh::new()
    }
    .shake()
    .established();
}

#[test]
fn two_uri_sans_are_refused() {
    let refusals = Mesh::new().refusals_with(|params| params.subject_alt_names.push(forge::uri("spiffe://acme/other")));
    assert_eq!(refusals, [HandshakeRefusal::TwoUriSans, HandshakeRefusal::TwoUriSans]);
}

#[test]
fn the_ca_bit_is_refused() {
    let refusals = Mesh::new().refusals_with(|params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    assert_eq!(refusals, [HandshakeRefusal::CaBit, HandshakeRefusal::CaBit]);
}

#[test]
fn one_extended_key_usage_of_the_two_is_refused_even_where_it_fits() {
    for only in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] {
        let refusals = Mesh::new().refusals_with(|params| params.extended_key_usages = vec![only.clone()]);
        assert_eq!(
            refusals,
            [HandshakeRefusal::WrongEku, HandshakeRefusal::WrongEku],
            "{only:?}"
        );
    }
}

#[test]
fn every_other_rule_of_the_leaf_is_kept_too() {
    let refusals = Mesh::new().refusals_with(|params| params.key_usages.clear());
    let refused = HandshakeRefusal::BadCertificate {
        source: SvidError::NoKeyUsage,
    };
    assert_eq!(refusals, [refused.clone(), refused]);
}

#[test]
fn an_authority_cannot_authenticate_anyone() {
    let root = Ca::root("acme");
    let key = PrivateKey::generate().unwrap();
    let mesh = Mesh {
        bundle: root.bundle(),
        server: forge::certified(vec![root.der.clone()], &key),
        ..Mesh::new()
    };
    assert_eq!(mesh.shake().client_refusal(), HandshakeRefusal::CaBit);
}

#[test]
fn intermediates_travel_with_the_leaf() {
    let root = Ca::root("acme");
    let issuing = root.intermediate("between", |_| ());
    let mesh = Mesh {
        bundle: root.bundle(),
        server: issuing.svid(&orders()).certified_key(),
        client: Some(issuing.svid(&checkout()).certified_key()),
        ..Mesh::new()
    };
    mesh.shake().established();
}

#[test]
fn a_chain_has_four_certificates_and_no_more() {
    let first = Mesh::new();
    let second = first.ca.intermediate("second", |_| ());
    let third = second.intermediate("third", |_| ());
    let with_root = |id: &SpiffeId, extra: &[Vec<u8>]| {
        let key = PrivateKey::generate().unwrap();
        let chain = third
            .chain(&key, id, |_| ())
            .into_iter()
            .chain(extra.to_vec())
            .collect::<Vec<_>>();
        (chain.len(), forge::certified(chain, &key))
    };
    let root = first.ca.der.clone();
    let (four, server) = with_root(&orders(), std::slice::from_ref(&root));
    assert_eq!(four, 4);
    let client = Some(with_root(&checkout(), std::slice::from_ref(&root)).1);
    let first = Mesh {
        server,
        client,
        ..first
    };
    first.shake().established();

    let refusals = first.refusals_of(|_, id| with_root(id, &[root.clone(), root.clone()]).1);
    let refused = HandshakeRefusal::ChainTooLong { certificates: 5 };
    assert_eq!(refusals, [refused.clone(), refused]);
}

#[test]
fn an_expired_or_early_intermediate_is_refused() {
    let instant = Duration::from_secs(1);
    let by = |change: &dyn Fn(&mut CertificateParams)| {
        let mesh = Mesh::new();
        let issuing = mesh.ca.intermediate("between", change);
        mesh.refusals_of(|_, id| issuing.certified(id, |_| ()))
    };
    let expired = by(&|params| params.not_after = forge::date(NOW - instant));
    assert_eq!(expired, [HandshakeRefusal::Expired, HandshakeRefusal::Expired]);
    let early = by(&|params| params.not_before = forge::date(NOW + instant));
    assert_eq!(early, [HandshakeRefusal::NotYetValid, HandshakeRefusal::NotYetValid]);
}

#[test]
fn a_path_longer_than_the_authority_allows_is_refused() {
    let mesh = Mesh::new();
    let last = mesh.ca.intermediate("last", |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0))
    });
    let below = last.intermediate("below", |_| ());
    let refusals = mesh.refusals_of(|_, id| below.certified(id, |_| ()));
    let refused = HandshakeRefusal::UntrustedChain {
        source: webpki::Error::PathLenConstraintViolated,
    };
    assert_eq!(refusals, [refused.clone(), refused]);
}

#[test]
fn a_leaf_in_place_of_an_intermediate_is_refused() {
    let refusals = Mesh::new().refusals_of(|mesh, id| {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let chain = [mesh.ca.chain(&key, id, |_| ()), mesh.ca.chain(&other, id, |_| ())].concat();
        forge::certified(chain, &key)
    });
    let refused = HandshakeRefusal::BadIntermediate {
        source: SvidError::NotCa,
    };
    assert_eq!(refusals, [refused.clone(), refused]);
}

#[test]
fn an_intermediate_of_another_trust_domain_is_refused() {
    let refusals = Mesh::new().refusals_of(|mesh, id| {
        let foreign = mesh.ca.intermediate("foreign", |params| {
            params.subject_alt_names = vec![forge::uri("spiffe://evil")];
        });
        foreign.certified(id, |_| ())
    });
    assert_eq!(reasons(&refusals), ["other_trust_domain", "other_trust_domain"]);
}

#[test]
fn an_oversize_certificate_is_refused_before_it_is_parsed() {
    let refusals = Mesh::new().refusals_with(|params| {
        let padding = vec![0; 16 * 1024];
        params
            .custom_extensions
            .push(rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], padding));
    });
    assert!(matches!(
        refusals,
        [
            HandshakeRefusal::BadCertificate {
                source: SvidError::Oversize { .. }
            },
            HandshakeRefusal::BadCertificate {
                source: SvidError::Oversize { .. }
            },
        ]
    ));
}
