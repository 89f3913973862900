//! The number of a state of the mesh.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Numbers a state of the mesh: a revision inside an epoch.
///
/// A restore raises the epoch, so that a restored CA never repeats a number. Order is by epoch, then revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Raised by each restore of the CA's state.
    pub epoch: u64,
    /// Raised by each change inside the epoch.
    pub revision: u64,
}

impl fmt::Display for Generation {
    /// Writes `epoch.revision`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_epoch_outranks_every_revision_of_an_earlier_one() {
        let old = Generation {
            epoch: 1,
            revision: 900,
        };
        let restored = Generation { epoch: 2, revision: 1 };
        assert!(restored > old);
        assert_eq!(restored.to_string(), "2.1");
    }
}
