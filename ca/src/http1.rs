//! HTTP/1.1 on an accepted connection: bounded in time, ended with the CA.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// A request line and its header fields.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// The longest connection; the longest request waits for half a minute.
const LIFE_MAX: Duration = Duration::from_mins(10);

/// How long answers may take to be written when the CA stops.
const GRACE: Duration = Duration::from_secs(1);

/// The largest head, and what is buffered of a body.
const BUFFER_BYTES: usize = 64 * 1024;

/// Serves one connection to its end.
pub(crate) async fn serve<S>(cancel: &CancellationToken, stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // Cancel safe: the connection is polled by reference.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(LIFE_MAX) => Ok(()),
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
