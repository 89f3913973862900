//! The certificate of the endpoint: read from files, and again when they change.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use spiffe::time::Timestamp;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use zeroize::{Zeroize as _, Zeroizing};

use crate::Digest;
use crate::authority::sha256;
use crate::config::TlsFiles;
use crate::core::Core;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// The largest file: a chain of ten certificates is a tenth of it.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is larger than any certificate or key.
    #[error("{path} has more than 262144 bytes")]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// Everybody on this machine can read the key.
    #[error("{path} has mode {mode:04o}: everybody can read it; make it 0640 or 0600")]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold what it should.
    #[error("{path} holds no {wanted} as PEM")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should.
        wanted: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{path} holds no certificate")]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// The certificate cannot be read.
    #[error("the first certificate of {path} cannot be read")]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: x509_parser::nom::Err<x509_parser::error::X509Error>,
    },
    /// The key is of no kind that TLS knows, or is not the certificate's.
    #[error("the key {key} is not the one of {certificate}")]
    Pair {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// TLS cannot be set up.
    #[error("set up TLS")]
    Tls {
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// A pair that fits, and what operators should know of it.
#[derive(Debug)]
pub(super) struct Pair {
    certified: Arc<CertifiedKey>,
    pub(super) not_after: Timestamp,
    /// The names that it is for, as written.
    pub(super) names: Vec<String>,
    /// Of both files.
    content: Digest,
}

/// The pair in use.
#[derive(Debug)]
pub(super) struct Certificate {
    files: TlsFiles,
    current: ArcSwap<Pair>,
}

impl ResolvesServerCert for Certificate {
    /// Any name: who asks compares it with what he asked for.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }
}

impl Certificate {
    pub(super) fn open(files: &TlsFiles) -> Result<Arc<Self>, CertificateError> {
        let pair = Files::read(files)?.pair(files)?;
        Ok(Arc::new(Self {
            files: files.clone(),
            current: ArcSwap::from_pointee(pair),
        }))
    }

    pub(super) fn current(&self) -> Arc<Pair> {
        self.current.load_full()
    }

    /// TLS 1.3, for HTTP/1.1; no session is resumed.
    pub(super) fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|source| CertificateError::Tls { source })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Looks at the files until the CA stops. A bad new pair is said once, and the old one is kept.
    pub(super) async fn keep(self: Arc<Self>, core: Arc<Core>) {
        let mut refused = None;
        loop {
            // Cancel safe: nothing is held across the wait.
            tokio::select! {
                () = core.cancel.cancelled() => return,
                () = core.clock.sleep(LOOK_INTERVAL) => {}
            }
            let certificate = Arc::clone(&self);
            let looked = core.tasks.spawn_blocking(move || certificate.look(refused));
            match looked.await {
                Ok(next) => refused = next,
                Err(error) => tracing::error!(%error, "look at the certificate of the federation endpoint"),
            }
        }
    }

    /// Takes a new pair; gives what was refused, so that it is not said again.
    fn look(&self, refused: Option<Digest>) -> Option<Digest> {
        let read = Files::read(&self.files);
        let content = read.as_ref().map_or([0; 32], Files::content);
        if content == self.current.load().content {
            return None;
        }
        if refused == Some(content) {
            return refused;
        }
        match read.and_then(|files| files.pair(&self.files)) {
            Ok(pair) => {
                tracing::info!(not_after = %pair.not_after, "the federation endpoint has a new certificate");
                self.current.store(Arc::new(pair));
                None
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the federation endpoint keeps its old certificate"
                );
                Some(content)
            }
        }
    }
}

/// Both files.
struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Files {
    fn read(files: &TlsFiles) -> Result<Self, CertificateError> {
        let (certificate, _mode) = read(&files.certificate)?;
        let (key, mode) = read(&files.key)?;
        let key = Zeroizing::new(key);
        if mode & 0o007 != 0 {
            let path = files.key.clone();
            return Err(CertificateError::Exposed { path, mode });
        }
        Ok(Self { certificate, key })
    }

    fn content(&self) -> Digest {
        sha256(&[sha256(&self.certificate), sha256(&self.key)].concat())
    }

    fn pair(&self, files: &TlsFiles) -> Result<Pair, CertificateError> {
        let (certificate, key) = (files.certificate.clone(), files.key.clone());
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|source| CertificateError::Pem {
            path: certificate.clone(),
            wanted: "certificates",
            source,
        })?;
        let Some(leaf) = chain.first().cloned() else {
            return Err(CertificateError::NoCertificate { path: certificate });
        };
        let mut der = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| CertificateError::Pem {
            path: key.clone(),
            wanted: "private key",
            source,
        })?;
        let signer = aws_lc_rs::sign::any_supported_type(&der);
        der.zeroize();
        let certified = signer.and_then(|signer| {
            let certified = CertifiedKey::new(chain, signer);
            certified.keys_match().map(|()| certified)
        });
        let (_rest, parsed) = X509Certificate::from_der(&leaf).map_err(|source| CertificateError::Certificate {
            path: certificate.clone(),
            source,
        })?;
        Ok(Pair {
            certified: Arc::new(certified.map_err(|source| CertificateError::Pair {
                key,
                certificate,
                source,
            })?),
            not_after: Timestamp::from_unix_seconds(parsed.validity().not_after.timestamp()),
            names: names(&parsed),
            content: self.content(),
        })
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, u32), CertificateError> {
    let failed = |source| CertificateError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(CertificateError::TooLong { path: path.to_owned() });
    }
    Ok((bytes, mode))
}

/// The DNS names and addresses of a certificate.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other kind names a host")]
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(|bytes| std::net::Ipv4Addr::from(bytes).to_string())
            .ok(),
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

impl Pair {
    /// Whether it is for a host: by its name, or by `*` for the first label (RFC 9525 §6.3).
    pub(super) fn is_for(&self, host: &str) -> bool {
        self.names.iter().any(|name| {
            let above = |name: &str| name.split_once('.').map(|(_, above)| above.to_owned());
            name.eq_ignore_ascii_case(host)
                || (name.starts_with("*.") && above(name).is_some_and(|name| above(host).as_deref() == Some(&name)))
        })
    }
}
