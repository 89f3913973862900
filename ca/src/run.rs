//! Starts the parts in order, and ends them in the reverse.

mod error;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use audit::{CosignerKey, EventKind, Ledger, LedgerConfig, Retention, Under};
use spiffe::bundle::TrustBundle;
use spiffe::id::{HostName, SpiffeId, TrustDomain};
use spiffe::time::{Clock, Timestamp};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Operators};
use crate::alerts::Alerts;
use crate::authority::{Authority, SignError};
use crate::config::Settings;
use crate::core::Core;
use crate::cosigner;
use crate::federation::{self, Endpoint, Federation};
use crate::heads::CosignedTimes;
use crate::journal::Journal;
use crate::keys::{DiskKeys, KeyUse};
use crate::mesh_file;
use crate::metrics::Metrics;
use crate::node;
use crate::observed::Observed;
use crate::quarantine::{self, Quarantines};
use crate::questions::Questions;
use crate::quota::{Messages, Quotas};
use crate::refusals::{self, Refusals};
use crate::rotation::Rotations;
use crate::server_identity::OwnIdentity;
use crate::store::{Meta, Store, StoreError, StoreThread};
use crate::watch::{self, Watching};
use crate::webhook::{Delivery, Webhook};
use crate::witness::{self, Witnesses};
use crate::world::World;
use crate::{dashboard, issue};

pub use error::RunError;

/// How long records may wait for the disk (DESIGN §3, `ledger.sync`).
const LEDGER_SYNC: Duration = Duration::from_millis(100);

/// The ledger's byte budget; an issuance is about half a KiB.
const LEDGER_BYTES_MAX: u64 = 20 << 30;

/// The bundle's only version: a root is neither added nor taken away by this version.
const BUNDLE_SEQUENCE: u64 = 1;

/// How often consumers that poll should look (SPIFFE Bundle §4.1.2).
const BUNDLE_REFRESH_HINT: Duration = Duration::from_mins(5);

/// How long connections may take to end when the CA stops.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Where the CA listens; useful when the port was 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The node API.
    pub node_api: SocketAddr,
    /// Metrics and health.
    pub dashboard: SocketAddr,
    /// The documents that verify tokens; none without `federation.listen`.
    pub federation: Option<SocketAddr>,
}

/// A CA that serves.
#[derive(Debug)]
pub struct Running {
    core: Arc<Core>,
    parts: JoinSet<()>,
    store: StoreThread,
}

/// Serves until `cancel` is cancelled.
///
/// # Errors
///
/// When the CA cannot start, or when a part of it ends by itself.
pub async fn run(settings: Settings, clock: Clock, cancel: CancellationToken) -> Result<(), RunError> {
    start(settings, clock, cancel).await?.ended().await
}

/// Starts to serve; returns once every listener accepts.
///
/// # Errors
///
/// When anything that the CA needs cannot be used.
pub async fn start(settings: Settings, clock: Clock, cancel: CancellationToken) -> Result<Running, RunError> {
    let operators = Operators::resolve(&settings.operators).map_err(|source| RunError::Operators { source })?;
    let database = settings.database.clone();
    let stored = |source| RunError::Store {
        path: database.clone(),
        source,
    };
    if !crate::keys::exists(&settings.database) {
        return Err(stored(StoreError::NotInitialised));
    }
    let (store, thread) = Store::open(&settings.database).map_err(stored)?;
    let listeners = Listeners::bind(&settings, &operators).await?;
    let (core, delivery) = build(settings, clock, cancel, store, listeners.addresses).await?;
    if let Some(federation) = &core.federation {
        let advanced = federation.advance(&core).await;
        advanced.map_err(|source| RunError::Federation { source })?;
    }
    let (identity, ends) = OwnIdentity::start(&core)
        .await
        .map_err(|source| RunError::Identity { source })?;
    let tls = node::tls_config(&core, Arc::clone(&identity)).map_err(|source| RunError::Serve { source })?;
    core.note_started();
    let mut parts = JoinSet::new();
    parts.spawn(identity.keep(Arc::clone(&core), ends));
    parts.spawn(issue::forget_ended(Arc::clone(&core)));
    parts.spawn(quarantine::end_by_time(Arc::clone(&core)));
    parts.spawn(refusals::write_counts(Arc::clone(&core)));
    parts.spawn(watch::keep(Arc::clone(&core)));
    if let Some(delivery) = delivery {
        parts.spawn(delivery.run(Arc::clone(&core)));
    }
    parts.spawn(node::serve(Arc::clone(&core), listeners.node_api, tls));
    parts.spawn(admin::serve(Arc::clone(&core), listeners.admin, operators));
    parts.spawn(dashboard::serve(Arc::clone(&core), listeners.dashboard));
    if core.witnesses.iter().len() > 0 {
        parts.spawn(witness::keep(Arc::clone(&core)));
    }
    federate(&core, listeners.federation, &mut parts);
    Ok(Running {
        core,
        parts,
        store: thread,
    })
}

