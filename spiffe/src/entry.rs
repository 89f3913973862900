//! Entries, which say who gets which ID, and the choice among them.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::id::BotName;
use crate::selector::{Facts, Mismatch, SelectorSet};

/// One bot and the ways to be it: a process that matches any of the sets is this bot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The bot.
    pub bot: BotName,
    /// The ways to be it; none means that no process is.
    pub attest: Vec<SelectorSet>,
}

/// Which entry a process matches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pick<'a> {
    /// Exactly one, by the set with this index in its `attest`.
    One(&'a Entry, usize),
    /// None: the caller is unknown.
    None {
        /// The entry that came closest, for the operator; absent when there are no sets to compare with.
        nearest: Option<Nearest<'a>>,
    },
    /// More than one, of which these are the first two: the caller is refused, for it cannot be said who it is.
    Two(&'a Entry, &'a Entry),
}

/// The entry that came closest to matching, and what was missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// The index in its `attest` of the set meant.
    pub set: usize,
    /// The first demand of that set that does not hold.
    pub mismatch: Mismatch,
}

/// Chooses the bot that a process with these `facts` is.
///
/// The nearest entry is the one whose set has the fewest demands unmet, then the most met, then the least bot name, then
/// the first set: it does not depend on the order of `entries`.
pub fn pick<'a>(entries: &'a [Entry], facts: &Facts) -> Pick<'a> {
    let mut found: Option<(&Entry, usize)> = None;
    for entry in entries {
        let Some(set) = entry
            .attest
            .iter()
            .position(|set| set.matches(&entry.bot, facts).is_ok())
        else {
            continue;
        };
        if let Some((first, _)) = found {
            return Pick::Two(first, entry);
        }
        found = Some((entry, set));
    }
    match found {
        Some((entry, set)) => Pick::One(entry, set),
        None => Pick::None {
            nearest: nearest(entries, facts),
        },
    }
}

fn nearest<'a>(entries: &'a [Entry], facts: &Facts) -> Option<Nearest<'a>> {
    entries
        .iter()
        .flat_map(|entry| {
            entry
                .attest
                .iter()
                .enumerate()
                .map(move |(set, selectors)| (entry, set, selectors))
        })
        .filter_map(|(entry, set, selectors)| {
            let comparison = selectors.compare(&entry.bot, facts);
            let mismatch = comparison.verdict.err()?;
            let rank = (comparison.failed, Reverse(comparison.held), &entry.bot, set);
            Some((rank, Nearest { entry, set, mismatch }))
        })
        .min_by(|(left, _), (right, _)| left.cmp(right))
        .map(|(_, nearest)| nearest)
}

#[cfg(test)]
mod tests;
