//! Finds out from the kernel which bot a local process is.
//!
//! A bot proves nothing and holds nothing: the kernel is asked which process is at the other end of a connection, what
//! it runs and as whom, and the entries of the mesh file say which bot that is. Facts come from the kernel and from
//! root-owned state only, never from what a process can write about itself: arguments, environment, name, working
//! folder, its own view of the file system.
//!
//! - [`Attestor::unix_caller`] and [`Witnessed`]: callers over a Unix socket, the recommended way in, exact to the byte.
//! - [`Attestor::tcp_caller`]: callers over loopback TCP.
//! - [`Caller::recheck`]: before each request, each second on tunnels, at each renewal.
//! - [`Attestor::callee_tcp`], [`Attestor::callee_unix`]: the process behind a callee's port or socket; [`Callee`]: that it
//!   was looked at within a second.
//! - [`Attestor::bind_run`]: `botmesh run`. [`Attestor::whois`]: `botmesh whois`.
//!
//! # Users are the boundary
//! What one user's processes can do to each other (trace, LD_PRELOAD, replace files they own) nothing here prevents:
//! `exe`, `exe_sha256` narrow which of a user's processes is the bot, against mistakes rather than against attack. In
//! *same-user mode* (the proxy is not root) that holds for all bots of the proxy's own user, whose programs are not
//! checked for being writable, and for processes that may not be looked into, which are passed over.

mod callee;
mod caller;
mod cgroup;
mod diag;
mod digest;
mod entries;
mod error;
mod exe;
pub mod helper;
mod identify;
mod kernel;
mod lanes;
mod names;
mod pin;
mod pins;
mod procfs;
mod runs;
mod scan;
mod sight;
mod tcp;
mod unix;
mod watch;
mod whois;

use std::sync::Arc;
use std::time::Duration;

use spiffe::entry::Entry;
use spiffe::id::BotName;
use spiffe::time::Clock;

pub use callee::Callee;
pub use caller::Caller;
pub(crate) use caller::Process;
pub use error::{CalleeFound, CalleeMismatch, KernelError, NearestEntry, Unattested, Why, refusal_of};
pub use helper::Helper;
pub use runs::RunRefused;
pub use unix::{Witnessed, prepare_listener};
pub use whois::{WhoisOutcome, WhoisReport};

/// The bounds of attestation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestConfig {
    /// How many processes are looked through for the holder of one TCP socket.
    pub processes_max: usize,
    /// How many file descriptors are looked at for that, in all those processes together.
    pub fds_max: usize,
    /// How many processes may hold one TCP socket.
    pub holders_max: usize,
    /// How long looking for them may take.
    pub scan_time_max: Duration,
    /// The largest program that is hashed for `exe_sha256`.
    pub exe_bytes_max: u64,
    /// How often [`Attestor::watch`] looks for passed TCP sockets.
    pub watch_every: Duration,
}

impl Default for AttestConfig {
    fn default() -> Self {
        Self {
            processes_max: 4096,
            fds_max: 1 << 18,
            holders_max: 64,
            scan_time_max: Duration::from_millis(250),
            exe_bytes_max: 512 * 1024 * 1024,
            watch_every: watch::WATCH_EVERY,
        }
    }
}

/// Whether identities are a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The proxy can look into every process.
    Root,
    /// The proxy runs as an ordinary user: identities among that user's processes are a convenience, not a boundary.
    SameUser,
}

/// Answers who is who. Cheap to clone; all clones share one state.
#[derive(Clone, Debug)]
pub struct Attestor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kernel: Arc<kernel::Kernel>,
    current: Arc<entries::Current>,
    lanes: lanes::Lanes,
    live: watch::Live,
    callees: callee::Callees,
    watch_every: Duration,
}

impl Attestor {
    /// Makes an attestor that knows no entries yet, for which everybody is nobody.
    ///
    /// # Errors
    /// When `/proc` is not there or is not the kernel's.
    pub fn new(config: AttestConfig, clock: Clock) -> Result<Self, KernelError> {
        let watch_every = config.watch_every;
        Ok(Self::of(kernel::Kernel::new(config, clock)?, watch_every))
    }

    /// Makes one that has the helper look into processes, for a proxy that may not. The bounds of looking are the
    /// helper's.
    ///
    /// # Errors
    /// Like [`Attestor::new`].
    pub fn with_helper(helper: Helper, watch_every: Duration) -> Result<Self, KernelError> {
        Ok(Self::of(kernel::Kernel::with_helper(helper)?, watch_every))
    }

    fn of(kernel: kernel::Kernel, watch_every: Duration) -> Self {
        Self(Arc::new(Inner {
            kernel: Arc::new(kernel),
            current: Arc::new(entries::Current::new()),
            lanes: lanes::Lanes::new(),
            live: watch::Live::default(),
            callees: callee::Callees::default(),
            watch_every,
        }))
    }

    /// Tells whether identities are a boundary here.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.kernel.mode
    }

    /// Replaces the entries. Callers attested before are matched again at their next [`Caller::recheck`].
    pub fn set_entries(&self, entries: Arc<[Entry]>) {
        self.0.current.set(entries);
    }

    /// Binds `bot` to the process `pid`, and to its descendants whose chain of parents up to it is unbroken, in the
    /// name of `operator`.
    ///
    /// The caller has made sure that the operator asked for it and that the host allows it (`allow_run`).
    ///
    /// # Errors
    /// When no entry names the operator in `run_by` of the bot, or the process is gone, bound already, or process 1.
    pub fn bind_run(&self, pid: u32, bot: BotName, operator: &str) -> Result<(), RunRefused> {
        let operator = operator.to_owned();
        if !self.0.current.get().lets_run(&bot, &operator) {
            return Err(RunRefused::NotAllowed { bot, operator });
        }
        self.0.kernel.runs.bind(self.0.kernel.proc_folder(), pid, bot, operator)
    }
}

/// Pins a process of this host, for tests of whoever holds on to one.
#[cfg(test)]
pub(crate) fn process_of(pid: u32) -> Process {
    let kernel = kernel::Kernel::new(AttestConfig::default(), Clock::system()).expect("proc");
    Process::of(
        kernel
            .pins
            .by_number(&kernel, pid, pin::Ask::default())
            .expect("a process"),
    )
}

/// Does what can block on a thread where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Why> {
    let failed = |error| KernelError::new("look into", "a process", std::io::Error::other(error));
    Ok(tokio::task::spawn_blocking(work).await.map_err(failed)?)
}
