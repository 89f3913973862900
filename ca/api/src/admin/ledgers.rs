//! One question about the ledgers of all hosts, and of the CA's own.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How long the CA waits for the answers of all ledgers.
pub const LEDGERS_WAIT_MAX: Duration = Duration::from_secs(20);

/// A question, as `botmesh audit query` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgersQuestion {
    /// Terms that must all hold.
    pub filter: String,
    /// Keys of groups; none for records.
    #[serde(default)]
    pub by: Vec<String>,
    /// Rows of each ledger, at most; the CA and the hosts have a bound of their own.
    pub limit: u32,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgersAnswer {
    /// One for each ledger that was asked: the CA's first, then the hosts by name.
    pub ledgers: Vec<LedgerAnswered>,
}

/// The answer of one ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerAnswered {
    /// `host:NAME`, or `ca:NAME`.
    pub ledger: String,
    /// Records, oldest first, or groups, largest first.
    pub rows: Vec<Map<String, Value>>,
    /// The ledger has more of them.
    pub more: bool,
    /// Why there is no answer; none where there is one.
    pub missing: Option<String>,
}
