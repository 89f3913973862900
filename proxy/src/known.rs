//! Something of each bot, found without a lock. There are as many as bots that a rule lets call or be called.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use spiffe::id::BotName;

/// Something of each bot.
#[derive(Debug)]
pub(crate) struct Known<T>(ArcSwap<BTreeMap<BotName, Arc<T>>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<T: Default> Known<T> {
    /// Finds what is a bot's, or makes it.
    pub(crate) fn of(&self, bot: &BotName) -> Arc<T> {
        if let Some(known) = self.0.load().get(bot) {
            return Arc::clone(known);
        }
        let new = Arc::<T>::default();
        self.0.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            all.entry(bot.clone()).or_insert_with(|| Arc::clone(&new));
            all
        });
        // Another may have come first.
        self.0.load().get(bot).map_or(new, Arc::clone)
    }

    pub(crate) fn each(&self) -> Vec<(BotName, Arc<T>)> {
        let all = self.0.load();
        all.iter()
            .map(|(bot, known)| (bot.clone(), Arc::clone(known)))
            .collect()
    }

    /// Forgets what is of none of these bots, unless somebody holds it.
    pub(crate) fn keep(&self, is_there: impl Fn(&BotName) -> bool) {
        let stays = |bot: &BotName, known: &Arc<T>| is_there(bot) || Arc::strong_count(known) > 1;
        if self.0.load().iter().all(|(bot, known)| stays(bot, known)) {
            return;
        }
        self.0.rcu(|all| {
            let staying = all.iter().filter(|(bot, known)| stays(bot, known));
            staying
                .map(|(bot, known)| (bot.clone(), Arc::clone(known)))
                .collect::<BTreeMap<_, _>>()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bot_has_one_of_it_until_it_is_gone_and_nobody_holds_it() {
        let known = Known::<()>::default();
        let (orders, stock) = (
            BotName::parse("prod/orders").unwrap(),
            BotName::parse("prod/stock").unwrap(),
        );
        let held = known.of(&orders);
        assert!(Arc::ptr_eq(&held, &known.of(&orders)));
        known.of(&stock);
        known.keep(|_| false);
        let left: Vec<_> = known.each().into_iter().map(|(bot, _)| bot).collect();
        assert_eq!(left, std::slice::from_ref(&orders), "it is in use");
        drop(held);
        known.keep(|bot| *bot == orders);
        assert_eq!(known.each().len(), 1);
        known.keep(|_| false);
        assert_eq!(known.each().len(), 0);
    }
}
