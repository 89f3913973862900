//! The SVIDs that a restart finds: which of them are used, and how they are kept.
//!
//! What is on disk is believed no more than what a stranger says, except that
//! whoever can write there can read this process's keys anyway: the key must be the
//! leaf's, the chain must lead to an authority that this host trusts now, the SVID
//! must not have ended by the time of this host, and the bot must be one that the
//! slice in force lets this host claim.

use std::error::Error;
use std::sync::Arc;

use spiffe::id::{BotName, IdKind, SpiffeId};
use spiffe_tls::{HandshakeRefusal, KeyError, PrivateKey, Svid, TlsError};

use super::backoff::random_u32;
use super::rotation::Jitter;
use super::shared::Shared;
use super::state_dir::{SavedSvid, StateDir, StateError};
use super::svids::Installed;

/// Why an SVID that was kept is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("its key cannot be read")]
    Key {
        #[source]
        source: KeyError,
    },
    #[error("chain and key do not belong together")]
    Svid {
        #[source]
        source: TlsError,
    },
    #[error("{id} is no bot")]
    NoBot { id: SpiffeId },
    #[error("the SVID of {bot} has ended")]
    Ended { bot: BotName },
    #[error("the SVID of {bot} is not of an authority that this host trusts")]
    Untrusted {
        bot: BotName,
        #[source]
        source: HandshakeRefusal,
    },
    #[error("this host may not claim {bot} any more")]
    NotClaimable { bot: BotName },
}

/// Puts what was kept into use, and says what is not.
pub(super) fn load(shared: &Shared) {
    let saved = match shared.files.svids() {
        Ok(saved) => saved,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn Error,
                "the bots' SVIDs that were kept are not used"
            );
            return;
        }
    };
    let (file, count) = (shared.files.svids_file(), saved.len());
    let mut used = 0_usize;
    for saved in saved {
        match take(shared, saved) {
            Ok(()) => used += 1,
            Err(error) => tracing::warn!(error = &error as &dyn Error, "an SVID that was kept is not used"),
        }
    }
    tracing::info!(
        file = %file.display(), kept = count, used,
        "the bots' SVIDs and keys are kept in a 0600 file; nothing else seals it (no TPM)"
    );
}

fn take(shared: &Shared, saved: SavedSvid) -> Result<(), Unusable> {
    let key = PrivateKey::from_pkcs8(&saved.key).map_err(|source| Unusable::Key { source })?;
    let svid = Svid::new(saved.chain, key).map_err(|source| Unusable::Svid { source })?;
    let IdKind::Bot(bot) = svid.leaf().id().kind() else {
        return Err(Unusable::NoBot {
            id: svid.leaf().id().clone(),
        });
    };
    let now = shared.time.now();
    if svid.leaf().not_after() <= now {
        return Err(Unusable::Ended { bot });
    }
    if let Err(source) = svid.verify(&shared.snapshot().bundle, now) {
        return Err(Unusable::Untrusted { bot, source });
    }
    match shared.svids.install(&bot, svid, now, Jitter(random_u32())) {
        Installed::Yes => Ok(()),
        Installed::NotWanted => Err(Unusable::NotClaimable { bot }),
    }
}

/// Writes all SVIDs that are held now.
pub(super) fn save(shared: &Arc<Shared>, files: &StateDir) -> Result<(), StateError> {
    files.save_svids(|| {
        let saved = |svid: &Arc<Svid>| match svid.key().to_pkcs8() {
            Ok(key) => Some(SavedSvid {
                key,
                chain: svid.chain().to_vec(),
            }),
            Err(error) => {
                tracing::warn!(id = %svid.leaf().id(), error = &error as &dyn Error, "an SVID is not kept for a restart");
                None
            }
        };
        shared.svids.all().iter().filter_map(saved).collect()
    })
}
