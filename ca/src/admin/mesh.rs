//! Apply, rollback, and what was applied.

use std::sync::Arc;

use audit::EventKind;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use ca_api::Generation;
use ca_api::admin::{ApplyRequest, ApplyResponse, MeshSource, MeshSources, Revision, RevisionList, RollbackRequest};
use serde_json::json;

use super::operators::Actor;
use super::problem::{Body, Refused};
use crate::core::Core;
use crate::mesh_file::{self, Checked};
use crate::store::{RevisionRow, RevisionSummary};
use crate::world::Live;

const APPLY: &str = "apply a mesh";

/// The most hosts that a refusal names.
const HOSTS_SAID: usize = 20;

pub(super) async fn apply(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<ApplyRequest>,
) -> Result<Json<ApplyResponse>, Refused> {
    let applied = apply_sources(&core, &actor, request).await;
    let result = if applied.is_ok() { "ok" } else { "refused" };
    core.metrics.operations.with_label_values(&["apply", result]).inc();
    applied.map(Json)
}

async fn apply_sources(core: &Arc<Core>, actor: &Actor, request: ApplyRequest) -> Result<ApplyResponse, Refused> {
    let checked = check(core, request.sources).await?;
    if let Some(failures) = checked.failures {
        record_refusal(core, actor, "tests_failed");
        let title = "the mesh's own tests fail; nothing was changed";
        return Err(Refused::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "tests_failed",
            title,
            failures,
        ));
    }
    // Whoever holds this is the only one who makes a revision.
    let _turn = core.applying.lock().await;
    let live = core.world.live();
    let base = request.base.unwrap_or(Generation {
        epoch: live.generation.epoch,
        revision: 0,
    });
    if !request.force && base != live.generation && checked.sha256 != live.sources_sha256 {
        record_refusal(core, actor, "base_mismatch");
        return Err(base_mismatch(live.generation, request.base));
    }
    enforceable(core, actor, &checked)?;
    if request.dry_run || checked.sha256 == live.sources_sha256 {
        let unchanged = checked.sha256 == live.sources_sha256;
        return Ok(answer(live.generation, checked, unchanged, request.dry_run));
    }
    let generation = make_live(core, actor, &checked, EventKind::PolicyApplied, None).await?;
    Ok(answer(generation, checked, false, false))
}

pub(super) async fn rollback(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<RollbackRequest>,
) -> Result<Json<ApplyResponse>, Refused> {
    const OPERATION: &str = "roll back";
    let _turn = core.applying.lock().await;
    let live = core.world.live();
    let epoch = request.epoch.unwrap_or(live.generation.epoch);
    let row = core
        .store
        .revision(epoch, request.revision)
        .await
        .map_err(|error| Refused::unavailable(OPERATION, &error))?
        .ok_or_else(|| Refused::no_such_revision(format!("there is no revision {epoch}.{}", request.revision)))?;
    let sources = mesh_file::stored_sources(&row).map_err(|error| Refused::unavailable(OPERATION, &error))?;
    // Its tests held when it was applied. One that fails by now (a rule has ended
    // since) is said and does not stop the way back.
    let mut checked = check(&core, sources).await?;
    let failures = checked.failures.take();
    checked.warnings.extend(failures);
    if checked.sha256 == live.sources_sha256 {
        return Ok(Json(answer(live.generation, checked, true, false)));
    }
    enforceable(&core, &actor, &checked)?;
    let from = Generation {
        epoch,
        revision: request.revision,
    };
    let generation = make_live(&core, &actor, &checked, EventKind::Rollback, Some(from)).await?;
    core.metrics.operations.with_label_values(&["rollback", "ok"]).inc();
    Ok(Json(answer(generation, checked, false, false)))
}

/// Reads and tests the files, off the threads that serve connections.
async fn check(core: &Arc<Core>, sources: Vec<MeshSource>) -> Result<Checked, Refused> {
    let now = core.now();
    let checked = core.tasks.spawn_blocking(move || mesh_file::check(&sources, now)).await;
    let checked = checked
        .map_err(|error| Refused::unavailable(APPLY, &error))?
        .map_err(|error| {
            let title = "the files are not a mesh; nothing was changed";
            Refused::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_mesh",
                title,
                error.to_string(),
            )
        })?;
    if checked.mesh.trust_domain() != core.trust_domain() {
        let detail = format!(
            "the files are for {}, this CA is for {}",
            checked.mesh.trust_domain().as_str(),
            core.trust_domain()
        );
        let title = "the mesh is for another trust domain";
        return Err(Refused::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "other_trust_domain",
            title,
            detail,
        ));
    }
    Ok(checked)
}

