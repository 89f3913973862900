//! Calls that may not stand still: what the mesh says of their callee bounds for how long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Held, Live};
use crate::call::RequestCount;
use crate::reason::Reason;

/// What is known of how a call moves.
#[derive(Debug)]
pub(super) struct Idle {
    limit: Duration,
    request: RequestCount,
    answered: AtomicU64,
    /// What had moved when it was last looked at and had moved on, and when that was.
    seen: Mutex<(u64, Instant)>,
}

impl Idle {
    fn new(limit: Duration, request: RequestCount) -> Self {
        let seen = (request.get(), Instant::now());
        Self {
            limit,
            request,
            answered: AtomicU64::new(0),
            seen: Mutex::new(seen),
        }
    }

    /// Says whether nothing has moved for as long as it may not. A move is noticed with the next look, never before it
    /// happened, so no call is ended early.
    fn stands_still(&self, now: Instant) -> bool {
        let moved = self.request.get().wrapping_add(self.answered.load(Ordering::Relaxed));
        // A thread that panicked while it held the lock left a whole pair.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != moved {
            *seen = (moved, now);
        }
        now.saturating_duration_since(seen.1) >= self.limit
    }
}

impl Held {
    /// Has the call end when no byte moves for `limit`, from now on: the head of its answer is there.
    pub(crate) fn may_stand_still(&self, limit: Option<Duration>, request: RequestCount) {
        if let Some(limit) = limit
            && self.0.idle.set(Idle::new(limit, request)).is_ok()
        {
            self.0.live.watched.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that something of the answer moved.
    pub(crate) fn moved(&self, bytes: usize) {
        if let Some(idle) = self.0.idle.get() {
            idle.answered.fetch_add((bytes as u64).max(1), Ordering::Relaxed);
        }
    }
}

impl Live {
    /// Ends the calls that stood still for too long, and says how many those are.
    pub(super) fn end_idle(&self, now: Instant) -> u64 {
        // Most meshes say nothing of this, and then no entry is looked at.
        if self.watched.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.end_where(|entry| {
            let idle = entry.idle.get()?;
            idle.stands_still(now).then_some(Reason::Timeout)
        })
    }
}
