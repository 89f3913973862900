//! What a restart finds: the last slice, trust bundle and endpoints. Each passes
//! the same checks as if the CA had just said it, and one that does not is left.

use std::error::Error;

use super::quarantine::is_in_force;
use super::shared::Shared;
use super::snapshot::{OfferedSlice, Snapshot};
use super::state_dir::StateError;

/// Puts what was kept into force.
pub(super) fn load(shared: &Shared) {
    bundle(shared);
    slice(shared);
    match shared.files.endpoints() {
        Ok(Some(saved)) => {
            shared.publish(|now| now.with_saved(saved));
        }
        Ok(None) => {}
        Err(error) => {
            tracing::error!(
                error = &error as &dyn Error,
                "the quarantines that were kept cannot be read: nobody calls here until the CA has told them"
            );
            shared.publish(Snapshot::with_quarantines_unknown);
        }
    }
}

/// Puts the quarantines of this host into force. Without them nothing may start: somebody would be released.
pub(super) fn local_quarantines(shared: &Shared) -> Result<(), StateError> {
    let (mut kept, now) = (shared.files.local_quarantines()?, shared.time.now());
    kept.retain(|_, quarantine| is_in_force(quarantine, now));
    shared.set_local(kept);
    Ok(())
}

fn bundle(shared: &Shared) {
    let saved = match shared.files.bundle() {
        Ok(Some(saved)) => saved,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn Error,
                "the trust bundle that was kept is not used"
            );
            return;
        }
    };
    if let Err(error) = shared.change(|now| now.with_bundle(Some(saved.epoch), saved.jwks.as_bytes())) {
        tracing::warn!(
            error = &error as &dyn Error,
            "the trust bundle that was kept is not used"
        );
    }
}

fn slice(shared: &Shared) {
    let saved = match shared.files.slice() {
        Ok(Some(saved)) => saved,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(error = &error as &dyn Error, "the slice that was kept is not used");
            return;
        }
    };
    match shared.change(|now| now.with_slice(&OfferedSlice::from_saved(saved))) {
        Ok(Some(_cut)) => {
            tracing::info!(generation = %shared.snapshot().generation, "the policy that was kept is in force")
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(error = &error as &dyn Error, "the slice that was kept is not used"),
    }
}
