//! Heads of hosts' ledgers that were cosigned.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use ca_api::admin::{LedgerHead, LedgerHeads, LedgerWitness, WitnessedHead};
use serde::Deserialize;
use spiffe::id::HostName;

use super::problem::Refused;
use crate::core::Core;
use crate::store::{HeadRow, WitnessedRow};
use crate::witness::Witness;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    host: Option<HostName>,
}

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<LedgerHeads>, Refused> {
    let Query(question) = question.map_err(|error| Refused::bad_request(error.body_text()))?;
    let wanted = question.host.clone();
    let rows = core.store.heads(question.host).await;
    let rows = rows.map_err(|error| Refused::unavailable("read the heads", &error))?;
    // By host and epoch, so that the last of a host is its current one.
    let next = rows.iter().skip(1).map(Some).chain([None]);
    let heads = rows.iter().zip(next).map(|(row, next)| {
        let current = next.is_none_or(|next| next.host != row.host);
        head(row, current)
    });
    let witnessed = core.store.witnessed(None).await;
    let witnessed = witnessed.map_err(|error| Refused::unavailable("read what witnesses have cosigned", &error))?;
    let hosts = format!("{}/host/", core.trust_domain());
    let witnessed = witnessed.into_iter().map(|row| {
        let host = row.ledger.as_str().strip_prefix(&hosts);
        let host = host.and_then(|host| HostName::parse(host).ok());
        of_witness(row, host)
    });
    let is_wanted = |head: &WitnessedHead| wanted.is_none() || head.host == wanted;
    Ok(Json(LedgerHeads {
        cosigner: core.cosigner.verifier().to_string(),
        heads: heads.collect(),
        witnesses: core.witnesses.iter().map(witness).collect(),
        witnessed: witnessed.filter(is_wanted).collect(),
    }))
}

fn witness(witness: &Witness) -> LedgerWitness {
    let away = witness.away();
    LedgerWitness {
        vkey: witness.key().to_string(),
        url: witness.config.url.to_string(),
        away_since: away.as_ref().map(|away| away.since),
        why: away.map(|away| away.why),
    }
}

fn of_witness(row: WitnessedRow, host: Option<HostName>) -> WitnessedHead {
    WitnessedHead {
        host,
        ledger: row.ledger.to_string(),
        epoch: row.epoch,
        witness: row.witness.to_string(),
        size: row.size,
        cosigned: row.at,
        note: row.note,
    }
}

fn head(row: &HeadRow, current: bool) -> LedgerHead {
    LedgerHead {
        host: row.host.clone(),
        epoch: row.seen.epoch,
        current,
        vkey: row.seen.key.to_string(),
        size: row.seen.size,
        cosigned: row.at,
        note: row.note.clone(),
    }
}
