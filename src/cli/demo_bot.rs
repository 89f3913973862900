//! The demo's sample bots: ordinary HTTP programs that know nothing of botmesh. They run under `botmesh run --as`, as a person's would.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::DemoBot;
use crate::client::driven;
use crate::exit::{Exit, Failure};
use crate::output::Screen;
use crate::signals;

/// More connections at once than a demo makes.
const CONNECTIONS_MAX: usize = 64;

/// The longest line of a caller's script, and the largest answer it keeps.
const CALL_BYTES_MAX: u64 = 64 * 1024;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs a sample bot until its stdin ends.
pub(crate) async fn run(command: DemoBot, screen: &Screen) -> Result<Exit> {
    match command {
        DemoBot::Serve { listen } => serve(&listen, screen).await,
        DemoBot::Call { socket } => call(&socket, screen).await,
    }
}

async fn serve(listen: &str, screen: &Screen) -> Result<Exit> {
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    signals::cancel_on_stop(&tasks, &cancel, true)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    match listen.strip_prefix("unix:") {
        Some(path) => {
            let listener = UnixListener::bind(path).with_context(|| format!("listen on {path}"))?;
            screen.line(format!("listening unix:{path}"))?;
            // Accepting and taking a place are both safe to lose: nothing was answered yet.
            while let Some(place) = admitted(&places, &cancel).await {
                let stream = tokio::select! {
                    stream = listener.accept() => stream.context("accept")?.0,
                    () = cancel.cancelled() => break,
                };
                tasks.spawn(answer(stream, place, cancel.clone()));
            }
        }
        None => {
            let listener = TcpListener::bind(listen)
                .await
                .with_context(|| format!("listen on {listen}"))?;
            screen.line(format!(
                "listening {}",
                listener.local_addr().context("read the address")?
            ))?;
            while let Some(place) = admitted(&places, &cancel).await {
                let stream = tokio::select! {
                    stream = listener.accept() => stream.context("accept")?.0,
                    () = cancel.cancelled() => break,
                };
                tasks.spawn(answer(stream, place, cancel.clone()));
            }
        }
    }
    tasks.close();
    tasks.wait().await;
    Ok(Exit::Fine)
}

async fn admitted(places: &Arc<Semaphore>, cancel: &CancellationToken) -> Option<OwnedSemaphorePermit> {
    // A place that was not yet given is not lost.
    tokio::select! {
        place = Arc::clone(places).acquire_owned() => place.ok(),
        () = cancel.cancelled() => None,
    }
}

async fn answer<S>(stream: S, place: OwnedSemaphorePermit, cancel: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CALL_TIMEOUT)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| async move { Ok::<_, Infallible>(echo(&request)) }),
        );
    // A demo's end may cut an answer: its caller is ending too.
    tokio::select! {
        ended = connection => if let Err(error) = ended { tracing::debug!("connection: {error}") },
        () = cancel.cancelled() => {}
    }
    drop(place);
}

/// Says what this bot saw, above all who the proxy says is calling.
fn echo(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let header = |name: &str| all_values(request.headers(), name);
    let body = json!({
        "answered": format!("{} {}", request.method(), request.uri().path()),
        "caller": header("x-botmesh-caller"),
        "client_cert": header("x-forwarded-client-cert"),
        "headers": request.headers().keys().map(http::HeaderName::as_str).collect::<Vec<_>>(),
    });
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

fn all_values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

/// One line of a caller's script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}

/// What a call came to, one line for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answered {
    /// 0 when there was no answer at all.
    pub(crate) status: u16,
    /// The header `botmesh-call`.
    pub(crate) call: Option<String>,
    /// The header `botmesh-denied`: set, the proxy refused; absent, the callee answered.
    pub(crate) denied: Option<String>,
    pub(crate) body: Value,
    pub(crate) error: Option<String>,
    pub(crate) micros: u64,
}

async fn call(socket: &Path, screen: &Screen) -> Result<Exit> {
    let stdin = signals::stdin_pipe()?;
    let mut script = BufReader::new(stdin);
    loop {
        let mut line = String::new();
        let read = (&mut script)
            .take(CALL_BYTES_MAX)
            .read_line(&mut line)
            .await
            .context("read the script")?;
        if read == 0 {
            return Ok(Exit::Fine);
        }
        let call: Call = serde_json::from_str(&line)
            .map_err(|error| Failure::usage(format!("a line of the script is not a call: {error}")))?;
        screen.line(serde_json::to_string(&made(socket, &call).await)?)?;
    }
}

async fn made(socket: &Path, call: &Call) -> Answered {
    let started = Instant::now();
    let outcome = match tokio::time::timeout(CALL_TIMEOUT, exchange(socket.to_owned(), call)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(anyhow!("no answer within {} s", CALL_TIMEOUT.as_secs())),
    };
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    match outcome {
        Ok(answered) => Answered { micros, ..answered },
        Err(error) => Answered {
            status: 0,
            call: None,
            denied: None,
            body: Value::Null,
            error: Some(format!("{error:#}")),
            micros,
        },
    }
}

async fn exchange(socket: PathBuf, call: &Call) -> Result<Answered> {
    let uri: http::Uri = call.url.parse().with_context(|| format!("read the URL {}", call.url))?;
    let host = uri
        .authority()
        .map(|authority| authority.as_str().to_owned())
        .unwrap_or_default();
    let mut request = Request::builder()
        .method(call.method.as_str())
        .uri(uri)
        .header(http::header::HOST, host);
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).context("build the request")?;
    let stream = UnixStream::connect(&socket)
        .await
        .with_context(|| format!("connect to {}", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await.context("send the call")?;
        let (head, body) = response.into_parts();
        let limit = usize::try_from(CALL_BYTES_MAX).context("measure")?;
        let body = Limited::new(body, limit)
            .collect()
            .await
            .map_err(|error| anyhow!(error))?
            .to_bytes();
        let header = |name: &str| all_values(&head.headers, name).into_iter().next();
        Ok(Answered {
            status: head.status.as_u16(),
            call: header("botmesh-call"),
            denied: header("botmesh-denied"),
            body: serde_json::from_slice(&body)
                .unwrap_or_else(|_not_json| Value::from(String::from_utf8_lossy(&body).into_owned())),
            error: None,
            micros: 0,
        })
    };
    driven(connection, exchange).await
}
