//! Why a call did not come back from another proxy.

use std::net::SocketAddr;

use spiffe_tls::{HandshakeRefusal, TlsError};
use thiserror::Error;

use crate::call::HopError;
use crate::reason::Reason;

/// Why a call did not come back from another proxy.
#[derive(Debug, Error)]
pub(crate) enum PoolFault {
    /// There is nobody to call.
    #[error("the callee has no address")]
    NoAddress,
    /// The caller's SVID or the bundle is not usable.
    #[error("set up TLS in the caller's name")]
    Config {
        /// Why.
        #[source]
        source: TlsError,
    },
    /// Nobody listens, or too slowly.
    #[error("connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The other end is somebody else.
    #[error("{address} is not the callee's proxy")]
    WrongId {
        /// Where.
        address: SocketAddr,
        /// Who it is.
        #[source]
        source: HandshakeRefusal,
    },
    /// The other end proved nothing.
    #[error("{address} proved nothing")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: HandshakeRefusal,
    },
    /// The handshake failed for another reason, or the other end refused us.
    #[error("shake hands with {address}")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// The other end does not speak HTTP/2.
    #[error("{address} does not speak HTTP/2")]
    Protocol {
        /// Where.
        address: SocketAddr,
        /// What happened, if it began to.
        #[source]
        source: Option<hyper::Error>,
    },
    /// The connection failed under the call.
    #[error("send the call and read its answer")]
    Exchange {
        /// What happened.
        #[source]
        source: HopError,
    },
    /// The call may not be made any more, or not to that host.
    #[error("the call was ended: {reason}")]
    Cut {
        /// Why.
        reason: Reason,
    },
    /// Nobody could connect while the call waited for that.
    #[error("{address} could not be connected to, for another call")]
    Ejected {
        /// Where.
        address: SocketAddr,
    },
    /// Too many calls wait for a connection.
    #[error("too many calls wait for a connection to the callee's proxy")]
    Pending,
    /// All connections are full.
    #[error("all connections to the callee's proxy are full")]
    Full,
    /// It took too long.
    #[error("no answer in time")]
    Slow,
}
