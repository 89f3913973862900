//! The proxy's side: asks the helper, over a bounded number of channels.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::super::error::{KernelError, Why};
use super::super::kernel::lock;
use super::super::scan::{Among, Holder};
use super::super::sight::{Candidates, Glance, Look, Programs};
use super::frame;
use super::wire::{Answer, Question, holder};

/// How many questions that are answered at once may be under way.
pub const FAST_MAX: usize = 16;
/// How many scans and hashes may be under way.
pub const SLOW_MAX: usize = 8;
/// How long a look at a process may take, on a machine that is busy with other things.
const FAST_WAIT: Duration = Duration::from_secs(2);
/// How long a scan of the whole host or the hash of a large program may take.
const SLOW_WAIT: Duration = Duration::from_secs(30);

/// The attest helper, as the proxy knows it. Cheap to clone. When the last clone is gone, so is the helper.
#[derive(Clone, Debug)]
pub struct Helper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    control: Mutex<UnixStream>,
    /// The helper's process; none where a test plays it. It is this process's child for as long as this one lives.
    _process: Option<Child>,
    fast: Pool,
    slow: Pool,
}

impl Helper {
    /// Speaks with a helper at the other end of `control`.
    pub(super) fn new(control: UnixStream, process: Option<Child>) -> io::Result<Self> {
        control.set_write_timeout(Some(FAST_WAIT))?;
        Ok(Self(Arc::new(Inner {
            control: Mutex::new(control),
            _process: process,
            fast: Pool::new(FAST_MAX, FAST_WAIT),
            slow: Pool::new(SLOW_MAX, SLOW_WAIT),
        })))
    }

    /// Waits until the helper has ended, or cannot be watched: the proxy must then end too.
    pub async fn gone(&self) {
        // A channel on which nothing is asked ends when the helper does.
        let watched = self.channel(FAST_WAIT).and_then(|channel| {
            channel.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(channel)
        });
        match watched {
            Ok(watched) => drop(watched.readable().await),
            Err(error) => tracing::error!(%error, "the attest helper cannot be watched"),
        }
    }

    pub(in super::super) fn glance(&self, look: Look) -> Result<Glance, Why> {
        match self.ask(&Question::Glance(look))? {
            (Answer::Glance(glimpse), Some(map)) => Ok(Glance { map, glimpse }),
            other => Err(not_that(other.0)),
        }
    }

    pub(in super::super) fn programs(&self, candidates: Candidates) -> Result<Programs, Why> {
        match self.ask(&Question::Programs(candidates))? {
            (Answer::Programs(programs), None) => Ok(programs),
            other => Err(not_that(other.0)),
        }
    }

    pub(in super::super) fn digest(&self, pid: u32, read: bool) -> Result<Option<String>, Why> {
        match self.ask(&Question::Digest { pid, read })? {
            (Answer::Digest(digest), None) => Ok(digest),
            other => Err(not_that(other.0)),
        }
    }

    pub(in super::super) fn holders(
        &self,
        among: &Among,
        inodes: &BTreeSet<u64>,
        sweep: bool,
    ) -> Result<Vec<Holder>, Why> {
        let question = Question::Holders {
            among: among.clone(),
            inodes: inodes.iter().copied().collect(),
            sweep,
        };
        match self.ask(&question)? {
            (Answer::Holders(found), None) => Ok(found.into_iter().map(holder).collect()),
            other => Err(not_that(other.0)),
        }
    }

    pub(in super::super) fn holds(&self, pid: u32, fd: u32, inode: u64) -> Result<bool, Why> {
        match self.ask(&Question::Holds { pid, fd, inode })? {
            (Answer::Holds(holds), None) => Ok(holds),
            other => Err(not_that(other.0)),
        }
    }

    /// Asks, and waits for the answer on this thread: a look at a process takes some ten microseconds.
    fn ask(&self, question: &Question) -> Result<(Answer, Option<OwnedFd>), Why> {
        let pool = if question.is_slow() { &self.0.slow } else { &self.0.fast };
        let failed = |error: io::Error| Why::Kernel(KernelError::new("ask", "the attest helper", error));
        let channel = pool.take(|| self.channel(pool.wait)).map_err(failed)?;
        let answered = exchange(&channel, question);
        // After a failure a late answer could be taken for that to another question.
        pool.give(answered.is_ok().then_some(channel));
        answered.map_err(failed)
    }

    /// Opens a channel.
    fn channel(&self, wait: Duration) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(wait))?;
        ours.set_write_timeout(Some(wait))?;
        frame::send(&lock(&self.0.control), b"channel", Some(theirs.as_fd()))?;
        Ok(ours)
    }
}

fn exchange(channel: &UnixStream, question: &Question) -> io::Result<(Answer, Option<OwnedFd>)> {
    let body = serde_json::to_vec(question)?;
    frame::send(channel, &body, None)?;
    let (body, fd) = frame::receive(channel)?.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((serde_json::from_slice(&body)?, fd))
}

/// A refusal, or an answer to something else.
fn not_that(answer: Answer) -> Why {
    if let Answer::Refused(refused) = answer {
        return refused.into();
    }
    let odd = io::Error::new(io::ErrorKind::InvalidData, "it answered another question");
    Why::Kernel(KernelError::new("ask", "the attest helper", odd))
}

/// Channels of one kind: those that are idle, and how many there are in all.
#[derive(Debug)]
struct Pool {
    state: Mutex<(Vec<UnixStream>, usize)>,
    freed: Condvar,
    most: usize,
    wait: Duration,
}

impl Pool {
    fn new(most: usize, wait: Duration) -> Self {
        Self {
            state: Mutex::default(),
            freed: Condvar::new(),
            most,
            wait,
        }
    }

    /// Takes an idle channel, opens one where there may be one more, or waits for one.
    fn take(&self, open: impl FnOnce() -> io::Result<UnixStream>) -> io::Result<UnixStream> {
        let full = |state: &mut (Vec<UnixStream>, usize)| state.0.is_empty() && state.1 >= self.most;
        let waited = self.freed.wait_timeout_while(lock(&self.state), self.wait, full);
        let (mut state, _elapsed) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = state.0.pop() {
            return Ok(channel);
        }
        if state.1 >= self.most {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "too much is asked of it"));
        }
        state.1 += 1;
        drop(state);
        open().inspect_err(|_| self.give(None))
    }

    /// Gives a channel back, or says that it is gone.
    fn give(&self, channel: Option<UnixStream>) {
        let mut state = lock(&self.state);
        match channel {
            Some(channel) => state.0.push(channel),
            None => state.1 = state.1.saturating_sub(1),
        }
        drop(state);
        self.freed.notify_one();
    }
}
