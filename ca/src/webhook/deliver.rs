//! One message to a webhook: a connection of its own, everything bounded, nothing followed.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use spiffe::time::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Files;
use super::secret::{Address, Key, SecretError};

/// How long one try may take, whole.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the head of an answer may fill.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The largest file of authorities.
const CA_BYTES_MAX: u64 = 1024 * 1024;

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The same for each try, so that who gets it twice can tell.
    pub(super) id: String,
    pub(super) body: Bytes,
}

/// Why a message did not arrive. The address is in none of them.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the authorities of the webhook cannot be read")]
    Authorities {
        #[source]
        source: io::Error,
    },
    #[error("connect to the webhook")]
    Connect {
        #[source]
        source: io::Error,
    },
    #[error("open TLS with the webhook")]
    Tls {
        #[source]
        source: io::Error,
    },
    #[error("exchange HTTP with the webhook")]
    Http {
        #[source]
        source: hyper::Error,
    },
    #[error("the webhook did not answer in time")]
    Slow,
    #[error("the webhook answered {status}")]
    Status { status: StatusCode },
}

impl Undelivered {
    /// Whether another try could do better. A redirection is not followed: it would take the address to somebody else.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Status { status } => {
                !status.is_server_error()
                    && !matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Secret(_)
            | Self::Authorities { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Http { .. }
            | Self::Slow => false,
        }
    }
}

/// Sends a message once.
pub(super) async fn deliver(files: &Files, message: &Message, clock: &Clock) -> Result<(), Undelivered> {
    match tokio::time::timeout(TRY_TIMEOUT, post(files, message, clock)).await {
        Ok(Ok(status)) if status.is_success() => Ok(()),
        Ok(Ok(status)) => Err(Undelivered::Status { status }),
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Err(Undelivered::Slow),
    }
}

async fn post(files: &Files, message: &Message, clock: &Clock) -> Result<StatusCode, Undelivered> {
    // Read anew for each message: who replaces a file need not restart the CA. They are small and on this machine.
    let address = Address::read(&files.url()?)?;
    let key = files.secret()?.map(|path| Key::read(&path)).transpose()?;
    let request = request(&address, key.as_ref(), message, clock);
    let connecting = TcpStream::connect((address.host.as_str(), address.port));
    let stream = connecting.await.map_err(|source| Undelivered::Connect { source })?;
    if !address.is_tls {
        return exchange(stream, request).await;
    }
    let config = tls(files.ca(), clock)?;
    let failed = |source| Undelivered::Tls { source };
    let name = ServerName::try_from(address.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(failed)?;
    exchange(stream, request).await
}

fn request(address: &Address, key: Option<&Key>, message: &Message, clock: &Clock) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(message.body.clone()));
    *request.method_mut() = Method::POST;
    // What was an address when it was read is one still.
    *request.uri_mut() = address.target.parse().unwrap_or_default();
    let host = if address.host.contains(':') {
        format!("[{}]:{}", address.host, address.port)
    } else {
        format!("{}:{}", address.host, address.port)
    };
    let seconds = clock.now().unix_seconds();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            request.headers_mut().insert(name, value);
        }
    };
    put(header::HOST.as_str(), &host);
    put(header::CONNECTION.as_str(), "close");
    put(header::CONTENT_TYPE.as_str(), "application/json");
    put(
        header::USER_AGENT.as_str(),
        concat!("botmesh/", env!("CARGO_PKG_VERSION")),
    );
    put("webhook-id", &message.id);
    put("webhook-timestamp", &seconds.to_string());
    if let Some(key) = key {
        put("webhook-signature", &key.sign(&message.id, seconds, &message.body));
    }
    request
}

/// Sends the request and reads the status; what else is said is of no interest.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, Undelivered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |source| Undelivered::Http { source };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let (mut answering, mut connection) = (std::pin::pin!(sender.send_request(request)), std::pin::pin!(connection));
    // Losing the connection's future loses no answer: what it has read is with the answer's.
    tokio::select! {
        biased;
        answer = &mut answering => return answer.map(|answer| answer.status()).map_err(failed),
        ended = &mut connection => ended.map_err(failed)?,
    }
    answering.await.map(|answer| answer.status()).map_err(failed)
}

/// TLS 1.3 with nobody but who has a certificate for the name: of the given authorities, or of those of the web.
fn tls(ca: Option<&Path>, clock: &Clock) -> Result<Arc<ClientConfig>, Undelivered> {
    let roots = match ca {
        Some(file) => given(file).map_err(|source| Undelivered::Authorities { source })?,
        None => RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        },
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Time(clock.clone())));
    let builder = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Undelivered::Tls {
            source: io::Error::other(error),
        })?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The authorities of a file, in PEM.
pub(super) fn given(file: &Path) -> io::Result<RootCertStore> {
    use std::io::Read as _;
    let mut pem = Vec::new();
    std::fs::File::open(file)?.take(CA_BYTES_MAX).read_to_end(&mut pem)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::other("it holds no certificate"));
    }
    Ok(roots)
}

#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().unix_seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
