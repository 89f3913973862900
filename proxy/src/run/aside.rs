//! The runtime aside: what is not on the path of a call has a thread of its own, and waits for the calls where both want
//! the processor.
//!
//! There run the admin socket, metrics and health, the stream to the CA with the compiling of what it brings, the watch
//! over processes, and what is done every so often. A scrape, or a policy of ten thousand rules, then delays no call.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::gettid;
use tokio::runtime::{Builder, Handle, Runtime};

/// The name of its threads, for whoever looks which thread does what.
pub(super) const NAME: &str = "aside";

/// How much nicer its threads are than the others: they get a third of the processor where calls take all they can, so
/// that a quarantine is in force in time all the same.
const NICER: i32 = 5;

/// A runtime with one thread, and others for what blocks. Its tasks end with it.
#[derive(Debug)]
pub(super) struct Aside {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Aside {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(NAME)
            .on_thread_start(give_way)
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // A runtime that is dropped inside another must not wait for its threads.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Makes the thread that calls it nicer: the kernel knows priorities by thread.
fn give_way() {
    let thread = Some(gettid());
    let nicer = getpriority_process(thread).and_then(|now| setpriority_process(thread, now.saturating_add(NICER)));
    if let Err(error) = nicer {
        tracing::debug!(%error, "a thread beside the calls is as important as they are");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_threads_have_their_name_and_give_way() {
        let own = getpriority_process(None).unwrap();
        let aside = Aside::start().unwrap();
        let seen = || {
            let name = std::thread::current().name().map(str::to_owned);
            (name, getpriority_process(Some(gettid())).unwrap())
        };
        let expected = (Some(NAME.to_owned()), (own + NICER).min(19));
        assert_eq!(aside.handle().spawn(async move { seen() }).await.unwrap(), expected);
        assert_eq!(aside.handle().spawn_blocking(seen).await.unwrap(), expected);
        assert_eq!(getpriority_process(None).unwrap(), own, "nobody else does");
    }
}
