//! What is live: the mesh, the hosts and where they can be reached.
//!
//! Three snapshots, each behind a `watch`: streams wait for the mesh and the
//! routes, operators wait for the hosts. A receipt of one host therefore wakes
//! nobody but an operator who waits for it. Writers hold the lock of a `watch` for
//! the time of a map update and never across an await.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ca_api::Generation;
use ca_api::node::GoodbyeReason;
use spiffe::id::HostName;
use spiffe::time::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Digest;
use crate::store::{HostRow, HostRowState};

/// The live mesh.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) generation: Generation,
    /// `None` until the first apply.
    pub(crate) mesh: Option<Arc<policy::Mesh>>,
    /// SHA-256 of the sources, lower hexadecimal.
    pub(crate) sources_sha256: String,
}

/// One host: what is kept of it, and what its stream has said.
#[derive(Clone, Debug)]
pub(crate) struct HostView {
    pub(crate) row: HostRow,
    pub(crate) session: Option<Session>,
    /// Where its newest stream came from.
    pub(crate) source: Option<IpAddr>,
    pub(crate) applied: Option<Generation>,
    pub(crate) failed: Option<(Generation, String)>,
    /// The list of quarantines that its stream said it enforces.
    pub(crate) quarantines: Option<Generation>,
    /// The newest receipts for such lists, oldest first.
    cuts: VecDeque<Cut>,
    /// What the host said that it can enforce, when its stream was opened.
    pub(crate) features: BTreeSet<String>,
    /// To whom it said that values are sealed for it.
    pub(crate) recipient: Option<String>,
    /// When a connection was last worth a record.
    noted: Option<Timestamp>,
}

/// A receipt for a list of quarantines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) generation: Generation,
    pub(crate) at: Instant,
    pub(crate) streams_cut: u64,
}

/// How many receipts for lists of quarantines are kept of a host.
const CUTS_MAX: usize = 16;

/// What a stream that was taken in needs to know.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) session: u64,
    /// Says when the stream has to end, and why.
    pub(crate) ended: watch::Receiver<Option<GoodbyeReason>>,
    /// Whether to record it: a host that comes and goes must not fill the ledger.
    pub(crate) record: bool,
    /// Whether an older stream was up and ends.
    pub(crate) replaced: bool,
}

/// How soon after a recorded connection the next one is recorded.
const RECORD_INTERVAL: Duration = Duration::from_secs(10);

/// The stream of a host that is up.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    id: u64,
    pub(crate) source: IpAddr,
    pub(crate) since: Timestamp,
    end: Arc<watch::Sender<Option<GoodbyeReason>>>,
}

/// All hosts by name.
pub(crate) type Hosts = BTreeMap<HostName, HostView>;

/// The mesh-side address of every host that is known and not evicted.
pub(crate) type Routes = BTreeMap<HostName, SocketAddr>;

/// The snapshots.
#[derive(Debug)]
pub(crate) struct World {
    live: watch::Sender<Arc<Live>>,
    hosts: watch::Sender<Arc<Hosts>>,
    routes: watch::Sender<Arc<Routes>>,
    sessions: AtomicU64,
}

