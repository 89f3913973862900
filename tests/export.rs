//! Records handed on: to a server of OTLP, over links that are cut and with answers that are lost, and into files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use audit::{CallId, CallRecord, Direction, Ledger, LedgerConfig, Start, Verdict};
use serde_json::Value;
use spiffe::time::Clock;

mod collector;
mod forms;
mod refusals;

use crate::support::{Process, both, botmesh, eventually, run};
use collector::{Collector, Plan, Taken};

/// A folder with a ledger and what an export keeps beside it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A ledger with so many records, which is not written to any more.
    fn filled(records: u64) -> Self {
        let place = Self::new();
        let ledger = place.open();
        write(&ledger, 1..records);
        ledger.shutdown();
        place
    }

    fn open(&self) -> Ledger {
        let config = LedgerConfig {
            dir: self.ledger(),
            key_file: self.0.path().join("log.key"),
            origin: "acme.internal/host/web-1".to_owned(),
            sync: Duration::from_millis(20),
            max_bytes: 1 << 30,
            retention: None,
        };
        Ledger::open_or_begin(config, Clock::system()).unwrap().0
    }

    fn ledger(&self) -> PathBuf {
        self.0.path().join("ledger")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn cursor(&self) -> Value {
        serde_json::from_slice(&fs::read(self.file("cursor")).unwrap()).unwrap()
    }

    /// The lines of the ledger, in order.
    fn lines(&self) -> Vec<String> {
        let tail = audit::tail(&self.ledger(), Start::First).unwrap();
        tail.map(|entry| String::from_utf8(entry.unwrap().line).unwrap())
            .collect()
    }

    /// An export of this ledger that keeps its place.
    fn export(&self, to: &str) -> Command {
        let mut command = botmesh();
        command
            .args(["audit", "export"])
            .arg(self.ledger())
            .args(["--to", to, "--cursor"]);
        command.arg(self.file("cursor"));
        command
    }

    fn follow(&self, to: &str, more: &[&str]) -> Process {
        let mut command = self.export(to);
        command.arg("--follow").args(more);
        Process::spawn(command, self.file("export.log"))
    }
}

fn id(number: u64) -> CallId {
    CallId::from_bytes((0x0199_0000_0000_7000_8000_u128 << 48 | u128::from(number)).to_be_bytes())
}

fn call(number: u64) -> CallRecord {
    CallRecord {
        method: "GET".to_owned(),
        path: format!("/orders/{number}"),
        verdict: Verdict::Allow,
        rule: Some("reads".to_owned()),
        trace: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        ..CallRecord::new(id(number), Clock::system().now(), Direction::Out)
    }
}

fn write(ledger: &Ledger, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let _receipt = ledger.call(&call(number)).unwrap();
    }
}

fn told(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Asserts that all records came, and what came twice is the same under the same name; gives how many did.
fn all_came(taken: &[Taken], lines: &[String]) -> usize {
    let mut found: BTreeMap<&str, &Taken> = BTreeMap::new();
    let mut twice = 0;
    for one in taken {
        if let Some(before) = found.insert(&one.uid, one) {
            assert_eq!(before, one, "one name, two records");
            twice += 1;
        }
    }
    let place = |uid: &str| -> usize {
        let (_, rest) = uid.split_once('#').unwrap();
        rest.split('.').nth(1).unwrap().parse().unwrap()
    };
    let mut by_place: Vec<(usize, &str)> = found.values().map(|one| (place(&one.uid), one.line.as_str())).collect();
    by_place.sort_unstable();
    let wanted: Vec<(usize, &str)> = lines.iter().map(String::as_str).enumerate().collect();
    assert_eq!(by_place.len(), wanted.len(), "records are missing");
    assert!(by_place == wanted, "what came is not what is in the ledger");
    twice
}

#[test]
fn a_cut_link_loses_nothing_and_what_comes_twice_has_one_name() {
    let place = Place::filled(2200);
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let server = Collector::start(&[Plan::Take, Plan::TakeAndCut, Plan::Say(unavailable), Plan::Cut]);
    let out = run(place.export(&server.url()).args(["--batch-records", "500"]));
    assert!(out.status.success(), "{}", both(&out));
    assert_eq!(all_came(&server.taken(), &place.lines()), 500);
    let sizes: Vec<usize> = server.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [500, 500, 500, 500, 500, 200]);
    let said = told(&out);
    assert!(
        said.contains("takes nothing, and 500 records wait: it answered 503"),
        "{said}"
    );
    assert!(said.contains("takes records again, after "), "{said}");
    assert!(
        both(&out).contains("2200 records of acme.internal/host/web-1 are at http://127.0.0.1:"),
        "{}",
        both(&out)
    );
    let first = &server.taken()[1];
    assert_eq!((first.event.as_str(), first.trace.len()), ("botmesh.call", 16));
    let resource = &server.resources()[0];
    let named =
        ["service.namespace", "service.name", "host.name", "service.instance.id"].map(|key| resource[key].as_str());
    assert_eq!(
        named,
        ["acme.internal", "botmesh-proxy", "web-1", "acme.internal/host/web-1"]
    );
    // Nothing is left for a second run.
    assert_eq!(place.cursor()["record"], 2199);
    let out = run(place.export(&server.url()).args(["-o", "json"]));
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (report["exported"].clone(), report["record"].clone()),
        (0.into(), 2199.into())
    );
    assert_eq!(server.batches().len(), 6);
}