/// Starts what signs tokens and lets anyone verify them, where it is configured.
fn federate(core: &Arc<Core>, listener: Option<TcpListener>, parts: &mut JoinSet<()>) {
    let Some(federation) = &core.federation else { return };
    parts.spawn(Arc::clone(federation).keep(Arc::clone(core)));
    if let Some(listener) = listener {
        parts.spawn(federation::serve(Arc::clone(core), Arc::clone(federation), listener));
        parts.spawn(federation::keep_certificate(Arc::clone(core)));
    }
}

impl Running {
    /// Where the CA listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.core.addresses
    }

    /// The socket for operators.
    #[must_use]
    pub fn admin_socket(&self) -> &Path {
        &self.core.settings.admin_socket
    }

    /// Waits for the end: connections are told, records are written, the database
    /// is closed.
    ///
    /// # Errors
    ///
    /// [`RunError::PartEnded`] when a part ended although nobody asked it to.
    pub async fn ended(mut self) -> Result<(), RunError> {
        // The first part to end is either asked to, or a fault that ends the rest.
        let first = self.parts.join_next().await;
        let asked = self.core.cancel.is_cancelled();
        if let Some(Err(error)) = first {
            tracing::error!(%error, "a part of the CA failed");
        }
        self.core.cancel.cancel();
        while self.parts.join_next().await.is_some() {}
        self.core.tasks.close();
        if tokio::time::timeout(STOP_MAX, self.core.tasks.wait()).await.is_err() {
            tracing::warn!("connections were still open when the CA stopped");
        }
        self.core
            .journal
            .note(EventKind::Stopped, "ca", &self.core.server_id(), []);
        self.core.journal.shutdown();
        if let Err(error) = std::fs::remove_file(&self.core.settings.admin_socket) {
            tracing::debug!(%error, "remove the admin socket");
        }
        drop(self.core);
        let closed = tokio::task::spawn_blocking(move || self.store.join());
        if tokio::time::timeout(STOP_MAX, closed).await.is_err() {
            tracing::warn!("the database was still in use when the CA stopped");
        }
        if asked { Ok(()) } else { Err(RunError::PartEnded) }
    }
}

struct Listeners {
    node_api: TcpListener,
    dashboard: TcpListener,
    admin: UnixListener,
    federation: Option<TcpListener>,
    addresses: Addresses,
}

impl Listeners {
    async fn bind(settings: &Settings, operators: &Operators) -> Result<Self, RunError> {
        let (node_api, node_address) = listen(settings.node_listen, "node API").await?;
        let (dashboard, dashboard_address) = listen(settings.dashboard_listen, "dashboard").await?;
        let endpoint = settings
            .federation
            .as_ref()
            .and_then(|federation| federation.endpoint.as_ref());
        let federation = match endpoint {
            Some(endpoint) => Some(listen(endpoint.listen, "federation endpoint").await?),
            None => None,
        };
        let admin = admin::bind(&settings.admin_socket, operators).map_err(|source| RunError::Socket { source })?;
        let addresses = Addresses {
            node_api: node_address,
            dashboard: dashboard_address,
            federation: federation.as_ref().map(|(_listener, address)| *address),
        };
        Ok(Self {
            node_api,
            dashboard,
            admin,
            federation: federation.map(|(listener, _address)| listener),
            addresses,
        })
    }
}

