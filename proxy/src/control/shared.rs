//! What the link to the CA writes and everybody reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use audit::{EventKind, EventRecord, Ledger, LedgerError};
use ca_api::node::node_client::NodeClient;
use serde_json::Value;
use spiffe::entry::Entry;
use spiffe::id::SpiffeId;
use spiffe::svid::Leaf;
use spiffe::time::{Clock, Timestamp};
use spiffe_tls::Svid;
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;

use super::ask::Questions;
use super::counts::Counts;
use super::dial::Dialer;
use super::orders::OrderBook;
use super::path_key::PathKey;
use super::quarantine::LocalList;
use super::snapshot::{Change, OfferedSlice, SliceError, Snapshot};
use super::state_dir::{StateDir, StateError};
use super::status::LinkStatus;
use super::svids::SvidStore;
use super::time::{Compared, HostTime, Skew};
use super::up::UpQueue;
use super::{ControlConfig, StartError, upkeep};

/// The state. The link, whoever renews the node SVID and operators of this host change it, one at a time; readers take what
/// is there.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ControlConfig,
    /// The wall clock, for the link to the CA only; everything else goes by `time`.
    pub(super) clock: Clock,
    pub(super) time: HostTime,
    pub(super) files: StateDir,
    pub(super) dialer: Dialer,
    pub(super) svids: SvidStore,
    /// Rings when the set of bots has changed.
    pub(super) svids_wanted: Notify,
    pub(super) up: UpQueue,
    pub(super) counts: Counts,
    pub(super) orders: OrderBook,
    pub(super) questions: Questions,
    pub(super) ledger: Ledger,
    pub(super) path_key: PathKey,
    on_entries: OnEntries,
    node: ArcSwapOption<Node>,
    snapshot: ArcSwap<Snapshot>,
    snapshots: watch::Sender<u64>,
    touched: watch::Sender<u64>,
    link: Mutex<LinkStatus>,
    /// The CA, while the stream is up.
    client: Mutex<Option<NodeClient<Channel>>>,
    local: ArcSwap<LocalList>,
    /// One change of the quarantines of this host at a time.
    pub(super) changing_local: tokio::sync::Mutex<()>,
    /// The link publishes, and so does an operator who quarantines on this host.
    publishing: Mutex<()>,
    on_snapshot: OnceLock<OnSnapshot>,
}

/// Is told each snapshot that is in force, before anybody hears that it is; says how many calls that ended.
pub(super) struct OnSnapshot(pub(super) Box<dyn Fn(&Snapshot) -> u64 + Send + Sync>);

impl fmt::Debug for OnSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnSnapshot")
    }
}

/// The node SVID.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) svid: Svid,
    pub(super) renew_at: Timestamp,
}

/// Is told the entries of each slice, before the slice is in force.
pub(super) struct OnEntries(pub(super) Box<dyn Fn(Arc<[Entry]>) + Send + Sync>);

impl fmt::Debug for OnEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEntries")
    }
}

/// What [`Shared::new`] is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) config: ControlConfig,
    pub(super) clock: Clock,
    pub(super) ledger: Ledger,
    pub(super) files: StateDir,
    pub(super) up: UpQueue,
    pub(super) on_entries: OnEntries,
}

