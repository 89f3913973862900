//! Holds on to one process and to the one program that it runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::{Errno, pread, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use tokio::time::Instant;

use super::cgroup::Place;
use super::entries::Entries;
use super::error::{KernelError, Why};
use super::kernel::{Kernel, lock};
use super::procfs;
use super::scan::Holder;
use super::sight::{Eyes, Glance, Look, Programs, Seen, Wanted, holds};

/// A process, held so that neither its number nor its program can change unseen. One pin serves all connections of its
/// process: see [`super::pins`].
///
/// - The *pidfd* names the process itself: it becomes readable when the process exits, whatever happens to the number.
/// - The *folder* `/proc/PID` was opened while the pidfd said that the process lived. The kernel ties it to the
///   process and not to the number, so everything read through it is about this process or fails.
/// - The *map* is an open `/proc/PID/maps`. The kernel ties it to the address space that the process had when it was
///   opened: after any `execve`, of the same file too, that address space is gone and a read gives no byte. (A process
///   that shares its address space with another by `clone(CLONE_VM)` keeps it past its own `execve` or exit; to do that
///   it must already run code of its choice inside the genuine program, and then needs no `execve`.)
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) pid: u32,
    /// When it was pinned. What a scan that began later says of the number is about this process, if it lives after that.
    pub(super) since: Instant,
    /// Effective user id when pinned.
    pub(super) uid: u32,
    /// Effective group id when pinned.
    pub(super) gid: u32,
    process: OwnedFd,
    folder: OwnedFd,
    map: OwnedFd,
    /// The program when pinned.
    program: Seen,
    /// A socket that it was found to hold when it was pinned: the file descriptor and the inode.
    held: Option<(u32, u64)>,
    /// Which of the wanted programs it was found to be, and when.
    judged: Mutex<Option<(Wanted, Programs, Instant)>>,
    /// All groups, once an entry asked for one.
    groups: OnceLock<Vec<u32>>,
    /// The cgroup, once an entry asked for it, as it was judged last.
    place: Mutex<Option<Place>>,
    /// The open `/proc/PID/cgroup`, which the kernel ties to the process, from then on.
    cgroup: OnceLock<OwnedFd>,
}

/// What is asked along when a process is pinned, so that a helper is asked once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ask<'a> {
    /// What a scan found of it.
    pub(super) holder: Option<&'a Holder>,
    /// The entries by which it will be named.
    pub(super) entries: Option<&'a Entries>,
}

impl<'a> Ask<'a> {
    pub(super) const fn of(entries: &'a Entries) -> Self {
        Self {
            holder: None,
            entries: Some(entries),
        }
    }

    pub(super) const fn and(self, holder: &'a Holder) -> Self {
        Self {
            holder: Some(holder),
            ..self
        }
    }
}

/// How long what was found of a program's path is believed: who could write it may be another matter later.
const JUDGED_FOR: Duration = Duration::from_secs(1);

impl Pin {
    /// Pins the process with the number `pid`.
    ///
    /// # Errors
    /// [`Why::Exited`] when there is none; [`Why::Kernel`] when it may not be looked at.
    pub(super) fn by_number(kernel: &Kernel, pid: u32, ask: Ask<'_>) -> Result<Self, Why> {
        let number = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(Why::PeerNotVisible)?;
        let process = pidfd_open(number, PidfdFlags::empty()).map_err(|error| asked("open a pidfd of", pid, error))?;
        Self::of(kernel, pid, process, ask)
    }

