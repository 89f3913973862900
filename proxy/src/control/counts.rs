//! What the control side counts, for the metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use spiffe::time::Timestamp;

use super::Control;

/// The counters. Slices and SVIDs are seldom; nothing of a call is counted here.
#[derive(Debug, Default)]
pub(super) struct Counts {
    slices_applied: AtomicU64,
    slices_refused: AtomicU64,
    rejected_revision: AtomicU64,
    svids_ok: AtomicU64,
    svids_failed: AtomicU64,
    cosigned: Mutex<CosignedHead>,
    witnessed: Mutex<BTreeMap<String, CosignedHead>>,
}

/// The newest head of this host's ledger that the CA, or a witness, cosigned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CosignedHead {
    /// Records under it; 0 where it is of an epoch that has ended.
    pub(crate) records: u64,
    /// When it was cosigned.
    pub(crate) at: Option<Timestamp>,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Slices that came into force.
    pub(crate) slices_applied: u64,
    /// Slices that were refused.
    pub(crate) slices_refused: u64,
    /// The revision of the slice that was refused last; 0 where one has come into force since.
    pub(crate) rejected_revision: u64,
    /// SVIDs that the CA gave, the node's own too.
    pub(crate) svids_ok: u64,
    /// SVIDs that were asked for and did not come.
    pub(crate) svids_failed: u64,
    /// The newest head that the CA cosigned, before the start too.
    pub(crate) cosigned: CosignedHead,
    /// By how many milliseconds the wall clock was ahead of the CA's when the CA last said its time.
    pub(crate) skew_ms: i64,
}

impl Counts {
    pub(super) fn slice_applied(&self) {
        self.slices_applied.fetch_add(1, Ordering::Relaxed);
        self.rejected_revision.store(0, Ordering::Relaxed);
    }

    pub(super) fn slice_refused(&self, revision: u64) {
        self.slices_refused.fetch_add(1, Ordering::Relaxed);
        self.rejected_revision.store(revision, Ordering::Relaxed);
    }

    pub(super) fn svids(&self, ok: usize, failed: usize) {
        self.svids_ok.fetch_add(ok as u64, Ordering::Relaxed);
        self.svids_failed.fetch_add(failed as u64, Ordering::Relaxed);
    }

    pub(super) fn cosigned(&self, records: u64, at: Timestamp) {
        let head = CosignedHead { records, at: Some(at) };
        *self.cosigned.lock().unwrap_or_else(PoisonError::into_inner) = head;
    }

    /// The epoch has ended: nothing of the new one is cosigned.
    pub(super) fn cosigned_anew(&self) {
        self.cosigned.lock().unwrap_or_else(PoisonError::into_inner).records = 0;
    }

    /// What a witness has cosigned.
    pub(super) fn witnessed(&self, witness: &str, records: u64, at: Option<Timestamp>) {
        let mut witnessed = self.witnessed.lock().unwrap_or_else(PoisonError::into_inner);
        witnessed.insert(witness.to_owned(), CosignedHead { records, at });
    }

    /// Forgets witnesses that are none any more.
    pub(super) fn only_witnesses(&self, names: &[&str]) {
        let mut witnessed = self.witnessed.lock().unwrap_or_else(PoisonError::into_inner);
        witnessed.retain(|name, _| names.contains(&name.as_str()));
    }

    fn read_witnessed(&self) -> BTreeMap<String, CosignedHead> {
        self.witnessed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read(&self, skew_ms: i64) -> Counted {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            slices_applied: count(&self.slices_applied),
            slices_refused: count(&self.slices_refused),
            rejected_revision: count(&self.rejected_revision),
            svids_ok: count(&self.svids_ok),
            svids_failed: count(&self.svids_failed),
            cosigned: *self.cosigned.lock().unwrap_or_else(PoisonError::into_inner),
            skew_ms,
        }
    }
}

impl Control {
    /// What was counted since the start.
    pub(crate) fn counted(&self) -> Counted {
        self.shared.counts.read(self.shared.time.skew_ms())
    }

    /// The newest heads that witnesses cosigned, by their names.
    pub(crate) fn witnessed(&self) -> BTreeMap<String, CosignedHead> {
        self.shared.counts.read_witnessed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_revision_is_told_until_one_comes_into_force() {
        let counts = Counts::default();
        counts.slice_refused(7);
        counts.svids(3, 1);
        let counted = counts.read(-5);
        assert_eq!((counted.slices_applied, counted.slices_refused), (0, 1));
        assert_eq!((counted.rejected_revision, counted.skew_ms), (7, -5));
        assert_eq!((counted.svids_ok, counted.svids_failed), (3, 1));
        counts.slice_applied();
        let counted = counts.read(0);
        assert_eq!((counted.slices_applied, counted.slices_refused), (1, 1));
        assert_eq!(counted.rejected_revision, 0);
    }

    #[test]
    fn of_a_new_epoch_nothing_is_cosigned_and_what_was_before_still_was() {
        let (counts, at) = (Counts::default(), Timestamp::from_unix_millis(7));
        assert_eq!(counts.read(0).cosigned, CosignedHead { records: 0, at: None });
        counts.cosigned(5, at);
        assert_eq!(
            counts.read(0).cosigned,
            CosignedHead {
                records: 5,
                at: Some(at)
            }
        );
        counts.cosigned_anew();
        assert_eq!(
            counts.read(0).cosigned,
            CosignedHead {
                records: 0,
                at: Some(at)
            }
        );
    }
}
