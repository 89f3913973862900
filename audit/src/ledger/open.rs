//! Taking up a ledger: is it the one that was left, and where does it go on?

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spiffe::time::Clock;

use super::append::Append;
use super::checkpoints::Checkpoints;
use super::epochs::Begun;
use super::keeper::Sealer;
use super::rebuild::{self, Rebuilt};
use super::scan::Found;
use super::writer::Writer;
use super::{LedgerConfig, OpenError, disk, keyfile, prune, repair, scan};
use crate::budget::{Budget, Class, MAX_BYTES_MIN, Reserve};
use crate::epoch;
use crate::record::{EventKind, EventRecord, Line};
use crate::segment::{self, SEGMENT_BYTES_MAX, SEGMENTS, Segment};

/// What opening a ledger found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The ledger is new.
    pub created: bool,
    /// Records in the ledger.
    pub records: u64,
    /// Records of them that no checkpoint covered: what was written after the
    /// last one, before a crash.
    pub unsealed: u64,
    /// What was cut off and kept beside.
    pub torn: Option<Torn>,
    /// Tiles were missing or wrong and were made again from the records.
    pub tiles_rebuilt: bool,
    /// What was there was put aside, and this is a new epoch.
    pub begun: Option<Begun>,
}

/// Bytes that were no whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Index that their record would have had.
    pub index: u64,
    /// How many.
    pub bytes: u64,
    /// Where they are kept.
    pub file: PathBuf,
}

/// The two halves of an open ledger.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) writer: Writer,
    pub(super) sealer: Sealer,
    pub(super) report: OpenReport,
}

/// The file that keeps a second process out.
pub(super) const LOCK: &str = "lock";

/// Opens a ledger as [`super::Ledger::open`] says.
pub(super) fn open(config: &LedgerConfig, clock: &Clock) -> Result<Opened, OpenError> {
    let lock = prepare(config)?;
    open_locked(config, clock, lock)
}

/// Checks the settings, and makes the folder this process's own.
pub(super) fn prepare(config: &LedgerConfig) -> Result<File, OpenError> {
    check(config)?;
    make_folder(&config.dir)?;
    lock(&config.dir)
}

/// Opens a ledger whose lock is held.
pub(super) fn open_locked(config: &LedgerConfig, clock: &Clock, lock: File) -> Result<Opened, OpenError> {
    let dir = &config.dir;
    let key = keyfile::load(config)?;
    make_folder(&dir.join(SEGMENTS))?;
    let (checkpoints, newest) = Checkpoints::open(dir, &key.verifier())?;
    let mut segments = take_stock(dir)?;
    if newest.is_none() && !segments.is_empty() {
        return Err(OpenError::CheckpointLost { dir: dir.clone() });
    }
    let Rebuilt {
        tree,
        tiles,
        found,
        tiles_rebuilt,
    } = rebuild::rebuild(dir, &segments, newest.as_ref())?;
    let sealed = newest.as_ref().map(|checkpoint| checkpoint.size);
    let mut report = OpenReport {
        created: newest.is_none(),
        records: found.size,
        unsealed: found.size.saturating_sub(sealed.unwrap_or(0)),
        torn: None,
        tiles_rebuilt,
        begun: None,
    };
    if let Some(torn) = &found.torn {
        let (bytes, file) = repair::cut(dir, &mut segments, torn)?;
        report.torn = Some(Torn {
            index: torn.index,
            bytes,
            file,
        });
    }
    sync_unsealed(&segments, sealed.unwrap_or(0))?;
    let budget = budget(config, &found, &segments)?;
    let mut writer = Writer::new(dir.join(SEGMENTS), clock.clone(), found.size, budget, SEGMENT_BYTES_MAX);
    writer.take_up(segments.last())?;
    writer.age(clock.now());
    writer.stats.epoch = epoch::split(key.verifier().name()).1;
    let mut sealer = Sealer {
        _lock: lock,
        config: config.clone(),
        dir: dir.clone(),
        key,
        tree,
        tiles,
        checkpoints,
        sealed,
    };
    seal_at_start(&mut sealer, &mut writer, report.created)?;
    tell_of_repair(&mut writer, clock, &report);
    Ok(Opened { writer, sealer, report })
}

/// Lists the segments, and forgets what was not pruned to the end.
fn take_stock(dir: &Path) -> Result<Vec<Segment>, OpenError> {
    prune::clear(dir).map_err(|source| OpenError::File {
        doing: "clear what was not pruned to the end in",
        path: dir.to_owned(),
        source,
    })?;
    segment::list(dir).map_err(|source| OpenError::Segments { source })
}

