//! The processes that a supervisor holds: started from this same program, ended together, restarted with patience.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

/// How long a child may take to end in order: a proxy gives calls under way ten seconds.
const GRACE: Duration = Duration::from_secs(13);

/// The first and the longest wait before a dead child is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// A child that lived this long is thought healthy: its next death waits as briefly as its first.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) args: Vec<OsString>,
    /// Where its log goes: a file, or our own stderr.
    pub(crate) log: Option<PathBuf>,
    /// Whether we read what it prints; otherwise nobody does.
    pub(crate) heard: bool,
}

impl Program {
    /// Names this same program with other arguments.
    pub(crate) fn new<A: Into<OsString>>(name: &str, args: impl IntoIterator<Item = A>) -> Self {
        Self {
            name: name.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            log: None,
            heard: false,
        }
    }

    /// Keeps its stdout for us to read.
    pub(crate) fn heard(mut self) -> Self {
        self.heard = true;
        self
    }

    pub(crate) fn log_to(mut self, path: &Path) -> Self {
        self.log = Some(path.to_owned());
        self
    }

    /// Starts it. It must be one that ends when its stdin does.
    pub(crate) fn start(&self) -> Result<Child> {
        let log = match &self.log {
            Some(path) => Stdio::from(
                File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("open the log {}", path.display()))?,
            ),
            None => Stdio::inherit(),
        };
        let mut process = Command::new(program()?)
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(if self.heard { Stdio::piped() } else { Stdio::null() })
            .stderr(log)
            .kill_on_drop(true)
            // Ctrl-C at the terminal is for the supervisor, which then ends its children in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        Ok(Child {
            name: self.name.clone(),
            log: self.log.clone(),
            process,
            stdin,
            stdout,
        })
    }
}

/// The file of this program.
pub(crate) fn program() -> Result<PathBuf> {
    std::env::current_exe().context("find this program's own file")
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: String,
    pub(crate) log: Option<PathBuf>,
    process: Process,
    /// Its end of life: the child stops when this closes, however we die.
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
}

impl Child {
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        // `Child::wait` of tokio closes stdin first, which would end the child: ours is taken out and kept.
        self.process
            .wait()
            .await
            .with_context(|| format!("wait for {}", self.name))
    }

    /// Says whether it has ended.
    pub(crate) fn try_ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process
            .try_wait()
            .with_context(|| format!("look at {}", self.name))
    }

    /// Ends it in order, and by force when it takes too long.
    pub(crate) async fn stop(mut self) -> Result<()> {
        drop(self.stdin.take());
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by itself a moment ago; then there is nothing to signal.
            if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM) {
                tracing::debug!("signal {}: {error}", self.name);
            }
        }
        if tokio::time::timeout(GRACE, self.process.wait()).await.is_err() {
            tracing::warn!("{} did not stop within {} s: killed", self.name, GRACE.as_secs());
            self.process
                .kill()
                .await
                .with_context(|| format!("kill {}", self.name))?;
        }
        Ok(())
    }
}

/// A program that is started again whenever it ends.
#[derive(Debug)]
pub(crate) struct Kept {
    program: Program,
    child: Option<Child>,
    started: Instant,
    due: Instant,
    backoff: Backoff,
}

/// What became of a kept program.
#[derive(Debug)]
pub(crate) enum Step {
    /// It ended, and will be started again after this long.
    Ended(ExitStatus, Duration),
    /// It was started again.
    Started,
}

impl Kept {
    /// Takes over a running child.
    pub(crate) fn new(program: Program, child: Child) -> Self {
        let now = Instant::now();
        Self {
            program,
            child: Some(child),
            started: now,
            due: now,
            backoff: Backoff::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.program.name
    }

    /// Waits for the next thing that happens to it. Losing this midway is safe: the wait goes on with the next call.
    pub(crate) async fn step(&mut self) -> Result<Step> {
        if let Some(child) = &mut self.child {
            let status = child.ended().await?;
            self.child = None;
            let wait = self.backoff.after(self.started.elapsed());
            self.due = Instant::now() + wait;
            return Ok(Step::Ended(status, wait));
        }
        tokio::time::sleep_until(self.due).await;
        self.started = Instant::now();
        self.child = Some(self.program.start()?);
        Ok(Step::Started)
    }

    /// Ends it for good.
    pub(crate) async fn stop(self) -> Result<()> {
        match self.child {
            Some(child) => child.stop().await,
            None => Ok(()),
        }
    }
}

/// How long to wait before the next start: doubles with each early death.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: BACKOFF.0 }
    }

    /// The wait after a death at this age.
    pub(crate) fn after(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY_AFTER {
            self.next = BACKOFF.0;
        }
        let wait = self.next;
        self.next = (wait * 2).min(BACKOFF.1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_keeps_dying_is_restarted_ever_more_slowly_up_to_a_bound() {
        let mut backoff = Backoff::new();
        let waits: Vec<Duration> = (0..10).map(|_| backoff.after(Duration::ZERO)).collect();
        assert_eq!(waits.first(), Some(&BACKOFF.0));
        assert!(waits.is_sorted());
        assert_eq!(waits.last(), Some(&BACKOFF.1));
        assert_eq!(backoff.after(HEALTHY_AFTER), BACKOFF.0);
    }
}
