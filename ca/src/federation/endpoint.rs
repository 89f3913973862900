//! Where anyone reads the documents: GET and HEAD of three paths, and nothing else. Nobody is asked who he is, so everything is
//! bounded and nothing is told that is not meant for all.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use ca_api::admin::{EndpointStatus, EndpointTls};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::Federation;
use super::documents::Which;
use super::tls::{Certificate, CertificateError};
use crate::config::{Issuer, TlsFiles};
use crate::core::Core;
use crate::http1::{self, Bounds};
use crate::node::Gate;

const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Small enough that nobody who holds connections keeps others out for long; a document is read in a second.
const BOUNDS: Bounds = Bounds {
    head: Duration::from_secs(10),
    life: Duration::from_mins(1),
    buffer_bytes: 8 * 1024,
};

/// How long a document may be kept: as long as the bundle's refresh hint. A key is published a day and more before it signs, so
/// that those who keep it longer have it too.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// What every provider reads; not every one knows the type of RFC 7517 §8.5.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Where it listens, and with which certificate.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    certificate: Option<Arc<Certificate>>,
}

impl Endpoint {
    /// Describes a listener, and reads the certificate where there is one.
    pub(crate) fn open(address: SocketAddr, tls: Option<&TlsFiles>) -> Result<Self, CertificateError> {
        let certificate = tls.map(Certificate::open).transpose()?;
        // What cannot be served is found before anything is.
        if let Some(certificate) = &certificate {
            certificate.config()?;
        }
        Ok(Self { address, certificate })
    }

    pub(super) fn status(&self, issuer: &Issuer) -> EndpointStatus {
        let tls = self.certificate.as_ref().map(|certificate| {
            let pair = certificate.current();
            EndpointTls {
                not_after: pair.not_after,
                names_issuer: pair.is_for(issuer.host()),
            }
        });
        EndpointStatus {
            listen: self.address.to_string(),
            tls,
        }
    }

    /// When its certificate ends.
    pub(crate) fn certificate_not_after(&self) -> Option<i64> {
        let certificate = self.certificate.as_ref()?;
        Some(certificate.current().not_after.unix_seconds())
    }
}

/// Accepts until the CA stops.
pub(crate) async fn serve(core: Arc<Core>, federation: Arc<Federation>, listener: TcpListener) {
    let Some(server) = Server::new(core, &federation) else {
        return;
    };
    let core = Arc::clone(&server.core);
    loop {
        // Cancel safe: `accept` loses nothing when it is dropped before it is ready.
        let accepted = tokio::select! {
            () = core.cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, address)) => server.admit(tcp, address),
            Err(error) => {
                tracing::warn!(%error, "accept a connection to the federation endpoint");
                http1::pause().await;
            }
        }
    }
}

/// Has the certificate read again when its files change, until the CA stops.
pub(crate) async fn keep_certificate(core: Arc<Core>) {
    match core.endpoint.as_ref().and_then(|endpoint| endpoint.certificate.clone()) {
        Some(certificate) => certificate.keep(core).await,
        None => core.cancel.cancelled().await,
    }
}

struct Server {
    core: Arc<Core>,
    gate: Gate,
    acceptor: Option<TlsAcceptor>,
    router: Router,
}

impl Server {
    fn new(core: Arc<Core>, federation: &Arc<Federation>) -> Option<Arc<Self>> {
        let certificate = core.endpoint.as_ref()?.certificate.clone();
        let acceptor = match certificate.map(|certificate| certificate.config()).transpose() {
            Ok(config) => config.map(TlsAcceptor::from),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "serve the federation endpoint"
                );
                return None;
            }
        };
        Some(Arc::new(Self {
            router: routes(&core, federation),
            gate: Gate::new(),
            acceptor,
            core,
        }))
    }

    fn admit(self: &Arc<Self>, tcp: TcpStream, address: SocketAddr) {
        let Some(place) = self.gate.stranger(address.ip()) else {
            self.count("too_many_connections");
            return;
        };
        let server = Arc::clone(self);
        self.core.tasks.spawn(async move {
            let _place = place;
            server.connection(tcp).await;
        });
    }

    async fn connection(&self, tcp: TcpStream) {
        let (cancel, router) = (&self.core.cancel, self.router.clone());
        let Some(acceptor) = &self.acceptor else {
            self.count("accepted");
            return http1::serve_within(cancel, tcp, router, BOUNDS).await;
        };
        match handshake(acceptor, tcp).await {
            Ok(tls) => {
                self.count("accepted");
                http1::serve_within(cancel, tls, router, BOUNDS).await;
            }
            Err(error) => {
                tracing::debug!(%error, "a handshake at the federation endpoint failed");
                self.count("no_handshake");
            }
        }
    }

    fn count(&self, result: &str) {
        let connections = &self.core.metrics.federation.connections;
        connections.with_label_values(&[result]).inc();
    }
}

async fn handshake(acceptor: &TlsAcceptor, tcp: TcpStream) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(tcp)).await {
        Ok(accepted) => accepted,
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// What a request needs.
#[derive(Clone)]
struct Served {
    core: Arc<Core>,
    federation: Arc<Federation>,
    which: Which,
}

fn routes(core: &Arc<Core>, federation: &Arc<Federation>) -> Router {
    let counted = Arc::clone(core);
    let refuse = move |status: StatusCode| {
        let requests = &counted.metrics.federation.requests;
        requests.with_label_values(&["other", "refused"]).inc();
        std::future::ready(status)
    };
    let wrong_method = refuse.clone();
    Which::ALL
        .into_iter()
        .fold(Router::new(), |router, which| {
            let served = Served {
                core: Arc::clone(core),
                federation: Arc::clone(federation),
                which,
            };
            let path = format!("{}{}", federation.issuer().path(), which.path());
            router.route(&path, get(document).with_state(served))
        })
        .fallback(move || refuse(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(move || wrong_method(StatusCode::METHOD_NOT_ALLOWED))
}

async fn document(State(served): State<Served>, headers: HeaderMap) -> Response {
    let set = served.federation.set.load_full();
    let document = set.documents().get(served.which);
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .any(|known| is_known(known, &document.etag));
    let result = if known { "not_modified" } else { "sent" };
    let requests = &served.core.metrics.federation.requests;
    requests.with_label_values(&[served.which.as_str(), result]).inc();
    let always = [(ETAG, document.etag.clone()), (CACHE_CONTROL, KEPT)];
    if known {
        return (StatusCode::NOT_MODIFIED, always).into_response();
    }
    let typed = [
        (CONTENT_TYPE, JSON),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (always, typed, document.body.clone()).into_response()
}

/// RFC 9110 §13.1.2: `*`, or a list that names it.
fn is_known(known: &HeaderValue, etag: &HeaderValue) -> bool {
    let (Ok(known), Ok(etag)) = (known.to_str(), etag.to_str()) else {
        return false;
    };
    known
        .split(',')
        .map(str::trim)
        .any(|named| named == "*" || named.strip_prefix("W/").unwrap_or(named) == etag)
}
