//! The keys that sign JWT-SVIDs: made, published, activated and taken away as the schedule says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use audit::EventKind;
use serde_json::json;
use spiffe::bundle::TrustBundle;
use spiffe::time::Timestamp;
use spiffe_tls::{JwtKey, PrivateKey};

use super::documents::Documents;
use super::schedule::{self, Plan, Step};
use super::{Federation, FederationError};
use crate::config::Issuer;
use crate::core::Core;
use crate::keys::{DiskKeys, KeyError, KeyUse};
use crate::store::{JwtKeyRow, JwtKeyRows};

/// How long a step that failed waits: what is due is due days before it is needed.
const RETRY: Duration = Duration::from_mins(1);

/// The sequence number of the bundle before any key for JWT-SVIDs was published.
const FIRST_SEQUENCE: u64 = 1;

/// The keys that are published at a time, and what is served of them.
#[derive(Debug)]
pub(super) struct KeySet {
    rows: JwtKeyRows,
    /// Private halves by name; those that will not sign again are not read.
    private: BTreeMap<String, Arc<JwtKey>>,
    bundle: Arc<TrustBundle>,
    documents: Documents,
}

impl KeySet {
    /// Reads the private halves that are needed.
    pub(super) fn load(
        rows: JwtKeyRows,
        disk: &DiskKeys,
        issuer: &Issuer,
        x509: &TrustBundle,
        now: Timestamp,
    ) -> Result<Self, FederationError> {
        let first = schedule::signing(&plans(&rows), now);
        let mut private = BTreeMap::new();
        for row in rows.published.iter().skip(first) {
            let key_id = row.authority.key_id();
            let key = disk
                .load(KeyUse::Jwt, key_id)
                .map_err(|source| FederationError::Key { source })?;
            // The seal is bound to the key's name, which is its thumbprint: it is this key or none.
            let key = JwtKey::new(&key).map_err(|source| FederationError::Use { source })?;
            private.insert(key_id.to_owned(), Arc::new(key));
        }
        Self::new(rows, private, issuer, x509)
    }

    fn new(
        rows: JwtKeyRows,
        mut private: BTreeMap<String, Arc<JwtKey>>,
        issuer: &Issuer,
        x509: &TrustBundle,
    ) -> Result<Self, FederationError> {
        private.retain(|key_id, _| rows.published.iter().any(|row| row.authority.key_id() == key_id));
        let keys: Vec<_> = rows.published.iter().map(|row| row.authority.clone()).collect();
        // Each key that comes and each that goes is one change.
        let sequence = FIRST_SEQUENCE + keys.len() as u64 + 2 * rows.retired;
        let bundle = x509
            .clone()
            .with_jwt_authorities(keys, sequence)
            .map_err(|source| FederationError::Bundle { source })?;
        Ok(Self {
            documents: Documents::new(issuer, &bundle),
            rows,
            private,
            bundle: Arc::new(bundle),
        })
    }

    pub(super) fn rows(&self) -> &[JwtKeyRow] {
        &self.rows.published
    }

    pub(super) fn plans(&self) -> Vec<Plan> {
        plans(&self.rows)
    }

    pub(super) fn bundle(&self) -> &Arc<TrustBundle> {
        &self.bundle
    }

    pub(super) fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The key that signs now. None only where a clock went back to the time of a key whose private half is not read.
    pub(super) fn signer(&self, now: Timestamp) -> Option<Arc<JwtKey>> {
        let row = self.rows().get(schedule::signing(&self.plans(), now))?;
        self.private.get(row.authority.key_id()).map(Arc::clone)
    }
}

fn plans(rows: &JwtKeyRows) -> Vec<Plan> {
    let plan = |row: &JwtKeyRow| Plan {
        published: row.published,
        signs_from: row.signs_from,
    };
    rows.published.iter().map(plan).collect()
}

