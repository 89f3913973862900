//! The signing key and the fixed profile of everything it signs.
//!
//! A leaf is built from three things only: a SPIFFE ID that the caller has
//! authorised, a public key, and a lifetime. Nothing of a CSR but its key gets
//! here, so nothing a host writes can become part of a certificate.

mod check;
mod profile;
mod root_key;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rcgen::{CertificateParams, Issuer, SerialNumber};
use rustls_pki_types::CertificateDer;
use spiffe::id::{SpiffeId, TrustDomain};
use spiffe::svid::{Leaf, SvidError};
use spiffe::time::Timestamp;
use spiffe_tls::{KeyError, PrivateKey};

use crate::Digest;
use profile::Validity;
use root_key::RootKey;

pub(crate) use root_key::P256Key;

/// How long a root lasts. Rotation (prepare, activate, taint, revoke) comes with a
/// later version; until then an installation ends with its root.
pub(crate) const ROOT_TTL: Duration = Duration::from_hours(5 * 365 * 24);

/// The active root.
pub(crate) struct Authority {
    trust_domain: TrustDomain,
    issuer: Issuer<'static, RootKey>,
    certificate: Arc<[u8]>,
    not_after: Timestamp,
    spki: Vec<u8>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// A certificate that has been checked after signing.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) der: Vec<u8>,
    pub(crate) leaf: Leaf,
}

