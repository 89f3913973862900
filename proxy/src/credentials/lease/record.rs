//! The names of leases in a file, for the next process: what a crash leaves is given back by whoever starts after it. A value is
//! never in it.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use spiffe::time::Timestamp;

use super::LEASES_MAX;
use crate::credentials::vault::{LeaseId, VaultWord};

const FILE: &str = "leases.json";

/// The largest file: what [`LEASES_MAX`] of the longest names fill.
const FILE_BYTES_MAX: u64 = (LEASES_MAX as u64) * 2048;

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) vault: VaultWord,
    pub(super) lease: LeaseId,
    /// By when the vault takes it back by itself.
    pub(super) until: Timestamp,
}

/// The file, and what is in it.
#[derive(Clone, Debug)]
pub(super) struct Records {
    file: PathBuf,
    kept: Arc<Mutex<BTreeMap<LeaseId, Record>>>,
}

impl Records {
    /// Opens the file, and gives what is in it. One that nobody can read is put aside, and said.
    pub(super) fn open(state_dir: &Path) -> (Self, Vec<Record>) {
        let file = state_dir.join(FILE);
        let left = match read(&file) {
            Ok(left) => left,
            Err(error) => {
                let aside = file.with_extension("damaged");
                tracing::error!(
                    file = %file.display(), aside = %aside.display(), %error,
                    "the names of leases cannot be read: what an earlier process left ends by itself"
                );
                if let Err(error) = std::fs::rename(&file, &aside) {
                    tracing::error!(%error, "the file was not put aside");
                }
                Vec::new()
            }
        };
        let kept = left.iter().map(|record| (record.lease.clone(), record.clone()));
        let records = Self {
            file,
            kept: Arc::new(Mutex::new(kept.collect())),
        };
        (records, left)
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Adds one, or notes its new end.
    pub(super) async fn add(&self, record: Record) -> io::Result<()> {
        self.change(move |kept| drop(kept.insert(record.lease.clone(), record)))
            .await
    }

    /// Forgets one.
    pub(super) async fn remove(&self, lease: LeaseId) -> io::Result<()> {
        self.change(move |kept| drop(kept.remove(&lease))).await
    }

    /// Changes what is kept and writes it, away from the threads that serve calls. Whoever waits for it and stops waiting loses
    /// nothing: it is written all the same.
    async fn change(&self, change: impl FnOnce(&mut BTreeMap<LeaseId, Record>) + Send + 'static) -> io::Result<()> {
        let (file, kept) = (self.file.clone(), Arc::clone(&self.kept));
        let write = move || {
            // A thread that panicked while it held the lock left a whole map. Held while it is written: the file is never
            // older than what is kept.
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut kept);
            write(&file, kept.values())
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

fn read(file: &Path) -> io::Result<Vec<Record>> {
    let mut bytes = Vec::new();
    match std::fs::File::open(file) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

/// Replaces the file in one step; nobody else may read it.
fn write<'r>(file: &Path, records: impl Iterator<Item = &'r Record>) -> io::Result<()> {
    let bytes = serde_json::to_vec(&records.collect::<Vec<_>>()).map_err(io::Error::other)?;
    let beside = file.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut to = options.open(&beside)?;
    to.write_all(&bytes)?;
    to.sync_all()?;
    std::fs::rename(&beside, file)?;
    match file.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn record(name: &str) -> Record {
        Record {
            vault: VaultWord::parse("main").unwrap(),
            lease: LeaseId::try_from(name.to_owned()).unwrap(),
            until: Timestamp::from_unix_millis(1_796_000_000_000),
        }
    }

    #[tokio::test]
    async fn what_was_not_given_back_is_found_again_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let (records, left) = Records::open(folder.path());
        assert_eq!(left, []);
        for name in ["database/creds/a/1", "database/creds/a/2"] {
            records.add(record(name)).await.unwrap();
        }
        records.remove(record("database/creds/a/1").lease).await.unwrap();
        let mode = std::fs::metadata(records.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (_, left) = Records::open(folder.path());
        assert_eq!(left, [record("database/creds/a/2")]);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_put_aside_and_one_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        for text in ["", "{}", r#"[{"vault":"main","lease":"a b","until":0}]"#] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(Records::open(folder.path()).1, [], "{text}");
            assert!(!file.exists() && folder.path().join("leases.damaged").exists());
        }
        let (records, _) = Records::open(&folder.path().join("nowhere"));
        assert!(records.add(record("database/creds/a/1")).await.is_err());
    }
}
