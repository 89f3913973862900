//! The credentials of this host, for its operators. Values come in here and never go out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use audit::EventKind;
use ca_api::proxy_admin::{
    BotToken, Consumer, CredentialPut, CredentialStatus, CredentialTest, CredentialsResponse, TokenStatus,
};
use http::StatusCode;
use policy::{Credential, CredentialName};
use serde_json::Value;
use spiffe::id::BotName;
use spiffe::time::Timestamp;

use super::quarantines::{bad_request, operator, read};
use super::{Asker, json, problem};
use crate::credentials::{PutError, Shape, State, TokenState};
use crate::plain::Page;
use crate::proxy::Proxy;

pub(super) fn list(proxy: &Proxy) -> Page {
    let snapshot = proxy.control.snapshot();
    let recipient = match proxy.credentials.sealer().recipient() {
        Ok(recipient) => recipient,
        Err(error) => return unavailable("The key of this host cannot be used", &error),
    };
    let (mesh, now) = (&snapshot.mesh, proxy.control.now());
    let states = proxy.credentials.states(mesh.credentials().map(|(name, _)| name));
    let told = states.into_iter().filter_map(|state| {
        let credential = mesh.credential(state.name.as_str())?;
        let consumers = mesh.consumers_of(state.name.as_str(), now).into_iter();
        let consumers = consumers.map(|(rule, bots)| Consumer {
            rule: rule.to_string(),
            bots: bots.into_iter().cloned().collect(),
        });
        Some(status(proxy, credential, state, consumers.collect()))
    });
    json(&CredentialsResponse {
        recipient,
        credentials: told.collect(),
    })
}

fn status(proxy: &Proxy, credential: &Credential, state: State, consumers: Vec<Consumer>) -> CredentialStatus {
    let put = put_at(proxy, &state);
    // What a service gets lives minutes where the value is exchanged, wherever that is.
    let exchanged = credential.injection.token_url().map(|_anywhere| "short");
    let (source, class) = if credential.injection.federate().is_some() {
        ("none", "federated")
    } else if credential.injection.has_value() {
        (state.kind, exchanged.unwrap_or(state.class))
    } else {
        ("svid", "svid")
    };
    let bots = state.bots.into_iter().map(|(bot, state)| BotToken {
        bot,
        token: token(state),
    });
    CredentialStatus {
        name: state.name.to_string(),
        injection: credential.injection.as_str().to_owned(),
        owner: credential.owner.clone(),
        source: source.to_owned(),
        class: class.to_owned(),
        leases: state.leases,
        put,
        due: put.zip(credential.rotate_every).map(|(put, every)| put + every),
        fingerprint: state.fingerprint,
        age_s: state.age.map(|age| age.as_secs()),
        error: state.error.map(|error| crate::control::chain_of(&*error)),
        token: state.token.map(token),
        bots: bots.collect(),
        masked: state.masked,
        shared: credential.shared.as_deref().map(ToOwned::to_owned),
        consumers,
    }
}

fn token(state: TokenState) -> TokenStatus {
    TokenStatus {
        fingerprint: state.fingerprint,
        left_s: state.left.map(|left| left.as_secs()),
        error: state.error.map(|error| crate::control::chain_of(&*error)),
        exchanges: state.counts.ok,
    }
}

/// When a value was put here, by the file that it is in.
fn put_at(proxy: &Proxy, state: &State) -> Option<Timestamp> {
    let file = proxy.credentials.sealer().file(&state.name);
    let at = std::fs::metadata(file).and_then(|file| file.modified()).ok()?;
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_unix_millis(i64::try_from(since.as_millis()).ok()?))
}

