//! Finds the processes that hold a socket, by looking through `/proc/*/fd`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, openat, readlinkat_raw, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::error::{KernelError, Why};
use super::procfs::parse_socket_link;

/// One file descriptor of one process that is a wanted socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holder {
    pub(super) inode: u64,
    pub(super) pid: u32,
    pub(super) fd: u32,
}

/// Which processes to look through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Among {
    /// Those whose effective user is this.
    User(u32),
    /// Those of a list whose effective user is this.
    Listed(Vec<u32>, u32),
    /// One process.
    One(u32),
    /// All.
    Everyone,
}

/// The bounds of one scan. Meeting one is an error and never a shorter answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How many processes may be looked through.
    pub(super) processes_max: usize,
    /// How many file descriptors may be looked at, in all processes together.
    pub(super) fds_max: usize,
    /// How many holders may be found.
    pub(super) holders_max: usize,
    /// How long it may take.
    pub(super) time_max: Duration,
    /// Whether processes that may not be looked into are passed over: so in same-user mode, which is no boundary.
    pub(super) skip_unreadable: bool,
}

/// How many processes it is remembered of where a socket was found last.
const NEAR_MAX: usize = 1_024;

/// A look for more sockets than that is a sweep, which passes by all of a process's and says nothing of its next one.
const NEAR_INODES_MAX: usize = 16;

/// How many descriptors are tried before and behind that place.
const TRIED: (u32, u32) = (1, 6);

/// Where in a process a socket was found last. The kernel gives the lowest number that is free, so the next one of a process
/// with thousands of open files is mostly near, and those files need not be listed. It says where to look first, and nothing
/// of what is there.
#[derive(Debug, Default)]
pub(super) struct Near(Mutex<BTreeMap<u32, u32>>);

impl Near {
    fn of(&self, pid: u32) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&pid).copied()
    }

    fn note(&self, pid: u32, fd: u32) {
        let mut near = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if near.len() >= NEAR_MAX && !near.contains_key(&pid) {
            near.clear();
        }
        near.insert(pid, fd);
    }
}

/// Looks for all holders of the sockets with these inodes; each process is named once for each socket, by any one of its
/// descriptors for it.
///
/// A process may appear, or pass the socket on, while others are looked at: what is found was true of each process at
/// the moment that it was looked at. A file descriptor table that a thread does not share with its process is not seen,
/// nor that of a process whose first thread has ended: for the caller itself that means to be refused, and another
/// process gets such a socket only by the caller's own doing.
///
/// # Errors
/// [`Why::ScanBound`] when a bound is met; [`Why::Kernel`] when a process may not be looked into.
pub(super) fn holders(
    proc_folder: BorrowedFd<'_>,
    among: &Among,
    inodes: &BTreeSet<u64>,
    (bounds, near): (Bounds, &Near),
) -> Result<Vec<Holder>, Why> {
    let mut scan = Scan {
        proc_folder,
        inodes,
        bounds,
        near,
        ends: Instant::now() + bounds.time_max,
        processes: 0,
        fds: 0,
        found: Vec::new(),
    };
    match among {
        Among::User(uid) => scan.every_process(Some(*uid))?,
        Among::Everyone => scan.every_process(None)?,
        Among::One(pid) => scan.process(*pid)?,
        Among::Listed(pids, uid) => {
            for pid in pids {
                scan.process_of(&pid.to_string(), *pid, Some(*uid))?;
            }
        }
    }
    Ok(scan.found)
}

struct Scan<'a> {
    proc_folder: BorrowedFd<'a>,
    inodes: &'a BTreeSet<u64>,
    bounds: Bounds,
    near: &'a Near,
    ends: Instant,
    processes: usize,
    fds: usize,
    found: Vec<Holder>,
}

