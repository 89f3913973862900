//! Certificates for these tests, good and bad. Validity is set by hand, so that no test depends on the day it runs.

use std::sync::Arc;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SignatureAlgorithm, SubjectPublicKeyInfo,
};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use spiffe::bundle::TrustBundle;
use spiffe::id::{SpiffeId, TrustDomain};
use spiffe::svid::Authority;
use spiffe::time::Timestamp;

use crate::{PrivateKey, Svid};

/// The life of every certificate here, and a moment inside it.
pub(super) const NOT_BEFORE: Timestamp = Timestamp::from_unix_seconds(1_790_000_000);
pub(super) const NOT_AFTER: Timestamp = Timestamp::from_unix_seconds(1_790_003_600);
pub(super) const NOW: Timestamp = Timestamp::from_unix_seconds(1_790_001_000);

pub(super) fn date(time: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(time.unix_seconds()).unwrap()
}

pub(super) fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

/// A CA: its certificate, its key, and what lies between it and the root.
pub(super) struct Ca {
    pub(super) domain: String,
    pub(super) der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    /// The certificates that a leaf of this CA needs, nearest first; none for a root.
    pub(super) between: Vec<Vec<u8>>,
}

impl Ca {
    pub(super) fn root(domain: &str) -> Self {
        Self::root_with(domain, &rcgen::PKCS_ECDSA_P256_SHA256, |_| ())
    }

    pub(super) fn root_with(
        domain: &str,
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = authority(domain, "root");
        change(&mut params);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self {
            domain: domain.to_owned(),
            der,
            issuer: Issuer::new(params, key),
            between: Vec::new(),
        }
    }

    /// A CA below this one.
    pub(super) fn intermediate(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority(&self.domain, name);
        change(&mut params);
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        let between = std::iter::once(der.clone()).chain(self.between.clone()).collect();
        Self {
            domain: self.domain.clone(),
            der,
            issuer: Issuer::new(params, key),
            between,
        }
    }

    pub(super) fn bundle(&self) -> Arc<TrustBundle> {
        bundle(&self.domain, &[self])
    }

    /// The leaf and what lies between.
    pub(super) fn chain(
        &self,
        key: &PrivateKey,
        id: &SpiffeId,
        change: impl Fn(&mut CertificateParams),
    ) -> Vec<Vec<u8>> {
        let mut params = leaf(id);
        change(&mut params);
        let subject = SubjectPublicKeyInfo::from_der(&key.spki_der()).unwrap();
        let leaf = params.signed_by(&subject, &self.issuer).unwrap().der().to_vec();
        std::iter::once(leaf).chain(self.between.clone()).collect()
    }

    pub(super) fn svid(&self, id: &SpiffeId) -> Svid {
        let key = PrivateKey::generate().unwrap();
        Svid::new(self.chain(&key, id, |_| ()), key).unwrap()
    }

    /// What a rogue presents: a chain that `Svid` need not accept.
    pub(super) fn certified(&self, id: &SpiffeId, change: impl Fn(&mut CertificateParams)) -> Arc<CertifiedKey> {
        let key = PrivateKey::generate().unwrap();
        certified(self.chain(&key, id, change), &key)
    }
}

pub(super) fn certified(chain: Vec<Vec<u8>>, key: &PrivateKey) -> Arc<CertifiedKey> {
    let signing = any_ecdsa_type(&PrivateKeyDer::Pkcs8(key.to_pkcs8().unwrap().to_vec().into())).unwrap();
    Arc::new(CertifiedKey::new(
        chain.into_iter().map(CertificateDer::from).collect(),
        signing,
    ))
}

pub(super) fn bundle(domain: &str, cas: &[&Ca]) -> Arc<TrustBundle> {
    let authorities = cas.iter().map(|ca| Authority::parse(&ca.der).unwrap()).collect();
    Arc::new(TrustBundle::new(TrustDomain::parse(domain).unwrap(), authorities, 1, None).unwrap())
}

fn leaf(id: &SpiffeId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id.as_str())];
    params.not_before = date(NOT_BEFORE);
    params.not_after = date(NOT_AFTER);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn authority(domain: &str, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))];
    // Longer than any leaf, so that a test of the leaf's validity meets the leaf's.
    params.not_before = date(NOT_BEFORE - Duration::from_secs(3600));
    params.not_after = date(NOT_AFTER + Duration::from_secs(3600));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
