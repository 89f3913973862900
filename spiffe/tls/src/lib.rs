//! Proves *who*: TLS between holders of SVIDs, as rustls configurations.
//!
//! One verifier serves both directions: the peer's chain leads to an authority of the one trust domain, its leaf keeps
//! every rule of X.509-SVID, and its SPIFFE ID is the one expected (towards servers) or belongs to the trust domain
//! (towards clients). TLS 1.3 only; no session is ever resumed, so no connection skips the verifier.
//!
//! Deliberately absent: sockets, DNS names and the web's roots, revocation lists (SVIDs are short-lived), session
//! tickets, early data, key logs, and any decision about what a verified peer may do.
//!
//! - [`PrivateKey`], [`Svid`]: what this side proves itself with; [`csr_public_key`] reads what the CA is sent.
//! - [`client_config`], [`server_config`]: the two ends.
//! - [`HandshakeRefusal`]: why a peer was refused, found again in the errors of rustls and of I/O.
//! - [`Reproof`]: an SVID that follows another is shown on a connection that is open.
//! - [`JwtKey`], [`verify_jwt`]: the signatures of JWT-SVIDs, the one thing here that is no TLS: the keys are the same.
//! - [`sni_for`]: the opaque name under which a server is asked for one bot.

#![forbid(unsafe_code)]

mod client;
mod crypto;
mod csr;
mod jws;
mod key;
mod refusal;
mod reproof;
mod server;
mod sni;
mod svid;
mod verify;

pub use client::{Expect, client_config};
pub use csr::{CSR_BYTES_MAX, CsrError, csr_public_key};
pub use jws::{JwsError, JwtKey, verify_jwt};
pub use key::{KeyError, PrivateKey, verify_p256};
pub use refusal::HandshakeRefusal;
pub use reproof::{
    EXPORTER_BYTES, Exporter, REPROOF_BYTES_MAX, Reproof, ReproofError, ReproofReader, ReproofRefusal, Session,
    reproof_label,
};
pub use server::{BundleSource, ClientAuth, FixedBundle, ServerIdentity, server_config};
pub use sni::{sni_for, sni_label};
pub use svid::{Svid, TlsError};
pub use verify::{CHAIN_CERTIFICATES_MAX, Role, peer_leaf};

/// Gives the label of the TLS exporter (RFC 8446 §7.5) whose value attestation evidence signs: 32 bytes, empty context.
pub const fn exporter_label() -> &'static str {
    "EXPORTER-botmesh-attest"
}

/// Finds the reason in an I/O error of a handshake, such as `tokio_rustls` gives; see [`HandshakeRefusal::of_io`].
pub fn refusal_of(error: &std::io::Error) -> Option<HandshakeRefusal> {
    HandshakeRefusal::of_io(error)
}

#[cfg(test)]
mod tests;
