//! The way of a reason through the errors of others.

use std::io;

use super::*;

#[test]
fn a_reason_is_found_under_several_layers_of_errors() {
    let refused = HandshakeRefusal::WrongId {
        expected: orders(),
        got: checkout(),
    };
    let of_rustls = || io::Error::new(io::ErrorKind::InvalidData, rustls::Error::from(refused.clone()));
    assert_eq!(refusal_of(&of_rustls()), Some(refused.clone()));
    assert_eq!(refusal_of(&io::Error::other(of_rustls())), Some(refused.clone()));
    assert_eq!(refusal_of(&io::Error::other(refused.clone())), Some(refused.clone()));

    #[derive(Debug, thiserror::Error)]
    #[error("connect")]
    struct Connect(#[source] io::Error);
    assert_eq!(refusal_of(&io::Error::other(Connect(of_rustls()))), Some(refused));
}

#[test]
fn the_search_ends() {
    let refused = HandshakeRefusal::Expired;
    let nested =
        |layers: usize| (0..layers).fold(io::Error::other(refused.clone()), |inner, _| io::Error::other(inner));
    assert_eq!(refusal_of(&nested(6)), Some(refused.clone()));
    assert_eq!(refusal_of(&nested(7)), None);
}

#[test]
fn other_errors_hold_no_reason() {
    assert_eq!(refusal_of(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    assert_eq!(refusal_of(&io::Error::other("text")), None);
    assert_eq!(
        HandshakeRefusal::of(&rustls::Error::General("other text".to_owned())),
        None
    );
}

#[test]
fn every_refusal_has_a_reason_of_its_own() {
    let refusals = [
        HandshakeRefusal::NoCertificate,
        HandshakeRefusal::ChainTooLong { certificates: 5 },
        HandshakeRefusal::Expired,
        HandshakeRefusal::NotYetValid,
        HandshakeRefusal::OtherTrustDomain {
            expected: acme(),
            got: acme(),
        },
        HandshakeRefusal::UntrustedChain {
            source: webpki::Error::UnknownIssuer,
        },
        HandshakeRefusal::UnpinnedRoot,
        HandshakeRefusal::TwoUriSans,
        HandshakeRefusal::CaBit,
        HandshakeRefusal::WrongEku,
        HandshakeRefusal::BadCertificate {
            source: SvidError::NoKeyUsage,
        },
        HandshakeRefusal::BadIntermediate {
            source: SvidError::NotCa,
        },
        HandshakeRefusal::WrongId {
            expected: orders(),
            got: checkout(),
        },
        HandshakeRefusal::NotCa { got: orders() },
        HandshakeRefusal::BadSignature,
        HandshakeRefusal::NotTls13,
        HandshakeRefusal::UnknownName,
    ];
    let reasons: std::collections::BTreeSet<_> = refusals.iter().map(HandshakeRefusal::reason).collect();
    assert_eq!(reasons.len(), refusals.len());
    assert!(
        reasons
            .iter()
            .all(|reason| reason.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_')))
    );
}
