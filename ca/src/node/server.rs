//! Accept, handshake, HTTP/2: bounded in number and in time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ca_api::node::node_server::NodeServer;
use ca_api::node::{ALPN, DOWN_MESSAGE_BYTES_MAX, EXPORTER_BYTES, EXPORTER_LABEL, UP_MESSAGE_BYTES_MAX};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use spiffe_tls::ClientAuth;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;
use tower::util::ServiceExt as _;

use super::gate::{Gate, NoPlace, StrangerPlace};
use super::{NodeApi, Peer};
use crate::core::Core;
use crate::refusals::HostRefusal;
use crate::server_identity::{OwnBundle, OwnIdentity};

const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// A connection without a host's certificate has one thing to do: attest.
const STRANGER_LIFE_MAX: Duration = Duration::from_secs(30);

/// How long connections may take to end when the CA stops.
const GRACE: Duration = Duration::from_secs(3);

/// After a failed accept (out of descriptors): do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Streams of one connection: the one `Sync` and some issuances.
const STREAMS_MAX: u32 = 64;

/// Header list of one request (RFC 9113 §6.5.2); gRPC sends a few hundred bytes.
const HEADER_BYTES_MAX: u32 = 8 * 1024;

/// A peer that does not answer pings is gone.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The paths of the node API; the service answers every other with `Unimplemented`.
const RPCS: [&str; 7] = [
    "/botmesh.node.v1.Node/Answer",
    "/botmesh.node.v1.Node/Attest",
    "/botmesh.node.v1.Node/Cosign",
    "/botmesh.node.v1.Node/Issue",
    "/botmesh.node.v1.Node/MintJwt",
    "/botmesh.node.v1.Node/Sync",
    "/botmesh.node.v1.Node/Witness",
];

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// TLS could not be set up.
    #[error("set up TLS for the node API")]
    Tls {
        /// Why.
        #[source]
        source: spiffe_tls::TlsError,
    },
}

/// TLS of the node API: a client certificate is welcome and not demanded, because a
/// host that joins has none.
pub(crate) fn tls_config(core: &Arc<Core>, identity: Arc<OwnIdentity>) -> Result<Arc<ServerConfig>, ServeError> {
    let bundle = Arc::new(OwnBundle(Arc::clone(core)));
    spiffe_tls::server_config(identity, bundle, ClientAuth::Optional, &core.clock, &[ALPN])
        .map_err(|source| ServeError::Tls { source })
}

/// Accepts until the CA stops; the connections are tasks of the CA.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let server = Arc::new(Server {
        gate: Gate::new(),
        acceptor: TlsAcceptor::from(tls),
        api: NodeApi::new(Arc::clone(&core)),
        core,
    });
    loop {
        // Cancel safe: `accept` loses nothing when it is dropped before it is ready.
        let accepted = tokio::select! {
            () = server.core.cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, address)) => server.admit(tcp, address),
            Err(error) => {
                tracing::warn!(%error, "accept a connection to the node API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Server {
    core: Arc<Core>,
    gate: Gate,
    acceptor: TlsAcceptor,
    api: NodeApi,
}

impl Server {
    fn admit(self: &Arc<Self>, tcp: TcpStream, address: SocketAddr) {
        let Some(place) = self.gate.stranger(address.ip()) else {
            self.turned_away(address, "too_many_connections");
            return;
        };
        let server = Arc::clone(self);
        self.core
            .tasks
            .spawn(async move { server.connection(tcp, address, place).await });
    }

    async fn connection(&self, tcp: TcpStream, address: SocketAddr, place: StrangerPlace) {
        let Some((tls, peer)) = self.handshake(tcp, address).await else {
            return;
        };
        let Some(host) = peer.host() else {
            let _place = place;
            self.http2(tls, peer, tokio::time::sleep(STRANGER_LIFE_MAX)).await;
            return;
        };
        drop(place);
        let _place = match self.gate.host(&host) {
            Ok(place) => place,
            Err(NoPlace::ForAny) => return self.turned_away(address, "too_many_hosts"),
            Err(NoPlace::ForThisHost) => {
                let result = HostRefusal::TooManyConnections;
                self.core
                    .metrics
                    .connections
                    .with_label_values(&[result.as_str()])
                    .inc();
                self.core.host_refused(&host, address.ip(), result, "");
                return;
            }
        };
        self.core.metrics.connections.with_label_values(&["accepted"]).inc();
        let ends = peer
            .leaf
            .as_ref()
            .map_or_else(|| self.core.now(), |leaf| leaf.not_after());
        let clock = self.core.clock.clone();
        self.http2(tls, peer, async move {
            clock.sleep_until(ends).await;
            // The stream says goodbye first.
            tokio::time::sleep(GRACE).await;
        })
        .await;
    }

    async fn handshake(&self, tcp: TcpStream, address: SocketAddr) -> Option<(TlsStream<TcpStream>, Peer)> {
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "set TCP_NODELAY");
        }
        let tls = match tokio::time::timeout(HANDSHAKE_MAX, self.acceptor.accept(tcp)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                self.turned_away(address, refusal_word(&error));
                return None;
            }
            Err(_elapsed) => {
                self.turned_away(address, "handshake_timeout");
                return None;
            }
        };
        let (_tcp, session) = tls.get_ref();
        let exporter = session.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, Some(&[]));
        let leaf = match session.peer_certificates() {
            None => Ok(None),
            certificates => spiffe_tls::peer_leaf(certificates).map(|leaf| Some(Arc::new(leaf))),
        };
        match (exporter, leaf) {
            (Ok(exporter), Ok(leaf)) => Some((
                tls,
                Peer {
                    address,
                    leaf,
                    exporter,
                },
            )),
            (Err(_), _) => {
                self.turned_away(address, "no_exporter");
                None
            }
            (_, Err(refusal)) => {
                self.turned_away(address, refusal.reason());
                None
            }
        }
    }

    async fn http2(&self, tls: TlsStream<TcpStream>, peer: Peer, life: impl Future<Output = ()>) {
        let core = Arc::clone(&self.core);
        let service = NodeServer::new(self.api.clone())
            .max_decoding_message_size(UP_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(DOWN_MESSAGE_BYTES_MAX)
            .map_request(move |mut request: http::Request<hyper::body::Incoming>| {
                if !RPCS.contains(&request.uri().path()) {
                    core.unknown_rpc(&peer, request.uri().path());
                }
                request.extensions_mut().insert(peer.clone());
                request
            });
        let connection = http2::Builder::new(Tracked(self.core.tasks.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(tls), TowerToHyperService::new(service));
        let mut connection = std::pin::pin!(connection);
        // Cancel safe: the connection is polled by reference.
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = life => Ok(()),
            () = self.core.cancel.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(GRACE, connection.as_mut()).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the node API ended");
        }
    }

    fn turned_away(&self, address: SocketAddr, reason: &'static str) {
        self.core.metrics.connections.with_label_values(&[reason]).inc();
        self.core.journal.stranger(address.ip(), reason);
    }
}

fn refusal_word(error: &io::Error) -> &'static str {
    spiffe_tls::refusal_of(error).map_or("handshake_failed", |refusal| refusal.reason())
}

/// Runs the streams of a connection as tasks of the CA, so that none outlives it.
#[derive(Clone, Debug)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}
