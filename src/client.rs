//! HTTP/1.1 with JSON over a Unix socket: how a command asks the CA or the proxy, and what it says when there is no answer.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use ca_api::admin::Problem;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::config;
use crate::exit::{Exit, Failure};

/// The largest answer that is read: a whole mesh file and some.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a server may take to answer, beyond what it was asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The socket that a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The CA's admin socket.
    Ca,
    /// The proxy's admin socket.
    Proxy,
    /// The proxy's bot socket, which answers any local process about itself.
    BotSide,
}

impl Peer {
    /// The socket's file name in a folder of sockets.
    pub(crate) const fn file_name(self) -> &'static str {
        match self {
            Self::Ca => "ca.sock",
            Self::Proxy => "proxy.sock",
            Self::BotSide => "bot.sock",
        }
    }

    /// The `Host` of a question. The bot side also carries calls, so there the name says that the proxy itself is asked.
    const fn host(self) -> &'static str {
        match self {
            Self::Ca | Self::Proxy => "botmesh",
            Self::BotSide => "botmesh.mesh",
        }
    }

    const fn named(self) -> &'static str {
        match self {
            Self::Ca => "the CA",
            Self::Proxy | Self::BotSide => "the proxy of this host",
        }
    }

    const fn start_hint(self) -> &'static str {
        match self {
            Self::Ca => {
                "start it (`botmesh ca run --config ca.yaml`), or say where it is: --server unix:PATH or BOTMESH_SERVER"
            }
            Self::Proxy | Self::BotSide => {
                "start it (`botmesh proxy run --config proxy.yaml`), or say where it is: --server unix:PATH or BOTMESH_SERVER"
            }
        }
    }
}

/// A server and how it was found, for the message when it is not there.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    peer: Peer,
    socket: PathBuf,
    found_by: &'static str,
}

/// A refusal by the server, kept whole so that a caller can look at its code.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) problem: Problem,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem.title)?;
        if self.problem.detail.is_empty() || self.problem.detail == self.problem.title {
            return Ok(());
        }
        write!(f, ": {}", self.problem.detail)
    }
}

impl std::error::Error for Refused {}

/// The end of one question: an answer, or the server's own refusal.
type Answer<T> = std::result::Result<T, Refused>;

impl Server {
    /// Finds the server: the flag, else `BOTMESH_SERVER`, else the default socket. A folder stands for the sockets in it.
    pub(crate) fn find(peer: Peer, flag: Option<&Path>) -> Result<Self> {
        let (path, found_by) = match flag {
            Some(path) => (path.to_owned(), "--server"),
            None => match config::server_from_environment()? {
                Some(path) => (path, "BOTMESH_SERVER"),
                None => (config::runtime_dir(), "the default"),
            },
        };
        let socket = if path.is_dir() || found_by == "the default" {
            path.join(peer.file_name())
        } else {
            path
        };
        Ok(Self { peer, socket, found_by })
    }

    /// Names the socket of a server whose place is known.
    pub(crate) fn at(peer: Peer, socket: impl Into<PathBuf>) -> Self {
        Self {
            peer,
            socket: socket.into(),
            found_by: "started here",
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks with GET.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.get_within(path, ANSWER_TIMEOUT).await
    }

    /// Asks with GET and gives the server longer, because it was asked to wait.
    pub(crate) async fn get_within<T: DeserializeOwned>(&self, path: &str, timeout: Duration) -> Result<T> {
        self.ask::<(), T>(Method::GET, path, None, timeout)
            .await?
            .map_err(|refused| self.failure(refused))
    }

    /// Asks with POST.
    pub(crate) async fn post<B: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T> {
        self.try_post(path, body)
            .await?
            .map_err(|refused| self.failure(refused))
    }

    /// Asks with POST and gives the server longer, because it has to ask others.
    pub(crate) async fn post_within<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        timeout: Duration,
    ) -> Result<T> {
        self.ask(Method::POST, path, Some(body), timeout)
            .await?
            .map_err(|refused| self.failure(refused))
    }

    /// Asks with POST and hands a refusal to the caller, who knows its codes.
    pub(crate) async fn try_post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Answer<T>> {
        self.ask(Method::POST, path, Some(body), ANSWER_TIMEOUT).await
    }

