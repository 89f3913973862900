//! The ledger as its owner sees it: open, append, shut down.

mod append;
mod aside;
mod checkpoints;
mod disk;
mod epochs;
mod error;
mod hold;
mod keeper;
mod keyfile;
#[cfg(feature = "test-lies")]
mod lies;
mod open;
mod prune;
mod pruner;
mod rebuild;
mod repair;
mod retention;
mod scan;
mod stored;
mod turn;
mod writer;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use spiffe::time::{Clock, Timestamp};

pub use epochs::Begun;
pub use error::{LedgerError, OpenError};
pub use hold::{Hold, HoldError};
pub use open::{OpenReport, Torn};
pub use retention::{KEEP_MAX, KEEP_MIN, Retention, Under};
pub use turn::Staged;

pub(crate) use checkpoints::{CHECKPOINT, HISTORY, HISTORY_OLD, HISTORY_READ_MAX};
pub(crate) use disk::{read as read_file, replace_file};
pub(crate) use epochs::SET_ASIDE;
pub(crate) use keyfile::VKEY;
pub(crate) use stored::StoredTree;

use crate::budget::{Class, Reserve, Share};
use crate::head::Head;
use crate::record::{CallId, CallRecord, EndRecord, EventRecord, Line, RecordError, Verdict};
use crate::refusals::{Admission, Refusals};
use crate::strangers::Strangers;
use pruner::Pruner;
use writer::Writer;

/// Settings of a ledger.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// The ledger's folder; made if need be. Its parent must exist.
    pub dir: PathBuf,
    /// File of the key that signs checkpoints, outside `dir`; made, with mode
    /// 0600, together with a new ledger.
    pub key_file: PathBuf,
    /// Name of the ledger in its checkpoints: `acme.internal/host/web-1`.
    pub origin: String,
    /// How long a power cut may cost at most: 1 ms to 10 s.
    pub sync: Duration,
    /// Bytes that the ledger may use, at least 64 KiB: calls 80 %, refusals
    /// 15 %, unauthenticated peers 5 %.
    pub max_bytes: u64,
    /// How long records are kept; without it they are kept until `max_bytes` is used up.
    pub retention: Option<Retention>,
}

/// An open ledger. Clones are the same ledger; dropping the last one shuts it
/// down.
#[derive(Clone, Debug)]
pub struct Ledger {
    owner: Arc<Owner>,
}

/// Proof that the record of an allowed call was handed to the kernel: it
/// survives the end of this process, and a power cut after `sync`. Only
/// [`Ledger::call`] and [`Staged::receipt`] make one; neither a refusal nor an event has any.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a receipt is the permission to forward or to answer"]
pub struct Receipt {
    index: u64,
    call: CallId,
}

impl Receipt {
    /// Returns the index of the record in the ledger.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Returns the id of the call that was recorded.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.call
    }
}

/// How a refusal went into the ledger.
#[derive(Debug, PartialEq, Eq)]
pub enum Recorded {
    /// As a record of its own, with this index.
    Written(u64),
    /// As one more in an exact count, because its caller is refused more than
    /// 50 times in a second or the share for refusals is used up.
    Counted,
}

/// What a ledger has done since it was opened, and how it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The epoch that the ledger is in.
    pub epoch: u32,
    /// Records in the ledger.
    pub records: u64,
    /// Records that are on the disk.
    pub synced: u64,
    /// Records that a checkpoint covers.
    pub sealed: u64,
    /// Calls written, refused ones among them.
    pub calls: u64,
    /// Ends taken.
    pub ends: u64,
    /// Ends that found no room; their calls stay unfinished.
    pub ends_lost: u64,
    /// Events written.
    pub events: u64,
    /// Refusals counted instead of written one by one.
    pub refusals_counted: u64,
    /// Refusals that only this number tells of: their share is used up.
    pub refusals_dropped: u64,
    /// Acts of strangers counted.
    pub strangers_counted: u64,
    /// Acts of strangers that only this number tells of: their share is used up.
    pub strangers_dropped: u64,
    /// Bytes of `max_bytes` that are spent.
    pub bytes: u64,
    /// The same by share, and of how many.
    pub shares: [Share; 3],
    /// A hold keeps everything.
    pub held: bool,
    /// Records pruned since the ledger was opened.
    pub pruned: u64,
    /// How often it was looked for what is past its time.
    pub looks: u64,
    /// Why nothing is pruned that is past its time, if that is so.
    pub prune_trouble: Option<String>,
    /// Why the last sync, tile or checkpoint failed, if it did, or that there is no room for calls.
    pub trouble: Option<String>,
}

