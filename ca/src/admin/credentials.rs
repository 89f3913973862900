//! The credentials of the mesh, and new values for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::admin::{
    AdvanceRequest, CanaryStatus, FleetCredential, FleetCredentials, FleetHost, MINUTES_MAX, ProbeStatus,
    REASON_CHARS_MAX, RotateRequest, RotationStatus, Use,
};
use ca_api::rotation::{Phase, SEALED_BYTES_MAX};
use policy::{Credential, CredentialName};
use serde::Deserialize;
use spiffe::id::{BotName, HostName};

use super::operators::Actor;
use super::problem::{Body, Refused};
use crate::core::Core;
use crate::rotation::{Asked, RotationError};
use crate::store::RotationRow;

/// The digits of a fingerprint.
const FINGERPRINT_CHARS: usize = 16;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    name: Option<String>,
}

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<FleetCredentials>, Refused> {
    let Query(question) = question.map_err(|error| Refused::bad_request(error.body_text()))?;
    let live = core.world.live();
    let all = live.mesh.iter().flat_map(|mesh| mesh.credentials());
    let asked = all.filter(|(name, _)| question.name.as_ref().is_none_or(|asked| asked == name.as_str()));
    let credentials: Vec<_> = asked.map(|(name, found)| credential(&core, name, found)).collect();
    if credentials.is_empty() && question.name.is_some() {
        return Err(refused(&core, RotationError::NoSuchCredential));
    }
    Ok(Json(FleetCredentials { credentials }))
}

pub(super) async fn rotate(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<RotateRequest>,
) -> Result<Json<FleetCredential>, Refused> {
    let asked = read(request)?;
    let name = asked.name.clone();
    let begun = core
        .begin_rotation(&actor.to_string(), actor.name().to_owned(), asked)
        .await;
    answer(&core, &name, begun)
}

pub(super) async fn advance(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<AdvanceRequest>,
) -> Result<Json<FleetCredential>, Refused> {
    let name = name_of(&request.name)?;
    let actor = actor.to_string();
    let next = (request.rotation, request.to);
    let advanced = core.advance_rotation((&actor, &name), next, request.without_away).await;
    answer(&core, &name, advanced)
}

fn answer(
    core: &Core,
    name: &CredentialName,
    done: Result<(), RotationError>,
) -> Result<Json<FleetCredential>, Refused> {
    let result = if done.is_ok() { "ok" } else { "refused" };
    core.metrics.operations.with_label_values(&["rotate", result]).inc();
    done.map_err(|error| refused(core, error))?;
    let live = core.world.live();
    let found = live.mesh.as_deref().and_then(|mesh| mesh.credential(name.as_str()));
    let found = found.ok_or_else(|| refused(core, RotationError::NoSuchCredential))?;
    Ok(Json(credential(core, name, found)))
}

fn name_of(text: &str) -> Result<CredentialName, Refused> {
    let invalid = || Refused::bad_request("`name` is no name of a credential".to_owned());
    CredentialName::parse(text).ok_or_else(invalid)
}

fn read(request: RotateRequest) -> Result<Asked, Refused> {
    let invalid = |what: &str| Refused::bad_request(what.to_owned());
    let reason = request.reason.trim();
    // It is read on terminals, where control characters could say something else than they are.
    let is_line = (1..=REASON_CHARS_MAX).contains(&reason.chars().count()) && !reason.chars().any(char::is_control);
    if !is_line {
        return Err(invalid("`reason` is one line of 1 to 256 characters"));
    }
    let digits = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    if request.fingerprint.len() != FINGERPRINT_CHARS || !digits(&request.fingerprint) {
        return Err(invalid("`fingerprint` is 16 hexadecimal digits"));
    }
    let sealed = request.sealed.into_iter().map(|(host, text)| {
        let sealed = STANDARD.decode(text).ok();
        let sealed = sealed.filter(|sealed| (1..=SEALED_BYTES_MAX).contains(&sealed.len()))?;
        Some((host, sealed))
    });
    let values: Option<BTreeMap<HostName, Vec<u8>>> = sealed.collect();
    Ok(Asked {
        name: name_of(&request.name)?,
        reason: reason.to_owned(),
        fingerprint: request.fingerprint,
        canary: request.canary,
        values: values.ok_or_else(|| invalid("`sealed` has a value that is none"))?,
    })
}

