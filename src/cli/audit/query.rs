//! `audit query`: the records that match, or how many there are of each sort.

use std::iter::Peekable;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use audit::ReadError;
use audit::query::{CountError, Counts, Filter, GROUP_KEYS_MAX, Group, Indexes, Key};
use serde_json::{Value, json};
use spiffe::time::Timestamp;

use super::line::short;
use super::{must_be_a_ledger, parsed, server_ledger, show};
use crate::args::{AuditQuery, Format};
use crate::cli::Context;
use crate::exit::{Exit, Failure};
use crate::output::{printable, table};

/// Runs the command.
pub(super) async fn run(args: AuditQuery, context: &Context) -> Result<Exit> {
    // The filter before the ledgers: a typing error is a usage error wherever they are.
    let filter = filter(&args, context.clock.now())?;
    if args.all {
        return super::all::run(&args, context).await;
    }
    let dirs = if args.dirs.is_empty() {
        vec![server_ledger(context).await?]
    } else {
        args.dirs.clone()
    };
    for dir in &dirs {
        must_be_a_ledger(dir)?;
    }
    let ledgers: Vec<_> = dirs
        .iter()
        .map(|dir| (dir.as_path(), indexes(dir, args.no_index)))
        .collect();
    if args.by.is_empty() {
        records(&ledgers, &filter, args.limit, context)
    } else {
        groups(&ledgers, &filter, &args, context)
    }
}

/// The filter with the times that were given beside it.
pub(super) fn text(args: &AuditQuery) -> String {
    let mut text = args.filter.clone();
    for (key, value) in [("since", &args.since), ("until", &args.until)] {
        if let Some(value) = value {
            text.push_str(&format!(" {key}={value}"));
        }
    }
    text
}

fn filter(args: &AuditQuery, now: Timestamp) -> Result<Filter> {
    if args.by.len() > GROUP_KEYS_MAX {
        return Err(Failure::usage(format!("--by takes at most {GROUP_KEYS_MAX} keys")).into());
    }
    parsed(&text(args), now)
}

/// Says what to do with the indexes of a ledger. They are stored by the user whose folder it is and nobody else: a folder of
/// a less trusted user is no place for files of root.
pub(crate) fn indexes(dir: &Path, none: bool) -> Indexes {
    if none {
        return Indexes::Ignore;
    }
    let is_ours = dir
        .metadata()
        .is_ok_and(|meta| meta.uid() == nix::unistd::geteuid().as_raw());
    if is_ours { Indexes::Write } else { Indexes::Read }
}

fn records(ledgers: &[(&Path, Indexes)], filter: &Filter, limit: Option<u64>, context: &Context) -> Result<Exit> {
    let ask = |(dir, indexes): &(&Path, Indexes)| {
        let found = audit::query::run(dir, filter.clone(), limit, *indexes);
        found.map(Iterator::peekable).context("read the ledger")
    };
    let found = ledgers.iter().map(ask).collect::<Result<_>>()?;
    let found = Merged(found).take(limit.map_or(Ok(usize::MAX), usize::try_from)?);
    let mut count: u64 = 0;
    if context.screen.format == Format::Json {
        let items = found.collect::<Result<Vec<Value>, _>>().context("read the ledger")?;
        count = items.len() as u64;
        context.screen.document(&json!({ "items": items }))?;
    } else {
        for record in found {
            show(&record.context("read the ledger")?, context)?;
            count += 1;
        }
    }
    context.screen.note(format!("{count} records"));
    Ok(Exit::Fine)
}

