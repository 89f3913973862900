//! Cosigning the heads of hosts' ledgers (C2SP tlog-witness): so that no host can cut its past off unseen.
//!
//! A ledger that is not the one that was cosigned stops nothing. It is recorded and raises an alert, and the host begins a
//! new epoch of its own accord.

use std::sync::Arc;

use audit::hash::Hash;
use audit::key::KeyName;
use audit::note::Note;
use audit::proof::PROOF_HASHES_MAX;
use audit::witness::Refused;
use audit::{EventKind, VerifierKey};
use ca_api::node::{CosignRequest, CosignResponse};
use serde_json::json;
use tokio::time::Instant;
use tonic::Status;

use super::caller::Caller;
use super::witness;
use crate::alerts::AlertKind;
use crate::core::Core;
use crate::refusals::HostRefusal;
use crate::store::{Cosigned, HeadRow, ToldHead};

/// A signed note over a checkpoint is a few hundred bytes.
const NOTE_BYTES_MAX: usize = 4 * 1024;

/// The text of a verifier key: a name of at most 512 bytes, and 60 more.
const VKEY_BYTES_MAX: usize = 1024;

/// What a head is charged, in messages: its signature and its proof are checked, and the store is asked.
pub(super) const COST: u64 = 32;

/// What a host hears that has told a head so shortly before.
const TOO_SOON: &str = "too_soon";

pub(super) async fn cosign(
    core: &Arc<Core>,
    caller: &Caller,
    request: CosignRequest,
) -> Result<CosignResponse, Status> {
    if !core.messages.take(&caller.host, COST, Instant::now()) {
        core.host_refused(&caller.host, caller.source, HostRefusal::TooManyMessages, "");
        return Err(Status::resource_exhausted(
            "more than a host has to tell; try again later",
        ));
    }
    let told = match read(core, caller, &request) {
        Ok(told) => told,
        Err((refusal, what)) => {
            core.host_refused(&caller.host, caller.source, refusal, what);
            return Err(Status::invalid_argument("not the head of this host's ledger"));
        }
    };
    let outcome = core.store.cosign(told, Arc::clone(&core.cosigner), core.now()).await;
    let outcome = outcome.map_err(|error| unavailable(caller, &error))?;
    // An eviction that came meanwhile has the last word.
    if !core.holds(caller) {
        core.key_refused(&caller.host, caller.source);
        return Err(Status::permission_denied("the host may not act any more"));
    }
    Ok(match outcome {
        Cosigned::Yes { row, ended } => {
            record(core, caller, &row, ended).map_err(|error| unavailable(caller, &error))?;
            answer(core, caller, row, "").await
        }
        Cosigned::Before(row) => answer(core, caller, row, "").await,
        Cosigned::TooSoon(row) => answer(core, caller, row, TOO_SOON).await,
        Cosigned::No { why, last } => {
            refused(core, caller, &why);
            CosignResponse {
                cosigned: String::new(),
                refusal: why.as_str().to_owned(),
                epoch: last.as_ref().map_or(0, |row| row.seen.epoch),
                size: last.as_ref().map_or(0, |row| row.seen.size),
                cosigner: core.cosigner.verifier().to_string(),
                witnesses: Vec::new(),
            }
        }
    })
}

/// Reads what was told, within its bounds.
fn read<'a>(core: &Core, caller: &Caller, request: &'a CosignRequest) -> Result<ToldHead, (HostRefusal, &'a str)> {
    let unreadable = (HostRefusal::CheckpointUnreadable, "");
    if request.note.len() > NOTE_BYTES_MAX
        || request.vkey.len() > VKEY_BYTES_MAX
        || request.proof.len() > PROOF_HASHES_MAX
    {
        return Err(unreadable);
    }
    let hash = |bytes: &Vec<u8>| {
        <[u8; Hash::BYTES]>::try_from(bytes.as_slice())
            .ok()
            .map(Hash::from_bytes)
    };
    let proof: Option<Vec<Hash>> = request.proof.iter().map(hash).collect();
    let ledger = format!("{}/host/{}", core.trust_domain(), caller.host);
    Ok(ToldHead {
        host: caller.host.clone(),
        ledger: KeyName::parse(&ledger).map_err(|_invalid| unreadable)?,
        key: VerifierKey::parse(&request.vkey).map_err(|_invalid| unreadable)?,
        note: Note::parse(request.note.as_bytes()).map_err(|_invalid| unreadable)?,
        old: request.old_size,
        proof: proof.ok_or(unreadable)?,
    })
}

async fn answer(core: &Core, caller: &Caller, row: HeadRow, refusal: &str) -> CosignResponse {
    CosignResponse {
        witnesses: witness::of_host(core, caller, &row).await,
        cosigned: if refusal.is_empty() { row.note } else { String::new() },
        refusal: refusal.to_owned(),
        epoch: row.seen.epoch,
        size: row.seen.size,
        cosigner: core.cosigner.verifier().to_string(),
    }
}

/// Writes into the CA's ledger what was cosigned: the host's head is in it from then on.
fn record(core: &Core, caller: &Caller, row: &HeadRow, ended: Option<u32>) -> Result<(), crate::journal::JournalError> {
    let host = format!("host:{}", caller.host);
    let detail = [
        ("ledger", json!(row.seen.key.name().as_str())),
        ("vkey", json!(row.seen.key.to_string())),
        ("size", json!(row.seen.size)),
        ("root", json!(crate::hex(row.seen.root.as_bytes()))),
        ("ended_epoch", json!(ended)),
    ];
    core.journal.event(EventKind::CheckpointCosigned, "ca", &host, detail)?;
    core.metrics.heads.cosigned.with_label_values(&["cosigned"]).inc();
    core.cosigned_times.cosigned(&caller.host, row.at);
    if ended.is_some() {
        core.alert(&caller.host, AlertKind::LedgerBegunAnew, vec![caller.source]);
    }
    Ok(())
}

/// Tells of a ledger that is not the one that was cosigned. One that only does not know where the CA stands is no such.
fn refused(core: &Core, caller: &Caller, why: &Refused) {
    core.metrics.heads.cosigned.with_label_values(&[why.as_str()]).inc();
    let refusal = match why {
        Refused::Behind { .. } => return,
        Refused::Checkpoint { .. } => HostRefusal::CheckpointUnreadable,
        Refused::OtherLedger => HostRefusal::CheckpointNotYours,
        Refused::OldEpoch { .. } => HostRefusal::LedgerOldEpoch,
        Refused::OtherKey => HostRefusal::LedgerOtherKey,
        Refused::Shrunken { .. } => HostRefusal::LedgerShrunken,
        Refused::Forked { .. } => HostRefusal::LedgerForked,
    };
    core.host_refused(&caller.host, caller.source, refusal, &why.to_string());
    if !matches!(
        refusal,
        HostRefusal::CheckpointUnreadable | HostRefusal::CheckpointNotYours
    ) {
        core.alert(&caller.host, AlertKind::LedgerSetBack, vec![caller.source]);
    }
}

fn unavailable(caller: &Caller, error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(host = %caller.host, error, "a head was not cosigned");
    Status::unavailable("the CA could not cosign; try again")
}