fn refused(core: &Core, error: RotationError) -> Refused {
    let conflict = |code, title, detail| Refused::new(StatusCode::CONFLICT, code, title, detail);
    match error {
        RotationError::NoSuchCredential => {
            let live = core.world.live();
            let names = live.mesh.iter().flat_map(|mesh| mesh.credentials());
            let names: Vec<_> = names.map(|(name, _)| name.as_str()).collect();
            Refused::new(
                StatusCode::NOT_FOUND,
                "no_such_credential",
                "no bot of a host that has joined uses a credential of that name",
                format!(
                    "the mesh file has {}",
                    if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(", ")
                    }
                ),
            )
        }
        error @ RotationError::NoValue => conflict("no_value", "there is nothing to rotate", error.to_string()),
        RotationError::UnderWay(detail) => conflict("under_way", "another rotation is under way", detail),
        RotationError::Hosts(detail) => conflict("hosts_differ", "the value does not go where it is needed", detail),
        RotationError::NotYet(detail) => conflict("not_yet", "the rotation cannot go on yet", detail),
        error @ (RotationError::Store { .. } | RotationError::Journal { .. }) => {
            Refused::unavailable("rotate a credential", &error)
        }
    }
}

fn credential(core: &Core, name: &CredentialName, found: &Credential) -> FleetCredential {
    let rotations = core.rotations.list();
    let rotation = rotations.get(name.as_str());
    let rotated = rotation.and_then(|rotation| rotation.rotated);
    let users = core.users_of(name);
    let live = core.world.live();
    let environment = |bot: &BotName| bot.as_str().split('/').next().unwrap_or_default().to_owned();
    let mut environments: Vec<String> = users.iter().map(|(bot, _)| environment(bot)).collect();
    environments.sort();
    environments.dedup();
    FleetCredential {
        name: name.to_string(),
        injection: found.injection.as_str().to_owned(),
        owner: found.owner.clone(),
        services: live
            .mesh
            .iter()
            .flat_map(|mesh| mesh.services_of(name.as_str()))
            .collect(),
        environments,
        probe: found.probe.as_ref().map(ToString::to_string),
        shared: found.shared.as_deref().map(ToOwned::to_owned),
        rotated,
        due: rotated.zip(found.rotate_every).map(|(rotated, every)| rotated + every),
        uses: uses(core, users),
        hosts: hosts(core, name, rotation.map(|rotation| &**rotation)),
        rotation: rotation.map(|rotation| status(core, name, rotation)),
    }
}

/// The bots that may use it, with what the hosts told of their calls: what is declared, and what is so.
fn uses(core: &Core, users: Vec<(BotName, String)>) -> Vec<Use> {
    let seen = core.observed.edges(None, MINUTES_MAX, core.now(), core.started);
    let uses = users.into_iter().map(|(bot, rule)| {
        let own = seen.edges.iter().filter(|edge| edge.from == bot && edge.rule == rule);
        let calls = own.map(|edge| edge.count).fold(0, u64::saturating_add);
        Use { bot, rule, calls }
    });
    uses.collect()
}

fn hosts(core: &Core, name: &CredentialName, rotation: Option<&RotationRow>) -> Vec<FleetHost> {
    let (all, cut_off) = (core.world.hosts(), core.quarantines.list());
    let needed = core.hosts_of(name).into_iter();
    let told = needed.map(|host| {
        let view = all.get(&host);
        let report = core.rotations.report(name, &host);
        FleetHost {
            connected: view.is_some_and(|view| view.session.is_some()),
            quarantined: cut_off.has_host(&host),
            recipient: view.and_then(|view| view.recipient.clone()),
            phase: report.as_ref().and_then(|report| report.phase),
            error: report.map(|report| report.error).unwrap_or_default(),
            has_value: rotation.is_some_and(|rotation| rotation.values.contains_key(&host)),
            host,
        }
    });
    told.collect()
}

fn status(core: &Core, name: &CredentialName, rotation: &RotationRow) -> RotationStatus {
    let (bot, host) = &rotation.canary;
    let told = core.rotations.report(name, host);
    let calls = |of: fn(&crate::rotation::Report) -> u64| told.as_ref().map(of).unwrap_or_default();
    RotationStatus {
        rotation: rotation.rotation,
        phase: rotation.phase,
        fingerprint: rotation.fingerprint.clone(),
        actor: rotation.actor.clone(),
        reason: rotation.reason.clone(),
        started: rotation.started,
        changed: rotation.changed,
        canary: (rotation.phase != Phase::Aborted).then(|| CanaryStatus {
            bot: bot.clone(),
            host: host.clone(),
            calls: calls(|told| told.canary_calls),
            refused: calls(|told| told.canary_refused),
        }),
        probe: ProbeStatus {
            new: told.as_ref().and_then(|told| told.probe_new),
            old: told.as_ref().and_then(|told| told.probe_old),
            error: told.as_ref().map(|told| told.probe_error.clone()).unwrap_or_default(),
        },
    }
}
