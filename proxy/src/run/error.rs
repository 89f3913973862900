//! Why the proxy did not start.

use std::path::PathBuf;

use audit::OpenError;
use spiffe_tls::TlsError;
use thiserror::Error;

use super::{DescentError, PassedError};
use crate::attest::KernelError;
use crate::control::StartError;

/// Why the proxy did not start.
#[derive(Debug, Error)]
pub enum RunError {
    /// A listener could not be bound.
    #[error("listen on {setting} {address}")]
    Bind {
        /// The setting.
        setting: &'static str,
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A socket of the service manager is none of this proxy's.
    #[error("take the sockets of the service manager")]
    Passed {
        /// Why.
        #[source]
        source: PassedError,
    },
    /// A folder could not be made.
    #[error("make the folder {}", path.display())]
    Dir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A destination's name makes no host.
    #[error("listeners: {name} makes no host name")]
    Destination {
        /// The bot, or the destination outside.
        name: String,
    },
    /// The ledger could not be opened.
    #[error("open the ledger in {}", dir.display())]
    Ledger {
        /// Its folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// Root could not become the proxy's user.
    #[error("give up the rights of root")]
    Descent {
        /// Why.
        #[source]
        source: DescentError,
    },
    /// The process that looks into others has ended; without it nobody can be named.
    #[error("the attest helper has ended, so nobody can be named")]
    HelperGone,
    /// The kernel cannot be asked about processes.
    #[error("look into processes")]
    Attest {
        /// Why.
        #[source]
        source: KernelError,
    },
    /// The control side did not start.
    #[error("find out who this host is")]
    Control {
        /// Why.
        #[source]
        source: Box<StartError>,
    },
    /// The metrics could not be registered.
    #[error("register the metrics")]
    Metrics {
        /// Why.
        #[source]
        source: prometheus::Error,
    },
    /// TLS could not be set up.
    #[error("set up TLS for the mesh side")]
    Tls {
        /// Why.
        #[source]
        source: TlsError,
    },
    /// This host has no randomness.
    #[error("take random numbers")]
    Randomness,
    /// What is not on the path of a call has no thread.
    #[error("start the thread beside the calls")]
    Aside {
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A thread for blocking work ended.
    #[error("wait for a thread")]
    Blocking {
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}