/// The ledger and its thread.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    pruner: Mutex<Option<JoinHandle<()>>>,
}

/// What appending threads and the keeper share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    clock: Clock,
    writer: Mutex<Writer>,
    counts: Mutex<Counts>,
    /// The hold that the ledger is under; it is locked before the writer, and while something is deleted.
    hold: Mutex<Option<Hold>>,
    /// Wakes the keeper.
    wake: Condvar,
    /// Wakes the pruner: more is sealed, or the ledger is shut down.
    stopping: Condvar,
}

/// What is counted instead of written.
#[derive(Debug, Default)]
struct Counts {
    refusals: Refusals,
    strangers: Strangers,
}

impl Ledger {
    /// Opens a ledger or makes a new one, repairs what a crash left, and
    /// starts the thread that syncs and seals it.
    ///
    /// # Errors
    ///
    /// When a setting is out of bounds, another process has the ledger open,
    /// a file cannot be used, or the records are not those that the last
    /// checkpoint sealed.
    pub fn open(config: LedgerConfig, clock: Clock) -> Result<(Self, OpenReport), OpenError> {
        let opened = open::open(&config, &clock)?;
        Self::start(opened, &config, clock)
    }

    /// Opens a ledger as [`Ledger::open`] does; but one that is not as it was left, because records, its checkpoint or its
    /// key were lost, set back or changed, is put aside, and a new epoch begun: [`OpenReport::begun`] says so, and the
    /// first record of the epoch.
    ///
    /// # Errors
    ///
    /// When a setting is out of bounds, another process has the ledger open, or a file cannot be used.
    pub fn open_or_begin(config: LedgerConfig, clock: Clock) -> Result<(Self, OpenReport), OpenError> {
        let opened = epochs::open_or_begin(&config, &clock)?;
        Self::start(opened, &config, clock)
    }

    /// Begins the epoch after `after`, which is the last that a witness knows of, unless the ledger is in a later one
    /// already: the records stay, and the heads from now on have a name of their own. Returns at once; [`Stats::epoch`]
    /// says when it is done.
    pub fn begin_epoch(&self, after: u32, why: &'static str) {
        let shared = &self.owner.shared;
        let mut writer = shared.writer();
        writer.epoch_wanted = Some((after, why));
        shared.wake_if_idle(&mut writer);
    }

    fn start(opened: open::Opened, config: &LedgerConfig, clock: Clock) -> Result<(Self, OpenReport), OpenError> {
        let thread = |source| OpenError::Thread { source };
        let pruning = config
            .retention
            .map(|retention| keyfile::first_name(config).map(|key| (retention, key)));
        let pruning = pruning.transpose()?;
        let shared = Arc::new(Shared {
            dir: opened.sealer.dir.clone(),
            clock,
            writer: Mutex::new(opened.writer),
            counts: Mutex::default(),
            hold: Mutex::new(Hold::read(&opened.sealer.dir)),
            wake: Condvar::new(),
            stopping: Condvar::new(),
        });
        let keeper = keeper::start(Arc::clone(&shared), opened.sealer, config.sync).map_err(thread)?;
        let owner = Owner {
            shared: Arc::clone(&shared),
            keeper: Mutex::new(Some(keeper)),
            pruner: Mutex::default(),
        };
        if let Some((retention, key)) = pruning {
            let pruner = Pruner {
                shared,
                retention,
                key,
                read: BTreeMap::new(),
            };
            *owner.pruner.lock().unwrap_or_else(PoisonError::into_inner) = Some(pruner::start(pruner).map_err(thread)?);
        }
        Ok((Self { owner: Arc::new(owner) }, opened.report))
    }

