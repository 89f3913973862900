//! The mesh side: other proxies, and foreign peers with an SVID of this trust domain, call the bots of this host.
//!
//! The callee is fixed by the certificate that the peer asked for and got; a call on that connection for another bot
//! is `callee_mismatch`. Handshakes that are refused are counted by reason, and recorded by source and minute.

mod hop;
mod peers;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use policy::Protocol;
use rustls::{ServerConfig, ServerConnection};
use spiffe::id::IdKind;
use spiffe_tls::{Role, peer_leaf, refusal_of};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use crate::call::{
    self, Answer, AnswerBody, Asked, BOTMESH_TCP, BOTMESH_UPGRADE, Door, Opening, Refusal, RequestBody, Route, To, Who,
};
use crate::connection::{self, Handler};
use crate::ends::{self, Wide};
use crate::grpc;
use crate::http1::FIELDS_MAX;
use crate::http1::deadline::Deadline;
use crate::http1::target::Authority;
use crate::http2;
use crate::proven::{Proven, Shown};
use crate::proxy::Proxy;
use crate::reason::Reason;
use crate::reproof::{self, Control};
use crate::seldom::Seldom;
use crate::tcp::Addresses;
use peers::{Admitted, Peers};

/// The most calls at a time on one connection.
pub(crate) const STREAMS_MAX: u32 = 256;

/// The longest list of fields, as HTTP/2 counts it: what HTTP/1.1 may have too.
pub(crate) const HEADER_LIST_BYTES_MAX: u32 = 32 * 1024;

/// How much of one body may be under way.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;

/// How much of all bodies may be under way: more than one slow call can hold.
pub(crate) const CONNECTION_WINDOW: u32 = 4 << 20;

/// The largest frame: as much as one read of a body brings.
pub(crate) const FRAME_BYTES: u32 = 64 * 1024;

/// How many fields the caller's proxy adds to those of its bot.
pub(crate) const FIELDS_OF_PROXY: usize = 4;

/// Resets by the peer that may wait to be looked at (CVE-2023-44487).
pub(crate) const PENDING_RESETS_MAX: usize = 20;

/// Resets that the peer may provoke before it is sent away (CVE-2025-8671).
pub(crate) const PROVOKED_RESETS_MAX: usize = 128;

/// A stranger must not fill the log; the metrics and the ledger count every one.
static REFUSED: Seldom = Seldom::new();

/// Said with each answer of a proxy that ends: the caller's proxy opens another connection for its next call. GOAWAY says
/// the same, but races with calls on their way, and not every such call may be sent again (RFC 9113 §6.8).
pub(crate) const CLOSING: HeaderName = HeaderName::from_static("botmesh-closing");

/// How long that is said before GOAWAY is.
const CLOSING_SAID: Duration = Duration::from_millis(300);

/// Has hyper's tasks belong to the proxy.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(TaskTracker);

impl Tasks {
    pub(crate) fn of(proxy: &Proxy) -> Self {
        Self(proxy.tasks.clone())
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        drop(self.0.spawn(work));
    }
}

/// Takes connections until the proxy closes.
pub(crate) async fn serve(proxy: Arc<Proxy>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    let peers = Arc::new(Peers::new(proxy.bounds));
    loop {
        // Losing `accept` midway loses no connection: the kernel keeps it.
        let accepted = tokio::select! {
            () = proxy.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, source) = match accepted {
            Ok((stream, source)) => (stream, source.ip().to_canonical()),
            Err(error) => {
                connection::accept_failed("mesh", &error).await;
                continue;
            }
        };
        match peers.admit(source) {
            Some(admitted) => {
                let (proxy, acceptor) = (Arc::clone(&proxy), acceptor.clone());
                let tasks = proxy.tasks.clone();
                drop(tasks.spawn(async move { meet(proxy, acceptor, stream, source, admitted).await }));
            }
            None => refuse(&proxy, source, "too_many_connections"),
        }
    }
}

