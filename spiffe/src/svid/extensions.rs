//! Reads one certificate and the extensions that X.509-SVID has rules about, refusing whatever is ambiguous.

use std::collections::BTreeSet;

use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::{CERTIFICATE_BYTES_MAX, Serial, SvidError};
use crate::id::SpiffeId;
use crate::time::Timestamp;

/// Parses exactly one certificate out of `der`.
pub(super) fn certificate(der: &[u8]) -> Result<X509Certificate<'_>, SvidError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(SvidError::Oversize { bytes: der.len() });
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|source| SvidError::NotDer {
        source: X509Error::from(source),
    })?;
    if !rest.is_empty() {
        return Err(SvidError::TrailingData { bytes: rest.len() });
    }
    if certificate.version() != X509Version::V3 {
        return Err(SvidError::NotVersion3);
    }
    Ok(certificate)
}

/// What both kinds of certificate have.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) serial: Serial,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) key_usage: KeyUsage,
    pub(super) ca: bool,
    /// The one URI SAN, where there is one.
    pub(super) id: Option<SpiffeId>,
}

impl Common {
    /// Checks the rules that hold for both kinds.
    pub(super) fn read(certificate: &X509Certificate<'_>, found: &Extensions<'_>) -> Result<Self, SvidError> {
        let serial = Serial::from_bytes(certificate.tbs_certificate.raw_serial())
            .map_err(|source| SvidError::Serial { source })?;
        let validity = certificate.validity();
        let not_before = Timestamp::from_unix_seconds(validity.not_before.timestamp());
        let not_after = Timestamp::from_unix_seconds(validity.not_after.timestamp());
        if not_after < not_before {
            return Err(SvidError::ValidityReversed);
        }
        let subject_is_empty = certificate.subject().iter_rdn().next().is_none();
        if subject_is_empty && found.san_critical == Some(false) {
            return Err(SvidError::SanNotCritical);
        }
        let id = match found.uris.as_slice() {
            [] => None,
            [uri] => Some(SpiffeId::parse(uri).map_err(|source| SvidError::NotSpiffeId { source })?),
            uris => return Err(SvidError::TwoUriSans { count: uris.len() }),
        };
        let (key_usage, critical) = found.key_usage.ok_or(SvidError::NoKeyUsage)?;
        if !critical {
            return Err(SvidError::KeyUsageNotCritical);
        }
        Ok(Self {
            serial,
            not_before,
            not_after,
            key_usage,
            ca: found.ca,
            id,
        })
    }
}

/// The extensions of one certificate that have a rule.
#[derive(Debug, Default)]
pub(super) struct Extensions<'a> {
    pub(super) ca: bool,
    pub(super) key_usage: Option<(KeyUsage, bool)>,
    pub(super) extended_key_usage: Option<ExtendedKeyUsage<'a>>,
    pub(super) san_critical: Option<bool>,
    pub(super) uris: Vec<&'a str>,
}

impl<'a> Extensions<'a> {
    /// Goes through all extensions once. The size of the certificate bounds how many there are.
    pub(super) fn read(certificate: &'a X509Certificate<'_>) -> Result<Self, SvidError> {
        let mut found = Self::default();
        let mut seen = BTreeSet::new();
        for extension in certificate.extensions() {
            if !seen.insert(extension.oid.as_bytes()) {
                return Err(SvidError::ExtensionTwice {
                    oid: extension.oid.to_id_string(),
                });
            }
            found.take(extension)?;
        }
        Ok(found)
    }

    fn take(&mut self, extension: &'a X509Extension<'_>) -> Result<(), SvidError> {
        let oid = || extension.oid.to_id_string();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "what is not named here is refused where it is critical"
        )]
        match extension.parsed_extension() {
            ParsedExtension::ParseError { .. } => return Err(SvidError::ExtensionMalformed { oid: oid() }),
            ParsedExtension::BasicConstraints(constraints) => self.ca = constraints.ca,
            ParsedExtension::KeyUsage(usage) => self.key_usage = Some((*usage, extension.critical)),
            ParsedExtension::ExtendedKeyUsage(usage) => self.extended_key_usage = Some(usage.clone()),
            ParsedExtension::SubjectAlternativeName(san) => {
                self.san_critical = Some(extension.critical);
                for name in &san.general_names {
                    match name {
                        GeneralName::URI(uri) => self.uris.push(uri),
                        GeneralName::Invalid(..) => return Err(SvidError::ExtensionMalformed { oid: oid() }),
                        // X509-SVID §2 allows SANs of any other kind.
                        _ => {}
                    }
                }
            }
            _ if extension.critical => return Err(SvidError::ExtensionUnknownCritical { oid: oid() }),
            _ => {}
        }
        Ok(())
    }
}
