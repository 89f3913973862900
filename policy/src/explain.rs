//! Why a call is allowed or refused, attribute by attribute.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use spiffe::id::{BotName, SpiffeId};
use spiffe::time::Timestamp;

use crate::bits::Bits;
use crate::call::{Call, HttpAsk, What};
use crate::decision::{Attribute, DenyReason, Nearest};
use crate::generation::Generation;
use crate::limit::{Allowance, LimitAbout};
use crate::mesh::Mesh;
use crate::method::Method;
use crate::path::CanonicalPath;
use crate::policy::{self, Policy};
use crate::rule::{Effect, Rule, RuleId};
use crate::source::Place;

/// The most rules that an explanation compares with the call.
const CANDIDATES_MAX: usize = 5;

/// The answers to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A rule allows it, and it is forwarded.
    Allow,
    /// No rule allows it; it is forwarded and recorded for all that, because its callee is `audit_only`.
    Audit,
    /// It is refused.
    Deny,
}

impl fmt::Display for Verdict {
    /// Writes `ALLOW`, `AUDIT` or `DENY`, as people read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Audit => "AUDIT",
            Self::Deny => "DENY",
        })
    }
}

impl From<Effect> for Verdict {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Allow => Self::Allow,
            Effect::Deny => Self::Deny,
        }
    }
}

/// The answer to one call with its grounds, as `policy explain` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The caller.
    pub from: SpiffeId,
    /// The callee.
    pub to: BotName,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: CanonicalPath,
    /// The answer, by the same [`Policy::decide`] that the proxies use.
    pub verdict: Verdict,
    /// Why it is refused.
    pub reason: Option<DenyReason>,
    /// The rule that decided.
    pub rule: Option<RuleId>,
    /// Where that rule stands.
    pub rule_at: Option<Place>,
    /// The `reason` text of that rule, or of `audit_only`.
    pub why: Option<Arc<str>>,
    /// When `audit_only` ends, where it alone carries the call.
    pub audit_until: Option<Timestamp>,
    /// The nearest rule of a call that no rule allows.
    pub nearest: Option<Nearest>,
    /// The limits that count such a call after it is allowed; whether they would admit it only the callee's proxy knows.
    pub limits: Vec<LimitAbout>,
    /// The allow rules that come closest, nearest first, compared attribute by attribute; at most five.
    pub candidates: Vec<Candidate>,
}

/// One rule compared with the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The rule.
    pub rule: RuleId,
    /// Where it stands.
    pub at: Place,
    /// Each attribute that the rule has.
    pub ticks: Vec<Tick>,
}

/// One attribute of a rule compared with the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tick {
    /// The attribute.
    pub attribute: Attribute,
    /// Whether it matches.
    pub matches: bool,
    /// What the rule has.
    pub rule_has: String,
    /// What the call has.
    pub call_has: String,
}

/// What the policy says, in one form for both answers.
struct Answer {
    verdict: Verdict,
    reason: Option<DenyReason>,
    rule: Option<RuleId>,
    why: Option<Arc<str>>,
    audit_until: Option<Timestamp>,
    nearest: Option<Nearest>,
}

/// Explains calls of one mesh, whose rules are compiled once.
#[derive(Debug)]
pub struct Explainer<'m> {
    mesh: &'m Mesh,
    policy: Policy,
    /// The bots of `from` and `to` of each allow rule, in the order of the ids.
    ends: Vec<(&'m RuleId, &'m Rule, Bits, Bits)>,
}

impl<'m> Explainer<'m> {
    /// Compiles the rules of a mesh.
    pub fn new(mesh: &'m Mesh) -> Self {
        let mut roster = mesh.roster();
        let ends = mesh
            .rules
            .iter()
            .filter(|(_, rule)| rule.effect == Effect::Allow)
            .map(|(id, rule)| {
                let callees = mesh.callees_of(&mut roster, rule);
                (id, &**rule, roster.expand(&rule.from), callees)
            })
            .collect();
        Self {
            mesh,
            policy: mesh.compile(Generation::default()),
            ends,
        }
    }

