//! Requests to a collector, one after the other over a connection that is kept.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use spiffe::time::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;
use super::headers::Headers;
use crate::config::read_bounded;
use crate::exit::Failure;

/// How long connecting may take, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request may take with its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer, and what its head may fill.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The largest file of authorities.
const CA_BYTES_MAX: u64 = 1024 * 1024;

/// A collector, and the connection to it.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) endpoint: Endpoint,
    ca: Option<PathBuf>,
    clock: Clock,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// Drives the connection.
    driver: JoinSet<()>,
}

/// An answer, whatever it says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// None where it was longer than an answer is.
    pub(super) body: Option<Bytes>,
}

/// Why there is no answer. All but the first pass with time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// It cannot be tried at all.
    #[error("{what}")]
    SetUp {
        /// What is wrong.
        what: String,
    },
    /// Nobody answered there.
    #[error("connect")]
    Connect {
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// TLS was not agreed on.
    #[error("TLS")]
    Tls {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke off.
    #[error("the connection broke off")]
    Http {
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The body of the answer broke off.
    #[error("the answer broke off")]
    Body {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Slow,
}

impl Collector {
    pub(super) fn new(endpoint: Endpoint, ca: Option<PathBuf>, clock: Clock) -> Result<Self> {
        if let Some(ca) = &ca {
            roots(ca)?;
        }
        Ok(Self {
            endpoint,
            ca,
            clock,
            sender: None,
            driver: JoinSet::new(),
        })
    }

    /// Sends a body and reads the answer. Where a connection that was kept turns out to be gone, a new one is tried at once.
    pub(super) async fn post(&mut self, body: &Bytes, headers: &Headers) -> Result<Answer, Lost> {
        if let Some(sender) = self.sender.take() {
            match self.over(sender, body, headers).await {
                Err(Lost::Http { .. }) => {}
                answered => return answered,
            }
        }
        let connected = timeout(CONNECT_TIMEOUT, self.connect()).await;
        let sender = connected.map_err(|_elapsed| Lost::Slow)??;
        self.over(sender, body, headers).await
    }

    /// Sends over one connection, which is kept if all went well.
    async fn over(
        &mut self,
        mut sender: SendRequest<Full<Bytes>>,
        body: &Bytes,
        headers: &Headers,
    ) -> Result<Answer, Lost> {
        let request = self.request(body.clone(), headers)?;
        let exchange = async {
            sender.ready().await.map_err(|source| Lost::Http { source })?;
            let answer = sender.send_request(request).await;
            let (head, body) = answer.map_err(|source| Lost::Http { source })?.into_parts();
            let body = match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
                Ok(body) => Some(body.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => None,
                Err(error) => return Err(broken(error)),
            };
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        let answer = timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or(Err(Lost::Slow))?;
        // What is left of a long answer is not read.
        self.sender = answer.body.is_some().then_some(sender);
        Ok(answer)
    }

    fn request(&self, body: Bytes, headers: &Headers) -> Result<Request<Full<Bytes>>, Lost> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.endpoint.path)
            .header(header::HOST, self.endpoint.authority())
            .header(header::USER_AGENT, concat!("botmesh/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONTENT_ENCODING, "gzip");
        for (name, value) in headers.lines() {
            request = request.header(name, value);
        }
        request.body(Full::new(body)).map_err(|_invalid| Lost::SetUp {
            what: "the request cannot be written: a header of it is none".to_owned(),
        })
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, Lost> {
        self.driver.abort_all();
        let endpoint = &self.endpoint;
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
        let stream = stream.map_err(|source| Lost::Connect { source })?;
        if !endpoint.tls {
            return self.shaken(stream).await;
        }
        let roots = match &self.ca {
            // Read anew, so that who replaces the file need not restart this.
            Some(ca) => roots(ca).map_err(|error| Lost::SetUp {
                what: error.to_string(),
            })?,
            None => RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            },
        };
        let config = tls(roots, self.clock.clone()).map_err(|error| Lost::SetUp {
            what: error.to_string(),
        })?;
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| Lost::SetUp {
            what: error.to_string(),
        })?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        self.shaken(stream.map_err(|source| Lost::Tls { source })?).await
    }

    async fn shaken<S>(&mut self, stream: S) -> Result<SendRequest<Full<Bytes>>, Lost>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX);
        let shaken = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|source| Lost::Http { source })?;
        // How it ends is told by the request that is under way.
        self.driver.spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// Why the body of an answer did not come.
fn broken(error: Box<dyn std::error::Error + Send + Sync>) -> Lost {
    match error.downcast::<hyper::Error>() {
        Ok(source) => Lost::Http { source: *source },
        Err(other) => Lost::Body {
            source: io::Error::other(other),
        },
    }
}

/// Shows the host's time to rustls.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().unix_seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn tls(roots: RootCertStore, clock: Clock) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Time(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Reads the authorities that vouch for the collector.
fn roots(file: &Path) -> Result<RootCertStore> {
    let pem = read_bounded(file, CA_BYTES_MAX)?;
    let wrong = |what: String| Failure::invalid_file(format!("{}: {what}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it holds no certificate".to_owned()).into());
    }
    Ok(roots)
}
