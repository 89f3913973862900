//! Heads of hosts' ledgers that were cosigned.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use ca_api::admin::{LedgerHead, LedgerHeads};
use serde::Deserialize;
use spiffe::id::HostName;

use super::problem::Refused;
use crate::core::Core;
use crate::store::HeadRow;

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
    let rows = core.store.heads(question.host).await;
    let rows = rows.map_err(|error| Refused::unavailable("read the heads", &error))?;
    // By host and epoch, so that the last of a host is its current one.
    let next = rows.iter().skip(1).map(Some).chain([None]);
    let heads = rows.iter().zip(next).map(|(row, next)| {
        let current = next.is_none_or(|next| next.host != row.host);
        head(row, current)
    });
    Ok(Json(LedgerHeads {
        cosigner: core.cosigner.verifier().to_string(),
        heads: heads.collect(),
    }))
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
