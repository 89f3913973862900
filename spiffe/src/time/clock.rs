use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::Timestamp;

/// The longest single wait of [`Clock::sleep_until`] on the system clock: a step of the wall clock, or a machine that
/// slept, is noticed within this time.
const RECHECK: Duration = Duration::from_secs(10);

/// Tells the time and waits for it. Cloning is cheap and gives the same clock.
///
/// The clock of the system, or one that stands still until a test moves it.
#[derive(Clone, Debug)]
pub struct Clock(Source);

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
        Self(Source::System)
    }

    /// Makes a clock that stands at `start` until its hand moves it.
    pub fn fixed(start: Timestamp) -> (Self, ClockHand) {
        let (sender, time) = watch::channel(start);
        (
            Self(Source::Injected { time, _reader: None }),
            ClockHand { time: sender },
        )
    }

    /// Makes a clock that shows what `time` holds, kept up to date by `reader`.
    #[cfg(feature = "test-clock")]
    pub(super) fn driven(time: watch::Receiver<Timestamp>, reader: tokio::task::JoinSet<()>) -> Self {
        Self(Source::Injected {
            time,
            _reader: Some(Arc::new(reader)),
        })
    }

    /// Tells the time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Injected { time, .. } => *time.borrow(),
        }
    }

    /// Waits until the clock shows `deadline` or later; returns at once when it already does.
    ///
    /// On an injected clock whose hand is gone this waits for ever, for that clock stands still. Cancel safe: losing the
    /// future loses nothing.
    pub async fn sleep_until(&self, deadline: Timestamp) {
        match &self.0 {
            Source::System => loop {
                let left = deadline.duration_since(system_now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(RECHECK)).await;
            },
            Source::Injected { time, .. } => {
                let mut time = time.clone();
                if time.wait_for(|now| *now >= deadline).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Waits for `duration` as this clock counts it: by the monotonic clock of the system, or until an injected clock
    /// has moved that far. Cancel safe.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Source::System => tokio::time::sleep(duration).await,
            Source::Injected { .. } => self.sleep_until(self.now() + duration).await,
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