fn refuse(proxy: &Proxy, source: IpAddr, reason: &str) {
    proxy.metrics.handshake_refused(reason);
    proxy.ledger.stranger(source, reason);
}

/// Shakes hands with a peer and serves it.
async fn meet(proxy: Arc<Proxy>, acceptor: TlsAcceptor, stream: TcpStream, source: IpAddr, mut admitted: Admitted) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a peer's connection ended at once");
        return;
    }
    let stream = match timeout(proxy.bounds.handshake, acceptor.accept(Wide::new(stream))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let refusal = refusal_of(&error);
            let reason = refusal.as_ref().map_or("handshake_failed", |refusal| refusal.reason());
            if let Some(left_out) = REFUSED.due() {
                tracing::info!(%source, reason, left_out, error = &error as &dyn std::error::Error, "refused a handshake");
            }
            return refuse(&proxy, source, reason);
        }
        Err(_elapsed) => return refuse(&proxy, source, "handshake_timeout"),
    };
    admitted.shaken();
    match door(&proxy, &stream) {
        Ok(Door::Peer { who, .. }) if !admitted.is(&who.id) => refuse(&proxy, source, "too_many_connections"),
        Ok(door) => {
            let connections = proxy.metrics.connections("mesh");
            connections.inc();
            Box::pin(talk(&proxy, stream, source, door)).await;
            connections.dec();
        }
        Err(reason) => refuse(&proxy, source, reason),
    }
}

/// Says who the peer is and which bot it wants; a word where it may not be served.
fn door(proxy: &Proxy, stream: &TlsStream<Wide>) -> Result<Door, &'static str> {
    let session = stream.get_ref().1;
    let leaf = peer_leaf(session.peer_certificates()).map_err(|refusal| refusal.reason())?;
    // Hosts and servers of the CA have SVIDs too; calling is for bots.
    let IdKind::Bot(bot) = leaf.id().kind() else {
        return Err("not_a_bot");
    };
    let ours = session
        .server_name()
        .and_then(|name| proxy.control.svid_by_name(name))
        .ok_or("unknown_name")?;
    let IdKind::Bot(callee) = ours.leaf().id().kind() else {
        return Err("unknown_name");
    };
    let to = Route::new(&proxy.trust_domain, callee).ok_or("unknown_name")?;
    let header = HeaderValue::from_str(leaf.id().as_str()).map_err(|_invalid| "not_a_bot")?;
    let peer = Shown::of_caller(&leaf, &to.id);
    let proven = Proven::new(Role::Server, leaf.id().clone(), peer, Shown::of(ours.leaf()));
    let who = Who {
        places: proxy.places.of(&bot),
        bot,
        id: leaf.id().clone(),
        header,
        facts: None,
        proven: Some(Arc::clone(&proven)),
    };
    let ends = stream.get_ref().0.tcp();
    let addresses = ends.peer_addr().ok().zip(ends.local_addr().ok());
    Ok(Door::Peer {
        who,
        proven,
        to,
        addresses: addresses.map(|(from, to)| Addresses { from, to }),
        tls: session_words(session),
    })
}

/// Writes version and key exchange of a session: `TLSv1.3 X25519MLKEM768`.
fn session_words(session: &ServerConnection) -> Option<Arc<str>> {
    let version = session.protocol_version()?.as_str()?.replace('_', ".");
    let group = session.negotiated_key_exchange_group()?.name();
    Some(format!("{version} {group:?}").into())
}

