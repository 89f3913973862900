//! Step 4: the policy decides.

use policy::Permit;

use super::draft::Draft;
use super::identify::Who;
use super::limit;
use super::normalize::{Plain, Rest};
use super::refusal::Refusal;
use crate::metrics::Way;
use crate::reason::Reason;

/// Asks the policy; on this side of the call it is asked as the caller's proxy, or as the callee's.
pub(super) fn authorize(draft: &Draft, who: &Who, plain: Plain) -> Result<(Permit, Rest), Box<Refusal>> {
    let Plain { call, rest } = plain;
    if draft.proxy().control.policy_too_old(draft.now) {
        let too_old = "the policy is too old: the CA was not heard for longer than max_policy_age";
        return Err(Refusal::boxed(Reason::NoIdentity, too_old).to(&rest.to));
    }
    let policy = &draft.snapshot.policy;
    // Before every rule: whoever is cut off is refused whatever the rules say.
    let serial = draft.shown.as_ref().map(|shown| &shown.serial);
    if let Some(why) = draft.snapshot.cut_off(&who.id, &who.bot, serial, Some(&rest.to.bot)) {
        return Err(Refusal::boxed(Reason::Quarantined, why).to(&rest.to));
    }
    match draft.proxy().metrics.timed(|| policy.decide(draft.now, call)) {
        Ok(permit) => {
            // As the callee's proxy; on one host that part comes later, in `forward`.
            if draft.series.way == Way::In {
                limit::admit(draft, &permit, &who.bot).map_err(|refusal| refusal.to(&rest.to))?;
            }
            Ok((permit, rest))
        }
        Err(denial) => {
            let exists = draft.snapshot.mesh.bots().contains_key(&rest.to.bot);
            // Only where a rule speaks of that name may the caller learn that nobody has it.
            let tell = !exists && policy.links(&denial.call.from, &rest.to.bot);
            let mut refusal = Refusal::from(denial);
            if tell && refusal.reason == Reason::NoRule {
                refusal = Refusal::new(Reason::NoSuchBot, format!("no bot is named {}", rest.to.bot));
            }
            Err(Box::new(refusal).to(&rest.to))
        }
    }
}