/// What was spent, and what was given back of it.
fn budget(config: &LedgerConfig, found: &Found, segments: &[Segment]) -> Result<Budget, OpenError> {
    let freed = prune::freed(segments).map_err(|source| OpenError::File {
        doing: "read what is kept of segments in",
        path: config.dir.clone(),
        source,
    })?;
    let mut budget = Budget::new(config.max_bytes, found.spent);
    budget.free(freed);
    Ok(budget)
}

fn check(config: &LedgerConfig) -> Result<(), OpenError> {
    let sync = Duration::from_millis(1)..=Duration::from_secs(10);
    if !sync.contains(&config.sync) {
        return Err(OpenError::Setting {
            setting: "sync",
            rule: "must be 1ms to 10s",
        });
    }
    if config.max_bytes < MAX_BYTES_MIN {
        return Err(OpenError::Setting {
            setting: "max_bytes",
            rule: "must be at least 64KiB",
        });
    }
    if config.retention.is_some_and(|retention| !retention.is_sound()) {
        return Err(OpenError::Setting {
            setting: "keep",
            rule: "must be 1h to 36500d, and that of events not shorter than that of calls",
        });
    }
    if config.key_file.starts_with(&config.dir) {
        let rule = "must not be inside dir, which auditors read";
        return Err(OpenError::Setting {
            setting: "key_file",
            rule,
        });
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), OpenError> {
    match DirBuilder::new().mode(0o750).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made
            .and_then(|()| {
                path.parent()
                    .filter(|above| !above.as_os_str().is_empty())
                    .map_or(Ok(()), disk::sync_folder)
            })
            .map_err(|source| OpenError::File {
                doing: "make",
                path: path.to_owned(),
                source,
            }),
    }
}

/// Takes the lock that keeps a second process out. The kernel drops it with
/// this one.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let file = |source| OpenError::File {
        doing: "lock",
        path: path.clone(),
        source,
    };
    let lock = disk::open_append(&path).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(file(source)),
    }
}

/// Brings to the disk what a killed process may have left in memory, before a
/// checkpoint covers it.
fn sync_unsealed(segments: &[Segment], sealed: u64) -> Result<(), OpenError> {
    let from = segments
        .partition_point(|segment| segment.first <= sealed)
        .saturating_sub(1);
    for segment in segments.iter().skip(from) {
        let path = &segment.path;
        File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(|source| OpenError::File {
                doing: "sync",
                path: path.clone(),
                source,
            })?;
    }
    Ok(())
}

/// Seals what is there. A ledger on a full disk opens all the same, and
/// refuses records until there is room.
fn seal_at_start(sealer: &mut Sealer, writer: &mut Writer, created: bool) -> Result<(), OpenError> {
    match sealer.seal() {
        Err(error) if created => {
            let source = io::Error::other(error);
            return Err(OpenError::File {
                doing: "begin",
                path: sealer.dir.clone(),
                source,
            });
        }
        Err(error) => writer.stats.trouble = Some(error.to_string()),
        Ok(size) => writer.stats.sealed = size,
    }
    writer.stats.synced = sealer.tree.size();
    Ok(())
}

fn tell_of_repair(writer: &mut Writer, clock: &Clock, report: &OpenReport) {
    let Some(torn) = &report.torn else { return };
    let file = torn.file.file_name().unwrap_or_default().to_string_lossy();
    let detail = [
        ("record".to_owned(), torn.index.into()),
        ("bytes".to_owned(), torn.bytes.into()),
        ("file".to_owned(), file.into()),
    ];
    let event = EventRecord {
        kind: EventKind::Repaired,
        time: clock.now(),
        actor: "ledger".to_owned(),
        subject: "segment".to_owned(),
        detail: detail.into(),
    };
    let Ok(line) = Line::event(&event) else { return };
    if let Err(error) = writer.append(&line, line.hash(), Class::Calls, Reserve::Spend) {
        writer.stats.trouble = Some(error.to_string());
    }
}

impl Writer {
    /// Goes on in the last segment, if there is one.
    fn take_up(&mut self, last: Option<&Segment>) -> Result<(), OpenError> {
        let Some(last) = last else { return Ok(()) };
        self.opened = scan::begun(last)?;
        let failed = |source| OpenError::File {
            doing: "open",
            path: last.path.clone(),
            source,
        };
        let file = disk::open_append(&last.path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        self.segment = Some(Append::new(Arc::new(file), len));
        self.path.clone_from(&last.path);
        Ok(())
    }
}