fn groups(ledgers: &[(&Path, Indexes)], filter: &Filter, args: &AuditQuery, context: &Context) -> Result<Exit> {
    let mut counts = Counts::by(&args.by);
    for (dir, indexes) in ledgers {
        counts.add(dir, filter, *indexes).map_err(|error| match error {
            CountError::TooManyGroups => Failure::usage(error.to_string()).into(),
            error @ CountError::Stopped => anyhow::Error::new(error),
            CountError::Read { source } => anyhow::Error::new(source).context("read the ledger"),
        })?;
    }
    let groups = counts.groups();
    let records = groups.iter().map(|group| group.count).sum::<u64>();
    let shown = groups.len().min(args.limit.map_or(Ok(usize::MAX), usize::try_from)?);
    let items: Vec<&Group> = groups.iter().take(shown).collect();
    let screen = &context.screen;
    if screen.is_table() {
        let headings: Vec<String> = args.by.iter().map(|key| key.as_str().to_uppercase()).collect();
        let headings: Vec<&str> = ["COUNT", "FIRST", "LAST"]
            .into_iter()
            .chain(headings.iter().map(String::as_str))
            .collect();
        let rows: Vec<_> = items.iter().map(|group| cells(group, &args.by)).collect();
        screen.line(table(&headings, &rows).trim_end())?;
    } else {
        let documents: Vec<Value> = items.iter().map(|group| group.document(&args.by)).collect();
        screen.list(&documents, &[], |_group| Vec::new())?;
    }
    screen.note(format!("{shown} of {} groups, {records} records", groups.len()));
    Ok(Exit::Fine)
}

fn cells(group: &Group, keys: &[Key]) -> Vec<String> {
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let value = |(key, value): (&Key, &Option<String>)| match value {
        Some(value) if matches!(key, Key::From | Key::To) => short(value),
        Some(value) => printable(value),
        None => "-".to_owned(),
    };
    let counted = [group.count.to_string(), time(group.first), time(group.last)];
    counted
        .into_iter()
        .chain(keys.iter().zip(&group.values).map(value))
        .collect()
}

/// Several ledgers as one story, oldest first: each is in the order of time, so the earliest of their heads is next.
struct Merged<I: Iterator<Item = Result<Value, ReadError>>>(Vec<Peekable<I>>);

impl<I: Iterator<Item = Result<Value, ReadError>>> Iterator for Merged<I> {
    type Item = Result<Value, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        // RFC 3339 in one zone and with equal digits sorts as time does. What cannot be read is told before anything else.
        let time = |head: &Result<Value, ReadError>| {
            let time = head
                .as_ref()
                .ok()
                .and_then(|record| record.get("time"))
                .and_then(Value::as_str);
            time.unwrap_or_default().to_owned()
        };
        let heads = self
            .0
            .iter_mut()
            .filter_map(|ledger| Some((time(ledger.peek()?), ledger)));
        let (_, earliest) = heads.min_by(|(one, _), (other, _)| one.cmp(other))?;
        earliest.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_stored_in_folders_of_our_own_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(indexes(dir.path(), false), Indexes::Write);
        assert_eq!(indexes(dir.path(), true), Indexes::Ignore);
        // Somebody else's: root's where we are not root, and else one that we give away.
        let others = if nix::unistd::geteuid().is_root() {
            nix::unistd::chown(dir.path(), Some(12_345.into()), None).unwrap();
            dir.path()
        } else {
            Path::new("/")
        };
        assert_eq!(indexes(others, false), Indexes::Read);
    }

    #[test]
    fn several_ledgers_are_told_in_the_order_of_time_and_an_unreadable_one_first() {
        let record = |second: u8| Ok(json!({ "time": format!("2026-11-22T12:00:0{second}.000Z") }));
        let ledger = |seconds: &[u8]| seconds.iter().map(|second| record(*second)).collect::<Vec<_>>();
        let story = |ledgers: Vec<Vec<Result<Value, ReadError>>>| {
            Merged(
                ledgers
                    .into_iter()
                    .map(|ledger| ledger.into_iter().peekable())
                    .collect(),
            )
        };
        let all: Vec<Value> = story(vec![ledger(&[1, 4]), ledger(&[]), ledger(&[2, 3])])
            .map(Result::unwrap)
            .collect();
        let wanted: Vec<Value> = ledger(&[1, 2, 3, 4]).into_iter().map(Result::unwrap).collect();
        assert_eq!(all, wanted);
        let unreadable = ReadError::TooLong {
            index: 7,
            path: "x".into(),
            offset: 0,
        };
        assert!(
            story(vec![ledger(&[1]), vec![Err(unreadable)]])
                .next()
                .unwrap()
                .is_err()
        );
    }
}
