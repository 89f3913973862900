//! How much of bodies may be under way on all connections of many calls together: those of HTTP/2 and those between proxies.
//!
//! What a peer may send before somebody reads it waits in memory: a window. Each connection gets a large one as long as
//! those of all fit into one budget, and the least that the protocol knows after that, so that many connections whose
//! bodies nobody reads stay slow and the process stays small.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mesh::{CONNECTION_WINDOW, STREAM_WINDOW};

/// The window that every connection has (RFC 9113 §6.9.2).
const LEAST: u32 = 65_535;

/// What is left of the budget, in bytes.
#[derive(Debug)]
pub(crate) struct Windows {
    left: AtomicU64,
}

/// The window of one connection. Dropped, it is another's.
#[derive(Debug)]
pub(crate) struct Window {
    windows: Arc<Windows>,
    bytes: u32,
}

impl Windows {
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicU64::new(bytes),
        })
    }

    /// Takes a large window, or the least one where none is left.
    pub(crate) fn take(self: &Arc<Self>) -> Window {
        let less = |left: u64| left.checked_sub(u64::from(CONNECTION_WINDOW));
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Window {
            windows: Arc::clone(self),
            bytes: if taken.is_ok() { CONNECTION_WINDOW } else { LEAST },
        }
    }
}

impl Window {
    pub(crate) const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// What one stream may have of it: a body that nobody reads leaves room for three others.
    pub(crate) const fn of_stream(&self) -> u32 {
        self.bytes / (CONNECTION_WINDOW / STREAM_WINDOW)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if self.bytes == CONNECTION_WINDOW {
            self.windows
                .left
                .fetch_add(u64::from(CONNECTION_WINDOW), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_windows_end_with_the_budget_and_come_back() {
        let windows = Windows::new(u64::from(CONNECTION_WINDOW) * 2 + 1);
        let mut taken: Vec<_> = (0..3).map(|_| windows.take()).collect();
        let bytes: Vec<_> = taken.iter().map(Window::bytes).collect();
        assert_eq!(bytes, [CONNECTION_WINDOW, CONNECTION_WINDOW, LEAST]);
        assert_eq!(taken.first().map(Window::of_stream), Some(STREAM_WINDOW));
        assert_eq!(taken.last().map(Window::of_stream), Some(LEAST / 4));
        drop(taken.pop());
        assert_eq!(windows.take().bytes(), LEAST, "the least is none of the budget");
        drop(taken.pop());
        assert_eq!(windows.take().bytes(), CONNECTION_WINDOW);
    }
}
