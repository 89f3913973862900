//! `audit reconcile`: the two ends of calls, held against each other.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use audit::reconcile::{Disagreement, Finding, Report};
use serde::Serialize;

use super::must_be_a_ledger;
use crate::args::AuditReconcile;
use crate::cli::Context;
use crate::exit::Exit;
use crate::output::{bold, green, printable, red};

/// A finding, as scripts read it.
#[derive(Serialize)]
struct Row<'a> {
    what: &'static str,
    call: String,
    time: String,
    from: &'a str,
    to: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callee: Option<String>,
    records: Vec<Place<'a>>,
}

#[derive(Serialize)]
struct Place<'a> {
    ledger: &'a Path,
    record: u64,
}

/// What was looked at.
#[derive(Serialize)]
struct Document<'a> {
    outgoing: u64,
    incoming: u64,
    paired: u64,
    not_listed: u64,
    hashed: u64,
    open: std::collections::BTreeMap<&'static str, u64>,
    items: Vec<Row<'a>>,
}

/// Runs the command.
pub(super) fn run(args: &AuditReconcile, context: &Context) -> Result<Exit> {
    for dir in &args.dirs {
        must_be_a_ledger(dir)?;
    }
    let dirs: Vec<&Path> = args.dirs.iter().map(PathBuf::as_path).collect();
    let report = audit::reconcile::reconcile(&dirs).context("read the ledgers")?;
    let screen = &context.screen;
    let items: Vec<Row<'_>> = report.findings.iter().map(|found| row(found, &dirs)).collect();
    if screen.is_table() {
        for item in &items {
            screen.line(told(item))?;
        }
        screen.line(summary(&report))?;
    } else {
        let open = report.open.iter().map(|(why, count)| (why.as_str(), *count));
        screen.document(&Document {
            outgoing: report.outgoing,
            incoming: report.incoming,
            paired: report.paired,
            not_listed: report.more,
            hashed: report.hashed,
            open: open.collect(),
            items,
        })?;
    }
    Ok(if report.findings.is_empty() {
        Exit::Fine
    } else {
        Exit::Findings
    })
}

fn row<'a>(found: &'a Finding, dirs: &[&'a Path]) -> Row<'a> {
    let (key, caller, callee) = match &found.what {
        Disagreement::Differs { key, caller, callee } => (Some(*key), Some(caller.clone()), Some(callee.clone())),
        Disagreement::Repeated { times, tries } => (Some("times"), Some(tries.to_string()), Some(times.to_string())),
        Disagreement::NotAtCallee | Disagreement::NotAtCaller => (None, None, None),
    };
    let records = found.records.iter().filter_map(|(ledger, record)| {
        Some(Place {
            ledger: dirs.get(*ledger)?,
            record: *record,
        })
    });
    Row {
        what: found.what.as_str(),
        call: found.call.to_string(),
        time: found.time.to_string(),
        from: &found.from,
        to: &found.to,
        key,
        caller,
        callee,
        records: records.collect(),
    }
}

fn told(row: &Row<'_>) -> String {
    let what = match (row.what, row.key, &row.caller, &row.callee) {
        ("not_at_callee", ..) => "answered, as its caller has it, and not in the callee's ledger".to_owned(),
        ("not_at_caller", ..) => "in the callee's ledger, and not in its caller's".to_owned(),
        (_, Some(key), Some(caller), Some(callee)) => {
            format!(
                "{key} is {} at the caller's, {} at the callee's",
                shown(caller),
                shown(callee)
            )
        }
        _ => row.what.to_owned(),
    };
    let records: Vec<String> = row
        .records
        .iter()
        .map(|place| format!("{} #{}", place.ledger.display(), place.record))
        .collect();
    format!(
        "{} {} {} {} → {}: {what}\n    {}",
        red(row.what),
        row.time,
        bold(&row.call),
        printable(row.from),
        printable(row.to),
        records.join(", ")
    )
}

/// A text that somebody else chose, or that it is empty.
fn shown(text: &str) -> String {
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        printable(text)
    }
}

fn summary(report: &Report) -> String {
    let found = report.findings.len() as u64 + report.more;
    let mut text = match found {
        0 => format!("{} {} calls have both ends alike", green("ok"), report.paired),
        found => format!(
            "{} {found} calls or parts of one do not agree; {} have both ends",
            red("disagree"),
            report.paired
        ),
    };
    for (why, count) in &report.open {
        let why = match why.as_str() {
            "not_given" => "with an end whose ledger is not here",
            "not_reached" => "that did not get to their callee or were broken off",
            "edge" => "at the beginning or the end of a ledger, or without an end",
            "counted" => "that the callee refused and counted in place of a record each",
            "foreign" => "from peers that are no botmesh",
            _ => "with one end here that nobody looked at, for there are too many",
        };
        text.push_str(&format!("; {count} {why}"));
    }
    if report.hashed > 0 {
        let hashed = report.hashed;
        text.push_str(&format!(
            "; the paths of {hashed} are hashes of two hosts' keys and were not compared"
        ));
    }
    if report.more > 0 {
        text.push_str(&format!("; {} are not listed", report.more));
    }
    text
}