async fn talk(proxy: &Arc<Proxy>, stream: TlsStream<Wide>, source: IpAddr, door: Door) {
    let Door::Peer { proven, to, .. } = &door else {
        return;
    };
    let proven = Arc::clone(proven);
    let session = stream.get_ref().1;
    // Two proxies prove on; a foreign peer's connection ends with the SVID that it began by.
    let control = match session.alpn_protocol() {
        Some(reproof::ALPN | hop::ALPN) => {
            let control = |exporter| Control::new(proxy, &proven, exporter, to.bot.clone(), source);
            reproof::exporter(session).map(control)
        }
        Some(_) | None => None,
    };
    let (is_hop, is_h2) = match session.alpn_protocol() {
        Some(hop::ALPN) => (true, false),
        Some(b"h2" | reproof::ALPN) => (false, true),
        Some(_) | None => (false, false),
    };
    // Boxed each, for a connection needs the room of one of them.
    let talking = async {
        if is_hop {
            Box::pin(hop::talk(proxy, stream, source, Arc::new(door), control)).await;
        } else if is_h2 {
            Box::pin(talk_http2(proxy, stream, Arc::new(door), control)).await;
        } else {
            let (read, write) = ends::tls(stream);
            Box::pin(connection::serve(proxy, read, write, Handler::Peer(door))).await;
        }
    };
    // What the peer proved ends with its SVID, and whatever runs on the connection ends with that.
    tokio::select! {
        () = talking => {}
        () = proven.ended(&proxy.clock) => {}
    }
}

async fn talk_http2(proxy: &Arc<Proxy>, stream: TlsStream<Wide>, door: Arc<Door>, control: Option<Arc<Control>>) {
    let (closing, shared, window) = (proxy.closing.clone(), Arc::clone(proxy), proxy.windows.take());
    // The control stream takes no call's place.
    let streams = STREAMS_MAX + u32::from(control.is_some());
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, door, control) = (Arc::clone(&shared), Arc::clone(&door), control.clone());
        let ours = if control.is_some() { By::Proxy } else { By::Foreigner };
        async move {
            if let Some(control) = control.filter(|control| control.is_for(&request)) {
                return Ok(control.answer(request));
            }
            Ok::<_, Infallible>(answer_http2(&proxy, &door, ours, request).await)
        }
    });
    let connection = server::Builder::new(Tasks::of(proxy))
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(streams)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(window.of_stream())
        .initial_connection_window_size(window.bytes())
        .max_frame_size(FRAME_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(PROVOKED_RESETS_MAX)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // The connection is polled on after the other arm was taken: nothing of it is lost.
    let said = async {
        closing.cancelled().await;
        tokio::time::sleep(CLOSING_SAID).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = said => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a peer's connection ended");
    }
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
enum By {
    /// Another proxy's.
    Proxy,
    /// A foreign peer's.
    Foreigner,
}

/// Answers a request; `asked_by` says whose connection it is.
async fn answer_http2(
    proxy: &Arc<Proxy>,
    door: &Door,
    asked_by: By,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (parts, body) = request.into_parts();
    if let (By::Proxy, Some(port)) = (asked_by, parts.headers.get(BOTMESH_TCP)) {
        let port = port.clone();
        return Box::pin(open(proxy, door, &port, parts, body)).await;
    }
    // Between two proxies, a request that would switch carries both directions in its bodies. From anybody else the field
    // is one of ours that came in, and is removed.
    let upgrade = match asked_by {
        By::Proxy => parts
            .headers
            .get(BOTMESH_UPGRADE)
            .and_then(|value| Protocol::parse(value.as_bytes())),
        By::Foreigner => None,
    };
    let switch = upgrade
        .as_ref()
        .and_then(|protocol| HeaderValue::from_str(protocol.as_str()).ok());
    let to = called(door, &parts, asked_by).map(To::Bot);
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let is_head = parts.method == Method::HEAD;
    let grpc = grpc::is_call(parts.version, &parts.method, &parts.headers);
    let asked = Asked {
        to,
        target: Bytes::copy_from_slice(target.as_bytes()),
        method: parts.method,
        headers: parts.headers,
        body: RequestBody::http2(body),
        upgrade,
        grpc,
    };
    let Answer {
        mut status,
        mut headers,
        body,
        ..
    } = call::serve(proxy, door, asked, &mut Deadline::default()).await;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(switch)) = (status, switch) {
        // HTTP/2 has no 101 (RFC 9113 §8.6).
        status = StatusCode::OK;
        headers.insert(BOTMESH_UPGRADE, switch);
    }
    let mut answer = Response::new(if is_head { body.without_bytes() } else { body });
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    if proxy.closing.is_cancelled() {
        answer.headers_mut().insert(CLOSING, HeaderValue::from_static("1"));
    }
    answer
}

