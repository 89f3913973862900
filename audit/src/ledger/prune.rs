//! Pruning one segment: what goes, what stays, and the steps in which it is done.
//!
//! 1. What stays is drafted and brought to the disk.
//! 2. The record of it (`kind=pruned`) is written, with the draft's hash under the ledger's signature, and sealed.
//! 3. The draft takes its place, and the whole segment is deleted.
//!
//! Whatever step a crash comes after, all that is to be kept is there: in the segment until step 3, in what is kept of it
//! from then on. What was begun is forgotten at the next start ([`clear`]) and done anew, on the ledger's own judgement:
//! nothing is ever deleted because a file says so.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use spiffe::time::Timestamp;

use super::retention::{Dated, Retention, Sort};
use super::{disk, scan};
use crate::budget::{Budget, Class};
use crate::hash::Hash;
use crate::key::SignerKey;
use crate::pruned::{Pruned, SIGNED};
use crate::record::{EventKind, EventRecord};
use crate::segment::{self, Form, KeptHead, Read, Reader, Segment, line_of};

/// The folder of what others keep of segments to find their records by, below the ledger's.
const INDEX: &str = "index";

/// The newest records of a segment, by how long they are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) call: Option<Timestamp>,
    pub(super) event: Option<Timestamp>,
}

impl Newest {
    /// Says what is past its time: all calls of a segment, then all events, and nothing before all of a sort are.
    pub(super) fn past(&self, retention: &Retention, now: Timestamp) -> Option<Past> {
        let is_past = |newest: Option<Timestamp>, keep| newest.is_none_or(|newest| newest + keep <= now);
        if !is_past(self.call, retention.calls) {
            return None;
        }
        match self.event {
            Some(_) if is_past(self.event, retention.events) => Some(Past::All),
            // The segment's own first record is no reason to write it anew.
            _ => self.call.map(|_past| Past::Calls),
        }
    }
}

/// What of a segment is past its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    Calls,
    All,
}

/// A segment that is to be pruned, and what was drafted of it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) segment: Segment,
    /// Index behind its last record.
    pub(super) end: u64,
    past: Past,
    draft: PathBuf,
    /// What the budget gets back by it.
    pub(super) freed: [u64; 3],
    pub(super) pruned: u64,
    kept: u64,
    counts: BTreeMap<String, u64>,
    until: Timestamp,
    leaf: Hash,
    hash: Hash,
}

/// What one pass over a segment found.
#[derive(Debug)]
pub(super) struct Seen {
    newest: Newest,
    began: Option<Timestamp>,
    end: u64,
}

/// Looks how old the records of a segment are.
pub(super) fn newest(segment: &Segment) -> io::Result<Newest> {
    look(segment).map(|seen| seen.newest)
}

fn look(segment: &Segment) -> io::Result<Seen> {
    let mut reader = Reader::open(segment)?;
    let mut seen = Seen {
        newest: Newest::default(),
        began: reader.head().map(|head| head.began),
        end: segment.first,
    };
    each(&mut reader, |_index, line| {
        let dated = dated(line)?;
        let newest = match dated.sort() {
            Sort::Call => &mut seen.newest.call,
            Sort::Event => &mut seen.newest.event,
            Sort::Segment => {
                seen.began = seen.began.or(Some(dated.time));
                return Ok(());
            }
            Sort::Lasting => return Ok(()),
        };
        *newest = (*newest).max(Some(dated.time));
        Ok(())
    })?;
    seen.end = reader.next();
    Ok(seen)
}

/// Shows each record to `visit`. Anything else in a segment that was closed is damage, which pruning leaves to be found.
fn each(reader: &mut Reader, mut visit: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        match reader.read(&mut line)? {
            Read::Record { index, .. } => visit(index, &line)?,
            Read::End => return Ok(()),
            Read::Torn | Read::TooLong | Read::NotKept => return Err(damaged()),
        }
    }
}

fn dated(line: &[u8]) -> io::Result<Dated<'_>> {
    serde_json::from_slice(line).map_err(|_no_record| damaged())
}