    /// Writes the decision that lets a call be made. When this returns, the record
    /// is in the kernel's hands and survives `kill -9`.
    ///
    /// # Errors
    ///
    /// When it could not be written or is of a refused call: then the call
    /// must not be made.
    pub fn call(&self, record: &CallRecord) -> Result<Receipt, LedgerError> {
        if record.verdict == Verdict::Deny {
            return Err(LedgerError::Refused { call: record.id });
        }
        let line = Line::call(record).map_err(|source| LedgerError::Record { source })?;
        let index = self.append(&line, Class::Calls, |stats| &mut stats.calls)?;
        Ok(Receipt { index, call: record.id })
    }

    /// Takes the end of a call. It is written with the next record or sync,
    /// and not waited for: if the process is killed before that, the call is
    /// unfinished.
    pub fn end(&self, record: &EndRecord) {
        #[cfg(feature = "test-lies")]
        if lies::is_left_out(record.id) {
            return;
        }
        let line = Line::end(record);
        let mut writer = self.owner.shared.writer();
        match line {
            Ok(line) if !writer.closed => writer.end(&line, line.hash()),
            _ => writer.stats.ends_lost = writer.stats.ends_lost.saturating_add(1),
        }
        self.owner.shared.wake_if_idle(&mut writer);
    }

    /// Writes a refusal, or counts it when its caller is refused more than 50
    /// times in this second. The count is written within a second or so.
    ///
    /// A refusal whose path and query are too long for a record is written
    /// with them cut.
    ///
    /// # Errors
    ///
    /// When it could be neither written nor counted.
    pub fn deny(&self, record: &CallRecord) -> Result<Recorded, LedgerError> {
        let shared = &self.owner.shared;
        let now = shared.clock.now();
        let admission = shared.counts().refusals.admit(now, record);
        if admission == Admission::Counted {
            let mut writer = shared.writer();
            writer.stats.refusals_counted = writer.stats.refusals_counted.saturating_add(1);
            writer.counting = true;
            shared.wake_if_idle(&mut writer);
            return if writer.closed {
                Err(LedgerError::Closed)
            } else {
                Ok(Recorded::Counted)
            };
        }
        let line = line_of_refusal(record).map_err(|source| LedgerError::Record { source })?;
        // Who has no name has no share among the named ones.
        let named = record.from.id.is_some();
        let class = if named { Class::Refusals } else { Class::Strangers };
        match self.append(&line, class, |stats| &mut stats.calls) {
            Err(LedgerError::Full { .. }) => {
                shared.writer().stats.drop_counted(class, 1);
                Ok(Recorded::Counted)
            }
            written => written.map(Recorded::Written),
        }
    }

    /// Counts something that an unauthenticated peer did: a refused handshake,
    /// say. One record per source and reason is written each minute.
    pub fn stranger(&self, source: IpAddr, reason: &str) {
        let shared = &self.owner.shared;
        let now = shared.clock.now();
        shared.counts().strangers.count(now, source, reason);
        let mut writer = shared.writer();
        writer.stats.strangers_counted = writer.stats.strangers_counted.saturating_add(1);
        writer.counting = true;
        shared.wake_if_idle(&mut writer);
    }

    /// Writes an event and returns the index of its record.
    ///
    /// # Errors
    ///
    /// When it could not be written: then what it tells of must not be done.
    pub fn event(&self, record: &EventRecord) -> Result<u64, LedgerError> {
        let line = Line::event(record).map_err(|source| LedgerError::Record { source })?;
        self.append(&line, Class::Calls, |stats| &mut stats.events)
    }