impl Scan<'_> {
    fn every_process(&mut self, uid: Option<u32>) -> Result<(), Why> {
        let failed = |error| Why::Kernel(KernelError::new("list", "the processes", error));
        let folder = open_folder(self.proc_folder, ".").map_err(failed)?;
        let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
        let mut names = RawDir::new(folder, &mut buffer);
        while let Some(name) = names.next() {
            let name = name.map_err(failed)?;
            if let Some((text, pid)) = number(name.file_name()) {
                self.process_of(text, pid, uid)?;
            }
        }
        Ok(())
    }

    fn process_of(&mut self, name: &str, pid: u32, uid: Option<u32>) -> Result<(), Why> {
        let Some(uid) = uid else { return self.process(pid) };
        // The owner of the folder itself is the process's effective user, whether or not it may be traced.
        match statat(self.proc_folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(owner) if owner.st_uid == uid => self.process(pid),
            Ok(_) | Err(Errno::NOENT | Errno::SRCH) => Ok(()),
            Err(error) => Err(Why::Kernel(KernelError::new(
                "read the owner of",
                format!("pid {pid}"),
                error,
            ))),
        }
    }

    fn process(&mut self, pid: u32) -> Result<(), Why> {
        self.processes += 1;
        if self.processes > self.bounds.processes_max {
            return Err(Why::ScanBound("processes_max"));
        }
        if Instant::now() > self.ends {
            return Err(Why::ScanBound("time_max"));
        }
        let folder = match open_folder(self.proc_folder, &format!("{pid}/fd")) {
            Ok(folder) => folder,
            Err(error) => return self.unreadable(pid, error),
        };
        let mut here: Vec<u64> = Vec::new();
        if self.inodes.len() <= NEAR_INODES_MAX && self.look_near(folder.as_fd(), pid, &mut here)? {
            return Ok(());
        }
        let mut buffer = [MaybeUninit::uninit(); 8 * 1024];
        let mut names = RawDir::new(&folder, &mut buffer);
        while let Some(name) = names.next() {
            let name = match name {
                Ok(name) => name,
                Err(error) => return self.unreadable(pid, error),
            };
            let Some((text, fd)) = number(name.file_name()) else {
                continue;
            };
            if self.descriptor(folder.as_fd(), (pid, fd, text), &mut here)? {
                break;
            }
        }
        Ok(())
    }

    /// Tries the descriptors near where a socket of the process was found last. Says whether all are found.
    fn look_near(&mut self, folder: BorrowedFd<'_>, pid: u32, here: &mut Vec<u64>) -> Result<bool, Why> {
        let Some(last) = self.near.of(pid) else {
            return Ok(false);
        };
        for fd in last.saturating_sub(TRIED.0)..=last.saturating_add(TRIED.1) {
            if self.descriptor(folder, (pid, fd, &fd.to_string()), here)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks at one descriptor. Says whether with it all that this process can be found to hold is found.
    fn descriptor(
        &mut self,
        folder: BorrowedFd<'_>,
        (pid, fd, name): (u32, u32, &str),
        here: &mut Vec<u64>,
    ) -> Result<bool, Why> {
        self.fds += 1;
        if self.fds > self.bounds.fds_max {
            return Err(Why::ScanBound("fds_max"));
        }
        let mut target = [0u8; 64];
        // A descriptor that was closed meanwhile is not held.
        let Ok(read) = readlinkat_raw(folder, name, &mut target) else {
            return Ok(false);
        };
        let inode = target.get(..read).and_then(parse_socket_link);
        let Some(inode) = inode.filter(|inode| self.inodes.contains(inode) && !here.contains(inode)) else {
            return Ok(false);
        };
        if self.found.len() >= self.bounds.holders_max {
            return Err(Why::ScanBound("holders_max"));
        }
        self.found.push(Holder { inode, pid, fd });
        if self.inodes.len() <= NEAR_INODES_MAX {
            self.near.note(pid, fd);
        }
        here.push(inode);
        Ok(here.len() == self.inodes.len())
    }

    fn unreadable(&self, pid: u32, error: Errno) -> Result<(), Why> {
        match error {
            Errno::NOENT | Errno::SRCH => Ok(()),
            Errno::ACCESS | Errno::PERM if self.bounds.skip_unreadable => Ok(()),
            error => Err(Why::Kernel(KernelError::new(
                "list the files of",
                format!("pid {pid}"),
                error,
            ))),
        }
    }
}

fn open_folder(at: BorrowedFd<'_>, name: &str) -> Result<std::os::fd::OwnedFd, Errno> {
    openat(
        at,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn number(name: &CStr) -> Option<(&str, u32)> {
    let text = name.to_str().ok()?;
    Some((text, text.parse().ok()?))
}

#[cfg(test)]
mod tests;
