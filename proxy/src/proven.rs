//! What the two ends of one connection between hosts have proved to each other, and until when.
//!
//! The handshake proves two names. A proof in band can follow ([`crate::reproof`]): it never changes a name, it only
//! moves the end of one. Whatever runs on the connection reads here who calls and by which SVID, as of now.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use spiffe::id::SpiffeId;
use spiffe::svid::{Leaf, Serial};
use spiffe::time::{Clock, Timestamp};
use spiffe_tls::Role;
use tokio::sync::watch;

use crate::call::push_hex;

/// The proofs of one connection.
#[derive(Debug)]
pub(crate) struct Proven {
    /// Which end this proxy is.
    role: Role,
    /// Whom the handshake proved the peer to be.
    id: SpiffeId,
    peer: ArcSwap<Shown>,
    own: ArcSwap<Shown>,
    /// Whatever runs on the connection ends with it. Nothing once the connection may not go on at all.
    end: watch::Sender<Option<Timestamp>>,
}

/// An SVID as one end showed it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) serial: Serial,
    pub(crate) not_after: Timestamp,
    /// What the callee reads of it, where it is a caller's.
    pub(crate) client_cert: Option<HeaderValue>,
}

impl Shown {
    pub(crate) fn of(leaf: &Leaf) -> Self {
        Self {
            serial: *leaf.serial(),
            not_after: leaf.not_after(),
            client_cert: None,
        }
    }

    /// The same of a caller: with what the bot `to` reads of it, in Envoy's form.
    pub(crate) fn of_caller(leaf: &Leaf, to: &SpiffeId) -> Self {
        let mut hash = String::with_capacity(64);
        leaf.sha256().iter().for_each(|byte| push_hex(&mut hash, *byte));
        // Neither ID holds `;`, `,`, `=` or quotes (SPIFFE-ID §2.1, §2.2), so nothing has to be quoted.
        let client_cert = HeaderValue::from_str(&format!("By={to};Hash={hash};URI={}", leaf.id())).ok();
        Self {
            client_cert,
            ..Self::of(leaf)
        }
    }
}

impl Proven {
    /// Begins with what the handshake proved.
    pub(crate) fn new(role: Role, id: SpiffeId, peer: Shown, own: Shown) -> Arc<Self> {
        let proven = Self {
            role,
            id,
            end: watch::Sender::new(Some(end(role, &peer, &own))),
            peer: ArcSwap::from_pointee(peer),
            own: ArcSwap::from_pointee(own),
        };
        Arc::new(proven)
    }

    pub(crate) const fn role(&self) -> Role {
        self.role
    }

    /// Whose SVID the peer shows, first and last.
    pub(crate) const fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The SVID that the peer proved last.
    pub(crate) fn peer(&self) -> Arc<Shown> {
        self.peer.load_full()
    }

    /// The SVID that this end showed last.
    pub(crate) fn own(&self) -> Arc<Shown> {
        self.own.load_full()
    }

    /// Whether something may run on the connection at `now`.
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        self.end.borrow().is_some_and(|end| now < end)
    }

    /// Notes that the peer proved an SVID.
    pub(crate) fn peer_proved(&self, shown: Shown) {
        self.peer.store(Arc::new(shown));
        self.move_end();
    }

    /// Notes that this end showed an SVID.
    pub(crate) fn own_shown(&self, shown: Shown) {
        self.own.store(Arc::new(shown));
        self.move_end();
    }

    /// Ends the connection, whatever comes.
    pub(crate) fn finish(&self) {
        self.end.send_replace(None);
    }

    fn move_end(&self) {
        let moved = end(self.role, &self.peer.load(), &self.own.load());
        self.end.send_modify(|end| {
            // What has been ended stays ended.
            if end.is_some() {
                *end = Some(moved);
            }
        });
    }

    /// Waits until nothing may run on the connection any more. Cancel safe.
    pub(crate) async fn ended(&self, clock: &Clock) {
        let mut moved = self.end.subscribe();
        loop {
            let Some(end) = *moved.borrow_and_update() else {
                return;
            };
            // Both arms only wait; whichever is lost is asked again.
            tokio::select! {
                biased;
                // The sender lives as long as this borrow.
                _ = moved.changed() => {}
                () = clock.sleep_until(end) => return,
            }
        }
    }
}

