//! Mesh files: read, tested, numbered.

use std::collections::BTreeSet;
use std::sync::Arc;

use ca_api::Generation;
use ca_api::admin::{MeshSource, TestCounts};
use policy::{Mesh, Source};
use spiffe::time::Timestamp;

use crate::authority::sha256;
use crate::store::RevisionRow;
use crate::world::Live;

/// Files of one mesh.
const SOURCES_MAX: usize = 256;

/// A file's name in diagnostics.
const NAME_BYTES_MAX: usize = 4096;

/// Why files are not a mesh. The text is for the operator, several lines.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// Too many files, or names too long to show.
    #[error("a mesh has 1 to {SOURCES_MAX} files with names of at most {NAME_BYTES_MAX} bytes")]
    Sources,
    /// The parser's diagnostics.
    #[error("{rendered}")]
    Invalid {
        /// They, with carets.
        rendered: String,
    },
    /// It asks for what no proxy of this version enforces.
    #[error("BM0190: not enforced by this version: {words}; take out what says so, or update botmesh")]
    NotEnforced {
        /// Words of [`policy::feature`], with commas.
        words: String,
    },
    /// A slice might not fit the message that carries it.
    #[error("the mesh has {bytes} bytes in canonical form, more than the {max} that a host can be sent")]
    TooLong {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The revision in the store cannot be read any more.
    #[error("the live revision {generation} cannot be read: {reason}")]
    Stored {
        /// Which.
        generation: Generation,
        /// Why.
        reason: String,
    },
}

/// A mesh that holds together, and what its own tests say.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) warnings: Vec<String>,
    pub(crate) tests: TestCounts,
    /// The failed tests, for the operator; several lines.
    pub(crate) failures: Option<String>,
    /// JSON of the sources, as stored.
    pub(crate) sources: String,
    /// SHA-256 of that, lower hexadecimal.
    pub(crate) sha256: String,
}

/// Reads the files and runs their tests.
pub(crate) fn check(sources: &[MeshSource], now: Timestamp) -> Result<Checked, MeshError> {
    let mesh = load(sources)?;
    enforced(mesh.not_enforced())?;
    let canonical_bytes = mesh.canonical_json().len();
    if canonical_bytes > crate::node::SLICE_BYTES_MAX {
        return Err(MeshError::TooLong {
            bytes: canonical_bytes,
            max: crate::node::SLICE_BYTES_MAX,
        });
    }
    let warnings = mesh.warnings();
    let warnings = if warnings.is_empty() {
        Vec::new()
    } else {
        vec![warnings.render(false)]
    };
    let report = mesh.run_tests(now);
    let failures = (report.failed() > 0).then(|| report.failures().render(false));
    let tests = TestCounts {
        passed: report.passed() as u64,
        failed: report.failed() as u64,
    };
    let sources = serde_json::to_string(sources).map_err(|error| MeshError::Invalid {
        rendered: error.to_string(),
    })?;
    let sha256 = crate::hex(&sha256(sources.as_bytes()));
    Ok(Checked {
        mesh: Arc::new(mesh),
        warnings,
        tests,
        failures,
        sources,
        sha256,
    })
}

/// Reads the sources of a stored revision.
pub(crate) fn stored_sources(row: &RevisionRow) -> Result<Vec<MeshSource>, MeshError> {
    let generation = Generation {
        epoch: row.summary.epoch,
        revision: row.summary.revision,
    };
    serde_json::from_str(&row.sources).map_err(|error| MeshError::Stored {
        generation,
        reason: error.to_string(),
    })
}

/// Makes the newest revision live again after a start.
pub(crate) fn restore(epoch: u64, newest: Option<RevisionRow>) -> Result<Live, MeshError> {
    let Some(row) = newest else {
        let generation = Generation { epoch, revision: 0 };
        return Ok(Live {
            generation,
            mesh: None,
            sources_sha256: String::new(),
        });
    };
    let generation = Generation {
        epoch: row.summary.epoch,
        revision: row.summary.revision,
    };
    let mesh = load(&stored_sources(&row)?).map_err(|error| MeshError::Stored {
        generation,
        reason: error.to_string(),
    })?;
    Ok(Live {
        generation,
        mesh: Some(Arc::new(mesh)),
        sources_sha256: row.summary.sha256,
    })
}

fn load(sources: &[MeshSource]) -> Result<Mesh, MeshError> {
    if sources.is_empty() || sources.len() > SOURCES_MAX || sources.iter().any(|s| s.name.len() > NAME_BYTES_MAX) {
        return Err(MeshError::Sources);
    }
    let sources: Vec<Source> = sources
        .iter()
        .map(|source| Source {
            name: source.name.clone(),
            text: source.text.clone(),
        })
        .collect();
    policy::load(&sources).map_err(|diagnostics| MeshError::Invalid {
        rendered: diagnostics.render(false),
    })
}

/// Refuses a mesh that asks for what no proxy of this version enforces.
fn enforced(missing: BTreeSet<&'static str>) -> Result<(), MeshError> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(MeshError::NotEnforced {
        words: missing.into_iter().collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_that_no_proxy_of_this_version_enforces_is_refused() {
        let error = enforced(BTreeSet::from(["a", "b"])).unwrap_err();
        assert!(
            matches!(&error, MeshError::NotEnforced { words } if words == "a, b"),
            "{error}"
        );
    }
}
