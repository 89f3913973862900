//! SVIDs for the bots that the calling host may claim.

use std::sync::Arc;

use ca_api::node::{CSR_BYTES_MAX, ISSUE_BATCH_MAX, IssueRequest, IssueResponse, SvidRefusal, SvidRequest, SvidResult};
use spiffe::id::{BotName, SpiffeId};
use tonic::Status;

use super::caller::Caller;
use super::refused::{Refused, refuse_quarantined};
use crate::core::Core;
use crate::issue::Order;
use crate::refusals::HostRefusal;

pub(super) async fn issue(core: &Arc<Core>, caller: &Caller, request: IssueRequest) -> Result<IssueResponse, Status> {
    if request.svids.len() > ISSUE_BATCH_MAX {
        let count = format!("{} SVIDs", request.svids.len());
        core.host_refused(&caller.host, caller.source, HostRefusal::TooManySvids, &count);
        return Err(Status::invalid_argument("at most 64 SVIDs in one request"));
    }
    let mesh = core.world.live().mesh.clone();
    let mut results = Vec::with_capacity(request.svids.len());
    let mut orders = Vec::with_capacity(request.svids.len());
    for svid in request.svids {
        match authorise(core, mesh.as_deref(), caller, &svid) {
            Ok(order) => {
                orders.push(order);
                results.push(SvidResult {
                    bot: svid.bot,
                    ..SvidResult::default()
                });
            }
            Err(Refused { refusal, why, message }) => {
                core.metrics.issued.with_label_values(&["bot", "refused"]).inc();
                core.host_refused(&caller.host, caller.source, why, &svid.bot);
                results.push(refused(svid.bot, refusal, message));
            }
        }
    }
    fill(core, caller, orders, &mut results).await?;
    Ok(IssueResponse { results })
}

/// Turns a request into an order, if this host may have it. Of the CSR only the
/// public key is looked at.
fn authorise(
    core: &Core,
    mesh: Option<&policy::Mesh>,
    caller: &Caller,
    request: &SvidRequest,
) -> Result<Order, Refused<SvidRefusal>> {
    const NOT_YOURS: Refused<SvidRefusal> = Refused::new(
        SvidRefusal::NotYourBot,
        HostRefusal::NotYourBot,
        "the live mesh has no such bot whose `hosts` match this host",
    );
    const NOT_A_BOT: Refused<SvidRefusal> =
        Refused::new(SvidRefusal::BadRequest, HostRefusal::NotABot, "not the name of a bot");
    const TOO_LONG: Refused<SvidRefusal> =
        Refused::new(SvidRefusal::BadRequest, HostRefusal::BadCsr, "the CSR is too long");
    const NO_CSR: Refused<SvidRefusal> = Refused::new(
        SvidRefusal::BadRequest,
        HostRefusal::BadCsr,
        "not a PKCS#10 request with a P-256 key",
    );
    let bot = BotName::parse(&request.bot).map_err(|_invalid| NOT_A_BOT)?;
    let entry = mesh.and_then(|mesh| mesh.bots().get(&bot)).ok_or(NOT_YOURS)?;
    if !entry.may_run_on(&caller.host) {
        return Err(NOT_YOURS);
    }
    refuse_quarantined(core, caller, &bot, SvidRefusal::Quarantined)?;
    if request.csr.len() > CSR_BYTES_MAX {
        return Err(TOO_LONG);
    }
    let spki = spiffe_tls::csr_public_key(&request.csr).map_err(|_invalid| NO_CSR)?;
    Ok(Order {
        id: SpiffeId::for_bot(core.trust_domain(), &bot),
        spki,
        ttl: entry.svid_ttl,
    })
}

/// Issues the orders into the results that wait for them, in order.
async fn fill(core: &Arc<Core>, caller: &Caller, orders: Vec<Order>, results: &mut [SvidResult]) -> Result<(), Status> {
    if orders.is_empty() {
        return Ok(());
    }
    let count = orders.len() as u64;
    if !core.quotas.take(&caller.host, count, core.now()) {
        core.metrics.issued.with_label_values(&["bot", "limited"]).inc_by(count);
        let asked = format!("{count} SVIDs");
        core.host_refused(&caller.host, caller.source, HostRefusal::SvidsLimited, &asked);
        return Err(Status::resource_exhausted(
            "more SVIDs than a host needs; try again later",
        ));
    }
    let issued = core.issue(orders, &caller.host).await;
    // An eviction that came meanwhile has the last word.
    if !core.holds(caller) {
        core.key_refused(&caller.host, caller.source);
        return Err(Status::permission_denied("the host may not act any more"));
    }
    let mut waiting = results.iter_mut().filter(|result| result.refusal.is_empty());
    match issued {
        Ok(issued) => {
            core.metrics.issued.with_label_values(&["bot", "issued"]).inc_by(count);
            for (result, issued) in waiting.zip(issued) {
                // So has a quarantine.
                let bot = BotName::parse(&result.bot).map_err(|_parsed_before| Status::internal("a name changed"))?;
                match refuse_quarantined(core, caller, &bot, SvidRefusal::Quarantined) {
                    Ok(()) => result.chain = vec![issued.der],
                    Err(Refused { refusal, message, .. }) => {
                        *result = refused(std::mem::take(&mut result.bot), refusal, message);
                    }
                }
            }
        }
        Err(error) => {
            core.metrics.issued.with_label_values(&["bot", "failed"]).inc_by(count);
            tracing::error!(host = %caller.host, error = &error as &dyn std::error::Error, "SVIDs were not issued");
            waiting.by_ref().for_each(|result| {
                let bot = std::mem::take(&mut result.bot);
                *result = refused(bot, SvidRefusal::Unavailable, "the CA could not issue; try again");
            });
        }
    }
    Ok(())
}

fn refused(bot: String, refusal: SvidRefusal, message: &str) -> SvidResult {
    SvidResult {
        bot,
        chain: Vec::new(),
        refusal: refusal.as_str().to_owned(),
        message: message.to_owned(),
    }
}