    /// Pins the process of a pidfd whose number is known to be `pid`.
    ///
    /// The number cannot be another process's while this one lives, so folder and map are opened first and the pidfd
    /// asked afterwards.
    ///
    /// # Errors
    /// Like [`Pin::by_number`].
    pub(super) fn of(kernel: &Kernel, pid: u32, process: OwnedFd, ask: Ask<'_>) -> Result<Self, Why> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(kernel.proc_folder(), pid.to_string(), flags, Mode::empty())
            .map_err(|error| asked("open the folder of", pid, error))?;
        let owner = fstat(&folder).map_err(|error| asked("read the owner of", pid, error))?;
        let socket = ask.holder.map(|holder| (holder.fd, holder.inode));
        let wanted = ask
            .entries
            .and_then(|entries| kernel.wanted_of(&folder, owner.st_uid, entries));
        let look = Look {
            pid,
            socket,
            wanted: wanted.clone(),
        };
        let Glance { map, glimpse } = kernel.eyes.glance(look)?;
        let judged = wanted.zip(glimpse.programs);
        let pin = Self {
            pid,
            since: Instant::now(),
            uid: owner.st_uid,
            gid: owner.st_gid,
            process,
            folder,
            map,
            program: glimpse.program,
            held: socket.filter(|_| glimpse.holds),
            judged: Mutex::new(judged.map(|(wanted, programs)| (wanted, programs, Instant::now()))),
            groups: OnceLock::new(),
            place: Mutex::default(),
            cgroup: OnceLock::new(),
        };
        pin.check_whole()?;
        Ok(pin)
    }

    /// The process's own folder below `/proc`.
    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Checks that the number still means the process, and all that [`Pin::check`] does.
    ///
    /// # Errors
    /// Like [`Pin::check`].
    pub(super) fn check_whole(&self) -> Result<(), Why> {
        if self.exited()? {
            return Err(Why::Exited(self.pid));
        }
        self.check()
    }

    /// Checks that the process lives, runs the program it was pinned with, and has the same effective credentials.
    ///
    /// Takes two system calls and about one microsecond; more for a process whose groups or cgroup were asked for,
    /// which must be the same as well. The pidfd is not asked: a process that exits gives up its address space, as one
    /// that executes a program does, and the map tells of both.
    ///
    /// # Errors
    /// [`Why::Exited`], [`Why::ImageChanged`], [`Why::CredentialsChanged`], [`Why::GroupsChanged`] or
    /// [`Why::CgroupChanged`].
    pub(super) fn check(&self) -> Result<(), Why> {
        let mut byte = [0u8; 1];
        match retry_on_intr(|| pread(&self.map, &mut byte, 0)) {
            Ok(1..) => {}
            Ok(0) if self.exited()? => return Err(Why::Exited(self.pid)),
            Ok(0) => return Err(Why::ImageChanged(self.pid)),
            Err(error) => return Err(asked("read the memory map of", self.pid, error)),
        }
        let owner = fstat(&self.folder).map_err(|error| asked("read the owner of", self.pid, error))?;
        if (owner.st_uid, owner.st_gid) == (self.uid, self.gid) {
            return self.check_noted();
        }
        Err(Why::CredentialsChanged {
            pid: self.pid,
            was_uid: self.uid,
            was_gid: self.gid,
            uid: owner.st_uid,
            gid: owner.st_gid,
        })
    }

    /// Notes the groups for every later [`Pin::check`].
    ///
    /// # Errors
    /// [`Why::GroupsChanged`] when others were noted before.
    pub(super) fn note_groups(&self, groups: &[u32]) -> Result<(), Why> {
        if self.groups.get_or_init(|| groups.to_vec()) == groups {
            return Ok(());
        }
        Err(Why::GroupsChanged(self.pid))
    }

    /// Notes the cgroup for every later [`Pin::check`].
    ///
    /// # Errors
    /// [`Why::CgroupChanged`] when another was noted before.
    pub(super) fn note_place(&self, place: &Place) -> Result<(), Why> {
        let mut noted = lock(&self.place);
        if noted.as_ref().is_some_and(|noted| noted.path != place.path) {
            return Err(Why::CgroupChanged(self.pid));
        }
        if self.cgroup.get().is_none() {
            let failed = |error| asked("open the cgroup of", self.pid, error);
            let file = procfs::open(self.folder(), c"cgroup").map_err(failed)?;
            self.cgroup.get_or_init(|| file);
        }
        // Who chose what is in the cgroup is judged anew for each connection.
        *noted = Some(place.clone());
        Ok(())
    }

    /// The cgroup, where an entry asked for it.
    pub(super) fn place(&self) -> Option<Place> {
        lock(&self.place).clone()
    }

