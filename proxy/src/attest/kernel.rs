//! Everything that asks the kernel about processes and sockets, in one place with plain methods.
//!
//! Questions and answers are owned values, and what is kept open are file descriptors, so that a privileged helper
//! process can take this part over behind a socketpair while the rest of the proxy has no privileges.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, openat};
use spiffe::time::Clock;

use super::cgroup::Cgroups;
use super::diag::Diag;
use super::digest::Digests;
use super::error::{KernelError, Why};
use super::names::Names;
use super::pin::Pin;
use super::runs::Runs;
use super::scan::{Among, Bounds, Holder, holders};
use super::{AttestConfig, Mode as UserMode};

/// A scan of all processes runs beside the calls and may take longer than one that a call waits for.
const SWEEP_TIME_MAX: Duration = Duration::from_secs(5);
const SWEEP_PROCESSES_MAX: usize = 1 << 17;
const SWEEP_FDS_MAX: usize = 1 << 23;
const SWEEP_HOLDERS_MAX: usize = 1 << 18;

#[derive(Debug)]
pub(super) struct Kernel {
    proc_folder: OwnedFd,
    pub(super) mode: UserMode,
    pub(super) own_uid: u32,
    pub(super) diag: Diag,
    pub(super) cgroups: Cgroups,
    pub(super) names: Names,
    pub(super) digests: Digests,
    pub(super) runs: Runs,
    config: AttestConfig,
}

impl Kernel {
    /// Opens `/proc` and makes sure that it is the kernel's own.
    pub(super) fn new(config: AttestConfig, clock: Clock) -> Result<Self, KernelError> {
        let proc_folder = open_proc(Path::new("/proc"))?;
        let own_uid = rustix::process::geteuid().as_raw();
        Ok(Self {
            proc_folder,
            mode: if own_uid == 0 {
                UserMode::Root
            } else {
                UserMode::SameUser
            },
            own_uid,
            diag: Diag::default(),
            cgroups: Cgroups::new(),
            names: Names::default(),
            digests: Digests::new(config.exe_bytes_max, clock),
            runs: Runs::default(),
            config,
        })
    }

    pub(super) fn proc_folder(&self) -> BorrowedFd<'_> {
        self.proc_folder.as_fd()
    }

    /// Pins the process with this number.
    pub(super) fn pin(&self, pid: u32) -> Result<Pin, Why> {
        Pin::by_number(self.proc_folder(), pid)
    }

    /// Finds who holds a socket, for a call that waits.
    pub(super) fn holders(&self, among: &Among, inodes: &BTreeSet<u64>) -> Result<Vec<Holder>, Why> {
        let bounds = Bounds {
            processes_max: self.config.processes_max,
            fds_max: self.config.fds_max,
            holders_max: self.config.holders_max.saturating_mul(inodes.len().max(1)),
            time_max: self.config.scan_time_max,
            skip_unreadable: self.mode == UserMode::SameUser,
        };
        holders(self.proc_folder(), among, inodes, bounds)
    }

    /// Finds who on the whole host holds any of many sockets, beside the calls.
    pub(super) fn sweep(&self, inodes: &BTreeSet<u64>) -> Result<Vec<Holder>, Why> {
        let bounds = Bounds {
            processes_max: SWEEP_PROCESSES_MAX,
            fds_max: SWEEP_FDS_MAX,
            holders_max: SWEEP_HOLDERS_MAX,
            time_max: SWEEP_TIME_MAX,
            skip_unreadable: self.mode == UserMode::SameUser,
        };
        holders(self.proc_folder(), &Among::Everyone, inodes, bounds)
    }
}

fn open_proc(path: &Path) -> Result<OwnedFd, KernelError> {
    let failed = |error: rustix::io::Errno| KernelError::new("open", path.display().to_string(), error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    // Anything else mounted there could tell us anything.
    if fstatfs(&folder).map_err(failed)?.f_type != PROC_SUPER_MAGIC {
        return Err(failed(rustix::io::Errno::NOTSUP));
    }
    Ok(folder)
}

/// Locks a mutex that guards plain values, which are whole whenever the lock is free, after a panic too.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::open_proc;

    #[test]
    fn a_folder_that_is_not_procfs_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open_proc(folder.path()).is_err());
        assert!(open_proc(std::path::Path::new("/proc")).is_ok());
    }
}
