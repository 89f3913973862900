//! Records in order for somebody who hands them on and must lose none: each is under a checkpoint, has a name that no other
//! record has, and a place from which the reading goes on after a restart.
//!
//! Only what a checkpoint covers is read, because that alone is on the disk: a power cut can take back what was written after
//! it, and other records would get the same numbers. A ledger that was put aside is read to its end before the one that was
//! begun in its place.

mod place;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use self::place::{Found, Part};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::cursor::Cursor;
use crate::epoch;
use crate::hash::Hash;
use crate::key::{KeyError, KeyName, VerifierKey};
use crate::ledger::{CHECKPOINT, VKEY, read_file};
use crate::note::NOTE_BYTES_MAX;
use crate::tail::{Entry, ReadError, Standing};

/// A record under a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The epoch that it was written in.
    pub epoch: u32,
    /// Its number.
    pub index: u64,
    /// The hash of its leaf.
    pub hash: Hash,
    /// The bytes of its line, without the newline.
    pub line: Vec<u8>,
}

impl Sealed {
    /// Names the record: `acme.internal/host/web-1#1.17.9f86d081884c7d659a2feaa0c55ad015`, the ledger, the epoch, the number
    /// and half of the hash of its leaf. Two records of one name are one record: where a ledger was set back and other
    /// records got the numbers of those that were lost, they have other names.
    #[must_use]
    pub fn uid(&self, ledger: &KeyName) -> String {
        let hash = self.hash.to_hex();
        let half = hash.get(..Hash::BYTES).unwrap_or(&hash);
        format!("{ledger}#{}.{}.{half}", self.epoch, self.index)
    }
}

/// Why a ledger cannot be followed.
#[derive(Debug, Error)]
pub enum FollowError {
    /// A file of the ledger cannot be read.
    #[error("read {path}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The ledger's own key is none.
    #[error("{path} holds no verifier key")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: KeyError,
    },
    /// The newest checkpoint is none of the ledger's key.
    #[error("{path} is no checkpoint of the ledger's key")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: CheckpointError,
    },
    /// Records cannot be read.
    #[error("read the records in {dir}")]
    Read {
        /// The folder of the ledger, or of one that was put aside.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// The folder holds another ledger.
    #[error("this is the ledger {found}, and the place is one in {wanted}")]
    OtherLedger {
        /// Whose place it is.
        wanted: KeyName,
        /// What is here.
        found: KeyName,
    },
    /// Records that were not read are gone from the folder, and later ones are there.
    #[error("{dir} begins with record {first}, and record {record} is gone")]
    Gone {
        /// The folder.
        dir: PathBuf,
        /// The record that is wanted.
        record: u64,
        /// The first that is there.
        first: u64,
    },
    /// Records that were read already are not there.
    #[error("record {record} was read before, and the ledger has {records} records")]
    Short {
        /// The record that was read last.
        record: u64,
        /// How many there are.
        records: u64,
    },
    /// The record that was read last is another one now.
    #[error("record {record} is not the one that was read before")]
    Differs {
        /// Its number.
        record: u64,
    },
}

/// Reads a ledger as the module says. After an error it may be asked again: some of them pass, as while a ledger is put aside.
#[derive(Debug)]
pub struct Follow {
    dir: PathBuf,
    ledger: KeyName,
    part: Part,
    /// The folders after the one that is read; the last is `dir`.
    then: VecDeque<PathBuf>,
    last: Option<Last>,
    /// The epoch of the ledger when it was looked at.
    epoch: u32,
    /// The record that was there a moment ago and could not be read.
    starved: Option<u64>,
    /// The first record of the part that must not be missing.
    whole_from: u64,
    /// Records that are missing: the first of them, and the one behind them.
    gap: Option<(u64, u64)>,
}

/// The record that was read last.
#[derive(Clone, Copy, Debug)]
struct Last {
    epoch: u32,
    record: u64,
    hash: Hash,
}

