//! The warm SVIDs of the bots of this host: who has one, who needs one, and which
//! one a peer asks for by the name in its handshake.
//!
//! Readers take the table as it is, without a lock; only the link to the CA writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use spiffe::id::{BotName, SpiffeId, TrustDomain};
use spiffe::svid::Leaf;
use spiffe::time::Timestamp;
use spiffe_tls::{Svid, sni_label};
use tokio::sync::watch;

use super::rotation::{Jitter, renew_at};

/// The most bots that get SVIDs on one host.
pub const BOTS_MAX: usize = 1000;

/// The SVIDs of this host's bots.
#[derive(Debug)]
pub(super) struct SvidStore {
    trust_domain: TrustDomain,
    table: ArcSwap<Table>,
    /// Counts the times that somebody got or lost an SVID.
    changes: watch::Sender<u64>,
}

#[derive(Clone, Debug, Default)]
struct Table {
    bots: BTreeMap<BotName, Held>,
    /// Opaque SNI label → bot.
    labels: BTreeMap<String, BotName>,
    /// Bots beyond [`BOTS_MAX`], which get none.
    beyond: usize,
}

#[derive(Clone, Debug, Default)]
struct Held {
    svid: Option<Arc<Svid>>,
    renew_at: Option<Timestamp>,
    error: Option<String>,
}

/// How one bot's SVID is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidStatus {
    /// The bot.
    pub bot: BotName,
    /// Its serial, lower hexadecimal; `None` without an SVID that is valid now.
    pub serial: Option<String>,
    /// When it ends.
    pub not_after: Option<Timestamp>,
    /// When the next one is asked for.
    pub renew_at: Option<Timestamp>,
    /// Why the last request failed; `None` when it did not.
    pub error: Option<String>,
}

/// What came of installing an SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Installed {
    /// It is in use.
    Yes,
    /// The bot has left this host while the CA answered.
    NotWanted,
}

impl SvidStore {
    pub(super) fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            table: ArcSwap::default(),
            changes: watch::Sender::new(0),
        }
    }

    fn id(&self, bot: &BotName) -> SpiffeId {
        SpiffeId::for_bot(&self.trust_domain, bot)
    }

    /// The SVID of a bot, where one is valid.
    pub(super) fn valid(&self, bot: &BotName, now: Timestamp) -> Option<Arc<Svid>> {
        self.table.load().bots.get(bot)?.valid(now).map(Arc::clone)
    }

    /// The SVID that a peer asks for by an SNI label, where one is valid.
    pub(super) fn by_label(&self, label: &str, now: Timestamp) -> Option<Arc<Svid>> {
        let table = self.table.load();
        let bot = table.labels.get(label)?;
        table.bots.get(bot)?.valid(now).map(Arc::clone)
    }

    /// Changes whenever somebody got or lost an SVID.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Every SVID, those that have ended too: the time by which they have may be wrong.
    pub(super) fn all(&self) -> Vec<Arc<Svid>> {
        let table = self.table.load();
        table.bots.values().filter_map(|held| held.svid.clone()).collect()
    }

    /// Says which bots are of this host from now on. Others lose their SVIDs.
    pub(super) fn keep_only(&self, bots: &BTreeSet<BotName>) {
        let old = self.table.load();
        let mut next = Table {
            beyond: bots.len().saturating_sub(BOTS_MAX),
            ..Table::default()
        };
        for bot in bots.iter().take(BOTS_MAX) {
            next.labels.insert(sni_label(&self.id(bot)), bot.clone());
            next.bots
                .insert(bot.clone(), old.bots.get(bot).cloned().unwrap_or_default());
        }
        let lost = |(bot, held): (&BotName, &Held)| held.svid.is_some() && !next.bots.contains_key(bot);
        let lost = old.bots.iter().any(lost);
        self.table.store(Arc::new(next));
        if lost {
            self.changed();
        }
    }

    /// The bots that need an SVID now: they have none, or its renewal is due.
    pub(super) fn due(&self, now: Timestamp) -> Vec<BotName> {
        let table = self.table.load();
        let due = table
            .bots
            .iter()
            .filter(|(_, held)| held.renew_at.is_none_or(|at| at <= now));
        due.map(|(bot, _)| bot.clone()).collect()
    }

    /// When the next renewal is due; `None` without SVIDs.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.table.load().bots.values().filter_map(|held| held.renew_at).min()
    }

    /// Whether the bot has an SVID, valid or not.
    pub(super) fn has(&self, bot: &BotName) -> bool {
        self.table.load().bots.get(bot).is_some_and(|held| held.svid.is_some())
    }

    /// Puts an SVID into use.
    pub(super) fn install(&self, bot: &BotName, svid: Svid, now: Timestamp, jitter: Jitter) -> Installed {
        let mut next = Table::clone(&self.table.load());
        let Some(held) = next.bots.get_mut(bot) else {
            return Installed::NotWanted;
        };
        let due = next_renewal(svid.leaf(), now, jitter);
        *held = Held {
            svid: Some(Arc::new(svid)),
            renew_at: Some(due),
            error: None,
        };
        self.table.store(Arc::new(next));
        self.changed();
        Installed::Yes
    }

    /// Notes why these bots got none; what they have stays to its end.
    pub(super) fn failed(&self, failures: impl IntoIterator<Item = (BotName, String)>) {
        let mut next = Table::clone(&self.table.load());
        for (bot, error) in failures {
            if let Some(held) = next.bots.get_mut(&bot) {
                held.error = Some(error);
            }
        }
        self.table.store(Arc::new(next));
    }

    /// How each bot's SVID is, by name.
    pub(super) fn status(&self, now: Timestamp) -> Vec<SvidStatus> {
        let table = self.table.load();
        let status = |(bot, held): (&BotName, &Held)| {
            let svid = held.valid(now);
            SvidStatus {
                bot: bot.clone(),
                serial: svid.map(|svid| svid.leaf().serial().to_string()),
                not_after: svid.map(|svid| svid.leaf().not_after()),
                renew_at: held.renew_at,
                error: held.error.clone(),
            }
        };
        table.bots.iter().map(status).collect()
    }

    /// The bots without a valid SVID, and how many more there are than may have one.
    pub(super) fn missing(&self, now: Timestamp) -> (Vec<BotName>, usize) {
        let table = self.table.load();
        let without = table.bots.iter().filter(|(_, held)| held.valid(now).is_none());
        (without.map(|(bot, _)| bot.clone()).collect(), table.beyond)
    }
}