impl Federation {
    /// Does what is due until the CA stops.
    pub(crate) async fn keep(self: Arc<Self>, core: Arc<Core>) {
        loop {
            let now = core.now();
            let wait = schedule::next(&self.set.load().plans(), now);
            // Cancel safe: nothing is held across the wait.
            tokio::select! {
                () = core.cancel.cancelled() => return,
                () = core.clock.sleep_until(wait) => {}
            }
            if let Err(error) = self.advance(&core).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the keys for JWT-SVIDs stay as they are; tried again in a minute"
                );
                tokio::select! {
                    () = core.cancel.cancelled() => return,
                    () = core.clock.sleep(RETRY) => {}
                }
            }
        }
    }

    /// Does what is due now.
    pub(crate) async fn advance(&self, core: &Core) -> Result<(), FederationError> {
        loop {
            let (set, now) = (self.set.load_full(), core.now());
            match schedule::due(&set.plans(), now) {
                Some(Step::Publish { signs_from }) => self.publish(core, &set, now, signs_from).await?,
                Some(Step::Retire) => self.retire(core, &set, now).await?,
                None => return self.activate(core, &set, now).await,
            }
        }
    }

    async fn publish(
        &self,
        core: &Core,
        set: &KeySet,
        now: Timestamp,
        signs_from: Timestamp,
    ) -> Result<(), FederationError> {
        let key = PrivateKey::generate().map_err(|source| FederationError::Key {
            source: KeyError::Generate { source },
        })?;
        let usable = JwtKey::new(&key).map_err(|source| FederationError::Use { source })?;
        let row = JwtKeyRow {
            authority: usable.authority().clone(),
            published: now,
            signs_from,
            activated: None,
        };
        let key_id = usable.authority().key_id().to_owned();
        self.disk
            .store(KeyUse::Jwt, &key_id, &key)
            .map_err(|source| FederationError::Key { source })?;
        if let Err(error) = self.record_new(core, &row).await {
            // A key that nobody knows of is not left about.
            self.disk
                .remove(KeyUse::Jwt, &key_id)
                .map_err(|source| FederationError::Key { source })?;
            return Err(error);
        }
        let mut rows = set.rows.clone();
        rows.published.push(row);
        let mut private = set.private.clone();
        private.insert(key_id, Arc::new(usable));
        self.swap(rows, private)
    }

    async fn record_new(&self, core: &Core, row: &JwtKeyRow) -> Result<(), FederationError> {
        record(
            core,
            EventKind::KeyPrepared,
            row,
            [("signs_from", json!(row.signs_from))],
        )?;
        core.store
            .publish_jwt_key(row.clone())
            .await
            .map_err(|source| FederationError::Store { source })
    }

    async fn retire(&self, core: &Core, set: &KeySet, now: Timestamp) -> Result<(), FederationError> {
        let mut rows = set.rows.clone();
        let Some(row) = (!rows.published.is_empty()).then(|| rows.published.remove(0)) else {
            return Ok(());
        };
        rows.retired += 1;
        record(core, EventKind::KeyRetired, &row, [])?;
        let key_id = row.authority.key_id();
        // First the file: a row without one is retired again after a crash, a file without a row would stay.
        self.disk
            .remove(KeyUse::Jwt, key_id)
            .map_err(|source| FederationError::Key { source })?;
        core.store
            .retire_jwt_key(key_id.to_owned(), now)
            .await
            .map_err(|source| FederationError::Store { source })?;
        self.swap(rows, set.private.clone())
    }

    /// Writes down that another key signs; that it does so is a matter of time alone.
    async fn activate(&self, core: &Core, set: &KeySet, now: Timestamp) -> Result<(), FederationError> {
        let mut rows = set.rows.clone();
        let place = schedule::signing(&set.plans(), now);
        let Some(row) = rows.published.get_mut(place).filter(|row| row.activated.is_none()) else {
            return Ok(());
        };
        record(core, EventKind::KeyActivated, row, [])?;
        core.store
            .activate_jwt_key(row.authority.key_id().to_owned(), now)
            .await
            .map_err(|source| FederationError::Store { source })?;
        row.activated = Some(now);
        self.swap(rows, set.private.clone())
    }

    fn swap(&self, rows: JwtKeyRows, private: BTreeMap<String, Arc<JwtKey>>) -> Result<(), FederationError> {
        let set = KeySet::new(rows, private, &self.issuer, &self.x509)?;
        self.set.store(Arc::new(set));
        Ok(())
    }
}

fn record<const N: usize>(
    core: &Core,
    kind: EventKind,
    row: &JwtKeyRow,
    detail: [(&'static str, serde_json::Value); N],
) -> Result<(), FederationError> {
    let subject = format!("jwt-key:{}", row.authority.key_id());
    core.journal
        .event(kind, "ca", &subject, detail)
        .map_err(|source| FederationError::Ledger { source })
}