/// Gives the mesh the next number: into the ledger, into the store, live.
async fn make_live(
    core: &Core,
    actor: &Actor,
    checked: &Checked,
    kind: EventKind,
    from: Option<Generation>,
) -> Result<Generation, Refused> {
    let live = core.generation();
    let generation = Generation {
        epoch: live.epoch,
        revision: live.revision + 1,
    };
    let detail = [
        ("sha256", json!(checked.sha256)),
        ("bots", json!(checked.mesh.bots().len())),
        ("tests_passed", json!(checked.tests.passed)),
        ("rolled_back_to", json!(from.map(|from| from.to_string()))),
    ];
    core.journal
        .event(kind, &actor.to_string(), &format!("revision:{generation}"), detail)
        .map_err(|error| Refused::unavailable(APPLY, &error))?;
    let row = RevisionRow {
        summary: RevisionSummary {
            epoch: generation.epoch,
            revision: generation.revision,
            sha256: checked.sha256.clone(),
            applied_at: core.now(),
            actor: actor.name().to_owned(),
        },
        sources: checked.sources.clone(),
    };
    if let Err(error) = core.store.insert_revision(row).await {
        // The ledger says that it was applied; let it also say that it was not.
        let detail = [("reason", json!("not_stored"))];
        let subject = format!("revision:{generation}");
        core.journal
            .note(EventKind::PolicyRefused, &actor.to_string(), &subject, detail);
        return Err(Refused::unavailable(APPLY, &error));
    }
    let mesh = Some(Arc::clone(&checked.mesh));
    core.world.set_live(Live {
        generation,
        mesh,
        sources_sha256: checked.sha256.clone(),
    });
    Ok(generation)
}

pub(super) async fn revisions(State(core): State<Arc<Core>>) -> Result<Json<RevisionList>, Refused> {
    let rows = core
        .store
        .revisions()
        .await
        .map_err(|error| Refused::unavailable("list the revisions", &error))?;
    let live = core.generation();
    let revisions = rows.into_iter().map(|row| {
        let generation = Generation {
            epoch: row.epoch,
            revision: row.revision,
        };
        Revision {
            generation,
            sha256: row.sha256,
            applied_at: row.applied_at,
            actor: row.actor,
            live: generation == live,
        }
    });
    Ok(Json(RevisionList {
        revisions: revisions.collect(),
    }))
}

pub(super) async fn sources(State(core): State<Arc<Core>>) -> Result<Json<MeshSources>, Refused> {
    const OPERATION: &str = "read the live mesh";
    let generation = core.generation();
    let row = core
        .store
        .revision(generation.epoch, generation.revision)
        .await
        .map_err(|error| Refused::unavailable(OPERATION, &error))?
        .ok_or_else(|| Refused::no_such_revision("no mesh has been applied yet".to_owned()))?;
    let sources = mesh_file::stored_sources(&row).map_err(|error| Refused::unavailable(OPERATION, &error))?;
    Ok(Json(MeshSources { generation, sources }))
}

fn answer(generation: Generation, checked: Checked, unchanged: bool, dry_run: bool) -> ApplyResponse {
    ApplyResponse {
        generation,
        warnings: checked.warnings,
        tests: checked.tests,
        unchanged,
        dry_run,
    }
}

fn base_mismatch(live: Generation, base: Option<Generation>) -> Refused {
    let base = base.map_or_else(|| "nothing".to_owned(), |base| format!("revision {base}"));
    let detail = format!(
        "live is revision {live}, these files were last applied over {base}: somebody applied something else \
         meanwhile"
    );
    let title = "the live mesh is not the one that these files were made from";
    Refused::new(StatusCode::CONFLICT, "base_mismatch", title, detail)
}

/// Refuses a mesh that a connected host could not enforce: it would keep the revision before, and nobody would know
/// which of its rules hold there. A host that is away refuses its slice when it comes back, and says so then.
fn enforceable(core: &Core, actor: &Actor, checked: &Checked) -> Result<(), Refused> {
    let lacking = core.world.lacking(&checked.mesh);
    if lacking.is_empty() {
        return Ok(());
    }
    record_refusal(core, actor, "host_lacks_feature");
    let hosts = lacking
        .iter()
        .take(HOSTS_SAID)
        .map(|(host, words)| {
            let words: Vec<_> = words.iter().copied().collect();
            format!("host {host} does not enforce {}", words.join(", "))
        })
        .collect::<Vec<_>>()
        .join("; ");
    let more = lacking.len().saturating_sub(HOSTS_SAID);
    let more = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    let title = "connected hosts cannot enforce this mesh; nothing was changed";
    let detail = format!("{hosts}{more}: update their proxies first, or evict them");
    Err(Refused::new(StatusCode::CONFLICT, "host_lacks_feature", title, detail))
}

fn record_refusal(core: &Core, actor: &Actor, reason: &str) {
    core.journal.note(
        EventKind::PolicyRefused,
        &actor.to_string(),
        "mesh",
        [("reason", json!(reason))],
    );
}
