//! HTTP/2 from the bots of this host, by prior knowledge (RFC 9113 §3.3).
//!
//! The first bytes of a connection, or of a tunnel, say which protocol it speaks; nothing is negotiated and nothing is
//! upgraded (`Upgrade: h2c` is ignored, as RFC 9113 §3.1 has it). Framing is hyper's, for it is not ambiguous; what a
//! request means is read here as strictly as by HTTP/1.1 ([`ask`]), and each stream is a call of its own that goes the
//! same way: the caller is looked at again before each of them, and over the Unix socket with each byte.
//!
//! The connection speaks for one process. When that one is gone, runs another program or is not the only one that
//! speaks, all streams end: before the next stream is answered, and within [`LOOK`] while one runs.

mod ask;
mod ends;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use crate::bots::BotSide;
use crate::call::{self, Answer, Door};
use crate::ends::{ReadEnd, WriteEnd};
use crate::http1::deadline::Deadline;
use crate::http1::read::Reader;
use crate::http1::write::Writer;
use crate::mesh;
use crate::proxy::Proxy;
pub(crate) use ask::check;
use ends::Ends;
use stream::{Sent, Streams};

/// What a client that knows sends first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often the caller is looked at while streams run.
const LOOK: Duration = Duration::from_secs(1);

/// How long a connection stays after the refusal that ends it, so that its caller can read that, and after an idle one
/// was told to end. Calls of nobody are refused meanwhile.
const LINGER: Duration = Duration::from_secs(1);

/// What the streams of one connection share.
#[derive(Debug)]
struct Shared {
    proxy: Arc<Proxy>,
    side: BotSide,
    /// How many streams run.
    running: AtomicUsize,
    /// Cancelled when the connection must end: its caller is nobody.
    over: CancellationToken,
    /// Cancelled when the connection was idle for long.
    idle: CancellationToken,
}

/// Serves a connection to its end; its reader has found [`PREFACE`].
pub(crate) async fn serve(proxy: &Arc<Proxy>, reader: Reader<ReadEnd>, writer: Writer<WriteEnd>, side: BotSide) {
    let shared = Arc::new(Shared {
        proxy: Arc::clone(proxy),
        side,
        running: AtomicUsize::new(0),
        over: CancellationToken::new(),
        idle: CancellationToken::new(),
    });
    let served = Arc::clone(&shared);
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&served);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let window = proxy.windows.take();
    // The bounds of the mesh side: a bot is trusted no more than a peer.
    let connection = http2::Builder::new(Streams::of(&shared))
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(mesh::STREAMS_MAX)
        .max_header_list_size(mesh::HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(window.of_stream())
        .initial_connection_window_size(window.bytes())
        .max_frame_size(mesh::FRAME_BYTES)
        .max_pending_accept_reset_streams(mesh::PENDING_RESETS_MAX)
        .max_local_error_reset_streams(mesh::PROVOKED_RESETS_MAX)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(Ends::new(reader, writer, &shared)), service);
    let mut connection = std::pin::pin!(connection);
    let (mut watch, mut ending, mut over) = (Watch::default(), false, false);
    loop {
        // The connection is polled on after another arm was taken: nothing of it is lost.
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a bot's connection ended");
                }
                return;
            }
            // A GOAWAY is no answer: clients that were refused are left to read theirs, and find the end after it.
            () = shared.to_end(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            // Looked at by the watch.
            () = shared.over.cancelled(), if !over => over = true,
            () = std::future::poll_fn(|cx| watch.poll(cx, &shared)) => return,
        }
    }
}

impl Shared {
    /// Waits until no more streams are to begin.
    async fn to_end(&self) {
        tokio::select! {
            () = self.idle.cancelled() => {}
            () = self.proxy.closing.cancelled() => {}
        }
    }

    /// Tells whether the caller is still the bot that it was.
    fn is_same(&self) -> bool {
        let Door::Bot { caller, who } = self.side.door() else {
            return true;
        };
        let checked = caller.recheck();
        if let Err(why) = &checked {
            tracing::info!(bot = %who.bot, %why, "ended the streams of a caller that is nobody any more");
        }
        checked.is_ok()
    }
}

/// Looks after a connection while it is served.
#[derive(Debug, Default)]
struct Watch {
    state: Option<State>,
    deadline: Deadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No stream runs.
    Idle,
    /// Some do.
    Busy,
    /// The connection must end.
    Over,
}

impl Watch {
    /// Completes when the connection must end at once.
    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<()> {
        loop {
            let state = if shared.over.is_cancelled() {
                State::Over
            } else if shared.running.load(Ordering::Relaxed) > 0 {
                State::Busy
            } else {
                State::Idle
            };
            if self.state != Some(state) {
                self.state = Some(state);
                self.deadline.set(match state {
                    State::Idle => shared.proxy.limits.idle,
                    State::Busy => LOOK,
                    State::Over => LINGER,
                });
            }
            ready!(self.deadline.poll(cx));
            match state {
                State::Idle if !shared.idle.is_cancelled() => {
                    shared.idle.cancel();
                    self.deadline.set(LINGER);
                }
                State::Busy if shared.is_same() => self.deadline.set(LOOK),
                State::Idle | State::Busy | State::Over => return Poll::Ready(()),
            }
        }
    }
}

/// Answers one stream.
async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Sent> {
    let is_head = request.method() == Method::HEAD;
    let asked = match ask::read(request) {
        Ok(wish) => shared.side.ask(&shared.proxy, wish),
        Err((method, refusal)) => Err(Box::new(call::refuse(
            &shared.proxy,
            shared.side.door(),
            &method,
            refusal,
        ))),
    };
    let answer = match asked {
        Ok(asked) => call::serve(&shared.proxy, shared.side.door(), asked, &mut Deadline::default()).await,
        Err(answer) => *answer,
    };
    let Answer {
        status,
        headers,
        body,
        last,
    } = answer;
    if last {
        stream::end_connection();
    }
    let body = if is_head { body.without_bytes() } else { body };
    let mut answer = Response::new(Sent::new(body, shared.proxy.bounds.answer_silence));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}
