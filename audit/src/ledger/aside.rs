//! What lies beside a ledger and is in no segment: ledgers that were put aside, and what crashes tore off. They hold calls, so
//! they go when calls of the time at which they were put there do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use spiffe::time::Timestamp;

use super::epochs::SET_ASIDE;
use crate::record::{EventKind, EventRecord};

/// What is looked at in one go, at most.
const LOOKED_AT_MAX: usize = 10_000;

/// Something that lies beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aside {
    path: PathBuf,
    /// Its path below the ledger's folder.
    name: String,
    since: Timestamp,
}

/// Finds what has been there for as long as calls are kept, oldest first.
pub(super) fn past(dir: &Path, keep: Duration, now: Timestamp) -> io::Result<Vec<Aside>> {
    let mut found = Vec::new();
    for (folder, below) in [(dir.to_owned(), ""), (dir.join(SET_ASIDE), SET_ASIDE)] {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries.take(LOOKED_AT_MAX) {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if below.is_empty() && !is_torn(&name) {
                continue;
            }
            // When it was written, or when the last of it was moved there.
            let since = since(entry.metadata()?.modified()?);
            if since + keep <= now {
                let name = Path::new(below).join(name).to_string_lossy().into_owned();
                found.push(Aside {
                    path: entry.path(),
                    name,
                    since,
                });
            }
        }
    }
    found.sort_by(|one, other| (one.since, &one.name).cmp(&(other.since, &other.name)));
    Ok(found)
}

/// Whether a file is what `repair` kept of what a crash tore off.
fn is_torn(name: &str) -> bool {
    name.starts_with("torn-") && name.ends_with(".bin")
}

fn since(modified: SystemTime) -> Timestamp {
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Aside {
    /// The record of it, which is written first.
    pub(super) fn event(&self, now: Timestamp) -> EventRecord {
        EventRecord {
            kind: EventKind::AsideRemoved,
            time: now,
            actor: "ledger".to_owned(),
            subject: self.name.clone(),
            detail: [("since".to_owned(), self.since.to_string().into())].into(),
        }
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.path)?.is_dir() {
            true => fs::remove_dir_all(&self.path),
            false => fs::remove_file(&self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_put_aside_goes_and_only_when_it_is_past_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Duration::from_hours(1);
        for name in ["set-aside/1/segments", "segments", "tile"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in [
            "torn-17.bin",
            "torn-17-1.bin",
            "checkpoint",
            "torn.tmp",
            "set-aside/1/segments/a",
        ] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let now = spiffe::time::Clock::system().now() + Duration::from_secs(1);
        assert_eq!(past(dir.path(), keep, now).unwrap(), []);
        let found = past(dir.path(), keep, now + keep + Duration::from_secs(1)).unwrap();
        let mut names: Vec<&str> = found.iter().map(|aside| aside.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["set-aside/1", "torn-17-1.bin", "torn-17.bin"]);
        found.iter().try_for_each(Aside::remove).unwrap();
        assert!(!dir.path().join("set-aside/1").exists() && dir.path().join("checkpoint").exists());
        assert_eq!(past(dir.path(), keep, now + keep * 2).unwrap(), []);
        assert_eq!(past(&dir.path().join("none"), keep, now).unwrap(), []);
    }
}
