//! The node SVID: found on disk, joined for, renewed.

use std::error::Error;
use std::sync::Arc;

use audit::EventKind;
use ca_api::proxy_admin::{Replayed, TokenLook};
use spiffe::time::Timestamp;
use spiffe_tls::{PrivateKey, Svid};

use super::StartError;
use super::backoff::{Backoff, random_u32};
use super::join::{Applicant, Attested, JoinError, read_token};
use super::rotation::Jitter;
use super::shared::{Node, Shared};
use super::snapshot::{BundleRefusal, Change};
use super::state_dir::{SavedSvid, StateDir};
use super::svids::next_renewal;

/// How sure the link is of the node SVID that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The CA took it when it was last used.
    Taken,
    /// The CA refused it when it was last used.
    Refused,
}

/// Finds the node SVID that was kept. One that has ended is as good as a valid
/// one: its key proves this host.
pub(super) fn find(shared: &Shared) -> Result<(), StartError> {
    let failed = |source| StartError::State { source };
    let Some(saved) = shared.files.node().map_err(failed)? else {
        return Ok(());
    };
    let path = shared.files.node_file();
    let key = PrivateKey::from_pkcs8(&saved.key).map_err(|source| StartError::NodeKey {
        path: path.clone(),
        source,
    })?;
    let svid = Svid::new(saved.chain, key).map_err(|source| StartError::NodeSvid {
        path: path.clone(),
        source,
    })?;
    if *svid.leaf().id() != shared.node_id() {
        return Err(StartError::OtherHost {
            path,
            kept: svid.leaf().id().clone(),
            host: shared.config.host.clone(),
        });
    }
    shared.set_node(Some(node(svid, shared.time.now())));
    Ok(())
}

fn node(svid: Svid, now: Timestamp) -> Node {
    let renew_at = next_renewal(svid.leaf(), now, Jitter(random_u32()));
    Node { svid, renew_at }
}

/// Makes sure that there is a node SVID which the CA can be expected to take.
pub(super) async fn ensure(shared: &Shared, trust: Trust) -> Result<(), JoinError> {
    let Some(held) = shared.node() else {
        return join(shared).await;
    };
    let now = shared.time.now();
    if trust == Trust::Taken && now < held.svid.leaf().not_after() {
        return Ok(());
    }
    match renew_once(shared, &held).await {
        // The key is worth nothing to the CA. An operator may have left a token.
        Err(JoinError::Refused { message }) => match join(shared).await {
            Err(JoinError::NoToken { .. }) => Err(JoinError::Refused { message }),
            other => other,
        },
        other => other,
    }
}

