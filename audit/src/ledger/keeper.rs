//! The ledger's thread: syncs records, stores tiles, signs checkpoints, writes
//! counts. Everything that waits for the disk happens here.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;

use super::checkpoints::Checkpoints;
use super::writer::Taken;
use super::{LedgerConfig, LedgerError, OpenError, Shared, disk, epochs, keyfile};
use crate::budget::{Class, Reserve};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::epoch;
use crate::hash::Hash;
use crate::key::{KeyName, SignerKey};
use crate::record::{EventKind, EventRecord, Line};
use crate::segment::SEGMENTS;
use crate::tile::Tile;
use crate::tree::Tree;

/// Time between two checkpoints while there is news (DESIGN §8).
const SEAL_EVERY: Duration = Duration::from_secs(5);

/// Time between two storings of full tiles: many new files at once cost less
/// than one at a time.
const STORE_EVERY: Duration = Duration::from_secs(1);

/// Full tiles that are not stored later than at once.
const TILES_AT_ONCE: usize = 256;

/// Full tiles that wait for a disk without room before the keeper takes no
/// more records over.
const TILES_MAX: usize = 4096;

/// The sealing half of a ledger: the tree over what is synced, and its files.
#[derive(Debug)]
pub(super) struct Sealer {
    /// Held until the ledger's thread has ended.
    pub(super) _lock: File,
    pub(super) config: LedgerConfig,
    pub(super) dir: PathBuf,
    pub(super) key: SignerKey,
    pub(super) tree: Tree,
    /// Full tiles that are not stored yet.
    pub(super) tiles: Vec<Tile>,
    pub(super) checkpoints: Checkpoints,
    /// Records that the newest checkpoint covers; `None` before the first.
    pub(super) sealed: Option<u64>,
}

/// Why sealing failed; it is tried again with the next round.
#[derive(Debug, Error)]
pub(super) enum SealError {
    /// A tile could not be stored.
    #[error("cannot store the ledger's tiles: {source}")]
    Tiles {
        /// What the system says.
        source: io::Error,
    },
    /// The checkpoint could not be stored.
    #[error("cannot store the ledger's checkpoint: {source}")]
    Checkpoint {
        /// What the system says.
        source: io::Error,
    },
    /// The checkpoint could not be signed.
    #[error("cannot sign the ledger's checkpoint: {source}")]
    Sign {
        /// What is wrong with it.
        source: CheckpointError,
    },
}

impl Sealer {
    /// Adds records that are on the disk.
    fn add(&mut self, hashes: &[Hash]) {
        hashes.iter().for_each(|hash| self.tree.push(*hash, &mut self.tiles));
    }

    /// Signs a checkpoint over the tree, unless the newest one is that.
    pub(super) fn seal(&mut self) -> Result<u64, SealError> {
        self.store_tiles()?;
        let size = self.tree.size();
        if self.sealed == Some(size) {
            return Ok(size);
        }
        disk::write_tiles(&self.dir, &self.tree.partial_tiles()).map_err(|source| SealError::Tiles { source })?;
        let origin = self.key.verifier().name().clone();
        let note = Checkpoint {
            origin,
            size,
            root: self.tree.root(),
        }
        .sign(&self.key)
        .map_err(|source| SealError::Sign { source })?;
        self.checkpoints
            .write(&note)
            .map_err(|source| SealError::Checkpoint { source })?;
        self.sealed = Some(size);
        Ok(size)
    }

    /// Goes on under the name of another epoch. The next checkpoint is a new one, whatever it covers.
    fn rename(&mut self, name: KeyName) -> Result<(), OpenError> {
        self.key = keyfile::rename(&self.config, &self.key, name)?;
        self.sealed = None;
        Ok(())
    }

    fn store_tiles(&mut self) -> Result<(), SealError> {
        disk::write_tiles(&self.dir, &self.tiles).map_err(|source| SealError::Tiles { source })?;
        self.tiles.clear();
        Ok(())
    }
}

/// Starts the thread.
pub(super) fn start(shared: Arc<Shared>, sealer: Sealer, sync: Duration) -> io::Result<JoinHandle<()>> {
    let rounds = |every: Duration| {
        let rounds = every.as_nanos() / sync.as_nanos().max(1);
        u64::try_from(rounds).unwrap_or(u64::MAX).max(1)
    };
    let keeper = Keeper {
        shared,
        sealer,
        sync,
        seal_every: rounds(SEAL_EVERY),
        store_every: rounds(STORE_EVERY),
        unstored: 0,
        waiting: VecDeque::new(),
        alerted: [0; 2],
        beginning: None,
    };
    thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || keeper.run())
}

