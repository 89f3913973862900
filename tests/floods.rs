//! Ten minutes of strangers' handshakes and of refused calls, at full speed: a normal bot notices nothing, and the
//! ledgers keep what they took within its share.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::foreign::sni;
use crate::spine::{CHECKOUT, NOBODY, REPORT, with_callees};
use crate::support::hand::Hand;
use crate::support::{Caller, Host, Mesh, PYTHON, Setup, as_user, eventually, http_get, root_or_skip};

const MAX_BYTES: u64 = 4 << 20;
const HANDSHAKES: u64 = 20_000;
const SOURCES: u64 = 3_000;
const REFUSED: u64 = 50_000;
const UNKNOWN: u64 = 10_000;

/// How much of the ten minutes goes by while fifty calls are refused: 83 in a second.
const STEP: Duration = Duration::from_millis(600);

/// Calls per second of the bot that must not notice.
const RATE: &str = "50";

/// By how much the slowest of a hundred of its calls may be slower during the floods: the machine has two cores, and
/// the floods' own processes are on them too.
const SLOWER_MAX: f64 = 25.0;
/// A quiet machine answers so fast that a multiple says nothing below this, in milliseconds.
const SLOW_MIN: f64 = 10.0;

/// A script of `tests/support` as a user.
fn script(text: &str, uid: u32, words: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut command = as_user(PYTHON, uid);
    command.args(["-c", text]).args(words);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let from = BufReader::new(child.stdout.take().expect("stdout"));
    (child, from)
}

/// A bot that calls at a steady rate, and whether until it is told to end.
pub(crate) struct Steady(Child, BufReader<ChildStdout>, bool);

impl Steady {
    fn start(mesh: &Mesh) -> Self {
        Self::of(mesh, RATE, None)
    }

    /// With so many calls a second, and so many in all where that is said.
    pub(crate) fn of(mesh: &Mesh, rate: &str, calls: Option<usize>) -> Self {
        let at = mesh.host("web-1").bot_socket();
        let calls = calls.map(|calls| calls.to_string());
        let mut words = vec![at.as_str(), "orders.prod.mesh", "/orders/17", rate];
        words.extend(calls.as_deref());
        let (child, mut from) = script(include_str!("support/steady.py"), CHECKOUT, &words);
        let mut line = String::new();
        from.read_line(&mut line).expect("a line");
        assert_eq!(line, "calls\n");
        Self(child, from, calls.is_none())
    }

    /// Ends it, or waits for its end: how many calls it made, and the milliseconds of the slowest of a hundred. All must have been answered.
    pub(crate) fn end(mut self) -> (usize, f64) {
        if self.2 {
            drop(self.0.stdin.take());
        }
        let told: Value = serde_json::from_reader(self.1).expect("JSON");
        self.0.wait().expect("it ends");
        assert_eq!(told["failed"], Value::Array(Vec::new()));
        let mut took: Vec<f64> = told["took"]
            .as_array()
            .expect("figures")
            .iter()
            .filter_map(Value::as_f64)
            .collect();
        took.sort_unstable_by(f64::total_cmp);
        (took.len(), took[took.len() * 99 / 100])
    }
}

/// The bytes of a ledger by who caused them: calls with all else, refusals of named callers, strangers.
fn bytes_by_share(ledger: &Path) -> [u64; 3] {
    let mut bytes = [0; 3];
    for entry in std::fs::read_dir(ledger.join("segments")).expect("segments") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a segment");
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).expect("a record");
            let named = record["from"]["id"].is_string();
            let share = match record["kind"].as_str().expect("a kind") {
                "strangers" => 2,
                "refusals" if !named && record["from"].get("uid").is_some() => 2,
                "refusals" => 1,
                "call" if record["verdict"] == "deny" => {
                    if named {
                        1
                    } else {
                        2
                    }
                }
                _ => 0,
            };
            bytes[share] += line.len() as u64 + 1 + 32;
        }
    }
    bytes
}

/// The bytes of a folder's files.
fn on_disk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let meta = entry.metadata().expect("metadata");
            if meta.is_dir() {
                on_disk(&entry.path())
            } else {
                meta.len()
            }
        })
        .sum()
}

pub(crate) fn metric(host: &Host, name: &str) -> u64 {
    let (_, text) = http_get(host.ports.metrics, "/metrics").expect("metrics");
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name}: {text}"))
}

