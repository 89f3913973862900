//! Beginning a new epoch: at start, where what is there is not what was left, and later, where a witness says so.
//!
//! Nothing of that stops calls. What is there is put aside and stays for whoever looks into it; the record with which the
//! epoch begins says why.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use spiffe::time::Clock;

use super::hold::HOLD;
use super::open::{self, Opened};
use super::{LedgerConfig, OpenError, disk, keyfile};
use crate::budget::{Class, Reserve};
use crate::epoch;
use crate::key::KeyName;
use crate::record::{EventKind, EventRecord, Line};

/// The folder of what was put aside, below the ledger's.
pub(crate) const SET_ASIDE: &str = "set-aside";

/// How many ledgers are kept there; the oldest goes first. They are not in the budget, so there must be an end to them.
const SET_ASIDE_MAX: usize = 4;

/// A new epoch that was begun when a ledger was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its number.
    pub epoch: u32,
    /// The word for what was found: `shrunken`, `altered`, `checkpoint_lost`, `key_lost`, `stray_file`.
    pub why: &'static str,
    /// What was found, for operators.
    pub found: String,
    /// Where what was there is now.
    pub set_aside: PathBuf,
}

/// Opens a ledger; one that is damaged is put aside and begun anew.
pub(super) fn open_or_begin(config: &LedgerConfig, clock: &Clock) -> Result<Opened, OpenError> {
    let lock = open::prepare(config)?;
    let error = match open::open_locked(config, clock, held(&lock, config)?) {
        Err(error) if error.is_damage() => error,
        opened => return opened,
    };
    // A wrong setting is not what was found on the disk.
    let Ok(ledger) = KeyName::parse(&config.origin) else {
        return Err(error);
    };
    let ended = keyfile::known_epoch(config);
    let epoch = ended.saturating_add(1);
    let Some(name) = epoch::name(&ledger, epoch) else {
        return Err(error);
    };
    let begun = Begun {
        epoch,
        why: error.as_str(),
        found: told(&error),
        set_aside: set_aside(&config.dir, ended)?,
    };
    match keyfile::usable(config) {
        Some(key) => keyfile::rename(config, &key, name)?,
        None => keyfile::make_anew(config, name)?,
    };
    let mut opened = open::open_locked(config, clock, lock)?;
    let event = event(clock, (ended, epoch), begun.why, &begun.found, Some(&begun.set_aside));
    if let Ok(line) = Line::event(&event)
        && let Err(error) = opened.writer.append(&line, line.hash(), Class::Calls, Reserve::Spend)
    {
        opened.writer.stats.trouble = Some(error.to_string());
    }
    opened.report.begun = Some(begun);
    Ok(opened)
}

/// The record with which an epoch begins, after the one that ended.
pub(super) fn event(
    clock: &Clock,
    (ended, epoch): (u32, u32),
    why: &str,
    found: &str,
    set_aside: Option<&Path>,
) -> EventRecord {
    let mut detail: Vec<(String, serde_json::Value)> = vec![
        ("epoch".to_owned(), epoch.into()),
        ("ended".to_owned(), ended.into()),
        ("why".to_owned(), why.into()),
        ("found".to_owned(), found.into()),
    ];
    let folder = set_aside.map(|folder| folder.to_string_lossy().into_owned());
    detail.extend(folder.map(|folder| ("set_aside".to_owned(), folder.into())));
    EventRecord {
        kind: EventKind::EpochBegun,
        time: clock.now(),
        actor: "ledger".to_owned(),
        subject: format!("epoch {epoch}"),
        detail: detail.into_iter().collect(),
    }
}

/// The same lock, which lasts until the last of its holders is gone.
fn held(lock: &File, config: &LedgerConfig) -> Result<File, OpenError> {
    lock.try_clone().map_err(|source| OpenError::File {
        doing: "lock",
        path: config.dir.clone(),
        source,
    })
}

/// An error with all that is behind it.
fn told(error: &OpenError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// Moves all that is in the folder of a ledger aside.
fn set_aside(dir: &Path, ended: u32) -> Result<PathBuf, OpenError> {
    let all = dir.join(SET_ASIDE);
    let moved = make_room(&all)
        .and_then(|()| free_name(&all, ended))
        .and_then(|folder| {
            fs::create_dir_all(&folder)?;
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                let name = entry.file_name();
                // A hold is of all that was and will be in this folder.
                if name != SET_ASIDE && name != open::LOCK && name != HOLD {
                    fs::rename(entry.path(), folder.join(name))?;
                }
            }
            disk::sync_folder(&folder)?;
            disk::sync_folder(dir)?;
            Ok(folder)
        });
    moved.map_err(|source| OpenError::File {
        doing: "put a damaged ledger aside in",
        path: all,
        source,
    })
}

/// Removes the oldest of what was put aside, so that one more can be.
fn make_room(all: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(all) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        found.push((entry.metadata()?.modified()?, entry.path()));
    }
    found.sort();
    let surplus = found.len().saturating_add(1).saturating_sub(SET_ASIDE_MAX);
    found
        .iter()
        .take(surplus)
        .try_for_each(|(_, folder)| fs::remove_dir_all(folder))
}

/// A folder for an epoch that is not there yet: a crash may have come while it was moved.
fn free_name(all: &Path, ended: u32) -> io::Result<PathBuf> {
    for attempt in 1..=SET_ASIDE_MAX.saturating_add(1) {
        let name = match attempt {
            1 => ended.to_string(),
            again => format!("{ended}-{again}"),
        };
        let folder = all.join(name);
        if !folder.try_exists()? {
            return Ok(folder);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
