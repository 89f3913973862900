//! What keeps a clock from going back.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::watch;

use super::Timestamp;

/// The highest time that a clock of [`Clock::ratcheted`](super::Clock::ratcheted) has shown or was told.
#[derive(Debug)]
pub struct Ratchet {
    highest_ms: AtomicI64,
    raised: watch::Sender<()>,
}

impl Ratchet {
    pub(super) fn new(start: Option<Timestamp>) -> Self {
        Self {
            highest_ms: AtomicI64::new(start.map_or(i64::MIN, Timestamp::unix_millis)),
            raised: watch::Sender::new(()),
        }
    }

    /// Takes what the clock below shows, and gives what this one does.
    pub(super) fn see(&self, shown: Timestamp) -> Timestamp {
        let highest = self.highest_ms.load(Ordering::Relaxed);
        // Written at most once per millisecond, so that calls on many threads do not wait for each other here.
        if shown.unix_millis() > highest {
            self.highest_ms.fetch_max(shown.unix_millis(), Ordering::Relaxed);
        }
        Timestamp::from_unix_millis(highest.max(shown.unix_millis()))
    }

    /// The highest time so far; `None` where there was none.
    pub fn highest(&self) -> Option<Timestamp> {
        let highest = self.highest_ms.load(Ordering::Relaxed);
        (highest != i64::MIN).then(|| Timestamp::from_unix_millis(highest))
    }

    /// Moves the clock up to `time`, unless it is there already, and wakes whoever waited for that.
    pub fn raise(&self, time: Timestamp) {
        if self.highest_ms.fetch_max(time.unix_millis(), Ordering::Relaxed) < time.unix_millis() {
            self.raised.send_replace(());
        }
    }

    /// Sets the clock back to `time`, or to what the clock below shows where that is later. Only for somebody who
    /// knows the right time better than the clock below did.
    pub fn lower(&self, time: Timestamp) {
        self.highest_ms.fetch_min(time.unix_millis(), Ordering::Relaxed);
    }

    pub(super) fn raised(&self) -> watch::Receiver<()> {
        self.raised.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Clock;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn a_ratcheted_clock_never_goes_back_by_itself() {
        let (wall, hand) = Clock::fixed(at(100));
        let (clock, ratchet) = wall.ratcheted(None);
        assert_eq!(ratchet.highest(), None);
        assert_eq!(clock.now(), at(100));
        hand.set(at(10));
        assert_eq!((clock.now(), wall.now()), (at(100), at(10)));
        ratchet.raise(at(150));
        ratchet.raise(at(140));
        assert_eq!(clock.now(), at(150));
        ratchet.lower(at(120));
        assert_eq!(clock.now(), at(120));
        hand.set(at(130));
        assert_eq!((clock.now(), ratchet.highest()), (at(130), Some(at(130))));
    }

    #[test]
    fn a_ratcheted_clock_begins_where_it_was() {
        let (wall, _hand) = Clock::fixed(at(100));
        assert_eq!(wall.ratcheted(Some(at(500))).0.now(), at(500));
        assert_eq!(wall.ratcheted(Some(at(50))).0.now(), at(100));
    }

    #[tokio::test]
    async fn a_wait_ends_when_the_ratchet_is_raised_and_when_the_clock_gets_there() {
        let (wall, hand) = Clock::fixed(at(100));
        let (clock, ratchet) = wall.ratcheted(None);
        let mut waits = tokio::task::JoinSet::new();
        let mut wait = |until| {
            let clock = clock.clone();
            waits.spawn(async move { clock.sleep_until(at(until)).await });
        };
        wait(200);
        wait(300);
        tokio::task::yield_now().await;
        ratchet.raise(at(199));
        tokio::task::yield_now().await;
        assert!(waits.try_join_next().is_none());
        ratchet.raise(at(200));
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, waits.join_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        tokio::task::yield_now().await;
        assert!(waits.try_join_next().is_none());
        hand.set(at(300));
        tokio::time::timeout(patience, waits.join_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}
