//! Everything that asks the kernel about processes and sockets, in one place with plain methods.
//!
//! What any process may ask is asked here. What takes the right to look into other users' processes goes through
//! [`Eyes`]: this process's own, or those of the attest helper.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spiffe::time::Clock;

use super::cgroup::Cgroups;
use super::diag::Diag;
use super::error::{KernelError, Why};
use super::helper::Helper;
use super::names::Names;
use super::pin::{Ask, Pin};
use super::pins::Pins;
use super::runs::Runs;
use super::scan::{Among, Holder};
use super::sight::{Eyes, Sight, open_proc};
use super::{AttestConfig, Mode as UserMode};

#[derive(Debug)]
pub(super) struct Kernel {
    proc_folder: OwnedFd,
    pub(super) mode: UserMode,
    pub(super) own_uid: u32,
    pub(super) eyes: Eyes,
    pub(super) diag: Diag,
    pub(super) cgroups: Cgroups,
    pub(super) names: Names,
    pub(super) runs: Runs,
    pub(super) pins: Pins,
}

impl Kernel {
    /// Looks by itself, as far as it may.
    pub(super) fn new(config: AttestConfig, clock: Clock) -> Result<Self, KernelError> {
        let mode = if rustix::process::geteuid().is_root() {
            UserMode::Root
        } else {
            UserMode::SameUser
        };
        let sight = Sight::new(config, clock, mode == UserMode::SameUser)?;
        Self::with_eyes(Eyes::Own(sight), mode)
    }

    /// Has the helper look.
    pub(super) fn with_helper(helper: Helper) -> Result<Self, KernelError> {
        Self::with_eyes(Eyes::Helper(helper), UserMode::Root)
    }

    fn with_eyes(eyes: Eyes, mode: UserMode) -> Result<Self, KernelError> {
        Ok(Self {
            proc_folder: open_proc(Path::new("/proc"))?,
            mode,
            own_uid: rustix::process::geteuid().as_raw(),
            eyes,
            diag: Diag::default(),
            cgroups: Cgroups::new(),
            names: Names::default(),
            runs: Runs::default(),
            pins: Pins::default(),
        })
    }

    pub(super) fn proc_folder(&self) -> BorrowedFd<'_> {
        self.proc_folder.as_fd()
    }

    /// Tells whether a user could change any program in any case: root, and in same-user mode the proxy's own user.
    pub(super) fn trusts(&self, uid: u32) -> bool {
        uid == 0 || self.mode == UserMode::SameUser && uid == self.own_uid
    }

    /// Pins the process with this number.
    pub(super) fn pin(&self, pid: u32, ask: Ask<'_>) -> Result<Arc<Pin>, Why> {
        self.pins.by_number(self, pid, ask)
    }

    /// Pins the process of a pidfd whose number is known to be `pid`.
    pub(super) fn pin_of(&self, pid: u32, process: OwnedFd, ask: Ask<'_>) -> Result<Arc<Pin>, Why> {
        self.pins.of(self, pid, process, ask)
    }

    /// Finds who holds a socket, for a call that waits.
    pub(super) fn holders(&self, among: &Among, inodes: &BTreeSet<u64>) -> Result<Vec<Holder>, Why> {
        self.eyes.holders(among, inodes, false)
    }

    /// Finds who on the whole host holds any of many sockets, beside the calls.
    pub(super) fn sweep(&self, inodes: &BTreeSet<u64>) -> Result<Vec<Holder>, Why> {
        self.eyes.holders(&Among::Everyone, inodes, true)
    }
}

/// Locks a mutex that guards plain values, which are whole whenever the lock is free, after a panic too.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
