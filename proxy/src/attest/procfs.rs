//! Reads the few process files that are trusted, and parses them without believing the process's own words.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

/// The most bytes read of one process file. `status` lists up to 65 536 groups, but a process with more of them than
/// fit is refused rather than half read.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// The most bytes of `/proc/PID/cgroup` that are read before each request: a path, and a line for each hierarchy.
pub(super) const CGROUP_BYTES_MAX: usize = 8 * 1024;

/// The parts of `/proc/PID/stat` that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The parent's process id.
    pub(super) parent: u32,
    /// When the process started, in clock ticks since boot.
    pub(super) start: u64,
}

/// The credentials in `/proc/PID/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Real, effective, saved and file-system user ids.
    pub(super) uids: [u32; 4],
    /// Real, effective, saved and file-system group ids.
    pub(super) gids: [u32; 4],
    /// Supplementary groups.
    pub(super) groups: Vec<u32>,
}

/// Parses `/proc/PID/stat`.
///
/// The second field is the process's own name in parentheses and may hold anything, parentheses and spaces included;
/// every field after it is a number or a letter, so the *last* `)` ends it (proc_pid_stat(5)).
pub(super) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(bytes.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let _state = fields.next().filter(|state| state.len() == 1)?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22, counted from 1; `state` was field 3 and `ppid` field 4.
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start })
}

/// Parses the credentials in `/proc/PID/status`.
///
/// The first line holds the process's own name, in which the kernel escapes line ends. A file in which a credential
/// line comes twice is refused, should that ever not be so.
pub(super) fn parse_credentials(bytes: &[u8]) -> Option<Credentials> {
    let mut uids = None;
    let mut gids = None;
    let mut groups = None;
    for line in bytes.split(|byte| *byte == b'\n').skip(1) {
        if let Some(value) = line.strip_prefix(b"Uid:") {
            once(&mut uids, four(value)?)?;
        } else if let Some(value) = line.strip_prefix(b"Gid:") {
            once(&mut gids, four(value)?)?;
        } else if let Some(value) = line.strip_prefix(b"Groups:") {
            once(&mut groups, numbers(value)?)?;
        }
    }
    Some(Credentials {
        uids: uids?,
        gids: gids?,
        groups: groups?,
    })
}

impl Credentials {
    /// Returns the effective and the supplementary groups, ascending, each once.
    pub(super) fn all_groups(&self) -> Vec<u32> {
        let [_real, effective, _saved, _file_system] = self.gids;
        let mut all = self.groups.clone();
        all.push(effective);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Parses the path of the cgroup of version 2 in `/proc/PID/cgroup`.
///
/// Its line begins with `0::` (cgroups(7)); the others are of version 1. A path outside of this process's own cgroup
/// namespace begins with `/..`, and that of a cgroup that was removed ends in ` (deleted)`.
pub(super) fn parse_cgroup(bytes: &[u8]) -> Option<&str> {
    let mut paths = bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"0::"));
    let (path, None) = (paths.next()?, paths.next()) else {
        return None;
    };
    str::from_utf8(path).ok().filter(|path| path.starts_with('/'))
}

fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

fn four(value: &[u8]) -> Option<[u32; 4]> {
    numbers(value)?.try_into().ok()
}

fn numbers(value: &[u8]) -> Option<Vec<u32>> {
    str::from_utf8(value)
        .ok()?
        .split_ascii_whitespace()
        .map(|word| word.parse().ok())
        .collect()
}

/// Parses the target of a link in `/proc/PID/fd`, `socket:[INODE]`.
pub(super) fn parse_socket_link(target: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads a file below a process's folder whole.
///
/// # Errors
/// When the process is gone, when the file may not be read, or with `EFBIG` when it is larger than is ever needed.
pub(super) fn read(dir: impl AsFd, name: &CStr) -> Result<Vec<u8>, Errno> {
    read_file(&open(dir, name)?)
}

/// Opens a file below a process's folder. What is read of it later is about the same process, as it is then.
///
/// # Errors
/// When the process is gone, or when the file may not be read.
pub(super) fn open(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Reads an open file from its beginning.
///
/// # Errors
/// When the process is gone, or with `EFBIG` when the file does not fit.
pub(super) fn read_again<'a>(file: &OwnedFd, bytes: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let mut length = 0;
    loop {
        let rest = bytes
            .get_mut(length..)
            .filter(|rest| !rest.is_empty())
            .ok_or(Errno::FBIG)?;
        let at = u64::try_from(length).map_err(|_too_long| Errno::FBIG)?;
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *rest, at))? {
            0 => return Ok(bytes.get(..length).unwrap_or_default()),
            read => length = length.saturating_add(read),
        }
    }
}

fn read_file(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        // A spare part of at least one page lets procfs hand out a whole file in one call.
        bytes.reserve(4096);
        let read = rustix::io::retry_on_intr(|| rustix::io::read(file, rustix::buffer::spare_capacity(&mut bytes)))?;
        if read == 0 {
            return Ok(bytes);
        }
        if bytes.len() > FILE_BYTES_MAX {
            return Err(Errno::FBIG);
        }
    }
}

#[cfg(test)]
mod tests;
