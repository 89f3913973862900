//! Finds the processes of a cgroup by the number that the kernel shows for a socket.
//!
//! This only shortens a scan: which bot a process is never depends on it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::kernel::lock;

/// How many cgroups are looked at when one is not known yet.
const WALK_MAX: usize = 8192;
/// How many cgroups are remembered.
const KNOWN_MAX: usize = 1024;
/// The tree is not walked more often than this, whoever asks.
const WALK_PAUSE: Duration = Duration::from_secs(1);
/// A cgroup whose list of processes is longer is no short cut.
const LIST_BYTES_MAX: u64 = 16 * 1024;

/// The cgroups (version 2) of this host, by the inode of their folder, which is the number that sockets carry.
#[derive(Debug)]
pub(super) struct Cgroups {
    root: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    paths: BTreeMap<u64, PathBuf>,
    walked: Option<Instant>,
}

impl Cgroups {
    /// Finds where cgroups of version 2 are mounted, if anywhere.
    pub(super) fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self {
            root: mounts.lines().find_map(mount_of).map(PathBuf::from),
            known: Mutex::default(),
        }
    }

    /// Lists the processes of the cgroup with this number, or `None` where that is not known or no short cut: one that
    /// was removed, one with a very long list.
    ///
    /// The list is read to the end or not used.
    pub(super) fn processes(&self, id: u64) -> Option<Vec<u32>> {
        let root = self.root.as_deref()?;
        let path = self.path(root, id)?;
        let mut list = String::new();
        let file = fs::File::open(path.join("cgroup.procs")).ok()?;
        let read = file.take(LIST_BYTES_MAX + 1).read_to_string(&mut list).ok()?;
        if u64::try_from(read).ok()? > LIST_BYTES_MAX {
            return None;
        }
        list.lines().map(|line| line.parse().ok()).collect()
    }

    fn path(&self, root: &Path, id: u64) -> Option<PathBuf> {
        let mut known = lock(&self.known);
        if let Some(path) = known.paths.get(&id) {
            if inode(path) == Some(id) {
                return Some(path.clone());
            }
            known.paths.remove(&id);
        }
        if known.walked.is_some_and(|at| at.elapsed() < WALK_PAUSE) {
            return None;
        }
        known.walked = Some(Instant::now());
        let path = walk(root, id)?;
        if known.paths.len() >= KNOWN_MAX {
            known.paths.pop_first();
        }
        known.paths.insert(id, path.clone());
        Some(path)
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|meta| meta.ino())
}

fn walk(root: &Path, id: u64) -> Option<PathBuf> {
    if inode(root)? == id {
        return Some(root.to_owned());
    }
    let mut open = vec![root.to_owned()];
    let mut seen = 0;
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).ok()?.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            seen += 1;
            if seen > WALK_MAX {
                return None;
            }
            let path = entry.path();
            if inode(&path) == Some(id) {
                return Some(path);
            }
            open.push(path);
        }
    }
    None
}

/// Returns the mount point of a line of mountinfo (proc_pid_mountinfo(5)) that mounts cgroups of version 2.
fn mount_of(line: &str) -> Option<&str> {
    let (place, kind) = line.split_once(" - ")?;
    kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4))?
}

#[cfg(test)]
mod tests {
    use super::mount_of;

    #[test]
    fn only_a_mount_of_cgroups_of_version_2_is_found() {
        let second = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(mount_of(second), Some("/sys/fs/cgroup"));
        assert_eq!(
            mount_of("36 24 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"),
            None
        );
        assert_eq!(mount_of("nonsense"), None);
    }
}
