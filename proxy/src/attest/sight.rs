//! The questions that need the right to look into other users' processes, and nothing else.
//!
//! Questions and answers are owned values; what stays open is a file descriptor. So the same few answers come from this
//! process, where it may look itself, or from the attest helper, where the proxy has no privileges.
//!
//! A process is named by its number. Whoever asks holds a pidfd and looks at it *after* the answer: as long as that very
//! process lives, no other one can have had its number.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, openat, readlinkat, readlinkat_raw, statat};
use serde::{Deserialize, Serialize};
use spiffe::time::Clock;

use super::AttestConfig;
use super::digest::Digests;
use super::error::{KernelError, Why};
use super::exe::{FileId, Suspect, check_unwritable, file_id};
use super::helper::Helper;
use super::pin::asked;
use super::procfs::parse_socket_link;
use super::scan::{Among, Bounds, Holder, Near, holders};

/// A scan of all processes runs beside the calls and may take longer than one that a call waits for.
const SWEEP_TIME_MAX: Duration = Duration::from_secs(5);
const SWEEP_PROCESSES_MAX: usize = 1 << 17;
const SWEEP_FDS_MAX: usize = 1 << 23;
const SWEEP_HOLDERS_MAX: usize = 1 << 18;

/// Who looks.
#[derive(Debug)]
pub(super) enum Eyes {
    /// This process.
    Own(Sight),
    /// The attest helper, because this process may not.
    Helper(Helper),
}

/// What is to be seen of a process when it is pinned, in one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Look {
    pub(super) pid: u32,
    /// A file descriptor and the inode of the socket that it is thought to be.
    pub(super) socket: Option<(u32, u64)>,
    /// The programs that it may be; asked only where they are known by then.
    pub(super) wanted: Option<Wanted>,
}

/// What is seen of a process when it is pinned.
#[derive(Debug)]
pub(super) struct Glance {
    /// Its open memory map.
    pub(super) map: OwnedFd,
    pub(super) glimpse: Glimpse,
}

/// All of that but the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Glimpse {
    pub(super) program: Seen,
    /// Whether the file descriptor is that socket; not where none was asked for.
    pub(super) holds: bool,
    /// Which of the wanted programs it is.
    pub(super) programs: Option<Programs>,
}

/// The program of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    /// Its file; none for a thread of the kernel.
    pub(super) file: Option<FileId>,
    /// The path that the kernel shows, which the process can choose by a mount namespace of its own.
    pub(super) path: Option<String>,
}

/// Which of these paths are one program, and could a user have put it there?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Candidates {
    pub(super) file: FileId,
    pub(super) wanted: Wanted,
}

/// Paths of programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    pub(super) paths: Vec<String>,
    /// Who must not be able to write them; nobody in particular where the user could in any case.
    pub(super) suspect: Option<Suspect>,
}

/// The paths that are the program and believed, and why another was not believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Programs {
    pub(super) paths: Vec<String>,
    pub(super) note: Option<String>,
}

/// What this process can look at itself.
#[derive(Debug)]
pub(super) struct Sight {
    proc_folder: OwnedFd,
    digests: Digests,
    config: AttestConfig,
    /// Whether processes that may not be looked into are passed over: in same-user mode, which is no boundary.
    skip_unreadable: bool,
    near: Near,
}

impl Sight {
    pub(super) fn new(config: AttestConfig, clock: Clock, skip_unreadable: bool) -> Result<Self, KernelError> {
        Ok(Self {
            proc_folder: open_proc(Path::new("/proc"))?,
            digests: Digests::new(config.exe_bytes_max, clock),
            config,
            skip_unreadable,
            near: Near::default(),
        })
    }

    /// Opens the memory map first: if the process executes another program after that, the map says so.
    pub(super) fn glance(&self, look: Look) -> Result<Glance, Why> {
        let Look { pid, socket, wanted } = look;
        let path = format!("{pid}/maps");
        let map = openat(&self.proc_folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| asked("open the memory map of", pid, error))?;
        let exe = format!("{pid}/exe");
        let file = statat(&self.proc_folder, &exe, AtFlags::empty()).ok();
        let path = readlinkat(&self.proc_folder, &exe, Vec::with_capacity(256)).ok();
        let program = Seen {
            file: file.map(|found| (found.st_dev, found.st_ino)),
            path: path.map(|path| path.to_string_lossy().into_owned()),
        };
        let judge = |wanted| {
            Some(Self::programs(&Candidates {
                file: program.file?,
                wanted,
            }))
        };
        let glimpse = Glimpse {
            holds: socket.is_some_and(|(fd, inode)| self.holds(pid, fd, inode)),
            programs: wanted.and_then(judge),
            program,
        };
        Ok(Glance { map, glimpse })
    }

