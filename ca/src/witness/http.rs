//! One question to a witness, and its answer: a connection of its own, everything bounded, nothing followed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use audit::witness::http::{ADD_CHECKPOINT, ANSWER_BYTES_MAX};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
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
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{WitnessConfig, WitnessPlace};

/// How long one question may take, with its connection.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// What the head of an answer may fill.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The largest file of authorities.
const CA_BYTES_MAX: u64 = 1024 * 1024;

/// Why a witness could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("connect")]
    Connect {
        #[source]
        source: io::Error,
    },
    #[error("set up TLS")]
    SetUp {
        #[source]
        source: rustls::Error,
    },
    #[error("read the authorities in {file}")]
    Ca {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("open TLS")]
    Tls {
        #[source]
        source: io::Error,
    },
    #[error("speak HTTP")]
    Http {
        #[source]
        source: io::Error,
    },
    #[error("the answer has more than {ANSWER_BYTES_MAX} bytes")]
    Long,
    #[error("there was no answer for {} s", ASK_TIMEOUT.as_secs())]
    Slow,
}

/// An answer, as it came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: Option<Vec<u8>>,
    pub(super) body: Vec<u8>,
}

/// Asks, and gives what the witness answers, whatever that is.
pub(super) async fn ask(witness: &WitnessConfig, clock: &Clock, question: String) -> Result<Answer, AskError> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/{ADD_CHECKPOINT}", witness.url.prefix))
        .header(header::HOST, witness.url.authority())
        .header(header::CONNECTION, "close")
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(header::USER_AGENT, concat!("botmesh/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(question)));
    let request = request.map_err(|error| AskError::Http {
        source: io::Error::other(error),
    })?;
    let asking = async {
        match &witness.url.place {
            WitnessPlace::Https { host, port } => {
                let roots = match &witness.ca {
                    Some(file) => given(file).await?,
                    None => RootCertStore {
                        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
                    },
                };
                let config = tls(roots, clock).map_err(|source| AskError::SetUp { source })?;
                let failed = |source| AskError::Tls { source };
                let name = ServerName::try_from(host.clone()).map_err(|error| failed(io::Error::other(error)))?;
                let stream = connected(TcpStream::connect((host.as_str(), *port)).await)?;
                let shaken = TlsConnector::from(config).connect(name, stream).await.map_err(failed)?;
                exchange(shaken, request).await
            }
            WitnessPlace::Http(address) => exchange(connected(TcpStream::connect(address).await)?, request).await,
        }
    };
    timeout(ASK_TIMEOUT, asking).await.unwrap_or(Err(AskError::Slow))
}

fn connected(connected: io::Result<TcpStream>) -> Result<TcpStream, AskError> {
    connected.map_err(|source| AskError::Connect { source })
}

/// Shows the CA's time to rustls.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().unix_seconds()).unwrap_or_default();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn tls(roots: RootCertStore, clock: &Clock) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Time(clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Reads the authorities anew for each connection: who replaces the file need not restart the CA.
async fn given(file: &Path) -> Result<RootCertStore, AskError> {
    let failed = |source| AskError::Ca {
        file: file.to_owned(),
        source,
    };
    let path = file.to_owned();
    let read = move || {
        use std::io::Read as _;
        let mut pem = Vec::new();
        std::fs::File::open(path)?.take(CA_BYTES_MAX).read_to_end(&mut pem)?;
        Ok::<_, io::Error>(pem)
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other);
    let pem = read.and_then(|read| read).map_err(failed)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(io::Error::other(error)))?;
        roots
            .add(certificate)
            .map_err(|error| failed(io::Error::other(error)))?;
    }
    if roots.is_empty() {
        return Err(failed(io::Error::other("it holds no certificate")));
    }
    Ok(roots)
}

/// Sends the request, and reads the answer to its end or to the bound.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, AskError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: hyper::Error| AskError::Http {
        source: io::Error::other(error),
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let content_type = answer.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.map(|value| value.as_bytes().to_vec());
        Ok(Answer {
            status: answer.status().as_u16(),
            content_type,
            body: body(answer.into_body()).await?,
        })
    };
    let (mut answering, mut connection) = (std::pin::pin!(answering), std::pin::pin!(connection));
    // Losing the connection's future loses no answer: what it has read is with the answer's.
    tokio::select! {
        biased;
        answer = &mut answering => return answer,
        ended = &mut connection => ended.map_err(failed)?,
    }
    answering.await
}

async fn body(mut incoming: Incoming) -> Result<Vec<u8>, AskError> {
    let mut whole = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| AskError::Http {
            source: io::Error::other(error),
        })?;
        let Some(data) = frame.data_ref() else { continue };
        if whole.len().saturating_add(data.len()) > ANSWER_BYTES_MAX {
            return Err(AskError::Long);
        }
        whole.extend_from_slice(data);
    }
    Ok(whole)
}
