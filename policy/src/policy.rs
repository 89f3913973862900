//! The compiled form of the rules, and the one place where calls are decided.

mod callees;
mod compare;
mod hidden;
mod limits;
mod side;
mod trie;

use std::collections::HashMap;
use std::sync::Arc;

use spiffe::id::{BotName, SpiffeId};
use spiffe::time::Timestamp;

use crate::audit_only::Audits;
use crate::call::{Call, Callee};
use crate::decision::{Audit, Denial, DenyReason, Grounds, Nearest, Permit};
use crate::generation::Generation;
use crate::limit::Allowance;
use crate::mesh::Mesh;
use crate::outside::Outside;
use crate::rule::{Effect, RuleId};
use callees::To;
use hidden::Hidden;
use limits::Limits;
use side::{Ask, Compiled, Side};

pub(crate) use compare::{compare, differences};

/// The rules of one generation, ready to decide.
///
/// A decision walks the path once for the deny rules and once for the allow rules, and allocates nothing when it allows.
#[derive(Debug)]
pub struct Policy {
    generation: Generation,
    trust_domain: Box<str>,
    /// The number of each bot. Only looked up, never iterated.
    bots: HashMap<Box<str>, usize>,
    allow: Side,
    deny: Side,
    audits: Audits,
    limits: Limits,
    hidden: Hidden,
}

impl Policy {
    pub(crate) fn new(mesh: &Mesh, generation: Generation) -> Self {
        Self {
            generation,
            trust_domain: mesh.trust_domain.as_str().into(),
            bots: mesh
                .bots
                .keys()
                .enumerate()
                .map(|(number, name)| (name.as_str().into(), number))
                .collect(),
            allow: Side::new(mesh, Effect::Allow),
            deny: Side::new(mesh, Effect::Deny),
            audits: Audits::new(mesh),
            limits: Limits::new(mesh),
            hidden: Hidden::new(mesh),
        }
    }

    /// Gives the generation that the rules are from.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Decides one call at `now`: deny rules first, then allow rules, else it is refused, unless
    /// its callee is `audit_only`.
    ///
    /// Caller and callee must both be bots of the mesh: an SVID of a bot that was removed matches no rule. A rule with
    /// `until` has ended at that very moment. `audit_only` carries what no rule speaks of and nothing else: a call that
    /// looks like a browser's, or asks for another protocol, needs a rule that says so.
    ///
    /// # Errors
    /// With the [`Denial`] when no rule allows the call or a deny rule forbids it.
    pub fn decide(&self, now: Timestamp, call: Call) -> Result<Permit, Denial> {
        let (Some(from), Some(to)) = (self.caller(&call.from), self.callee(&call.to)) else {
            return Err(denial(call, DenyReason::NoRule, None, None));
        };
        let what = &call.what;
        let ask = Ask { from, to, what };
        if let Some(rule) = self.deny.first(&ask, |rule| rule.is_live(now)) {
            return Err(denial(call, DenyReason::DeniedByRule, Some(rule), None));
        }
        if let Some(rule) = self.allow.first(&ask, |rule| rule.is_live(now) && rule.takes(what)) {
            let rule = rule.id.clone();
            return Ok(Permit::new(call, Grounds::Rule(rule), self.generation));
        }
        let nearest = self.allow.nearest(&ask, now);
        if let Some(rule) = self.allow.first(&ask, |rule| {
            what.is_browser() && rule.is_live(now) && rule.switches(what)
        }) {
            return Err(denial(call, DenyReason::BrowserRefused, Some(rule), nearest));
        }
        let ended = self.allow.first(&ask, |rule| !rule.is_live(now) && rule.takes(what));
        if ended.is_some() {
            return Err(denial(call, DenyReason::RuleExpired, ended, nearest));
        }
        let plain = what.http().is_none_or(|ask| !ask.browser && ask.upgrade.is_none());
        let lasting = match to {
            To::Bot(number) if plain => self.audits.of(number, now),
            To::Bot(_) | To::Outside(_) => None,
        };
        match lasting {
            Some(lasting) => {
                let audit = Audit {
                    until: lasting.until,
                    why: Arc::clone(&lasting.reason),
                    nearest,
                };
                Ok(Permit::new(call, Grounds::Audit(Box::new(audit)), self.generation))
            }
            None => Err(denial(call, DenyReason::NoRule, None, nearest)),
        }
    }

