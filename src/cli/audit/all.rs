//! `audit query --all`: the ledgers of all hosts and of the CA, asked through the CA.

use std::collections::BTreeMap;

use anyhow::Result;
use audit::query::Key;
use ca_api::admin::{LEDGERS_WAIT_MAX, LedgerAnswered, LedgersAnswer, LedgersQuestion, path};
use serde_json::{Map, Value, json};

use super::line;
use super::line::short;
use super::query::text;
use crate::args::{AuditQuery, Format};
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure};
use crate::output::printable;

/// Rows of each ledger where nothing else is asked for.
const ROWS: u64 = 100;

/// How long the CA may take beyond what the ledgers may.
const BEYOND: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs the command.
pub(super) async fn run(args: &AuditQuery, context: &Context) -> Result<Exit> {
    if !args.dirs.is_empty() || args.no_index {
        return Err(Failure::usage("`--all` asks the CA, and takes neither folders nor `--no-index`").into());
    }
    let question = LedgersQuestion {
        filter: text(args),
        by: args.by.iter().map(|key| key.as_str().to_owned()).collect(),
        // Groups are added up here, so that as many of them come as may.
        limit: u32::try_from(args.limit.filter(|_| args.by.is_empty()).unwrap_or(ROWS))?,
    };
    let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
    let found: LedgersAnswer = server
        .post_within(path::LEDGERS, &question, LEDGERS_WAIT_MAX + BEYOND)
        .await?;
    let rows = if args.by.is_empty() {
        records(&found.ledgers)
    } else {
        groups(&found.ledgers, &args.by)
    };
    let shown = args.limit.map_or(Ok(usize::MAX), usize::try_from)?;
    let rows: Vec<Map<String, Value>> = rows.into_iter().take(shown).collect();
    show(&found, &rows, args, context)?;
    Ok(told(&found.ledgers, context))
}

fn show(found: &LedgersAnswer, rows: &[Map<String, Value>], args: &AuditQuery, context: &Context) -> Result<()> {
    let screen = &context.screen;
    if screen.format == Format::Json {
        let ledgers: Vec<Value> = found
            .ledgers
            .iter()
            .map(
                |one| json!({ "ledger": one.ledger, "rows": one.rows.len(), "more": one.more, "missing": one.missing }),
            )
            .collect();
        screen.document(&json!({ "ledgers": ledgers, "items": rows }))?;
    } else if screen.is_table() && !args.by.is_empty() {
        let headings: Vec<String> = args.by.iter().map(|key| key.as_str().to_uppercase()).collect();
        let headings: Vec<&str> = ["COUNT", "FIRST", "LAST"]
            .into_iter()
            .chain(headings.iter().map(String::as_str))
            .collect();
        let keys = ["count", "first", "last"]
            .into_iter()
            .chain(args.by.iter().map(|key| key.as_str()));
        let keys: Vec<&str> = keys.collect();
        screen.list(rows, &headings, |row| keys.iter().map(|key| cell(row, key)).collect())?;
    } else if screen.is_table() {
        for row in rows {
            let ledger = cell(row, "ledger");
            screen.line(format!("{ledger}  {}", line(&Value::Object(row.clone()))))?;
        }
    } else {
        rows.iter().try_for_each(|row| screen.document_line(row))?;
    }
    Ok(())
}

/// Says on stderr how many of how many answered, and which did not: less than all must not look like all.
fn told(ledgers: &[LedgerAnswered], context: &Context) -> Exit {
    let missing: Vec<_> = ledgers
        .iter()
        .filter_map(|one| Some((one, one.missing.as_ref()?)))
        .collect();
    let answered = ledgers.len() - missing.len();
    context
        .screen
        .warn(format!("{answered} of {} ledgers answered", ledgers.len()));
    for (one, why) in &missing {
        let (ledger, why) = (printable(&one.ledger), printable(why));
        context.screen.warn(format!("no answer: {ledger}: {why}"));
    }
    for one in ledgers.iter().filter(|one| one.more) {
        let ledger = printable(&one.ledger);
        context.screen.warn(format!(
            "{ledger} has more than was asked for: see `--limit`, `--since`"
        ));
    }
    if missing.is_empty() { Exit::Fine } else { Exit::Findings }
}

