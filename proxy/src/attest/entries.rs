//! The entries of this host, with a number that says when they changed.

use std::sync::Arc;

use arc_swap::ArcSwap;
use spiffe::entry::Entry;
use spiffe::id::BotName;
use spiffe::selector::SelectorSet;

/// One state of the entries.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) version: u64,
    pub(super) list: Arc<[Entry]>,
}

/// The entries in force.
#[derive(Debug)]
pub(super) struct Current(ArcSwap<Entries>);

impl Current {
    pub(super) fn new() -> Self {
        Self(ArcSwap::from_pointee(Entries {
            version: 0,
            list: Arc::from([]),
        }))
    }

    pub(super) fn get(&self) -> Arc<Entries> {
        self.0.load_full()
    }

    pub(super) fn version(&self) -> u64 {
        self.0.load().version
    }

    pub(super) fn set(&self, list: Arc<[Entry]>) {
        self.0.rcu(|old| Entries {
            version: old.version.wrapping_add(1),
            list: Arc::clone(&list),
        });
    }
}

impl Entries {
    /// Returns the sets that this user, or a process run as this bot, can match: only what they ask for is looked up.
    pub(super) fn candidates<'a>(
        &'a self,
        uid: u32,
        user: Option<&'a str>,
        run: Option<&'a BotName>,
    ) -> impl Iterator<Item = &'a SelectorSet> {
        self.list.iter().flat_map(move |entry| {
            entry.attest.iter().filter(move |set| {
                set.uid.is_none_or(|wanted| wanted == uid)
                    && set.user.as_deref().is_none_or(|wanted| user == Some(wanted))
                    && (set.run_by.is_empty() || run == Some(&entry.bot))
            })
        })
    }

    /// Tells whether an entry lets this operator start this bot.
    pub(super) fn lets_run(&self, bot: &BotName, operator: &str) -> bool {
        self.list
            .iter()
            .filter(|entry| entry.bot == *bot)
            .flat_map(|entry| &entry.attest)
            .any(|set| set.run_by.iter().any(|allowed| allowed == operator))
    }
}