/// What is done to a segment that was closed and is not as it was: nothing.
pub(super) fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it is damaged: `botmesh audit verify` says more",
    )
}

/// Drafts what is to be kept of a segment, and brings that to the disk. `leaf` gives the hash of a record.
pub(super) fn plan(
    dir: &Path,
    segment: &Segment,
    end: u64,
    past: Past,
    leaf: impl Fn(u64) -> io::Result<Hash>,
) -> io::Result<Plan> {
    let seen = look(segment)?;
    if seen.end != end {
        return Err(damaged());
    }
    let mut reader = Reader::open(segment)?;
    let mut plan = Plan {
        segment: segment.clone(),
        end: seen.end,
        past,
        draft: dir.join(format!("prune-{}.tmp", segment.first)),
        freed: [0; 3],
        pruned: 0,
        kept: 0,
        counts: BTreeMap::new(),
        until: Timestamp::MIN,
        leaf: leaf(segment.first)?,
        hash: Hash::of_empty_tree(),
    };
    // The head stands before the lines and holds what they add up to, so they are read twice.
    each(&mut reader, |_index, line| plan.count(line))?;
    let before = reader.head().map_or([0; 3], |head| head.freed);
    let mut freed = before;
    freed
        .iter_mut()
        .zip(plan.freed)
        .for_each(|(freed, more)| *freed = freed.saturating_add(more));
    let head = KeptHead {
        first: segment.first,
        end: plan.end,
        began: seen.began.unwrap_or(Timestamp::MIN),
        newest: seen.newest.event.filter(|_| past == Past::Calls),
        freed,
    };
    plan.draft(&head)?;
    Ok(plan)
}

impl Plan {
    fn goes(&self, sort: Sort) -> bool {
        match sort {
            Sort::Call | Sort::Segment => true,
            Sort::Event => self.past == Past::All,
            Sort::Lasting => false,
        }
    }

    fn count(&mut self, line: &[u8]) -> io::Result<()> {
        let dated = dated(line)?;
        if !self.goes(dated.sort()) {
            self.kept = self.kept.saturating_add(1);
            return Ok(());
        }
        self.pruned = self.pruned.saturating_add(1);
        self.until = self.until.max(dated.time);
        let count = self.counts.entry(dated.kind.into_owned()).or_default();
        *count = count.saturating_add(1);
        let (class, _cost) = scan::paid_for(line).ok_or_else(damaged)?;
        let place = match class {
            Class::Calls => 0,
            Class::Refusals => 1,
            Class::Strangers => 2,
        };
        if let Some(freed) = self.freed.get_mut(place) {
            *freed = freed.saturating_add(Budget::freed_by(line.len()));
        }
        Ok(())
    }

    fn draft(&mut self, head: &KeptHead) -> io::Result<()> {
        let mut reader = Reader::open(&self.segment)?;
        let mut file = BufWriter::new(disk::create_anew(&self.draft)?);
        serde_json::to_writer(&mut file, head)?;
        file.write_all(b"\n")?;
        each(&mut reader, |index, line| {
            if self.goes(dated(line)?.sort()) {
                return Ok(());
            }
            file.write_all(&line_of(index, line))
        })?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
        self.hash = segment::hash_of(File::open(&self.draft)?)?;
        Ok(())
    }

