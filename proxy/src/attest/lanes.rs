//! Sees to it that one user's connections cause one scan at a time, however many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::{Mutex as Turn, oneshot};

use super::error::Why;
use super::kernel::{Kernel, lock};
use super::scan::{Among, Holder};

/// How many lanes there are. Users who share one wait for each other.
const LANES: usize = 64;
/// How many connections may wait in one lane.
const WAITING_MAX: usize = 4096;

/// A question: who holds this socket?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) uid: u32,
    pub(super) cgroup: Option<u64>,
    pub(super) inode: u64,
}

type Answer = Result<Vec<Holder>, Arc<Why>>;
type Asked<T> = Vec<(T, oneshot::Sender<Answer>)>;

#[derive(Debug, Default)]
struct Lane {
    waiting: Mutex<Asked<Question>>,
    turn: Turn<()>,
}

/// The lanes. Whoever gets its turn answers all that wait by one scan, which begins after each of them was asked.
#[derive(Debug)]
pub(super) struct Lanes(Vec<Lane>);

impl Lanes {
    pub(super) fn new() -> Self {
        Self((0..LANES).map(|_| Lane::default()).collect())
    }

    /// Finds the holders of one socket.
    ///
    /// Dropping the future is safe: a scan under way goes on for the others, and who waits for nothing is skipped.
    pub(super) async fn ask(&self, kernel: &Arc<Kernel>, question: Question) -> Answer {
        let refused = |bound| Err(Arc::new(Why::ScanBound(bound)));
        let lane = usize::try_from(question.uid)
            .ok()
            .and_then(|uid| self.0.get(uid % LANES));
        let Some(lane) = lane else { return refused("lanes") };
        let (sender, mut answer) = oneshot::channel();
        {
            let mut waiting = lock(&lane.waiting);
            waiting.retain(|(_, sender)| !sender.is_closed());
            if waiting.len() >= WAITING_MAX {
                return refused("waiting_max");
            }
            waiting.push((question, sender));
        }
        let turn = lane.turn.lock().await;
        if let Ok(answered) = answer.try_recv() {
            return answered;
        }
        let asked = std::mem::take(&mut *lock(&lane.waiting));
        if !asked.is_empty() {
            let kernel = Arc::clone(kernel);
            // The answers come by their own channels, the own one too; a scan that panicked answers by closing them.
            let _ended = tokio::task::spawn_blocking(move || answer_all(&kernel, asked)).await;
        }
        drop(turn);
        answer.await.unwrap_or_else(|_closed| refused("scan"))
    }
}

fn answer_all(kernel: &Kernel, asked: Asked<Question>) {
    let mut groups: BTreeMap<(u32, Option<u64>), Asked<u64>> = BTreeMap::new();
    for (question, sender) in asked {
        groups
            .entry((question.uid, question.cgroup))
            .or_default()
            .push((question.inode, sender));
    }
    for ((uid, cgroup), asked) in groups {
        let inodes = asked.iter().map(|(inode, _)| *inode).collect();
        let found = scan(kernel, uid, cgroup, &inodes).map_err(Arc::new);
        for (inode, sender) in asked {
            let answer = match &found {
                Ok(found) => Ok(found.iter().filter(|holder| holder.inode == inode).copied().collect()),
                Err(why) => Err(Arc::clone(why)),
            };
            // Who has stopped waiting needs no answer.
            let _unheard = sender.send(answer);
        }
    }
}

/// Looks among the processes of the socket's cgroup, where that is known; for sockets that nobody there holds, among
/// all processes of the user.
fn scan(kernel: &Kernel, uid: u32, cgroup: Option<u64>, inodes: &BTreeSet<u64>) -> Result<Vec<Holder>, Why> {
    let mut found = Vec::new();
    if let Some(pids) = cgroup.and_then(|id| kernel.cgroups.processes(id)) {
        found = kernel.holders(&Among::Listed(pids, uid), inodes)?;
    }
    let held: BTreeSet<u64> = found.iter().map(|holder| holder.inode).collect();
    let rest: BTreeSet<u64> = inodes.difference(&held).copied().collect();
    if !rest.is_empty() {
        found.extend(kernel.holders(&Among::User(uid), &rest)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