/// Renews the node SVID when it is time, and returns once the next is in use.
pub(super) async fn renew(shared: &Shared) {
    let mut backoff = Backoff::new();
    loop {
        let Some(held) = shared.node() else {
            return std::future::pending().await;
        };
        shared.time.clock().sleep_until(held.renew_at).await;
        match renew_once(shared, &held).await {
            Ok(()) => {
                shared.counts.svids(1, 0);
                return;
            }
            Err(error) => {
                shared.counts.svids(0, 1);
                tracing::warn!(error = &error as &dyn Error, not_after = %held.svid.leaf().not_after(), "the node SVID was not renewed");
            }
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

async fn renew_once(shared: &Shared, held: &Node) -> Result<(), JoinError> {
    let attested = applicant(shared)
        .by_key(held.svid.key(), &shared.snapshot().bundle)
        .await?;
    install(shared, attested, EventKind::Attested).await
}

/// Joins by the token in the token file. The key is on disk before the CA hears of
/// it, so a lost answer, or a crash, asks again with the key that claimed the token.
pub(super) async fn join(shared: &Shared) -> Result<(), JoinError> {
    let token = read_token(&shared.config.token_file, &shared.config.host)?;
    let key = join_key(&shared.files)?;
    let attested = applicant(shared).by_token(&token, key).await?;
    install(shared, attested, EventKind::HostJoined).await?;
    shared.link().evicted = false;
    Ok(())
}

/// Uses the join token once more, with a key that nobody keeps, where its file is still there: the CA must refuse it.
/// Tried only while this host holds a key that the CA takes, because the token could be a new one otherwise, and would
/// be used up.
pub(super) async fn replay(shared: &Shared) -> Option<TokenLook> {
    let path = &shared.config.token_file;
    let token = match read_token(path, &shared.config.host) {
        Err(JoinError::NoToken { .. }) => return None,
        read => read,
    };
    let held = shared.node().map(|node| node.svid.leaf().not_after());
    let joined = held.is_some_and(|end| shared.time.now() < end) && shared.link().connected.is_some();
    let replayed = match (token, PrivateKey::generate()) {
        (Err(error), _) => Replayed::Untried(super::chain_of(&error)),
        (_, Err(error)) => Replayed::Untried(super::chain_of(&error)),
        (Ok(_), Ok(_)) if !joined => Replayed::Untried("this host is not connected to its CA".to_owned()),
        (Ok(token), Ok(key)) => match applicant(shared).by_token(&token, key).await {
            Ok(_attested) => Replayed::Accepted,
            Err(JoinError::Refused { .. } | JoinError::TokenExpired { .. }) => Replayed::Refused,
            Err(error) => Replayed::Untried(super::chain_of(&error)),
        },
    };
    Some(TokenLook {
        file: path.display().to_string(),
        replayed,
    })
}

fn join_key(files: &StateDir) -> Result<PrivateKey, JoinError> {
    let unusable = |source| JoinError::Key { source };
    let failed = |source| JoinError::State { source };
    if let Some(kept) = files.join_key().map_err(failed)? {
        return PrivateKey::from_pkcs8(&kept).map_err(unusable);
    }
    let key = PrivateKey::generate().map_err(unusable)?;
    files
        .save_join_key(&key.to_pkcs8().map_err(unusable)?)
        .map_err(failed)?;
    Ok(key)
}

fn applicant(shared: &Shared) -> Applicant<'_> {
    Applicant {
        dialer: &shared.dialer,
        clock: &shared.clock,
        trust_domain: &shared.config.trust_domain,
        host: &shared.config.host,
    }
}

/// Why the trust bundle of an attestation is not in use.
enum Unbundled {
    Refused(BundleRefusal),
    NotKept(JoinError),
}

/// Records, keeps and uses, in this order. The bundle is kept first: a node SVID
/// without one could not find its CA again.
async fn install(shared: &Shared, attested: Attested, kind: EventKind) -> Result<(), JoinError> {
    let Attested { svid, bundle, ca_time } = attested;
    let bundled = shared.change(|now| {
        let change = now.with_bundle(None, &bundle).map_err(Unbundled::Refused)?;
        if let Change::Next(next) = &change {
            let kept = shared.files.save_bundle(&next.bundle_to_save());
            kept.map_err(|source| Unbundled::NotKept(JoinError::State { source }))?;
        }
        Ok(change)
    });
    match bundled {
        Ok(_cut) => {}
        Err(Unbundled::NotKept(error)) => return Err(error),
        Err(Unbundled::Refused(error)) => tracing::warn!(
            error = &error as &dyn Error,
            "the trust bundle of an attestation was not taken"
        ),
    }
    shared
        .record_svid(kind, svid.leaf())
        .map_err(|source| JoinError::Record { source })?;
    let key = svid.key().to_pkcs8().map_err(|source| JoinError::Key { source })?;
    let saved = SavedSvid {
        key,
        chain: svid.chain().to_vec(),
    };
    shared
        .files
        .save_node(&saved)
        .map_err(|source| JoinError::State { source })?;
    tracing::info!(serial = %svid.leaf().serial(), not_after = %svid.leaf().not_after(), "new node SVID");
    shared.set_node(Some(node(svid, shared.time.now())));
    shared.heard_time(ca_time).await;
    Ok(())
}

/// Asks until the CA answers, or until an operator is needed.
pub(super) async fn join_first(shared: &Arc<Shared>) -> Result<(), JoinError> {
    let mut backoff = Backoff::new();
    loop {
        match join(shared).await {
            Err(error) if error.is_passing() => {
                let wait = backoff.next();
                tracing::warn!(error = &error as &dyn Error, retry_in = ?wait, "waiting to join");
                shared.link().error = Some(super::chain_of(&error));
                tokio::time::sleep(wait).await;
            }
            other => return other,
        }
    }
}
