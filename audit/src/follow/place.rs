//! Where in which folder the reading of a ledger stands.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::FollowError;
use crate::hash::Hash;
use crate::ledger::SET_ASIDE;
use crate::segment::{self, Form, Segment};
use crate::tail::{Entry, ReadError, Standing, Start, Tail, tail};

/// One folder, which is read from some record on.
#[derive(Debug)]
pub(super) struct Part {
    dir: PathBuf,
    tail: Tail,
    /// The epoch that the next record is of.
    pub(super) epoch: u32,
    /// The number after that of the record that was read last.
    wanted: u64,
    /// How many records are under a checkpoint; all where nothing is written any more.
    pub(super) sealed: Option<u64>,
}

impl Part {
    /// Begins with the first record that is there. `newest` is the latest epoch that it can be of.
    pub(super) fn first(dir: &Path, newest: u32, is_live: bool) -> Result<Self, FollowError> {
        let epoch = first_epoch(dir, newest)?;
        let tail = tail(dir, Start::First).map_err(|source| failed(dir, source))?;
        Ok(Self::behind(dir, tail, epoch, is_live, 0))
    }

    /// Goes on where `tail` is, which may be behind the record that is wanted next.
    pub(super) fn behind(dir: &Path, tail: Tail, epoch: u32, is_live: bool, wanted: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            tail,
            epoch,
            wanted,
            sealed: is_live.then_some(0),
        }
    }

    pub(super) fn next_index(&self) -> u64 {
        self.tail.next_index()
    }

    /// The number of the record that comes next if none is missing.
    pub(super) const fn next_wanted(&self) -> u64 {
        self.wanted
    }

    /// Reads the next record if it may be read.
    pub(super) fn read(&mut self) -> Result<Option<Entry>, FollowError> {
        if self.sealed.is_some_and(|sealed| self.next_index() >= sealed) {
            return Ok(None);
        }
        let entry = self
            .tail
            .next()
            .transpose()
            .map_err(|source| failed(&self.dir, source))?;
        if let Some(entry) = &entry {
            self.wanted = entry.index.saturating_add(1);
        }
        Ok(entry)
    }

    /// Says whether records were promised that have not been read.
    pub(super) fn is_starved(&self) -> bool {
        self.sealed.is_some_and(|sealed| self.next_index() < sealed)
    }

    /// Says whether the next record is there, whether it may be read or not.
    pub(super) fn has_more(&self) -> Result<bool, FollowError> {
        count_from(&self.dir, self.next_index()).map(|count| count > 0)
    }

    pub(super) fn standing(&mut self) -> Result<Standing, FollowError> {
        self.tail.standing().map_err(|source| failed(&self.dir, source))
    }

    pub(super) fn gone(&self, record: u64, first: u64) -> FollowError {
        FollowError::Gone {
            dir: self.dir.clone(),
            record,
            first,
        }
    }
}

/// What became of a record that was read before.
#[derive(Debug)]
pub(super) enum Found {
    /// It is there; this reads on behind it.
    Behind(Box<Tail>),
    /// The folder begins later.
    Gone {
        /// With this record.
        first: u64,
    },
    /// The folder ends before it.
    Short {
        /// After so many records.
        records: u64,
    },
    /// There is another one in its place.
    Differs,
}

/// Looks for a record by its number and the hash of its leaf.
pub(super) fn find(dir: &Path, record: u64, hash: &Hash) -> Result<Found, FollowError> {
    let mut tail = tail(dir, Start::Index(record)).map_err(|source| failed(dir, source))?;
    let next = tail.next_index();
    if next > record {
        return Ok(Found::Gone { first: next });
    }
    let entry = tail.next().transpose().map_err(|source| failed(dir, source))?;
    Ok(match entry {
        Some(entry) if Hash::leaf(&entry.line) == *hash => Found::Behind(Box::new(tail)),
        Some(_) => Found::Differs,
        None => Found::Short { records: next },
    })
}

/// Counts the whole records from one on.
pub(super) fn count_from(dir: &Path, index: u64) -> Result<u64, FollowError> {
    let mut tail = tail(dir, Start::Index(index)).map_err(|source| failed(dir, source))?;
    // What comes after a gap is not what comes next.
    if tail.next_index() != index {
        return Ok(0);
    }
    tail.poll(drop).map_err(|source| failed(dir, source))
}

/// The first record from which on nothing was pruned.
pub(super) fn whole_from(dir: &Path) -> Result<u64, FollowError> {
    let segments = segment::list(dir).map_err(|source| failed(dir, ReadError::List { source }))?;
    let is_kept = |segment: &Segment| segment.form == Form::Kept;
    let pruned = segments
        .iter()
        .rposition(is_kept)
        .map_or(0, |last| last.saturating_add(1));
    Ok(segments.get(pruned).map_or(0, |segment| segment.first))
}

/// The ledgers that were put aside, in the order in which they were: `1`, `1-2`, `2`.
pub(super) fn set_aside(dir: &Path) -> Result<Vec<PathBuf>, FollowError> {
    let all = dir.join(SET_ASIDE);
    let unreadable = |source| FollowError::Unreadable {
        path: all.clone(),
        source,
    };
    let entries = match std::fs::read_dir(&all) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (epoch, attempt) = name.split_once('-').unwrap_or((name, "1"));
        if let (Ok(epoch), Ok(attempt)) = (epoch.parse::<u32>(), attempt.parse::<u32>()) {
            found.push((epoch, attempt, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// The beginning of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Its number.
    pub(super) epoch: u32,
    /// The one before it.
    pub(super) ended: u32,
    /// The folder begins with it: what was there before was put aside.
    pub(super) anew: bool,
}

/// Reads the record with which an epoch begins; none if the line is another one.
pub(super) fn begun(line: &[u8]) -> Option<Begun> {
    #[derive(Deserialize)]
    struct Event {
        detail: Detail,
    }
    #[derive(Deserialize)]
    struct Detail {
        epoch: u32,
        ended: Option<u32>,
        set_aside: Option<IgnoredAny>,
    }
    if !line.starts_with(br#"{"kind":"epoch_begun","#) {
        return None;
    }
    let Detail {
        epoch,
        ended,
        set_aside,
    } = serde_json::from_slice::<Event>(line).ok()?.detail;
    Some(Begun {
        epoch,
        ended: ended.unwrap_or_else(|| epoch.saturating_sub(1).max(1)),
        anew: set_aside.is_some(),
    })
}

/// Finds the epoch that the first record of a folder is of, by the next epoch that begins in it.
fn first_epoch(dir: &Path, newest: u32) -> Result<u32, FollowError> {
    if newest == 1 {
        return Ok(1);
    }
    for entry in tail(dir, Start::First).map_err(|source| failed(dir, source))? {
        let entry = entry.map_err(|source| failed(dir, source))?;
        if let Some(begun) = begun(&entry.line) {
            return Ok(if begun.anew { begun.epoch } else { begun.ended });
        }
    }
    Ok(newest)
}

fn failed(dir: &Path, source: ReadError) -> FollowError {
    FollowError::Read {
        dir: dir.to_owned(),
        source,
    }
}