#[test]
fn an_export_that_is_killed_goes_on_where_it_was_and_repeats_only_what_was_not_acknowledged() {
    let place = Place::filled(900);
    let server = Collector::start(&[Plan::Take, Plan::Take, Plan::TakeAndHold]);
    let mut export = place.follow(&server.url(), &["--batch-records", "200"]);
    eventually("the request that is not answered", || {
        (server.batches().len() == 3).then_some(())
    });
    export.kill();
    assert_eq!(place.cursor()["record"], 399);
    let mut export = place.follow(&server.url(), &["--batch-records", "200"]);
    eventually("the rest", || (server.taken().len() == 1100).then_some(()));
    // Killed where nothing is under way, and started when there is more.
    eventually("the place", || (place.cursor()["record"] == 899).then_some(()));
    export.kill();
    let ledger = place.open();
    write(&ledger, 900..1000);
    ledger.shutdown();
    let mut export = place.follow(&server.url(), &[]);
    eventually("what is new", || (server.taken().len() == 1200).then_some(()));
    eventually("the place", || (place.cursor()["record"] == 999).then_some(()));
    assert!(export.terminate().success(), "{}", export.log());
    assert_eq!(all_came(&server.taken(), &place.lines()), 200);
}

/// A call whose record is as long as one can be.
fn long(number: u64) -> CallRecord {
    CallRecord {
        path: format!("/{}", "x".repeat(32_000)),
        ..call(number)
    }
}

#[test]
fn it_goes_on_over_segments_and_epochs_of_a_ledger_that_grows() {
    let place = Place::filled(10);
    let server = Collector::start(&[]);
    let mut export = place.follow(&server.url(), &["--filter", "path=/orders/*"]);
    eventually("what is there", || (server.taken().len() == 9).then_some(()));
    let ledger = place.open();
    for number in 100..2300 {
        let _receipt = ledger.call(&long(number)).unwrap();
    }
    write(&ledger, 10..20);
    ledger.shutdown();
    assert_eq!(fs::read_dir(place.ledger().join("segments")).unwrap().count(), 2);
    eventually("what is in the next segment", || {
        (server.taken().len() == 19).then_some(())
    });
    assert!(export.terminate().success(), "{}", export.log());
    let ledger = place.open();
    write(&ledger, 20..23);
    ledger.shutdown();
    // The host finds its ledger altered, puts it aside, and begins another in its place.
    let segments = fs::read_dir(place.ledger().join("segments")).unwrap();
    let last = segments.map(|one| one.unwrap().path()).max().unwrap();
    let text = fs::read_to_string(&last).unwrap();
    fs::write(&last, text.replacen("/orders/12\"", "/orders/21\"", 1)).unwrap();
    let ledger = place.open();
    write(&ledger, 30..34);
    ledger.shutdown();
    assert!(place.ledger().join("set-aside/1").is_dir());
    let mut export = place.follow(&server.url(), &["--filter", "path=/orders/*"]);
    eventually("what is in the new ledger", || {
        (server.taken().len() == 26).then_some(())
    });
    assert!(export.terminate().success(), "{}", export.log());
    let taken = server.taken();
    let names: BTreeSet<&str> = taken.iter().map(|one| one.uid.as_str()).collect();
    assert_eq!(names.len(), 26, "nothing came twice");
    let epochs: Vec<&str> = taken.iter().map(|one| &one.uid[24..27]).collect();
    assert_eq!(epochs[19..], ["#1.", "#1.", "#1.", "#2.", "#2.", "#2.", "#2."]);
    assert_eq!(place.cursor()["epoch"], 2);
}
