//! The allow rules, or the deny rules, of a policy.

use std::sync::Arc;

use spiffe::id::BotName;
use spiffe::time::Timestamp;

use super::compare::{count, differences, is_live, switches};
use super::trie::{Terminal, Trie};
use crate::bits::{Bits, Sparse};
use crate::call::HttpAsk;
use crate::decision::Nearest;
use crate::mesh::Mesh;
use crate::method::Method;
use crate::pattern::NamePattern;
use crate::roster::patterns;
use crate::rule::{Effect, Rule, RuleId};

/// One question, by numbers.
#[derive(Debug)]
pub(super) struct Ask<'c> {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) method: &'c Method,
    pub(super) path: &'c str,
}

/// A rule and its id.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) id: RuleId,
    pub(super) rule: Arc<Rule>,
    /// Two values of the rule, here so that a look at many rules stays in one place of memory.
    until: Option<Timestamp>,
    browser: bool,
    /// The patterns of `to` that have stars, with those of groups.
    to_patterns: Box<[NamePattern]>,
}

impl Compiled {
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        is_live(self.until, now)
    }

    /// Says whether the rule takes the call for all that it looks like a browser's, or asks for another protocol.
    pub(super) fn takes(&self, call: &HttpAsk) -> bool {
        (self.browser || !call.browser) && self.switches(call)
    }

    /// Says whether the rule lets the call switch to what it asks for.
    pub(super) fn switches(&self, call: &HttpAsk) -> bool {
        switches(&self.rule, call)
    }
}

/// Rules of one effect. They are numbered in the order of their ids, so the first that matches has the least id.
#[derive(Debug)]
pub(super) struct Side {
    rules: Box<[Compiled]>,
    /// For each bot, the rules whose `from` matches it.
    from: Box<[Sparse]>,
    /// For each bot, the rules whose `to` matches it.
    to: Box<[Sparse]>,
    trie: Trie,
}

impl Side {
    /// The earliest end of a rule after `now`.
    pub(super) fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.rules.iter().filter_map(|rule| rule.until);
        ends.filter(|end| *end > now).min()
    }

    pub(super) fn new(mesh: &Mesh, effect: Effect) -> Self {
        let rules: Box<[Compiled]> = mesh
            .rules
            .iter()
            .filter(|(_, rule)| rule.effect == effect)
            .map(|(id, rule)| compiled(mesh, id, rule))
            .collect();
        let mut roster = mesh.roster();
        let none = || vec![Sparse::default(); mesh.bots.len()].into_boxed_slice();
        let (mut from, mut to) = (none(), none());
        for (number, compiled) in rules.iter().enumerate() {
            // The roster keeps what patterns of the mesh's own rules match, so it reads those.
            let Some(rule) = mesh.rules.get(&compiled.id) else {
                continue;
            };
            mark(&mut from, number, &roster.expand(&rule.from));
            mark(&mut to, number, &mesh.callees_of(&mut roster, rule));
        }
        let trie = Trie::new(rules.iter().map(|compiled| &compiled.rule.http[..]), effect);
        Self { rules, from, to, trie }
    }

    /// Finds the rule with the least id that matches and passes `filter`.
    pub(super) fn first(&self, ask: &Ask<'_>, filter: impl Fn(&Compiled) -> bool) -> Option<&Compiled> {
        let (from, to) = (self.from.get(ask.from)?, self.to.get(ask.to)?);
        let mut best: Option<(usize, &Compiled)> = None;
        self.trie.walk(ask.path, &mut |terminal: &Terminal| {
            for rules in terminal.rules(ask.method) {
                let better = rules
                    .all(from, to)
                    .take_while(|number| best.is_none_or(|(least, _)| *number < least));
                let mut rules = better.filter_map(|number| Some((number, self.rules.get(number)?)));
                if let Some(found) = rules.find(|(_, rule)| filter(rule)) {
                    best = Some(found);
                }
            }
        });
        best.map(|(_, rule)| rule)
    }

    /// Finds the nearest of the rules that link caller and callee.
    pub(super) fn nearest(&self, ask: &Ask<'_>, call: &HttpAsk, now: Timestamp) -> Option<Nearest> {
        let (from, to) = (self.from.get(ask.from)?, self.to.get(ask.to)?);
        let mut best: Option<(&Compiled, usize)> = None;
        for rule in from.both(to).filter_map(|number| self.rules.get(number)) {
            let count = count(&rule.rule, call, now);
            if best.is_none_or(|(_, least)| count < least) {
                best = Some((rule, count));
            }
            // No refused call differs in nothing, so no later rule is nearer.
            if count <= 1 {
                break;
            }
        }
        best.map(|(rule, _)| Nearest {
            rule: rule.id.clone(),
            differs: differences(&rule.rule, call, now),
        })
    }

    pub(super) fn links(&self, from: usize, to: usize) -> bool {
        let (Some(from), Some(to)) = (self.from.get(from), self.to.get(to)) else {
            return false;
        };
        from.both(to).next().is_some()
    }

    /// Says whether a rule of the caller has a pattern in `to` that matches a name which no bot has.
    pub(super) fn links_name(&self, from: usize, to: &BotName) -> bool {
        let mut rules = self
            .from
            .get(from)
            .into_iter()
            .flat_map(Sparse::iter)
            .filter_map(|number| self.rules.get(number));
        rules.any(|rule| rule.to_patterns.iter().any(|pattern| pattern.matches(to)))
    }
}

fn compiled(mesh: &Mesh, id: &RuleId, rule: &Arc<Rule>) -> Compiled {
    let with_stars = patterns(&rule.to, &mesh.groups).filter(|pattern| pattern.literal().is_none());
    Compiled {
        id: id.clone(),
        rule: Arc::clone(rule),
        until: rule.until,
        browser: rule.browser,
        to_patterns: with_stars.cloned().collect(),
    }
}

/// Notes for each of these bots that the rule speaks of it.
pub(super) fn mark(rules_of: &mut [Sparse], rule: usize, bots: &Bits) {
    for bot in bots.iter() {
        if let Some(rules) = rules_of.get_mut(bot) {
            rules.push(rule);
        }
    }
}
