//! The thread that prunes. It reads whole segments, which the one that syncs must not wait for.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use spiffe::time::Timestamp;

use super::aside;
use super::prune::{self, Newest, Past, Plan};
use super::retention::{Retention, Under};
use super::{Head, Shared, scan};
use crate::budget::{Class, Reserve};
use crate::kept;
use crate::key::SignerKey;
use crate::record::{EventRecord, Line};
use crate::segment::{self, Form, Reader, Segment};

/// How often it looks at the time. An injected clock can be far ahead at once.
const TICK: Duration = Duration::from_secs(1);

/// How often it looks at the segments, as the ledger's clock counts.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Segments that are pruned under one checkpoint.
const AT_ONCE: usize = 16;

/// The thread's state.
pub(super) struct Pruner {
    pub(super) shared: Arc<Shared>,
    pub(super) retention: Retention,
    /// The key under the name of the ledger, which is that of its first epoch.
    pub(super) key: SignerKey,
    /// How old the records of segments are, of those that were read for it and not pruned.
    pub(super) read: BTreeMap<u64, Newest>,
}

/// A segment of which something is past its time.
#[derive(Debug)]
pub(super) struct Due {
    segment: Segment,
    /// Index behind its last record.
    end: u64,
    past: Past,
}

/// Starts the thread.
pub(super) fn start(pruner: Pruner) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("ledger-prune".to_owned())
        .spawn(move || pruner.run())
}

impl Pruner {
    fn run(mut self) {
        let mut next = Timestamp::MIN;
        while !self.stopped(TICK) {
            let now = self.shared.clock.now();
            if now < next && next.duration_since(now) <= LOOK_EVERY {
                continue;
            }
            let looked = self.look(now);
            let mut writer = self.shared.writer();
            next = match looked {
                // There may be more.
                Ok(pruned) if pruned >= AT_ONCE => now,
                Ok(_) | Err(_) => now + LOOK_EVERY,
            };
            writer.stats.looks = writer.stats.looks.saturating_add(1);
            writer.stats.prune_trouble = looked.err().map(|error| error.to_string());
        }
    }

