//! The limits of a policy.

use super::callees::{Callees, To};
use crate::bits::Sparse;
use crate::limit::Allowance;
use crate::mesh::Mesh;
use crate::rule::RuleId;

/// Limits by the bots that they speak of; numbered in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Limits {
    limits: Box<[(RuleId, Allowance)]>,
    /// For each bot, the limits whose `from` matches it.
    from: Box<[Sparse]>,
    to: Callees,
}

impl Limits {
    pub(super) fn new(mesh: &Mesh) -> Self {
        if mesh.limits.is_empty() {
            return Self::default();
        }
        let mut roster = mesh.roster();
        let mut from = vec![Sparse::default(); mesh.bots.len()].into_boxed_slice();
        let mut to = Callees::new(mesh.bots.len());
        for (number, limit) in mesh.limits.values().enumerate() {
            super::side::mark(&mut from, number, &roster.expand(&limit.from));
            to.add(number, &roster.expand(&limit.to), &limit.to);
        }
        let limits = mesh.limits.iter().map(|(id, limit)| (id.clone(), limit.allowance));
        Self {
            limits: limits.collect(),
            from,
            to,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    pub(super) fn has(&self, id: &RuleId) -> bool {
        self.limits.binary_search_by(|(known, _)| known.cmp(id)).is_ok()
    }

    /// Gives the limits that speak of calls from one to the other.
    pub(super) fn of<'l>(&'l self, from: usize, to: To<'_>) -> impl Iterator<Item = (&'l RuleId, Allowance)> + use<'l> {
        let sets: Vec<&Sparse> = self.to.of(to).collect();
        let from = self.from.get(from);
        let both = sets.into_iter().filter_map(move |to| Some((from?, to)));
        let numbers = both.flat_map(|(from, to)| from.both(to));
        numbers.filter_map(|number| self.limits.get(number).map(|(id, allowance)| (id, *allowance)))
    }
}
