//! The link to the CA: one stream at a time, for as long as the proxy runs.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ca_api::node::{ALPN, GoodbyeReason};
use spiffe_tls::{Expect, TlsError, client_config};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::dial::{DialError, Dialed};
use super::join::{JoinError, is_refusal};
use super::node::{self, Trust};
use super::shared::Shared;
use super::stream;
use super::up::UpReader;

/// How long an attempt must have lasted for the wait after it to be a short one
/// again: a CA that takes a stream and ends it at once is not asked all the time.
const STEADY: Duration = Duration::from_secs(30);

/// How a stream ended that had been up.
#[derive(Debug)]
pub(super) enum End {
    /// This host has a new node SVID, which the next stream shows.
    Renewed,
    /// The CA said goodbye.
    Goodbye(Option<GoodbyeReason>),
    /// The CA ended the stream without a word.
    Closed,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("this host has no node SVID")]
    Join {
        #[source]
        source: JoinError,
    },
    #[error("set up TLS towards the CA")]
    Tls {
        #[source]
        source: TlsError,
    },
    #[error("the CA is not reachable")]
    Dial {
        #[source]
        source: DialError,
    },
    #[error("the CA took too long to {what}")]
    Slow { what: &'static str },
    #[error("the stream to the CA failed: {status}")]
    Stream { status: Box<tonic::Status> },
}

impl LinkError {
    /// Whether the CA does not take the node SVID.
    fn trust(&self) -> Trust {
        match self {
            Self::Stream { status } if is_refusal(status) => Trust::Refused,
            // A CA that does not take a client certificate ends TLS with an alert,
            // which in TLS 1.3 comes after the handshake, as an error of the stream.
            Self::Dial {
                source: DialError::Http2 { .. } | DialError::Tls { .. },
            } => Trust::Refused,
            Self::Join { .. } | Self::Tls { .. } | Self::Dial { .. } | Self::Slow { .. } | Self::Stream { .. } => {
                Trust::Taken
            }
        }
    }
}

/// Keeps the stream up until cancelled. Losing an attempt midway is safe: what it
/// had received was applied whole or not at all, and what it had sent is sent anew.
pub(super) async fn run(shared: Arc<Shared>, mut reader: UpReader, cancel: CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = keep_up(&shared, &mut reader) => {}
    }
}

async fn keep_up(shared: &Shared, reader: &mut UpReader) {
    let mut backoff = Backoff::new();
    let mut trust = Trust::Taken;
    loop {
        let began = Instant::now();
        let outcome = attempt(shared, reader, trust).await;
        down(shared, &outcome);
        trust = outcome.as_ref().err().map_or(Trust::Taken, LinkError::trust);
        if began.elapsed() >= STEADY {
            backoff.reset();
        }
        match outcome {
            Ok(End::Renewed) => continue,
            Ok(End::Goodbye(Some(GoodbyeReason::Evicted))) => {
                if let Err(error) = shared.evicted().await {
                    tracing::error!(error = &error as &dyn Error, "an evicted host could not be emptied");
                }
            }
            Ok(End::Goodbye(_) | End::Closed) | Err(_) => {}
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

async fn attempt(shared: &Shared, reader: &mut UpReader, trust: Trust) -> Result<End, LinkError> {
    node::ensure(shared, trust)
        .await
        .map_err(|source| LinkError::Join { source })?;
    let dialed = connect(shared).await?;
    stream::run(shared, dialed, reader).await
}

/// Connects as this host, to any server of the CA.
async fn connect(shared: &Shared) -> Result<Dialed, LinkError> {
    let node = shared.node();
    let expect = Expect::AnyCa(shared.config.trust_domain.clone());
    let svid = node.as_ref().map(|node| &node.svid);
    let tls = client_config(svid, &shared.snapshot().bundle, expect, &shared.clock, &[ALPN])
        .map_err(|source| LinkError::Tls { source })?;
    shared
        .dialer
        .dial(&tls)
        .await
        .map_err(|source| LinkError::Dial { source })
}

/// Says that the stream is down, and why.
fn down(shared: &Shared, outcome: &Result<End, LinkError>) {
    let error = match outcome {
        Ok(End::Renewed) => None,
        Ok(End::Goodbye(Some(reason))) => Some(format!("the CA ended the stream: {}", reason.as_str())),
        Ok(End::Goodbye(None) | End::Closed) => Some("the CA ended the stream".to_owned()),
        Err(error) => Some(super::chain_of(error)),
    };
    shared.set_client(None);
    let mut link = shared.link();
    link.connected = None;
    if error.is_some() && error != link.error {
        tracing::warn!(error = error.as_deref(), "the stream to the CA is down");
    }
    link.error = error;
    drop(link);
    shared.touch();
}