    /// Explains one call that does not look like a browser's.
    pub fn explain(
        &self,
        now: Timestamp,
        from: &SpiffeId,
        to: &BotName,
        method: &Method,
        path: &CanonicalPath,
    ) -> Explanation {
        let ask = HttpAsk::new(method.clone(), path.clone());
        let candidates = self.candidates(now, (from, to), &ask);
        let call = Call {
            from: from.clone(),
            to: to.clone().into(),
            what: What::Http(ask),
        };
        let limits = self.limits(&call);
        let answer = self.answer(now, call);
        Explanation {
            from: from.clone(),
            to: to.clone(),
            method: method.clone(),
            path: path.clone(),
            verdict: answer.verdict,
            reason: answer.reason,
            rule_at: answer
                .rule
                .as_ref()
                .and_then(|rule| self.mesh.rule_place(rule))
                .cloned(),
            rule: answer.rule,
            why: answer.why,
            audit_until: answer.audit_until,
            nearest: answer.nearest,
            limits,
            candidates,
        }
    }

    fn limits(&self, call: &Call) -> Vec<LimitAbout> {
        let about = |(id, allowance): (&RuleId, Allowance)| {
            Some(LimitAbout {
                limit: id.clone(),
                at: self.mesh.limits.get(id)?.place.clone(),
                allowance,
            })
        };
        self.policy.limits_of(call).filter_map(about).collect()
    }

    fn answer(&self, now: Timestamp, call: Call) -> Answer {
        match self.policy.decide(now, call) {
            Ok(permit) => {
                let rule = permit.rule().cloned();
                let found = rule.as_ref().and_then(|rule| self.mesh.rules.get(rule));
                let audit = permit.audit();
                Answer {
                    verdict: permit.verdict(),
                    reason: None,
                    why: found
                        .and_then(|rule| rule.reason.clone())
                        .or_else(|| audit.map(|audit| Arc::clone(&audit.why))),
                    audit_until: audit.map(|audit| audit.until),
                    nearest: audit.and_then(|audit| audit.nearest.clone()),
                    rule,
                }
            }
            Err(denial) => Answer {
                verdict: Verdict::Deny,
                reason: Some(denial.reason),
                rule: denial.rule,
                why: denial.why,
                audit_until: None,
                nearest: denial.nearest.map(|nearest| *nearest),
            },
        }
    }

    /// The allow rules with the fewest differing attributes. Rules that link the two ends come before others with as
    /// many, as they do in refusals; then the id decides.
    fn candidates(&self, now: Timestamp, (caller, callee): (&SpiffeId, &BotName), ask: &HttpAsk) -> Vec<Candidate> {
        let names: Vec<&BotName> = self.mesh.bots.keys().collect();
        let from = policy::bot_of(caller, self.mesh.trust_domain.as_str());
        let from = from.and_then(|name| names.binary_search_by(|known| known.as_str().cmp(name)).ok());
        let to = names.binary_search(&callee).ok();
        let mut ranked: Vec<_> = self
            .ends
            .iter()
            .map(|(id, rule, callers, callees)| {
                let calls = from.is_some_and(|from| callers.contains(from));
                let called = to.is_some_and(|to| callees.contains(to));
                let differs = policy::differences(rule, ask, now);
                let rank = (
                    differs.len() + usize::from(!calls) + usize::from(!called),
                    Reverse(calls && called),
                    *id,
                );
                (rank, *rule, calls, called)
            })
            .collect();
        ranked.sort_by(|left, right| left.0.cmp(&right.0));
        ranked
            .into_iter()
            .take(CANDIDATES_MAX)
            .map(|((_, _, id), rule, calls, called)| Candidate {
                rule: id.clone(),
                at: rule.place.clone(),
                ticks: ticks(rule, (caller, calls), (callee, called), ask, now),
            })
            .collect()
    }
}

fn ticks(rule: &Rule, from: (&SpiffeId, bool), to: (&BotName, bool), ask: &HttpAsk, now: Timestamp) -> Vec<Tick> {
    let list =
        |subjects: &[crate::rule::Subject]| subjects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut ticks = vec![
        Tick {
            attribute: Attribute::From,
            matches: from.1,
            rule_has: list(&rule.from),
            call_has: from.0.path().trim_start_matches('/').to_owned(),
        },
        Tick {
            attribute: Attribute::To,
            matches: to.1,
            rule_has: list(&rule.to),
            call_has: to.0.to_string(),
        },
    ];
    ticks.extend(
        policy::compare(rule, ask, now)
            .into_iter()
            .map(|(matches, difference)| Tick {
                attribute: difference.attribute,
                matches,
                rule_has: difference.rule_has,
                call_has: difference.call_has,
            }),
    );
    ticks
}
