//! Records of calls that are written together.
//!
//! Who serves many calls in one loop hands over the records of all that are ready ([`Ledger::stage`]) and writes them by
//! one write(2) ([`Ledger::commit`]). There is a receipt for each once that is done, and none before.

use std::sync::{Arc, OnceLock};

use super::{Ledger, LedgerError, Receipt};
use crate::record::{CallId, CallRecord, Line, Verdict};

/// The record of a call that was handed over and is written with the next write.
#[derive(Debug)]
#[must_use = "it is written by `Ledger::commit`"]
pub struct Staged {
    written: Arc<Written>,
    place: u64,
    call: CallId,
}

/// What became of the records of one turn: the index of the first, or why there is none.
#[derive(Debug, Default)]
pub(super) struct Written(OnceLock<Result<u64, Arc<LedgerError>>>);

impl Written {
    pub(super) fn tell(&self, outcome: Result<u64, Arc<LedgerError>>) {
        // A turn is written once; what was told first stands.
        let _told = self.0.set(outcome);
    }
}

impl Staged {
    pub(super) const fn new(written: Arc<Written>, place: u64, call: CallId) -> Self {
        Self { written, place, call }
    }

    /// Pretends that a record was written.
    #[cfg(feature = "test-lies")]
    fn left_out(call: CallId) -> Self {
        let written = Arc::new(Written::default());
        written.tell(Ok(0));
        Self::new(written, 1, call)
    }

    /// Says whether it is the first record of its turn, whose owner sees to it that the turn is written.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.place == 0
    }

    /// Returns the receipt, or why there is none; nothing before the turn was written.
    #[must_use]
    pub fn receipt(&self) -> Option<Result<Receipt, LedgerError>> {
        let outcome = self.written.0.get()?;
        Some(match outcome {
            Ok(first) => Ok(Receipt {
                index: first.saturating_add(self.place),
                call: self.call,
            }),
            Err(source) => Err(LedgerError::Turn {
                source: Arc::clone(source),
            }),
        })
    }
}

impl Ledger {
    /// Hands over the decision that lets a call be made. It is in the kernel's hands when [`Staged::receipt`] says so:
    /// after [`Ledger::commit`], or after any other record was written.
    ///
    /// # Errors
    ///
    /// When it could not be written or is of a refused call: then the call must not be made.
    pub fn stage(&self, record: &CallRecord) -> Result<Staged, LedgerError> {
        if record.verdict == Verdict::Deny {
            return Err(LedgerError::Refused { call: record.id });
        }
        #[cfg(feature = "test-lies")]
        let Some(record) = &super::lies::told(record) else {
            return Ok(Staged::left_out(record.id));
        };
        let line = Line::call(record).map_err(|source| LedgerError::Record { source })?;
        // Hashed outside the lock, so that threads hash side by side.
        let hash = line.hash();
        let mut writer = self.owner.shared.writer();
        if writer.closed {
            return Err(LedgerError::Closed);
        }
        let (written, place) = writer.stage(&line, hash)?;
        writer.stats.calls = writer.stats.calls.saturating_add(1);
        Ok(Staged::new(written, place, record.id))
    }

    /// Writes all records that were handed over. Each of them knows then what became of it.
    pub fn commit(&self) {
        let mut writer = self.owner.shared.writer();
        // Whoever staged a record is told of a failure, and the ends that wait are tried again.
        writer.flush().unwrap_or_default();
        self.owner.shared.wake_if_idle(&mut writer);
    }
}
