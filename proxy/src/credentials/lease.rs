//! Leases of bots' processes: each is taken for one process, lives on while that uses it, and is given back when the process
//! ends, when its bot is quarantined, when no rule grants the credential any more, and when the proxy stops. What a crash left
//! is given back at the next start.
//!
//! A lease is never shared: another process of the same bot gets another one. There is a bound on them, for this host and for
//! each bot, and what waits to be given back counts.

mod keeper;
mod record;
mod value;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::{CredentialName, Injection};
use spiffe::id::BotName;
use spiffe::time::{Clock, Timestamp};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub(crate) use keeper::keep;
pub(super) use value::{Value, of as value_of};

use super::events::{Events, Whose};
use super::source::SourceError;
use super::store::{Loaded, pause};
use super::vault::{Grant, LeaseId, VaultError, VaultWord, Vaults};
use crate::attest::Process;
use record::{Record, Records};

/// The most leases of this host, with those that wait to be given back.
const LEASES_MAX: usize = 512;

/// The most of one bot.
const LEASES_OF_BOT_MAX: usize = 128;

/// How long before its end a lease is left to the calls that have it.
const MARGIN: Duration = Duration::from_secs(30);

/// The leases of this host.
#[derive(Debug)]
pub(crate) struct Leases {
    pub(super) vaults: Vaults,
    pub(super) events: Events,
    records: Records,
    clock: Clock,
    tasks: TaskTracker,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    places: BTreeMap<Key, Place>,
    /// What waits to be given back.
    returns: BTreeMap<LeaseId, Return>,
    /// Questions under way that may bring a lease, by bot.
    taking: BTreeMap<BotName, usize>,
    /// Nothing is taken any more.
    closed: bool,
    /// Some ended since the last look.
    ended: bool,
    /// Counts the times that a value came or went.
    changes: u64,
}

/// Who has a lease: which process as which bot, and for which credential.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) name: CredentialName,
    pub(super) bot: BotName,
    process: usize,
}

#[derive(Debug)]
struct Place {
    process: Process,
    /// One lease is taken at a time.
    taking: Arc<tokio::sync::Mutex<()>>,
    /// The one that calls get, last; before it those that calls still have.
    leases: Vec<Lease>,
}

/// One lease.
#[derive(Debug)]
struct Lease {
    vault: VaultWord,
    id: LeaseId,
    grant: Grant,
    /// The way of adding it for which it was taken.
    injection: Injection,
    /// Held by the calls that have it.
    loaded: Arc<Loaded>,
    /// How long it was good at first.
    time: Duration,
    /// When it is looked at next.
    due: Instant,
    /// Whether a call got it since it was looked at last.
    used: bool,
    renewing: bool,
    /// The vault does not let it live on: the next call gets another one.
    stale: bool,
}

/// A lease that waits to be given back.
#[derive(Debug)]
struct Return {
    of: Whose,
    /// By when the vault takes it back by itself.
    until: Timestamp,
    next: Instant,
    times: u32,
    running: bool,
    error: Option<Arc<VaultError>>,
}

/// What a question brought, ready to be used.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) vault: VaultWord,
    pub(super) id: LeaseId,
    pub(super) grant: Grant,
    pub(super) injection: Injection,
    pub(super) loaded: Arc<Loaded>,
}

/// Counts one question under way.
pub(super) struct Taking {
    leases: Arc<Leases>,
    bot: BotName,
}

impl Drop for Taking {
    fn drop(&mut self) {
        let mut table = self.leases.table();
        if let Some(count) = table.taking.get_mut(&self.bot) {
            *count = count.saturating_sub(1);
        }
        table.taking.retain(|_, count| *count > 0);
    }
}

impl Key {
    pub(super) fn new(name: &CredentialName, bot: &BotName, process: &Process) -> Self {
        Self {
            name: name.clone(),
            bot: bot.clone(),
            process: process.key(),
        }
    }

