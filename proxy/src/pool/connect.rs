//! Opens a connection to another proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use spiffe::id::SpiffeId;
use spiffe_tls::{Expect, HandshakeRefusal, client_config, peer_leaf, refusal_of, sni_for};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Link, Peer, PoolFault};
use crate::mesh::{CONNECTION_WINDOW, FRAME_BYTES, HEADER_LIST_BYTES_MAX, STREAM_WINDOW, Tasks};
use crate::proxy::Proxy;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How long the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// RFC 9113 §3.2.
pub(super) const H2: &[u8] = b"h2";

/// Sets up TLS in the caller's name, to the callee and nobody else.
pub(super) fn config(proxy: &Proxy, peer: Peer<'_>) -> Result<Arc<ClientConfig>, PoolFault> {
    let expect = Expect::Exact(peer.callee.clone());
    client_config(Some(peer.svid), peer.bundle, expect, &proxy.clock, &[H2])
        .map_err(|source| PoolFault::Config { source })
}

/// Connects, verifies who is there, and starts HTTP/2.
pub(super) async fn connect(
    proxy: &Arc<Proxy>,
    tls: &Arc<ClientConfig>,
    peer: Peer<'_>,
    address: SocketAddr,
) -> Result<Link, PoolFault> {
    let stream = handshake(proxy, tls, peer.callee, address).await?;
    let refused = |source| PoolFault::Refused { address, source };
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(H2) {
        return Err(PoolFault::Protocol { address, source: None });
    }
    let leaf = peer_leaf(session.peer_certificates()).map_err(refused)?;
    // The connection proves two names; it ends with the first that does.
    let not_after = leaf.not_after().min(peer.svid.leaf().not_after());
    let (send, connection) = http2::Builder::new(Tasks::of(proxy))
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_concurrent_streams(0)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| PoolFault::Protocol {
            address,
            source: Some(source),
        })?;
    let clock = proxy.clock.clone();
    proxy.tasks.spawn(async move {
        // Losing the connection midway is what both ends of this race mean: the SVID that it proved has ended.
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%address, error = &error as &dyn std::error::Error, "a connection to a proxy ended");
                }
            }
            () = clock.sleep_until(not_after) => {}
        }
    });
    Ok(Link {
        send,
        busy: Arc::new(AtomicUsize::new(0)),
        used: Instant::now(),
        not_after,
        serial: *leaf.serial(),
    })
}

async fn handshake(
    proxy: &Proxy,
    tls: &Arc<ClientConfig>,
    callee: &SpiffeId,
    address: SocketAddr,
) -> Result<TlsStream<TcpStream>, PoolFault> {
    let late = |_elapsed| io::Error::from(io::ErrorKind::TimedOut);
    let connected = timeout(CONNECT, TcpStream::connect(address))
        .await
        .map_err(late)
        .flatten();
    let stream = connected.map_err(|source| PoolFault::Connect { address, source })?;
    stream
        .set_nodelay(true)
        .map_err(|source| PoolFault::Connect { address, source })?;
    let connecting = TlsConnector::from(Arc::clone(tls)).connect(sni_for(callee), stream);
    let shaken = timeout(HANDSHAKE, connecting).await.map_err(late).flatten();
    shaken.map_err(|source| match refusal_of(&source) {
        Some(refusal) => {
            proxy.metrics.handshake_refused(refusal.reason());
            if matches!(refusal, HandshakeRefusal::WrongId { .. }) {
                PoolFault::WrongId {
                    address,
                    source: refusal,
                }
            } else {
                PoolFault::Refused {
                    address,
                    source: refusal,
                }
            }
        }
        None => PoolFault::Handshake { address, source },
    })
}