/// The records of all, oldest first, each with its ledger.
fn records(ledgers: &[LedgerAnswered]) -> Vec<Map<String, Value>> {
    let with_ledger = |one: &LedgerAnswered| {
        let ledger = one.ledger.clone();
        let rows = one.rows.clone().into_iter();
        rows.map(move |mut row| {
            row.insert("ledger".to_owned(), Value::from(ledger.clone()));
            row
        })
    };
    let mut rows: Vec<_> = ledgers.iter().flat_map(with_ledger).collect();
    // RFC 3339 in one zone and with equal digits sorts as time does.
    rows.sort_by_key(|row| row.get("time").and_then(Value::as_str).unwrap_or_default().to_owned());
    rows
}

/// The groups of all, added up, largest first.
fn groups(ledgers: &[LedgerAnswered], keys: &[Key]) -> Vec<Map<String, Value>> {
    let mut sums: BTreeMap<Vec<String>, Map<String, Value>> = BTreeMap::new();
    for row in ledgers.iter().flat_map(|one| &one.rows) {
        let values = keys
            .iter()
            .map(|key| row.get(key.as_str()).map_or_else(String::new, Value::to_string));
        let Some(sum) = sums.get_mut(&values.clone().collect::<Vec<_>>()) else {
            sums.insert(values.collect(), row.clone());
            continue;
        };
        let count = |of: &Map<String, Value>| of.get("count").and_then(Value::as_u64).unwrap_or_default();
        sum.insert("count".to_owned(), Value::from(count(sum).saturating_add(count(row))));
        for (key, is_next) in [
            ("first", std::cmp::Ordering::Less),
            ("last", std::cmp::Ordering::Greater),
        ] {
            let time = |of: &Map<String, Value>| of.get(key).and_then(Value::as_str).map(str::to_owned);
            let next = [time(sum), time(row)].into_iter().flatten();
            let next = next.reduce(|one, other| if other.cmp(&one) == is_next { other } else { one });
            sum.insert(key.to_owned(), json!(next));
        }
    }
    let mut groups: Vec<_> = sums.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.get("count").and_then(Value::as_u64)));
    groups
}

fn cell(row: &Map<String, Value>, key: &str) -> String {
    match row.get(key) {
        Some(Value::String(text)) if matches!(key, "from" | "to") => short(text),
        Some(Value::String(text)) => printable(text),
        Some(Value::Number(number)) => number.to_string(),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(name: &str, rows: Value) -> LedgerAnswered {
        LedgerAnswered {
            ledger: name.to_owned(),
            rows: serde_json::from_value(rows).unwrap(),
            more: false,
            missing: None,
        }
    }

    #[test]
    fn groups_of_all_ledgers_are_added_up() {
        let ledgers = [
            ledger(
                "host:a",
                json!([{ "rule": "r", "count": 2, "first": "2", "last": "3" }, { "rule": null, "count": 4, "first": "9", "last": "9" }]),
            ),
            ledger(
                "host:b",
                json!([{ "rule": "r", "count": 5, "first": "1", "last": "2" }]),
            ),
        ];
        let sums = groups(&ledgers, &[Key::Rule]);
        assert_eq!(
            json!(sums),
            json!([
                { "rule": "r", "count": 7, "first": "1", "last": "3" },
                { "rule": null, "count": 4, "first": "9", "last": "9" },
            ])
        );
    }

    #[test]
    fn records_of_all_ledgers_are_one_story_that_says_whose_each_is() {
        let ledgers = [
            ledger("host:a", json!([{ "time": "1" }, { "time": "4" }])),
            ledger("ca:ca-1", json!([{ "time": "2" }])),
        ];
        let told = records(&ledgers);
        let told: Vec<_> = told.iter().map(|row| (&row["time"], &row["ledger"])).collect();
        assert_eq!(json!(told), json!([["1", "host:a"], ["2", "ca:ca-1"], ["4", "host:a"]]));
    }
}
