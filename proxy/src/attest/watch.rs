//! Watches, beside the calls, that no other bot holds a caller's TCP socket.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::caller::{Hold, Lost};
use super::error::Why;
use super::kernel::{Kernel, lock};
use super::{Attestor, blocking};

/// A sweep takes at most this part of the time, so that on a host with very many processes the watch gets slower and
/// not the host.
const REST_PER_WORK: u32 = 19;
/// Attested connections that ended are forgotten when the list has grown by this many.
const FORGET_EVERY: usize = 256;

/// The TCP connections that are attested and live.
#[derive(Debug, Default)]
pub(super) struct Live {
    holds: Mutex<(Vec<Weak<Hold>>, usize)>,
    news: Notify,
}

impl Live {
    pub(super) fn add(&self, hold: &Arc<Hold>) {
        let mut holds = lock(&self.holds);
        let (list, forget_at) = &mut *holds;
        list.push(Arc::downgrade(hold));
        if list.len() >= *forget_at {
            list.retain(|hold| hold.strong_count() > 0);
            *forget_at = list.len().saturating_mul(2).max(FORGET_EVERY);
        }
        drop(holds);
        self.news.notify_one();
    }

    fn all(&self) -> Vec<Arc<Hold>> {
        let mut holds = lock(&self.holds);
        holds.0.retain(|hold| hold.strong_count() > 0);
        holds.0.iter().filter_map(Weak::upgrade).collect()
    }

    async fn wait(&self) -> Vec<Arc<Hold>> {
        loop {
            let all = self.all();
            if !all.is_empty() {
                return all;
            }
            self.news.notified().await;
        }
    }
}

impl Attestor {
    /// Sweeps through all processes of the host once per interval, as long as there are attested TCP connections, and
    /// marks those that a process of another bot, or of none, holds too: their next [`super::Caller::recheck`] refuses.
    ///
    /// One sweep serves all connections. After a quiet time the first connection is looked after at once. Run by the
    /// proxy as one of its tasks, until `cancel`; without it a TCP socket that its bot passes on purpose to another
    /// user's process is never noticed.
    pub async fn watch(&self, cancel: CancellationToken) {
        let ended = cancel.run_until_cancelled(async {
            loop {
                let holds = self.0.live.wait().await;
                let started = Instant::now();
                let kernel = Arc::clone(&self.0.kernel);
                if let Err(why) = blocking(move || sweep(&kernel, &holds)).await {
                    tracing::error!(error = %why, "a sweep for passed sockets ended early");
                }
                sleep(self.0.watch_every.max(started.elapsed().saturating_mul(REST_PER_WORK))).await;
            }
        });
        let _cancelled: Option<()> = ended.await;
    }
}

fn sweep(kernel: &Kernel, holds: &[Arc<Hold>]) {
    let inodes: BTreeSet<u64> = holds.iter().filter_map(|hold| hold.inode).collect();
    match kernel.sweep(&inodes) {
        Ok(mut found) => {
            found.sort_unstable();
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

/// How often the watch sweeps by default.
pub(super) const WATCH_EVERY: Duration = Duration::from_secs(1);
