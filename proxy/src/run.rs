//! The process of the proxy: opens everything in order, serves, and ends in order.

mod aside;
mod bind;
mod descent;
mod drain;
mod error;
mod notify;
mod passed;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use audit::{EventKind, EventRecord, Ledger, LedgerConfig, Retention, Under};
use policy::Scheme;
use spiffe::id::{BotName, SpiffeId};
use spiffe::time::Clock;
use spiffe_tls::{BundleSource, ClientAuth, ServerIdentity, server_config};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin};
use crate::attest::{AttestConfig, Attestor, Helper, Mode};
use crate::bots::{self, Listeners, Source, WayIn, Ways};
use crate::call::{To, Turn};
use crate::callee::Callees;
use crate::config::Settings;
use crate::control::{Control, ControlConfig, Snapshot};
use crate::credentials::lease::{self, Leases};
use crate::credentials::{Credentials, Events, NodeIdentity, Outward, Sealer, Signer, Vaults};
use crate::hop;
use crate::http1::Limits;
use crate::limiter::Limiter;
use crate::live;
use crate::mesh;
use crate::metrics::Metrics;
use crate::outside::WayOut;
use crate::places::Places;
use crate::pool::Pool;
use crate::proxy::{Bounds, Proxy};
use crate::reproof;
use crate::rotation;
use crate::tcp::Leads;
use crate::upstream::Upstreams;
use crate::windows::Windows;
use aside::Aside;
use bind::Bound;
pub use descent::{Descent, DescentError};
pub use error::RunError;
pub use passed::{Passed, PassedError, Variables};

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(10);

/// How often the CA is told who called whom.
const TELL: Duration = Duration::from_secs(1);

/// What the service manager that started this process has for it: nothing, where there is none.
#[derive(Debug, Default)]
pub struct Manager {
    /// The sockets that it holds for the proxy.
    pub sockets: Passed,
    /// Where it wants to hear that the proxy serves: `NOTIFY_SOCKET`.
    pub notify: Option<OsString>,
}

/// Runs the proxy until `cancel`, then lets calls under way finish, for ten seconds at most.
///
/// # Errors
///
/// A [`RunError`] for whatever keeps it from starting.
pub async fn run(
    settings: Settings,
    manager: Manager,
    clock: Clock,
    descent: Option<Descent>,
    cancel: CancellationToken,
) -> Result<(), RunError> {
    let Manager { sockets, notify } = manager;
    let running = start(settings, sockets, clock, descent, cancel.clone()).await?;
    let helper = running.helper.clone();
    let gone = async {
        match &helper {
            Some(helper) => helper.gone().await,
            None => std::future::pending().await,
        }
    };
    notify::tell(notify.as_deref(), notify::READY);
    // Either is waited for and nothing else: what is lost is the wait.
    let ended = tokio::select! {
        () = cancel.cancelled() => Ok(()),
        () = gone => Err(RunError::HelperGone),
    };
    notify::tell(notify.as_deref(), notify::STOPPING);
    running.stop().await;
    ended
}

/// Starts the proxy. Listeners are taken from `passed` or bound first; a proxy that root started becomes its own user then
/// (`descent`); the ledger is opened, and the host joins or finds its identity; calls are taken from then on.
///
/// # Errors
///
/// A [`RunError`] for whatever keeps it from starting.
pub async fn start(
    settings: Settings,
    passed: Passed,
    clock: Clock,
    descent: Option<Descent>,
    cancel: CancellationToken,
) -> Result<Running, RunError> {
    bind::raise_file_limit();
    let bound = Bound::new(&settings, passed).await?;
    let helper = descent
        .map(|descent| descent.finish(&settings))
        .transpose()
        .map_err(|source| RunError::Descent { source })?;
    let attestor = attestor(helper.clone(), &clock)?;
    let ledger = open_ledger(&settings, &clock).await?;
    let config = ControlConfig::new(&settings, bound.mesh_address);
    let entries = attestor.clone();
    let told = move |new| entries.set_entries(new);
    let aside = Aside::start().map_err(|source| RunError::Aside { source })?;
    let control = Control::start(config, clock.clone(), ledger.clone(), told, cancel.clone());
    let control = aside.handle().spawn(control).await;
    let control = control.map_err(|source| RunError::Blocking { source })?;
    let control = control.map_err(|source| RunError::Control {
        source: Box::new(source),
    })?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION")).map_err(|source| RunError::Metrics { source })?;
    let (limits, tasks) = (Limits::default(), TaskTracker::new());
    let way_out = WayOut::new(settings.hosts_file.clone(), control.clock(), tasks.clone());
    let credentials = Arc::new(credentials(&settings, &control, &tasks));
    let proxy = Arc::new(Proxy {
        trust_domain: settings.trust_domain.clone(),
        host: settings.host.clone(),
        clock: control.clock(),
        control,
        attestor,
        ledger,
        turn: Turn::default(),
        metrics,
        pool: Pool::new(settings.mesh_reuse),
        callees: Arc::new(Callees::new(limits, way_out)),
        credentials,
        database_keys: Arc::default(),
        local_hop: settings.local_hop,
        disclose: settings.disclose,
        secret_in_url: settings.secret_in_url,
        limits,
        bounds: Bounds::default(),
        tasks,
        closing: cancel.child_token(),
        places: Places::new(settings.calls),
        windows: Windows::new(settings.buffered),
        upstreams: Upstreams::new(seed()?),
        limiter: Limiter::default(),
        cutting: AtomicBool::new(false),
        live: Arc::default(),
    });
    decide_again(&proxy);
    let running = serve(proxy, bound, &settings, aside)?;
    Ok(Running { helper, ..running })
}

