//! Quarantine, release, and on how many hosts it is enforced.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use ca_api::Generation;
use ca_api::admin::{HostGeneration, HostState, QuarantineRequest, QuarantineStatus, Quarantined, ReleaseRequest};

use super::live_on::Question;
use super::operators::Actor;
use super::problem::{Body, Refused};
use crate::core::Core;
use crate::quarantine::QuarantineError;
use crate::store::HostRowState;
use crate::world::{HostView, Hosts};

pub(super) async fn quarantine(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<QuarantineRequest>,
) -> Result<Json<QuarantineStatus>, Refused> {
    known(&core, &request.whom)?;
    let quarantine = request
        .quarantine(actor.name().to_owned(), core.now())
        .map_err(|error| Refused::bad_request(error.to_string()))?;
    let set = core.quarantine(&actor.to_string(), quarantine).await;
    count(&core, "quarantine", set.is_ok());
    let list = set.map_err(|error| refused("set a quarantine", &error))?;
    Ok(Json(status(&core, list.generation)))
}

pub(super) async fn release(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<ReleaseRequest>,
) -> Result<Json<QuarantineStatus>, Refused> {
    let ended = core.release(&actor.to_string(), &request.whom).await;
    count(&core, "release", ended.is_ok());
    let list = ended.map_err(|error| match error {
        QuarantineError::NotQuarantined => Refused::new(
            StatusCode::NOT_FOUND,
            "not_quarantined",
            "it is not quarantined at the CA",
            format!(
                "{}: see `botmesh quarantine`; what was set on a host with --local is released there",
                request.whom
            ),
        ),
        error @ (QuarantineError::TooMany | QuarantineError::Store { .. } | QuarantineError::Journal { .. }) => {
            refused("end a quarantine", &error)
        }
    })?;
    Ok(Json(status(&core, list.generation)))
}

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    question: Result<Query<Question>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<QuarantineStatus>, Refused> {
    let Query(question) = question.map_err(|error| Refused::bad_request(error.body_text()))?;
    let newest = core.quarantines.list().generation;
    let asked = question.generation(newest);
    if asked > newest {
        return Err(Refused::no_such_revision(format!(
            "{asked} is newer than the newest list, {newest}"
        )));
    }
    question.wait(&core, |hosts| is_settled(hosts, asked)).await;
    Ok(Json(status(&core, asked)))
}

/// A name that nobody has is a slip of the pen, and a quarantine of nobody would give false comfort.
fn known(core: &Core, whom: &Quarantined) -> Result<(), Refused> {
    let (code, known) = match whom {
        Quarantined::Bot(bot) => {
            let live = core.world.live();
            let known = live.mesh.as_deref().is_some_and(|mesh| mesh.bots().contains_key(bot));
            ("no_such_bot", known)
        }
        Quarantined::Host(host) => ("no_such_host", core.world.hosts().contains_key(host)),
    };
    if known {
        return Ok(());
    }
    let detail = format!("{whom}: see `botmesh bot list` and `botmesh host list`");
    Err(Refused::new(
        StatusCode::NOT_FOUND,
        code,
        "there is nobody of that name",
        detail,
    ))
}

fn refused(operation: &'static str, error: &QuarantineError) -> Refused {
    match error {
        QuarantineError::TooMany => Refused::new(
            StatusCode::TOO_MANY_REQUESTS,
            "unavailable",
            "too many quarantines",
            "release some, or apply a mesh without those bots".to_owned(),
        ),
        QuarantineError::NotQuarantined | QuarantineError::Store { .. } => Refused::unavailable(operation, error),
        QuarantineError::Journal { .. } => Refused::unavailable(
            "record a quarantine: one that was asked for is in force, none was ended",
            error,
        ),
    }
}

fn count(core: &Core, action: &str, done: bool) {
    let result = if done { "ok" } else { "refused" };
    core.metrics.operations.with_label_values(&[action, result]).inc();
}

fn is_settled(hosts: &Hosts, asked: Generation) -> bool {
    hosts
        .values()
        .filter(|view| view.session.is_some())
        .all(|view| enforces(view, asked))
}

/// A host that enforces a newer list has taken this one into account: lists are complete.
fn enforces(view: &HostView, asked: Generation) -> bool {
    view.quarantines.is_some_and(|enforced| enforced >= asked)
}

fn status(core: &Core, asked: Generation) -> QuarantineStatus {
    let (list, changed, hosts) = (
        core.quarantines.list(),
        core.quarantines.changed_at(asked),
        core.world.hosts(),
    );
    let joined = || hosts.values().filter(|view| view.row.state == HostRowState::Joined);
    let receipts = || joined().filter_map(|view| view.cut_by(asked));
    let slowest = receipts()
        .filter_map(|receipt| Some(receipt.at.saturating_duration_since(changed?)))
        .max();
    QuarantineStatus {
        generation: asked,
        quarantines: list.quarantines.values().cloned().collect(),
        hosts: joined()
            .map(|view| HostGeneration {
                host: view.row.name.clone(),
                connected: view.session.is_some(),
                state: if enforces(view, asked) {
                    HostState::Live
                } else {
                    HostState::Behind
                },
                applied: view.quarantines,
                error: String::new(),
                quarantined: false,
            })
            .collect(),
        slowest_ms: slowest.map(|slowest| u64::try_from(slowest.as_millis()).unwrap_or(u64::MAX)),
        streams_cut: receipts()
            .map(|receipt| receipt.streams_cut)
            .fold(0, u64::saturating_add),
    }
}
