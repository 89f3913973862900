//! Hosts: tokens, list, eviction.

use std::sync::Arc;
use std::time::Duration;

use audit::EventKind;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use ca_api::admin::{EvictRequest, EvictResponse, Host, HostList, TOKEN_TTL_SECONDS, TokenRequest, TokenResponse};
use ca_api::token::SECRET_BYTES;
use ca_api::{JoinToken, TokenSecret};
use serde_json::json;

use super::operators::Actor;
use super::problem::{Body, Refused};
use crate::authority::sha256;
use crate::core::Core;
use crate::store::HostRowState;

pub(super) async fn token(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<TokenRequest>,
) -> Result<Json<TokenResponse>, Refused> {
    const OPERATION: &str = "make a join token";
    let now = core.now();
    let expires = now + Duration::from_secs(TOKEN_TTL_SECONDS);
    let mut secret = [0; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut secret).map_err(|error| Refused::unavailable(OPERATION, &error))?;
    let secret = TokenSecret::new(secret);
    let hash = sha256(secret.expose());
    let token = JoinToken::new(
        core.trust_domain().clone(),
        request.host.clone(),
        vec![core.authority.pin()],
        expires.unix_seconds(),
        secret,
    )
    .map_err(|error| Refused::unavailable(OPERATION, &error))?;
    let subject = format!("host:{}", request.host);
    core.journal
        .event(
            EventKind::TokenCreated,
            &actor.to_string(),
            &subject,
            [("expires", json!(expires))],
        )
        .map_err(|error| Refused::unavailable(OPERATION, &error))?;
    let generation = core.generation();
    let number = (generation.epoch, generation.revision);
    let created_by = actor.name().to_owned();
    let written = core
        .store
        .create_token(hash, request.host.clone(), now, expires, created_by, number)
        .await;
    match written.map_err(|error| Refused::unavailable(OPERATION, &error))? {
        Some(host_has_key) => Ok(Json(TokenResponse {
            token: token.to_string(),
            expires,
            host_has_key,
        })),
        None => {
            let detail = format!(
                "{} has too many open tokens; they end by themselves in 10 minutes",
                request.host
            );
            Err(Refused::new(
                StatusCode::TOO_MANY_REQUESTS,
                "unavailable",
                "too many open tokens",
                detail,
            ))
        }
    }
}

pub(super) async fn list(State(core): State<Arc<Core>>) -> Json<HostList> {
    let (hosts, quarantines) = (core.world.hosts(), core.quarantines.list());
    let hosts = hosts.values().map(|view| Host {
        host: view.row.name.clone(),
        state: match view.row.state {
            HostRowState::Joined => "joined".to_owned(),
            HostRowState::Evicted => "evicted".to_owned(),
        },
        connected: view.session.is_some(),
        serial: view.row.serial.clone(),
        not_after: view.row.not_after,
        joined: view.row.joined,
        last_seen: view.row.last_seen,
        advertise: view.row.advertise.map(|address| address.to_string()),
        applied: view.applied,
        failed: view.failed.as_ref().map(|(_, error)| error.clone()),
        connected_since: view.session.as_ref().map(|session| session.since),
        source: view.source,
        features: view.features.iter().cloned().collect(),
        quarantined: quarantines.has_host(&view.row.name),
        alerts: core.alerts.of(&view.row.name),
    });
    Json(HostList { hosts: hosts.collect() })
}

pub(super) async fn evict(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<EvictRequest>,
) -> Result<Json<EvictResponse>, Refused> {
    const OPERATION: &str = "evict a host";
    let host = request.host;
    let evicted = core
        .store
        .evict_host(host.clone(), core.now())
        .await
        .map_err(|error| Refused::unavailable(OPERATION, &error))?;
    if evicted.row.is_none() && evicted.tokens == 0 {
        return Err(no_such_host(&host));
    }
    // First the deed, then the record: of all things that operators do this is the
    // one that must not wait for a full disk.
    core.alerts.forget(&host);
    core.cosigned_times.forget(&host);
    core.watching.forget(&host);
    core.rotations.forget_host(&host);
    let was_connected = evicted.row.is_some_and(|row| core.world.put_row(row));
    // What its bots still hold is refused everywhere from then on.
    let listed = core.list_evicted().await;
    let detail = [
        ("was_connected", json!(was_connected)),
        ("tokens", json!(evicted.tokens)),
    ];
    core.journal
        .event(
            EventKind::HostEvicted,
            &actor.to_string(),
            &format!("host:{host}"),
            detail,
        )
        .map_err(|error| Refused::unavailable("record an eviction that has taken place", &error))?;
    let list =
        listed.map_err(|error| Refused::unavailable("tell the hosts of an eviction that has taken place", &error))?;
    Ok(Json(EvictResponse {
        host,
        was_connected,
        tokens: evicted.tokens as u64,
        list: Some(list),
    }))
}

fn no_such_host(host: &spiffe::id::HostName) -> Refused {
    let detail = format!(
        "no host {host} has joined, or it is evicted already, and it has no open token; see `botmesh host list`"
    );
    Refused::new(StatusCode::NOT_FOUND, "no_such_host", "there is no such host", detail)
}