/// Has what goes on be decided again by each new state of the mesh.
fn decide_again(proxy: &Arc<Proxy>) {
    let decided = Arc::downgrade(proxy);
    proxy.control.on_snapshot(move |snapshot| {
        let decide = |proxy: Arc<Proxy>| {
            keep_pairs(&proxy, snapshot);
            proxy.live.decide(snapshot, proxy.control.now())
        };
        decided.upgrade().map_or(0, decide)
    });
}

/// Forgets the tokens of bots that may have them no more.
fn keep_pairs(proxy: &Proxy, snapshot: &Snapshot) {
    let bots = snapshot.mesh.bots();
    let is_here = |bot: &BotName| {
        let hosts = bots.get(bot).map(|bot| &bot.hosts[..]).unwrap_or_default();
        hosts.iter().any(|pattern| pattern.matches(&proxy.host)) && !snapshot.quarantined_bots.contains(bot)
    };
    proxy
        .credentials
        .keep_pairs(&snapshot.mesh, proxy.control.now(), is_here);
}

/// What is added to calls, and what of it is said aloud.
fn credentials(settings: &Settings, control: &Control, tasks: &TaskTracker) -> Credentials {
    for (name, source) in &settings.credential_sources {
        if let crate::credentials::Source::Env(variable) = source {
            tracing::warn!(credential = %name, %variable, "a credential in the environment can be read by every process of the proxy's user");
        }
    }
    let sealer = Sealer::new(&settings.state_dir);
    let sources = settings.credential_sources.clone();
    let host = control.clone();
    let node = NodeIdentity(Arc::new(move || host.node_svid()));
    let vaults = Vaults::new(settings.vaults.clone(), &node, &control.clock());
    let ledger = control.clone();
    let events = Events::new(move |kind, subject, detail| {
        if let Err(error) = ledger.own_event(kind, subject, detail) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "what happened to a credential is not in the ledger"
            );
        }
    });
    let leases = Leases::new(vaults, &settings.state_dir, control.clock(), tasks.clone()).telling(events);
    let outward = Outward {
        way_out: WayOut::new(settings.hosts_file.clone(), control.clock(), tasks.clone()),
        clock: control.clock(),
        signer: signer(control),
    };
    Credentials::new(
        sources,
        (sealer, settings.environment, Arc::new(leases)),
        outward,
        settings.credential_times,
        tasks.clone(),
    )
}

/// The CA, as who signs for bots of this host.
fn signer(control: &Control) -> Signer {
    let control = control.clone();
    Signer(Arc::new(move |bot, audience| {
        let control = control.clone();
        Box::pin(async move { control.mint_jwt(&bot, &audience).await })
    }))
}

/// Where the choice among endpoints begins, so that the proxies of a mesh do not choose alike.
fn seed() -> Result<u64, RunError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_unspecified| RunError::Randomness)?;
    Ok(u64::from_be_bytes(bytes))
}

/// Makes what names callers, and says aloud where less is kept apart than can be.
fn attestor(helper: Option<Helper>, clock: &Clock) -> Result<Attestor, RunError> {
    let config = AttestConfig::default();
    let attestor = match helper {
        Some(helper) => Attestor::with_helper(helper, config.watch_every),
        None => Attestor::new(config, clock.clone()),
    };
    let attestor = attestor.map_err(|source| RunError::Attest { source })?;
    if attestor.mode() == Mode::SameUser {
        tracing::warn!("not root: identities among processes of one user are a convenience here, not a boundary");
    } else if nix::unistd::geteuid().is_root() {
        tracing::warn!(
            "user: root: the part of this proxy that reads strangers' requests may do everything on this host"
        );
    }
    Ok(attestor)
}

