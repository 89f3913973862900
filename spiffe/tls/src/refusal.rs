//! Why a handshake ended, as a type that survives the way through rustls and `std::io`.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, OtherError, PeerIncompatible};
use spiffe::id::{SpiffeId, TrustDomain};
use spiffe::svid::SvidError;
use thiserror::Error;

/// How many layers of errors [`HandshakeRefusal::of_io`] looks through.
const LAYERS_MAX: usize = 8;

/// Says why this side ended a handshake. The peer sees a TLS alert only.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum HandshakeRefusal {
    /// The peer presented no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// The peer presented more certificates than any chain needs.
    #[error("the peer presented {certificates} certificates; at most 4 are allowed")]
    ChainTooLong {
        /// How many.
        certificates: usize,
    },
    /// A certificate of the chain has expired.
    #[error("the peer's certificate has expired")]
    Expired,
    /// A certificate of the chain is not valid yet.
    #[error("the peer's certificate is not valid yet")]
    NotYetValid,
    /// The peer belongs to another trust domain.
    #[error("the peer belongs to the trust domain {got}, not to {expected}")]
    OtherTrustDomain {
        /// The trust domain whose members are let in.
        expected: TrustDomain,
        /// The trust domain the peer claims.
        got: TrustDomain,
    },
    /// No valid chain leads from the leaf to an authority of the bundle.
    #[error("the peer's certificate does not lead to an authority of the trust bundle")]
    UntrustedChain {
        /// What the chain validation met.
        #[source]
        source: webpki::Error,
    },
    /// No certificate of the presented chain has a pinned key.
    #[error("the peer presented no authority with a pinned key")]
    UnpinnedRoot,
    /// The leaf has more than one URI SAN.
    #[error("the peer's certificate has more than one URI SAN")]
    TwoUriSans,
    /// The leaf is a CA.
    #[error("the peer's certificate has the CA bit")]
    CaBit,
    /// The leaf's extended key usage lacks a use.
    #[error("the peer's certificate lacks the extended key usage of a server or a client")]
    WrongEku,
    /// The leaf breaks another rule of X.509-SVID.
    #[error("the peer's certificate is not an X.509-SVID")]
    BadCertificate {
        /// Which rule.
        #[source]
        source: SvidError,
    },
    /// A later certificate of the chain is not a signing certificate.
    #[error("the peer's chain holds a certificate that is no signing certificate")]
    BadIntermediate {
        /// Which rule it broke.
        #[source]
        source: SvidError,
    },
    /// The peer is somebody else.
    #[error("the peer is {got}, not {expected}")]
    WrongId {
        /// The SPIFFE ID wanted.
        expected: SpiffeId,
        /// The SPIFFE ID proven.
        got: SpiffeId,
    },
    /// The peer is a member of the trust domain but no server of its CA.
    #[error("the peer is {got}, which is no server of the CA")]
    NotCa {
        /// The SPIFFE ID proven.
        got: SpiffeId,
    },
    /// The peer's handshake signature is wrong: it does not hold the key of its certificate.
    #[error("the peer did not prove that it holds the key of its certificate")]
    BadSignature,
    /// The peer does not speak TLS 1.3.
    #[error("the peer does not speak TLS 1.3")]
    NotTls13,
    /// The peer asked for a server name that nobody here has, or for none.
    #[error("the peer asked for an unknown server name, or for none")]
    UnknownName,
}

impl HandshakeRefusal {
    /// Gives the reason as one stable snake_case word, for records and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::ChainTooLong { .. } => "chain_too_long",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::OtherTrustDomain { .. } => "other_trust_domain",
            Self::UntrustedChain { .. } => "untrusted_chain",
            Self::UnpinnedRoot => "unpinned_root",
            Self::TwoUriSans => "two_uri_sans",
            Self::CaBit => "ca_bit",
            Self::WrongEku => "wrong_eku",
            Self::BadCertificate { .. } => "bad_certificate",
            Self::BadIntermediate { .. } => "bad_intermediate",
            Self::WrongId { .. } => "wrong_id",
            Self::NotCa { .. } => "not_ca",
            Self::BadSignature => "bad_signature",
            Self::NotTls13 => "not_tls13",
            Self::UnknownName => "unknown_name",
        }
    }

    /// Finds the reason in an error of rustls, where this side ended the handshake for one of these reasons.
    pub fn of(error: &rustls::Error) -> Option<Self> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "every other error of rustls is no refusal of ours"
        )]
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                inner.downcast_ref::<Self>().cloned()
            }
            rustls::Error::InvalidCertificate(CertificateError::BadSignature) => Some(Self::BadSignature),
            rustls::Error::NoCertificatesPresented => Some(Self::NoCertificate),
            rustls::Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::ServerDoesNotSupportTls12Or13,
            ) => Some(Self::NotTls13),
            // A server that speaks nothing newer ends the handshake with this alert (RFC 8446 §4.2.1).
            rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => Some(Self::NotTls13),
            // What rustls says when the resolver of certificates gives none; a test holds it to this text.
            rustls::Error::General(text) if text == NO_CERTIFICATE_RESOLVED => Some(Self::UnknownName),
            _ => None,
        }
    }

    /// Finds the reason in an I/O error that wraps an error of rustls, at most 8 layers down.
    pub fn of_io(error: &io::Error) -> Option<Self> {
        let mut layer: Option<&(dyn StdError + 'static)> = Some(error);
        for _ in 0..LAYERS_MAX {
            let error = layer?;
            if let Some(refusal) = error.downcast_ref::<Self>() {
                return Some(refusal.clone());
            }
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                return Self::of(error);
            }
            // An io::Error gives its inner error's source as its own, so the inner error is looked at first.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            layer = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }
}

const NO_CERTIFICATE_RESOLVED: &str = "no server certificate chain resolved";

impl From<HandshakeRefusal> for rustls::Error {
    fn from(refusal: HandshakeRefusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

impl From<SvidError> for HandshakeRefusal {
    fn from(source: SvidError) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the rules with a reason of their own are named"
        )]
        match source {
            SvidError::TwoUriSans { .. } => Self::TwoUriSans,
            SvidError::CaBit => Self::CaBit,
            SvidError::WrongEku => Self::WrongEku,
            source => Self::BadCertificate { source },
        }
    }
}