    /// Whose a lease of it is.
    pub(super) fn whose(&self, vault: &VaultWord) -> Whose {
        Whose {
            vault: vault.clone(),
            name: Some(self.name.clone()),
            bot: Some(self.bot.clone()),
        }
    }
}

impl Lease {
    fn is_good(&self, now: Instant) -> bool {
        now < self.grant.ends()
    }

    /// Whether a call that begins now gets it: not so shortly before its end that it would not last.
    fn is_fresh(&self, now: Instant) -> bool {
        !self.stale && now + MARGIN.min(self.time / 10) < self.grant.ends()
    }

    /// Looked at again halfway to its end.
    fn set_due(&mut self, now: Instant) {
        let left = self.grant.ends().saturating_duration_since(now);
        self.due = now + (left / 2).max(Duration::from_millis(500));
    }

    fn in_use(&self) -> bool {
        Arc::strong_count(&self.loaded) > 1
    }
}

impl Leases {
    /// Reads what an earlier process left to be given back.
    pub(crate) fn new(vaults: Vaults, state_dir: &Path, clock: Clock, tasks: TaskTracker) -> Self {
        let (records, left) = Records::open(state_dir);
        let now = Instant::now();
        let returns = left.into_iter().map(|record| {
            let Record { vault, lease, until } = record;
            let of = Whose {
                vault,
                name: None,
                bot: None,
            };
            (lease, Return::new(of, until, now))
        });
        let table = Table {
            returns: returns.collect(),
            ..Table::default()
        };
        if !table.returns.is_empty() {
            tracing::info!(
                leases = table.returns.len(),
                "leases of an earlier process are given back"
            );
        }
        Self {
            vaults,
            events: Events::default(),
            records,
            clock,
            tasks,
            table: Mutex::new(table),
        }
    }

    /// The same, telling what happens to leases.
    pub(crate) fn telling(self, events: Events) -> Self {
        Self { events, ..self }
    }

    /// The value of a process that has a lease.
    pub(super) fn usable(&self, key: &Key, injection: &Injection, least: Least) -> Option<Arc<Loaded>> {
        let (now, mut table) = (Instant::now(), self.table());
        let lease = table.places.get_mut(key)?.leases.last_mut()?;
        let good = match least {
            Least::Fresh => lease.is_fresh(now),
            Least::Good => lease.is_good(now),
        };
        if !good || lease.injection != *injection {
            return None;
        }
        lease.used = true;
        Some(Arc::clone(&lease.loaded))
    }

    /// Waits until nobody else takes a lease for the process.
    pub(super) async fn turn(&self, key: &Key, process: &Process) -> tokio::sync::OwnedMutexGuard<()> {
        let place = || Place {
            process: process.clone(),
            taking: Arc::default(),
            leases: Vec::new(),
        };
        let taking = Arc::clone(&self.table().places.entry(key.clone()).or_insert_with(place).taking);
        taking.lock_owned().await
    }

    /// Counts a question that may bring a lease.
    ///
    /// # Errors
    ///
    /// When there are too many leases, or the proxy stops.
    pub(super) fn begin(self: &Arc<Self>, bot: &BotName) -> Result<Taking, SourceError> {
        let mut table = self.table();
        let taking = table.taking.values().sum::<usize>();
        let held: usize = table.places.values().map(|place| place.leases.len()).sum();
        let all = taking + held + table.returns.len();
        let of_bot = |(key, place): (&Key, &Place)| if key.bot == *bot { place.leases.len() } else { 0 };
        let own = table.taking.get(bot).copied().unwrap_or_default() + table.places.iter().map(of_bot).sum::<usize>();
        if table.closed {
            return Err(SourceError::Stopping);
        }
        if all >= LEASES_MAX || own >= LEASES_OF_BOT_MAX {
            return Err(SourceError::Leases { all, own });
        }
        *table.taking.entry(bot.clone()).or_default() += 1;
        drop(table);
        Ok(Taking {
            leases: Arc::clone(self),
            bot: bot.clone(),
        })
    }

