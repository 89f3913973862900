//! The processes that are pinned: each once, however many connections it has.
//!
//! A pin costs three file descriptors and, where a helper looks, a question. Connections of one process share it.
//!
//! # Why a shared pin is exact
//! A pin is found by the number of its process, and given out only while its own pidfd says that its process lives: the
//! number is then that process's and nobody else's. Where the kernel named the process by another pidfd (SO_PEERPIDFD),
//! that one must live too: two living processes have two numbers. And it is given out only if [`Pin::check_whole`] finds
//! it unchanged; a process that has executed a program or changed its user since is pinned anew, and the old pin goes on
//! refusing the connections that hold it.
//!
//! # Bounds
//! What is remembered is at most twice what connections hold, and [`FORGET_EVERY`] more; [`RECENT_MAX`] pins are kept for
//! processes that will connect again.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};

use super::error::Why;
use super::kernel::{Kernel, lock};
use super::pin::{Ask, Pin, asked, exited};

/// Pins that nobody holds are forgotten when the table has grown by this many.
const FORGET_EVERY: usize = 256;
/// How many pins outlive their connections.
const RECENT_MAX: usize = 32;

/// The pins by the number of their process.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    known: BTreeMap<u32, Weak<Pin>>,
    forget_at: usize,
    /// Those made last, whether or not a connection holds them.
    recent: VecDeque<Arc<Pin>>,
}

impl Pins {
    /// Pins the process that has the number `pid`.
    ///
    /// # Errors
    /// Like [`Pin::by_number`].
    pub(super) fn by_number(&self, kernel: &Kernel, pid: u32, ask: Ask<'_>) -> Result<Arc<Pin>, Why> {
        if let Some(known) = self.unchanged(pid) {
            return Ok(known);
        }
        Ok(self.add(Pin::by_number(kernel, pid, ask)?))
    }

    /// Pins the process of a pidfd whose number is known to be `pid`.
    ///
    /// # Errors
    /// Like [`Pin::by_number`].
    pub(super) fn of(&self, kernel: &Kernel, pid: u32, process: OwnedFd, ask: Ask<'_>) -> Result<Arc<Pin>, Why> {
        // Asked before the pin is: at that moment both lived, if the pin's process does afterwards.
        if exited(process.as_fd()).map_err(|error| asked("poll the pidfd of", pid, error))? {
            return Err(Why::Exited(pid));
        }
        if let Some(known) = self.unchanged(pid) {
            return Ok(known);
        }
        Ok(self.add(Pin::of(kernel, pid, process, ask)?))
    }

    /// Lets go of processes that are gone and held by no connection.
    pub(super) fn forget_gone(&self) {
        let recent: Vec<Arc<Pin>> = lock(&self.0).recent.iter().cloned().collect();
        let gone = |pin: &Arc<Pin>| pin.exited().unwrap_or(true);
        let gone: Vec<Arc<Pin>> = recent.into_iter().filter(gone).collect();
        lock(&self.0)
            .recent
            .retain(|pin| !gone.iter().any(|gone| Arc::ptr_eq(gone, pin)));
    }

    fn unchanged(&self, pid: u32) -> Option<Arc<Pin>> {
        let known = lock(&self.0).known.get(&pid).and_then(Weak::upgrade)?;
        known.check_whole().ok().map(|()| known)
    }

    fn add(&self, pin: Pin) -> Arc<Pin> {
        let pin = Arc::new(pin);
        let mut table = lock(&self.0);
        table.known.insert(pin.pid, Arc::downgrade(&pin));
        if table.known.len() >= table.forget_at {
            table.known.retain(|_, pin| pin.strong_count() > 0);
            table.forget_at = table.known.len().saturating_mul(2).max(FORGET_EVERY);
        }
        table.recent.retain(|recent| recent.pid != pin.pid);
        if table.recent.len() >= RECENT_MAX {
            table.recent.pop_front();
        }
        table.recent.push_back(Arc::clone(&pin));
        pin
    }
}

#[cfg(test)]
mod tests;