/// Puts a value on this host.
pub(super) async fn put(proxy: &Proxy, asker: Asker, body: &[u8]) -> Page {
    let request: CredentialPut = match read(body) {
        Ok(request) => request,
        // What is wrong with it is not told by its text, which may hold the value.
        Err(_page) => return bad_request("The request is none", "a name and a value are expected"),
    };
    let (name, credential) = match known(proxy, &request.name) {
        Ok(found) if found.1.injection.has_value() => found,
        Ok((_, credential)) => return without_value(&credential),
        Err(page) => return page,
    };
    let secret = match Shape::of(&credential.injection).secret(request.value.into_bytes()) {
        Ok(secret) => secret,
        Err(error) => return bad_request("This is no value of a credential", &error.to_string()),
    };
    let fingerprint = secret.fingerprint();
    match proxy.credentials.put(&name, secret).await {
        Ok(()) => {}
        Err(error @ PutError::Elsewhere { .. }) => {
            return problem(
                StatusCode::CONFLICT,
                "kept_elsewhere",
                "The value of this credential is kept elsewhere",
                &error.to_string(),
            );
        }
        Err(PutError::Key(error)) => return unavailable("The value was not kept", &error),
    }
    let detail = BTreeMap::from([("fingerprint".to_owned(), Value::from(fingerprint))]);
    let recorded = proxy
        .control
        .operator_event(EventKind::CredentialPut, &operator(asker), name.to_string(), detail);
    match recorded {
        Ok(()) => list(proxy),
        Err(error) => unavailable("The value is in use, and could not be recorded", &error),
    }
}

/// Reads a value anew, and says how that went.
pub(super) async fn test(proxy: &Proxy, body: &[u8]) -> Page {
    let request: CredentialTest = match read(body) {
        Ok(request) => request,
        Err(page) => return page,
    };
    let (name, credential) = match known(proxy, &request.name) {
        Ok(found) => found,
        Err(page) => return page,
    };
    if credential.injection.federate().is_some() {
        return test_for_bots(proxy, (&name, &credential)).await;
    }
    if !credential.injection.has_value() {
        return without_value(&credential);
    }
    if proxy.credentials.is_leased(&name) {
        proxy.credentials.try_lease(&name, &credential).await;
        return list(proxy);
    }
    let mesh = &proxy.control.snapshot().mesh;
    proxy.credentials.renew(&name, &credential, mesh).await;
    let _told_by_the_list: Result<_, _> = proxy.credentials.load(&name, &credential, mesh).await;
    list(proxy)
}

/// Asks for tokens of the bots of this host that may use the credential, and says how that went.
async fn test_for_bots(proxy: &Proxy, (name, credential): (&CredentialName, &Credential)) -> Page {
    let snapshot = proxy.control.snapshot();
    let here: BTreeSet<&BotName> = snapshot
        .claimable()
        .filter(|bot| !snapshot.quarantined_bots.contains(*bot))
        .collect();
    let consumers = snapshot.mesh.consumers_of(name.as_str(), proxy.control.now());
    let bots: BTreeSet<&BotName> = consumers.into_iter().flat_map(|(_, bots)| bots).collect();
    let bots: Vec<BotName> = bots.intersection(&here).map(|bot| (*bot).clone()).collect();
    proxy
        .credentials
        .renew_for((name, credential), &bots, &snapshot.mesh)
        .await;
    list(proxy)
}

/// A credential of the mesh that a bot of this host uses.
fn known(proxy: &Proxy, name: &str) -> Result<(CredentialName, Credential), Page> {
    let snapshot = proxy.control.snapshot();
    let found = CredentialName::parse(name).and_then(|name| {
        let credential = snapshot.mesh.credential(name.as_str())?.clone();
        Some((name, credential))
    });
    found.ok_or_else(|| {
        problem(
            StatusCode::NOT_FOUND,
            "no_such_credential",
            "No bot of this host uses a credential of that name",
            "it is named in `credentials` of the mesh file, and a rule whose caller may run on this host says `inject: NAME`",
        )
    })
}

fn without_value(credential: &Credential) -> Page {
    let why = if credential.injection.federate().is_some() {
        "`federate` has each bot's own JWT-SVID, which the CA signs when it is needed: nothing is put on a host"
    } else {
        "the bot's own SVID proves who it is"
    };
    problem(StatusCode::CONFLICT, "no_value", "This credential has no value", why)
}

fn unavailable(title: &str, error: &(dyn std::error::Error + 'static)) -> Page {
    tracing::error!(error, "{title}");
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        title,
        &crate::control::chain_of(error),
    )
}