    /// Notes durably that there is a lease: before its value is used, so that a crash forgets none.
    pub(super) async fn remember(&self, vault: &VaultWord, id: &LeaseId, grant: &Grant) -> Result<(), SourceError> {
        let record = Record {
            vault: vault.clone(),
            lease: id.clone(),
            until: self.until(grant),
        };
        let added = self.records.add(record).await;
        added.map_err(|source| SourceError::Remember {
            path: self.records.file().to_owned(),
            source,
        })
    }

    /// Has a process get a lease from now on; gives it back at once where the process has ended meanwhile.
    pub(super) fn install(&self, key: &Key, taken: Taken) -> Result<Arc<Loaded>, SourceError> {
        let (now, until) = (Instant::now(), self.until(&taken.grant));
        let mut table = self.table();
        let closed = table.closed;
        let place = table
            .places
            .get_mut(key)
            .filter(|place| !closed && !place.process.ended());
        let Some(place) = place else {
            let of = key.whose(&taken.vault);
            table.returns.insert(taken.id, Return::new(of, until, now));
            return Err(SourceError::ProcessEnded);
        };
        let loaded = Arc::clone(&taken.loaded);
        let mut lease = Lease {
            vault: taken.vault,
            id: taken.id,
            time: taken.grant.ends().saturating_duration_since(now),
            grant: taken.grant,
            injection: taken.injection,
            loaded: taken.loaded,
            due: now,
            used: true,
            renewing: false,
            stale: false,
        };
        lease.set_due(now);
        place.leases.push(lease);
        table.changes += 1;
        Ok(loaded)
    }

    /// Has a lease given back that is of no use.
    pub(super) fn give_back(&self, of: Whose, id: LeaseId, grant: &Grant) {
        let back = Return::new(of, self.until(grant), Instant::now());
        self.table().returns.insert(id, back);
    }

    /// How many leases of a credential there are.
    pub(super) fn count(&self, name: &CredentialName) -> usize {
        let table = self.table();
        let of_it = |(key, place): (&Key, &Place)| if key.name == *name { place.leases.len() } else { 0 };
        table.places.iter().map(of_it).sum()
    }

    /// The values that processes have, and a number that changes with them.
    pub(super) fn values(&self) -> Vec<Arc<Loaded>> {
        let table = self.table();
        let leases = table.places.values().flat_map(|place| &place.leases);
        leases.map(|lease| Arc::clone(&lease.loaded)).collect()
    }

    pub(super) fn changes(&self) -> u64 {
        self.table().changes
    }

    /// How many wait to be given back, and why the newest attempt failed, by vault.
    pub(crate) fn waiting(&self) -> BTreeMap<VaultWord, (usize, Option<Arc<VaultError>>)> {
        let mut waiting: BTreeMap<_, (usize, Option<Arc<VaultError>>)> = BTreeMap::new();
        for back in self.table().returns.values() {
            let (count, error) = waiting.entry(back.of.vault.clone()).or_default();
            *count += 1;
            if let Some(failed) = &back.error {
                *error = Some(Arc::clone(failed));
            }
        }
        waiting
    }

    /// By when the vault takes a lease back by itself, with a minute for clocks that differ.
    fn until(&self, grant: &Grant) -> Timestamp {
        let left = grant.ends().saturating_duration_since(Instant::now());
        self.clock.now() + left + Duration::from_mins(1)
    }

    /// A thread that panicked while it held the lock left a whole table.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How good a lease must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Least {
    /// It lasts a call.
    Fresh,
    /// It has not ended.
    Good,
}

impl Return {
    fn new(of: Whose, until: Timestamp, now: Instant) -> Self {
        Self {
            of,
            until,
            next: now,
            times: 0,
            running: false,
            error: None,
        }
    }

    fn failed(&mut self, error: Arc<VaultError>) {
        self.times = self.times.saturating_add(1);
        (self.next, self.error, self.running) = (Instant::now() + pause(self.times), Some(error), false);
    }
}

#[cfg(test)]
mod tests;
