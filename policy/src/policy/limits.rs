//! The limits of a policy.

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
    /// For each bot, the limits whose `to` matches it.
    to: Box<[Sparse]>,
}

impl Limits {
    pub(super) fn new(mesh: &Mesh) -> Self {
        if mesh.limits.is_empty() {
            return Self::default();
        }
        let mut roster = mesh.roster();
        let none = || vec![Sparse::default(); mesh.bots.len()].into_boxed_slice();
        let (mut from, mut to) = (none(), none());
        for (number, limit) in mesh.limits.values().enumerate() {
            super::side::mark(&mut from, number, &roster.expand(&limit.from));
            super::side::mark(&mut to, number, &roster.expand(&limit.to));
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
    pub(super) fn of(&self, from: usize, to: usize) -> impl Iterator<Item = (&RuleId, Allowance)> {
        let both = self.from.get(from).zip(self.to.get(to));
        let numbers = both.into_iter().flat_map(|(from, to)| from.both(to));
        numbers.filter_map(|number| self.limits.get(number).map(|(id, allowance)| (id, *allowance)))
    }
}
