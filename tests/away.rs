//! Life without the CA, and with clocks that jump: what goes on, for how long, and what never comes back.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::kill::{Streaming, now_ms};
use crate::spine::{CHECKOUT, REPORT, two_hosts_at, with_callees};
use crate::support::hand::Hand;
use crate::support::{Answer, Caller, Mesh, Setup, eventually, http_get, ok, root_or_skip};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("bm").tempdir().expect("a folder")
}

/// What a proxy's admin socket says at a path.
fn told(mesh: &Mesh, host: &str, path: &str) -> Option<Value> {
    let socket = mesh.host(host).admin().replacen("unix:", "", 1);
    let out = crate::support::run(
        Command::new("curl")
            .args(["-sS", "--unix-socket", &socket])
            .arg(format!("http://proxy{path}")),
    );
    serde_json::from_slice(&out.stdout).ok()
}

fn unix_ms(told: &Value) -> Option<i64> {
    spiffe::time::Timestamp::from_rfc3339(told.as_str()?)
        .ok()
        .map(|time| time.unix_millis())
}

/// Serial and end of a bot's SVID that its proxy shows.
pub(crate) fn svid(mesh: &Mesh, host: &str, bot: &str) -> Option<(String, i64)> {
    let told = told(mesh, host, "/v1/bots")?;
    let bot = told["bots"].as_array()?.iter().find(|b| b["bot"] == bot)?.clone();
    Some((bot["serial"].as_str()?.to_owned(), unix_ms(&bot["not_after"])?))
}

/// The serial number of a bot's SVID.
pub(crate) fn serial(mesh: &Mesh, host: &str, bot: &str) -> Option<String> {
    svid(mesh, host, bot).map(|(serial, _)| serial)
}

/// Waits until the time of both hosts is what the clock shows, so that no call runs at two times.
fn arrived(hand: &Hand, mesh: &Mesh) {
    for host in ["web-1", "web-2"] {
        arrived_at(host, hand, mesh);
    }
}

/// Waits until the time of one host is.
pub(crate) fn arrived_at(host: &str, hand: &Hand, mesh: &Mesh) {
    eventually("the clock to arrive", || {
        (unix_ms(&told(mesh, host, "/v1/status")?["now"])? >= hand.shows()).then_some(())
    });
}

fn get(caller: &mut Caller) -> Answer {
    caller.call("GET", "orders.prod.mesh", "/orders/17")
}

fn refused(answer: &Answer) -> (u64, String) {
    (answer.status, answer.reason())
}

fn no_identity() -> (u64, String) {
    (503, "no_identity".to_owned())
}

/// Calls without a break, except while somebody holds the gate.
struct Load {
    gate: Arc<Mutex<()>>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    /// What was refused: the time after the answer, status and reason.
    refused: Arc<Mutex<Vec<(i64, u64, String)>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(mesh: &Mesh, hand: &Hand) -> Self {
        let mut load = Self {
            gate: Arc::default(),
            stop: Arc::default(),
            done: Arc::default(),
            refused: Arc::default(),
            thread: None,
        };
        let (gate, stop, done) = (Arc::clone(&load.gate), Arc::clone(&load.stop), Arc::clone(&load.done));
        let (refused, hand, at) = (Arc::clone(&load.refused), hand.clone(), mesh.host("web-1").bot_socket());
        let thread = std::thread::spawn(move || {
            let mut caller = Caller::new(CHECKOUT, &at);
            while !stop.load(Ordering::Relaxed) {
                let gate = gate.lock().unwrap();
                let answer = get(&mut caller);
                drop(gate);
                if answer.status != 200 {
                    refused
                        .lock()
                        .unwrap()
                        .push((hand.shows(), answer.status, answer.reason()));
                }
                done.fetch_add(1, Ordering::Relaxed);
                // Lets whoever waits at the gate in.
                std::thread::yield_now();
            }
        });
        load.thread = Some(thread);
        load
    }

