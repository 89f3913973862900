use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::{Ratchet, Timestamp};

/// The longest single wait of [`Clock::sleep_until`] on the system clock: a step of the wall clock, or a machine that
/// slept, is noticed within this time.
const RECHECK: Duration = Duration::from_secs(10);

/// Tells the time and waits for it. Cloning is cheap and gives the same clock.
///
/// The clock of the system, or one that stands still until a test moves it.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// The time below which this clock does not go.
    ratchet: Option<Arc<Ratchet>>,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Injected {
        time: watch::Receiver<Timestamp>,
        /// Keeps the task that reads a followed clock alive as long as any clone of the clock.
        _reader: Option<Arc<tokio::task::JoinSet<()>>>,
    },
}

/// Moves the clock that [`Clock::fixed`] made with it. Dropped, it leaves that clock standing for ever.
#[derive(Debug)]
pub struct ClockHand {
    time: watch::Sender<Timestamp>,
}

impl Clock {
    /// Gives the clock of the system.
    pub fn system() -> Self {
        Self::of(Source::System)
    }

    fn of(source: Source) -> Self {
        Self { source, ratchet: None }
    }

    /// Makes a clock that shows this one's time and never goes back: not below `start`, not below what it has shown,
    /// and not below what its [`Ratchet`] was raised to. Only [`Ratchet::lower`] sets it back.
    pub fn ratcheted(&self, start: Option<Timestamp>) -> (Self, Arc<Ratchet>) {
        let ratchet = Arc::new(Ratchet::new(start));
        let clock = Self {
            source: self.source.clone(),
            ratchet: Some(Arc::clone(&ratchet)),
        };
        (clock, ratchet)
    }

    /// Makes a clock that stands at `start` until its hand moves it.
    pub fn fixed(start: Timestamp) -> (Self, ClockHand) {
        let (sender, time) = watch::channel(start);
        (
            Self::of(Source::Injected { time, _reader: None }),
            ClockHand { time: sender },
        )
    }

    /// Makes a clock that shows what `time` holds, kept up to date by `reader`.
    #[cfg(feature = "test-clock")]
    pub(super) fn driven(time: watch::Receiver<Timestamp>, reader: tokio::task::JoinSet<()>) -> Self {
        Self::of(Source::Injected {
            time,
            _reader: Some(Arc::new(reader)),
        })
    }

    /// Tells the time.
    pub fn now(&self) -> Timestamp {
        let shown = self.source.now();
        match &self.ratchet {
            Some(ratchet) => ratchet.see(shown),
            None => shown,
        }
    }

    /// Waits until the clock shows `deadline` or later; returns at once when it already does.
    ///
    /// On an injected clock whose hand is gone this waits for ever, for that clock stands still. Cancel safe: losing the
    /// future loses nothing.
    pub async fn sleep_until(&self, deadline: Timestamp) {
        let Some(ratchet) = &self.ratchet else {
            return self.source.sleep_until(deadline).await;
        };
        // Asked for before the time is read, so that a ratchet raised in between wakes the wait.
        let mut raised = ratchet.raised();
        while self.now() < deadline {
            tokio::select! {
                () = self.source.sleep_until(deadline) => {}
                // The sender lives in the ratchet that this clock holds.
                _ = raised.changed() => {}
            }
        }
    }

    /// Waits for `duration` as this clock counts it: by the monotonic clock of the system, or until an injected clock
    /// has moved that far. Cancel safe.
    pub async fn sleep(&self, duration: Duration) {
        match &self.source {
            Source::System => tokio::time::sleep(duration).await,
            Source::Injected { .. } => self.sleep_until(self.now() + duration).await,
        }
    }
}

impl Source {
    fn now(&self) -> Timestamp {
        match self {
            Self::System => system_now(),
            Self::Injected { time, .. } => {
                let shown = *time.borrow();
                // How a test has every task of a process panic at any place: no shipped build has a clock to follow.
                #[cfg(feature = "test-clock")]
                assert!(
                    shown != Timestamp::MIN,
                    "the hand of the test's clock ends whoever reads the time"
                );
                shown
            }
        }
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        match self {
            Self::System => loop {
                let left = deadline.duration_since(system_now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(RECHECK)).await;
            },
            Self::Injected { time, .. } => {
                let mut time = time.clone();
                if time.wait_for(|now| *now >= deadline).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl ClockHand {
    /// Sets the clock, forwards or backwards, and wakes whoever waited for that time.
    pub fn set(&self, time: Timestamp) {
        self.time.send_replace(time);
    }

    /// Moves the clock forwards by `step`.
    pub fn advance(&self, step: Duration) {
        self.time.send_modify(|time| *time = *time + step);
    }
}

/// Reads the wall clock. A machine whose clock is before 1970 gets 1970: certificates are then not yet valid.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the wall clock"
)]
fn system_now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_millis(0) + since_epoch
}
