//! The kill switch: who is cut off, in one complete list that every host gets.
//!
//! A quarantine begins with the deed and is recorded after it: of all things that
//! operators do, this one must not wait for a ledger that cannot be written. Its end
//! is recorded first, because it gives a right back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::EventKind;
use ca_api::Generation;
use ca_api::admin::{Quarantine, Quarantined};
use serde_json::json;
use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::Core;
use crate::journal::JournalError;
use crate::store::{QuarantineRows, StoreError};

/// How many changes are remembered by the moment at which they were made.
const CHANGES_MAX: usize = 64;

/// After a failure of the store, when quarantines are ended by their time.
const RETRY: Duration = Duration::from_secs(5);

/// Who is cut off at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuarantineList {
    pub(crate) generation: Generation,
    pub(crate) quarantines: BTreeMap<Quarantined, Quarantine>,
    /// SVIDs that quarantined hosts hold or evicted hosts held, by serial number.
    pub(crate) serials: Vec<String>,
    /// Bots that are cut off whole, because those SVIDs are too many to be listed.
    pub(crate) bots_of_serials: BTreeSet<BotName>,
}

impl QuarantineList {
    fn new(epoch: u64, rows: QuarantineRows) -> Self {
        Self {
            generation: Generation {
                epoch,
                revision: rows.revision,
            },
            quarantines: rows.quarantines,
            serials: rows.serials,
            bots_of_serials: rows.bots_of_serials,
        }
    }

    pub(crate) fn has_bot(&self, bot: &BotName) -> bool {
        self.quarantines.contains_key(&Quarantined::Bot(bot.clone())) || self.bots_of_serials.contains(bot)
    }

    /// All bots that are cut off.
    pub(crate) fn bots(&self) -> BTreeSet<&BotName> {
        let named = self.quarantines.keys().filter_map(|whom| match whom {
            Quarantined::Bot(bot) => Some(bot),
            Quarantined::Host(_) => None,
        });
        named.chain(&self.bots_of_serials).collect()
    }

    /// All hosts that are cut off.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.quarantines.keys().filter_map(|whom| match whom {
            Quarantined::Bot(_) => None,
            Quarantined::Host(host) => Some(host),
        })
    }

    fn warn_of_bots(&self) {
        if !self.bots_of_serials.is_empty() {
            let bots: Vec<_> = self.bots_of_serials.iter().map(BotName::as_str).collect();
            tracing::error!(
                ?bots,
                "quarantined or evicted hosts hold more SVIDs than can be listed: these bots are cut off everywhere until \
                 the list is changed after those SVIDs have ended (svid_ttl)"
            );
        }
    }

    pub(crate) fn has_host(&self, host: &HostName) -> bool {
        self.quarantines.contains_key(&Quarantined::Host(host.clone()))
    }

    /// When the next one ends by its time.
    fn next_end(&self) -> Option<Timestamp> {
        self.quarantines
            .values()
            .filter_map(|quarantine| quarantine.until)
            .min()
    }
}

/// The list, and when it was changed.
#[derive(Debug)]
pub(crate) struct Quarantines {
    epoch: u64,
    list: watch::Sender<Arc<QuarantineList>>,
    changes: Mutex<VecDeque<(Generation, Instant)>>,
    /// One change at a time, so that lists go live in the order of their numbers.
    changing: tokio::sync::Mutex<()>,
}