/// A proxy that serves.
#[derive(Debug)]
pub struct Running {
    proxy: Arc<Proxy>,
    /// Looks into processes, where this one may not.
    helper: Option<Helper>,
    addresses: BTreeMap<String, String>,
    aside: Aside,
}

impl Running {
    /// Returns where it listens: `bots`, `bots_socket`, `mesh`, `admin`, `metrics`, and `listener N` for each of
    /// `listeners:`, from 0.
    #[must_use]
    pub const fn addresses(&self) -> &BTreeMap<String, String> {
        &self.addresses
    }

    /// Takes no more connections, lets calls under way finish, for ten seconds at most, cuts the rest, and closes the
    /// ledger.
    pub async fn stop(self) {
        let Self { proxy, aside, .. } = self;
        drain::drain(&proxy).await;
        proxy.credentials.leases().close().await;
        event(&proxy, EventKind::Stopped);
        let ledger = proxy.ledger.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || ledger.shutdown()).await {
            tracing::error!(%error, "the ledger was not closed");
        }
        drop(aside);
    }
}

/// Starts every listener's task, and those that look after connections.
fn serve(proxy: Arc<Proxy>, bound: Bound, settings: &Settings, aside: Aside) -> Result<Running, RunError> {
    let identity: Arc<dyn ServerIdentity> = Arc::new(proxy.control.clone());
    let bundle: Arc<dyn BundleSource> = Arc::new(proxy.control.clone());
    let tls = server_config(
        identity,
        bundle,
        ClientAuth::Required,
        &proxy.clock,
        &[hop::ALPN, reproof::ALPN, b"h2", b"http/1.1"],
    )
    .map_err(|source| RunError::Tls { source })?;
    let Bound {
        shared,
        fixed,
        mesh,
        admin: socket,
        metrics,
        addresses,
        ..
    } = bound;
    let admin = Arc::new(Admin {
        operators: admin::uids(&settings.operators),
        allow_run: settings.allow_run,
        listeners: addresses.clone(),
        ledger: settings.ledger_dir.display().to_string(),
        state_dir: settings.state_dir.display().to_string(),
        http_proxy: addresses
            .get("bots")
            .map(|bots| format!("http://{bots}"))
            .unwrap_or_default(),
    });
    let own_sockets = settings.bots_socket.with_file_name("bots");
    serve_bots(&proxy, shared, fixed, own_sockets);
    drop(proxy.tasks.spawn(mesh::serve(Arc::clone(&proxy), mesh, tls)));
    serve_aside(&proxy, aside.handle(), admin, (socket, metrics)).map_err(|source| RunError::Aside { source })?;
    event(&proxy, EventKind::Started);
    tracing::info!(host = %proxy.host, ?addresses, "serving");
    Ok(Running {
        proxy,
        helper: None,
        addresses,
        aside,
    })
}

/// Starts what is not on the path of a call.
fn serve_aside(
    proxy: &Arc<Proxy>,
    aside: &Handle,
    admin: Arc<Admin>,
    (socket, metrics): (UnixListener, TcpListener),
) -> std::io::Result<()> {
    // Taken from the runtime of the calls, so that nothing that happens on them wakes it.
    let (socket, metrics) = (socket.into_std()?, metrics.into_std()?);
    let _aside = aside.enter();
    let (socket, metrics) = (UnixListener::from_std(socket)?, TcpListener::from_std(metrics)?);
    let tasks = &proxy.tasks;
    drop(tasks.spawn_on(admin::serve(Arc::clone(proxy), admin, socket), aside));
    drop(tasks.spawn_on(admin::serve_health(Arc::clone(proxy), metrics), aside));
    drop(tasks.spawn_on(sweep(Arc::clone(proxy)), aside));
    drop(tasks.spawn_on(tell_edges(Arc::clone(proxy)), aside));
    drop(tasks.spawn_on(lease::keep(Arc::clone(proxy)), aside));
    drop(tasks.spawn_on(live::watch_time(Arc::clone(proxy)), aside));
    drop(tasks.spawn_on(rotation::run(Arc::clone(proxy)), aside));
    let (attestor, closing) = (proxy.attestor.clone(), proxy.closing.clone());
    drop(tasks.spawn_on(async move { attestor.watch(closing).await }, aside));
    Ok(())
}

