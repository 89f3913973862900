//! Connects to a destination outside: to an address that was judged, and over TLS to nobody but the name.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::{Outside, OutsideDestination, Scheme};
use rustls::ClientConfig;
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;
use spiffe::time::Clock;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::{self, Forbidden};
use super::resolve::{ResolveError, Resolver};
use super::tls::{self, ShownOnce};
pub use crate::ends::Wide;
use crate::postgres::wire;

pub use super::tls::SetUpError;

/// How long all of it may take where the mesh does not say.
const CONNECT: Duration = Duration::from_secs(10);

/// How long one address is tried while there is another.
const EACH: Duration = Duration::from_secs(3);

/// A connection to a destination.
#[derive(Debug)]
pub enum Stream {
    /// In the clear, or with TLS that the bot itself opens.
    Plain(TcpStream),
    /// Over TLS to the verified name.
    Tls(Box<TlsStream<Wide>>),
}

/// A connection, and the address that it leads to.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// The address, which was judged before anything was sent to it.
    pub address: SocketAddr,
}

/// Why a destination was not reached.
#[derive(Debug, Error)]
pub enum OutsideFault {
    /// Its name has no address.
    #[error("resolve the destination")]
    Resolve {
        /// Why.
        #[source]
        source: ResolveError,
    },
    /// None of its addresses may be called.
    #[error("{address} may not be called")]
    Forbidden {
        /// The first of them.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Forbidden,
    },
    /// Nobody answers.
    #[error("connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Whoever answers did not prove to be the destination.
    #[error("TLS with {address}")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("set up TLS")]
    SetUp {
        /// Why.
        #[source]
        source: SetUpError,
    },
    /// It takes no TLS.
    #[error("{address} takes no TLS")]
    NoTls {
        /// Where.
        address: SocketAddr,
    },
    /// It took too long.
    #[error("it took too long")]
    Slow,
}

/// Connects to a destination, and verifies who is there where the proxy opens the TLS.
///
/// # Errors
///
/// When no address of it may be called or answers in time, or another than the destination answers.
pub async fn connect(
    resolver: &Resolver,
    clock: &Clock,
    outside: &Outside,
    said: &OutsideDestination,
) -> Result<Connected, OutsideFault> {
    let until = Instant::now() + said.waits.connect_timeout.unwrap_or(CONNECT);
    let left = until.saturating_duration_since(Instant::now());
    let found = resolver.look_up(outside.host(), outside.port(), left).await;
    let found = found.map_err(|source| OutsideFault::Resolve { source })?;
    let (stream, address) = reach(&permitted(found, said)?, until).await?;
    if outside.scheme() != Scheme::Https {
        let stream = Stream::Plain(stream);
        return Ok(Connected { stream, address });
    }
    let config = tls::config(said.ca.as_deref(), clock).map_err(|source| OutsideFault::SetUp { source })?;
    let failed = |source| OutsideFault::Tls { address, source };
    let name = ServerName::try_from(outside.host().to_owned()).map_err(|error| failed(io::Error::other(error)))?;
    let shaking = TlsConnector::from(config).connect(name, Wide::new(stream));
    let shaken = timeout_at(until, shaking)
        .await
        .map_err(|_elapsed| OutsideFault::Slow)?;
    let stream = Stream::Tls(Box::new(shaken.map_err(failed)?));
    Ok(Connected { stream, address })
}

/// A connection to a server of PostgreSQL, over TLS to the verified name.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) stream: TlsStream<Wide>,
    pub(crate) address: SocketAddr,
    /// Whether the server asked for the certificate that there was for it.
    pub(crate) shown: bool,
}

/// Connects to a server of PostgreSQL, and verifies who is there.
///
/// # Errors
///
/// As [`connect`], and when the server takes no TLS.
pub(crate) async fn database(
    resolver: &Resolver,
    clock: &Clock,
    (outside, said): (&Outside, &OutsideDestination),
    shown: Option<Arc<CertifiedKey>>,
    at: Option<SocketAddr>,
) -> Result<Database, OutsideFault> {
    let until = Instant::now() + said.waits.connect_timeout.unwrap_or(CONNECT);
    let found = match at {
        Some(address) => vec![address],
        None => {
            let left = until.saturating_duration_since(Instant::now());
            let found = resolver.look_up(outside.host(), outside.port(), left).await;
            found.map_err(|source| OutsideFault::Resolve { source })?
        }
    };
    let (stream, address) = reach(&permitted(found, said)?, until).await?;
    let shown = ShownOnce::new(shown);
    let config = tls::database_config(said.ca.as_deref(), clock, Arc::clone(&shown));
    let config = config.map_err(|source| OutsideFault::SetUp { source })?;
    let stream = timeout_at(until, secured(stream, address, outside, config)).await;
    let stream = stream.map_err(|_elapsed| OutsideFault::Slow)??;
    Ok(Database {
        stream,
        address,
        shown: shown.was_shown(),
    })
}

/// Asks for TLS and opens it. What a server says in the clear beside its `S` is taken for TLS, and is none.
async fn secured(
    mut stream: TcpStream,
    address: SocketAddr,
    outside: &Outside,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<Wide>, OutsideFault> {
    let broken = |source| OutsideFault::Connect { address, source };
    stream.write_all(&wire::ask_for_tls()).await.map_err(broken)?;
    if stream.read_u8().await.map_err(broken)? != b'S' {
        return Err(OutsideFault::NoTls { address });
    }
    let failed = |source| OutsideFault::Tls { address, source };
    let name = ServerName::try_from(outside.host().to_owned()).map_err(|error| failed(io::Error::other(error)))?;
    let shaking = TlsConnector::from(config).connect(name, Wide::new(stream));
    shaking.await.map_err(failed)
}

/// Leaves out what may not be called; an error where nothing is left.
fn permitted(found: Vec<SocketAddr>, said: &OutsideDestination) -> Result<Vec<SocketAddr>, OutsideFault> {
    let (mut permitted, mut refused) = (Vec::new(), None);
    for address in found {
        match address::judge(address.ip(), &said.addresses) {
            Ok(()) => permitted.push(address),
            Err(source) => {
                tracing::info!(%address, why = %source, "an address of a destination outside is left out");
                refused.get_or_insert(OutsideFault::Forbidden { address, source });
            }
        }
    }
    match refused {
        Some(refused) if permitted.is_empty() => Err(refused),
        Some(_) | None => Ok(permitted),
    }
}

/// Connects to the first address that answers.
async fn reach(addresses: &[SocketAddr], until: Instant) -> Result<(TcpStream, SocketAddr), OutsideFault> {
    let mut failure = OutsideFault::Slow;
    for (number, address) in addresses.iter().enumerate() {
        let is_last = number + 1 == addresses.len();
        let limit = if is_last {
            until
        } else {
            until.min(Instant::now() + EACH)
        };
        let failed = |source| OutsideFault::Connect {
            address: *address,
            source,
        };
        match timeout_at(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(failed)?;
                return Ok((stream, *address));
            }
            Ok(Err(source)) => failure = failed(source),
            Err(_elapsed) => failure = OutsideFault::Slow,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests;
