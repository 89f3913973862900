//! Remembers which processes an operator started as which bot.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use spiffe::id::BotName;
use thiserror::Error;

use super::error::{KernelError, Why};
use super::kernel::lock;
use super::pin::{Pin, asked, exited};
use super::procfs::{Stat, parse_stat, read};

/// How many bound processes there may be at once.
const BOUND_MAX: usize = 1024;
/// How many parents are looked at on the way up to a bound process.
const PARENTS_MAX: usize = 64;

/// Why a process was not bound to a bot.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunRefused {
    /// No entry of this host lets this operator start this bot.
    #[error("no entry of this host lets {operator} start {bot}")]
    NotAllowed {
        /// The bot asked for.
        bot: BotName,
        /// Who asked.
        operator: String,
    },
    /// The process is bound already.
    #[error("process {0} is bound already")]
    AlreadyBound(u32),
    /// Process 1 adopts every orphan, so a binding of it would bind them all.
    #[error("process 1 cannot be bound")]
    Init,
    /// There are too many bound processes.
    #[error("{BOUND_MAX} processes are bound already")]
    TooMany,
    /// The process could not be looked at.
    #[error("cannot bind the process")]
    Process(#[source] Box<Why>),
}

#[derive(Debug)]
struct Bound {
    process: OwnedFd,
    start: u64,
    bot: BotName,
    operator: String,
}

/// The bound processes, by number. Each is held by a pidfd, so a number used again is noticed.
#[derive(Debug, Default)]
pub(super) struct Runs(Mutex<BTreeMap<u32, Bound>>);

impl Runs {
    /// Binds the process `pid` to `bot`.
    pub(super) fn bind(
        &self,
        proc_folder: BorrowedFd<'_>,
        pid: u32,
        bot: BotName,
        operator: String,
    ) -> Result<(), RunRefused> {
        if pid == 1 {
            return Err(RunRefused::Init);
        }
        let refused = |why| RunRefused::Process(Box::new(why));
        let number = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(refused(Why::PeerNotVisible))?;
        let process =
            pidfd_open(number, PidfdFlags::empty()).map_err(|error| refused(asked("open a pidfd of", pid, error)))?;
        let folder = folder_of(proc_folder, pid).map_err(refused)?;
        let start = stat(folder.as_fd(), pid).map_err(refused)?.start;
        if gone(&process) {
            return Err(refused(Why::Exited(pid)));
        }
        let mut bound = lock(&self.0);
        bound.retain(|_, bound| !gone(&bound.process));
        if bound.contains_key(&pid) {
            return Err(RunRefused::AlreadyBound(pid));
        }
        if bound.len() >= BOUND_MAX {
            return Err(RunRefused::TooMany);
        }
        bound.insert(
            pid,
            Bound {
                process,
                start,
                bot,
                operator,
            },
        );
        Ok(())
    }

    /// Returns the bot that the pinned process runs as: that of the nearest bound process among itself and its parents.
    ///
    /// The chain of parents is walked twice and must be the same both times. A process whose parent died was given
    /// another parent by the kernel, so its chain no longer leads to the bound process: it is nobody.
    ///
    /// # Errors
    /// When the pinned process is gone, or its parents cannot be looked at.
    pub(super) fn bot_of(&self, proc_folder: BorrowedFd<'_>, pin: &Pin) -> Result<Option<BotName>, Why> {
        if lock(&self.0).is_empty() {
            return Ok(None);
        }
        let first = self.chain(proc_folder, pin)?;
        let Some((end, _)) = first.last().copied() else {
            return Ok(None);
        };
        if first != self.chain(proc_folder, pin)? {
            return Ok(None);
        }
        let bound = lock(&self.0);
        Ok(bound
            .get(&end)
            .filter(|root| !gone(&root.process))
            .map(|root| root.bot.clone()))
    }

    /// Returns the operator who bound the process `pid` itself.
    pub(super) fn operator_of(&self, pid: u32) -> Option<String> {
        lock(&self.0)
            .get(&pid)
            .filter(|root| !gone(&root.process))
            .map(|root| root.operator.clone())
    }

    /// Walks from the pinned process up to a bound one; empty when there is none.
    fn chain(&self, proc_folder: BorrowedFd<'_>, pin: &Pin) -> Result<Vec<(u32, u64)>, Why> {
        let mut chain = Vec::new();
        let mut pid = pin.pid;
        let mut folder: Option<OwnedFd> = None;
        for _ in 0..PARENTS_MAX {
            let at = stat(folder.as_ref().map_or(pin.folder(), AsFd::as_fd), pid)?;
            chain.push((pid, at.start));
            if lock(&self.0)
                .get(&pid)
                .is_some_and(|root| root.start == at.start && !gone(&root.process))
            {
                return Ok(chain);
            }
            if at.parent <= 1 {
                break;
            }
            pid = at.parent;
            folder = match folder_of(proc_folder, pid) {
                Ok(folder) => Some(folder),
                // A parent that is gone has left its children to another one.
                Err(Why::Exited(_)) => break,
                Err(why) => return Err(why),
            };
        }
        Ok(Vec::new())
    }
}

fn folder_of(proc_folder: BorrowedFd<'_>, pid: u32) -> Result<OwnedFd, Why> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(proc_folder, pid.to_string(), flags, Mode::empty()).map_err(|error| asked("open the folder of", pid, error))
}

fn stat(folder: BorrowedFd<'_>, pid: u32) -> Result<Stat, Why> {
    let bytes = read(folder, c"stat").map_err(|error| asked("read the state of", pid, error))?;
    parse_stat(&bytes).ok_or_else(|| {
        let odd = std::io::Error::from(std::io::ErrorKind::InvalidData);
        Why::Kernel(KernelError::new("parse the state of", format!("pid {pid}"), odd))
    })
}

/// A pidfd that cannot be asked is taken for that of a process that has exited.
fn gone(process: &OwnedFd) -> bool {
    exited(process.as_fd()).unwrap_or(true)
}
