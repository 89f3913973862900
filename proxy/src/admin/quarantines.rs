//! The kill switch of one host: what an operator sets here needs no CA and ends here only.

use ca_api::admin::{Quarantine, QuarantineRequest, Quarantined, ReleaseRequest};
use ca_api::proxy_admin::LocalQuarantines;
use http::StatusCode;
use nix::unistd::{Uid, User};
use serde::de::DeserializeOwned;

use super::{Asker, json, problem};
use crate::control::LocalError;
use crate::plain::Page;
use crate::proxy::Proxy;

pub(super) fn list(proxy: &Proxy, streams_cut: u64) -> Page {
    let snapshot = proxy.control.snapshot();
    let mesh = snapshot.mesh_quarantines();
    let bots = mesh.bots.iter().cloned().map(Quarantined::Bot);
    let hosts = mesh.hosts.iter().cloned().map(Quarantined::Host);
    json(&LocalQuarantines {
        local: proxy.control.local_quarantines().values().cloned().collect(),
        mesh: bots.chain(hosts).collect(),
        streams_cut,
    })
}

pub(super) async fn quarantine(proxy: &Proxy, asker: Asker, body: &[u8]) -> Page {
    match checked(proxy, asker, body) {
        Ok(quarantine) => match proxy.control.quarantine(quarantine).await {
            Ok(cut) => list(proxy, cut),
            Err(error) => refused(&error),
        },
        Err(page) => page,
    }
}

pub(super) async fn release(proxy: &Proxy, asker: Asker, body: &[u8]) -> Page {
    let request: ReleaseRequest = match read(body) {
        Ok(request) => request,
        Err(page) => return page,
    };
    match proxy.control.release(&request.whom, &operator(asker)).await {
        Ok(()) => list(proxy, 0),
        Err(error) => refused(&error),
    }
}

fn checked(proxy: &Proxy, asker: Asker, body: &[u8]) -> Result<Quarantine, Page> {
    let request: QuarantineRequest = read(body)?;
    known(proxy, &request.whom)?;
    request
        .quarantine(operator(asker), proxy.control.now())
        .map_err(|error| bad_request("This is no quarantine", &error.to_string()))
}

/// Which bots run on another host, and by which addresses it is reached, only the CA knows.
fn known(proxy: &Proxy, whom: &Quarantined) -> Result<(), Page> {
    let snapshot = proxy.control.snapshot();
    match whom {
        Quarantined::Host(host) if *host == proxy.host => Ok(()),
        Quarantined::Host(_) => Err(bad_request(
            "Here only this host itself can be quarantined",
            "quarantine the bots of another host by their names, or the host at the CA",
        )),
        // Before the first policy every name may be a bot's.
        Quarantined::Bot(bot) if !snapshot.has_slice() || snapshot.mesh.bots().contains_key(bot) => Ok(()),
        Quarantined::Bot(bot) => Err(problem(
            StatusCode::NOT_FOUND,
            "no_such_bot",
            "There is nobody of that name",
            &format!("this host knows no bot {bot}, and so carries no call of it"),
        )),
    }
}

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Page> {
    serde_json::from_slice(body).map_err(|error| bad_request("The request is none", &error.to_string()))
}

pub(super) fn bad_request(title: &str, detail: &str) -> Page {
    problem(StatusCode::BAD_REQUEST, "bad_request", title, detail)
}

pub(super) fn operator(asker: Asker) -> String {
    let user = User::from_uid(Uid::from_raw(asker.uid)).ok().flatten();
    user.map_or_else(|| format!("uid:{}", asker.uid), |user| user.name)
}

fn refused(error: &LocalError) -> Page {
    let unavailable = |title: &str| {
        tracing::error!(error = error as &dyn std::error::Error, "a quarantine of this host");
        problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            title,
            &format!("{error}; the proxy's log says why"),
        )
    };
    match error {
        LocalError::TooMany => problem(
            StatusCode::TOO_MANY_REQUESTS,
            "unavailable",
            "This host has too many quarantines",
            "release some",
        ),
        LocalError::NotSet => problem(
            StatusCode::NOT_FOUND,
            "not_quarantined",
            "It was not quarantined on this host",
            "what was set at the CA is released there",
        ),
        LocalError::Keep { .. } | LocalError::Blocking { .. } => {
            unavailable("It could not be kept: a quarantine is in force until a restart, a release is not in force")
        }
        LocalError::Record { .. } => {
            unavailable("It could not be recorded: a quarantine is in force, a release is not")
        }
    }
}