fn serve_bots(proxy: &Arc<Proxy>, shared: Vec<(Source, &'static str)>, fixed: Vec<(Source, Leads)>, own: PathBuf) {
    let listeners = Arc::new(Listeners::default());
    let serve = |source, ways, name| {
        drop(proxy.tasks.spawn(bots::serve(
            Arc::clone(proxy),
            Arc::clone(&listeners),
            source,
            ways,
            name,
        )));
    };
    for (source, name) in shared {
        let own = source.address();
        let way = WayIn::Shared {
            trust_domain: proxy.trust_domain.clone(),
            own,
        };
        serve(source, Ways::Http(Arc::new(way)), name);
    }
    let own_sockets = bots::serve_own(Arc::clone(proxy), Arc::clone(&listeners), own);
    drop(proxy.tasks.spawn(own_sockets));
    for (source, leads) in fixed {
        let own = source.address();
        let ways = match (leads.tcp, &leads.to) {
            (None, To::Outside(to)) if to.outside.scheme() == Scheme::Postgres => Ways::Postgres(Arc::clone(to)),
            (Some(_), _) => Ways::Tcp(Arc::new(leads)),
            (None, _) => Ways::Http(Arc::new(WayIn::Fixed { own, to: leads.to })),
        };
        serve(source, ways, "listener");
    }
}

/// Ends idle connections, until the proxy closes.
async fn sweep(proxy: Arc<Proxy>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // A tick that is lost is the last one.
        tokio::select! {
            () = proxy.closing.cancelled() => return,
            _tick = ticks.tick() => {}
        }
        proxy.callees.sweep();
        keep_pairs(&proxy, &proxy.control.snapshot());
        proxy.credentials.sweep();
        proxy
            .limiter
            .sweep(&proxy.control.snapshot().policy, proxy.control.now());
        proxy.pool.sweep(proxy.control.now());
        let snapshot = proxy.control.snapshot();
        proxy.places.sweep(&snapshot.mesh);
        proxy.upstreams.sweep(&snapshot.mesh);
    }
}

/// Tells the CA who called whom, until the proxy closes.
async fn tell_edges(proxy: Arc<Proxy>) {
    let mut ticks = tokio::time::interval(TELL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // A tick that is lost is the last one.
        tokio::select! {
            () = proxy.closing.cancelled() => return,
            _tick = ticks.tick() => {}
        }
        let snapshot = proxy.control.snapshot();
        proxy.metrics.note_uses(&snapshot.mesh, proxy.control.now());
        let edges = proxy.metrics.edges();
        if !edges.is_empty() {
            proxy.control.send_edges(edges);
        }
    }
}

async fn open_ledger(settings: &Settings, clock: &Clock) -> Result<Ledger, RunError> {
    let config = LedgerConfig {
        dir: settings.ledger_dir.clone(),
        key_file: settings.ledger_key_file(),
        origin: format!("{}/host/{}", settings.trust_domain, settings.host),
        sync: settings.ledger_sync,
        max_bytes: settings.ledger_max_bytes,
        retention: Some(Retention {
            calls: settings.ledger_keep,
            events: settings.ledger_keep_events,
            under: Under::Cosigned,
        }),
    };
    let (dir, clock) = (settings.ledger_dir.clone(), clock.clone());
    let state_dir = settings.state_dir.clone();
    let opening = move || {
        bind::private_dir(&state_dir)?;
        if let Some(parent) = config.dir.parent() {
            bind::private_dir(parent)?;
        }
        Ledger::open_or_begin(config, clock).map_err(|source| RunError::Ledger { dir, source })
    };
    let opened = tokio::task::spawn_blocking(opening)
        .await
        .map_err(|source| RunError::Blocking { source })?;
    let (ledger, report) = opened?;
    tracing::info!(?report, "opened the ledger");
    if let Some(begun) = report.begun {
        let (epoch, found, aside) = (begun.epoch, begun.found, begun.set_aside.display());
        tracing::error!(epoch, found, set_aside = %aside, "the ledger was not as it was left: it is put aside, and a new epoch begun");
    }
    Ok(ledger)
}

fn event(proxy: &Proxy, kind: EventKind) {
    let record = EventRecord {
        kind,
        time: proxy.control.now(),
        actor: format!("host:{}", proxy.host),
        subject: SpiffeId::for_host(&proxy.trust_domain, &proxy.host).to_string(),
        detail: BTreeMap::from([("version".to_owned(), env!("CARGO_PKG_VERSION").into())]),
    };
    if let Err(error) = proxy.ledger.event(&record) {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "an event is missing in the ledger"
        );
    }
}
