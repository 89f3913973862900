//! What every part of the running CA shares.

use std::sync::Arc;
use std::time::Duration;

use audit::CosignerKey;
use ca_api::Generation;
use spiffe::bundle::TrustBundle;
use spiffe::id::{HostName, TrustDomain};
use spiffe::time::{Clock, Timestamp};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alerts::Alerts;
use crate::authority::Authority;
use crate::config::Settings;
use crate::federation::{Endpoint, Federation};
use crate::heads::CosignedTimes;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::observed::Observed;
use crate::quarantine::Quarantines;
use crate::questions::Questions;
use crate::quota::{Messages, Quotas};
use crate::refusals::Refusals;
use crate::rotation::Rotations;
use crate::run::Addresses;
use crate::store::{Meta, Store};
use crate::watch::Watching;
use crate::webhook::Webhook;
use crate::witness::Witnesses;
use crate::world::World;

/// How many batches are signed at once; more wait, and beyond
/// [`SIGNING_QUEUE_MAX`] are told to come back.
const SIGNING_MAX: usize = 8;

/// How many batches wait for a signature.
pub(crate) const SIGNING_QUEUE_MAX: usize = 256;

/// The parts.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) meta: Meta,
    pub(crate) addresses: Addresses,
    pub(crate) started: Timestamp,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) authority: Arc<Authority>,
    pub(crate) bundle: Arc<TrustBundle>,
    /// Without it there are no JWT-SVIDs.
    pub(crate) federation: Option<Arc<Federation>>,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) world: World,
    pub(crate) quarantines: Quarantines,
    pub(crate) rotations: Rotations,
    pub(crate) questions: Arc<Questions>,
    pub(crate) alerts: Alerts,
    pub(crate) refusals: Refusals,
    pub(crate) observed: Observed,
    pub(crate) watching: Watching,
    pub(crate) webhook: Option<Webhook>,
    pub(crate) journal: Journal,
    pub(crate) cosigner: Arc<CosignerKey>,
    pub(crate) cosigned_times: CosignedTimes,
    pub(crate) witnesses: Witnesses,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: TaskTracker,
    pub(crate) cancel: CancellationToken,
    pub(crate) quotas: Quotas,
    pub(crate) messages: Messages,
    pub(crate) signing: Semaphore,
    pub(crate) signing_queue: Semaphore,
    /// One change of the mesh at a time.
    pub(crate) applying: tokio::sync::Mutex<()>,
}

impl Core {
    pub(crate) fn signing_permits() -> (Semaphore, Semaphore) {
        (Semaphore::new(SIGNING_MAX), Semaphore::new(SIGNING_QUEUE_MAX))
    }

    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.meta.trust_domain
    }

    pub(crate) fn server(&self) -> &HostName {
        &self.meta.server
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn generation(&self) -> Generation {
        self.world.live().generation
    }
}

/// How long a node SVID lasts. An hour, like a bot's: a stolen host key is worth an
/// hour after eviction to whoever does not ask the CA, and a CA that is away for
/// half of it ends no host.
pub(crate) const NODE_SVID_TTL: Duration = Duration::from_hours(1);

/// How long the CA server's own SVID lasts.
pub(crate) const SERVER_SVID_TTL: Duration = Duration::from_hours(1);
