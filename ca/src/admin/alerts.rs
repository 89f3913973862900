//! What is unlike the days before: to be looked at, waited for, and followed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, KeepAliveStream, Sse};
use ca_api::admin::{WAIT_SECONDS_MAX, WatchAlert, WatchAlerts};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::problem::Refused;
use crate::core::Core;

/// Alerts that wait for one who follows; the others wait in the list.
const FOLLOW_WINDOW: usize = 16;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_seconds: u64,
}

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<WatchAlerts>, Refused> {
    let Query(question) = question.map_err(|error| Refused::bad_request(error.body_text()))?;
    let most = Duration::from_secs(question.wait_seconds.min(WAIT_SECONDS_MAX));
    let mut newest = core.watching.newest();
    let came = newest.wait_for(|newest| *newest != question.after);
    // Cancel safe: a dropped wait has changed nothing.
    tokio::select! {
        came = came => drop(came),
        () = tokio::time::sleep(most) => {}
        () = core.cancel.cancelled() => {}
    }
    Ok(Json(core.watching.after(question.after)))
}

/// The stream ends with the connection, which lives for ten minutes; who comes back says what it has had.
pub(super) async fn stream(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Sse<KeepAliveStream<ReceiverStream<Result<Event, Infallible>>>>, Refused> {
    let Query(question) = question.map_err(|error| Refused::bad_request(error.body_text()))?;
    let last = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let after = last.unwrap_or(question.after);
    let (sender, receiver) = mpsc::channel(FOLLOW_WINDOW);
    core.tasks.clone().spawn(follow(core, sender, after));
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()))
}

/// Sends what comes until nobody listens.
async fn follow(core: Arc<Core>, sender: mpsc::Sender<Result<Event, Infallible>>, mut after: u64) {
    let mut newest = core.watching.newest();
    loop {
        newest.borrow_and_update();
        let WatchAlerts { alerts, newest: last } = core.watching.after(after);
        after = last;
        for alert in alerts {
            if sender.send(Ok(event(&alert))).await.is_err() {
                return;
            }
        }
        // Cancel safe: what came is in the list.
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
            () = core.cancel.cancelled() => return,
        }
    }
}

fn event(alert: &WatchAlert) -> Event {
    // Words, names and numbers always have a form in JSON, and that has no line breaks.
    let data = serde_json::to_string(alert).unwrap_or_default();
    Event::default().id(alert.id.to_string()).event(&alert.kind).data(data)
}