/// When to renew what came just now. An SVID whose window is over on arrival (the
/// clocks differ) is renewed inside what is left: asking at once would ask for ever.
pub(super) fn next_renewal(leaf: &Leaf, now: Timestamp, jitter: Jitter) -> Timestamp {
    let due = renew_at(leaf.not_before(), leaf.not_after(), jitter);
    if due > now {
        due
    } else {
        renew_at(now, leaf.not_after(), jitter)
    }
}

impl Held {
    /// An SVID is good until its end and not at it (RFC 5280 §4.1.2.5 counts the
    /// last second in; half a second less harms nobody).
    fn valid(&self, now: Timestamp) -> Option<&Arc<Svid>> {
        self.svid.as_ref().filter(|svid| now < svid.leaf().not_after())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::tests::fake_ca::{Root, trust_domain};
    use crate::control::tests::{bot, start_time};

    const HOUR: Duration = Duration::from_hours(1);

    fn store(bots: &[&str]) -> SvidStore {
        let store = SvidStore::new(trust_domain());
        store.keep_only(&bots.iter().map(|name| bot(name)).collect());
        store
    }

    fn svid(root: &Root, name: &str, from: Timestamp) -> Svid {
        root.svid(&SpiffeId::for_bot(&trust_domain(), &bot(name)), from, HOUR)
    }

    #[test]
    fn more_bots_than_the_bound_are_counted_and_get_none() {
        let store = SvidStore::new(trust_domain());
        let bots: BTreeSet<_> = (0..BOTS_MAX + 2)
            .map(|index| bot(&format!("bots/b{index:04}")))
            .collect();
        store.keep_only(&bots);
        assert_eq!(store.due(start_time()).len(), BOTS_MAX);
        assert_eq!(store.missing(start_time()).1, 2);
        let last = bots.last().unwrap();
        let root = Root::new(start_time());
        let svid = root.svid(&SpiffeId::for_bot(&trust_domain(), last), start_time(), HOUR);
        assert_eq!(store.install(last, svid, start_time(), Jitter(0)), Installed::NotWanted);
    }

    #[test]
    fn an_svid_that_comes_after_its_bot_has_left_is_not_kept() {
        let (store, root) = (store(&["prod/orders"]), Root::new(start_time()));
        let svid = svid(&root, "prod/quotes", start_time());
        assert_eq!(
            store.install(&bot("prod/quotes"), svid, start_time(), Jitter(0)),
            Installed::NotWanted
        );
        assert!(store.valid(&bot("prod/quotes"), start_time()).is_none());
    }

    #[test]
    fn an_svid_that_arrives_late_is_not_due_again_at_once() {
        let (store, root) = (store(&["prod/orders"]), Root::new(start_time()));
        // This host's clock is half an SVID's life ahead of the CA's.
        let now = start_time() + HOUR / 2;
        let svid = svid(&root, "prod/orders", start_time());
        assert_eq!(store.install(&bot("prod/orders"), svid, now, Jitter(0)), Installed::Yes);
        assert!(store.due(now).is_empty());
        assert!(
            store
                .next_due()
                .is_some_and(|due| due > now && due < start_time() + HOUR)
        );
    }

    #[test]
    fn a_bot_that_stays_keeps_its_svid_over_a_new_slice() {
        let (store, root) = (store(&["prod/orders", "prod/quotes"]), Root::new(start_time()));
        let svid = svid(&root, "prod/orders", start_time());
        assert_eq!(
            store.install(&bot("prod/orders"), svid, start_time(), Jitter(0)),
            Installed::Yes
        );
        store.keep_only(&BTreeSet::from([bot("prod/orders"), bot("prod/new")]));
        assert!(store.valid(&bot("prod/orders"), start_time()).is_some());
        assert_eq!(store.due(start_time()), [bot("prod/new")]);
    }
}
