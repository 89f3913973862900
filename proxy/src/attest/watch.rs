//! Watches, beside the calls, that no other bot holds a caller's TCP socket, and who is at the other end of the
//! connections to callees.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::callee::{CalleeHold, Round};
use super::caller::{Hold, Lost};
use super::error::Why;
use super::kernel::lock;
use super::{Attestor, blocking};

/// A sweep takes at most this part of the time, so that on a host with very many processes the watch gets slower and
/// not the host.
const REST_PER_WORK: u32 = 19;
/// Attested connections that ended are forgotten when the list has grown by this many.
const FORGET_EVERY: usize = 256;

/// The connections that are attested and live: of callers over TCP, and to callees.
#[derive(Debug, Default)]
pub(super) struct Live {
    callers: List<Hold>,
    callees: List<CalleeHold>,
    news: Notify,
}

/// What others hold, as long as they do.
#[derive(Debug)]
struct List<T>(Mutex<(Vec<Weak<T>>, usize)>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> List<T> {
    fn add(&self, hold: &Arc<T>) {
        let mut holds = lock(&self.0);
        let (list, forget_at) = &mut *holds;
        list.push(Arc::downgrade(hold));
        if list.len() >= *forget_at {
            list.retain(|hold| hold.strong_count() > 0);
            *forget_at = list.len().saturating_mul(2).max(FORGET_EVERY);
        }
    }

    fn all(&self) -> Vec<Arc<T>> {
        let mut holds = lock(&self.0);
        holds.0.retain(|hold| hold.strong_count() > 0);
        holds.0.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Live {
    pub(super) fn add(&self, hold: &Arc<Hold>) {
        self.callers.add(hold);
        self.news.notify_one();
    }

    pub(super) fn add_callee(&self, hold: &Arc<CalleeHold>) {
        self.callees.add(hold);
        self.news.notify_one();
    }

    async fn wait(&self) -> (Vec<Arc<Hold>>, Vec<Arc<CalleeHold>>) {
        loop {
            let (callers, callees) = (self.callers.all(), self.callees.all());
            if !callers.is_empty() || !callees.is_empty() {
                return (callers, callees);
            }
            self.news.notified().await;
        }
    }
}

impl Attestor {
    /// Sweeps through all processes of the host once per interval, as long as there are attested TCP connections, and
    /// marks those that a process of another bot, or of none, holds too: their next [`super::Caller::recheck`] refuses.
    /// Connections to callees whose other end is found to be the bot are good for another second: see
    /// [`super::Callee::is_fresh`].
    ///
    /// One sweep serves all connections. After a quiet time the first connection is looked after at once. Run by the
    /// proxy as one of its tasks, until `cancel`; without it a TCP socket that its bot passes on purpose to another
    /// user's process is never noticed.
    pub async fn watch(&self, cancel: CancellationToken) {
        let ended = cancel.run_until_cancelled(async {
            loop {
                let (callers, callees) = self.0.live.wait().await;
                let started = Instant::now();
                let attestor = self.clone();
                if let Err(why) = blocking(move || sweep(&attestor, &callers, &callees)).await {
                    tracing::error!(error = %why, "a sweep for passed sockets ended early");
                }
                sleep(self.0.watch_every.max(started.elapsed().saturating_mul(REST_PER_WORK))).await;
            }
        });
        let _cancelled: Option<()> = ended.await;
    }
}

fn sweep(attestor: &Attestor, holds: &[Arc<Hold>], callees: &[Arc<CalleeHold>]) {
    let (kernel, entries) = (&attestor.0.kernel, attestor.0.current.get());
    kernel.pins.forget_gone();
    let round = Round::begin(kernel, &attestor.0.callees, &entries, callees);
    let mut inodes: BTreeSet<u64> = holds.iter().filter_map(|hold| hold.inode).collect();
    inodes.extend(round.inodes());
    if inodes.is_empty() {
        return;
    }
    match kernel.sweep(&inodes) {
        Ok(mut found) => {
            found.sort_unstable();
            round.end(&found);
            for hold in holds {
                let from = found.partition_point(|holder| Some(holder.inode) < hold.inode);
                let to = found.partition_point(|holder| Some(holder.inode) <= hold.inode);
                hold.judge(found.get(from..to).unwrap_or_default());
            }
        }
        Err(why) => {
            tracing::error!(error = %why, "cannot look for passed sockets; ending the TCP connections of bots");
            let bound = if let Why::ScanBound(bound) = why {
                bound
            } else {
                "sweep"
            };
            for hold in holds {
                // What was found earlier stands.
                let _first = hold.lost.set(Lost::Unswept(bound));
            }
        }
    }
}

/// How often the watch sweeps by default: so often that what it found of a callee is looked at again before its second is
/// over.
pub(super) const WATCH_EVERY: Duration = Duration::from_millis(750);
