//! What was answered survives `kill -9`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use audit::Ledger;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, TestRunner};
use spiffe::time::Clock;

use crate::support::{Place, call, config, end};

/// Names the folder to the child: this same test, run by itself.
const FOLDER: &str = "BOTMESH_AUDIT_CRASH_FOLDER";

/// The process that is killed. It appends from three threads and prints the
/// index of each receipt.
#[expect(clippy::print_stdout, reason = "its parent reads what it prints")]
fn append_for_ever(folder: &Path) {
    let config = config(folder, Duration::from_millis(1), 1 << 30);
    let (ledger, _) = Ledger::open(config, Clock::system()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let ledger = &ledger;
            scope.spawn(move || {
                for number in 0.. {
                    let number = thread * 1_000_000 + number;
                    let receipt = ledger.call(&call(number)).unwrap();
                    println!("receipt {} {number}", receipt.index());
                    ledger.end(&end(number));
                }
            });
        }
    });
}

/// Runs the child until it has printed `receipts`, kills it, and returns all
/// pairs of index and number that it printed.
fn killed_after(folder: &Path, receipts: usize) -> Vec<(u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", THIS])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    let mut seen = 0;
    while seen < receipts && out.read_line(&mut text).unwrap() > 0 {
        seen += 1;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    out.read_to_string(&mut text).unwrap();
    // The last line may be torn by the kill; it was then not an answer.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(receipt).collect()
}

fn receipt(line: &str) -> Option<(u64, u64)> {
    let (_, receipt) = line.split_once("receipt ")?;
    let (index, number) = receipt.split_once(' ')?;
    Some((index.parse().ok()?, number.parse().ok()?))
}

const THIS: &str = "crash::nothing_answered_is_lost_by_killing_the_process";

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the parent has no other way to name the folder to its child"
)]
fn nothing_answered_is_lost_by_killing_the_process() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return append_for_ever(Path::new(&folder));
    }
    let place = Place::new();
    let mut answered = Vec::new();
    let mut runner = TestRunner::new(Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    });
    let mut moments = Vec::new();
    for _ in 0..12 {
        moments.push((1..3000_usize).new_tree(&mut runner).unwrap().current());
    }
    println!("killed after {moments:?} receipts");
    for receipts in moments {
        answered.extend(killed_after(place.folder.path(), receipts));
        // A ledger as the crash left it accuses nobody.
        place.verify().unwrap_or_else(|failure| panic!("{failure}"));
        let (ledger, report) = place.try_open().unwrap();
        ledger.shutdown();
        let after = place.verify().unwrap();
        assert_eq!((after.not_covered, after.torn_bytes), (0, 0), "{report:?}");
    }
    let lines = place.lines();
    assert!(answered.len() > 12);
    for (index, number) in answered {
        let line = &lines[usize::try_from(index).unwrap()];
        assert_eq!(line["kind"], "call", "{index}");
        assert_eq!(line["id"], crate::support::id(number).to_string(), "{index}");
    }
}