    /// The record of it.
    pub(super) fn event(&self, now: Timestamp, retention: &Retention, key: &SignerKey) -> io::Result<EventRecord> {
        let pruned = Pruned {
            first: self.segment.first,
            end: self.end,
            leaf: self.leaf,
            kept: self.hash,
            until: self.until,
        };
        let signed = pruned.sign(key).map_err(io::Error::other)?;
        let last = self.end.saturating_sub(1);
        let (sort, keep) = match self.past {
            Past::Calls => ("calls", retention.calls),
            Past::All => ("events", retention.events),
        };
        let counts = self
            .counts
            .iter()
            .map(|(kind, count)| (kind.clone(), Value::from(*count)));
        let detail: [(String, Value); 8] = [
            ("first".to_owned(), self.segment.first.into()),
            ("last".to_owned(), last.into()),
            ("pruned".to_owned(), self.pruned.into()),
            ("kept".to_owned(), self.kept.into()),
            ("counts".to_owned(), Value::Object(counts.collect())),
            ("until".to_owned(), self.until.to_string().into()),
            (
                "why".to_owned(),
                format!("{sort} are kept for {} h", keep.as_secs() / 3600).into(),
            ),
            (SIGNED.to_owned(), signed.into()),
        ];
        Ok(EventRecord {
            kind: EventKind::Pruned,
            time: now,
            actor: "ledger".to_owned(),
            subject: format!("records {} to {last}", self.segment.first),
            detail: detail.into(),
        })
    }

    /// Puts what is kept in the place of the segment. The record of it must be sealed.
    pub(super) fn carry_out(&self, dir: &Path) -> io::Result<()> {
        // Both before and after, for somebody may be making one.
        remove_index(dir, self.segment.first)?;
        let kept = segment::kept_path(dir, self.segment.first);
        let folder = dir.join(segment::SEGMENTS);
        fs::rename(&self.draft, &kept)?;
        disk::sync_folder(&folder)?;
        if self.segment.form == Form::Whole {
            fs::remove_file(&self.segment.path)?;
            disk::sync_folder(&folder)?;
        }
        remove_index(dir, self.segment.first)
    }
}

/// Removes what others keep of a segment to find its records by: it would find what is not there any more.
fn remove_index(dir: &Path, first: u64) -> io::Result<()> {
    let entries = match fs::read_dir(dir.join(INDEX)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let prefix = format!("{first:020}.");
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Forgets what a crash interrupted: drafts, and what was to be kept of a segment that is still whole.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("prune-") && name.ends_with(".tmp") {
            fs::remove_file(entry.path())?;
        }
    }
    // A stray file among them is found by whoever lists them next.
    let Ok(all) = segment::list_all(dir) else { return Ok(()) };
    let doubled = all.windows(2).filter_map(|pair| match pair {
        [whole, kept] if whole.first == kept.first => Some(kept),
        _ => None,
    });
    for kept in doubled {
        fs::remove_file(&kept.path)?;
    }
    Ok(())
}

/// What the budget got back by all that was pruned, and how many records that were.
pub(super) fn freed(segments: &[Segment]) -> io::Result<[u64; 3]> {
    let mut sum: [u64; 3] = [0; 3];
    for segment in segments.iter().filter(|segment| segment.form == Form::Kept) {
        let reader = Reader::open(segment)?;
        let freed = reader.head().map_or([0; 3], |head| head.freed);
        sum.iter_mut()
            .zip(freed)
            .for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::retention::Under;

    #[test]
    fn a_segment_loses_its_calls_when_all_are_past_their_time_and_then_its_events() {
        let retention = Retention {
            calls: Duration::from_hours(90),
            events: Duration::from_hours(400),
            under: Under::Checkpoint,
        };
        let at = |hours: u64| Timestamp::from_unix_millis(0) + Duration::from_hours(hours);
        for (call, event, now, past) in [
            (Some(5), None, 94, None),
            (Some(5), None, 95, Some(Past::Calls)),
            (Some(5), Some(1), 94, None),
            (Some(5), Some(1), 95, Some(Past::Calls)),
            (Some(5), Some(1), 400, Some(Past::Calls)),
            (Some(5), Some(1), 401, Some(Past::All)),
            // An event does not go before the calls of its segment.
            (Some(400), Some(1), 489, None),
            (None, Some(1), 400, None),
            (None, Some(1), 401, Some(Past::All)),
            (None, None, 999, None),
        ] {
            let newest = Newest {
                call: call.map(at),
                event: event.map(at),
            };
            assert_eq!(newest.past(&retention, at(now)), past, "{newest:?} at {now} h");
        }
    }
}
