//! The helper as a process: how the proxy starts it, and how it gives up all rights but two.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use rustix::thread::CapabilitySet;
use spiffe::time::Clock;
use thiserror::Error;

use super::super::AttestConfig;
use super::super::error::KernelError;
use super::super::sight::Sight;
use super::client::Helper;
use super::{frame, serve};
use crate::privileges::{self, PrivilegeError, User};

/// The name of the hidden command by which this program becomes the helper.
pub(super) const COMMAND: &str = "attest-helper";

/// How long the helper may take to begin.
const START_WAIT: Duration = Duration::from_secs(30);

/// What it says once it has given up its rights.
const READY: &[u8] = b"ready";

/// All that it keeps: reading `/proc/PID/{maps,exe,fd}` of any user, and passing folders on the way to a program.
pub(super) const KEPT: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

/// Why there is no helper.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HelperError {
    /// The system refused a step.
    #[error("{step}")]
    Io {
        /// The step.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended, or said something else, before it was ready.
    #[error("the attest helper did not begin")]
    NotReady,
    /// Its rights could not be given up.
    #[error("give up the attest helper's rights")]
    Privileges {
        /// Why.
        #[source]
        source: PrivilegeError,
    },
    /// `/proc` cannot be looked at.
    #[error("look into processes")]
    Kernel {
        /// Why.
        #[source]
        source: KernelError,
    },
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> HelperError {
    move |source| HelperError::Io { step, source }
}

/// Starts this same program again as the helper, and waits until it has given up what it does not need.
///
/// # Errors
/// When it does not start, or does not become what it must be.
pub fn start(user: User) -> Result<Helper, HelperError> {
    let (ours, theirs) = UnixStream::pair().map_err(step("make the socketpair of the attest helper"))?;
    // Not the path: what is installed there meanwhile may be another version.
    let child = Command::new("/proc/self/exe")
        .arg0("botmesh")
        .args([COMMAND, &user.uid.to_string(), &user.gid.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(step("start the attest helper"))?;
    ours.set_read_timeout(Some(START_WAIT))
        .map_err(step("wait for the attest helper"))?;
    match frame::receive(&ours).map_err(step("wait for the attest helper"))? {
        Some((body, None)) if body == READY => {}
        Some(_) | None => return Err(HelperError::NotReady),
    }
    Helper::new(ours, Some(child)).map_err(step("speak with the attest helper"))
}

/// Is the helper, with the proxy at the other end of stdin, until that closes.
///
/// # Errors
/// When stdin is no socket, or the rights that it must not have could not be given up.
pub fn run(user: User) -> Result<(), HelperError> {
    // Signals to the whole group are for the proxy: while that finishes its calls it needs answers.
    SigSet::all()
        .thread_block()
        .map_err(|error| step("block signals")(error.into()))?;
    close_inherited().map_err(step("close what was inherited"))?;
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let control = UnixStream::from(stdin.map_err(step("open stdin"))?);
    control.peer_addr().map_err(step("stdin must be the proxy's socket"))?;
    // Only where it may (not below systemd, whose unit forbids it): an empty network. It opens no socket in any case.
    let _not_allowed = unshare(CloneFlags::CLONE_NEWNET);
    privileges::become_helper(user, KEPT).map_err(|source| HelperError::Privileges { source })?;
    let sight = Sight::new(AttestConfig::default(), Clock::system(), false);
    let sight = Arc::new(sight.map_err(|source| HelperError::Kernel { source })?);
    frame::send(&control, READY, None).map_err(step("tell the proxy"))?;
    serve::serve(&control, &sight).map_err(step("take the proxy's questions"))
}

/// Closes all files but stdin, stdout and stderr: a service manager's sockets are not marked to be closed by exec.
fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number: Option<i32> = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        open.extend(number.filter(|number| *number > 2));
    }
    for number in open {
        // The one by which the folder was read is closed already.
        let _closed = nix::unistd::close(number);
    }
    Ok(())
}
