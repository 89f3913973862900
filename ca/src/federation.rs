//! Tokens that anyone can verify: the keys that sign JWT-SVIDs, the tokens, and the documents by which they are verified.
//!
//! None of it exists without `federation:` in the configuration.

mod documents;
mod endpoint;
mod keys;
mod metrics;
mod mint;
mod schedule;
mod tls;

use std::sync::Arc;

use arc_swap::ArcSwap;
use ca_api::admin::{FederationStatus, JwtKeyState, JwtKeyStatus};
use spiffe::bundle::{BundleError, TrustBundle};
use spiffe::time::Timestamp;
use spiffe_tls::JwsError;

use crate::config::Issuer;
use crate::core::Core;
use crate::journal::JournalError;
use crate::keys::{DiskKeys, KeyError};
use crate::store::{Store, StoreError};
use keys::KeySet;

pub(crate) use endpoint::{Endpoint, keep_certificate, serve};
pub(crate) use metrics::FederationMetrics;
pub(crate) use mint::JwtOrder;
pub use tls::CertificateError;

/// What signs, and who is said to.
#[derive(Debug)]
pub(crate) struct Federation {
    issuer: Issuer,
    disk: DiskKeys,
    /// The roots that the bundle for others has too.
    x509: Arc<TrustBundle>,
    set: ArcSwap<KeySet>,
}

/// Why there are no keys for JWT-SVIDs.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// The database failed.
    #[error("keep account of the keys for JWT-SVIDs")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A key could not be made, kept or opened.
    #[error("keep a key for JWT-SVIDs")]
    Key {
        /// Why.
        #[source]
        source: KeyError,
    },
    /// A key could not be taken into use.
    #[error("use a key for JWT-SVIDs")]
    Use {
        /// Why.
        #[source]
        source: JwsError,
    },
    /// It could not be written into the ledger.
    #[error("record a change of the keys for JWT-SVIDs")]
    Ledger {
        /// Why.
        #[source]
        source: JournalError,
    },
    /// The keys make no bundle.
    #[error("make the documents for relying parties")]
    Bundle {
        /// Why.
        #[source]
        source: BundleError,
    },
}

impl Federation {
    /// Reads the keys that there are. The first one is made by [`Federation::advance`].
    pub(crate) async fn open(
        issuer: Issuer,
        disk: DiskKeys,
        store: &Store,
        x509: Arc<TrustBundle>,
        now: Timestamp,
    ) -> Result<Self, FederationError> {
        let rows = store
            .jwt_keys()
            .await
            .map_err(|source| FederationError::Store { source })?;
        let set = KeySet::load(rows, &disk, &issuer, &x509, now)?;
        Ok(Self {
            issuer,
            disk,
            x509,
            set: ArcSwap::from_pointee(set),
        })
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The SPIFFE bundle with both kinds of keys, and the keys alone for relying parties that know no SPIFFE.
    pub(crate) fn bundle(&self) -> Arc<TrustBundle> {
        Arc::clone(self.set.load().bundle())
    }

    /// Sets the gauges.
    pub(crate) fn refresh_gauges(&self, core: &Core) {
        let (set, gauges) = (self.set.load(), &core.metrics.federation);
        gauges.keys.set(i64::try_from(set.rows().len()).unwrap_or(i64::MAX));
        let signing = schedule::signing(&set.plans(), core.now());
        let since = set.rows().get(signing).map(|row| row.signs_from.unix_seconds());
        gauges.signs_since.set(since.unwrap_or_default());
        let certificate = core.endpoint.as_ref().and_then(Endpoint::certificate_not_after);
        gauges.certificate_not_after.set(certificate.unwrap_or_default());
    }

    /// Says how it is.
    pub(crate) fn status(&self, core: &Core) -> FederationStatus {
        let (set, now) = (self.set.load(), core.now());
        let plans = set.plans();
        let signing = schedule::signing(&plans, now);
        let keys = set.rows().iter().enumerate().map(|(place, row)| JwtKeyStatus {
            key_id: row.authority.key_id().to_owned(),
            state: match place.cmp(&signing) {
                std::cmp::Ordering::Less => JwtKeyState::Old,
                std::cmp::Ordering::Equal => JwtKeyState::Signing,
                std::cmp::Ordering::Greater => JwtKeyState::Next,
            },
            published: row.published,
            signs_from: row.signs_from,
            gone: schedule::ends(&plans, place),
        });
        FederationStatus {
            issuer: self.issuer.to_string(),
            keys: keys.collect(),
            tokens: core.metrics.issued.with_label_values(&["jwt", "issued"]).get(),
            endpoint: core.endpoint.as_ref().map(|endpoint| endpoint.status(&self.issuer)),
        }
    }
}
