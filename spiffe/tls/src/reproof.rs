//! Proofs in band: on a connection that is open, an end shows the SVID that has followed the one of the handshake.
//!
//! A proof is a chain and a signature by the key of its leaf over who speaks, that leaf, and a value that only the two
//! ends of this one TLS session know (RFC 8446 §7.5). So it proves the same as a handshake would, on this connection and
//! on no other. What is read here comes from a peer that is authenticated already, and is bounded all the same.

use std::fmt;

use rustls_pki_types::CertificateDer;
use spiffe::bundle::TrustBundle;
use spiffe::id::SpiffeId;
use spiffe::svid::{CERTIFICATE_BYTES_MAX, Leaf};
use spiffe::time::Timestamp;
use thiserror::Error;

use crate::key::{KeyError, verify_p256};
use crate::refusal::HandshakeRefusal;
use crate::svid::Svid;
use crate::verify::{CHAIN_CERTIFICATES_MAX, Peer, Role, Roots, verify};

/// The most bytes of a proof without its length: a chain of the most and largest certificates, a signature, and the
/// numbers between them.
pub const REPROOF_BYTES_MAX: usize = CHAIN_CERTIFICATES_MAX * (CERTIFICATE_BYTES_MAX + 4) + SIGNATURE_BYTES_MAX + 5;

/// How many bytes the exporter of a session gives.
pub const EXPORTER_BYTES: usize = 32;

/// The one version of the message.
const VERSION: u8 = 1;

/// The longest signature of P-256 in DER: two integers of 33 bytes, with their tags and lengths.
const SIGNATURE_BYTES_MAX: usize = 72;

/// What every signed text begins with, so that no signature made for anything else is a proof, nor the other way round.
const DOMAIN: &[u8] = b"botmesh in-band proof of an SVID\0";

/// Gives the label of the TLS exporter (RFC 8446 §7.5) whose value proofs sign: 32 bytes, empty context.
pub const fn reproof_label() -> &'static str {
    "EXPORTER-botmesh-reproof"
}

/// A value that only the two ends of one TLS session know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exporter([u8; EXPORTER_BYTES]);

impl Exporter {
    /// Takes what a session exports under [`reproof_label`].
    pub const fn new(value: [u8; EXPORTER_BYTES]) -> Self {
        Self(value)
    }
}

/// Does not show the value: whoever has it can only replay proofs on this session, but nobody needs it.
impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(redacted)")
    }
}

/// A proof as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reproof {
    role: Role,
    /// Leaf first; 1 to 4 certificates, none empty or too long.
    chain: Vec<Vec<u8>>,
    signature: Vec<u8>,
}

/// What a connection is known by, for whoever judges a proof on it.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// Which end the peer is.
    pub peer: Role,
    /// Whom the handshake proved the peer to be.
    pub id: &'a SpiffeId,
    /// The end of the SVID that the peer proved last.
    pub not_after: Timestamp,
    /// The session's own value.
    pub exporter: &'a Exporter,
}

impl Reproof {
    /// Makes the proof that this end, in `role`, holds `svid`.
    ///
    /// # Errors
    /// When there is no randomness to sign with.
    pub fn make(svid: &Svid, role: Role, exporter: &Exporter) -> Result<Self, KeyError> {
        let message = message(role, svid.leaf().sha256(), exporter);
        Ok(Self {
            role,
            chain: svid.chain().to_vec(),
            signature: svid.key().sign(&message)?,
        })
    }

    /// Judges the proof at `now`, and gives the leaf that it proved: by the one verifier of handshakes, the same ID, an
    /// end later than that of the SVID before, and the signature over this session.
    ///
    /// # Errors
    /// With the one reason why it proves nothing.
    pub fn verify(&self, session: Session<'_>, bundle: &TrustBundle, now: Timestamp) -> Result<Leaf, ReproofRefusal> {
        if self.role != session.peer {
            return Err(ReproofRefusal::OtherRole);
        }
        let mut chain = self.chain.iter().map(|der| CertificateDer::from(der.as_slice()));
        let leaf = chain.next().ok_or(ReproofRefusal::Chain {
            source: HandshakeRefusal::NoCertificate,
        })?;
        let rest: Vec<_> = chain.collect();
        let (roots, id) = (Roots::Bundle(bundle), Peer::Exact(session.id));
        let leaf =
            verify(&leaf, &rest, roots, id, self.role, now).map_err(|source| ReproofRefusal::Chain { source })?;
        if leaf.not_after() <= session.not_after {
            return Err(ReproofRefusal::NotNewer);
        }
        let message = message(self.role, leaf.sha256(), session.exporter);
        verify_p256(leaf.spki(), &message, &self.signature).map_err(|source| ReproofRefusal::Signature { source })?;
        Ok(leaf)
    }

