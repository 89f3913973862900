//! `GET http://botmesh.mesh/whoami`: the proxy tells a local process who it is, or why it is nobody.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::proxy_admin::WhoAmI;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use spiffe::id::BotName;

use crate::attest::Mode;
use crate::call::{Answer, AnswerBody, Door, Nobody, Refusal};
use crate::config::Disclose;
use crate::control::Snapshot;
use crate::proxy::Proxy;
use crate::reason::Reason;

/// Answers the process behind `door`.
pub(crate) fn answer(proxy: &Arc<Proxy>, door: &Door) -> Result<Answer, Box<Refusal>> {
    let me = tell(proxy, door)?;
    let json = serde_json::to_vec(&me).map_err(|error| {
        tracing::error!(%error, "whoami cannot be written");
        Refusal::boxed(Reason::BadRequest, "the answer cannot be written")
    })?;
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let last = me.bot.is_none();
    Ok(Answer {
        status: StatusCode::OK,
        headers,
        body: AnswerBody::whole(Bytes::from(json)),
        last,
    })
}

/// What a bot that is cut off is told, and so whoever runs it.
fn quarantined(proxy: &Proxy, snapshot: &Snapshot, bot: &BotName) -> Option<String> {
    let release = if snapshot.quarantined_hosts.contains(&proxy.host) {
        format!("--host {}", proxy.host)
    } else if snapshot.quarantined_bots.contains(bot) {
        bot.to_string()
    } else {
        return None;
    };
    Some(format!(
        "quarantined: it can neither call nor be called until an operator ends that (`botmesh release {release}`, with \
         --local where it was set on this host)"
    ))
}

fn tell(proxy: &Arc<Proxy>, door: &Door) -> Result<WhoAmI, Box<Refusal>> {
    match door {
        Door::Bot { caller, who } => {
            caller
                .recheck()
                .map_err(|unattested| Refusal::unattested(&unattested))?;
            let snapshot = proxy.control.snapshot();
            let may_call = snapshot
                .mesh
                .bots()
                .keys()
                .filter(|bot| snapshot.policy.links(&who.id, bot));
            let same_user = "identities among processes of one user are a convenience here, not a boundary: \
                             the proxy does not run as root";
            Ok(WhoAmI {
                bot: Some(who.bot.clone()),
                id: Some(who.id.to_string()),
                host: proxy.host.clone(),
                facts: (*caller.facts).clone(),
                svid_not_after: proxy.control.svid(&who.bot).map(|svid| svid.leaf().not_after()),
                message: [
                    quarantined(proxy, &snapshot, &who.bot),
                    (proxy.attestor.mode() == Mode::SameUser).then(|| same_user.to_owned()),
                ]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("; "),
                may_call: may_call.cloned().collect(),
            })
        }
        Door::Nobody(Nobody { unattested }) => {
            let facts = unattested
                .facts
                .as_deref()
                .ok_or_else(|| Refusal::unattested(unattested))?;
            // The nearest entry is the mesh file's, so it is told as far as rules are.
            let why = if proxy.disclose >= Disclose::Rule {
                unattested.to_string()
            } else {
                unattested.for_peer()
            };
            Ok(WhoAmI {
                bot: None,
                id: None,
                host: proxy.host.clone(),
                facts: facts.clone(),
                svid_not_after: None,
                message: format!("{}: {why}", Reason::UnknownCaller),
                may_call: Vec::new(),
            })
        }
        Door::Peer { .. } => Err(Refusal::boxed(Reason::BadRequest, "a peer knows who it is")),
    }
}