/// The thread's state.
struct Keeper {
    shared: Arc<Shared>,
    sealer: Sealer,
    sync: Duration,
    /// Rounds between two checkpoints.
    seal_every: u64,
    /// Rounds between two storings of tiles.
    store_every: u64,
    /// Rounds since tiles were stored.
    unstored: u64,
    /// Counts that could not be written yet.
    waiting: VecDeque<Counted>,
    /// Dropped refusals and strangers that the last alerts told of.
    alerted: [u64; 2],
    /// The epoch whose first record is written, and whose name the key does not have yet.
    beginning: Option<(u32, KeyName)>,
}

/// A line that stands for a count.
struct Counted {
    line: Line,
    class: Class,
    count: u64,
}

impl Keeper {
    fn run(mut self) {
        let _alarm = Alarm {
            shared: Arc::clone(&self.shared),
        };
        let mut rounds: u64 = 0;
        loop {
            let stop = self.wait();
            self.write_counts(stop);
            self.write_alerts(stop);
            self.write_epoch();
            rounds = rounds.saturating_add(1);
            let mut trouble = self.sync().err();
            if trouble.is_none() && self.beginning.is_some() {
                trouble = self.begin_epoch().err();
                rounds = self.seal_every;
            }
            let wanted = self.shared.writer().seal_wanted;
            if trouble.is_none() && (stop || wanted || rounds >= self.seal_every) {
                match self.sealer.seal() {
                    Ok(size) => {
                        rounds = 0;
                        let mut writer = self.shared.writer();
                        writer.stats.sealed = size;
                        writer.seal_wanted = false;
                        drop(writer);
                        self.shared.stopping.notify_all();
                    }
                    Err(error) => trouble = Some(error.to_string()),
                }
            }
            self.shared.writer().stats.trouble = trouble;
            if stop {
                return;
            }
        }
    }