impl Follow {
    /// Begins with the first record that is in the folder, or behind the record of a cursor.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or the cursor's record is not in the ledger.
    pub fn open(dir: &Path, after: Option<&Cursor>) -> Result<Self, FollowError> {
        let head = Head::read(dir)?;
        let last = after.map(|cursor| Last {
            epoch: cursor.epoch,
            record: cursor.record,
            hash: cursor.hash,
        });
        if let Some(cursor) = after
            && cursor.ledger != head.ledger
        {
            return Err(FollowError::OtherLedger {
                wanted: cursor.ledger.clone(),
                found: head.ledger,
            });
        }
        let whole_from = after.map_or_else(|| place::whole_from(dir), |cursor| Ok(cursor.whole_from))?;
        let (part, then) = located(dir, head.epoch, last)?;
        Ok(Self {
            dir: dir.to_owned(),
            ledger: head.ledger,
            part,
            then,
            last,
            epoch: head.epoch,
            starved: None,
            whole_from,
            gap: None,
        })
    }

    /// The ledger's name, whatever its epoch.
    #[must_use]
    pub const fn ledger(&self) -> &KeyName {
        &self.ledger
    }

    /// The place behind the record that was read last; none if none was.
    #[must_use]
    pub fn cursor(&self, filter: &str) -> Option<Cursor> {
        self.last.map(|last| Cursor {
            ledger: self.ledger.clone(),
            epoch: last.epoch,
            record: last.record,
            hash: last.hash,
            whole_from: self.whole_from,
            filter: filter.to_owned(),
        })
    }

    /// Reads the next record; `None` where no further one is under a checkpoint yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is gone.
    pub fn read(&mut self) -> Result<Option<Sealed>, FollowError> {
        loop {
            if let Some((record, first)) = self.gap {
                return Err(self.part.gone(record, first));
            }
            let next = self.part.next_wanted();
            if let Some(entry) = self.part.read()? {
                // What was pruned is passed over, and that may be what nobody has read yet.
                let missing = next.max(self.whole_from);
                if entry.index > missing {
                    self.gap = Some((missing, entry.index));
                    continue;
                }
                return Ok(Some(self.take(entry)));
            }
            let goes_on = if self.then.is_empty() {
                self.look()?
            } else {
                self.go_on()?
            };
            if !goes_on {
                return Ok(None);
            }
        }
    }

    /// Counts the whole records after the last one that is under a checkpoint.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn unsealed(&self) -> Result<u64, FollowError> {
        place::count_from(&self.dir, self.part.next_index())
    }

    fn take(&mut self, Entry { index, line }: Entry) -> Sealed {
        if let Some(begun) = place::begun(&line).filter(|begun| !begun.anew) {
            self.part.epoch = begun.epoch;
        }
        let (epoch, hash) = (self.part.epoch, Hash::leaf(&line));
        self.last = Some(Last {
            epoch,
            record: index,
            hash,
        });
        Sealed {
            epoch,
            index,
            hash,
            line,
        }
    }

    /// Looks whether there is more in the ledger itself.
    fn look(&mut self) -> Result<bool, FollowError> {
        let head = Head::read(&self.dir)?;
        if head.ledger != self.ledger {
            return Err(FollowError::OtherLedger {
                wanted: self.ledger.clone(),
                found: head.ledger,
            });
        }
        // Another epoch may be another ledger with the same numbers.
        if head.epoch != self.epoch {
            return self.locate(&head);
        }
        let next = self.part.next_index();
        if !self.part.is_starved() && head.size > next {
            self.part.sealed = Some(head.size);
            return Ok(true);
        }
        match self.part.standing()? {
            Standing::Gone { first } if self.part.is_starved() => Err(self.part.gone(next, first)),
            Standing::Replaced => self.locate(&head),
            Standing::Whole | Standing::Gone { .. } if head.size < next => self.locate(&head),
            Standing::Whole | Standing::Gone { .. } if !self.part.is_starved() => Ok(false),
            Standing::Whole | Standing::Gone { .. } => {
                // It came between the two looks, or a checkpoint covers what somebody took away.
                if self.starved != Some(next) && self.part.has_more()? {
                    self.starved = Some(next);
                    return Ok(true);
                }
                Err(short(self.last, next))
            }
        }
    }

    /// Finds the record that was read last again.
    fn locate(&mut self, head: &Head) -> Result<bool, FollowError> {
        let (part, then) = located(&self.dir, head.epoch, self.last)?;
        if then.is_empty() && head.size < part.next_index() {
            return Err(short(self.last, head.size));
        }
        (self.part, self.then, self.epoch) = (part, then, head.epoch);
        Ok(true)
    }

    /// Goes on from a ledger that was put aside to the one after it.
    fn go_on(&mut self) -> Result<bool, FollowError> {
        let next = self.part.next_index();
        if let Standing::Gone { first } = self.part.standing()? {
            return Err(self.part.gone(next, first));
        }
        let Some(dir) = self.then.front().cloned() else {
            return Ok(false);
        };
        let is_live = self.then.len() == 1;
        self.part = Part::first(&dir, self.part.epoch.saturating_add(1), is_live)?;
        self.whole_from = 0;
        self.then.pop_front();
        Ok(true)
    }
}