async fn listen(address: SocketAddr, what: &'static str) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Listen { address, what, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn build(
    settings: Settings,
    clock: Clock,
    cancel: CancellationToken,
    store: Store,
    addresses: Addresses,
) -> Result<(Arc<Core>, Option<Delivery>), RunError> {
    let (meta, stored) = identity_of(&settings, &store).await?;
    let keys = DiskKeys::open(&settings.key_dir, &settings.kek_file(), &settings.trust_domain)
        .map_err(|source| RunError::Keys { source })?;
    let key = keys
        .load(KeyUse::Root, &stored.key_id)
        .map_err(|source| RunError::Keys { source })?;
    let authority =
        Authority::open(&settings.trust_domain, stored.certificate, key).map_err(|source| RunError::Root { source })?;
    let bundle = Arc::new(bundle(&authority, &settings.trust_domain)?);
    let (federation, endpoint) = federation_of(&settings, keys, &store, &bundle, clock.now(), addresses).await?;
    let database = settings.database.clone();
    let failed = |source| RunError::Store {
        path: database.clone(),
        source,
    };
    let newest = store.newest_revision().await.map_err(failed)?;
    let live = mesh_file::restore(meta.epoch, newest).map_err(|source| RunError::Mesh { source })?;
    let hosts = store.hosts().await.map_err(failed)?;
    let quarantines = store.quarantines(clock.now()).await.map_err(failed)?;
    let (ledger, cosigner) = ledgers(&settings, &meta.server, &clock)?;
    let cosigned_times = CosignedTimes::new(store.heads(None).await.map_err(failed)?);
    let metrics = Metrics::new().map_err(|source| RunError::Metrics { source })?;
    let (webhook, delivery) = webhook_of(&settings, &metrics, &clock)?;
    let (signing, signing_queue) = Core::signing_permits();
    let core = Core {
        watching: Watching::new(&settings.watch, clock.now(), store.watched().await.map_err(failed)?),
        addresses,
        quarantines: Quarantines::new(meta.epoch, quarantines),
        rotations: Rotations::new(store.rotations().await.map_err(failed)?),
        questions: Arc::new(Questions::new(clock.now())),
        meta,
        started: clock.now(),
        journal: Journal::new(ledger, clock.clone()),
        cosigner: Arc::new(cosigner),
        cosigned_times,
        witnesses: Witnesses::new(settings.witnesses.clone()),
        clock,
        store,
        authority: Arc::new(authority),
        bundle,
        federation,
        endpoint,
        world: World::new(live, hosts),
        metrics,
        tasks: TaskTracker::new(),
        cancel,
        alerts: Alerts::default(),
        refusals: Refusals::default(),
        observed: Observed::default(),
        webhook,
        quotas: Quotas::default(),
        messages: Messages::default(),
        signing,
        signing_queue,
        applying: tokio::sync::Mutex::new(()),
        settings,
    };
    Ok((Arc::new(core), delivery))
}

/// Opens the way to the webhook, where one is configured.
fn webhook_of(
    settings: &Settings,
    metrics: &Metrics,
    clock: &Clock,
) -> Result<(Option<Webhook>, Option<Delivery>), RunError> {
    let Some(configured) = &settings.watch.webhook else {
        return Ok((None, None));
    };
    let opened = Webhook::open(configured, settings.credentials.as_deref(), &metrics.webhook, clock);
    let (webhook, delivery) = opened.map_err(|source| RunError::Webhook { source })?;
    Ok((Some(webhook), Some(delivery)))
}