/// Why nothing was signed, or why what was signed does not leave.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The root has ended.
    #[error("the root certificate ended at {ended}")]
    RootEnded {
        /// When.
        ended: Timestamp,
    },
    /// The public key is not an uncompressed P-256 point.
    #[error("the public key is not P-256")]
    NotP256,
    /// The ID cannot be written into a certificate of this trust domain.
    #[error("{id} is not an ID below {trust_domain}")]
    ForeignId {
        /// The ID.
        id: SpiffeId,
        /// The trust domain of this CA.
        trust_domain: TrustDomain,
    },
    /// A time outside what certificates can say.
    #[error("{time} cannot be written into a certificate")]
    Time {
        /// The time.
        time: Timestamp,
    },
    /// No random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
    /// The certificate could not be built or signed.
    #[error("sign")]
    Sign {
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A key could not be made.
    #[error("make a key")]
    Key {
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The signed certificate is not an SVID.
    #[error("the certificate just signed breaks the rules of SVIDs")]
    NotAnSvid {
        /// Which rule.
        #[source]
        source: SvidError,
    },
    /// The signed certificate does not say what was meant.
    #[error("the certificate just signed differs from what was meant: {what}")]
    Differs {
        /// In what.
        what: &'static str,
    },
}

impl Authority {
    /// Makes a new key and signs its own certificate.
    pub(crate) fn generate(trust_domain: &TrustDomain, now: Timestamp) -> Result<(PrivateKey, Vec<u8>), SignError> {
        let key = PrivateKey::generate().map_err(|source| SignError::Key { source })?;
        let pkcs8 = key.to_pkcs8().map_err(|source| SignError::Key { source })?;
        let root_key = PrivateKey::from_pkcs8(&pkcs8).map_err(|source| SignError::Key { source })?;
        let root_key = RootKey::new(root_key)?;
        let params = profile::root(trust_domain, Validity::new(now, ROOT_TTL, None)?, serial()?)?;
        let certificate = params
            .self_signed(&root_key)
            .map_err(|source| SignError::Sign { source })?;
        let der = certificate.der().to_vec();
        spiffe::svid::Authority::parse(&der).map_err(|source| SignError::NotAnSvid { source })?;
        check::signature(&der, &key.spki_der())?;
        Ok((key, der))
    }

    /// Takes a root into use; the key must be the certificate's.
    pub(crate) fn open(trust_domain: &TrustDomain, certificate: Vec<u8>, key: PrivateKey) -> Result<Self, SignError> {
        let parsed = spiffe::svid::Authority::parse(&certificate).map_err(|source| SignError::NotAnSvid { source })?;
        let spki = key.spki_der();
        check::signature(&certificate, &spki)?;
        let not_after = parsed.not_after();
        let der = CertificateDer::from(certificate.as_slice());
        let issuer = Issuer::from_ca_cert_der(&der, RootKey::new(key)?).map_err(|source| SignError::Sign { source })?;
        Ok(Self {
            trust_domain: trust_domain.clone(),
            issuer,
            certificate: certificate.into(),
            not_after,
            spki,
        })
    }

    /// Signs a leaf that ends after `ttl` and never after the root, and checks it.
    pub(crate) fn issue(&self, id: &SpiffeId, spki: &[u8], ttl: Duration, now: Timestamp) -> Result<Issued, SignError> {
        if now >= self.not_after {
            return Err(SignError::RootEnded { ended: self.not_after });
        }
        if !id.is_member_of(&self.trust_domain) || id.path().is_empty() {
            return Err(SignError::ForeignId {
                id: id.clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        let key = P256Key::from_spki(spki)?;
        let validity = Validity::new(now, ttl, Some(self.not_after))?;
        let serial = serial()?;
        let params = profile::leaf(id, &validity, serial)?;
        let der = self.sign(&params, &key)?;
        let leaf = check::leaf(
            self,
            &der,
            &check::Meant {
                id,
                spki,
                serial: &serial,
                validity: &validity,
            },
        )?;
        Ok(Issued { der, leaf })
    }

    fn sign(&self, params: &CertificateParams, key: &P256Key) -> Result<Vec<u8>, SignError> {
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(|source| SignError::Sign { source })?;
        Ok(certificate.der().to_vec())
    }

    /// The root certificate, DER.
    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// When the root ends.
    pub(crate) fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// SHA-256 of the root's SubjectPublicKeyInfo: what join tokens pin.
    pub(crate) fn pin(&self) -> Digest {
        sha256(&self.spki)
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// 16 random bytes that are a positive INTEGER of full length (RFC 5280 §4.1.2.2
/// allows 20; CA/B asks for 64 random bits, this has 126).
fn serial() -> Result<[u8; 16], SignError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_opaque| SignError::Random)?;
    let [first, ..] = &mut serial;
    // Neither negative nor with a leading zero, so that it is its own DER content.
    *first = *first & 0x7f | 0x40;
    Ok(serial)
}

fn serial_number(serial: [u8; 16]) -> SerialNumber {
    SerialNumber::from_slice(&serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::parse("acme.internal").unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_rfc3339("2026-11-25T12:00:00.900Z").unwrap()
    }

    fn authority() -> Authority {
        let (key, der) = Authority::generate(&domain(), now()).unwrap();
        Authority::open(&domain(), der, key).unwrap()
    }

    fn id(path: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://acme.internal{path}")).unwrap()
    }

    fn spki() -> Vec<u8> {
        PrivateKey::generate().unwrap().spki_der()
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_root_with_the_key_of_another_is_refused() {
        let (_, der) = Authority::generate(&domain(), now()).unwrap();
        let other = PrivateKey::generate().unwrap();
        assert!(matches!(
            Authority::open(&domain(), der, other),
            Err(SignError::Differs { what: "signature" })
        ));
    }

    #[test]
    fn nothing_is_signed_for_another_trust_domain_or_for_the_domain_itself() {
        let authority = authority();
        let foreign = SpiffeId::parse("spiffe://other.internal/a").unwrap();
        for id in [foreign, id("")] {
            let refused = authority.issue(&id, &spki(), HOUR, now());
            assert!(matches!(refused, Err(SignError::ForeignId { .. })), "{id}");
        }
    }

    #[test]
    fn nothing_is_signed_for_a_key_that_is_not_p256() {
        let authority = authority();
        let mut other_curve = spki();
        other_curve[20] ^= 1;
        let short = spki()[..90].to_vec();
        for key in [other_curve, short, Vec::new()] {
            let refused = authority.issue(&id("/a"), &key, HOUR, now());
            assert!(matches!(refused, Err(SignError::NotP256)));
        }
    }

    #[test]
    fn a_leaf_is_cut_at_the_roots_end_and_none_is_signed_after_it() {
        let authority = authority();
        let end = authority.not_after();
        let last = authority
            .issue(&id("/a"), &spki(), HOUR, end - Duration::from_secs(2))
            .unwrap();
        assert_eq!(last.leaf.not_after(), end);
        for late in [end, end + HOUR] {
            let refused = authority.issue(&id("/a"), &spki(), HOUR, late);
            assert!(matches!(refused, Err(SignError::RootEnded { .. })));
        }
    }

    #[test]
    fn a_signed_leaf_that_does_not_say_what_was_meant_does_not_leave() {
        let authority = authority();
        let (spki, other_spki) = (spki(), spki());
        let validity = Validity::new(now(), HOUR, None).unwrap();
        let longer = Validity::new(now(), HOUR * 2, None).unwrap();
        let too_long = Validity::new(now(), ROOT_TTL * 2, None).unwrap();
        let (serial, other_serial) = (serial().unwrap(), serial().unwrap());
        let sign = |validity: &Validity| {
            let params = profile::leaf(&id("/a"), validity, serial).unwrap();
            authority.sign(&params, &P256Key::from_spki(&spki).unwrap()).unwrap()
        };
        let der = sign(&validity);
        let (meant_id, other_id) = (id("/a"), id("/b"));
        let check = |der: &[u8], id, spki: &[u8], serial, validity| match check::leaf(
            &authority,
            der,
            &check::Meant {
                id,
                spki,
                serial,
                validity,
            },
        ) {
            Ok(_) => "passed",
            Err(SignError::Differs { what }) => what,
            Err(SignError::NotAnSvid { .. }) => "not an SVID",
            Err(error) => panic!("{error}"),
        };
        assert_eq!(check(&der, &meant_id, &spki, &serial, &validity), "passed");
        assert_eq!(check(&der, &other_id, &spki, &serial, &validity), "SPIFFE ID");
        assert_eq!(check(&der, &meant_id, &other_spki, &serial, &validity), "public key");
        assert_eq!(check(&der, &meant_id, &spki, &other_serial, &validity), "serial");
        assert_eq!(check(&der, &meant_id, &spki, &serial, &longer), "validity");
        let immortal = sign(&too_long);
        assert_eq!(
            check(&immortal, &meant_id, &spki, &serial, &too_long),
            "end after the root's"
        );
        let mut unsigned = der.clone();
        *unsigned.last_mut().unwrap() ^= 1;
        assert_eq!(check(&unsigned, &meant_id, &spki, &serial, &validity), "signature");
        assert_eq!(
            check(&[der, vec![0]].concat(), &meant_id, &spki, &serial, &validity),
            "not an SVID"
        );
    }

    #[test]
    fn a_leaf_of_another_root_is_not_ours() {
        let (ours, theirs) = (authority(), authority());
        let spki = spki();
        let issued = theirs.issue(&id("/a"), &spki, HOUR, now()).unwrap();
        let serial: [u8; 16] = issued.leaf.serial().as_bytes().try_into().unwrap();
        let validity = Validity::new(now(), HOUR, None).unwrap();
        let meant = check::Meant {
            id: &id("/a"),
            spki: &spki,
            serial: &serial,
            validity: &validity,
        };
        assert!(matches!(
            check::leaf(&ours, &issued.der, &meant),
            Err(SignError::Differs { what: "issuer" })
        ));
    }
}
