//! The calling end.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::verify_tls13_signature;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use spiffe::bundle::TrustBundle;
use spiffe::id::{SpiffeId, TrustDomain};
use spiffe::time::Clock;

use crate::crypto::{RustlsTime, SIGNATURES, provider};
use crate::refusal::HandshakeRefusal;
use crate::svid::{Svid, TlsError};
use crate::verify::{Peer, Role, Roots, verify};

/// Who the server has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Exactly this SPIFFE ID, by the bundle.
    Exact(SpiffeId),
    /// Any server of the CA of this trust domain (`/botmesh/ca/*`), by the bundle.
    AnyCa(TrustDomain),
    /// Any server of the CA of this trust domain, by an authority in the chain that it presents whose key is pinned: for
    /// a host that joins and has no bundle yet.
    PinnedRoots {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// SHA-256 of the SubjectPublicKeyInfo in DER of each authority that counts.
        sha256: Vec<[u8; 32]>,
    },
}

/// Makes the configuration of a client that proves itself with `svid`, where there is one, to a server that proves to
/// be as `expect` says.
///
/// The configuration holds `bundle`: a later bundle needs a new one. The server name that the caller gives to a
/// connection only selects among the server's certificates; it plays no part in the verification.
///
/// # Errors
/// When `expect` names another trust domain than the bundle, or rustls refuses.
pub fn client_config(
    svid: Option<&Svid>,
    bundle: &Arc<TrustBundle>,
    expect: Expect,
    clock: &Clock,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let expected = match &expect {
        Expect::Exact(id) => id.trust_domain(),
        Expect::AnyCa(trust_domain) | Expect::PinnedRoots { trust_domain, .. } => trust_domain.clone(),
    };
    if expected != *bundle.trust_domain() {
        return Err(TlsError::ExpectedOtherTrustDomain {
            expected,
            bundle: bundle.trust_domain().clone(),
        });
    }
    let verifier = ServerVerifier {
        bundle: Arc::clone(bundle),
        expect,
        clock: clock.clone(),
    };
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(RustlsTime(clock.clone())))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match svid {
        Some(svid) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified_key()))),
        None => builder.with_no_client_auth(),
    };
    // A resumed session would skip the verifier, and with it expiry and the newest bundle.
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct ServerVerifier {
    bundle: Arc<TrustBundle>,
    expect: Expect,
    clock: Clock,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (roots, peer) = match &self.expect {
            Expect::Exact(id) => (Roots::Bundle(&self.bundle), Peer::Exact(id)),
            Expect::AnyCa(_) => (Roots::Bundle(&self.bundle), Peer::Ca),
            Expect::PinnedRoots { trust_domain, sha256 } => (Roots::Pinned { trust_domain, sha256 }, Peer::Ca),
        };
        verify(end_entity, intermediates, roots, peer, Role::Server, self.clock.now())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(HandshakeRefusal::NotTls13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}