    /// Moves the clock between two calls.
    fn forward(&self, hand: &Hand, mesh: &Mesh, by: Duration) {
        let gate = self.gate.lock().unwrap();
        hand.forward(by);
        arrived(hand, mesh);
        drop(gate);
        let until = self.done.load(Ordering::Relaxed) + 20;
        eventually("twenty calls", || {
            (self.done.load(Ordering::Relaxed) >= until).then_some(())
        });
    }

    fn refused(&self) -> Vec<(i64, u64, String)> {
        self.refused.lock().unwrap().clone()
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Makes every SVID of the mesh live for a minute, and waits until each does.
fn live_for_a_minute(hand: &Hand, mesh: &Mesh) -> i64 {
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    mesh.apply(&text.replace("{owner:", "{svid_ttl: 60s, owner:"));
    // 45 % of an hour is 27 minutes: each of the long ones is renewed.
    hand.forward(28 * MINUTE);
    let ends = [("web-1", "prod/checkout"), ("web-2", "prod/orders")].map(|(host, bot)| {
        eventually("an SVID of a minute", || {
            let (_, end) = svid(mesh, host, bot)?;
            (end <= hand.shows() + 60_000).then_some(end)
        })
    });
    assert_eq!(ends[0], ends[1], "both were issued at one time of the test's clock");
    ends[0]
}

#[test]
fn without_the_ca_calls_go_on_to_the_end_of_an_svid_and_resume_by_themselves() {
    if !root_or_skip("a CA that is away") {
        return;
    }
    let dir = folder();
    let hand = Hand::new(dir.path());
    let mut mesh = two_hosts_at(&hand);
    let end = live_for_a_minute(&hand, &mesh);
    let load = Load::start(&mesh, &hand);
    mesh.ca.kill();
    for _ in 0..6 {
        load.forward(&hand, &mesh, 5 * SECOND);
    }
    assert_eq!(load.refused(), [], "30 s without the CA");
    println!("svid_ttl 60s, CA away for 30 s: {} calls, 0 refused", load.done());
    for _ in 0..12 {
        load.forward(&hand, &mesh, 5 * SECOND);
    }
    let refused = load.refused();
    assert!(!refused.is_empty(), "an SVID that has ended carries no call");
    for (at, status, reason) in &refused {
        assert!(*at >= end, "{reason} {} ms before the end", end - at);
        assert_eq!((*status, reason.as_str()), (503, "no_identity"));
    }
    let (count, first) = (refused.len(), refused[0].0 - end);
    println!(
        "CA away for 90 s: {count} of {} calls refused, the first {first} ms after the end, all no_identity",
        load.done()
    );
    mesh.restart_ca();
    eventually("calls again", || {
        let before = load.refused().len();
        let done = load.done() + 5;
        eventually("five calls", || (load.done() >= done).then_some(()));
        (load.refused().len() == before).then_some(())
    });
}

#[test]
fn half_an_hour_without_the_ca_fails_no_call_with_restarts_of_both_proxies_in_the_middle() {
    if !root_or_skip("half an hour without the CA") {
        return;
    }
    let dir = folder();
    let hand = Hand::new(dir.path());
    let mut mesh = two_hosts_at(&hand);
    let hosts = [("web-1", "prod/checkout"), ("web-2", "prod/orders")];
    let before = hosts.map(|(host, bot)| svid(&mesh, host, bot).expect("an SVID"));
    for (host, _) in hosts {
        let file = mesh.host(host).dir.join("svids/svids.json");
        eventually("the SVIDs on disk", || file.exists().then_some(()));
    }
    mesh.ca.kill();
    let mut calls = 0;
    let mut half = |mesh: &Mesh| {
        let load = Load::start(mesh, &hand);
        for _ in 0..15 {
            load.forward(&hand, mesh, MINUTE);
        }
        assert_eq!(load.refused(), []);
        calls += load.done();
    };
    half(&mesh);
    for (host, _) in hosts {
        mesh.restart(host);
        mesh.wait_for(host, "/readyz");
    }
    let after = hosts.map(|(host, bot)| svid(&mesh, host, bot).expect("an SVID"));
    assert_eq!(after, before, "the SVIDs come from the cache");
    half(&mesh);
    println!("30 minutes without the CA, both proxies killed and restarted after 15: {calls} calls, 0 failed");
    let status = told(&mesh, "web-1", "/v1/status").expect("the status");
    let notes = status["notes"].to_string();
    assert!(notes.contains("0600 file") && notes.contains("no TPM"), "{notes}");
    assert_eq!(status["ca_connected"], false);
}

#[test]
fn a_policy_that_is_too_old_carries_no_call_until_the_ca_is_heard_again() {
    if !root_or_skip("max_policy_age") {
        return;
    }
    let dir = folder();
    let hand = Hand::new(dir.path());
    let mut mesh = with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        extra: "max_policy_age: 10m",
        clock: Some(hand.path()),
        ..Setup::default()
    });
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    mesh.ca.kill();
    hand.forward(9 * MINUTE);
    arrived(&hand, &mesh);
    assert_eq!(get(&mut checkout).status, 200);
    let socket = mesh.host("web-1").bot_socket();
    let lives = Streaming::open(CHECKOUT, &socket, "/orders/ticks-idle", "get");
    let since = now_ms();
    hand.forward(61 * SECOND);
    arrived(&hand, &mesh);
    println!("a call under way is cut after {} ms", lives.cut_since(since));
    let check = |answer: Answer, mesh: &Mesh| {
        assert_eq!(refused(&answer), no_identity());
        assert!(answer.body.contains("the policy is too old"), "{}", answer.body);
        let (status, body) = http_get(mesh.host("web-1").ports.metrics, "/readyz").expect("an answer");
        assert!(
            status == 503 && body.contains("the policy is too old"),
            "{status} {body}"
        );
    };
    check(get(&mut checkout), &mesh);
    mesh.restart("web-1");
    mesh.wait_for("web-1", "/livez");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    check(get(&mut checkout), &mesh);
    mesh.restart_ca();
    eventually("a call", || (get(&mut checkout).status == 200).then_some(()));
    for host in ["web-1", "web-2"] {
        mesh.wait_for(host, "/readyz");
    }
}

