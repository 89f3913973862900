//! Carrying the head of a host's ledger to a witness outside. The CA adds nothing and can leave nothing out that would be
//! believed: the witness judges the ledger's own signature and the proof, and its cosignature is checked by its key wherever
//! it is read.

use std::sync::Arc;

use audit::Checkpoint;
use audit::hash::Hash;
use audit::key::KeyName;
use audit::note::Note;
use audit::proof::{PROOF_HASHES_MAX, extends};
use audit::witness::http::NotCosigned;
use ca_api::node::{KnownWitness, WitnessRequest, WitnessResponse};
use tokio::time::Instant;
use tonic::Status;

use super::caller::Caller;
use super::cosign::COST;
use crate::alerts::AlertKind;
use crate::core::Core;
use crate::refusals::HostRefusal;
use crate::store::{HeadRow, WitnessedRow};
use crate::witness::{NotWitnessed, Submission, Witness};

/// What a host hears that names none of the witnesses: the configuration is another one since it asked.
const NO_SUCH_WITNESS: &str = "no_such_witness";

/// What a host hears whose head is not the one that was cosigned last.
const NOT_COSIGNED: &str = "not_cosigned";

pub(super) async fn witness(
    core: &Arc<Core>,
    caller: &Caller,
    request: WitnessRequest,
) -> Result<WitnessResponse, Status> {
    if !core.messages.take(&caller.host, COST, Instant::now()) {
        core.host_refused(&caller.host, caller.source, HostRefusal::TooManyMessages, "");
        return Err(Status::resource_exhausted(
            "more than a host has to tell; try again later",
        ));
    }
    let unreadable = || {
        core.host_refused(&caller.host, caller.source, HostRefusal::CheckpointUnreadable, "");
        Status::invalid_argument("not a proof about the head of this host's ledger")
    };
    let proof = hashes(&request.proof).ok_or_else(unreadable)?;
    let Some(witness) = core.witnesses.of_key(&request.vkey) else {
        return Ok(refused(NO_SUCH_WITNESS, 0));
    };
    let row = newest(core, caller).await?;
    let Some(row) = row.filter(|row| row.seen.size == request.size) else {
        return Ok(refused(NOT_COSIGNED, 0));
    };
    let ledger = ledger(core, caller).ok_or_else(unreadable)?;
    let known = known(core, caller, &ledger, &row, witness).await?;
    if let Some(known) = known {
        if known.size == row.seen.size {
            return Ok(cosigned(known.note));
        }
        // Where the CA knows what the witness has cosigned it judges as that will.
        let old = Checkpoint::open(known.note.as_bytes(), &row.seen.key).ok();
        let old = old.filter(|old| old.size == request.old_size);
        let new = (row.seen.size, &row.seen.root);
        if old.is_some_and(|old| !extends((old.size, &old.root), new, &proof)) {
            return Err(unreadable());
        }
    }
    let told = Submission {
        ledger,
        epoch: row.seen.epoch,
        note: Note::parse(row.note.as_bytes()).map_err(|error| unavailable(caller, &error))?,
        checkpoint: Checkpoint {
            origin: row.seen.key.name().clone(),
            size: row.seen.size,
            root: row.seen.root,
        },
        old: request.old_size,
        proof,
    };
    let outcome = core.submit(witness, told).await;
    // An eviction that came meanwhile has the last word.
    if !core.holds(caller) {
        core.key_refused(&caller.host, caller.source);
        return Err(Status::permission_denied("the host may not act any more"));
    }
    Ok(match outcome {
        Ok(row) => cosigned(row.note),
        Err(error) => answer(core, caller, &error),
    })
}

/// What the CA says of its witnesses to a host whose head it has cosigned.
pub(super) async fn of_host(core: &Core, caller: &Caller, row: &HeadRow) -> Vec<KnownWitness> {
    let mut list = Vec::new();
    for witness in core.witnesses.iter() {
        let Some(ledger) = ledger(core, caller) else { continue };
        // Where the store does not say, the witness will.
        let known = known(core, caller, &ledger, row, witness).await.ok().flatten();
        list.push(KnownWitness {
            vkey: witness.key().to_string(),
            size: known.map_or(0, |known| known.size),
        });
    }
    list
}

fn ledger(core: &Core, caller: &Caller) -> Option<KeyName> {
    KeyName::parse(&format!("{}/host/{}", core.trust_domain(), caller.host)).ok()
}

fn hashes(proof: &[Vec<u8>]) -> Option<Vec<Hash>> {
    if proof.len() > PROOF_HASHES_MAX {
        return None;
    }
    let hash = |bytes: &Vec<u8>| <[u8; Hash::BYTES]>::try_from(&**bytes).ok().map(Hash::from_bytes);
    proof.iter().map(hash).collect()
}

async fn newest(core: &Core, caller: &Caller) -> Result<Option<HeadRow>, Status> {
    let rows = core.store.heads(Some(caller.host.clone())).await;
    let mut rows = rows.map_err(|error| unavailable(caller, &error))?;
    Ok(rows.pop())
}

async fn known(
    core: &Core,
    caller: &Caller,
    ledger: &KeyName,
    head: &HeadRow,
    witness: &Witness,
) -> Result<Option<WitnessedRow>, Status> {
    let rows = core.store.witnessed(Some(ledger.clone())).await;
    let rows = rows.map_err(|error| unavailable(caller, &error))?;
    let is_it = |row: &WitnessedRow| row.epoch == head.seen.epoch && row.witness == *witness.key();
    Ok(rows.into_iter().find(is_it))
}

fn answer(core: &Core, caller: &Caller, error: &NotWitnessed) -> WitnessResponse {
    let size = match error {
        NotWitnessed::Answer { source } => match source {
            NotCosigned::Behind { size } => *size,
            NotCosigned::SetBack { size, .. } | NotCosigned::Forked { size } => {
                core.alert(&caller.host, AlertKind::LedgerNotAsWitnessed, vec![caller.source]);
                *size
            }
            NotCosigned::UnknownLedger { .. }
            | NotCosigned::OtherKey { .. }
            | NotCosigned::Away { .. }
            | NotCosigned::Unreadable { .. }
            | NotCosigned::NotSigned { .. }
            | NotCosigned::Clock { .. } => 0,
        },
        NotWitnessed::TooSoon
        | NotWitnessed::Busy
        | NotWitnessed::Away
        | NotWitnessed::Before { .. }
        | NotWitnessed::Ask { .. }
        | NotWitnessed::Store { .. } => 0,
    };
    refused(error.as_str(), size)
}

fn cosigned(note: String) -> WitnessResponse {
    WitnessResponse {
        note,
        refusal: String::new(),
        size: 0,
    }
}

fn refused(word: &str, size: u64) -> WitnessResponse {
    WitnessResponse {
        note: String::new(),
        refusal: word.to_owned(),
        size,
    }
}

fn unavailable(caller: &Caller, error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(host = %caller.host, error, "a head was not carried to a witness");
    Status::unavailable("the CA could not carry it; try again")
}
