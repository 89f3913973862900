//! Why a call is allowed or refused, attribute by attribute.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use spiffe::id::{BotName, SpiffeId};
use spiffe::time::Timestamp;

use crate::bits::Bits;
use crate::call::{Call, Callee, What};
use crate::database::Database;
use crate::decision::{Attribute, DenyReason, Nearest};
use crate::generation::Generation;
use crate::limit::{Allowance, LimitAbout};
use crate::mesh::Mesh;
use crate::method::Method;
use crate::outside::OutsidePattern;
use crate::path::CanonicalPath;
use crate::policy::{self, Policy};
use crate::rule::{Effect, Rule, RuleId, Subject};
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
    pub to: Callee,
    /// The method of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// The path of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<CanonicalPath>,
    /// The port of a TCP connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The database of a session of PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
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
    pub fn explain(&self, now: Timestamp, from: &SpiffeId, to: &Callee, what: &What) -> Explanation {
        let call = Call {
            from: from.clone(),
            to: to.clone(),
            what: what.clone(),
        };
        let candidates = self.candidates(now, &call);
        let limits = self.limits(&call);
        let answer = self.answer(now, call);
        Explanation {
            from: from.clone(),
            to: to.clone(),
            method: what.http().map(|ask| ask.method.clone()),
            path: what.http().map(|ask| ask.path.clone()),
            port: match what {
                What::Tcp { port } => Some(*port),
                What::Http(_) | What::Tls | What::Postgres { .. } => None,
            },
            database: match what {
                What::Postgres { database } => Some(database.clone()),
                What::Http(_) | What::Tls | What::Tcp { .. } => None,
            },
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
    fn candidates(&self, now: Timestamp, call: &Call) -> Vec<Candidate> {
        let names: Vec<&BotName> = self.mesh.bots.keys().collect();
        let from = policy::bot_of(&call.from, self.mesh.trust_domain.as_str());
        let from = from.and_then(|name| names.binary_search_by(|known| known.as_str().cmp(name)).ok());
        let to = call.bot().and_then(|bot| names.binary_search(&bot).ok());
        let mut ranked: Vec<_> = self
            .ends
            .iter()
            .map(|(id, rule, callers, callees)| {
                let calls = from.is_some_and(|from| callers.contains(from));
                let called = to.is_some_and(|to| callees.contains(to)) || is_outside_of(rule, &call.to);
                let differs = policy::differences(rule, &call.what, now);
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
                ticks: ticks(rule, call, now, (calls, called)),
            })
            .collect()
    }
}

/// Says whether a rule speaks of a destination outside.
fn is_outside_of(rule: &Rule, callee: &Callee) -> bool {
    let Some(outside) = callee.outside() else {
        return false;
    };
    let (exact, above) = (OutsidePattern::from(outside.clone()), OutsidePattern::above(outside));
    let mut named = rule.to.iter().filter_map(Subject::outside);
    named.any(|named| *named == exact || Some(named) == above.as_ref())
}

fn ticks(rule: &Rule, call: &Call, now: Timestamp, (calls, called): (bool, bool)) -> Vec<Tick> {
    let list = |subjects: &[Subject]| subjects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut ticks = vec![
        Tick {
            attribute: Attribute::From,
            matches: calls,
            rule_has: list(&rule.from),
            call_has: call.from.path().trim_start_matches('/').to_owned(),
        },
        Tick {
            attribute: Attribute::To,
            matches: called,
            rule_has: list(&rule.to),
            call_has: call.to.to_string(),
        },
    ];
    ticks.extend(
        policy::compare(rule, &call.what, now)
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