    /// Waits for news, then for one more `sync` in which more news gathers.
    /// Returns whether to stop.
    fn wait(&self) -> bool {
        let unsealed = self.sealer.sealed != Some(self.sealer.tree.size());
        let busy = unsealed || !self.waiting.is_empty() || self.beginning.is_some();
        let mut writer = self.shared.writer();
        while !busy && !writer.stop && !writer.has_news() {
            writer.idle = true;
            writer = self.shared.wake.wait(writer).unwrap_or_else(PoisonError::into_inner);
        }
        writer.idle = false;
        let waited = self
            .shared
            .wake
            .wait_timeout_while(writer, self.sync, |writer| !writer.stop);
        let (writer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        writer.stop
    }

    /// Brings what was appended to the disk and then into the tree.
    fn sync(&mut self) -> Result<(), String> {
        if self.sealer.tiles.len() >= TILES_MAX {
            self.sealer.store_tiles().map_err(|error| error.to_string())?;
        }
        let now = self.shared.clock.now();
        let mut writer = self.shared.writer();
        writer.age(now);
        if let Some(error) = &writer.failed {
            return Err(LedgerError::Sync { error: error.clone() }.to_string());
        }
        // What the disk does not take stays in the batch for the next round.
        let flushed = writer.flush().map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        });
        let taken = writer.take();
        drop(writer);
        if let Err(error) = self.bring_to_disk(&taken) {
            self.shared.writer().failed = Some(error.to_string());
            return Err(LedgerError::Sync {
                error: error.to_string(),
            }
            .to_string());
        }
        self.sealer.add(&taken.hashes);
        let stored = self.store_if_due().map_err(|error| error.to_string());
        self.shared.writer().stats.synced = self.sealer.tree.size();
        flushed.and(stored)
    }

    /// Stores tiles once in a while; after a failure with every round, so that
    /// it stays known until it is mended.
    fn store_if_due(&mut self) -> Result<(), SealError> {
        self.unstored = self.unstored.saturating_add(1);
        if self.unstored >= self.store_every || self.sealer.tiles.len() >= TILES_AT_ONCE {
            self.sealer.store_tiles()?;
            self.unstored = 0;
        }
        Ok(())
    }

    fn bring_to_disk(&self, taken: &Taken) -> io::Result<()> {
        taken.files.iter().try_for_each(|file| file.sync_data())?;
        if taken.begun {
            disk::sync_folder(&self.sealer.dir.join(SEGMENTS))
        } else {
            Ok(())
        }
    }

    /// Writes the counts that are due.
    fn write_counts(&mut self, all: bool) {
        if self.waiting.is_empty() {
            self.take_counts(all);
        }
        let mut writer = self.shared.writer();
        while let Some(counted) = self.waiting.pop_front() {
            let hash = counted.line.hash();
            match writer.append(&counted.line, hash, counted.class, Reserve::Keep) {
                Ok(_) => {}
                Err(LedgerError::Full { .. }) => {
                    writer.stats.drop_counted(counted.class, counted.count);
                }
                Err(_) => {
                    self.waiting.push_front(counted);
                    return;
                }
            }
        }
    }

    fn take_counts(&mut self, all: bool) {
        let now = self.shared.clock.now();
        let mut counts = self.shared.counts();
        for record in counts.refusals.take(now, all) {
            let named = record.from.id.is_some() || record.from.facts.is_none();
            let class = if named { Class::Refusals } else { Class::Strangers };
            if let Ok(line) = Line::refusals(&record) {
                self.waiting.push_back(Counted {
                    line,
                    class,
                    count: record.count,
                });
            }
        }
        for record in counts.strangers.take(now, all) {
            if let Ok(line) = Line::strangers(&record) {
                let class = Class::Strangers;
                self.waiting.push_back(Counted {
                    line,
                    class,
                    count: record.count,
                });
            }
        }
        let empty = counts.refusals.is_empty() && counts.strangers.is_empty();
        drop(counts);
        self.shared.writer().counting = !empty;
    }

    /// Writes the record of a new epoch that is wanted. Where it cannot be written the epoch is wanted still.
    fn write_epoch(&mut self) {
        let mut writer = self.shared.writer();
        let Some((after, why)) = writer.epoch_wanted.filter(|_| self.beginning.is_none()) else {
            return;
        };
        let (ledger, now) = epoch::split(self.sealer.key.verifier().name());
        let next = after.saturating_add(1);
        // A witness that says the same again does not know yet that one has begun.
        let name = epoch::name(&ledger, next).filter(|_| now <= after);
        let Some(name) = name else {
            writer.epoch_wanted = None;
            return;
        };
        let found = format!("epoch {} had {} records", now, writer.size);
        let event = epochs::event(&self.shared.clock, (now, next), why, &found, None);
        let Ok(line) = Line::event(&event) else { return };
        if writer.append(&line, line.hash(), Class::Calls, Reserve::Spend).is_ok() {
            writer.epoch_wanted = None;
            self.beginning = Some((next, name));
        }
    }

    /// Gives the key the name of the epoch whose first record is on the disk.
    fn begin_epoch(&mut self) -> Result<(), String> {
        let Some((epoch, name)) = self.beginning.clone() else {
            return Ok(());
        };
        self.sealer.rename(name).map_err(|error| error.to_string())?;
        self.beginning = None;
        self.shared.writer().stats.epoch = epoch;
        Ok(())
    }

    /// Tells of counts that were dropped because a share is used up: at the
    /// first, at each doubling, and at the end, so that a flood of refusals
    /// makes a handful of alerts.
    fn write_alerts(&mut self, all: bool) {
        let mut writer = self.shared.writer();
        let dropped = [
            (Class::Refusals, writer.stats.refusals_dropped),
            (Class::Strangers, writer.stats.strangers_dropped),
        ];
        for ((class, dropped), alerted) in dropped.into_iter().zip(&mut self.alerted) {
            let due = dropped >= alerted.saturating_mul(2).max(1) || (all && dropped > *alerted);
            if !due {
                continue;
            }
            let detail = [
                ("alert".to_owned(), "ledger_share_full".into()),
                ("share".to_owned(), class.as_str().into()),
                ("dropped".to_owned(), dropped.into()),
            ];
            let event = EventRecord {
                kind: EventKind::Alert,
                time: self.shared.clock.now(),
                actor: "ledger".to_owned(),
                subject: class.as_str().to_owned(),
                detail: detail.into(),
            };
            let Ok(line) = Line::event(&event) else { continue };
            if writer.append(&line, line.hash(), Class::Calls, Reserve::Spend).is_ok() {
                *alerted = dropped;
            }
        }
    }
}

/// Stops the ledger when its thread panics: without it nothing would be synced
/// or sealed, and nobody would know.
pub(super) struct Alarm {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = "the ledger's thread panicked".to_owned();
            let mut writer = self.shared.writer();
            writer.stats.trouble = Some(error.clone());
            writer.failed = Some(error);
        }
    }
}