    /// The ledger's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.owner.shared.dir
    }

    /// Writes what waits, seals the ledger and ends its thread. Records that
    /// come later are refused. A second call does nothing.
    pub fn shutdown(&self) {
        self.owner.shutdown();
    }

    /// Tells how the ledger stands.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let held = self.held().is_some();
        let writer = self.owner.shared.writer();
        let shares = writer.budget.shares();
        let full = writer.budget.check(Class::Calls, Reserve::Keep, CALL_BYTES).is_err();
        let stats = writer.stats.clone();
        Stats {
            records: writer.size,
            held,
            bytes: shares.iter().fold(0, |sum: u64, share| sum.saturating_add(share.spent)),
            shares,
            trouble: stats.trouble.or_else(|| {
                full.then(|| "no room for calls within max_bytes: raise `ledger.max_bytes` and restart".to_owned())
            }),
            ..stats
        }
    }

    fn append(
        &self,
        line: &Line,
        class: Class,
        count: impl FnOnce(&mut Stats) -> &mut u64,
    ) -> Result<u64, LedgerError> {
        // Hashed outside the lock, so that threads hash side by side.
        let hash = line.hash();
        let mut writer = self.owner.shared.writer();
        if writer.closed {
            return Err(LedgerError::Closed);
        }
        let index = writer.append(line, hash, class, Reserve::Keep)?;
        let count = count(&mut writer.stats);
        *count = count.saturating_add(1);
        self.owner.shared.wake_if_idle(&mut writer);
        Ok(index)
    }
}

impl Stats {
    fn drop_counted(&mut self, class: Class, count: u64) {
        let dropped = match class {
            Class::Strangers => &mut self.strangers_dropped,
            Class::Calls | Class::Refusals => &mut self.refusals_dropped,
        };
        *dropped = dropped.saturating_add(count);
    }
}

impl Shared {
    /// Locks the writer. A thread that panicked while it held the lock left
    /// whole lines or a torn one that is cut before the next, so going on is
    /// safe.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Option<Hold>> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_held(&self, now: Timestamp) -> bool {
        self.held().as_ref().is_some_and(|hold| hold.holds(now))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the keeper if it waits for news, which costs a system call, and
    /// nothing if it is awake anyway.
    fn wake_if_idle(&self, writer: &mut Writer) {
        if writer.idle {
            writer.idle = false;
            self.wake.notify_all();
        }
    }
}

impl Owner {
    fn shutdown(&self) {
        {
            let mut writer = self.shared.writer();
            writer.closed = true;
            writer.stop = true;
        }
        self.shared.wake.notify_all();
        self.shared.stopping.notify_all();
        let pruner = self.pruner.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(pruner.map(JoinHandle::join));
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A thread that panicked has said so in `Stats::trouble`.
        drop(keeper.map(JoinHandle::join));
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Encodes a refusal; one that is too long loses its query and most of its
/// path, because what is refused must be recorded all the same.
fn line_of_refusal(record: &CallRecord) -> Result<Line, RecordError> {
    match Line::call(record) {
        Err(RecordError::TooLong { .. }) => {
            let mut short = record.clone();
            let cut = |text: &mut String| text.truncate(text.floor_char_boundary(SHORT_BYTES));
            cut(&mut short.path);
            cut(&mut short.method);
            let host = short.to.host.as_mut();
            host.into_iter()
                .chain(&mut short.nearest)
                .chain(&mut short.trace)
                .for_each(cut);
            short.query.clear();
            short.shortened = true;
            Line::call(&short)
        }
        line => line,
    }
}

/// More than nearly every call costs, so that a ledger says that it is full when the first call is refused.
const CALL_BYTES: u64 = 2 * 1024;

/// What is left of a text in a refusal that is too long, in bytes.
const SHORT_BYTES: usize = 1024;

#[cfg(test)]
mod tests;