/// Refusals and handshakes, until all are done; the clock goes on with the refusals.
fn flood(mesh: &Mesh, hand: &Hand) {
    let at = mesh.host("web-1").bot_socket();
    let port = mesh.host("web-2").ports.mesh.to_string();
    let (count, sources, unknown) = (HANDSHAKES.to_string(), SOURCES.to_string(), UNKNOWN.to_string());
    let words = [port.as_str(), &sni("prod/orders"), &count, &sources];
    let (mut strangers, from) = script(include_str!("support/handshakes.py"), NOBODY, &words);
    let words = [at.as_str(), &unknown, "unknown_caller"];
    let (mut nobody, of_nobody) = script(include_str!("support/refused.py"), NOBODY, &words);
    let refused = REFUSED.to_string();
    let words = [at.as_str(), &refused, "no_rule"];
    let (mut report, of_report) = script(include_str!("support/refused.py"), REPORT, &words);
    // Read apart, or its pipe is full.
    let reader = std::thread::spawn(move || of_nobody.lines().last().expect("a line").expect("text"));
    let mut last = String::new();
    for line in of_report.lines() {
        last = line.expect("text");
        hand.forward(STEP);
    }
    assert_eq!(last, format!("so far {REFUSED}"));
    assert_eq!(reader.join().expect("it ends"), format!("so far {UNKNOWN}"));
    let done: Vec<String> = from.lines().map(|line| line.expect("text")).collect();
    assert_eq!(done, [format!("done {HANDSHAKES}")]);
    for child in [&mut strangers, &mut nobody, &mut report] {
        assert!(child.wait().expect("it ends").success());
    }
}

#[test]
fn floods_of_handshakes_and_of_refused_calls_do_not_touch_a_normal_bot_and_stay_in_their_shares() {
    if !root_or_skip("floods") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
    let hand = Hand::new(dir.path());
    let mut mesh = with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        ledger: ", max_bytes: 4MiB",
        clock: Some(hand.path()),
        alone: true,
        ..Setup::default()
    });
    let quiet = Steady::start(&mesh);
    eventually("two hundred quiet calls", || {
        (metric(mesh.host("web-1"), "botmesh_ledger_records ") > 400).then_some(())
    });
    let (quiet_calls, quiet) = quiet.end();
    let (bot, began) = (Steady::start(&mesh), std::time::Instant::now());
    flood(&mesh, &hand);
    let took = began.elapsed();
    let (calls, busy) = bot.end();
    println!(
        "{HANDSHAKES} failed handshakes of {SOURCES} sources, {REFUSED} calls without a rule, {UNKNOWN} of an unknown user: ten minutes of the mesh's time, {took:.1?} of ours"
    );
    println!(
        "a normal bot at {RATE}/s meanwhile: {calls} calls, 0 failed, p99 {busy:.1} ms ({:.1} times that of {quiet_calls} quiet calls, {quiet:.1} ms; most {SLOWER_MAX})",
        busy / quiet
    );
    assert!(busy <= SLOWER_MAX * quiet.max(SLOW_MIN), "{busy} {quiet}");
    // A share that is full changes no answer.
    let refusal =
        Caller::new(REPORT, &mesh.host("web-1").bot_socket()).call("DELETE", "orders.prod.mesh", "/orders/17");
    assert_eq!(
        (refusal.status, refusal.reason().as_str()),
        (403, "no_rule"),
        "{}",
        refusal.body
    );
    // The minute of the last handshakes is over.
    hand.forward(Duration::from_mins(1));
    for (host, full) in [("web-1", "refusals"), ("web-2", "strangers")] {
        judge(&mut mesh, host, full);
    }
}

/// What was counted where, on one host, whose share `full` was reached.
fn judge(mesh: &mut Mesh, host: &str, full: &str) {
    let dropped = format!("botmesh_ledger_dropped{{share=\"{full}\"}} ");
    let dropped = eventually("the share to be full", || {
        Some(metric(mesh.host(host), &dropped)).filter(|dropped| *dropped > 0)
    });
    assert!(mesh.host_mut(host).process.terminate().success());
    let ledger = mesh.host(host).ledger();
    let alerts = mesh.host(host).query("kind=alert");
    let told = alerts
        .iter()
        .filter(|alert| alert["detail"]["share"] == full || alert["share"] == full)
        .count();
    assert!((1..=20).contains(&told), "{alerts:?}");
    let (bytes, disk) = (bytes_by_share(&ledger), on_disk(&ledger));
    let percent = bytes.map(|bytes| bytes as f64 * 100.0 / MAX_BYTES as f64);
    println!(
        "{host}: calls {:.2} % of max_bytes, refusals {:.2} %, unauthenticated {:.2} %; {dropped} of the share of {full} only counted, {told} alerts; {disk} bytes on disk",
        percent[0], percent[1], percent[2]
    );
    assert!(
        percent[0] <= 80.0 && percent[1] <= 15.0 && percent[2] <= 5.0,
        "{percent:?}"
    );
    assert!(
        percent[if full == "refusals" { 1 } else { 2 }] > if full == "refusals" { 14.5 } else { 4.5 },
        "reached: {percent:?}"
    );
    assert!(disk <= MAX_BYTES, "{disk}");
    let out = mesh.host(host).verify();
    assert!(out.status.success(), "{}", crate::support::both(&out));
    let log = std::fs::metadata(mesh.host(host).dir.join("proxy.log"))
        .expect("the log")
        .len();
    assert!(log < 1 << 20, "strangers filled the log with {log} bytes");
}