/// A mesh whose CA has a clock of its own.
pub(crate) fn with_two_clocks(hosts: &Hand, ca: &Hand) -> Mesh {
    with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        clock: Some(hosts.path()),
        ca_clock: Some(ca.path()),
        ..Setup::default()
    })
}

/// Waits until a host has this time, or a later one, on disk.
fn on_disk(mesh: &Mesh, host: &str, unix_ms: i64) {
    let file = mesh.host(host).dir.join("time.json");
    eventually("the time on disk", || {
        let kept: Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
        (kept["seen_unix_ms"].as_i64()? >= unix_ms).then_some(())
    });
}

fn unready_for_its_clock(mesh: &Mesh) {
    eventually("the clock to make the host unready", || {
        let (status, body) = http_get(mesh.host("web-1").ports.metrics, "/readyz")?;
        (status == 503 && body.contains("the clock of this host")).then_some(())
    });
}

/// The alerts of a host's ledger.
fn alerts(mesh: &Mesh, host: &str) -> String {
    ok(Command::new("cat").arg("-s").args(
        std::fs::read_dir(mesh.host(host).ledger().join("segments"))
            .expect("segments")
            .map(|entry| entry.expect("an entry").path()),
    ))
    .lines()
    .filter(|line| line.contains("\"alert\""))
    .collect()
}

