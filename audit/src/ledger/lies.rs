//! A proxy of a test that lies: it leaves calls out of its ledger, or writes another path than the one that was called. What holds the ledgers
//! of two hosts against each other must find just that. Never in a shipped build.
//!
//! `BOTMESH_TEST_LIES="leave_out=/orders/14 alter=/orders/15"`

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::record::{CallId, CallRecord};

/// The path that is written in place of the one that was called.
const ALTERED: &str = "/altered";

static LIES: OnceLock<Lies> = OnceLock::new();

#[derive(Debug, Default)]
struct Lies {
    leave_out: Option<String>,
    alter: Option<String>,
    left_out: Mutex<BTreeSet<CallId>>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "only a test's build reads it, and nobody configures it"
)]
fn lies() -> &'static Lies {
    LIES.get_or_init(|| {
        let words = std::env::var("BOTMESH_TEST_LIES").unwrap_or_default();
        let word = |key: &str| {
            words
                .split(' ')
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        Lies {
            leave_out: word("leave_out").map(ToOwned::to_owned),
            alter: word("alter").map(ToOwned::to_owned),
            left_out: Mutex::default(),
        }
    })
}

/// What is written of a call, if it is.
pub(super) fn told(record: &CallRecord) -> Option<CallRecord> {
    let lies = lies();
    if lies.leave_out.as_ref() == Some(&record.path) {
        let mut left_out = lies.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.insert(record.id);
        return None;
    }
    let mut record = record.clone();
    if lies.alter.as_ref() == Some(&record.path) {
        ALTERED.clone_into(&mut record.path);
    }
    Some(record)
}

/// Says whether a call was left out, and so has no end either.
pub(super) fn is_left_out(call: CallId) -> bool {
    let left_out = lies().left_out.lock().unwrap_or_else(PoisonError::into_inner);
    left_out.contains(&call)
}
