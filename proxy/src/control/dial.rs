//! One connection to a CA server: TCP, TLS, HTTP/2, opened by hand so that the
//! TLS exporter of exactly this connection is known.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ca_api::node::node_client::NodeClient;
use ca_api::node::{DOWN_MESSAGE_BYTES_MAX, EXPORTER_BYTES, EXPORTER_LABEL, UP_MESSAGE_BYTES_MAX};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use spiffe_tls::HandshakeRefusal;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::config::CaAddress;

/// From the first SYN to the end of the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a silent connection is asked whether it lives, and how long the
/// answer may take: a CA that vanished is noticed within half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The name in the ClientHello. The CA is known by its SPIFFE ID and needs no
/// other; the addresses of an operator's network are nobody's business.
const CA_NAME: &str = "ca.botmesh.invalid";

/// The URI in the requests; nothing resolves it, the connection is there already.
const CA_URI: &str = "https://ca.botmesh.invalid";

/// The CA servers, and which of them answered last.
#[derive(Debug)]
pub(super) struct Dialer {
    addresses: Vec<CaAddress>,
    last: AtomicUsize,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) client: NodeClient<Channel>,
    pub(super) exporter: [u8; EXPORTER_BYTES],
    pub(super) address: CaAddress,
}

/// Why no CA server could be reached: what the last one said.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection.
    #[error("connect to the CA at {address}")]
    Connect {
        /// The server.
        address: CaAddress,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What answered is not the CA of this trust domain.
    #[error("the server at {address} is not the CA: {}", refusal.reason())]
    NotTheCa {
        /// The server.
        address: CaAddress,
        /// Why not.
        #[source]
        refusal: HandshakeRefusal,
    },
    /// The TLS handshake failed for another reason.
    #[error("TLS with the CA at {address}")]
    Tls {
        /// The server.
        address: CaAddress,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The handshake gave no exporter.
    #[error("export from the TLS connection to {address}")]
    Exporter {
        /// The server.
        address: CaAddress,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// HTTP/2 did not start.
    #[error("HTTP/2 with the CA at {address}")]
    Http2 {
        /// The server.
        address: CaAddress,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// There is no server to ask; the settings need at least one.
    #[error("no CA server is configured")]
    NoAddress,
}

impl DialError {
    /// Whether an impostor answered, as opposed to nobody. A certificate that is out
    /// of its time may be this host's clock, which gets set.
    pub(super) const fn is_not_the_ca(&self) -> bool {
        match self {
            Self::NotTheCa { refusal, .. } => {
                !matches!(refusal, HandshakeRefusal::Expired | HandshakeRefusal::NotYetValid)
            }
            Self::Connect { .. } | Self::Tls { .. } | Self::Exporter { .. } | Self::Http2 { .. } | Self::NoAddress => {
                false
            }
        }
    }
}

impl Dialer {
    pub(super) fn new(addresses: Vec<CaAddress>) -> Self {
        Self {
            addresses,
            last: AtomicUsize::new(0),
        }
    }

    /// Opens a connection to the first server that answers, beginning with the one
    /// that answered last. The error is an impostor's only where every server is
    /// one: elsewhere the true CA may come back.
    pub(super) async fn dial(&self, tls: &Arc<ClientConfig>) -> Result<Dialed, DialError> {
        let first = self.last.load(Ordering::Relaxed);
        let mut worst: Option<DialError> = None;
        for step in 0..self.addresses.len() {
            let index = first.wrapping_add(step) % self.addresses.len();
            let Some(address) = self.addresses.get(index) else {
                continue;
            };
            match open(address, tls).await {
                Ok(dialed) => {
                    self.last.store(index, Ordering::Relaxed);
                    return Ok(dialed);
                }
                Err(error) => {
                    tracing::debug!(%address, error = &error as &dyn std::error::Error, "a CA server was not reached");
                    if worst.as_ref().is_none_or(DialError::is_not_the_ca) {
                        worst = Some(error);
                    }
                }
            }
        }
        Err(worst.unwrap_or(DialError::NoAddress))
    }
}

async fn open(address: &CaAddress, tls: &Arc<ClientConfig>) -> Result<Dialed, DialError> {
    let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
    let handshake = tokio::time::timeout(CONNECT_TIMEOUT, handshake(address, tls));
    let stream = match handshake.await {
        Ok(stream) => stream?,
        Err(_elapsed) => {
            return Err(DialError::Connect {
                address: address.clone(),
                source: timed_out(),
            });
        }
    };
    let (_, session) = stream.get_ref();
    let exporter = session
        .export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, Some(&[]))
        .map_err(|source| DialError::Exporter {
            address: address.clone(),
            source,
        })?;
    let channel = http2(stream).await.map_err(|source| DialError::Http2 {
        address: address.clone(),
        source,
    })?;
    let client = NodeClient::new(channel)
        .max_decoding_message_size(DOWN_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(UP_MESSAGE_BYTES_MAX);
    Ok(Dialed {
        client,
        exporter,
        address: address.clone(),
    })
}

async fn handshake(address: &CaAddress, tls: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, DialError> {
    let connect = async {
        let stream = TcpStream::connect(address.as_str()).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(CA_NAME).map_err(io::Error::other)?;
        Ok((stream, name))
    };
    let (stream, name) = connect.await.map_err(|source| DialError::Connect {
        address: address.clone(),
        source,
    })?;
    TlsConnector::from(Arc::clone(tls))
        .connect(name, stream)
        .await
        .map_err(|source| match spiffe_tls::refusal_of(&source) {
            Some(refusal) => DialError::NotTheCa {
                address: address.clone(),
                refusal,
            },
            None => DialError::Tls {
                address: address.clone(),
                source,
            },
        })
}

/// Speaks HTTP/2 over this one stream. When it ends, the channel ends with it: the
/// next connection is another handshake, another exporter and another decision.
async fn http2(stream: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = tower::service_fn(move |_uri| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted)) }
    });
    Endpoint::from_static(CA_URI)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
}
