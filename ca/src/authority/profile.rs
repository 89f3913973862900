//! What every certificate of this CA looks like.
//!
//! The subject of a leaf says `O=botmesh`, because some stacks dislike an empty
//! one and the trust domain may be longer than the 64 characters that RFC 5280
//! (appendix A.1, ub-organization-name) gives an organisation, and as its common
//! name the SPIFFE ID where that has at most 64 characters. Nobody of the mesh
//! reads it: the identity is in the URI SAN (X509-SVID §2). It is there for servers
//! that map clients by the common name alone, as PostgreSQL does; with its `://` it
//! is the name of no host, for whoever still takes a common name for one.

use std::time::Duration;

use rcgen::string::{Ia5String, PrintableString};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};
use spiffe::id::{SpiffeId, TrustDomain};
use spiffe::time::Timestamp;
use time::OffsetDateTime;

use super::{SignError, serial_number};

/// How far `notBefore` lies back, for peers whose clock is a little behind.
const BACKDATE: Duration = Duration::from_mins(1);

/// id-at-serialNumber (X.520): two roots of one installation never share a
/// subject, or path building would have to try them all.
const SERIAL_NUMBER_OID: [u64; 4] = [2, 5, 4, 5];

const ORGANIZATION: &str = "botmesh";

/// ub-common-name of RFC 5280 appendix A.1.
const COMMON_NAME_MAX: usize = 64;

/// From when to when, in the whole seconds that certificates know.
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Validity {
    /// `ttl` from now, cut at `limit`: what signs ends last (RFC 5280 §6.1.3 a 2).
    pub(super) fn new(now: Timestamp, ttl: Duration, limit: Option<Timestamp>) -> Result<Self, SignError> {
        let end = now + ttl;
        let end = limit.map_or(end, |limit| end.min(limit));
        let seconds = |time: Timestamp| Timestamp::from_unix_millis(time.unix_seconds().saturating_mul(1000));
        let validity = Self {
            not_before: seconds(now - BACKDATE),
            not_after: seconds(end),
        };
        if validity.not_after <= now {
            return Err(SignError::RootEnded { ended: end });
        }
        Ok(validity)
    }
}

/// The certificate of a root.
pub(super) fn root(
    trust_domain: &TrustDomain,
    validity: Validity,
    serial: [u8; 16],
) -> Result<CertificateParams, SignError> {
    let mut params = base(&trust_domain.id(), &validity, serial)?;
    let number: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
    let number = PrintableString::try_from(number).map_err(|source| SignError::Sign { source })?;
    let name = &mut params.distinguished_name;
    if trust_domain.as_str().len() <= COMMON_NAME_MAX {
        name.push(DnType::CommonName, trust_domain.as_str());
    }
    name.push(
        DnType::CustomDnType(SERIAL_NUMBER_OID.to_vec()),
        DnValue::PrintableString(number),
    );
    // It signs leaves directly: no certificate below it may sign.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The certificate of a bot, a host or a CA server.
pub(super) fn leaf(id: &SpiffeId, validity: &Validity, serial: [u8; 16]) -> Result<CertificateParams, SignError> {
    let mut params = base(id, validity, serial)?;
    if id.as_str().len() <= COMMON_NAME_MAX {
        params.distinguished_name.push(DnType::CommonName, id.as_str());
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn base(id: &SpiffeId, validity: &Validity, serial: [u8; 16]) -> Result<CertificateParams, SignError> {
    let uri = Ia5String::try_from(id.as_str()).map_err(|source| SignError::Sign { source })?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    params.serial_number = Some(serial_number(serial));
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn date(time: Timestamp) -> Result<OffsetDateTime, SignError> {
    OffsetDateTime::from_unix_timestamp(time.unix_seconds()).map_err(|_out_of_range| SignError::Time { time })
}
