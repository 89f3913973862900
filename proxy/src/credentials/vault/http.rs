//! One question to a vault, and its answer: a connection of its own, everything bounded, nothing followed.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use spiffe::time::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::error::Cause;
use super::settings::{VaultAddress, VaultConfig};
use super::token::Token;
use crate::outside::Time;

/// How long one question may take, with its connection.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(8);

/// How long connecting may take, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// The longest answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What the head of an answer may fill.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The largest file of authorities.
const CA_BYTES_MAX: u64 = 1024 * 1024;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Has an agent that stands between refuse what somebody tricked the host into asking.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// A question.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// Behind `/v1/`.
    pub(super) path: &'a str,
    pub(super) token: Option<&'a Token>,
    /// JSON, where there is some.
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Both ends' names, for a connection.
pub(super) struct Ends<'a> {
    pub(super) config: &'a VaultConfig,
    pub(super) clock: &'a Clock,
    /// Shown to the vault.
    pub(super) own: Option<Arc<CertifiedKey>>,
}

impl Ends<'_> {
    /// Asks, and gives what the vault answers, whatever that is.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, Cause> {
        let request = self.request(question)?;
        let asking = async {
            match &self.config.address {
                VaultAddress::Https { host, port } => {
                    let stream = connected(TcpStream::connect((host.as_str(), *port))).await?;
                    exchange(self.shaken(host, stream).await?, request).await
                }
                VaultAddress::Http(address) => exchange(connected(TcpStream::connect(address)).await?, request).await,
                VaultAddress::Unix(path) => exchange(connected(UnixStream::connect(path)).await?, request).await,
            }
        };
        timeout(ASK_TIMEOUT, asking).await.unwrap_or(Err(Cause::Slow))
    }

    fn request(&self, question: Question<'_>) -> Result<Request<Full<Bytes>>, Cause> {
        let host = match &self.config.address {
            VaultAddress::Https { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            VaultAddress::Https { host, port } => format!("{host}:{port}"),
            VaultAddress::Http(address) => address.to_string(),
            VaultAddress::Unix(_) => "localhost".to_owned(),
        };
        let body = question.body.map(|body| Bytes::from_owner(Wiped(body)));
        let mut request = Request::builder()
            .method(question.method)
            .uri(format!("/v1/{}", question.path))
            .header(header::HOST, host)
            .header(header::CONNECTION, "close")
            .header(REQUEST, "true");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(namespace) = &self.config.namespace {
            request = request.header(NAMESPACE, namespace.as_str());
        }
        if let Some(token) = question.token {
            let mut value = HeaderValue::from_bytes(token.bytes()).map_err(|_invalid| Cause::Answer)?;
            value.set_sensitive(true);
            request = request.header(TOKEN, value);
        }
        let request = request.body(Full::new(body.unwrap_or_default()));
        request.map_err(|error| Cause::Http {
            source: io::Error::other(error),
        })
    }

    /// Opens TLS with nobody but the vault.
    async fn shaken(&self, host: &str, stream: TcpStream) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Cause> {
        let roots = match &self.config.ca {
            Some(file) => given(file).await?,
            None => RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            },
        };
        let config = tls(roots, self.own.clone(), self.clock).map_err(|source| Cause::SetUp { source })?;
        let failed = |source| Cause::Tls { source };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(io::Error::other(error)))?;
        let shaking = TlsConnector::from(config).connect(name, stream);
        let shaken = timeout(CONNECT_TIMEOUT, shaking).await;
        shaken.map_err(|_elapsed| Cause::Slow)?.map_err(failed)
    }
}

/// Bytes that are wiped when the connection has let go of them.
struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

async fn connected<S>(connecting: impl Future<Output = io::Result<S>>) -> Result<S, Cause> {
    let connected = timeout(CONNECT_TIMEOUT, connecting).await;
    connected
        .map_err(|_elapsed| Cause::Slow)?
        .map_err(|source| Cause::Connect { source })
}

fn tls(
    roots: RootCertStore,
    own: Option<Arc<CertifiedKey>>,
    clock: &Clock,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Time(clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    // A resumed session would skip the certificate, and with it its end.
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Reads the authorities anew for each connection: who replaces the file need not restart the proxy.
async fn given(file: &Path) -> Result<RootCertStore, Cause> {
    let failed = |source| Cause::Ca {
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
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: hyper::Error| Cause::Http {
        source: io::Error::other(error),
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = body(answer.into_body()).await?;
        Ok(Answer { status, body })
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

async fn body(mut incoming: Incoming) -> Result<Zeroizing<Vec<u8>>, Cause> {
    // Room for all of it, so that no copy of a part is left behind by growing.
    let mut whole = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| Cause::Http {
            source: io::Error::other(error),
        })?;
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(Cause::Long);
        }
        whole.extend_from_slice(data);
    }
    Ok(whole)
}

impl Answer {
    /// What the vault says of an error, where that is safe to show: none of `secrets` is in it.
    pub(super) fn words(&self, secrets: &[&[u8]]) -> Option<String> {
        let errors: super::answer::Errors = serde_json::from_slice(&self.body).ok()?;
        let text = errors.errors.into_iter().next()?;
        let is_safe = |secret: &&[u8]| memchr::memmem::find(text.as_bytes(), secret).is_none();
        if !secrets.iter().all(is_safe) {
            return None;
        }
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        Some(text.chars().map(shown).take(200).collect())
    }
}
