//! Keeps the SVIDs of this host's bots warm: asks for what is missing, and for the
//! next one of each between 35 % and 45 % of its life, with a new key each time.

use std::convert::Infallible;
use std::time::Duration;

use audit::EventKind;
use ca_api::node::node_client::NodeClient;
use ca_api::node::{ISSUE_BATCH_MAX, IssueRequest, SvidRequest, SvidResult};
use spiffe::id::{BotName, SpiffeId};
use spiffe_tls::{KeyError, PrivateKey, Svid, TlsError};
use tonic::transport::Channel;

use super::backoff::{Backoff, random_u32};
use super::rotation::Jitter;
use super::shared::Shared;
use super::svids::Installed;

/// From question to answer, of one batch.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why one bot got no SVID.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssueError {
    #[error("the CA refused: {message}")]
    Refused { message: String },
    #[error("the CA did not answer: {message}")]
    NoAnswer { message: String },
    #[error("the CA answered something else than was asked")]
    OutOfOrder,
    #[error("make a key: {source}")]
    Key { source: KeyError },
    #[error("the SVID is not usable: {source}")]
    Svid { source: TlsError },
    #[error("the SVID is for {got}")]
    OtherId { got: SpiffeId },
    #[error("the SVID ended before it came")]
    Ended,
    #[error("record the SVID: {source}")]
    Record { source: audit::LedgerError },
}

/// Asks whenever something is due, until the connection ends around it. Losing it
/// midway loses at most the answer to one question, which is asked again.
pub(super) async fn keep_warm(shared: &Shared, client: NodeClient<Channel>) -> Infallible {
    let mut backoff = Backoff::new();
    loop {
        let due = shared.svids.due(shared.time.now());
        if due.is_empty() {
            wait_for_due(shared).await;
            continue;
        }
        if issue_all(shared, &client, &due).await {
            backoff.reset();
            continue;
        }
        // A new slice may be the answer to a refusal: it ends the wait.
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = shared.svids_wanted.notified() => {}
        }
    }
}

async fn wait_for_due(shared: &Shared) {
    let due = async {
        match shared.svids.next_due() {
            Some(at) => shared.time.clock().sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = due => {}
        () = shared.svids_wanted.notified() => {}
    }
}

/// Asks for all of them, and says whether all came.
async fn issue_all(shared: &Shared, client: &NodeClient<Channel>, due: &[BotName]) -> bool {
    let mut all = true;
    for batch in due.chunks(ISSUE_BATCH_MAX) {
        let failures = issue_batch(shared, client.clone(), batch).await;
        for (bot, error) in &failures {
            tracing::warn!(%bot, %error, "no new SVID");
        }
        shared
            .counts
            .svids(batch.len().saturating_sub(failures.len()), failures.len());
        all &= failures.is_empty();
        shared
            .svids
            .failed(failures.into_iter().map(|(bot, error)| (bot, error.to_string())));
        shared.touch();
    }
    all
}

async fn issue_batch(
    shared: &Shared,
    mut client: NodeClient<Channel>,
    batch: &[BotName],
) -> Vec<(BotName, IssueError)> {
    let mut failures = Vec::new();
    let mut asked = Vec::new();
    let mut svids = Vec::new();
    for bot in batch {
        match prepare(shared, bot) {
            Ok((key, csr)) => {
                asked.push((bot.clone(), key));
                svids.push(SvidRequest {
                    bot: bot.to_string(),
                    csr,
                });
            }
            Err(source) => failures.push((bot.clone(), IssueError::Key { source })),
        }
    }
    let results = match tokio::time::timeout(ISSUE_TIMEOUT, client.issue(IssueRequest { svids })).await {
        Ok(Ok(answer)) => answer.into_inner().results,
        Ok(Err(status)) => return fail_all(failures, asked, status.message()),
        Err(_elapsed) => return fail_all(failures, asked, "it took too long"),
    };
    let mut results = results.into_iter();
    for (bot, key) in asked {
        if let Err(error) = accept(shared, &bot, key, results.next()) {
            failures.push((bot, error));
        }
    }
    failures
}

fn prepare(shared: &Shared, bot: &BotName) -> Result<(PrivateKey, Vec<u8>), KeyError> {
    let key = PrivateKey::generate()?;
    let csr = key.csr(&SpiffeId::for_bot(&shared.config.trust_domain, bot))?;
    Ok((key, csr))
}

fn fail_all(
    mut failures: Vec<(BotName, IssueError)>,
    asked: Vec<(BotName, PrivateKey)>,
    message: &str,
) -> Vec<(BotName, IssueError)> {
    let failed = asked.into_iter().map(|(bot, _)| {
        (
            bot,
            IssueError::NoAnswer {
                message: message.to_owned(),
            },
        )
    });
    failures.extend(failed);
    failures
}

/// Checks one answer, records it, and puts it into use, in this order: an SVID
/// that is not in the ledger is not used.
fn accept(shared: &Shared, bot: &BotName, key: PrivateKey, result: Option<SvidResult>) -> Result<(), IssueError> {
    let Some(result) = result.filter(|result| result.bot == bot.as_str()) else {
        return Err(IssueError::OutOfOrder);
    };
    if !result.refusal.is_empty() {
        return Err(IssueError::Refused {
            message: format!("{}: {}", result.refusal, result.message),
        });
    }
    let svid = Svid::new(result.chain, key).map_err(|source| IssueError::Svid { source })?;
    let id = SpiffeId::for_bot(&shared.config.trust_domain, bot);
    if *svid.leaf().id() != id {
        return Err(IssueError::OtherId {
            got: svid.leaf().id().clone(),
        });
    }
    if svid.leaf().not_after() <= shared.time.now() {
        return Err(IssueError::Ended);
    }
    let kind = if shared.svids.has(bot) {
        EventKind::SvidRenewed
    } else {
        EventKind::Issued
    };
    shared
        .record_svid(kind, svid.leaf())
        .map_err(|source| IssueError::Record { source })?;
    match shared.svids.install(bot, svid, shared.time.now(), Jitter(random_u32())) {
        Installed::Yes => tracing::debug!(%bot, "new SVID in use"),
        Installed::NotWanted => tracing::debug!(%bot, "an SVID came after its bot had left"),
    }
    Ok(())
}
