//! Waits until the record of a call is written, by one write for all calls that became ready in the same turn of the event
//! loop.
//!
//! The first call of a turn lets those go before it that are ready, each of which hands its record over, and then writes.
//! A call that is alone is polled again at once and waits for nobody.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use audit::{Ledger, LedgerError, Receipt, Staged};

use crate::proxy::Proxy;

/// The calls that wait for the first of their turn.
#[derive(Debug, Default)]
pub(crate) struct Turn(Mutex<Vec<Waker>>);

impl Turn {
    const fn written<'a>(&'a self, ledger: &'a Ledger, staged: Staged) -> Writing<'a> {
        Writing {
            turn: self,
            ledger,
            staged,
            let_go: false,
            done: false,
        }
    }

    /// Writes what was handed over, and has those who wait look.
    fn write(&self, ledger: &Ledger) {
        ledger.commit();
        self.waiting().drain(..).for_each(Waker::wake);
    }

    /// A thread that panicked while it held the lock left whole wakers.
    fn waiting(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the receipt of a record that was handed over.
pub(super) const fn written(proxy: &Proxy, staged: Staged) -> Writing<'_> {
    proxy.turn.written(&proxy.ledger, staged)
}

/// See [`written`]. Dropping it is safe: the first of a turn writes then, for the others.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    turn: &'a Turn,
    ledger: &'a Ledger,
    staged: Staged,
    /// Whether those that are ready were let go before it.
    let_go: bool,
    done: bool,
}

impl Future for Writing<'_> {
    type Output = Result<Receipt, LedgerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.staged.is_first() {
            if !self.let_go && self.staged.receipt().is_none() {
                self.let_go = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Also where another record carried its turn along: somebody may wait.
            self.turn.write(self.ledger);
        }
        let turn = self.turn;
        let mut waiting = turn.waiting();
        // Under the lock: whoever writes later wakes this one, and whoever wrote before has told.
        if let Some(written) = self.staged.receipt() {
            drop(waiting);
            self.done = true;
            return Poll::Ready(written);
        }
        waiting.push(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if self.staged.is_first() && !self.done {
            self.turn.write(self.ledger);
        }
    }
}

#[cfg(test)]
mod tests;
