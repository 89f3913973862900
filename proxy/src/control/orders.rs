//! What the CA wants done with new values of credentials, and what it is told of that: the newest word about each, both ways.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ca_api::node::{CredentialOrder, CredentialReport};
use ca_api::rotation::{Phase, SEALED_BYTES_MAX};
use policy::CredentialName;
use spiffe::id::BotName;
use tokio::sync::{Notify, watch};

/// The most credentials of which orders are kept: as many as a mesh may have.
const ORDERS_MAX: usize = 1024;

/// The longest fingerprint.
const FINGERPRINT_BYTES_MAX: usize = 64;

/// One order, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) rotation: u64,
    pub(crate) phase: Phase,
    /// The value, sealed to this host.
    pub(crate) sealed: Arc<[u8]>,
    pub(crate) fingerprint: String,
    /// The bot that gets the value before the others, where this host is the one that tries it.
    pub(crate) canary: Option<BotName>,
    /// How often orders were heard until this one: one that is said again wants an answer again.
    pub(crate) heard: u64,
}

/// The orders, by credential.
pub(crate) type Orders = Arc<BTreeMap<CredentialName, Order>>;

/// Orders that came, and words about them that are to go.
#[derive(Debug)]
pub(super) struct OrderBook {
    orders: watch::Sender<Orders>,
    reports: Mutex<BTreeMap<String, CredentialReport>>,
    due: Notify,
}

impl Default for OrderBook {
    fn default() -> Self {
        Self {
            orders: watch::Sender::new(Orders::default()),
            reports: Mutex::default(),
            due: Notify::new(),
        }
    }
}

impl OrderBook {
    pub(super) fn watch(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    /// Takes an order in; `false` for one that cannot be read.
    pub(super) fn take(&self, order: CredentialOrder) -> bool {
        let (Some(name), Some(phase)) = (CredentialName::parse(&order.name), Phase::from_word(&order.phase)) else {
            return false;
        };
        let canary = match order.canary.as_str() {
            "" => None,
            bot => match BotName::parse(bot) {
                Ok(bot) => Some(bot),
                Err(_invalid) => return false,
            },
        };
        let known = self.orders.borrow().contains_key(&name);
        let too_long = order.sealed.len() > SEALED_BYTES_MAX || order.fingerprint.len() > FINGERPRINT_BYTES_MAX;
        if too_long || !known && self.orders.borrow().len() >= ORDERS_MAX {
            return false;
        }
        self.orders.send_modify(|orders| {
            let heard = orders.values().map(|order| order.heard).max().unwrap_or_default();
            let order = Order {
                rotation: order.rotation,
                phase,
                sealed: order.sealed.into(),
                fingerprint: order.fingerprint,
                canary,
                heard: heard + 1,
            };
            drop(Arc::make_mut(orders).insert(name, order));
        });
        true
    }

    pub(super) fn report(&self, report: CredentialReport) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        drop(reports.insert(report.name.clone(), report));
        self.due.notify_one();
    }

    /// Waits for a word to send. Losing the wait midway loses none.
    pub(super) async fn next_report(&self) -> CredentialReport {
        loop {
            let next = self.reports.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            if let Some((_, report)) = next {
                return report;
            }
            self.due.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(name: &str, phase: &str) -> CredentialOrder {
        CredentialOrder {
            name: name.to_owned(),
            rotation: 7,
            phase: phase.to_owned(),
            sealed: vec![1],
            fingerprint: "0011223344556677".to_owned(),
            canary: String::new(),
        }
    }

    #[test]
    fn an_order_that_cannot_be_read_is_not_taken() {
        let book = OrderBook::default();
        assert!(book.take(order("a", "staged")));
        for wrong in [
            order("A", "staged"),
            order("a", "later"),
            CredentialOrder {
                canary: "no bot".to_owned(),
                ..order("a", "canary")
            },
            CredentialOrder {
                sealed: vec![0; SEALED_BYTES_MAX + 1],
                ..order("a", "staged")
            },
            CredentialOrder {
                fingerprint: "0".repeat(FINGERPRINT_BYTES_MAX + 1),
                ..order("a", "staged")
            },
        ] {
            assert!(!book.take(wrong.clone()), "{wrong:?}");
        }
        assert_eq!(book.watch().borrow().len(), 1);
    }

    #[test]
    fn a_ca_that_names_credentials_without_end_fills_no_memory() {
        let book = OrderBook::default();
        for number in 0..ORDERS_MAX {
            assert!(book.take(order(&format!("a{number}"), "staged")));
        }
        assert!(!book.take(order("another", "staged")));
        assert!(book.take(order("a0", "current")), "what is known goes on");
    }

    #[test]
    fn an_order_that_is_said_again_is_news() {
        let book = OrderBook::default();
        let mut watch = book.watch();
        assert!(book.take(order("a", "staged")));
        let first = watch.borrow_and_update().values().next().unwrap().heard;
        assert!(book.take(order("a", "staged")));
        assert!(watch.has_changed().unwrap());
        assert!(watch.borrow_and_update().values().next().unwrap().heard > first);
    }

    #[tokio::test]
    async fn of_words_about_one_credential_the_newest_goes() {
        let book = OrderBook::default();
        let word = |phase: &str| CredentialReport {
            name: "a".to_owned(),
            phase: phase.to_owned(),
            ..CredentialReport::default()
        };
        book.report(word("staged"));
        book.report(word("current"));
        assert_eq!(book.next_report().await.phase, "current");
        let waits = tokio::time::timeout(std::time::Duration::ZERO, book.next_report()).await;
        assert!(waits.is_err(), "and goes once");
    }
}