    /// The earliest end of an allow rule or of `audit_only` after `now`: until then time alone refuses no call that is
    /// carried now.
    pub fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = [self.allow.next_end(now), self.audits.next_end(now)];
        ends.into_iter().flatten().min()
    }

    /// Gives the limits that count a call, each with its id. They are asked after `decide`, by the callee's proxy, and for
    /// calls to the outside by the caller's.
    pub fn limits_of(&self, call: &Call) -> impl Iterator<Item = (&RuleId, Allowance)> {
        // Most meshes have none, and then nothing is looked up.
        let ends = (!self.limits.is_empty())
            .then(|| Some((self.caller(&call.from)?, self.callee(&call.to)?)))
            .flatten();
        ends.into_iter().flat_map(|(from, to)| self.limits.of(from, to))
    }

    /// Says whether a limit of this id exists.
    pub fn has_limit(&self, id: &RuleId) -> bool {
        self.limits.has(id)
    }

    /// Says whether the path of a request that a rule allows is to be recorded as a hash: where any rule that speaks of it
    /// says so, ended or not, whichever allowed it.
    pub fn hides_path(&self, call: &Call) -> bool {
        let (Some(ask), false) = (call.what.http(), self.hidden.is_empty()) else {
            return false;
        };
        let ends = self.caller(&call.from).zip(self.callee(&call.to));
        ends.is_some_and(|(from, to)| self.hidden.speaks_of(from, to, ask))
    }

    /// Says the same of a request of which no more is known than its ends, and of one that no rule allows: where any rule says
    /// so that speaks of the callee, whoever calls it, or of the caller if it calls nobody that a rule speaks of.
    pub fn may_hide_path(&self, from: &SpiffeId, to: Option<&Callee>) -> bool {
        if self.hidden.is_empty() {
            return false;
        }
        let known = to.and_then(|to| self.callee(to)).filter(|to| match to {
            To::Bot(_) => true,
            To::Outside(outside) => self.allow.outside_name(outside).is_some(),
        });
        match known {
            Some(to) => self.hidden.has_to(to),
            None => self.caller(from).is_some_and(|from| self.hidden.has_from(from)),
        }
    }

    /// Says whether any allow rule, ended or not, speaks of calls from one to the other.
    ///
    /// `to` need not exist: a caller may learn that a bot does not exist only where a rule links it to that name. Deny rules
    /// do not count, because a caller learns nothing from what it may not do.
    pub fn links(&self, from: &SpiffeId, to: &BotName) -> bool {
        let Some(from) = self.caller(from) else {
            return false;
        };
        match self.bots.get(to.as_str()) {
            Some(to) => self.allow.links(from, To::Bot(*to)),
            None => self.allow.links_name(from, to),
        }
    }

    /// Says whether any allow rule, ended or not, speaks of calls from a bot to a destination outside.
    pub fn links_outside(&self, from: &SpiffeId, to: &Outside) -> bool {
        let from = self.caller(from);
        from.is_some_and(|from| self.allow.links(from, To::Outside(to)))
    }

    /// Gives a destination outside as the allow rules name it: by its own name, or else by the wildcard that covers it. So
    /// there are no more such names than the mesh file holds.
    pub fn outside_name(&self, to: &Outside) -> Option<String> {
        self.allow.outside_name(to)
    }

    /// Finds the callee; of a bot its number.
    fn callee<'c>(&self, callee: &'c Callee) -> Option<To<'c>> {
        callees::find(callee, |bot| self.bots.get(bot).copied())
    }

    /// Finds the bot that an ID names, without allocating.
    fn caller(&self, id: &SpiffeId) -> Option<usize> {
        self.bots.get(bot_of(id, &self.trust_domain)?).copied()
    }
}

/// Gives the part of an ID that would be a bot's name, if it belongs to the trust domain.
pub(crate) fn bot_of<'id>(id: &'id SpiffeId, trust_domain: &str) -> Option<&'id str> {
    if id.trust_domain_str() != trust_domain {
        return None;
    }
    id.path().strip_prefix('/')
}

fn denial(call: Call, reason: DenyReason, rule: Option<&Compiled>, nearest: Option<Nearest>) -> Denial {
    Denial {
        call: Box::new(call),
        reason,
        rule: rule.map(|rule| rule.id.clone()),
        why: rule.and_then(|rule| rule.rule.reason.clone()),
        nearest: nearest.map(Box::new),
    }
}

#[cfg(test)]
mod tests;
