//! TLS to the outside: who is there is vouched for by the web's authorities, or by those that the mesh file names.
//!
//! The web's authorities are compiled in (Mozilla's list) and not the host's: which of them may vouch for whom a bot
//! calls is then the same on all hosts, and no file of a host can widen it. TLS 1.3 only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::{ResolvesClientCert, Resumption, WantsClientCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use spiffe::time::Clock;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The text of `ca` holds no certificates.
    #[error("`ca` of the destination holds no certificates that can be read")]
    Ca,
    /// rustls says no.
    #[error("set up TLS")]
    Tls {
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// Shows the host's time to rustls.
#[derive(Debug)]
pub(crate) struct Time(pub(crate) Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().unix_seconds()).unwrap_or_default();
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

/// Sets up TLS in nobody's name: the outside knows no SVIDs.
pub(super) fn config(ca: Option<&str>, clock: &Clock) -> Result<Arc<ClientConfig>, SetUpError> {
    let mut config = verifying(ca, clock)?.with_no_client_auth();
    // A resumed session would tell the destination that two bots of this host are one client.
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A certificate that is shown to whoever asks for one, and whether somebody has.
#[derive(Debug)]
pub(super) struct ShownOnce {
    pub(super) certificate: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ShownOnce {
    pub(super) fn new(certificate: Option<Arc<CertifiedKey>>) -> Arc<Self> {
        Arc::new(Self {
            certificate,
            asked: AtomicBool::new(false),
        })
    }

    /// Tells whether it was shown.
    pub(super) fn was_shown(&self) -> bool {
        self.certificate.is_some() && self.asked.load(Ordering::Acquire)
    }
}

impl ResolvesClientCert for ShownOnce {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Release);
        self.certificate.clone()
    }

    fn has_certs(&self) -> bool {
        self.certificate.is_some()
    }
}

/// Sets up TLS with a database, which may be shown the certificate of a bot.
pub(super) fn database_config(
    ca: Option<&str>,
    clock: &Clock,
    shown: Arc<ShownOnce>,
) -> Result<Arc<ClientConfig>, SetUpError> {
    let mut config = verifying(ca, clock)?.with_client_cert_resolver(shown);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // As libpq says it: a server of another protocol that has the same certificate does not take it (RFC 9325 §3.7).
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Arc::new(config))
}

fn verifying(ca: Option<&str>, clock: &Clock) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, SetUpError> {
    let roots = match ca {
        Some(pem) => given(pem)?,
        None => RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        },
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(Time(clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| SetUpError::Tls { source })?;
    Ok(config.with_root_certificates(roots))
}

fn given(pem: &str) -> Result<RootCertStore, SetUpError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_unreadable| SetUpError::Ca)?;
        roots.add(certificate).map_err(|source| SetUpError::Tls { source })?;
    }
    if roots.is_empty() {
        return Err(SetUpError::Ca);
    }
    Ok(roots)
}
