//! A deadline that costs nothing as long as it only moves forward.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The longest stretch for which the timer is armed. Deadlines further off are looked at again then, so that setting
/// one per call touches no timer at all.
const STRETCH: Duration = Duration::from_secs(30);

/// A deadline of a connection, set many times and seldom reached.
#[derive(Debug, Default)]
pub struct Deadline {
    timer: Option<Timer>,
    at: Option<Instant>,
}

#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Instant,
}

impl Deadline {
    /// Moves the deadline to `after` from now.
    pub fn set(&mut self, after: Duration) {
        self.at = Some(Instant::now() + after);
    }

    /// Completes once the deadline has passed; never, while none is set.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        loop {
            let timer = self.timer.get_or_insert_with(|| {
                let armed = at.min(Instant::now() + STRETCH);
                Timer {
                    sleep: Box::pin(tokio::time::sleep_until(armed)),
                    armed,
                }
            });
            if timer.armed > at {
                timer.sleep.as_mut().reset(at);
                timer.armed = at;
            }
            if timer.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if now >= at {
                return Poll::Ready(());
            }
            timer.armed = at.min(now + STRETCH);
            timer.sleep.as_mut().reset(timer.armed);
        }
    }

    /// Runs `work` to its end, or gives nothing when the deadline comes first.
    ///
    /// Losing `work` midway is the caller's matter; the deadline itself loses nothing.
    pub async fn race<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll(cx).map(|()| None),
        })
        .await
    }
}
