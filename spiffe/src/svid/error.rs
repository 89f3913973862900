use thiserror::Error;
use x509_parser::error::X509Error;

use super::SerialError;
use crate::id::IdError;

/// Says which rule of X.509-SVID a certificate broke.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SvidError {
    /// It is longer than 16 KiB.
    #[error("the certificate has {bytes} bytes; at most 16384 are allowed")]
    Oversize {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It is not an X.509 certificate in DER.
    #[error("the certificate is not X.509 in DER")]
    NotDer {
        /// What the parser met.
        #[source]
        source: X509Error,
    },
    /// Bytes follow the certificate.
    #[error("{bytes} bytes follow the certificate")]
    TrailingData {
        /// How many.
        bytes: usize,
    },
    /// RFC 5280 §4.1.2.1: a certificate with extensions has version 3.
    #[error("the certificate is not of version 3")]
    NotVersion3,
    /// RFC 5280 §4.1.2.2: the serial number is positive, in at most 20 bytes.
    #[error("the certificate's serial number is not valid")]
    Serial {
        /// Which rule the number broke.
        #[source]
        source: SerialError,
    },
    /// The validity ends before it begins.
    #[error("the certificate's validity ends before it begins")]
    ValidityReversed,
    /// RFC 5280 §4.2: an extension appears once.
    #[error("the certificate has the extension {oid} twice")]
    ExtensionTwice {
        /// Its object identifier.
        oid: String,
    },
    /// An extension cannot be parsed, or holds a name that cannot.
    #[error("the certificate's extension {oid} is malformed")]
    ExtensionMalformed {
        /// Its object identifier.
        oid: String,
    },
    /// RFC 5280 §4.2: a critical extension that is not understood refuses the certificate.
    #[error("the certificate's critical extension {oid} is not understood")]
    ExtensionUnknownCritical {
        /// Its object identifier.
        oid: String,
    },
    /// X509-SVID §2: there is a URI SAN.
    #[error("the certificate has no URI SAN")]
    NoUriSan,
    /// X509-SVID §2: there is only one URI SAN.
    #[error("the certificate has {count} URI SANs; exactly one is allowed")]
    TwoUriSans {
        /// How many.
        count: usize,
    },
    /// X509-SVID §2: the URI SAN is a SPIFFE ID.
    #[error("the certificate's URI SAN is not a SPIFFE ID")]
    NotSpiffeId {
        /// Which rule the URI broke.
        #[source]
        source: IdError,
    },
    /// RFC 5280 §4.1.2.6: with an empty subject the SAN extension is critical.
    #[error("the certificate has an empty subject, and its SAN extension is not critical")]
    SanNotCritical,
    /// X509-SVID §5.2: the ID of a leaf has a path.
    #[error("the SPIFFE ID of a leaf has no path")]
    RootPath,
    /// X509-SVID §4.1: a leaf is no CA.
    #[error("the leaf has the CA bit")]
    CaBit,
    /// X509-SVID §4.3: there is a key usage extension.
    #[error("the certificate has no key usage")]
    NoKeyUsage,
    /// X509-SVID §4.3: key usage is critical.
    #[error("the certificate's key usage is not critical")]
    KeyUsageNotCritical,
    /// X509-SVID §4.3: a leaf may make digital signatures.
    #[error("the leaf's key usage lacks digitalSignature")]
    NoDigitalSignature,
    /// X509-SVID §4.3: a leaf must not sign certificates.
    #[error("the leaf's key usage has keyCertSign")]
    KeyCertSign,
    /// X509-SVID §4.3: a leaf must not sign revocation lists.
    #[error("the leaf's key usage has cRLSign")]
    CrlSign,
    /// X509-SVID §4.4: extended key usage, where present, holds both server and client authentication.
    #[error("the leaf's extended key usage lacks serverAuth or clientAuth")]
    WrongEku,
    /// X509-SVID §4.1: a signing certificate is a CA.
    #[error("the signing certificate lacks the CA bit")]
    NotCa,
    /// X509-SVID §4.3: a signing certificate may sign certificates.
    #[error("the signing certificate's key usage lacks keyCertSign")]
    NoKeyCertSign,
    /// X509-SVID §3.2: the SPIFFE ID of a signing certificate has no path.
    #[error("the SPIFFE ID of a signing certificate has a path")]
    AuthorityPath,
    /// The key of a signing certificate is neither ECDSA P-256, ECDSA P-384 nor RSA of 2048 to 8192 bits.
    #[error("the signing certificate's key is not ECDSA P-256, P-384 or RSA of 2048 to 8192 bits")]
    KeyUnsupported,
}

impl SvidError {
    /// Gives the rule as one stable snake_case word, for records, metrics and refusals.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Oversize { .. } => "oversize",
            Self::NotDer { .. } => "not_der",
            Self::TrailingData { .. } => "trailing_data",
            Self::NotVersion3 => "not_version_3",
            Self::Serial { .. } => "bad_serial",
            Self::ValidityReversed => "validity_reversed",
            Self::ExtensionTwice { .. } => "extension_twice",
            Self::ExtensionMalformed { .. } => "extension_malformed",
            Self::ExtensionUnknownCritical { .. } => "extension_unknown_critical",
            Self::NoUriSan => "no_uri_san",
            Self::TwoUriSans { .. } => "two_uri_sans",
            Self::NotSpiffeId { .. } => "not_spiffe_id",
            Self::SanNotCritical => "san_not_critical",
            Self::RootPath => "root_path",
            Self::CaBit => "ca_bit",
            Self::NoKeyUsage => "no_key_usage",
            Self::KeyUsageNotCritical => "key_usage_not_critical",
            Self::NoDigitalSignature => "no_digital_signature",
            Self::KeyCertSign => "key_cert_sign",
            Self::CrlSign => "crl_sign",
            Self::WrongEku => "wrong_eku",
            Self::NotCa => "not_ca",
            Self::NoKeyCertSign => "no_key_cert_sign",
            Self::AuthorityPath => "authority_path",
            Self::KeyUnsupported => "key_unsupported",
        }
    }
}