impl Quarantines {
    pub(crate) fn new(epoch: u64, rows: QuarantineRows) -> Self {
        let list = QuarantineList::new(epoch, rows);
        list.warn_of_bots();
        Self {
            epoch,
            list: watch::Sender::new(Arc::new(list)),
            changes: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn list(&self) -> Arc<QuarantineList> {
        Arc::clone(&self.list.borrow())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<QuarantineList>> {
        self.list.subscribe()
    }

    /// When a list went live; `None` when that was long ago or before a restart.
    pub(crate) fn changed_at(&self, generation: Generation) -> Option<Instant> {
        let changes = self.changes();
        changes.iter().find(|(made, _)| *made == generation).map(|(_, at)| *at)
    }

    fn set(&self, rows: QuarantineRows) -> Arc<QuarantineList> {
        let list = Arc::new(QuarantineList::new(self.epoch, rows));
        list.warn_of_bots();
        {
            let mut changes = self.changes();
            if changes.len() >= CHANGES_MAX {
                changes.pop_front();
            }
            changes.push_back((list.generation, Instant::now()));
        }
        self.list.send_replace(Arc::clone(&list));
        list
    }

    /// A thread that panicked while it held the lock left a whole value.
    fn changes(&self) -> MutexGuard<'_, VecDeque<(Generation, Instant)>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a quarantine was not set or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuarantineError {
    #[error("there are too many quarantines")]
    TooMany,
    #[error("it is not quarantined")]
    NotQuarantined,
    #[error("write it down")]
    Store {
        #[source]
        source: StoreError,
    },
    #[error("record it")]
    Journal {
        #[source]
        source: JournalError,
    },
}

impl Core {
    /// Cuts a bot or a host off, then records it.
    pub(crate) async fn quarantine(
        &self,
        actor: &str,
        quarantine: Quarantine,
    ) -> Result<Arc<QuarantineList>, QuarantineError> {
        let _turn = self.quarantines.changing.lock().await;
        let rows = self.store.put_quarantine(quarantine.clone()).await;
        let rows = rows
            .map_err(|source| QuarantineError::Store { source })?
            .ok_or(QuarantineError::TooMany)?;
        let list = self.quarantines.set(rows);
        let detail = [
            ("reason", json!(quarantine.reason)),
            ("until", json!(quarantine.until)),
            ("list", json!(list.generation.to_string())),
        ];
        self.journal
            .event(EventKind::Quarantined, actor, &quarantine.whom.subject(), detail)
            .map_err(|source| QuarantineError::Journal { source })?;
        Ok(list)
    }

    /// Records the end of a quarantine, then ends it.
    pub(crate) async fn release(
        &self,
        actor: &str,
        whom: &Quarantined,
    ) -> Result<Arc<QuarantineList>, QuarantineError> {
        let _turn = self.quarantines.changing.lock().await;
        if !self.quarantines.list().quarantines.contains_key(whom) {
            return Err(QuarantineError::NotQuarantined);
        }
        self.journal
            .event(
                EventKind::Released,
                actor,
                &whom.subject(),
                [("why", json!("released"))],
            )
            .map_err(|source| QuarantineError::Journal { source })?;
        let rows = self.store.end_quarantine(whom.clone(), self.now()).await;
        let rows = rows
            .map_err(|source| QuarantineError::Store { source })?
            .ok_or(QuarantineError::NotQuarantined)?;
        Ok(self.quarantines.set(rows))
    }

    /// Tells every host what an eviction made worthless.
    pub(crate) async fn list_evicted(&self) -> Result<Generation, StoreError> {
        let _turn = self.quarantines.changing.lock().await;
        let rows = self.store.quarantines(self.now()).await?;
        Ok(self.quarantines.set(rows).generation)
    }

    async fn end_by_time(&self, now: Timestamp) -> Result<(), StoreError> {
        let _turn = self.quarantines.changing.lock().await;
        let before = self.quarantines.list();
        let Some(rows) = self.store.end_quarantines(now).await? else {
            return Ok(());
        };
        let list = self.quarantines.set(rows);
        for whom in before
            .quarantines
            .keys()
            .filter(|whom| !list.quarantines.contains_key(whom))
        {
            let detail = [("why", json!("its time is over"))];
            self.journal.note(EventKind::Released, "ca", &whom.subject(), detail);
        }
        Ok(())
    }
}

/// Ends quarantines by their time until the CA stops.
pub(crate) async fn end_by_time(core: Arc<Core>) {
    let mut changed = core.quarantines.watch();
    loop {
        let end = changed.borrow_and_update().next_end();
        let due = async {
            match end {
                Some(end) => core.clock.sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        // Cancel safe: a wait that is dropped has changed nothing.
        tokio::select! {
            () = core.cancel.cancelled() => return,
            Ok(()) = changed.changed() => continue,
            () = due => {}
        }
        if let Err(error) = core.end_by_time(core.now()).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a quarantine was not ended by its time"
            );
            tokio::time::sleep(RETRY).await;
        }
    }
}