#[test]
fn a_clock_set_back_a_day_revives_no_rule_and_no_svid_running_or_at_start() {
    if !root_or_skip("a clock set back") {
        return;
    }
    let dir = folder();
    let (hosts, ca) = (Hand::new(dir.path()), Hand::named(dir.path(), "ca-clock.sock"));
    let mut mesh = with_two_clocks(&hosts, &ca);
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let soon = spiffe::time::Timestamp::from_unix_millis(hosts.shows()) + 20 * MINUTE;
    mesh.apply(&text.replace("2020-01-01T00:00:00Z", &soon.to_string()));
    let mut report = Caller::new(REPORT, &mesh.host("web-1").bot_socket());
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    assert_eq!(report.call("GET", "orders.prod.mesh", "/years/2019").status, 200);
    mesh.ca.kill();
    // An hour and a minute without the CA: the rule and the SVIDs have ended.
    hosts.forward(HOUR + MINUTE);
    arrived(&hosts, &mesh);
    let ended = |report: &mut Caller, checkout: &mut Caller| {
        let rule = report.call("GET", "orders.prod.mesh", "/years/2019");
        assert_eq!(refused(&rule), (403, "rule_expired".to_owned()), "{}", rule.body);
        let identity = get(checkout);
        assert_eq!(refused(&identity), no_identity(), "{}", identity.body);
    };
    ended(&mut report, &mut checkout);
    on_disk(&mesh, "web-1", hosts.shows());
    hosts.back(DAY);
    unready_for_its_clock(&mesh);
    ended(&mut report, &mut checkout);
    mesh.restart("web-1");
    mesh.wait_for("web-1", "/livez");
    let mut report = Caller::new(REPORT, &mesh.host("web-1").bot_socket());
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    unready_for_its_clock(&mesh);
    ended(&mut report, &mut checkout);
    eventually("the alert", || {
        alerts(&mesh, "web-1").contains("clock_went_back").then_some(())
    });
    // The clock is right again, and so is the CA.
    hosts.forward(DAY);
    ca.forward(HOUR + MINUTE);
    mesh.restart_ca();
    eventually("a call", || (get(&mut checkout).status == 200).then_some(()));
    mesh.wait_for("web-1", "/readyz");
    let rule = report.call("GET", "orders.prod.mesh", "/years/2019");
    assert_eq!(refused(&rule), (403, "rule_expired".to_owned()));
}

#[test]
fn a_clock_set_forward_a_day_locks_nobody_out_once_it_is_right_running_or_at_start() {
    if !root_or_skip("a clock set forward") {
        return;
    }
    let dir = folder();
    let (hosts, ca) = (Hand::new(dir.path()), Hand::named(dir.path(), "ca-clock.sock"));
    let mut mesh = with_two_clocks(&hosts, &ca);
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    assert_eq!(get(&mut checkout).status, 200);
    hosts.forward(DAY);
    arrived(&hosts, &mesh);
    assert_eq!(
        refused(&get(&mut checkout)),
        no_identity(),
        "by this clock every SVID has ended"
    );
    unready_for_its_clock(&mesh);
    eventually("the alert", || {
        alerts(&mesh, "web-1").contains("clock_skew").then_some(())
    });
    on_disk(&mesh, "web-1", hosts.shows());
    hosts.back(DAY);
    for host in ["web-1", "web-2"] {
        mesh.wait_for(host, "/readyz");
    }
    eventually("a call", || (get(&mut checkout).status == 200).then_some(()));
    assert!(alerts(&mesh, "web-1").contains("time_set_back"));
    // The same over a restart: the wrong time is on disk, and the right one is on the wall.
    hosts.forward(DAY);
    arrived(&hosts, &mesh);
    on_disk(&mesh, "web-1", hosts.shows());
    mesh.host_mut("web-1").process.kill();
    hosts.back(DAY);
    mesh.restart("web-1");
    for host in ["web-1", "web-2"] {
        mesh.wait_for(host, "/readyz");
    }
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    eventually("a call", || (get(&mut checkout).status == 200).then_some(()));
}

/// A clock that is a day off: which way, and whether the proxy ran or started by it.
struct Off {
    back: bool,
    at_start: bool,
}