/// When a connection ends. Each end watches over what the other proved. The calling one also over what it proved itself:
/// it would not begin a call by an SVID that has ended, so it does not go on with one either.
fn end(role: Role, peer: &Shown, own: &Shown) -> Timestamp {
    match role {
        Role::Client => peer.not_after.min(own.not_after),
        Role::Server => peer.not_after,
    }
}

#[cfg(test)]
impl Proven {
    /// A peer known by this serial, for tests of those who read it.
    pub(crate) fn by_serial(serial: Serial) -> Arc<Self> {
        let shown = |serial| Shown {
            serial,
            not_after: Timestamp::from_unix_seconds(i64::from(i32::MAX)),
            client_cert: None,
        };
        let id = SpiffeId::parse("spiffe://acme.internal/prod/checkout").unwrap();
        Self::new(Role::Server, id, shown(serial), shown(serial))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shown(last: u8, second: i64) -> Shown {
        Shown {
            serial: Serial::from_bytes(&[1, last]).unwrap(),
            not_after: Timestamp::from_unix_seconds(second),
            client_cert: None,
        }
    }

    fn proven(role: Role, peer: i64, own: i64) -> Arc<Proven> {
        let id = SpiffeId::parse("spiffe://acme.internal/prod/checkout").unwrap();
        Proven::new(role, id, shown(1, peer), shown(2, own))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_seconds(second)
    }

    #[test]
    fn a_caller_watches_over_both_names_and_a_callee_over_the_other() {
        for (role, peer, own, end) in [
            (Role::Client, 10, 20, 10),
            (Role::Client, 20, 10, 10),
            (Role::Server, 20, 10, 20),
        ] {
            let proven = proven(role, peer, own);
            assert!(
                proven.holds(at(end - 1)) && !proven.holds(at(end)),
                "{role:?} {peer} {own}"
            );
        }
    }

    #[test]
    fn a_later_proof_is_the_one_that_is_read() {
        let proven = proven(Role::Client, 10, 10);
        proven.peer_proved(shown(3, 30));
        assert!(!proven.holds(at(10)), "the own name has ended");
        proven.own_shown(shown(4, 20));
        assert!(proven.holds(at(19)) && !proven.holds(at(20)));
        let serial = |shown: Arc<Shown>| shown.serial.to_string();
        assert_eq!([serial(proven.peer()), serial(proven.own())], ["0103", "0104"]);
    }

    #[test]
    fn what_was_ended_is_not_begun_again_by_a_proof() {
        let proven = proven(Role::Server, 10, 10);
        proven.finish();
        proven.peer_proved(shown(3, 30));
        assert!(!proven.holds(at(0)));
    }

    #[tokio::test]
    async fn the_wait_for_the_end_follows_the_end_as_it_moves() {
        let (clock, hand) = Clock::fixed(at(0));
        let proven = proven(Role::Server, 10, 10);
        let waiting = proven.ended(&clock);
        let mut waiting = std::pin::pin!(waiting);
        let mut is_over = || {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            waiting.as_mut().poll(&mut context).is_ready()
        };
        assert!(!is_over());
        proven.peer_proved(shown(3, 30));
        hand.set(at(10));
        assert!(!is_over(), "the end has moved");
        hand.advance(Duration::from_secs(20));
        assert!(is_over());
    }

    #[tokio::test]
    async fn a_connection_that_may_not_go_on_ends_at_once() {
        let (clock, _hand) = Clock::fixed(at(0));
        let proven = proven(Role::Client, 10, 10);
        proven.finish();
        proven.ended(&clock).await;
    }
}
