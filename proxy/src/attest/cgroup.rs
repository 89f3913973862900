//! Cgroups of version 2: which processes are in one, and whether root alone chose who is.
//!
//! Finding the processes by the number that the kernel shows for a socket only shortens a scan. The *place* of a
//! process is a fact, and believed only where root owns every folder on the way to it, and the files by which processes
//! are moved in: a manager that was given a part of the tree can make folders of any name in it.

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
    /// Whether what is mounted there is the top of the tree that `/proc/PID/cgroup` speaks of.
    whole: bool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    paths: BTreeMap<u64, PathBuf>,
    walked: Option<Instant>,
}

/// The cgroup of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its path, as the kernel shows it.
    pub(super) path: String,
    /// The number of its folder, where root alone chose who is in it.
    pub(super) inode: Option<u64>,
    /// Whether root alone chose who is in it. Never for the root itself, in which is who is in no other.
    pub(super) of_root: bool,
}

impl Cgroups {
    /// Finds where cgroups of version 2 are mounted, if anywhere.
    pub(super) fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount = mounts.lines().find_map(mount_of);
        Self {
            root: mount.map(|(_, place)| PathBuf::from(place)),
            whole: mount.is_some_and(|(part, _)| part == "/"),
            known: Mutex::default(),
        }
    }

    /// Tells about the cgroup with this path below the root.
    pub(super) fn place(&self, path: &str) -> Place {
        let root = self.root.as_deref().filter(|_| self.whole);
        let at = root
            .filter(|_| is_plain(path))
            .map(|root| (root, inode_of_root(root, path)));
        Place {
            path: path.to_owned(),
            inode: at.and_then(|(_, found)| found),
            of_root: at.is_some_and(|(_, found)| found.is_some()),
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

/// Says whether a path names a cgroup below the root, which is not removed and not outside of this namespace.
fn is_plain(path: &str) -> bool {
    let names = path.strip_prefix('/').unwrap_or_default();
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && !name.ends_with(" (deleted)");
    names.split('/').all(is_name)
}

/// Returns the number of the folder, when root owns it, each folder above it, and the files by which processes and
/// threads are moved into any of them, and nobody else may write there.
fn inode_of_root(root: &Path, path: &str) -> Option<u64> {
    let mut at = root.to_owned();
    let mut inode = is_roots(&at)?;
    for name in path.split('/').skip(1) {
        at.push(name);
        inode = is_roots(&at)?;
        for file in ["cgroup.procs", "cgroup.threads"] {
            is_roots(&at.join(file))?;
        }
    }
    Some(inode)
}

fn is_roots(path: &Path) -> Option<u64> {
    const GROUP_OR_OTHERS: u32 = 0o022;
    let meta = fs::symlink_metadata(path).ok()?;
    (!meta.is_symlink() && meta.uid() == 0 && meta.mode() & GROUP_OR_OTHERS == 0).then(|| meta.ino())
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

/// Returns which part of the tree is mounted, and where, of a line of mountinfo (proc_pid_mountinfo(5)) that mounts cgroups of version 2.
fn mount_of(line: &str) -> Option<(&str, &str)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut fields = place.split(' ').skip(3);
    kind.starts_with("cgroup2 ").then(|| fields.next().zip(fields.next()))?
}

#[cfg(test)]
mod tests {
    use super::{is_plain, mount_of};

    #[test]
    fn only_a_mount_of_cgroups_of_version_2_is_found() {
        let second = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(mount_of(second), Some(("/", "/sys/fs/cgroup")));
        assert_eq!(
            mount_of("36 24 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"),
            None
        );
        assert_eq!(mount_of("nonsense"), None);
    }

    #[test]
    fn the_root_what_was_removed_and_what_is_outside_is_no_place() {
        for path in ["/a", "/system.slice/a.service", "/a b/c"] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "",
            "/",
            "a",
            "/..",
            "/../a",
            "/a/../b",
            "/a//b",
            "/a/.",
            "/a (deleted)",
            "/a/",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
