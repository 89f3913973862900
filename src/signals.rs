//! When a server ends: SIGTERM, SIGINT, or the end of the supervisor that started it.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// SIGINT and SIGTERM, watched from the moment this value exists.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(crate) fn watch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("watch SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("watch SIGTERM")?,
        })
    }

    /// Waits for the first of them.
    pub(crate) async fn wait(&mut self) -> &'static str {
        // Both arms only wait for a signal: losing one midway loses nothing.
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Cancels the token at the first signal and, for a child of our own supervisor, at the end of its stdin.
pub(crate) fn cancel_on_stop(tasks: &TaskTracker, cancel: &CancellationToken, with_parent: bool) -> Result<()> {
    let mut stop = Stop::watch()?;
    let parent = if with_parent { Some(stdin_pipe()?) } else { None };
    let cancel = cancel.clone();
    tasks.spawn(async move {
        // Every arm only waits; what is lost is the wait.
        let why = tokio::select! {
            name = stop.wait() => name,
            () = ended(parent) => "the end of its supervisor",
            () = cancel.cancelled() => return,
        };
        tracing::info!("stopping: {why}");
        cancel.cancel();
    });
    Ok(())
}

/// Opens stdin for reading without a thread that would hold up the end of the process.
pub(crate) fn stdin_pipe() -> Result<pipe::Receiver> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("open stdin")?;
    pipe::Receiver::from_owned_fd(stdin).context("stdin must be a pipe here")
}

/// Waits until the other end of the pipe is closed; without a pipe, for ever.
async fn ended(parent: Option<pipe::Receiver>) {
    let Some(mut parent) = parent else {
        return std::future::pending().await;
    };
    let mut ignored = [0_u8; 64];
    while matches!(parent.read(&mut ignored).await, Ok(read) if read > 0) {}
}
