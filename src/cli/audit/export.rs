//! `audit export`: hands a ledger's records on, each at least once, and keeps how far it got.
//!
//! It reads the folder and nothing else: the proxy does not know of it, and waits for nobody's collector.

mod answer;
mod collector;
mod endpoint;
mod headers;
mod item;
mod kept;
mod lines;
mod ocsf;
mod otlp;
mod pace;
#[cfg(test)]
mod samples;
mod target;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use audit::query::Filter;
use audit::{Follow, FollowError, Sealed};
use serde_json::json;
use spiffe::time::Timestamp;

use self::item::{Item, Origin};
use self::kept::Kept;
use self::target::Target;
use super::{must_be_a_ledger, parsed, server_ledger};
use crate::args::AuditExport;
use crate::cli::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Screen, green, printable};
use crate::signals::Stop;

/// How often it is looked for more.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often what is wrong with the ledger is looked at again before it is said: while a server puts its ledger aside, files
/// are not where they are.
const TROUBLE_MAX: u32 = 25;

/// Records that a filter leaves out before it is kept how far this got.
const LEFT_OUT_MAX: u64 = 100_000;

/// Runs the command.
pub(super) async fn run(args: &AuditExport, context: &Context) -> Result<Exit> {
    let now = context.clock.now();
    let filter = parsed(&args.filter, now)?;
    let since = args.since.as_deref().map(|since| time(since, now)).transpose()?;
    let target = Target::of(args, context)?;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => server_ledger(context).await?,
    };
    must_be_a_ledger(&dir)?;
    let kept = args
        .cursor
        .as_deref()
        .map(|file| Kept::open(file, &args.filter, &context.screen));
    let kept = kept.transpose()?;
    let after = kept.as_ref().and_then(Kept::cursor);
    let follow = Follow::open(&dir, after).map_err(|error| refused(&error, &dir, args.cursor.as_deref()))?;
    let mut export = Export {
        origin: Origin::of(follow.ledger()),
        since: since.filter(|_| after.is_none()),
        follow,
        filter,
        kept,
        target,
        args,
        dir: &dir,
        screen: &context.screen,
        trouble: 0,
        told: Told::default(),
    };
    let mut stop = Stop::watch()?;
    // What is lost midway is a request without an answer: its records are sent again after the next start.
    tokio::select! {
        ended = export.all() => ended?,
        _name = stop.wait() => {}
    }
    export.end()
}

/// A time as filters have it.
fn time(text: &str, now: Timestamp) -> Result<Timestamp> {
    let time = audit::query::time(text, now);
    let wanted = "--since takes a time such as 2026-12-01T18:00:00Z, or 90s, 15m, 2h, 7d ago";
    time.ok_or_else(|| Failure::usage(format!("{text:?} is no time: {wanted}")).into())
}

/// One run.
struct Export<'a> {
    args: &'a AuditExport,
    dir: &'a Path,
    screen: &'a Screen,
    origin: Origin,
    follow: Follow,
    filter: Filter,
    since: Option<Timestamp>,
    kept: Option<Kept>,
    target: Target,
    /// How often in turn the ledger could not be read.
    trouble: u32,
    told: Told,
}

/// What was done.
#[derive(Default)]
struct Told {
    exported: u64,
    left_out: u64,
    rejected: u64,
    requests: u64,
}

/// Records that go out together.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    bytes: usize,
    left_out: u64,
    /// There is no more at this time.
    is_last: bool,
}

