//! The legal hold of the CA's own ledger: nothing of it is pruned meanwhile.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use audit::{Hold, HoldError};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use ca_api::proxy_admin::{HoldRequest, LedgerHold};
use tokio::task::{JoinError, spawn_blocking};

use super::operators::Actor;
use super::problem::{Body, Refused};
use crate::core::Core;

pub(super) async fn hold(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<HoldRequest>,
) -> Result<Json<LedgerHold>, Refused> {
    let until = request
        .for_seconds
        .map(|seconds| core.now() + Duration::from_secs(seconds));
    let (ledger, by) = (core.journal.ledger().clone(), actor.to_string());
    answer(spawn_blocking(move || ledger.hold(&request.reason, until, &by).map(Some)).await)
}

pub(super) async fn release(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
) -> Result<Json<LedgerHold>, Refused> {
    let (ledger, by) = (core.journal.ledger().clone(), actor.to_string());
    answer(spawn_blocking(move || ledger.release_hold(&by).map(|()| None)).await)
}

/// What an operator should know of a hold.
pub(super) fn note(hold: &Hold) -> String {
    let until = hold.until.map(|until| format!(", until {until}")).unwrap_or_default();
    format!(
        "the CA's ledger is held, so nothing of it is pruned: {} ({}, since {}{until}); `botmesh audit release --ca` ends it",
        hold.reason, hold.by, hold.since
    )
}

fn answer(held: Result<Result<Option<Hold>, HoldError>, JoinError>) -> Result<Json<LedgerHold>, Refused> {
    let unavailable = |error: &(dyn Error + 'static)| Refused::unavailable("hold the ledger, or let it go", error);
    let hold = match held.map_err(|error| unavailable(&error))? {
        Ok(hold) => hold,
        Err(error @ (HoldError::Reason | HoldError::Until)) => return Err(Refused::bad_request(error.to_string())),
        Err(error @ HoldError::NotHeld) => {
            let title = "the ledger is not held";
            return Err(Refused::new(
                StatusCode::NOT_FOUND,
                "not_held",
                title,
                error.to_string(),
            ));
        }
        Err(error @ (HoldError::Record { .. } | HoldError::File { .. })) => return Err(unavailable(&error)),
    };
    Ok(Json(LedgerHold {
        reason: hold.as_ref().map(|hold| hold.reason.clone()),
        by: hold.as_ref().map(|hold| hold.by.clone()),
        since: hold.as_ref().map(|hold| hold.since),
        until: hold.and_then(|hold| hold.until),
    }))
}