    pub(super) fn programs(candidates: &Candidates) -> Programs {
        let mut programs = Programs::default();
        for path in &candidates.wanted.paths {
            let at = Path::new(path);
            if file_id(at) != Some(candidates.file) {
                continue;
            }
            let checked = match &candidates.wanted.suspect {
                Some(suspect) => check_unwritable(at, suspect).map_err(|doubt| doubt.to_string()),
                None if at.is_absolute() => Ok(()),
                None => Err("its path is not absolute".to_owned()),
            };
            match checked {
                Ok(()) => programs.paths.push(path.clone()),
                Err(doubt) => programs.note = Some(format!("{path} is this program, but {doubt}")),
            }
        }
        programs
    }

    /// Returns the hash of the program; none where it is not known and must not be `read`.
    pub(super) fn digest(&self, pid: u32, read: bool) -> Result<Option<String>, Why> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(&self.proc_folder, pid.to_string(), flags, Mode::empty())
            .map_err(|error| asked("open the folder of", pid, error))?;
        if read {
            self.digests.find(folder.as_fd(), pid).map(Some)
        } else {
            self.digests.known(folder.as_fd(), pid)
        }
    }

    /// Finds who holds sockets: for a call that waits, or in a sweep beside the calls.
    pub(super) fn holders(&self, among: &Among, inodes: &BTreeSet<u64>, sweep: bool) -> Result<Vec<Holder>, Why> {
        let config = &self.config;
        let bounds = if sweep {
            Bounds {
                processes_max: SWEEP_PROCESSES_MAX,
                fds_max: SWEEP_FDS_MAX,
                holders_max: SWEEP_HOLDERS_MAX,
                time_max: SWEEP_TIME_MAX,
                skip_unreadable: self.skip_unreadable,
            }
        } else {
            Bounds {
                processes_max: config.processes_max,
                fds_max: config.fds_max,
                holders_max: config
                    .holders_max
                    .saturating_mul(inodes.len().max(1))
                    .min(SWEEP_HOLDERS_MAX),
                time_max: config.scan_time_max,
                skip_unreadable: self.skip_unreadable,
            }
        };
        holders(self.proc_folder.as_fd(), among, inodes, (bounds, &self.near))
    }

    /// Tells whether a file descriptor of a process is the socket with this inode.
    pub(super) fn holds(&self, pid: u32, fd: u32, inode: u64) -> bool {
        holds(self.proc_folder.as_fd(), &format!("{pid}/fd/{fd}"), inode)
    }
}

/// Tells whether a link below `at` is to the socket with this inode.
pub(super) fn holds(at: BorrowedFd<'_>, link: &str, inode: u64) -> bool {
    let mut target = [0u8; 64];
    let Ok(read) = readlinkat_raw(at, link, &mut target) else {
        return false;
    };
    target.get(..read).and_then(parse_socket_link) == Some(inode)
}

impl Eyes {
    /// Whether an answer costs a way to another process and back.
    pub(super) const fn are_far(&self) -> bool {
        matches!(self, Self::Helper(_))
    }

    /// See [`Sight::glance`].
    pub(super) fn glance(&self, look: Look) -> Result<Glance, Why> {
        match self {
            Self::Own(sight) => sight.glance(look),
            Self::Helper(helper) => helper.glance(look),
        }
    }

    /// See [`Sight::programs`].
    pub(super) fn programs(&self, candidates: Candidates) -> Result<Programs, Why> {
        match self {
            Self::Own(_) => Ok(Sight::programs(&candidates)),
            Self::Helper(helper) => helper.programs(candidates),
        }
    }

    /// See [`Sight::digest`].
    pub(super) fn digest(&self, pid: u32, read: bool) -> Result<Option<String>, Why> {
        match self {
            Self::Own(sight) => sight.digest(pid, read),
            Self::Helper(helper) => helper.digest(pid, read),
        }
    }

    /// See [`Sight::holders`].
    pub(super) fn holders(&self, among: &Among, inodes: &BTreeSet<u64>, sweep: bool) -> Result<Vec<Holder>, Why> {
        match self {
            Self::Own(sight) => sight.holders(among, inodes, sweep),
            Self::Helper(helper) => helper.holders(among, inodes, sweep),
        }
    }

    /// See [`Sight::holds`]. That the helper does not answer means no.
    pub(super) fn holds(&self, pid: u32, fd: u32, inode: u64) -> bool {
        match self {
            Self::Own(sight) => sight.holds(pid, fd, inode),
            Self::Helper(helper) => helper.holds(pid, fd, inode).unwrap_or(false),
        }
    }
}

/// Opens `/proc` and makes sure that it is the kernel's own: anything else mounted there could tell us anything.
pub(super) fn open_proc(path: &Path) -> Result<OwnedFd, KernelError> {
    let failed = |error: rustix::io::Errno| KernelError::new("open", path.display().to_string(), error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    if fstatfs(&folder).map_err(failed)?.f_type != PROC_SUPER_MAGIC {
        return Err(failed(rustix::io::Errno::NOTSUP));
    }
    Ok(folder)
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
