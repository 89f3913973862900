//! Log lines that strangers or a full disk could ask for without end: one a second each, and how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The least time between two lines of one kind.
const APART: Duration = Duration::from_secs(1);

/// Tells when a line of one kind may be written again.
#[derive(Debug)]
pub(crate) struct Seldom(Mutex<State>);

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State {
            last: None,
            left_out: 0,
        }))
    }

    /// Says whether a line is due, and how many were not written since the last one.
    pub(crate) fn due(&self) -> Option<u64> {
        let now = Instant::now();
        // A thread that panicked while it held the lock left a whole value.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.duration_since(last) < APART) {
            state.left_out = state.left_out.saturating_add(1);
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_says_how_many_were_left_out() {
        let seldom = Seldom::new();
        assert_eq!(seldom.due(), Some(0));
        assert_eq!((seldom.due(), seldom.due()), (None, None));
        tokio::time::advance(APART).await;
        assert_eq!(seldom.due(), Some(2));
        assert_eq!(seldom.due(), None);
        tokio::time::advance(APART * 2).await;
        assert_eq!(seldom.due(), Some(1));
    }
}
