//! The control side: who this host is, what it may know, and the SVIDs of its bots.
//!
//! [`Control::start`] joins the CA where this host has not joined yet, and then
//! keeps one stream to it. From the stream come the host's slice of the mesh file,
//! the trust bundle, endpoints and quarantines; each becomes part of the next
//! [`Snapshot`], whole, checked and only upward, and what is refused changes
//! nothing. Beside the stream the SVIDs of this host's bots are kept warm.
//!
//! While the CA is away everything goes on with what was heard last: calls are
//! decided by the last policy, SVIDs are used to their end, and then
//! [`Control::svid`] gives none. A restart finds slice, bundle, endpoints and the
//! bots' SVIDs with their keys on disk, and carries calls at once. Where the CA was
//! not heard for `max_policy_age` its policy may be another by now, and no call is
//! carried until it is heard again.
//!
//! Time: the time of a host never goes back, except where a verified CA and the wall
//! clock agree that it was ahead (`control/time.rs`). Waits for the ends of SVIDs
//! follow it. Network timeouts and the waits between attempts follow the monotonic
//! clock of the system: a clock that stands still must not keep a host from its CA.

mod ask;
mod backoff;
mod cache;
mod cosign;
mod counts;
mod dial;
mod issue;
mod join;
mod link;
mod mint;
mod node;
mod orders;
mod path_key;
mod quarantine;
mod rotation;
mod shared;
mod snapshot;
mod state_dir;
mod status;
mod stream;
mod svids;
mod time;
mod up;
mod upkeep;
mod vault;
mod witness;

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audit::Ledger;
use ca_api::node::{CredentialReport, Edge};
use ca_api::proxy_admin::TokenLook;
use rustls::sign::CertifiedKey;
use spiffe::bundle::TrustBundle;
use spiffe::entry::Entry;
use spiffe::id::{BotName, HostName, SpiffeId, TrustDomain};
use spiffe::time::{Clock, Timestamp};
use spiffe_tls::{BundleSource, KeyError, ServerIdentity, Svid, TlsError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{CaAddress, Settings};
use crate::credentials::Sealer;
use path_key::PathKey;
use shared::{OnEntries, OnSnapshot, Parts, Shared};

pub(crate) use counts::{CosignedHead, Counted};
pub use dial::DialError;
pub use join::JoinError;
pub(crate) use mint::{JwtSvid, MintError};
pub(crate) use orders::{Order, Orders};
pub use quarantine::{LOCAL_MAX, LocalError, LocalList};
pub use snapshot::{BundleRefusal, FirstError, SliceError, Snapshot};
pub use state_dir::StateError;
pub use status::{ControlStatus, LinkStatus, Missing, Readiness};
pub use svids::{BOTS_MAX, SvidStatus};

/// What the control side needs to know.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// This host.
    pub host: HostName,
    /// Where the node key and the cache are.
    pub state_dir: PathBuf,
    /// The CA servers, in the order to try.
    pub ca_addresses: Vec<CaAddress>,
    /// Holds a join token, perhaps.
    pub token_file: PathBuf,
    /// Where other hosts reach this one's mesh side.
    pub advertise: Advertise,
    /// How long the CA may be unheard before no call is carried.
    pub max_policy_age: Duration,
    /// Opens values that come sealed to this host.
    pub sealer: Sealer,
}

/// Where other hosts reach this one's mesh side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advertise {
    /// At this address.
    Address(SocketAddr),
    /// At the address that the stream to the CA comes from, and this port.
    SourceAddress(u16),
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::SourceAddress(port) => write!(f, ":{port}"),
        }
    }
}

impl ControlConfig {
    /// Takes what is needed from the settings. `mesh_bound` is the address that the
    /// mesh listener was bound to, whose port may have been chosen by the kernel.
    #[must_use]
    pub fn new(settings: &Settings, mesh_bound: SocketAddr) -> Self {
        let bound = || {
            if mesh_bound.ip().is_unspecified() {
                Advertise::SourceAddress(mesh_bound.port())
            } else {
                Advertise::Address(mesh_bound)
            }
        };
        Self {
            trust_domain: settings.trust_domain.clone(),
            host: settings.host.clone(),
            state_dir: settings.state_dir.clone(),
            ca_addresses: settings.ca_addresses.clone(),
            token_file: settings.token_file.clone(),
            advertise: settings.mesh_advertise.map_or_else(bound, Advertise::Address),
            max_policy_age: settings.max_policy_age,
            sealer: Sealer::new(&settings.state_dir),
        }
    }
}

