//! The called end.

use std::fmt::Debug;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use spiffe::bundle::TrustBundle;
use spiffe::time::Clock;

use crate::crypto::{RustlsTime, SIGNATURES, provider};
use crate::refusal::HandshakeRefusal;
use crate::svid::TlsError;
use crate::verify::{Peer, Role, Roots, verify};

/// Chooses the certificate that a server presents.
pub trait ServerIdentity: Send + Sync + Debug {
    /// Gives chain and key for the server name that the client asked for, in lower case; `None` ends the handshake.
    fn resolve(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>>;
}

/// Gives the trust bundle that clients are verified with, anew for each handshake.
pub trait BundleSource: Send + Sync + Debug {
    /// Gives the newest bundle.
    fn current(&self) -> Arc<TrustBundle>;
}

/// A [`BundleSource`] that never changes.
#[derive(Clone, Debug)]
pub struct FixedBundle(pub Arc<TrustBundle>);

impl BundleSource for FixedBundle {
    fn current(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.0)
    }
}

/// Says whether clients must have an SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A client without a certificate is refused.
    Required,
    /// A client may present no certificate, as a host that joins does; one that is presented is verified all the same.
    /// Whoever serves such a connection asks [`crate::peer_leaf`] who the peer is.
    Optional,
}

/// Makes the configuration of a server whose clients are members of the bundle's trust domain.
///
/// # Errors
/// When rustls refuses.
pub fn server_config(
    identity: Arc<dyn ServerIdentity>,
    bundle: Arc<dyn BundleSource>,
    client: ClientAuth,
    clock: &Clock,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = ClientVerifier {
        bundle,
        client,
        clock: clock.clone(),
    };
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(RustlsTime(clock.clone())))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Resolver(identity)));
    // A resumed session would skip the verifier, and with it expiry and the newest bundle.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Resolver(Arc<dyn ServerIdentity>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.resolve(hello.server_name())
    }
}

#[derive(Debug)]
struct ClientVerifier {
    bundle: Arc<dyn BundleSource>,
    client: ClientAuth,
    clock: Clock,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client == ClientAuth::Required
    }

    /// Names no authority: a stranger learns nothing, and clients have one SVID to choose from.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let bundle = self.bundle.current();
        let roots = Roots::Bundle(&bundle);
        verify(
            end_entity,
            intermediates,
            roots,
            Peer::Member,
            Role::Client,
            self.clock.now(),
        )?;
        Ok(ClientCertVerified::assertion())
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