impl World {
    pub(crate) fn new(live: Live, rows: Vec<HostRow>) -> Self {
        let hosts: Hosts = rows
            .into_iter()
            .map(|row| (row.name.clone(), HostView::new(row)))
            .collect();
        let routes = routes(&hosts);
        Self {
            live: watch::Sender::new(Arc::new(live)),
            hosts: watch::Sender::new(Arc::new(hosts)),
            routes: watch::Sender::new(Arc::new(routes)),
            sessions: AtomicU64::new(1),
        }
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.borrow())
    }

    pub(crate) fn hosts(&self) -> Arc<Hosts> {
        Arc::clone(&self.hosts.borrow())
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.borrow())
    }

    pub(crate) fn watch_live(&self) -> watch::Receiver<Arc<Live>> {
        self.live.subscribe()
    }

    pub(crate) fn watch_hosts(&self) -> watch::Receiver<Arc<Hosts>> {
        self.hosts.subscribe()
    }

    pub(crate) fn watch_routes(&self) -> watch::Receiver<Arc<Routes>> {
        self.routes.subscribe()
    }

    /// Makes a mesh live. Only upward: a later call with an older number does nothing.
    pub(crate) fn set_live(&self, live: Live) {
        self.live.send_if_modified(|now| {
            let newer = live.generation > now.generation;
            if newer {
                *now = Arc::new(live);
            }
            newer
        });
    }

    /// Takes in what the store has of a host; a snapshot older than the last one is
    /// ignored. Ends the stream of an evicted host, and says whether one was up.
    pub(crate) fn put_row(&self, row: HostRow) -> bool {
        let mut was_connected = false;
        self.change_hosts(|hosts| {
            let Some(view) = hosts.get_mut(&row.name) else {
                hosts.insert(row.name.clone(), HostView::new(row));
                return;
            };
            if row.version <= view.row.version {
                return;
            }
            let last_seen = row.last_seen.max(view.row.last_seen);
            view.row = HostRow { last_seen, ..row };
            if view.row.state == HostRowState::Evicted {
                view.applied = None;
                view.failed = None;
                view.quarantines = None;
                if let Some(session) = view.session.take() {
                    was_connected = true;
                    session.end.send_replace(Some(GoodbyeReason::Evicted));
                }
            }
        });
        was_connected
    }

    /// Takes a stream in, unless the host no longer holds the key it came with.
    /// An older stream of the same host ends: the newer one has newer knowledge.
    pub(crate) fn connect(
        &self,
        name: &HostName,
        key: &Digest,
        source: IpAddr,
        now: Timestamp,
        applied: Option<Generation>,
    ) -> Option<Admitted> {
        let id = self.sessions.fetch_add(1, Ordering::Relaxed);
        let (end, ended) = watch::channel(None);
        let mut admitted = None;
        let mut replaced = false;
        let source = source.to_canonical();
        self.change_hosts(|hosts| {
            let Some(view) = hosts.get_mut(name).filter(|view| view.row.holds(key)) else {
                return;
            };
            let record = view
                .noted
                .is_none_or(|noted| now.duration_since(noted) >= RECORD_INTERVAL);
            if record {
                view.noted = Some(now);
            }
            admitted = Some(record);
            view.applied = applied;
            view.quarantines = None;
            view.failed = None;
            view.source = Some(source);
            let session = Session {
                id,
                source,
                since: now,
                end: Arc::new(end),
            };
            if let Some(old) = view.session.replace(session) {
                replaced = true;
                old.end.send_replace(Some(GoodbyeReason::Replaced));
            }
        });
        admitted.map(|record| Admitted {
            session: id,
            ended,
            record,
            replaced,
        })
    }

    /// The stream of a host that is up, and where it comes from.
    pub(crate) fn stream_of(&self, name: &HostName) -> Option<(u64, IpAddr)> {
        let hosts = self.hosts.borrow();
        let session = hosts.get(name)?.session.as_ref()?;
        Some((session.id, session.source))
    }

    /// Whose address this is, other than `name`'s.
    pub(crate) fn advertised_by_another(&self, name: &HostName, address: SocketAddr) -> Option<HostView> {
        let hosts = self.hosts();
        let has_it = |view: &&HostView| {
            view.row.name != *name && view.row.state == HostRowState::Joined && view.row.advertise == Some(address)
        };
        hosts.values().find(has_it).cloned()
    }

    /// Notes what a host can enforce, words of [`policy::feature`] and others, and to whom values are sealed for it.
    pub(crate) fn enforces(
        &self,
        name: &HostName,
        session: u64,
        (features, recipient): (BTreeSet<String>, Option<String>),
    ) {
        self.change_session(name, session, |view| {
            view.features = features;
            view.recipient = recipient;
        });
    }

    /// Names the connected hosts that lack something which their slice of `mesh` needs, with what they lack.
    pub(crate) fn lacking(&self, mesh: &policy::Mesh) -> BTreeMap<HostName, BTreeSet<&'static str>> {
        let whole = mesh.features();
        let lacks = |view: &HostView, word: &&str| !view.features.contains(*word);
        let hosts = self.hosts();
        let connected = hosts.iter().filter(|(_, view)| view.session.is_some());
        connected
            .filter(|(_, view)| whole.iter().any(|word| lacks(view, word)))
            .map(|(name, view)| {
                let mut lacking = mesh.features_for(name);
                lacking.retain(|word| lacks(view, word));
                (name.clone(), lacking)
            })
            .filter(|(_, lacking)| !lacking.is_empty())
            .collect()
    }

    /// Notes that a stream is over. Its address stays: the proxy may well be up.
    pub(crate) fn disconnect(&self, name: &HostName, session: u64, now: Timestamp) {
        self.change_session(name, session, |view| {
            view.session = None;
            view.row.last_seen = now;
        });
    }

    /// Notes a receipt.
    pub(crate) fn receipt(
        &self,
        name: &HostName,
        session: u64,
        now: Timestamp,
        generation: Generation,
        outcome: Result<(), String>,
    ) {
        self.change_session(name, session, |view| {
            view.row.last_seen = now;
            match outcome {
                Ok(()) => {
                    view.applied = Some(generation);
                    view.failed = None;
                }
                Err(error) => view.failed = Some((generation, error)),
            }
        });
    }

    /// Notes that a list of quarantines is enforced.
    pub(crate) fn quarantines_receipt(&self, name: &HostName, session: u64, now: Timestamp, cut: Cut) {
        self.change_session(name, session, |view| {
            view.row.last_seen = now;
            view.quarantines = view.quarantines.max(Some(cut.generation));
            if view.cuts.back().is_none_or(|last| last.generation < cut.generation) {
                if view.cuts.len() >= CUTS_MAX {
                    view.cuts.pop_front();
                }
                view.cuts.push_back(cut);
            }
        });
    }

    fn change_session(&self, name: &HostName, session: u64, change: impl FnOnce(&mut HostView)) {
        self.change_hosts(|hosts| {
            let current = hosts
                .get_mut(name)
                .filter(|view| view.session.as_ref().is_some_and(|current| current.id == session));
            if let Some(view) = current {
                change(view);
            }
        });
    }

    /// Changes the hosts, and the routes with them if they differ then.
    fn change_hosts(&self, change: impl FnOnce(&mut Hosts)) {
        let mut next = BTreeMap::new();
        self.hosts.send_modify(|hosts| {
            change(Arc::make_mut(hosts));
            next = routes(hosts);
            // Inside the hosts' lock, so that two changes cannot swap their routes.
            self.routes.send_if_modified(|routes| {
                let differs = **routes != next;
                if differs {
                    *routes = Arc::new(std::mem::take(&mut next));
                }
                differs
            });
        });
    }
}

impl HostView {
    const fn new(row: HostRow) -> Self {
        Self {
            row,
            session: None,
            source: None,
            applied: None,
            failed: None,
            quarantines: None,
            cuts: VecDeque::new(),
            features: BTreeSet::new(),
            recipient: None,
            noted: None,
        }
    }

    /// The first receipt for this list of quarantines or a newer one.
    pub(crate) fn cut_by(&self, generation: Generation) -> Option<&Cut> {
        self.cuts.iter().find(|cut| cut.generation >= generation)
    }
}

fn routes(hosts: &Hosts) -> Routes {
    hosts
        .iter()
        .filter(|(_, view)| view.row.state == HostRowState::Joined)
        .filter_map(|(name, view)| Some((name.clone(), view.row.advertise?)))
        .collect()
}

#[cfg(test)]
mod tests;
