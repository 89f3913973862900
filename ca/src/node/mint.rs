//! JWT-SVIDs for the bots that the calling host may claim.

use std::sync::Arc;

use ca_api::node::{JwtRefusal, JwtRequest, JwtResponse, is_audience};
use policy::Mesh;
use spiffe::id::{BotName, SpiffeId};
use spiffe::time::Timestamp;
use tonic::Status;

use super::caller::Caller;
use super::refused::{Refused, refuse_quarantined};
use crate::core::Core;
use crate::federation::{Federation, JwtOrder};
use crate::refusals::HostRefusal;

pub(super) async fn mint(core: &Arc<Core>, caller: &Caller, request: JwtRequest) -> Result<JwtResponse, Status> {
    let count = |result| core.metrics.issued.with_label_values(&["jwt", result]).inc();
    let (federation, order) = match authorise(core, caller, &request) {
        Ok(granted) => granted,
        Err(refused) => {
            count("refused");
            core.host_refused(&caller.host, caller.source, refused.why, &asked(&request));
            return Ok(answer(refused));
        }
    };
    if !core.quotas.take(&caller.host, 1, core.now()) {
        count("limited");
        core.host_refused(&caller.host, caller.source, HostRefusal::SvidsLimited, &asked(&request));
        return Err(Status::resource_exhausted(
            "more SVIDs than a host needs; try again later",
        ));
    }
    let minted = core.mint(&federation, order, &caller.host).await;
    // An eviction that came meanwhile has the last word.
    if !core.holds(caller) {
        core.key_refused(&caller.host, caller.source);
        return Err(Status::permission_denied("the host may not act any more"));
    }
    // So have a quarantine, and a new mesh.
    if let Err(refused) = authorise(core, caller, &request) {
        count("refused");
        core.host_refused(&caller.host, caller.source, refused.why, &asked(&request));
        return Ok(answer(refused));
    }
    match minted {
        Ok(minted) => {
            count("issued");
            Ok(JwtResponse {
                token: minted.token,
                expires_unix_ms: minted.expires.unix_millis(),
                ..JwtResponse::default()
            })
        }
        Err(error) => {
            count("failed");
            tracing::error!(host = %caller.host, error = &error as &dyn std::error::Error, "a JWT-SVID was not signed");
            Ok(refusal(JwtRefusal::Unavailable, "the CA could not sign; try again"))
        }
    }
}

/// The words of the host, for the record.
fn asked(request: &JwtRequest) -> String {
    format!("{} for {}", request.bot, request.audience)
}

fn answer(refused: Refused<JwtRefusal>) -> JwtResponse {
    refusal(refused.refusal, refused.message)
}

fn refusal(refusal: JwtRefusal, message: &str) -> JwtResponse {
    JwtResponse {
        refusal: refusal.as_str().to_owned(),
        message: message.to_owned(),
        ..JwtResponse::default()
    }
}

/// Turns a request into an order, if this host may have it.
fn authorise(
    core: &Core,
    caller: &Caller,
    request: &JwtRequest,
) -> Result<(Arc<Federation>, JwtOrder), Refused<JwtRefusal>> {
    const NOT_CONFIGURED: Refused<JwtRefusal> = Refused::new(
        JwtRefusal::NotConfigured,
        HostRefusal::NotFederated,
        "the CA has no `federation:` in ca.yaml",
    );
    const NOT_A_BOT: Refused<JwtRefusal> =
        Refused::new(JwtRefusal::BadRequest, HostRefusal::NotABot, "not the name of a bot");
    const NO_AUDIENCE: Refused<JwtRefusal> = Refused::new(
        JwtRefusal::BadRequest,
        HostRefusal::BadAudience,
        "an audience is 1 to 1024 visible ASCII characters",
    );
    const NOT_YOURS: Refused<JwtRefusal> = Refused::new(
        JwtRefusal::NotYourBot,
        HostRefusal::NotYourBot,
        "the live mesh has no such bot whose `hosts` match this host",
    );
    const NOT_FOR_IT: Refused<JwtRefusal> = Refused::new(
        JwtRefusal::NotYourAudience,
        HostRefusal::NotYourAudience,
        "no allow rule of the bot injects a credential that is federated for this audience",
    );
    let federation = core.federation.as_ref().ok_or(NOT_CONFIGURED)?;
    let bot = BotName::parse(&request.bot).map_err(|_invalid| NOT_A_BOT)?;
    if !is_audience(&request.audience) {
        return Err(NO_AUDIENCE);
    }
    let mesh = core.world.live().mesh.clone();
    let mesh = mesh.as_deref().ok_or(NOT_YOURS)?;
    let entry = mesh.bots().get(&bot).ok_or(NOT_YOURS)?;
    if !entry.may_run_on(&caller.host) {
        return Err(NOT_YOURS);
    }
    refuse_quarantined(core, caller, &bot, JwtRefusal::Quarantined)?;
    if !may_have(mesh, &bot, &request.audience, core.now()) {
        return Err(NOT_FOR_IT);
    }
    let order = JwtOrder {
        id: SpiffeId::for_bot(core.trust_domain(), &bot),
        audience: request.audience.clone(),
        svid_ttl: entry.svid_ttl,
    };
    Ok((Arc::clone(federation), order))
}

/// Tokens for an audience are the bot's that a live rule lets call it.
fn may_have(mesh: &Mesh, bot: &BotName, audience: &str, now: Timestamp) -> bool {
    mesh.may_have_jwt(bot, audience, now)
}