    async fn ask<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        timeout: Duration,
    ) -> Result<Answer<T>> {
        let body = match body {
            Some(body) => Bytes::from(serde_json::to_vec(body)?),
            None => Bytes::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, self.peer.host())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .context("build the request")?;
        let (status, bytes) = match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(answer) => answer?,
            Err(_elapsed) => {
                let message = format!(
                    "{} did not answer within {} s ({})",
                    self.peer.named(),
                    timeout.as_secs(),
                    self.shown()
                );
                return Err(Failure::new(Exit::Unreachable, message).into());
            }
        };
        if status.is_success() {
            let value = serde_json::from_slice(&bytes)
                .with_context(|| format!("read the answer of {} ({})", self.peer.named(), self.shown()))?;
            return Ok(Ok(value));
        }
        Ok(Err(Refused {
            status,
            problem: problem_of(status, &bytes),
        }))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| self.unreachable(&source))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| anyhow!(error).context("read the answer's body"))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        let answer = driven(connection, exchange).await;
        answer.map_err(|error| {
            let message = format!("{} broke off ({}): {error:#}", self.peer.named(), self.shown());
            Failure::new(Exit::Unreachable, message).into()
        })
    }

    fn unreachable(&self, source: &std::io::Error) -> anyhow::Error {
        let named = self.peer.named();
        if source.kind() == std::io::ErrorKind::PermissionDenied {
            let message = format!("no permission to open the socket of {named} ({})", self.shown());
            return Failure::new(Exit::NotAuthorised, message)
                .hint("run this as an operator of that server: its `admin.operators`")
                .into();
        }
        let message = format!("cannot reach {named}: tried {}: {source}", self.shown());
        Failure::new(Exit::Unreachable, message)
            .hint(self.peer.start_hint())
            .into()
    }

    /// Turns a refusal into the end of the command.
    pub(crate) fn failure(&self, refused: Refused) -> anyhow::Error {
        let exit = match refused.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NotAuthorised,
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
                Exit::InvalidFile
            }
            status if status.is_server_error() => Exit::Unreachable,
            _ => Exit::Findings,
        };
        Failure::new(exit, format!("{} refused: {refused}", self.peer.named())).into()
    }

    fn shown(&self) -> String {
        format!("unix:{}, by {}", self.socket.display(), self.found_by)
    }
}

/// Waits for an exchange while its connection is driven. A connection that ends first may have brought the whole answer: if it has
/// not, the exchange fails by itself.
pub(crate) async fn driven<C: Future, E: Future>(connection: C, exchange: E) -> E::Output {
    let drive = async {
        drop(connection.await);
        std::future::pending::<Infallible>().await
    };
    // The exchange owns all that is wanted of the connection.
    tokio::select! {
        answer = exchange => answer,
        never = drive => match never {},
    }
}

/// Reads a refusal; one that is not a problem document is shown by its status alone, not by its bytes.
fn problem_of(status: StatusCode, bytes: &[u8]) -> Problem {
    serde_json::from_slice(bytes).unwrap_or_else(|_not_a_problem| Problem {
        kind: "about:blank".to_owned(),
        title: format!("status {status}"),
        status: status.as_u16(),
        detail: String::new(),
        code: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::code_of;

    fn refused(status: StatusCode) -> Refused {
        Refused {
            status,
            problem: problem_of(status, b"<html>"),
        }
    }

    #[test]
    fn the_status_of_a_refusal_picks_the_exit_code() {
        let server = Server::at(Peer::Ca, "/x/ca.sock");
        for (status, exit) in [
            (StatusCode::FORBIDDEN, Exit::NotAuthorised),
            (StatusCode::UNPROCESSABLE_ENTITY, Exit::InvalidFile),
            (StatusCode::SERVICE_UNAVAILABLE, Exit::Unreachable),
            (StatusCode::NOT_FOUND, Exit::Findings),
        ] {
            assert_eq!(code_of(&server.failure(refused(status))), exit, "{status}");
        }
    }

    #[test]
    fn a_folder_stands_for_the_sockets_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Server::find(Peer::Ca, Some(dir.path())).unwrap();
        assert_eq!(ca.socket(), dir.path().join("ca.sock"));
        let bots = Server::find(Peer::BotSide, Some(dir.path())).unwrap();
        assert_eq!(bots.socket(), dir.path().join("bot.sock"));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_exit_4_and_says_what_was_tried_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("none.sock");
        let server = Server::find(Peer::Ca, Some(&socket)).unwrap();
        let error = server.get::<serde_json::Value>("/v1/status").await.unwrap_err();
        assert_eq!(code_of(&error), Exit::Unreachable);
        let text = format!("{error:#}");
        assert!(
            text.contains(&socket.display().to_string()) && text.contains("--server"),
            "{text}"
        );
        assert!(text.contains("botmesh ca run"), "{text}");
    }
}
