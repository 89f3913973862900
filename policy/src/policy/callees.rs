//! Which rules, or limits, speak of a callee.

use std::collections::BTreeMap;

use super::side::mark;
use crate::bits::{Bits, Sparse};
use crate::call::Callee;
use crate::outside::{Outside, OutsidePattern};
use crate::rule::Subject;

/// A callee by number, or outside of the mesh.
#[derive(Clone, Copy, Debug)]
pub(super) enum To<'c> {
    Bot(usize),
    Outside(&'c Outside),
}

/// The numbers of rules by callee.
#[derive(Debug, Default)]
pub(super) struct Callees {
    bots: Box<[Sparse]>,
    outside: BTreeMap<OutsidePattern, Sparse>,
}

impl Callees {
    pub(super) fn new(bots: usize) -> Self {
        Self {
            bots: vec![Sparse::default(); bots].into_boxed_slice(),
            outside: BTreeMap::new(),
        }
    }

    /// Notes of whom a rule speaks; rules come in the order of their numbers.
    pub(super) fn add(&mut self, rule: usize, bots: &Bits, to: &[Subject]) {
        mark(&mut self.bots, rule, bots);
        for outside in to.iter().filter_map(Subject::outside) {
            let rules = self.outside.entry(outside.clone()).or_default();
            // A destination may be named twice.
            if rules.iter().last() != Some(rule) {
                rules.push(rule);
            }
        }
    }

    /// Gives a destination outside as rules name it: by its own name, or else by the wildcard that covers it.
    pub(super) fn outside_name(&self, to: &Outside) -> Option<&OutsidePattern> {
        let named = |pattern| self.outside.get_key_value(&pattern).map(|(pattern, _)| pattern);
        named(OutsidePattern::from(to.clone())).or_else(|| named(OutsidePattern::above(to)?))
    }

    /// Gives the sets of rules that speak of a callee: one, or for TLS to the outside also that of the wildcard.
    pub(super) fn of(&self, to: To<'_>) -> impl Iterator<Item = &Sparse> {
        let (first, second) = match to {
            To::Bot(number) => (self.bots.get(number), None),
            To::Outside(_) if self.outside.is_empty() => (None, None),
            To::Outside(outside) => (
                self.outside.get(&OutsidePattern::from(outside.clone())),
                OutsidePattern::above(outside).and_then(|above| self.outside.get(&above)),
            ),
        };
        first.into_iter().chain(second)
    }
}

/// Finds a callee; `number` knows the bots.
pub(super) fn find<'c>(callee: &'c Callee, number: impl FnOnce(&str) -> Option<usize>) -> Option<To<'c>> {
    match callee {
        Callee::Bot(bot) => number(bot.as_str()).map(To::Bot),
        Callee::Outside(outside) => Some(To::Outside(outside)),
    }
}
