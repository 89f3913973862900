//! A thief on the network: reads a bot's certificate chain off a mesh port, which anyone may, and presents it as his own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use spiffe::id::{BotName, SpiffeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cli::demo::stage::{Site, Stage};

/// How long one handshake may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the thief learned.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) id: SpiffeId,
    pub(crate) source: Ipv4Addr,
    /// What the proxy answered; none when it let him in.
    pub(crate) refused: Option<String>,
}

/// Steals the chain of demo/orders and presents it to web-1, from an address that no host of the mesh has.
pub(crate) async fn present(stage: &Stage) -> Result<Outcome> {
    let id = |bot: &str| Ok::<_, anyhow::Error>(SpiffeId::for_bot(&stage.ca.trust_domain, &BotName::parse(bot)?));
    let (orders, checkout) = (id("demo/orders")?, id("demo/checkout")?);
    let thief = Thief::new(Vec::new())?;
    let chain = match connect(&stage.web_2, &orders, Ipv4Addr::LOCALHOST, thief.config()?).await {
        // Without a certificate of ours the far side ends the connection, but by then it has shown its own.
        Ok(stream) => chain_of(&stream),
        Err(_) => thief.seen(),
    };
    let chain = if chain.is_empty() { thief.seen() } else { chain };
    anyhow::ensure!(!chain.is_empty(), "web-2 showed no certificate to steal");

    let source = Ipv4Addr::new(127, 0, 0, 66);
    let thief = Thief::new(chain)?;
    let refused = match connect(&stage.web_1, &checkout, source, thief.config()?).await {
        Err(error) => Some(format!("{error:#}")),
        // In TLS 1.3 the client is done first: the refusal arrives when it reads.
        Ok(mut stream) => refusal(&mut stream).await,
    };
    Ok(Outcome {
        id: orders,
        source,
        refused,
    })
}

/// What became of a client that showed no certificate.
#[derive(Debug)]
pub(crate) enum Certless {
    /// The server showed its own certificate, and then ended it.
    Refused(String),
    /// It answered.
    LetIn,
}

/// Comes to a mesh port without a certificate.
///
/// # Errors
///
/// When the server did not even show its own certificate: nothing is known of what it would ask for then.
pub(crate) async fn certless(address: SocketAddr, to: &SpiffeId) -> Result<Certless> {
    let client = Thief::new(Vec::new())?;
    let socket = || {
        if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }
    };
    let refused = match dial(address, to, socket, client.config()?).await {
        Err(error) if client.seen().is_empty() => return Err(error),
        Err(error) => Some(format!("{error:#}")),
        Ok(mut stream) => refusal(&mut stream).await,
    };
    Ok(refused.map_or(Certless::LetIn, Certless::Refused))
}

async fn connect(site: &Site, to: &SpiffeId, from: Ipv4Addr, config: ClientConfig) -> Result<TlsStream<TcpStream>> {
    let address = site.status.listeners.get("mesh").context("find the mesh address")?;
    let address: SocketAddr = address
        .parse()
        .with_context(|| format!("read the mesh address {address}"))?;
    let bound = || {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        Ok(socket)
    };
    dial(address, to, bound, config).await
}

async fn dial(
    address: SocketAddr,
    to: &SpiffeId,
    socket: impl FnOnce() -> std::io::Result<TcpSocket>,
    config: ClientConfig,
) -> Result<TlsStream<TcpStream>> {
    let socket = socket().context("make a socket")?;
    let stream = timeout(TIMEOUT, socket.connect(address))
        .await
        .context("connect")?
        .context("connect")?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(spiffe_tls::sni_for(to), stream);
    Ok(timeout(TIMEOUT, handshake).await.context("wait for the handshake")??)
}

/// Asks for something, and gives the alert that comes back.
async fn refusal(stream: &mut TlsStream<TcpStream>) -> Option<String> {
    let exchange = async {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: checkout.demo.mesh\r\n\r\n")
            .await?;
        let mut first = [0_u8; 1];
        stream.read(&mut first).await
    };
    match timeout(TIMEOUT, exchange).await {
        Err(_elapsed) => None,
        Ok(Ok(0)) => Some("the connection was closed".to_owned()),
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
    }
}

fn chain_of(stream: &TlsStream<TcpStream>) -> Vec<CertificateDer<'static>> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    certificates
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect()
}

/// Believes any server, remembers its chain, and presents a stolen one with a key that does not fit.
#[derive(Debug)]
struct Thief {
    seen: Arc<Seen>,
    stolen: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Seen {
    chain: std::sync::Mutex<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl Thief {
    fn new(stolen: Vec<CertificateDer<'static>>) -> Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let seen = Arc::new(Seen {
            chain: std::sync::Mutex::default(),
            provider: Arc::clone(&provider),
        });
        Ok(Self { seen, stolen, provider })
    }

    fn seen(&self) -> Vec<CertificateDer<'static>> {
        self.seen.chain.lock().map(|chain| chain.clone()).unwrap_or_default()
    }

    fn config(&self) -> Result<ClientConfig> {
        let verifier: Arc<dyn ServerCertVerifier> = Arc::<Seen>::clone(&self.seen);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("choose TLS 1.3")?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = if self.stolen.is_empty() {
            builder.with_no_client_auth()
        } else {
            builder.with_client_cert_resolver(Arc::new(Stolen(self.certified()?)))
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn certified(&self) -> Result<Arc<CertifiedKey>> {
        let key = spiffe_tls::PrivateKey::generate().context("make the thief's key")?;
        let pkcs8 = key.to_pkcs8().context("write the thief's key")?;
        let key = PrivateKeyDer::try_from(pkcs8.to_vec()).map_err(anyhow::Error::msg)?;
        let key = self
            .provider
            .key_provider
            .load_private_key(key)
            .context("load the thief's key")?;
        Ok(Arc::new(CertifiedKey::new(self.stolen.clone(), key)))
    }
}

#[derive(Debug)]
struct Stolen(Arc<CertifiedKey>);

impl ResolvesClientCert for Stolen {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Ok(mut chain) = self.chain.lock() {
            *chain = std::iter::once(end_entity)
                .chain(intermediates)
                .map(|der| der.clone().into_owned())
                .collect();
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
