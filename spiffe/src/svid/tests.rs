use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber};

use super::*;
use crate::forge;
use crate::id::IdError;
use crate::time::Timestamp;

const ID: &str = "spiffe://acme/prod/orders";

mod authorities;
mod leaves;
mod serials;

/// The good leaf with one change.
fn leaf_with(change: impl FnOnce(&mut CertificateParams)) -> Result<Leaf, SvidError> {
    let mut params = forge::leaf(ID);
    change(&mut params);
    Leaf::parse(&forge::issue(&params))
}

/// The good authority with one change.
fn authority_with(change: impl FnOnce(&mut CertificateParams)) -> Result<Authority, SvidError> {
    let mut params = forge::authority("spiffe://acme");
    change(&mut params);
    Authority::parse(&forge::issue(&params))
}

#[test]
fn every_rule_has_a_reason_of_its_own() {
    let oid = String::new();
    let rules = [
        SvidError::Oversize { bytes: 0 },
        SvidError::NotDer {
            source: x509_parser::error::X509Error::Generic,
        },
        SvidError::TrailingData { bytes: 0 },
        SvidError::NotVersion3,
        SvidError::Serial {
            source: SerialError::Zero,
        },
        SvidError::ValidityReversed,
        SvidError::ExtensionTwice { oid: oid.clone() },
        SvidError::ExtensionMalformed { oid: oid.clone() },
        SvidError::ExtensionUnknownCritical { oid },
        SvidError::NoUriSan,
        SvidError::TwoUriSans { count: 2 },
        SvidError::NotSpiffeId {
            source: IdError::Scheme,
        },
        SvidError::SanNotCritical,
        SvidError::RootPath,
        SvidError::CaBit,
        SvidError::NoKeyUsage,
        SvidError::KeyUsageNotCritical,
        SvidError::NoDigitalSignature,
        SvidError::KeyCertSign,
        SvidError::CrlSign,
        SvidError::WrongEku,
        SvidError::NotCa,
        SvidError::NoKeyCertSign,
        SvidError::AuthorityPath,
        SvidError::KeyUnsupported,
    ];
    let reasons: std::collections::BTreeSet<_> = rules.iter().map(SvidError::reason).collect();
    assert_eq!(reasons.len(), rules.len());
    assert!(
        reasons
            .iter()
            .all(|reason| reason.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_')))
    );
}
