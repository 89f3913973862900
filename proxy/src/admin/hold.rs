//! The legal hold of this host's ledger: nothing of it is pruned meanwhile.

use std::error::Error;
use std::time::Duration;

use audit::{Hold, HoldError};
use ca_api::proxy_admin::{HoldRequest, LedgerHold};
use http::StatusCode;
use tokio::task::spawn_blocking;

use super::quarantines::{bad_request, operator, read};
use super::{Asker, json, problem};
use crate::plain::Page;
use crate::proxy::Proxy;

pub(super) async fn hold(proxy: &Proxy, asker: Asker, body: &[u8]) -> Page {
    let request: HoldRequest = match read(body) {
        Ok(request) => request,
        Err(page) => return page,
    };
    let until = request
        .for_seconds
        .map(|seconds| proxy.control.now() + Duration::from_secs(seconds));
    let (ledger, by) = (proxy.ledger.clone(), by(asker));
    answer(spawn_blocking(move || ledger.hold(&request.reason, until, &by).map(Some)).await)
}

pub(super) async fn release(proxy: &Proxy, asker: Asker) -> Page {
    let (ledger, by) = (proxy.ledger.clone(), by(asker));
    answer(spawn_blocking(move || ledger.release_hold(&by).map(|()| None)).await)
}

/// What an operator should know of it.
pub(super) fn note(hold: &Hold) -> String {
    let until = hold.until.map(|until| format!(", until {until}")).unwrap_or_default();
    format!(
        "the ledger is held, so nothing of it is pruned: {} ({}, since {}{until}); `botmesh audit release` ends it",
        hold.reason, hold.by, hold.since
    )
}

fn by(asker: Asker) -> String {
    format!("operator:{}", operator(asker))
}

fn answer(held: Result<Result<Option<Hold>, HoldError>, tokio::task::JoinError>) -> Page {
    let unavailable = |error: &(dyn Error + 'static)| {
        tracing::error!(error, "a hold of the ledger");
        let title = "The hold could not be recorded, so it is as it was";
        problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            title,
            "the log of the proxy says why",
        )
    };
    match held {
        Ok(Ok(hold)) => json(&LedgerHold {
            reason: hold.as_ref().map(|hold| hold.reason.clone()),
            by: hold.as_ref().map(|hold| hold.by.clone()),
            since: hold.as_ref().map(|hold| hold.since),
            until: hold.and_then(|hold| hold.until),
        }),
        Ok(Err(error @ (HoldError::Reason | HoldError::Until))) => bad_request("This is no hold", &error.to_string()),
        Ok(Err(error @ HoldError::NotHeld)) => problem(
            StatusCode::NOT_FOUND,
            "not_held",
            "The ledger is not held",
            &error.to_string(),
        ),
        Ok(Err(error @ (HoldError::Record { .. } | HoldError::File { .. }))) => unavailable(&error),
        Err(error) => unavailable(&error),
    }
}
