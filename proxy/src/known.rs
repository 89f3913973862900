//! Something of each bot, or of each callee, found without a lock. There are as many as a rule lets call or be called.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Something of each `K`.
#[derive(Debug)]
pub(crate) struct Known<K, T>(ArcSwap<BTreeMap<K, Arc<T>>>);

impl<K, T> Default for Known<K, T> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<K: Ord + Clone, T: Default> Known<K, T> {
    /// Finds what is of this one, or makes it.
    pub(crate) fn of(&self, name: &K) -> Arc<T> {
        if let Some(known) = self.0.load().get(name) {
            return Arc::clone(known);
        }
        let new = Arc::<T>::default();
        self.0.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            all.entry(name.clone()).or_insert_with(|| Arc::clone(&new));
            all
        });
        // Another may have come first.
        self.0.load().get(name).map_or(new, Arc::clone)
    }

    pub(crate) fn each(&self) -> Vec<(K, Arc<T>)> {
        let all = self.0.load();
        all.iter()
            .map(|(name, known)| (name.clone(), Arc::clone(known)))
            .collect()
    }

    /// Forgets what is of none that is there, unless somebody holds it.
    pub(crate) fn keep(&self, is_there: impl Fn(&K) -> bool) {
        let stays = |name: &K, known: &Arc<T>| is_there(name) || Arc::strong_count(known) > 1;
        if self.0.load().iter().all(|(name, known)| stays(name, known)) {
            return;
        }
        self.0.rcu(|all| {
            let staying = all.iter().filter(|(name, known)| stays(name, known));
            staying
                .map(|(name, known)| (name.clone(), Arc::clone(known)))
                .collect::<BTreeMap<_, _>>()
        });
    }
}

#[cfg(test)]
mod tests {
    use spiffe::id::BotName;

    use super::*;

    #[test]
    fn a_bot_has_one_of_it_until_it_is_gone_and_nobody_holds_it() {
        let known = Known::<BotName, ()>::default();
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