impl Shared {
    /// Begins with nothing, except the time, which never goes back.
    pub(super) fn new(parts: Parts) -> Result<Self, StartError> {
        let Parts {
            config,
            clock,
            ledger,
            files,
            up,
            on_entries,
        } = parts;
        let saved = files.time().unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the time that was kept is not used"
            );
            None
        });
        let path_key = PathKey::load(&files).map_err(|source| StartError::State { source })?;
        let first = Snapshot::first(config.trust_domain.clone(), config.host.clone())
            .map_err(|source| StartError::First { source })?;
        Ok(Self {
            time: HostTime::new(clock.clone(), saved),
            dialer: Dialer::new(config.ca_addresses.clone()),
            svids: SvidStore::new(config.trust_domain.clone()),
            svids_wanted: Notify::new(),
            counts: Counts::default(),
            orders: OrderBook::default(),
            questions: Questions::default(),
            node: ArcSwapOption::empty(),
            snapshot: ArcSwap::from_pointee(first),
            snapshots: watch::Sender::new(0),
            touched: watch::Sender::new(0),
            link: Mutex::default(),
            client: Mutex::default(),
            local: ArcSwap::default(),
            changing_local: tokio::sync::Mutex::new(()),
            publishing: Mutex::new(()),
            on_snapshot: OnceLock::new(),
            path_key,
            config,
            clock,
            files,
            up,
            ledger,
            on_entries,
        })
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(super) fn newer_than(&self, known: &Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        let now = self.snapshot.load();
        (!Arc::ptr_eq(&now, known)).then(|| Arc::clone(&now))
    }

    pub(super) fn snapshots(&self) -> watch::Receiver<u64> {
        self.snapshots.subscribe()
    }

    pub(super) fn touched(&self) -> watch::Receiver<u64> {
        self.touched.subscribe()
    }

    /// Says that something which [`super::Control::status`] shows has changed.
    pub(super) fn touch(&self) {
        self.touched.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn node(&self) -> Option<Arc<Node>> {
        self.node.load_full()
    }

    pub(super) fn set_node(&self, node: Option<Node>) {
        self.node.store(node.map(Arc::new));
        self.touch();
    }

    /// A holder of the lock writes whole values, so one that panicked left a valid one.
    pub(super) fn link(&self) -> MutexGuard<'_, LinkStatus> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The CA, for whoever asks it something beside the stream; nothing while there is no stream.
    pub(super) fn client(&self) -> Option<NodeClient<Channel>> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.clone()
    }

    pub(super) fn set_client(&self, client: Option<NodeClient<Channel>>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// Makes the next moment of the present one and puts it into force: first the entries, then the policy, then bots
    /// that have left lose their SVIDs. Nobody else changes anything meanwhile, so nothing that was in force is lost.
    /// Says how many calls that ended; nothing where there was no news.
    ///
    /// # Errors
    ///
    /// As `make`'s; then nothing has changed.
    pub(super) fn change<E>(&self, make: impl FnOnce(&Snapshot) -> Result<Change, E>) -> Result<Option<u64>, E> {
        let publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match make(&self.snapshot())? {
            Change::Next(next) => Some(self.publish_one_at_a_time(*next, &publishing)),
            Change::Known => None,
        })
    }

    /// As [`Self::change`], where there is news in any case.
    pub(super) fn publish(&self, make: impl FnOnce(&Snapshot) -> Snapshot) -> u64 {
        let publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        self.publish_one_at_a_time(make(&self.snapshot()), &publishing)
    }

    /// Puts these quarantines of this host into force. Says how many calls that ended.
    pub(super) fn set_local(&self, list: LocalList) -> u64 {
        let publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        self.local.store(Arc::new(list));
        self.publish_one_at_a_time((*self.snapshot()).clone(), &publishing)
    }

    /// The quarantines of this host.
    pub(super) fn local(&self) -> Arc<LocalList> {
        self.local.load_full()
    }

    pub(super) fn set_on_snapshot(&self, told: OnSnapshot) {
        if self.on_snapshot.set(told).is_err() {
            tracing::error!("the calls under way are decided by the first who asked to");
        }
    }

    fn publish_one_at_a_time(&self, next: Snapshot, _publishing: &MutexGuard<'_, ()>) -> u64 {
        let next = next.with_local(self.local());
        let same_mesh = Arc::ptr_eq(&self.snapshot().mesh, &next.mesh);
        let bots: BTreeSet<_> = next.claimable().cloned().collect();
        if !same_mesh {
            (self.on_entries.0)(Arc::clone(&next.entries));
        }
        let was_quarantined = Arc::clone(&self.snapshot().quarantined_bots);
        let next = Arc::new(next);
        self.snapshot.store(Arc::clone(&next));
        let cut = self.on_snapshot.get().map_or(0, |told| (told.0)(&next));
        if !was_quarantined.is_subset(&next.quarantined_bots) {
            // Whoever was released is asked for at once.
            self.svids_wanted.notify_one();
        }
        if !same_mesh {
            self.svids.keep_only(&bots);
            self.svids_wanted.notify_one();
        }
        self.snapshots.send_modify(|count| *count = count.wrapping_add(1));
        self.touch();
        cut
    }

    /// Reads a slice away from the threads that serve calls: a large one takes a while.
    pub(super) async fn read_slice(&self, offered: &OfferedSlice) -> Result<Change, SliceError> {
        let (now, slice) = (self.snapshot(), offered.clone());
        match tokio::task::spawn_blocking(move || now.with_slice(&slice)).await {
            Ok(read) => read,
            Err(error) => Err(SliceError::Load {
                offered: offered.generation,
                diagnostics: error.to_string(),
            }),
        }
    }

    /// Writes what a restart needs, and says whether it did. Without it the restart
    /// needs the CA, and nothing else is lost.
    pub(super) async fn keep(&self, write: impl FnOnce(&StateDir) -> Result<(), StateError> + Send + 'static) -> bool {
        let files = self.files.clone();
        match tokio::task::spawn_blocking(move || write(&files)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "not kept for a restart");
            }
            Err(error) => tracing::warn!(%error, "not kept for a restart"),
        }
        false
    }

    /// Whether the CA was not heard for so long that its policy may be another by now.
    pub(super) fn too_old(&self, now: Timestamp) -> bool {
        let heard = self.time.last_heard();
        heard.is_none_or(|heard| now.duration_since(heard) > self.config.max_policy_age)
    }

    /// Takes the time of the CA into account and says it when the clocks differ.
    pub(super) async fn heard_time(&self, ca: Timestamp) {
        let Compared { skew, was } = self.time.heard(ca);
        let wall = self.clock.now();
        match skew {
            Skew::Begun => {
                tracing::warn!(%wall, %ca, "the clock of this host is far from the CA's");
                self.alert_time("clock_skew", wall, ca);
            }
            Skew::Ended => tracing::info!("the clock of this host is near the CA's again"),
            Skew::Fine | Skew::Still => {}
        }
        if let Some(was) = was {
            tracing::warn!(%was, %ca, "the time of this host was ahead; the CA has set it right");
            self.alert_time("time_set_back", was, ca);
        }
        if was.is_some() || matches!(skew, Skew::Begun | Skew::Ended) {
            self.touch();
        }
        if let Some(time) = self.time.to_save() {
            self.keep(move |files| files.save_time(&time)).await;
        }
    }

    fn alert_time(&self, what: &str, here: Timestamp, ca: Timestamp) {
        let detail = [("here", here), ("ca", ca)].map(|(name, time)| (name.to_owned(), Value::from(time.to_string())));
        upkeep::alert(self, what, detail.into());
    }

    /// Forgets who this host was: the CA has evicted it.
    pub(super) async fn evicted(&self) -> Result<(), StartError> {
        tracing::error!("the CA has evicted this host: it drops its identities and needs a new join token");
        self.set_node(None);
        self.link().evicted = true;
        let nothing = Snapshot::first(self.config.trust_domain.clone(), self.config.host.clone())
            .map_err(|source| StartError::First { source })?;
        self.publish(|now| nothing.with_bundle_of(now));
        self.record(EventKind::HostEvicted, self.node_id().to_string(), BTreeMap::new());
        self.keep(StateDir::forget).await;
        Ok(())
    }

    pub(super) fn node_id(&self) -> SpiffeId {
        SpiffeId::for_host(&self.config.trust_domain, &self.config.host)
    }

    /// Records an event that happened whether it can be recorded or not.
    pub(super) fn record(&self, kind: EventKind, subject: String, detail: BTreeMap<String, Value>) {
        if let Err(error) = self.event(kind, subject, detail) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an event is missing in the ledger"
            );
        }
    }

    /// Records an SVID before it is used.
    pub(super) fn record_svid(&self, kind: EventKind, leaf: &Leaf) -> Result<(), LedgerError> {
        let detail = BTreeMap::from([
            ("serial".to_owned(), Value::from(leaf.serial().to_string())),
            ("not_before".to_owned(), Value::from(leaf.not_before().to_string())),
            ("not_after".to_owned(), Value::from(leaf.not_after().to_string())),
        ]);
        self.event(kind, leaf.id().to_string(), detail)
    }

    /// Records what this host did.
    pub(super) fn event(
        &self,
        kind: EventKind,
        subject: String,
        detail: BTreeMap<String, Value>,
    ) -> Result<(), LedgerError> {
        self.event_by(kind, format!("host:{}", self.config.host), subject, detail)
    }

    /// Records what somebody did.
    pub(super) fn event_by(
        &self,
        kind: EventKind,
        actor: String,
        subject: String,
        detail: BTreeMap<String, Value>,
    ) -> Result<(), LedgerError> {
        let record = EventRecord {
            kind,
            time: self.time.now(),
            actor,
            subject,
            detail,
        };
        // The receipt permits nothing here: an event is not a call.
        self.ledger.event(&record).map(|_index| ())
    }
}