    /// Writes the proof with its length in front.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![VERSION, role_byte(self.role), count(self.chain.len())];
        for der in &self.chain {
            body.extend_from_slice(&length(der.len()));
            body.extend_from_slice(der);
        }
        body.push(count(self.signature.len()));
        body.extend_from_slice(&self.signature);
        let mut message = length(body.len()).to_vec();
        message.extend_from_slice(&body);
        message
    }

    /// Reads a proof without its length. Only what [`Reproof::encode`] writes is one.
    ///
    /// # Errors
    /// With what the bytes lack.
    pub fn decode(body: &[u8]) -> Result<Self, ReproofError> {
        let mut rest = Cursor(body);
        if rest.byte()? != VERSION {
            return Err(ReproofError::Version);
        }
        let role = match rest.byte()? {
            1 => Role::Client,
            2 => Role::Server,
            _ => return Err(ReproofError::Role),
        };
        let certificates = usize::from(rest.byte()?);
        if !(1..=CHAIN_CERTIFICATES_MAX).contains(&certificates) {
            return Err(ReproofError::Chain);
        }
        let mut chain = Vec::with_capacity(certificates);
        for _ in 0..certificates {
            let bytes = rest.length()?;
            if !(1..=CERTIFICATE_BYTES_MAX).contains(&bytes) {
                return Err(ReproofError::Chain);
            }
            chain.push(rest.take(bytes)?.to_vec());
        }
        let bytes = usize::from(rest.byte()?);
        if !(1..=SIGNATURE_BYTES_MAX).contains(&bytes) {
            return Err(ReproofError::Signature);
        }
        let signature = rest.take(bytes)?.to_vec();
        if rest.0.is_empty() {
            Ok(Self { role, chain, signature })
        } else {
            Err(ReproofError::Trailing)
        }
    }
}

/// The text that is signed.
fn message(role: Role, leaf_sha256: &[u8; 32], exporter: &Exporter) -> Vec<u8> {
    let mut message = DOMAIN.to_vec();
    message.extend_from_slice(&[VERSION, role_byte(role)]);
    message.extend_from_slice(leaf_sha256);
    message.extend_from_slice(&exporter.0);
    message
}

const fn role_byte(role: Role) -> u8 {
    match role {
        Role::Client => 1,
        Role::Server => 2,
    }
}

/// A count that the type's own bounds keep below 256.
fn count(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

/// A length that the type's own bounds keep below 2^32.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

/// What is not read yet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], ReproofError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(ReproofError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ReproofError> {
        self.take(1)?.first().copied().ok_or(ReproofError::Short)
    }

    fn length(&mut self) -> Result<usize, ReproofError> {
        let bytes = self.take(4)?.try_into().map_err(|_short| ReproofError::Short)?;
        usize::try_from(u32::from_be_bytes(bytes)).map_err(|_large| ReproofError::TooLong)
    }
}

/// Puts proofs together from the pieces in which a stream brings them. Holds at most one proof and one piece.
#[derive(Debug, Default)]
pub struct ReproofReader {
    buffer: Vec<u8>,
}

impl ReproofReader {
    /// Takes a piece. [`ReproofReader::next_proof`] is to be asked until it gives nothing before the next one.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// Gives the next proof that is here whole.
    ///
    /// # Errors
    /// When what is here is no proof, or announces one that is too long. Nothing after it can be read.
    pub fn next_proof(&mut self) -> Result<Option<Reproof>, ReproofError> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > REPROOF_BYTES_MAX {
            return Err(ReproofError::TooLong);
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let proof = Reproof::decode(body)?;
        self.buffer.drain(..length.saturating_add(4));
        Ok(Some(proof))
    }
}

/// Says why bytes are no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReproofError {
    /// It ends too soon.
    #[error("the proof ends before it is whole")]
    Short,
    /// It is longer than any proof.
    #[error("the proof is longer than {REPROOF_BYTES_MAX} bytes")]
    TooLong,
    /// It is of a version that is not known here.
    #[error("the proof is not of version 1")]
    Version,
    /// It is of neither end.
    #[error("the proof is of neither a client nor a server")]
    Role,
    /// It has no certificate, too many, or one of an impossible length.
    #[error("the proof's chain has no certificate, too many, or one of an impossible length")]
    Chain,
    /// The signature has an impossible length.
    #[error("the proof's signature has an impossible length")]
    Signature,
    /// Something follows it.
    #[error("bytes follow the proof")]
    Trailing,
}

/// Says why a proof proves nothing on its connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReproofRefusal {
    /// It was made by the other end: this end's own proof, sent back.
    #[error("the proof was made for the other end of a connection")]
    OtherRole,
    /// A handshake with this chain would have been refused too.
    #[error("the proof's chain is refused")]
    Chain {
        /// Why.
        #[source]
        source: HandshakeRefusal,
    },
    /// The SVID does not end later than the one that was proved before.
    #[error("the proof's SVID does not end later than the one before it")]
    NotNewer,
    /// The signature is of another key, or over another leaf or session.
    #[error("the proof's signature is not of its SVID over this connection")]
    Signature {
        /// What the check said.
        #[source]
        source: KeyError,
    },
}

impl ReproofRefusal {
    /// Gives the reason as one stable snake_case word, for records and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OtherRole => "other_role",
            Self::Chain { source } => source.reason(),
            Self::NotNewer => "not_newer",
            Self::Signature { .. } => "bad_signature",
        }
    }

    /// Tells whether the same proof could be good a little later: its authority may be newer than the trust bundle that
    /// this end has heard, or the peer's clock a little ahead.
    pub fn may_pass_later(&self) -> bool {
        matches!(
            self,
            Self::Chain {
                source: HandshakeRefusal::UntrustedChain { .. } | HandshakeRefusal::NotYetValid
            }
        )
    }
}