impl Off {
    /// Has the clock of both hosts a day off, while both proxies run, or while that of web-1 does not.
    fn happen(&self, mesh: &mut Mesh, hosts: &Hand) {
        if self.at_start {
            mesh.host_mut("web-1").process.kill();
        }
        if self.back {
            hosts.back(DAY);
        } else {
            hosts.forward(DAY);
        }
        if self.at_start {
            mesh.restart("web-1");
            mesh.wait_for("web-1", "/livez");
        }
    }

    fn mend(&self, hosts: &Hand) {
        if self.back {
            hosts.forward(DAY);
        } else {
            hosts.back(DAY);
        }
    }
}

#[test]
fn a_clock_a_day_off_revives_nothing_and_locks_nobody_out_whichever_way_and_whenever() {
    if !root_or_skip("clocks a day off") {
        return;
    }
    println!("clock     when      while it is wrong                     once it is right");
    for (back, at_start) in [(true, false), (true, true), (false, false), (false, true)] {
        let off = Off { back, at_start };
        let row = day_off(&off);
        let (way, when) = (
            if back { "back" } else { "forward" },
            if at_start { "at start" } else { "running" },
        );
        println!("{way:9} {when:9} {row}");
    }
}

/// What the calls of two bots came to, one with a rule that ends in twenty minutes, while the clock was off and after.
fn day_off(off: &Off) -> String {
    let dir = folder();
    let (hosts, ca) = (Hand::new(dir.path()), Hand::named(dir.path(), "ca-clock.sock"));
    let mut mesh = with_two_clocks(&hosts, &ca);
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let soon = spiffe::time::Timestamp::from_unix_millis(hosts.shows()) + 20 * MINUTE;
    mesh.apply(&text.replace("2020-01-01T00:00:00Z", &soon.to_string()));
    let at = mesh.host("web-1").bot_socket();
    let ended_rule = |mesh_at: &str| Caller::new(REPORT, mesh_at).call("GET", "orders.prod.mesh", "/years/2019");
    assert_eq!(ended_rule(&at).status, 200);
    if off.back {
        // An hour and a minute without the CA: the rule and the SVIDs have ended, and that is on disk.
        mesh.ca.kill();
        hosts.forward(HOUR + MINUTE);
        arrived(&hosts, &mesh);
        on_disk(&mesh, "web-1", hosts.shows());
    }
    off.happen(&mut mesh, &hosts);
    unready(&mesh);
    let mut checkout = Caller::new(CHECKOUT, &at);
    let (identity, rule) = (refused(&get(&mut checkout)), refused(&ended_rule(&at)));
    assert_eq!(identity, no_identity());
    // By a clock that is ahead the whole policy is too old, and no rule is asked.
    let shut = if off.back {
        (403, "rule_expired".to_owned())
    } else {
        no_identity()
    };
    assert_eq!(rule, shut);
    off.mend(&hosts);
    if off.back {
        ca.forward(HOUR + MINUTE);
        mesh.restart_ca();
    }
    eventually("a call", || (get(&mut checkout).status == 200).then_some(()));
    mesh.wait_for("web-1", "/readyz");
    let after = eventually("the rule to be judged by the right time", || {
        let answer = ended_rule(&at);
        let word = if answer.status == 200 {
            "200".to_owned()
        } else {
            answer.reason()
        };
        // An hour has gone by in the first two rows, and no time in the others.
        (word == if off.back { "rule_expired" } else { "200" }).then_some(word)
    });
    format!("SVID {}, rule {:14} SVID 200, rule {after}", identity.1, rule.1)
}

/// A proxy that started by a wrong clock cannot hear the CA, which would tell it; it is unready for want of an identity.
fn unready(mesh: &Mesh) {
    eventually("the host to be unready", || {
        let (status, _) = http_get(mesh.host("web-1").ports.metrics, "/readyz")?;
        (status == 503).then_some(())
    });
}
