//! HTTP/1.1 on an accepted connection: bounded in time, ended with the CA.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// What one connection may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// A request line and its header fields.
    pub(crate) head: Duration,
    /// The whole connection.
    pub(crate) life: Duration,
    /// The largest head, and what is buffered of a body.
    pub(crate) buffer_bytes: usize,
}

/// Operators, scrapers and probes. The longest request waits for half a minute.
const OPERATORS: Bounds = Bounds {
    head: Duration::from_secs(10),
    life: Duration::from_mins(10),
    buffer_bytes: 64 * 1024,
};

/// How long answers may take to be written when the CA stops.
const GRACE: Duration = Duration::from_secs(1);

/// Serves one connection of this machine to its end.
pub(crate) async fn serve<S>(cancel: &CancellationToken, stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_within(cancel, stream, router, OPERATORS).await;
}

/// Serves one connection to its end, within these bounds.
pub(crate) async fn serve_within<S>(cancel: &CancellationToken, stream: S, router: Router, bounds: Bounds)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(bounds.buffer_bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // Cancel safe: the connection is polled by reference.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(bounds.life) => Ok(()),
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, connection.as_mut()).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

/// Waits a little after a failed accept (out of descriptors), so as not to spin.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
