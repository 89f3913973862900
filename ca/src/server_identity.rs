//! The CA server's own SVID: a key that never leaves memory, renewed at half life.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use spiffe::bundle::TrustBundle;
use spiffe::id::SpiffeId;
use spiffe::time::Timestamp;
use spiffe_tls::{BundleSource, KeyError, PrivateKey, ServerIdentity, Svid, TlsError};

use crate::core::{Core, SERVER_SVID_TTL};
use crate::issue::{IssueError, Order};

/// How long a failed renewal waits: the old SVID has half an hour left.
const RETRY: Duration = Duration::from_secs(30);

/// Serves whatever SVID is newest.
#[derive(Debug)]
pub(crate) struct OwnIdentity {
    current: ArcSwap<CertifiedKey>,
}

/// Why the CA has no SVID of its own.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It could not be issued.
    #[error("issue the CA's own SVID")]
    Issue {
        /// Why.
        #[source]
        source: IssueError,
    },
    /// Its key could not be made.
    #[error("make the key of the CA's own SVID")]
    Key {
        /// Why.
        #[source]
        source: KeyError,
    },
    /// It could not be taken into use.
    #[error("use the CA's own SVID")]
    Use {
        /// Why.
        #[source]
        source: TlsError,
    },
}

impl ServerIdentity for OwnIdentity {
    /// Any name: hosts may reach the CA by whatever address works for them, and
    /// check its SPIFFE ID.
    fn resolve(&self, _sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl OwnIdentity {
    /// Issues the first SVID.
    pub(crate) async fn start(core: &Arc<Core>) -> Result<(Arc<Self>, Timestamp), IdentityError> {
        let svid = new_svid(core).await?;
        let ends = svid.leaf().not_after();
        Ok((
            Arc::new(Self {
                current: ArcSwap::new(svid.certified_key()),
            }),
            ends,
        ))
    }

    /// Renews until the CA ends.
    pub(crate) async fn keep(self: Arc<Self>, core: Arc<Core>, mut ends: Timestamp) {
        loop {
            let due = ends - SERVER_SVID_TTL / 2;
            // Cancel safe: nothing is held across the wait.
            tokio::select! {
                () = core.cancel.cancelled() => return,
                () = core.clock.sleep_until(due) => {}
            }
            match new_svid(&core).await {
                Ok(svid) => {
                    ends = svid.leaf().not_after();
                    self.current.store(svid.certified_key());
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the CA's own SVID was not renewed"
                    );
                    tokio::select! {
                        () = core.cancel.cancelled() => return,
                        () = core.clock.sleep(RETRY) => {}
                    }
                }
            }
        }
    }
}

async fn new_svid(core: &Arc<Core>) -> Result<Svid, IdentityError> {
    let key = PrivateKey::generate().map_err(|source| IdentityError::Key { source })?;
    let id = SpiffeId::for_ca(core.trust_domain(), core.server());
    let order = Order {
        id,
        spki: key.spki_der(),
        ttl: SERVER_SVID_TTL,
    };
    let issued = core
        .issue(vec![order], core.server())
        .await
        .map_err(|source| IdentityError::Issue { source })?;
    // The root goes along, so that a joining host can compare it with its token's pins.
    let chain = issued
        .into_iter()
        .map(|issued| issued.der)
        .chain([core.authority.certificate().to_vec()])
        .collect();
    let svid = Svid::new(chain, key).map_err(|source| IdentityError::Use { source })?;
    core.metrics.issued.with_label_values(&["ca", "issued"]).inc();
    Ok(svid)
}

/// The trust bundle, for the verifier of client certificates.
#[derive(Debug)]
pub(crate) struct OwnBundle(pub(crate) Arc<Core>);

impl BundleSource for OwnBundle {
    fn current(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.0.bundle)
    }
}