    fn check_noted(&self) -> Result<(), Why> {
        if let Some(groups) = self.groups.get()
            && self.credentials()?.all_groups() != *groups
        {
            return Err(Why::GroupsChanged(self.pid));
        }
        let Some(file) = self.cgroup.get() else {
            return Ok(());
        };
        let failed = |error| asked("read the cgroup of", self.pid, error);
        let mut bytes = [0u8; procfs::CGROUP_BYTES_MAX];
        let path = procfs::read_again(file, &mut bytes).map_err(failed)?;
        let path = procfs::parse_cgroup(path).unwrap_or_default();
        if lock(&self.place).as_ref().is_some_and(|place| place.path == path) {
            return Ok(());
        }
        Err(Why::CgroupChanged(self.pid))
    }

    /// Reads the credentials.
    pub(super) fn credentials(&self) -> Result<procfs::Credentials, Why> {
        let bytes =
            procfs::read(self.folder(), c"status").map_err(|error| asked("read the status of", self.pid, error))?;
        procfs::parse_credentials(&bytes).ok_or_else(|| odd("parse the status of", self.pid))
    }

    /// Reads the path of the cgroup of version 2; empty where there is none.
    pub(super) fn cgroup_path(&self) -> Result<String, Why> {
        let bytes =
            procfs::read(self.folder(), c"cgroup").map_err(|error| asked("read the cgroup of", self.pid, error))?;
        Ok(procfs::parse_cgroup(&bytes).unwrap_or_default().to_owned())
    }

    /// Tells whether the process has exited.
    pub(super) fn exited(&self) -> Result<bool, Why> {
        exited(self.process.as_fd()).map_err(|error| asked("poll the pidfd of", self.pid, error))
    }

    /// Tells whether the file descriptor `fd` of the process is the socket with this inode.
    pub(super) fn holds(&self, kernel: &Kernel, fd: u32, inode: u64) -> bool {
        match &kernel.eyes {
            // Asked through the folder, it is about this process and no other.
            Eyes::Own(_) => holds(self.folder(), &format!("fd/{fd}"), inode),
            // The number meant this process if it lives afterwards.
            Eyes::Helper(_) => kernel.eyes.holds(self.pid, fd, inode) && !self.exited().unwrap_or(true),
        }
    }

    /// Tells whether a scan that began after `since` was right about it: the scan found the number, and so it is if the
    /// process had it by then, and else if the process is looked at again.
    pub(super) fn is_holder(&self, kernel: &Kernel, holder: &Holder, since: Instant) -> bool {
        let again = || self.held == Some((holder.fd, holder.inode)) || self.holds(kernel, holder.fd, holder.inode);
        self.since < since || again()
    }

    /// Which of these programs it was found to be within the last second.
    pub(super) fn judged(&self, wanted: &Wanted) -> Option<Programs> {
        let judged = lock(&self.judged);
        let (asked, programs, at) = judged.as_ref()?;
        (asked == wanted && at.elapsed() < JUDGED_FOR).then(|| programs.clone())
    }

    /// Notes which of these programs it was just found to be.
    pub(super) fn note_judged(&self, wanted: Wanted, programs: Programs) {
        *lock(&self.judged) = Some((wanted, programs, Instant::now()));
    }

    /// The program when pinned. It still is, as long as [`Pin::check`] succeeds.
    pub(super) fn program(&self) -> &Seen {
        &self.program
    }
}

/// Tells whether the process of a pidfd has exited (pidfd_open(2): it becomes readable).
pub(super) fn exited(process: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut fds = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ready = retry_on_intr(|| poll(&mut fds, Some(&at_once)))?;
    Ok(ready > 0)
}

fn odd(operation: &'static str, pid: u32) -> Why {
    let odd = std::io::Error::from(std::io::ErrorKind::InvalidData);
    KernelError::new(operation, format!("pid {pid}"), odd).into()
}

/// Names a failed question about a process; the ways to say that there is no such process mean one thing.
pub(super) fn asked(operation: &'static str, pid: u32, error: Errno) -> Why {
    match error {
        Errno::SRCH | Errno::NOENT => Why::Exited(pid),
        error => Why::Kernel(KernelError::new(operation, format!("pid {pid}"), error)),
    }
}

#[cfg(test)]
mod tests;