/// Why the control side did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This host could not join, and asking again would not help.
    #[error("this host cannot join")]
    Join {
        /// Why.
        #[source]
        source: JoinError,
    },
    /// The proxy was told to stop while it waited to join.
    #[error("stopped while waiting to join")]
    Cancelled,
    /// The state directory cannot be used.
    #[error("use the state directory")]
    State {
        /// Why.
        #[source]
        source: StateError,
    },
    /// The node key that was kept is not usable.
    #[error("read the node key in {}", path.display())]
    NodeKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The node SVID that was kept is not usable.
    #[error("read the node SVID in {}", path.display())]
    NodeSvid {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// The state directory belongs to another host.
    #[error("{} holds the SVID of {kept}; proxy.yaml says that this host is {host}", path.display())]
    OtherHost {
        /// The file.
        path: PathBuf,
        /// Whose SVID it holds.
        kept: SpiffeId,
        /// `host`.
        host: HostName,
    },
    /// Not even the empty policy could be made.
    #[error("begin with an empty policy")]
    First {
        /// Why.
        #[source]
        source: FirstError,
    },
}

/// The control side. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl Control {
    /// Finds out who this host is and begins to listen to the CA.
    ///
    /// Where this host has not joined yet, returns once it has: an unreachable CA
    /// is waited for, and said. Where it has, returns at once with what was kept,
    /// CA or no CA. `on_entries` is called with the entries of each slice before
    /// the slice is in force. Everything ends when `cancel` is cancelled.
    ///
    /// # Errors
    ///
    /// A [`StartError`] that needs an operator: no token, a token that the CA
    /// refuses or that is another host's, a server that is not the CA, a state
    /// directory that cannot be used or that is another host's.
    pub async fn start(
        config: ControlConfig,
        clock: Clock,
        ledger: Ledger,
        on_entries: impl Fn(Arc<[Entry]>) + Send + Sync + 'static,
        cancel: CancellationToken,
    ) -> Result<Self, StartError> {
        let files =
            state_dir::StateDir::open(config.state_dir.clone()).map_err(|source| StartError::State { source })?;
        let (up, reader) = up::queue();
        let on_entries = OnEntries(Box::new(on_entries));
        let shared = Arc::new(Shared::new(Parts {
            config,
            clock,
            ledger,
            files,
            up,
            on_entries,
        })?);
        cache::local_quarantines(&shared).map_err(|source| StartError::State { source })?;
        cache::load(&shared);
        node::find(&shared)?;
        // A node SVID without a bundle cannot know its CA, so it cannot be renewed.
        if shared.node().is_none() || shared.snapshot().bundle.authorities().is_empty() {
            tokio::select! {
                () = cancel.cancelled() => return Err(StartError::Cancelled),
                joined = node::join_first(&shared) => joined.map_err(|source| StartError::Join { source })?,
            }
        }
        vault::load(&shared);
        cosign::count_kept(&shared).await;
        let tasks = TaskTracker::new();
        tasks.spawn(upkeep::run(Arc::clone(&shared), cancel.clone()));
        tasks.spawn(link::run(Arc::clone(&shared), reader, cancel));
        tasks.close();
        Ok(Self { shared, tasks })
    }

    /// Has the CA sign a JWT-SVID of a bot of this host for one audience.
    pub(crate) async fn mint_jwt(&self, bot: &BotName, audience: &str) -> Result<JwtSvid, MintError> {
        mint::mint(&self.shared, bot, audience).await
    }

    /// The key by which paths are hashed that are not to be written.
    pub(crate) fn path_key(&self) -> &PathKey {
        &self.shared.path_key
    }

    /// Waits until everything has ended that [`Control::start`] began.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }

    /// What this host knows of the mesh at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot()
    }

    /// What is known now, where that is not `known` any more; a look that copies nothing when it still is.
    pub(crate) fn newer_than(&self, known: &Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        self.shared.newer_than(known)
    }

    /// Has `decide` told each [`Snapshot`] from now on, as soon as it is in force and before anybody hears that it is:
    /// it decides the calls under way again, and says how many it ended. Set once.
    pub(crate) fn on_snapshot(&self, decide: impl Fn(&Snapshot) -> u64 + Send + Sync + 'static) {
        self.shared.set_on_snapshot(OnSnapshot(Box::new(decide)));
    }

    /// Changes with each new [`Snapshot`].
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.snapshots()
    }

    /// Changes with anything that [`Control::status`] and [`Control::ready`] show.
    #[must_use]
    pub fn status_changed(&self) -> watch::Receiver<u64> {
        self.shared.touched()
    }

    /// The time of this host, which a clock set back does not set back. Decisions
    /// are made at this time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.time.now()
    }

    /// The clock that shows [`Control::now`]: what a peer proved ends by it.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.time.clock().clone()
    }

    /// Whether the CA was not heard for so long that no call is carried at `now`.
    #[must_use]
    pub fn policy_too_old(&self, now: Timestamp) -> bool {
        self.shared.too_old(now)
    }

    /// The SVID of a bot of this host; `None` where none is valid now.
    #[must_use]
    pub fn svid(&self, bot: &BotName) -> Option<Arc<Svid>> {
        self.shared.svids.valid(bot, self.now())
    }

    /// What this host itself is known by; `None` where it has no SVID that is valid now.
    #[must_use]
    pub(crate) fn node_svid(&self) -> Option<Arc<CertifiedKey>> {
        let node = self.shared.node()?;
        (self.now() < node.svid.leaf().not_after()).then(|| node.svid.certified_key())
    }

    /// Changes whenever a bot of this host got or lost an SVID.
    #[must_use]
    pub fn svids_changed(&self) -> watch::Receiver<u64> {
        self.shared.svids.changes()
    }

    /// The SVID that a peer asks for by a server name; `None` where no bot of this
    /// host has that name and a valid SVID.
    #[must_use]
    pub fn svid_by_name(&self, sni: &str) -> Option<Arc<Svid>> {
        self.shared.svids.by_label(sni, self.now())
    }

    /// What this host lacks to carry its calls.
    #[must_use]
    pub fn ready(&self) -> Readiness {
        let mut missing = Vec::new();
        let link = self.shared.link().clone();
        if link.evicted {
            missing.push(Missing::Evicted);
        }
        let now = self.now();
        match self.shared.time.last_heard() {
            None => missing.push(Missing::CaNotHeard),
            Some(heard) if self.shared.too_old(now) => missing.push(Missing::PolicyTooOld {
                heard,
                max: self.shared.config.max_policy_age,
            }),
            Some(_) => {}
        }
        if !self.snapshot().has_slice() {
            missing.push(Missing::Slice);
        }
        if self.shared.time.skewed() {
            missing.push(Missing::ClockSkew);
        }
        let (without, beyond) = self.shared.svids.missing(now);
        missing.extend(without.into_iter().map(Missing::Svid));
        if beyond > 0 {
            missing.push(Missing::TooManyBots(beyond));
        }
        Readiness { missing }
    }

    /// Uses the join token once more, where its file is still there; see [`TokenLook`].
    pub async fn replay_token(&self) -> Option<TokenLook> {
        node::replay(&self.shared).await
    }

    /// How the control side is.
    #[must_use]
    pub fn status(&self) -> ControlStatus {
        let (snapshot, node, now) = (self.snapshot(), self.shared.node(), self.now());
        let (edges_dropped, events_dropped) = self.shared.up.dropped();
        ControlStatus {
            trust_domain: snapshot.trust_domain.clone(),
            host: snapshot.host.clone(),
            now,
            generation: snapshot.has_slice().then_some(snapshot.generation),
            bundle_sequence: snapshot.bundle.sequence(),
            link: self.shared.link().clone(),
            node_not_after: node.as_ref().map(|node| node.svid.leaf().not_after()),
            node_renew_at: node.as_ref().map(|node| node.renew_at),
            svids: self.shared.svids.status(now),
            svids_file: self.shared.files.svids_file(),
            ca_heard: self.shared.time.last_heard(),
            edges_dropped,
            events_dropped,
        }
    }

    /// Sends aggregated calls up to the CA. Never waits: what does not fit is
    /// dropped, and its count goes up instead.
    pub fn send_edges(&self, edges: Vec<Edge>) {
        self.shared.up.edges(edges);
    }

    /// Sends a refusal or an alert up to the CA; `json` is one JSON object. Never
    /// waits: what does not fit is dropped, and its count goes up instead.
    pub fn send_event(&self, kind: impl Into<String>, json: impl Into<String>) {
        self.shared.up.event(kind.into(), json.into(), self.now());
    }

    /// Counts an event that is not sent, because there are too many: the count goes up.
    pub fn leave_out_event(&self) {
        self.shared.up.leave_out_event();
    }

    /// What the CA wants done with new values of credentials; changes with each word of it, also with one said again.
    pub(crate) fn orders(&self) -> watch::Receiver<Orders> {
        self.shared.orders.watch()
    }

    /// Says to the CA how far such an order is: the newest word about each credential, as soon as there is a stream.
    pub(crate) fn report_order(&self, report: CredentialReport) {
        self.shared.orders.report(report);
    }
}

impl ServerIdentity for Control {
    fn resolve(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.svid_by_name(sni?).map(|svid| svid.certified_key())
    }
}

impl BundleSource for Control {
    fn current(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.snapshot().bundle)
    }
}

/// The messages of an error and of all that caused it, for the operator.
pub(crate) fn chain_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
