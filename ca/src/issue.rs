//! Sign, record, answer: the one way a certificate leaves.

use std::sync::Arc;
use std::time::Duration;

use spiffe::id::{HostName, SpiffeId};

use crate::authority::{Issued, SignError, sha256};
use crate::core::Core;
use crate::journal::JournalError;
use crate::store::{Issuance, StoreError};

/// One leaf to sign: an ID that has been authorised, a public key, a lifetime.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) id: SpiffeId,
    pub(crate) spki: Vec<u8>,
    pub(crate) ttl: Duration,
}

/// Why certificates could not be issued; the CA's fault in every case.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Too many wait already.
    #[error("too many issuances are waiting")]
    Overloaded,
    /// The signer was stopped.
    #[error("the signer was stopped")]
    Stopped,
    /// A certificate could not be signed, or did not pass the check after it.
    #[error("sign an SVID for {id}")]
    Sign {
        /// For whom.
        id: SpiffeId,
        /// Why.
        #[source]
        source: SignError,
    },
    /// It could not be recorded.
    #[error("record an issuance")]
    Record {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// It could not be written into the ledger.
    #[error("write an issuance into the ledger")]
    Ledger {
        /// Why.
        #[source]
        source: JournalError,
    },
}

impl Core {
    /// Signs all orders, off the threads that serve connections.
    pub(crate) async fn sign(self: &Arc<Self>, orders: Vec<Order>) -> Result<Vec<Issued>, IssueError> {
        let _waiting = self
            .signing_queue
            .try_acquire()
            .map_err(|_full| IssueError::Overloaded)?;
        let _turn = self.signing.acquire().await.map_err(|_closed| IssueError::Stopped)?;
        let authority = Arc::clone(&self.authority);
        let now = self.now();
        let signed = self.tasks.spawn_blocking(move || {
            let sign = |order: &Order| {
                authority
                    .issue(&order.id, &order.spki, order.ttl, now)
                    .map_err(|source| IssueError::Sign {
                        id: order.id.clone(),
                        source,
                    })
            };
            orders.iter().map(sign).collect()
        });
        signed.await.map_err(|_panicked| IssueError::Stopped)?
    }

    /// Describes a signed certificate for the records.
    pub(crate) fn issuance(&self, issued: &Issued, host: &HostName) -> Issuance {
        let generation = self.generation();
        Issuance {
            serial: issued.leaf.serial().to_string(),
            id: issued.leaf.id().clone(),
            host: host.clone(),
            not_before: issued.leaf.not_before(),
            not_after: issued.leaf.not_after(),
            spki_sha256: sha256(issued.leaf.spki()),
            issued_at: self.now(),
            epoch: generation.epoch,
            revision: generation.revision,
        }
    }

    /// Signs and records; only what is recorded in both places is returned.
    pub(crate) async fn issue(
        self: &Arc<Self>,
        orders: Vec<Order>,
        host: &HostName,
    ) -> Result<Vec<Issued>, IssueError> {
        let issued = self.sign(orders).await?;
        let records: Vec<Issuance> = issued.iter().map(|issued| self.issuance(issued, host)).collect();
        self.store
            .record_issuances(records.clone())
            .await
            .map_err(|source| IssueError::Record { source })?;
        for record in &records {
            self.journal
                .issued(record)
                .map_err(|source| IssueError::Ledger { source })?;
        }
        Ok(issued)
    }
}

/// How long an ended certificate or token stays in the store: long enough to answer whose it
/// was while anybody can still ask about a fresh incident. The ledger keeps it longer.
const ENDED_KEEP: Duration = Duration::from_hours(7 * 24);

/// How often ended ones are looked for.
const PRUNE_INTERVAL: Duration = Duration::from_hours(1);

/// Forgets ended certificates and tokens until the CA stops.
pub(crate) async fn forget_ended(core: Arc<Core>) {
    loop {
        match core.store.prune_issuances(core.now() - ENDED_KEEP).await {
            // There may be more; others get their turn in between.
            Ok(forgotten) if forgotten > 0 => continue,
            Ok(_none) => {}
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "forget ended certificates"),
        }
        match core.store.prune_jwts(core.now() - ENDED_KEEP).await {
            Ok(forgotten) if forgotten > 0 => continue,
            Ok(_none) => {}
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "forget ended tokens"),
        }
        // Cancel safe: nothing is held across the wait.
        tokio::select! {
            () = core.cancel.cancelled() => return,
            () = core.clock.sleep(PRUNE_INTERVAL) => {}
        }
    }
}
