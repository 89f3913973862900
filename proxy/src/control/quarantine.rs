//! Quarantines that an operator set on this host: in force at once, kept before the answer, CA or no CA.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit::{EventKind, LedgerError};
use ca_api::admin::{Quarantine, Quarantined};
use serde_json::Value;
use spiffe::time::Timestamp;

use super::Control;
use super::shared::Shared;
use super::state_dir::StateError;

/// The most quarantines of one host.
pub const LOCAL_MAX: usize = 1024;

/// The quarantines of this host.
pub type LocalList = BTreeMap<Quarantined, Quarantine>;

/// Why a quarantine of this host was not set or ended.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// There are too many.
    #[error("this host has too many quarantines")]
    TooMany,
    /// There is none.
    #[error("it was not quarantined on this host")]
    NotSet,
    /// It could not be kept.
    #[error("keep the quarantines of this host")]
    Keep {
        /// Why.
        #[source]
        source: StateError,
    },
    /// It could not be recorded.
    #[error("record a quarantine of this host")]
    Record {
        /// Why.
        #[source]
        source: LedgerError,
    },
    /// The thread that keeps it ended.
    #[error("wait for a thread")]
    Blocking {
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl Control {
    /// The quarantines that were set on this host.
    #[must_use]
    pub fn local_quarantines(&self) -> Arc<LocalList> {
        self.shared.local()
    }

    /// Records what an operator did on this host.
    ///
    /// # Errors
    ///
    /// When it could not be recorded.
    pub(crate) fn operator_event(
        &self,
        kind: EventKind,
        operator: &str,
        subject: String,
        detail: BTreeMap<String, Value>,
    ) -> Result<(), LedgerError> {
        self.shared
            .event_by(kind, format!("operator:{operator}"), subject, detail)
    }

    /// Records what this host did by itself, or as its CA told it.
    ///
    /// # Errors
    ///
    /// When it could not be recorded.
    pub(crate) fn own_event(
        &self,
        kind: EventKind,
        subject: String,
        detail: BTreeMap<String, Value>,
    ) -> Result<(), LedgerError> {
        self.shared.event(kind, subject, detail)
    }

    /// Cuts somebody off on this host, keeps that, and records it; gives the number of calls that it ended. Of two
    /// about the same the later end counts.
    ///
    /// # Errors
    ///
    /// When it could not be kept or recorded; it is in force all the same, until a restart. When there are too many.
    pub async fn quarantine(&self, quarantine: Quarantine) -> Result<u64, LocalError> {
        let _turn = self.shared.changing_local.lock().await;
        let mut list = (*self.shared.local()).clone();
        if list.len() >= LOCAL_MAX && !list.contains_key(&quarantine.whom) {
            return Err(LocalError::TooMany);
        }
        let (whom, actor) = (quarantine.whom.clone(), quarantine.actor.clone());
        let mut detail = BTreeMap::from([("reason".to_owned(), Value::from(quarantine.reason.clone()))]);
        let quarantine = match list.get(&whom) {
            Some(before) => Quarantine {
                since: before.since,
                until: before.until.zip(quarantine.until).map(|(one, two)| one.max(two)),
                ..quarantine
            },
            None => quarantine,
        };
        if let Some(until) = quarantine.until {
            detail.insert("until".to_owned(), Value::from(until.to_string()));
        }
        list.insert(whom.clone(), quarantine);
        // The deed first: it must wait neither for the disk nor for the ledger.
        let cut = self.shared.set_local(list.clone());
        detail.insert("streams_cut".to_owned(), Value::from(cut));
        let kept = keep(&self.shared, list).await;
        self.shared
            .event_by(
                EventKind::Quarantined,
                format!("operator:{actor}"),
                whom.subject(),
                detail,
            )
            .map_err(|source| LocalError::Record { source })?;
        kept.map(|()| cut)
    }

    /// Ends a quarantine that was set on this host.
    ///
    /// # Errors
    ///
    /// When none was set here; when its end could not be recorded or kept: then it stays.
    pub async fn release(&self, whom: &Quarantined, actor: &str) -> Result<(), LocalError> {
        let _turn = self.shared.changing_local.lock().await;
        let mut list = (*self.shared.local()).clone();
        if list.remove(whom).is_none() {
            return Err(LocalError::NotSet);
        }
        self.shared
            .event_by(
                EventKind::Released,
                format!("operator:{actor}"),
                whom.subject(),
                BTreeMap::new(),
            )
            .map_err(|source| LocalError::Record { source })?;
        keep(&self.shared, list.clone()).await?;
        self.shared.set_local(list);
        Ok(())
    }

    /// Ends the quarantines of this host whose time is over. What is kept of them on disk ends by the same time.
    pub(crate) fn end_local(&self, now: Timestamp) {
        if self
            .shared
            .local()
            .values()
            .all(|quarantine| is_in_force(quarantine, now))
        {
            return;
        }
        // While an operator changes the list, the next tick does it.
        let Ok(_turn) = self.shared.changing_local.try_lock() else {
            return;
        };
        let (stay, ended): (LocalList, LocalList) = (*self.shared.local())
            .clone()
            .into_iter()
            .partition(|(_, quarantine)| is_in_force(quarantine, now));
        for whom in ended.keys() {
            let detail = BTreeMap::from([("why".to_owned(), Value::from("its time is over"))]);
            self.shared.record(EventKind::Released, whom.subject(), detail);
        }
        self.shared.set_local(stay);
    }
}

pub(super) fn is_in_force(quarantine: &Quarantine, now: Timestamp) -> bool {
    quarantine.until.is_none_or(|until| now < until)
}

async fn keep(shared: &Shared, list: LocalList) -> Result<(), LocalError> {
    let files = shared.files.clone();
    let kept = tokio::task::spawn_blocking(move || files.save_local_quarantines(&list)).await;
    kept.map_err(|source| LocalError::Blocking { source })?
        .map_err(|source| LocalError::Keep { source })
}
