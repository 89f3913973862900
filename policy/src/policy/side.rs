//! The allow rules, or the deny rules, of a policy.

use std::sync::Arc;

use spiffe::id::BotName;
use spiffe::time::Timestamp;

use super::callees::{Callees, To};
use super::compare::{count, differences, is_live, switches};
use super::trie::{Terminal, Trie};
use crate::bits::{Bits, Sparse};
use crate::call::What;
use crate::decision::Nearest;
use crate::mesh::{Mesh, ServeKind};
use crate::outside::Outside;
use crate::pattern::NamePattern;
use crate::roster::patterns;
use crate::rule::{Effect, Rule, RuleId};

/// One question, by numbers.
#[derive(Debug)]
pub(super) struct Ask<'c> {
    pub(super) from: usize,
    pub(super) to: To<'c>,
    pub(super) what: &'c What,
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
    pub(super) fn takes(&self, what: &What) -> bool {
        (self.browser || !what.is_browser()) && self.switches(what)
    }

    /// Says whether the rule lets the call switch to what it asks for.
    pub(super) fn switches(&self, what: &What) -> bool {
        what.http().is_none_or(|ask| switches(&self.rule, ask))
    }

    /// Says whether the rule speaks of a connection that is no request. An attribute that the connection lacks matches in
    /// a deny rule: one about paths holds for a connection in which nobody sees a path.
    fn covers(&self, what: &What) -> bool {
        match (self.rule.kind, what) {
            (Some(ServeKind::Tcp), What::Tcp { port }) => self.rule.tcp.binary_search(port).is_ok(),
            (None, What::Tls) if self.rule.is_tls() => true,
            // A deny rule may speak of every database.
            (None, What::Postgres { database }) if !self.rule.postgres.is_empty() => {
                self.rule.postgres.iter().any(|item| item.matches(database))
            }
            (Some(_), _) | (None, What::Tcp { .. } | What::Http(_) | What::Tls | What::Postgres { .. }) => {
                self.rule.effect == Effect::Deny
            }
        }
    }
}

/// Rules of one effect. They are numbered in the order of their ids, so the first that matches has the least id.
#[derive(Debug)]
pub(super) struct Side {
    rules: Box<[Compiled]>,
    /// For each bot, the rules whose `from` matches it.
    from: Box<[Sparse]>,
    to: Callees,
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
        let mut from = vec![Sparse::default(); mesh.bots.len()].into_boxed_slice();
        let mut to = Callees::new(mesh.bots.len());
        for (number, compiled) in rules.iter().enumerate() {
            // The roster keeps what patterns of the mesh's own rules match, so it reads those.
            let Some(rule) = mesh.rules.get(&compiled.id) else {
                continue;
            };
            mark(&mut from, number, &roster.expand(&rule.from));
            to.add(number, &mesh.callees_of(&mut roster, rule), &rule.to);
        }
        let trie = Trie::new(rules.iter().map(|compiled| &compiled.rule.http[..]), effect);
        Self { rules, from, to, trie }
    }

    /// Finds the rule with the least id that matches and passes `filter`.
    pub(super) fn first(&self, ask: &Ask<'_>, filter: impl Fn(&Compiled) -> bool) -> Option<&Compiled> {
        let from = self.from.get(ask.from)?;
        let mut best: Option<(usize, &Compiled)> = None;
        for to in self.to.of(ask.to) {
            match ask.what {
                What::Http(http) => self.trie.walk(http.path.as_str(), &mut |terminal: &Terminal| {
                    for rules in terminal.rules(&http.method) {
                        self.better(&mut best, rules.all(from, to), &filter);
                    }
                }),
                What::Tcp { .. } | What::Tls | What::Postgres { .. } => {
                    self.better(&mut best, from.both(to), |rule: &Compiled| {
                        rule.covers(ask.what) && filter(rule)
                    });
                }
            }
        }
        best.map(|(_, rule)| rule)
    }

    /// Takes the first of some rules, in their order, if it comes before the best so far.
    fn better<'s>(
        &'s self,
        best: &mut Option<(usize, &'s Compiled)>,
        rules: impl Iterator<Item = usize>,
        filter: impl Fn(&Compiled) -> bool,
    ) {
        let least = best.map(|(least, _)| least);
        let earlier = rules.take_while(|number| least.is_none_or(|least| *number < least));
        let mut earlier = earlier.filter_map(|number| Some((number, self.rules.get(number)?)));
        if let Some(found) = earlier.find(|(_, rule)| filter(rule)) {
            *best = Some(found);
        }
    }

    /// Finds the nearest of the rules that link caller and callee.
    pub(super) fn nearest(&self, ask: &Ask<'_>, now: Timestamp) -> Option<Nearest> {
        let from = self.from.get(ask.from)?;
        // By fewest differences, then by number, which is the order of the ids.
        let mut best: Option<(usize, usize)> = None;
        for to in self.to.of(ask.to) {
            for number in from.both(to) {
                let Some(rule) = self.rules.get(number) else {
                    continue;
                };
                let rank = (count(&rule.rule, ask.what, now), number);
                if best.is_none_or(|best| rank < best) {
                    best = Some(rank);
                }
                // No refused call differs in nothing, so no later rule of these is nearer.
                if rank.0 <= 1 {
                    break;
                }
            }
        }
        let rule = self.rules.get(best?.1)?;
        Some(Nearest {
            rule: rule.id.clone(),
            differs: differences(&rule.rule, ask.what, now),
        })
    }

    pub(super) fn links(&self, from: usize, to: To<'_>) -> bool {
        self.from
            .get(from)
            .is_some_and(|from| self.to.of(to).any(|to| from.both(to).next().is_some()))
    }

    /// Gives a destination outside as the rules name it.
    pub(super) fn outside_name(&self, to: &Outside) -> Option<String> {
        self.to.outside_name(to).map(ToString::to_string)
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
