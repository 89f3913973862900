//! Step 4: the policy decides.

use policy::Permit;
use spiffe::id::SpiffeId;

use super::draft::Draft;
use super::identify::Who;
use super::limit;
use super::normalize::{self, Plain, Rest};
use super::refusal::Refusal;
use super::route::To;
use crate::metrics::Way;
use crate::reason::Reason;

/// Asks the policy; on this side of the call it is asked as the caller's proxy, or as the callee's.
pub(super) fn authorize(draft: &mut Draft, who: &Who, plain: Plain) -> Result<(Permit, Rest), Box<Refusal>> {
    let Plain { call, rest } = plain;
    if draft.proxy().control.policy_too_old(draft.now) {
        let too_old = "the policy is too old: the CA was not heard for longer than max_policy_age";
        return Err(Refusal::boxed(Reason::NoIdentity, too_old).to(&rest.to));
    }
    let policy = &draft.snapshot.policy;
    // Before every rule: whoever is cut off is refused whatever the rules say.
    let serial = draft.shown.as_ref().map(|shown| &shown.serial);
    if let Some(why) = draft.snapshot.cut_off(&who.id, &who.bot, serial, rest.to.bot()) {
        return Err(Refusal::boxed(Reason::Quarantined, why).to(&rest.to));
    }
    match draft.proxy().metrics.timed(|| policy.decide(draft.now, call)) {
        Ok(permit) => {
            // As the callee's proxy; on one host that part comes later, in `forward`. Who is outside, or opens its own TLS,
            // has none.
            let has_proxy = |bot| draft.snapshot.own_endpoints(bot).is_none();
            if draft.series.way == Way::In || !rest.to.bot().is_some_and(has_proxy) {
                limit::admit(draft, &permit, &who.bot).map_err(|refusal| refusal.to(&rest.to))?;
            }
            normalize::reveal(draft, &permit, rest.query.as_deref());
            Ok((permit, rest))
        }
        Err(denial) => {
            let instead = instead_of_no_rule(draft, &denial.call.from, &rest.to);
            let mut refusal = Refusal::from(denial);
            if refusal.reason == Reason::NoRule
                && let Some(instead) = instead
            {
                refusal = instead;
            }
            Err(Box::new(refusal).to(&rest.to))
        }
    }
}

/// What is said where no rule allows a call and there is a better word for that.
fn instead_of_no_rule(draft: &Draft, from: &SpiffeId, to: &To) -> Option<Refusal> {
    let policy = &draft.snapshot.policy;
    match to {
        To::Bot(route) => {
            let exists = draft.snapshot.mesh.bots().contains_key(&route.bot);
            // Only where a rule speaks of that name may the caller learn that nobody has it.
            let tell = !exists && policy.links(from, &route.bot);
            tell.then(|| Refusal::new(Reason::NoSuchBot, format!("no bot is named {}", route.bot)))
        }
        To::Outside(route) => {
            let outside = &route.outside;
            let not_linked = !policy.links_outside(from, outside);
            not_linked.then(|| {
                Refusal::new(
                    Reason::OutsideForbidden,
                    format!("no rule lets this bot call {outside}"),
                )
            })
        }
    }
}