/// Finds where the reading goes on: in the ledger, or in one that was put aside, and then which folders come after it.
fn located(dir: &Path, epoch: u32, last: Option<Last>) -> Result<(Part, VecDeque<PathBuf>), FollowError> {
    let Some(last) = last else {
        return Ok((Part::first(dir, epoch, true)?, VecDeque::new()));
    };
    let here = match place::find(dir, last.record, &last.hash)? {
        Found::Behind(tail) => {
            return Ok((
                Part::behind(dir, *tail, last.epoch, true, last.record.saturating_add(1)),
                VecDeque::new(),
            ));
        }
        here @ (Found::Gone { .. } | Found::Short { .. } | Found::Differs) => here,
    };
    let aside = place::set_aside(dir)?;
    for (number, folder) in aside.iter().enumerate().rev() {
        if let Found::Behind(tail) = place::find(folder, last.record, &last.hash)? {
            let then = aside.iter().skip(number.saturating_add(1)).cloned();
            let then = then.chain([dir.to_owned()]).collect();
            return Ok((
                Part::behind(folder, *tail, last.epoch, false, last.record.saturating_add(1)),
                then,
            ));
        }
    }
    Err(match here {
        Found::Gone { first } => FollowError::Gone {
            dir: dir.to_owned(),
            record: last.record,
            first,
        },
        Found::Short { records } => short(Some(last), records),
        Found::Differs | Found::Behind(_) => FollowError::Differs { record: last.record },
    })
}

fn short(last: Option<Last>, records: u64) -> FollowError {
    FollowError::Short {
        record: last.map_or(0, |last| last.record),
        records,
    }
}

/// What the newest checkpoint of a ledger says.
#[derive(Debug)]
struct Head {
    ledger: KeyName,
    epoch: u32,
    /// Records that it covers; none where there is no checkpoint yet.
    size: u64,
}

impl Head {
    fn read(dir: &Path) -> Result<Self, FollowError> {
        let path = dir.join(VKEY);
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| FollowError::Unreadable { path, source }
        };
        let text = read_file(&path, NOTE_BYTES_MAX as u64).map_err(unreadable(&path))?;
        let text = text.ok_or_else(|| unreadable(&path)(io::ErrorKind::NotFound.into()))?;
        let key = VerifierKey::parse(String::from_utf8_lossy(&text).trim_end());
        let key = key.map_err(|source| FollowError::Key { path, source })?;
        let path = dir.join(CHECKPOINT);
        let note = read_file(&path, NOTE_BYTES_MAX as u64).map_err(unreadable(&path))?;
        let size = match note {
            None => 0,
            Some(note) => {
                let checkpoint = Checkpoint::open_in_epochs(&note, &key);
                checkpoint
                    .map_err(|source| FollowError::Checkpoint { path, source })?
                    .size
            }
        };
        let (ledger, epoch) = epoch::split(key.name());
        Ok(Self { ledger, epoch, size })
    }
}
