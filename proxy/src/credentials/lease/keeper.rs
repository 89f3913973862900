//! Looks after leases, a few times a second: which have lost their process or their right, which are to live on, and which are to
//! be given back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use policy::{CredentialName, Injection};
use spiffe::id::{BotName, SpiffeId};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::record::Record;
use super::{Key, Lease, Leases, Place, Return, Table};
use crate::control::Snapshot;
use crate::credentials::events::{Step, Whose};
use crate::credentials::vault::{LeaseId, NotRenewed, VaultWord};
use crate::proxy::Proxy;

/// How often.
const TICK: Duration = Duration::from_millis(250);

/// How many leases are given back at a time.
const RETURNS_MAX: usize = 16;

/// How long giving them back may take when the proxy stops.
const LAST: Duration = Duration::from_secs(6);

/// Looks after them until the proxy closes.
pub(crate) async fn keep(proxy: Arc<Proxy>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let leases = Arc::clone(proxy.credentials.leases());
    loop {
        // A tick that is lost is the last one.
        tokio::select! {
            () = proxy.closing.cancelled() => return,
            _tick = ticks.tick() => {}
        }
        let (snapshot, now) = (proxy.control.snapshot(), proxy.control.now());
        let mut rights = Rights::new(&snapshot, now);
        if leases.look(|key, injection| rights.has(key, injection)) == Looked::SomeEnded {
            let cut = proxy.live.end_of_leases();
            if cut > 0 {
                tracing::info!(cut, "ended sessions whose lease is over");
            }
        }
    }
}

/// Who may have which credential at this moment.
struct Rights<'s> {
    snapshot: &'s Snapshot,
    now: spiffe::time::Timestamp,
    known: BTreeMap<CredentialName, BTreeSet<BotName>>,
}

impl<'s> Rights<'s> {
    const fn new(snapshot: &'s Snapshot, now: spiffe::time::Timestamp) -> Self {
        Self {
            snapshot,
            now,
            known: BTreeMap::new(),
        }
    }

    /// Whether a rule grants the credential to the bot, added as it was, and no quarantine cuts the bot off.
    fn has(&mut self, key: &Key, injection: &Injection) -> bool {
        let mesh = &self.snapshot.mesh;
        let same = mesh
            .credential(key.name.as_str())
            .is_some_and(|credential| credential.injection == *injection);
        let consumers = self.known.entry(key.name.clone()).or_insert_with(|| {
            let consumers = mesh.consumers_of(key.name.as_str(), self.now).into_iter();
            consumers.flat_map(|(_, bots)| bots.into_iter().cloned()).collect()
        });
        let id = SpiffeId::for_bot(&self.snapshot.trust_domain, &key.bot);
        same && consumers.contains(&key.bot) && self.snapshot.cut_off(&id, &key.bot, None, None).is_none()
    }
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// All live on.
    AllGood,
    /// Some are given back.
    SomeEnded,
}

/// A lease that is to live on.
struct Renewal {
    key: Key,
    vault: VaultWord,
    id: LeaseId,
}

impl Leases {
    /// Looks once; what takes longer goes on beside.
    pub(super) fn look(self: &Arc<Self>, mut has_right: impl FnMut(&Key, &Injection) -> bool) -> Looked {
        let now = Instant::now();
        let (renewals, returns, looked) = {
            let mut table = self.table();
            let mut renewals = Vec::new();
            let mut lost = Vec::new();
            table.places.retain(|key, place| {
                let ended = place.process.ended();
                sort_out((key, place), now, &mut lost, |lease| {
                    !ended && has_right(key, &lease.injection)
                });
                renewals.extend(due(key, place, now));
                // Whoever waits for a turn holds it.
                !ended && (!place.leases.is_empty() || Arc::strong_count(&place.taking) > 1)
            });
            self.to_returns(&mut table, lost);
            // Those too that a vault took back since the last look.
            let looked = if std::mem::take(&mut table.ended) {
                Looked::SomeEnded
            } else {
                Looked::AllGood
            };
            (renewals, self.due_returns(&mut table, now), looked)
        };
        for renewal in renewals {
            let this = Arc::clone(self);
            drop(self.tasks.spawn(async move { this.renew(renewal).await }));
        }
        for (id, of) in returns {
            let this = Arc::clone(self);
            drop(self.tasks.spawn(async move { this.revoke(of, id).await }));
        }
        looked
    }