    /// Waits, and says whether the ledger was shut down.
    fn stopped(&self, wait: Duration) -> bool {
        let writer = self.shared.writer();
        let waited = self
            .shared
            .stopping
            .wait_timeout_while(writer, wait, |writer| !writer.stop);
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// Prunes what is past its time, at most [`AT_ONCE`] segments. Returns how many they were.
    pub(super) fn look(&mut self, now: Timestamp) -> io::Result<usize> {
        self.shared.writer().age(now);
        let dir = self.shared.dir.clone();
        let mut segments = listed(&dir)?;
        // A hold ends some day, and what is past its time must not wait then for what came later.
        if self.is_past_and_open(segments.last(), now) {
            self.shared.writer().begin_segment().map_err(io::Error::other)?;
            segments = listed(&dir)?;
        }
        if self.shared.is_held(now) {
            return Ok(0);
        }
        self.clear_aside(&dir, now)?;
        let due = self.due(&dir, &segments, now)?;
        let mut plans = Vec::new();
        for due in &due {
            plans.push(plan(&dir, due)?);
        }
        let Some(recorded) = self.record(&plans, now)? else {
            return Ok(0);
        };
        if !self.sealed(recorded) {
            return Ok(0);
        }
        self.carry_out(&plans, now)
    }

    /// Removes what was put aside and is past its time. It is in no segment, so nothing that is kept has a proof by it.
    pub(super) fn clear_aside(&self, dir: &Path, now: Timestamp) -> io::Result<()> {
        for aside in aside::past(dir, self.retention.calls, now)? {
            let held = self.shared.held();
            if held.as_ref().is_some_and(|hold| hold.holds(now)) {
                return Ok(());
            }
            if self.write(&aside.event(now))?.is_none() {
                return Ok(());
            }
            aside.remove()?;
            drop(held);
        }
        Ok(())
    }

    /// Does what is recorded. Returns how many segments that were: none as soon as the ledger is held.
    pub(super) fn carry_out(&mut self, plans: &[Plan], now: Timestamp) -> io::Result<usize> {
        let dir = self.shared.dir.clone();
        for plan in plans {
            // Held from here to the end, so that a hold that was recorded is kept to.
            let held = self.shared.held();
            if held.as_ref().is_some_and(|hold| hold.holds(now)) {
                return Ok(0);
            }
            plan.carry_out(&dir)?;
            drop(held);
            self.read.remove(&plan.segment.first);
            let mut writer = self.shared.writer();
            writer.budget.free(plan.freed);
            writer.stats.pruned = writer.stats.pruned.saturating_add(plan.pruned);
        }
        Ok(plans.len())
    }

    /// Says whether the open segment is so old that its calls may be past their time. It is closed then, which it is
    /// otherwise with the next record.
    fn is_past_and_open(&self, last: Option<&Segment>, now: Timestamp) -> bool {
        let writer = self.shared.writer();
        let old = writer
            .opened
            .is_some_and(|opened| now.duration_since(opened) >= self.retention.calls);
        old && last.is_some_and(|last| writer.size > last.first.saturating_add(1))
    }

    /// The segments of which something is past its time, oldest first.
    pub(super) fn due(&mut self, dir: &Path, segments: &[Segment], now: Timestamp) -> io::Result<Vec<Due>> {
        let covered = self.covered(dir)?;
        let mut due = Vec::new();
        // The last is the open one. Where nothing is in it yet, the one before it tells what the budget stands at.
        let open = self.open_segments(segments)?;
        for pair in segments.windows(2).take(segments.len().saturating_sub(open)) {
            let [segment, next] = pair else { break };
            if due.len() >= AT_ONCE || next.first > covered {
                break;
            }
            let Some(newest) = self.newest(segment, now)? else {
                continue;
            };
            if let Some(past) = newest.past(&self.retention, now) {
                due.push(Due {
                    segment: segment.clone(),
                    end: next.first,
                    past,
                });
            }
        }
        Ok(due)
    }

    fn open_segments(&self, segments: &[Segment]) -> io::Result<usize> {
        let Some(last) = segments.last() else { return Ok(0) };
        Ok(match scan::begun(last).map_err(io::Error::other)? {
            Some(_begun) => 1,
            None => 2,
        })
    }

    /// How old the records of a segment are; nothing while not even its first can be past its time, which is known without
    /// reading the others. Each is read once.
    fn newest(&mut self, segment: &Segment, now: Timestamp) -> io::Result<Option<Newest>> {
        if segment.form == Form::Kept {
            let reader = Reader::open(segment)?;
            let event = reader.head().and_then(|head| head.newest);
            return Ok(Some(Newest { call: None, event }));
        }
        if let Some(newest) = self.read.get(&segment.first) {
            return Ok(Some(*newest));
        }
        let begun = scan::begun(segment).map_err(io::Error::other)?;
        // A segment that was closed begins with that record.
        let begun = begun.ok_or_else(prune::damaged)?;
        if begun + self.retention.calls > now {
            return Ok(None);
        }
        let newest = prune::newest(segment)?;
        self.read.insert(segment.first, newest);
        Ok(Some(newest))
    }

    /// How many records may be pruned at all.
    fn covered(&self, dir: &Path) -> io::Result<u64> {
        let sealed = self.shared.writer().stats.sealed;
        match self.retention.under {
            Under::Checkpoint => Ok(sealed),
            Under::Cosigned => {
                let own = Head::read(dir).map_err(io::Error::other)?;
                // A head of an epoch before may be of another past.
                let is_of_this = |kept: &kept::Kept| kept.checkpoint.origin == own.checkpoint().origin;
                let head = kept::kept_cosigned(dir).filter(is_of_this);
                Ok(head.map_or(0, |head| head.checkpoint.size.min(sealed)))
            }
        }
    }

    /// Records what is about to be pruned. Returns how many records must be sealed for that to be.
    pub(super) fn record(&self, plans: &[Plan], now: Timestamp) -> io::Result<Option<u64>> {
        let mut last = None;
        for plan in plans {
            let event = plan.event(now, &self.retention, &self.key)?;
            let Some(index) = self.write(&event)? else {
                return Ok(None);
            };
            last = Some(index.saturating_add(1));
        }
        Ok(last)
    }

    /// Writes a record, also where the ledger is full: this is what makes room. Returns its index; none when it is closed.
    fn write(&self, event: &EventRecord) -> io::Result<Option<u64>> {
        let line = Line::event(event).map_err(io::Error::other)?;
        let hash = line.hash();
        let mut writer = self.shared.writer();
        if writer.closed {
            return Ok(None);
        }
        let written = writer.append(&line, hash, Class::Calls, Reserve::Exceed);
        let index = written.map_err(io::Error::other)?;
        self.shared.wake_if_idle(&mut writer);
        Ok(Some(index))
    }

    /// Waits until a checkpoint covers so many records; says whether one does.
    pub(super) fn sealed(&self, records: u64) -> bool {
        let mut writer = self.shared.writer();
        writer.seal_wanted = true;
        self.shared.wake_if_idle(&mut writer);
        let waited = self
            .shared
            .stopping
            .wait_while(writer, |writer| !writer.stop && writer.stats.sealed < records);
        let writer = waited.unwrap_or_else(PoisonError::into_inner);
        writer.stats.sealed >= records && !writer.stop
    }
}

fn listed(dir: &Path) -> io::Result<Vec<Segment>> {
    segment::list(dir).map_err(io::Error::other)
}

/// Drafts what is to be kept of a segment.
pub(super) fn plan(dir: &Path, due: &Due) -> io::Result<Plan> {
    let head = Head::read(dir).map_err(io::Error::other)?;
    prune::plan(dir, &due.segment, due.end, due.past, |index| {
        head.leaf(index).map_err(io::Error::other)
    })
}
