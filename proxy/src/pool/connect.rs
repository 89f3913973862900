//! Opens a connection to another proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use spiffe::id::IdKind;
use spiffe::time::Clock;
use spiffe_tls::{Expect, HandshakeRefusal, Role, client_config, peer_leaf, refusal_of, sni_for};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::one_task::OneTask;
use super::way::Way;
use super::{Ends, Link, Need, Peer, PoolFault};
use crate::ends::Wide;
use crate::hop;
use crate::mesh::{FRAME_BYTES, HEADER_LIST_BYTES_MAX, Tasks};
use crate::proven::{Proven, Shown};
use crate::proxy::Proxy;
use crate::reproof::{self, Control};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How long the handshake may take where the callee has another address to try, and where it has none: a proxy that
/// restarts behind a socket that is held answers when its predecessor's calls have ended, which takes ten seconds at most.
const HANDSHAKE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(15));

/// RFC 9113 §3.2: what a foreign peer speaks.
const H2: &[u8] = b"h2";

/// Sets up TLS in the caller's name, to the callee and nobody else.
pub(super) fn config(clock: &Clock, peer: Peer<'_>) -> Result<Arc<ClientConfig>, PoolFault> {
    let expect = Expect::Exact(peer.callee.clone());
    client_config(
        Some(peer.svid),
        peer.bundle,
        expect,
        clock,
        &[hop::ALPN, reproof::ALPN, H2],
    )
    .map_err(|source| PoolFault::Config { source })
}

/// Connects, verifies who is there, and starts what both speak.
pub(super) async fn connect(
    proxy: &Arc<Proxy>,
    tls: &Arc<ClientConfig>,
    peer: Peer<'_>,
    address: SocketAddr,
) -> Result<Link, PoolFault> {
    let patience = if peer.addresses.len() > 1 {
        HANDSHAKE.0
    } else {
        HANDSHAKE.1
    };
    let stream = handshake(proxy, tls, peer, address, patience).await?;
    let refused = |source| PoolFault::Refused { address, source };
    let session = stream.get_ref().1;
    let leaf = peer_leaf(session.peer_certificates()).map_err(refused)?;
    let shown = (Shown::of(&leaf), Shown::of(peer.svid.leaf()));
    let proven = Proven::new(Role::Client, leaf.id().clone(), shown.0, shown.1);
    let (send, ends) = match session.alpn_protocol() {
        Some(hop::ALPN) => {
            let control = control(proxy, &proven, session, peer, address);
            begin(proxy, &proven, stream, control, address)
        }
        Some(reproof::ALPN) => {
            let control = control(proxy, &proven, session, peer, address);
            begin_http2(proxy, &proven, stream, control, address).await?
        }
        Some(H2) => begin_http2(proxy, &proven, stream, None, address).await?,
        Some(_) | None => return Err(PoolFault::Protocol { address, source: None }),
    };
    let need = Need {
        busy: AtomicUsize::new(0),
        _ends: ends,
    };
    Ok(Link {
        send,
        need: Arc::new(need),
        used: Instant::now(),
        proven,
    })
}

/// Starts what two proxies of this kind speak.
fn begin(
    proxy: &Arc<Proxy>,
    proven: &Arc<Proven>,
    stream: TlsStream<Wide>,
    control: Option<Arc<Control>>,
    address: SocketAddr,
) -> (Way, Ends) {
    let (proofs, from) = mpsc::channel(hop::PROOFS_MAX);
    let (caller, to, unneeded, driving) = hop::begin(stream, proofs, proxy.windows.take());
    if let Some(control) = control {
        drop(proxy.tasks.spawn(control.serve_hop(from, to)));
    }
    let owner = Arc::clone(proxy);
    spawn(proxy, proven, async move {
        let ended = driving.await;
        tracing::debug!(%address, %ended, "a connection to a proxy ended");
        if let Some(blame) = ended.blame() {
            owner.metrics.hop_broken(blame);
        }
    });
    (Way::Own(caller, proxy.tasks.clone()), Ends::Own(unneeded))
}

/// Has a connection run until it ends, or what was proved on it does.
fn spawn(proxy: &Arc<Proxy>, proven: &Arc<Proven>, connection: impl Future<Output = ()> + Send + 'static) {
    let (clock, until) = (proxy.clock.clone(), Arc::clone(proven));
    drop(proxy.tasks.spawn(async move {
        // Losing the connection midway is what both ends of this race mean: the SVID that it proved has ended.
        tokio::select! {
            () = connection => {}
            () = until.ended(&clock) => {}
        }
    }));
}

/// Starts HTTP/2.
async fn begin_http2(
    proxy: &Arc<Proxy>,
    proven: &Arc<Proven>,
    stream: TlsStream<Wide>,
    control: Option<Arc<Control>>,
    address: SocketAddr,
) -> Result<(Way, Ends), PoolFault> {
    let (tasks, window) = (OneTask::new(Tasks::of(proxy)), proxy.windows.take());
    let (send, connection) = http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(window.of_stream())
        .initial_connection_window_size(window.bytes())
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
    spawn(proxy, proven, async move {
        if let Some(Err(error)) = tasks.run(connection).await {
            tracing::debug!(%address, error = &error as &dyn std::error::Error, "a connection to a proxy ended");
        }
        drop(window);
    });
    let unneeded = CancellationToken::new();
    if let Some(control) = control {
        drop(proxy.tasks.spawn(control.open(send.clone(), unneeded.clone())));
    }
    Ok((Way::Http2(send), Ends::Http2(unneeded.drop_guard())))
}

/// The calling end of the control stream of a connection to another proxy of ours.
fn control(
    proxy: &Arc<Proxy>,
    proven: &Arc<Proven>,
    session: &rustls::ClientConnection,
    peer: Peer<'_>,
    address: SocketAddr,
) -> Option<Arc<Control>> {
    let IdKind::Bot(caller) = peer.svid.leaf().id().kind() else {
        return None;
    };
    let exporter = reproof::exporter(session)?;
    Some(Control::new(
        proxy,
        proven,
        exporter,
        caller,
        address.ip().to_canonical(),
    ))
}

async fn handshake(
    proxy: &Proxy,
    tls: &Arc<ClientConfig>,
    peer: Peer<'_>,
    address: SocketAddr,
    patience: Duration,
) -> Result<TlsStream<Wide>, PoolFault> {
    let late = |_elapsed| io::Error::from(io::ErrorKind::TimedOut);
    let (began, limit) = (Instant::now(), peer.connect);
    let connected = timeout(limit.unwrap_or(CONNECT), TcpStream::connect(address))
        .await
        .map_err(late)
        .flatten();
    let stream = connected.map_err(|source| PoolFault::Connect { address, source })?;
    stream
        .set_nodelay(true)
        .map_err(|source| PoolFault::Connect { address, source })?;
    // One limit for both: to whoever waits, they are one.
    let left = limit.map_or(patience, |limit| limit.saturating_sub(began.elapsed()));
    let connecting = TlsConnector::from(Arc::clone(tls)).connect(sni_for(peer.callee), Wide::new(stream));
    let shaken = timeout(left, connecting).await.map_err(late).flatten();
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
