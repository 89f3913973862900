//! "Live on N of M": what the receipts of the hosts say about one generation.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use ca_api::Generation;
use ca_api::admin::{GenerationStatus, HostGeneration, HostState, WAIT_SECONDS_MAX};
use serde::Deserialize;

use super::problem::Refused;
use crate::core::Core;
use crate::store::HostRowState;
use crate::world::{HostView, Hosts};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    epoch: Option<u64>,
    revision: Option<u64>,
    #[serde(default)]
    wait_seconds: u64,
}

impl Question {
    /// The generation asked about; the newest, as far as nothing else is said.
    pub(super) fn generation(&self, newest: Generation) -> Generation {
        Generation {
            epoch: self.epoch.unwrap_or(newest.epoch),
            revision: self.revision.unwrap_or(newest.revision),
        }
    }

    /// Waits until the hosts are `settled`, as long as was asked for and no longer than [`WAIT_SECONDS_MAX`]. What there is
    /// when it ends is the answer.
    pub(super) async fn wait(&self, core: &Core, mut settled: impl FnMut(&Hosts) -> bool) {
        let most = Duration::from_secs(self.wait_seconds.min(WAIT_SECONDS_MAX));
        let mut hosts = core.world.watch_hosts();
        let everywhere = hosts.wait_for(|hosts| settled(hosts));
        // Cancel safe: a dropped wait has changed nothing.
        tokio::select! {
            settled = everywhere => drop(settled),
            () = tokio::time::sleep(most) => {}
            () = core.cancel.cancelled() => {}
        }
    }
}

pub(super) async fn generation(
    State(core): State<Arc<Core>>,
    question: Result<Query<Question>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<GenerationStatus>, Refused> {
    let Query(question) = question.map_err(|error| Refused::bad_request(error.body_text()))?;
    let live = core.generation();
    let asked = question.generation(live);
    if asked > live {
        return Err(Refused::no_such_revision(format!(
            "{asked} is newer than the live {live}"
        )));
    }
    question.wait(&core, |hosts| is_settled(&core, hosts, asked)).await;
    Ok(Json(status(&core, asked)))
}

/// Whether every connected host has said yes or no; those that are quarantined are not asked.
fn is_settled(core: &Core, hosts: &Hosts, asked: Generation) -> bool {
    let quarantines = core.quarantines.list();
    hosts
        .values()
        .filter(|view| view.session.is_some() && !quarantines.has_host(&view.row.name))
        .all(|view| state(view, asked).0 != HostState::Behind)
}

fn status(core: &Core, asked: Generation) -> GenerationStatus {
    let (hosts, quarantines) = (core.world.hosts(), core.quarantines.list());
    let joined = hosts.values().filter(|view| view.row.state == HostRowState::Joined);
    let hosts = joined.map(|view| {
        let (state, error) = state(view, asked);
        HostGeneration {
            host: view.row.name.clone(),
            connected: view.session.is_some(),
            state,
            applied: view.applied,
            error: error.to_owned(),
            quarantined: quarantines.has_host(&view.row.name),
        }
    });
    GenerationStatus {
        generation: asked,
        hosts: hosts.collect(),
    }
}

/// A host that has a newer generation has this one too: numbers only go up.
fn state(view: &HostView, asked: Generation) -> (HostState, &str) {
    if view.applied.is_some_and(|applied| applied >= asked) {
        return (HostState::Live, "");
    }
    match &view.failed {
        Some((failed, error)) if *failed >= asked => (HostState::Failed, error),
        Some(_) | None => (HostState::Behind, ""),
    }
}
