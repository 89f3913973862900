//! `(epoch, revision)`: the number of a state of the mesh.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node;

/// A numbered state of the mesh: a revision, numbered inside an epoch that a
/// restore raises. Ordered by epoch first; hosts accept it only upward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Raised when the CA's state is restored from a backup.
    pub epoch: u64,
    /// Raised by each applied state; 0 means that nothing was applied yet.
    pub revision: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.revision)
    }
}

impl From<Generation> for node::Generation {
    fn from(generation: Generation) -> Self {
        Self {
            epoch: generation.epoch,
            revision: generation.revision,
        }
    }
}

impl From<node::Generation> for Generation {
    fn from(generation: node::Generation) -> Self {
        Self {
            epoch: generation.epoch,
            revision: generation.revision,
        }
    }
}
