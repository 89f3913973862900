//! What all connections of the process share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use audit::Ledger;
use spiffe::id::{HostName, TrustDomain};
use spiffe::time::Clock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attest::Attestor;
use crate::call::Turn;
use crate::callee::Callees;
use crate::config::{Disclose, LocalHop, SecretInUrl};
use crate::control::Control;
use crate::credentials::Credentials;
use crate::http1;
use crate::limiter::Limiter;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::pool::Pool;
use crate::postgres::keys::Keys;
use crate::upstream::Upstreams;
use crate::windows::Windows;

/// The bounds of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections of bots at a time, by listener.
    pub(crate) connections: usize,
    /// Connections at a time of all processes of one user.
    pub(crate) connections_of_uid: usize,
    /// Connections of peers at a time.
    pub(crate) peers: usize,
    /// Connections at a time of all peers with one SPIFFE ID: a bot on many hosts, or one that would leave no place to others.
    pub(crate) peers_of_id: usize,
    /// Handshakes of one source address at a time.
    pub(crate) handshakes_of_source: usize,
    /// How long a TLS handshake may take.
    pub(crate) handshake: Duration,
    /// How long an answer may be waited for while nothing of the request moves.
    pub(crate) request: Duration,
    /// How long an answer's body may stand still.
    pub(crate) answer_silence: Duration,
    /// How long calls may go on after the process was told to end.
    pub(crate) drain: Duration,
    /// How long, after that, the first request is waited for on a connection that was just taken, and another one on a
    /// connection that had one: it may be on its way.
    pub(crate) late: (Duration, Duration),
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 16_384,
            connections_of_uid: 8_192,
            peers: 8_192,
            peers_of_id: 6_144,
            handshakes_of_source: 256,
            handshake: Duration::from_secs(10),
            request: Duration::from_secs(30),
            answer_silence: Duration::from_mins(10),
            drain: Duration::from_secs(10),
            late: (Duration::from_secs(3), Duration::from_secs(1)),
        }
    }
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) host: HostName,
    /// The time of this host, which a clock set back does not set back.
    pub(crate) clock: Clock,
    pub(crate) control: Control,
    pub(crate) attestor: Attestor,
    pub(crate) ledger: Ledger,
    /// The calls whose records are written together.
    pub(crate) turn: Turn,
    pub(crate) metrics: Metrics,
    pub(crate) pool: Pool,
    pub(crate) callees: Arc<Callees>,
    pub(crate) credentials: Arc<Credentials>,
    /// Of the sessions with databases.
    pub(crate) database_keys: Arc<Keys>,
    pub(crate) local_hop: LocalHop,
    pub(crate) disclose: Disclose,
    pub(crate) secret_in_url: SecretInUrl,
    pub(crate) limits: http1::Limits,
    pub(crate) bounds: Bounds,
    /// Every task of the data path.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when no new calls are to be taken.
    pub(crate) closing: CancellationToken,
    /// Set when calls that did not end in time are cut.
    pub(crate) cutting: AtomicBool,
    /// The calls that are carried at a time.
    pub(crate) places: Arc<Places>,
    /// What bodies may fill that wait to be read.
    pub(crate) windows: Arc<Windows>,
    /// What is known of callees.
    pub(crate) upstreams: Upstreams,
    /// How often each caller called.
    pub(crate) limiter: Limiter,
    /// The calls under way.
    pub(crate) live: Arc<Live>,
}