impl Export<'_> {
    /// Exports what there is, and with `--follow` what comes.
    async fn all(&mut self) -> Result<()> {
        loop {
            let batch = self.batch()?;
            if !batch.items.is_empty() {
                let rejected = self.target.send(&self.origin, &batch.items, self.screen).await?;
                self.told.requests += 1;
                self.told.rejected += rejected;
                self.told.exported += batch.items.len() as u64;
            }
            self.told.left_out += batch.left_out;
            if batch.left_out > 0 || !batch.items.is_empty() {
                self.keep()?;
            }
            if !batch.is_last {
                // A signal is looked at between two batches.
                tokio::task::yield_now().await;
            } else if self.args.follow {
                tokio::time::sleep(LOOK_EVERY).await;
            } else {
                return Ok(());
            }
        }
    }

    /// Reads until a bound is reached or there is no more.
    fn batch(&mut self) -> Result<Batch> {
        let (records, bytes) = (
            usize::try_from(self.args.batch_records)?,
            usize::try_from(self.args.batch_bytes)?,
        );
        let mut batch = Batch::default();
        while batch.items.len() < records && batch.bytes < bytes && batch.left_out < LEFT_OUT_MAX {
            let sealed = match self.follow.read() {
                Ok(Some(sealed)) => sealed,
                Ok(None) => {
                    self.trouble = 0;
                    batch.is_last = true;
                    break;
                }
                Err(error) => {
                    self.trouble(&error)?;
                    batch.is_last = true;
                    break;
                }
            };
            if !self.is_wanted(&sealed) {
                batch.left_out += 1;
                continue;
            }
            let item = Item::of(sealed, &self.origin);
            batch.bytes += self.target.size(&item, &self.origin);
            batch.items.push(item);
        }
        Ok(batch)
    }

    /// Says whether a record is exported. Where nothing is asked for, a line that is no record is exported as well.
    fn is_wanted(&mut self, sealed: &Sealed) -> bool {
        if let Some(since) = self.since {
            let time = Item::of(sealed.clone(), &self.origin).time();
            if time.is_some_and(|time| time < since) {
                return false;
            }
            // Those after the first are wanted whatever the host's clock said.
            self.since = None;
        }
        self.args.filter.trim().is_empty() || self.filter.matches(&sealed.line)
    }

    /// What is wrong with the ledger may pass while it is followed.
    fn trouble(&mut self, error: &FollowError) -> Result<()> {
        self.trouble += 1;
        if self.args.follow && self.trouble <= TROUBLE_MAX {
            return Ok(());
        }
        Err(refused(error, self.dir, self.args.cursor.as_deref()))
    }

    fn keep(&mut self) -> Result<()> {
        let cursor = self.follow.cursor(&self.args.filter);
        match (&mut self.kept, cursor) {
            (Some(kept), Some(cursor)) => kept.keep(cursor),
            _ => Ok(()),
        }
    }

    /// Says what was done.
    fn end(&self) -> Result<Exit> {
        let Told {
            exported,
            left_out,
            rejected,
            requests,
        } = self.told;
        let unsealed = self.follow.unsealed().context("read the ledger")?;
        let ledger = self.follow.ledger().as_str();
        if unsealed > 0 {
            self.screen.warn(format!(
                "{unsealed} records are under no checkpoint yet, and were not exported: the next run takes them"
            ));
        }
        if self.target.is_stdout() {
            self.screen.note(format!("{exported} records of {ledger}"));
        } else if self.screen.is_table() {
            let (ledger, target) = (printable(ledger), printable(&self.target.to_string()));
            let mut text = format!("{} {exported} records of {ledger} are at {target}", green("ok"));
            if left_out > 0 {
                text.push_str(&format!("; {left_out} were left out"));
            }
            if rejected > 0 {
                text.push_str(&format!("; it rejected {rejected} of them"));
            }
            self.screen.line(text)?;
        } else {
            let last = self.follow.cursor("");
            self.screen.document(&json!({
                "ledger": ledger, "to": self.target.to_string(), "exported": exported, "left_out": left_out,
                "rejected": rejected, "requests": requests, "unsealed": unsealed,
                "epoch": last.as_ref().map(|last| last.epoch), "record": last.as_ref().map(|last| last.record),
            }))?;
        }
        Ok(if rejected > 0 { Exit::Findings } else { Exit::Fine })
    }
}

/// A ledger that cannot be read on is an end with words for what can be done about it.
fn refused(error: &FollowError, dir: &Path, cursor: Option<&Path>) -> anyhow::Error {
    let (dir, cursor) = (
        dir.display(),
        cursor.map_or_else(|| "the cursor".to_owned(), |file| file.display().to_string()),
    );
    let anew =
        format!("to export what is there from its beginning, remove {cursor}: what arrives twice has the same id");
    let hint = match error {
        FollowError::OtherLedger { .. } => {
            format!("name the folder of the other ledger, or another file than {cursor}")
        }
        FollowError::Gone { record, first, .. } => format!(
            "records {record} to {} were pruned before they were exported, and are lost to this export unless a copy of the folder has them; {anew}",
            first.saturating_sub(1)
        ),
        FollowError::Short { .. } | FollowError::Differs { .. } => format!(
            "the ledger was set back, or replaced: `botmesh audit verify {dir}` and the heads that the CA cosigned (`botmesh audit heads`) tell; {anew}"
        ),
        FollowError::Unreadable { .. }
        | FollowError::Key { .. }
        | FollowError::Checkpoint { .. }
        | FollowError::Read { .. } => format!("`botmesh audit verify {dir}` says more"),
    };
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        message = format!("{message}: {next}");
        cause = next.source();
    }
    Failure::invalid_file(message).hint(hint).into()
}