/// Opens a connection of which nothing is read: the request's body is the caller's direction, the answer's the callee's.
async fn open(
    proxy: &Arc<Proxy>,
    door: &Door,
    port: &HeaderValue,
    parts: Parts,
    body: Incoming,
) -> Response<AnswerBody> {
    let to = called(door, &parts, By::Proxy).map(To::Bot);
    let Answer {
        status, headers, body, ..
    } = open_tcp(proxy, door, port, (to, parts.headers, RequestBody::http2(body))).await;
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    if proxy.closing.is_cancelled() {
        answer.headers_mut().insert(CLOSING, HeaderValue::from_static("1"));
    }
    answer
}

/// What such a request asks for and gets, whatever it came by.
async fn open_tcp(
    proxy: &Arc<Proxy>,
    door: &Door,
    port: &HeaderValue,
    (to, headers, body): (Result<To, Box<Refusal>>, HeaderMap, RequestBody),
) -> Answer {
    let number = port.to_str().ok().and_then(|port| port.parse::<u16>().ok());
    // Written in the one way in which a proxy writes it, once.
    let canonical = number.filter(|number| HeaderValue::from(*number) == *port);
    let once = headers.get_all(BOTMESH_TCP).iter().count() == 1;
    let to = match canonical.filter(|_| once) {
        Some(_) => to,
        None => Err(Refusal::boxed(Reason::BadRequest, "the port is none")),
    };
    let opening = Opening {
        to,
        port: number.unwrap_or_default(),
        headers,
        body,
    };
    let mut answer = call::open(proxy, door, opening, &mut Deadline::default()).await;
    if answer.status == StatusCode::OK {
        answer.headers.insert(BOTMESH_TCP, port.clone());
    }
    answer
}

/// Finds the callee of a request by HTTP/2 that is one to every reader.
fn called(door: &Door, parts: &Parts, asked_by: By) -> Result<Arc<Route>, Box<Refusal>> {
    let host = parts
        .headers
        .get_all(http::header::HOST)
        .iter()
        .map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let max = match asked_by {
        By::Proxy => FIELDS_MAX + FIELDS_OF_PROXY,
        By::Foreigner => FIELDS_MAX,
    };
    http2::check(&parts.method, &parts.uri, &parts.headers, max)
        .and_then(|()| callee(door, authority.into_iter().chain(host)))
}

/// Finds the callee of a call: the bot whose certificate was asked for, if that is what all names in the request say,
/// and there is one.
pub(crate) fn callee<'a>(door: &Door, names: impl Iterator<Item = &'a [u8]>) -> Result<Arc<Route>, Box<Refusal>> {
    let Door::Peer { to, .. } = door else {
        return Err(Refusal::boxed(Reason::BadRequest, "this is not the mesh side"));
    };
    let mut named = false;
    for name in names {
        let is_ours = Authority::parse(&Bytes::copy_from_slice(name))
            .is_ok_and(|name| to.host == name.host() && matches!(name.port(), None | Some(80 | 443)));
        if !is_ours {
            let detail = "the call names another bot than the one whose certificate was asked for";
            return Err(Refusal::boxed(Reason::CalleeMismatch, detail).to(to));
        }
        named = true;
    }
    if named {
        Ok(Arc::clone(to))
    } else {
        Err(Refusal::boxed(Reason::BadRequest, "the call names no host").to(to))
    }
}