/// Opens the CA's own ledger, and the key that cosigns those of hosts.
fn ledgers(settings: &Settings, server: &HostName, clock: &Clock) -> Result<(Ledger, CosignerKey), RunError> {
    let ledger = open_ledger(settings, server, clock).map_err(|source| RunError::Ledger { source })?;
    if let Some(epoch) = settings.ledger_epoch {
        ledger.begin_epoch(epoch.saturating_sub(1), "operator");
    }
    let cosigner = cosigner::load(&settings.cosigner_key_file(), &settings.trust_domain, server)
        .map_err(|source| RunError::Cosigner { source })?;
    Ok((ledger, cosigner))
}

/// Opens the keys for JWT-SVIDs, and the certificate of the endpoint, where they are configured.
async fn federation_of(
    settings: &Settings,
    keys: DiskKeys,
    store: &Store,
    bundle: &Arc<TrustBundle>,
    now: Timestamp,
    addresses: Addresses,
) -> Result<(Option<Arc<Federation>>, Option<Endpoint>), RunError> {
    let Some(config) = &settings.federation else {
        return Ok((None, None));
    };
    let federation = Federation::open(config.issuer.clone(), keys, store, Arc::clone(bundle), now)
        .await
        .map_err(|source| RunError::Federation { source })?;
    let endpoint = match (addresses.federation, &config.endpoint) {
        (Some(address), Some(endpoint)) => {
            Some(Endpoint::open(address, endpoint.tls.as_ref()).map_err(|source| RunError::Certificate { source })?)
        }
        (None, _) | (_, None) => None,
    };
    Ok((Some(Arc::new(federation)), endpoint))
}

async fn identity_of(settings: &Settings, store: &Store) -> Result<(Meta, crate::store::Authority), RunError> {
    let failed = |source| RunError::Store {
        path: settings.database.clone(),
        source,
    };
    let meta = store.meta().await.map_err(failed)?;
    let authority = store.authority().await.map_err(failed)?;
    let (Some(meta), Some(authority)) = (meta, authority) else {
        return Err(failed(StoreError::NotInitialised));
    };
    if meta.trust_domain != settings.trust_domain {
        let configured = settings.trust_domain.clone();
        return Err(RunError::OtherTrustDomain {
            configured,
            stored: meta.trust_domain,
        });
    }
    Ok((meta, authority))
}

fn bundle(authority: &Authority, trust_domain: &TrustDomain) -> Result<TrustBundle, RunError> {
    let root = spiffe::svid::Authority::parse(authority.certificate()).map_err(|source| RunError::Root {
        source: SignError::NotAnSvid { source },
    })?;
    TrustBundle::new(
        trust_domain.clone(),
        vec![root],
        BUNDLE_SEQUENCE,
        Some(BUNDLE_REFRESH_HINT),
    )
    .map_err(|source| RunError::Bundle { source })
}

/// Opens the CA's own ledger.
pub(crate) fn open_ledger(settings: &Settings, server: &HostName, clock: &Clock) -> Result<Ledger, audit::OpenError> {
    let config = LedgerConfig {
        dir: settings.ledger_dir(),
        key_file: settings.ledger_key_file(),
        origin: format!("{}/ca/{server}", settings.trust_domain),
        sync: LEDGER_SYNC,
        max_bytes: LEDGER_BYTES_MAX,
        // There are no calls in it, and nobody but itself to cosign it.
        retention: Some(Retention {
            calls: settings.ledger_keep,
            events: settings.ledger_keep,
            under: Under::Checkpoint,
        }),
    };
    let (ledger, report) = Ledger::open_or_begin(config, clock.clone())?;
    tracing::debug!(?report, "the ledger is open");
    if let Some(begun) = report.begun {
        let (epoch, found, aside) = (begun.epoch, begun.found, begun.set_aside.display());
        tracing::error!(epoch, found, set_aside = %aside, "the CA's ledger was not as it was left: it is put aside, and a new epoch begun");
    }
    Ok(ledger)
}

impl Core {
    /// The SPIFFE ID of this CA server.
    pub(crate) fn server_id(&self) -> String {
        SpiffeId::for_ca(self.trust_domain(), self.server()).to_string()
    }
}
