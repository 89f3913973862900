//! What hosts have told of calls.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use ca_api::admin::{EdgeList, EventList, MINUTES_MAX};
use serde::Deserialize;
use spiffe::id::BotName;

use super::problem::Refused;
use crate::core::Core;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    bot: Option<BotName>,
    minutes: Option<u64>,
}

pub(super) async fn edges(
    State(core): State<Arc<Core>>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<EdgeList>, Refused> {
    let Query(question) = question.map_err(|error| Refused::bad_request(error.body_text()))?;
    let minutes = question.minutes.unwrap_or(MINUTES_MAX);
    let edges = core
        .observed
        .edges(question.bot.as_ref(), minutes, core.now(), core.started);
    Ok(Json(edges))
}

pub(super) async fn events(
    State(core): State<Arc<Core>>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<EventList>, Refused> {
    let Query(question) = question.map_err(|error| Refused::bad_request(error.body_text()))?;
    Ok(Json(core.observed.events(question.bot.as_ref())))
}
