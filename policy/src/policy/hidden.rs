//! The rules that have paths recorded as hashes.

use std::sync::Arc;

use super::callees::{Callees, To};
use super::side::mark;
use crate::bits::Sparse;
use crate::call::HttpAsk;
use crate::mesh::Mesh;
use crate::rule::Rule;

/// Those rules, numbered in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    rules: Box<[Arc<Rule>]>,
    /// For each bot, the rules whose `from` matches it.
    from: Box<[Sparse]>,
    to: Callees,
}

impl Hidden {
    pub(super) fn new(mesh: &Mesh) -> Self {
        let rules: Box<[_]> = mesh.rules.values().filter(|rule| rule.hashed).cloned().collect();
        if rules.is_empty() {
            return Self::default();
        }
        let mut roster = mesh.roster();
        let mut from = vec![Sparse::default(); mesh.bots.len()].into_boxed_slice();
        let mut to = Callees::new(mesh.bots.len());
        // The roster keeps what patterns of the mesh's own rules match, so it reads those.
        for (number, rule) in mesh.rules.values().filter(|rule| rule.hashed).enumerate() {
            mark(&mut from, number, &roster.expand(&rule.from));
            to.add(number, &mesh.callees_of(&mut roster, rule), &rule.to);
        }
        Self { rules, from, to }
    }

    /// Most meshes have none, and then nothing is looked up.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Says whether a rule speaks of a request.
    pub(super) fn speaks_of(&self, from: usize, to: To<'_>, ask: &HttpAsk) -> bool {
        let Some(from) = self.from.get(from) else { return false };
        let speaks = |rule: &Rule| {
            let mut items = rule.http.iter();
            items.any(|item| item.method.matches(&ask.method) && item.path.matches(&ask.path))
        };
        let mut numbers = self.to.of(to).flat_map(|to| from.both(to));
        numbers.any(|number| self.rules.get(number).is_some_and(|rule| speaks(rule)))
    }

    /// Says whether a rule speaks of calls to somebody.
    pub(super) fn has_to(&self, to: To<'_>) -> bool {
        self.to.of(to).any(|rules| rules.iter().next().is_some())
    }

    /// Says whether a rule speaks of calls by a bot.
    pub(super) fn has_from(&self, from: usize) -> bool {
        self.from.get(from).is_some_and(|rules| rules.iter().next().is_some())
    }
}