    /// Has leases given back that nobody gets any more.
    fn to_returns(&self, table: &mut Table, lost: Vec<(Key, Lease)>) {
        let now = Instant::now();
        table.changes += u64::from(!lost.is_empty());
        table.ended |= !lost.is_empty();
        for (key, lease) in lost {
            lease.loaded.ends();
            let until = self.until(&lease.grant);
            let of = key.whose(&lease.vault);
            table.returns.insert(lease.id, Return::new(of, until, now));
        }
    }

    /// What is to be given back now. What the vault has taken back by itself is forgotten.
    fn due_returns(&self, table: &mut Table, now: Instant) -> Vec<(LeaseId, Whose)> {
        let moment = self.clock.now();
        let over: Vec<LeaseId> = table
            .returns
            .iter()
            .filter(|(_, back)| !back.running && back.until <= moment)
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            if let Some(back) = table.returns.remove(&id) {
                self.events.lease(Step::Ended, &back.of, Ok(()));
            }
            let records = self.records.clone();
            drop(self.tasks.spawn(async move { forgotten(records.remove(id).await) }));
        }
        let running = table.returns.values().filter(|back| back.running).count();
        let due = table
            .returns
            .iter_mut()
            .filter(|(_, back)| !back.running && back.next <= now);
        due.take(RETURNS_MAX.saturating_sub(running))
            .map(|(id, back)| {
                back.running = true;
                (id.clone(), back.of.clone())
            })
            .collect()
    }

    async fn renew(&self, renewal: Renewal) {
        let Renewal { key, vault, id } = renewal;
        let Some(grant) = self.with_lease(&key, &id, |lease| lease.grant.clone()) else {
            return;
        };
        let renewed = self.vaults.renew(&vault, &id, &grant).await;
        let (now, of) = (Instant::now(), key.whose(&vault));
        match renewed {
            Ok(grant) => {
                self.events.lease(Step::Renewed, &of, Ok(()));
                let until = self.until(&grant);
                self.with_lease(&key, &id, |lease| {
                    lease.grant = grant;
                    (lease.renewing, lease.used) = (false, false);
                    lease.set_due(now);
                });
                let lease = id;
                forgotten(self.records.add(Record { vault, lease, until }).await);
            }
            Err(NotRenewed::Later(error)) => {
                let error = &*error as &(dyn std::error::Error + 'static);
                self.events.lease(Step::Renewed, &of, Err(error));
                tracing::warn!(credential = %key.name, bot = %key.bot, error, "a lease was not renewed");
                self.with_lease(&key, &id, |lease| {
                    lease.renewing = false;
                    lease.set_due(now);
                });
            }
            Err(NotRenewed::Gone(error)) => {
                let error = &*error as &(dyn std::error::Error + 'static);
                self.events.lease(Step::Renewed, &of, Err(error));
                tracing::info!(credential = %key.name, bot = %key.bot, error, "a lease lives on no more; another one follows it");
                self.with_lease(&key, &id, |lease| {
                    lease.grant.renewable = false;
                    (lease.renewing, lease.stale) = (false, true);
                    lease.set_due(now);
                });
            }
        }
    }

    fn with_lease<T>(&self, key: &Key, id: &LeaseId, with: impl FnOnce(&mut Lease) -> T) -> Option<T> {
        let mut table = self.table();
        let place = table.places.get_mut(key)?;
        place.leases.iter_mut().find(|lease| lease.id == *id).map(with)
    }

    async fn revoke(&self, of: Whose, id: LeaseId) {
        let vault = &of.vault;
        match self.vaults.revoke(vault, &id).await {
            Ok(()) => {
                tracing::info!(%vault, "a lease was given back");
                self.events.lease(Step::GivenBack, &of, Ok(()));
                forgotten(self.records.remove(id.clone()).await);
                self.table().returns.remove(&id);
            }
            Err(error) => {
                let mut table = self.table();
                let Some(back) = table.returns.get_mut(&id) else { return };
                let is_first = back.times == 0;
                back.failed(Arc::clone(&error));
                drop(table);
                if is_first {
                    let error = &*error as &(dyn std::error::Error + 'static);
                    tracing::warn!(%vault, error, "a lease was not given back; it is tried again");
                    self.events.lease(Step::GivenBack, &of, Err(error));
                }
            }
        }
    }

    /// Takes no more and gives all back, for a bounded time; what is left is in the file. The tokens go last, and with them what
    /// was made by them.
    pub(crate) async fn close(self: &Arc<Self>) {
        {
            let mut table = self.table();
            table.closed = true;
            let places = std::mem::take(&mut table.places);
            for (key, place) in places {
                for lease in place.leases {
                    let (of, until) = (key.whose(&lease.vault), self.until(&lease.grant));
                    table.returns.insert(lease.id, Return::new(of, until, Instant::now()));
                }
            }
            table.changes += 1;
        }
        let giving = async {
            let mut running = tokio::task::JoinSet::new();
            let all: Vec<_> = self
                .table()
                .returns
                .iter()
                .map(|(id, back)| (id.clone(), back.of.clone()))
                .collect();
            for (id, of) in all {
                if running.len() >= RETURNS_MAX {
                    drop(running.join_next().await);
                }
                let this = Arc::clone(self);
                running.spawn(async move { this.revoke(of, id).await });
            }
            while running.join_next().await.is_some() {}
        };
        if timeout(LAST, giving).await.is_err() {
            tracing::warn!("not all leases were given back in time: the next start does");
        }
        if timeout(LAST, self.vaults.log_out()).await.is_err() {
            tracing::warn!("tokens of vaults were not given back in time: they end by themselves");
        }
    }
}

/// Parts the leases of a process that has its right from those that are lost: it has none any more, they have ended, another
/// one took their place and no call has them, or nobody used them for half their time.
fn sort_out(
    (key, place): (&Key, &mut Place),
    now: Instant,
    lost: &mut Vec<(Key, Lease)>,
    mut may: impl FnMut(&Lease) -> bool,
) {
    let current = place.leases.last().map(|lease| lease.id.clone());
    let mut gone = |lease: &mut Lease| {
        let replaced = current.as_ref() != Some(&lease.id) && !lease.in_use();
        let idle = lease.due <= now && !lease.renewing && !lease.used && !lease.in_use();
        !may(lease) || !lease.is_good(now) || replaced || idle
    };
    let gone = place.leases.extract_if(.., |lease| gone(lease));
    lost.extend(gone.map(|lease| (key.clone(), lease)));
}

/// The leases of a process that are to live on now.
fn due(key: &Key, place: &mut Place, now: Instant) -> Vec<Renewal> {
    let mut renewals = Vec::new();
    for lease in &mut place.leases {
        if lease.due > now || lease.renewing {
            continue;
        }
        if !lease.grant.renewable {
            lease.used = false;
            lease.set_due(now);
            continue;
        }
        lease.renewing = true;
        renewals.push(Renewal {
            key: key.clone(),
            vault: lease.vault.clone(),
            id: lease.id.clone(),
        });
    }
    renewals
}

/// A name too many in the file is harmless: what is gone is given back a second time.
fn forgotten(written: std::io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(%error, "the names of leases were not written");
    }
}
