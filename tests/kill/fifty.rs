//! Five ways to stop a bot, fifty times each, on twenty proxies of one CA: how long a live call outlives the command.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{CUT_WITHIN_MS, kill, now_ms, refused, restored};
use crate::foreign::{curl, joined, sni, with_played_host};
use crate::spine::{CHECKOUT, REPORT, twenty_hosts_at};
use crate::support::hand::Hand;
use crate::support::join::{Pem, write_pem};
use crate::support::{Caller, Mesh, PYTHON, as_user, botmesh, eventually, ok, root_or_skip};

const TRIES: usize = 50;
const HOSTS: usize = 20;
const THIRD: u32 = 61_005;
const IDLE: &str = "/orders/ticks-idle";

/// One bot that has a call without end, again and again.
struct Streams {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Streams {
    fn new(uid: u32, proxy: &str) -> Self {
        let mut command = as_user(PYTHON, uid);
        command.args(["-c", include_str!("../support/stream.py"), proxy, "orders.prod.mesh"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    fn open(&mut self) {
        writeln!(self.to, "{IDLE}").unwrap();
        assert_eq!(self.line(), "open\n");
    }

    /// When the call that is under way was ended by the other side.
    fn closed(&mut self) -> u128 {
        let line = self.line();
        let at = line.split(' ').nth(1).and_then(|at| at.parse().ok());
        at.unwrap_or_else(|| panic!("{line:?}"))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A bot: its calls without end, and its ordinary ones.
struct Bot {
    streams: Streams,
    calls: Caller,
}

impl Bot {
    fn new(uid: u32, proxy: &str) -> Self {
        Self {
            streams: Streams::new(uid, proxy),
            calls: Caller::new(uid, proxy),
        }
    }

    fn must_be_refused(&mut self, reason: &str) {
        refused(&self.calls.call("GET", "orders.prod.mesh", "/orders/17"), reason);
    }
}

/// What was measured of one way, in milliseconds from the command's start.
struct Figures {
    way: &'static str,
    cut: Vec<u128>,
    receipts: Vec<u128>,
}

impl Figures {
    fn new(way: &'static str) -> Self {
        Self {
            way,
            cut: Vec::new(),
            receipts: Vec::new(),
        }
    }

    /// Notes one try: the command began at `since`, its last receipt was there at `told`, the call ended at `closed`.
    fn note(&mut self, since: u128, told: Option<u128>, closed: u128) {
        self.cut.push(closed.saturating_sub(since));
        self.receipts.extend(told.map(|told| told.saturating_sub(since)));
    }

    fn judge(mut self) {
        let line = |of: &mut Vec<u128>| {
            of.sort_unstable();
            let (Some(half), Some(last)) = (of.get(of.len() / 2), of.last()) else {
                return "none: each proxy ends it by its own time".to_owned();
            };
            assert!(*last <= CUT_WITHIN_MS, "{}: {of:?}", self.way);
            format!("p50 {half:3} ms, p99 {last:3} ms")
        };
        assert_eq!(self.cut.len(), TRIES);
        let (cut, receipts) = (line(&mut self.cut), line(&mut self.receipts));
        println!(
            "{:12} live call cut {cut}; last of {HOSTS} receipts {receipts}",
            self.way
        );
    }
}

/// A live call that a stolen SVID pays for.
struct Stolen(Child);

impl Stolen {
    fn open(port: u16, pem: &Pem) -> Self {
        let name = sni("prod/orders");
        let mut command = Command::new("curl");
        command.args(["-sSNk", "-m", "30", "--http1.1", "-H", "Host: orders.prod.mesh"]);
        command.args(["--resolve", &format!("{name}:{port}:127.0.0.1")]);
        command.arg("--cert").arg(&pem.chain).arg("--key").arg(&pem.key);
        command.arg(format!("https://{name}:{port}{IDLE}"));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("curl");
        let mut tick = [0; 4];
        child.stdout.as_mut().unwrap().read_exact(&mut tick).unwrap();
        assert_eq!(&tick, b"tick");
        Self(child)
    }

    fn closed(mut self) -> u128 {
        let mut rest = Vec::new();
        self.0.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        let at = now_ms();
        self.0.wait().unwrap();
        at
    }
}

/// The mesh files of one round.
struct Files {
    base: String,
}

impl Files {
    fn new(mesh: &Mesh) -> Self {
        let text = std::fs::read_to_string(mesh.mesh_file()).unwrap();
        let (base, _tests) = text.split_once("tests:").unwrap();
        let third =
            format!("bots:\n  prod/third: {{owner: x@acme.internal, hosts: [web-1], attest: {{uid: {THIRD}}}}}\n");
        let rule = "allow:\n  - {id: third, from: prod/third, to: prod/orders, http: [GET /orders/*]}\n";
        Self {
            base: base.replacen("bots:\n", &third, 1).replacen("allow:\n", rule, 1),
        }
    }

    /// `prod/report` may read orders until then, `prod/checkout` and `prod/third` for ever.
    fn all(&self, until: spiffe::time::Timestamp) -> String {
        self.base
            .replace("2020-01-01T00:00:00Z", &until.to_string())
            .replace("GET /years/*", "GET /orders/*")
    }

    /// Without the rule of `prod/checkout`.
    fn without_rule(all: &str) -> String {
        let lines = all.lines().filter(|line| !line.contains("id: checkout-reads-orders"));
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// That, and `prod/third` is denied what its rule allows.
    fn with_deny(all: &str) -> String {
        let deny = "deny:\n  - {id: stop, from: prod/third, to: prod/orders, reason: stop}\n";
        Self::without_rule(all).replacen("deny:\n", deny, 1)
    }
}

/// Applies a file; gives the times at which the command began and at which the last host had said that it is live.
fn apply(mesh: &Mesh, text: &str) -> (u128, u128) {
    let file = mesh.mesh_file();
    std::fs::write(&file, text).unwrap();
    let since = now_ms();
    let mut command = botmesh();
    command.arg("apply").arg(&file);
    let told = ok(command.args(["-o", "json", "--server", &mesh.server()]));
    let at = now_ms();
    let told: Value = serde_json::from_str(&told).unwrap();
    let hosts = told["status"]["hosts"].as_array().unwrap();
    let live = hosts.iter().filter(|host| host["state"] == "live").count();
    assert!(live >= HOSTS, "{told}");
    (since, at)
}

#[test]
fn five_ways_to_stop_a_bot_cut_its_live_calls_within_a_second_fifty_times_each() {
    if !root_or_skip("p99 of the kill switch") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
    let hand = Hand::new(dir.path());
    let mut mesh = twenty_hosts_at(&hand);
    let edge = with_played_host(&mesh);
    let files = Files::new(&mesh);
    let socket = mesh.host("web-1").bot_socket();
    let port = mesh.host("web-2").ports.mesh;
    let [mut checkout, mut report, mut third] = [CHECKOUT, REPORT, THIRD].map(|uid| Bot::new(uid, &socket));
    let [mut quarantine, mut evict, mut until, mut rule, mut deny] =
        ["quarantine", "host evict", "until", "rule removed", "deny added"].map(Figures::new);
    let mut edge = Some(edge);
    let mut stolen = None;
    for _ in 0..TRIES {
        let end = spiffe::time::Timestamp::from_unix_millis(hand.shows()) + Duration::from_secs(5);
        let all = files.all(end);
        apply(&mesh, &all);

        let host = edge.take().unwrap_or_else(|| joined(&mesh));
        let (chain, key) = host.issue("prod/checkout").expect("edge-1 may claim prod/checkout");
        let pem = write_pem(mesh.dir(), "stolen", &chain, &key);
        let stream = Stolen::open(port, &pem);
        let since = now_ms();
        let told = kill(&mesh.server(), &["host", "evict", "edge-1"]);
        evict.note(since, Some(now_ms()), stream.closed());
        assert_eq!(live(&told["enforced"]), HOSTS, "{told}");
        stolen_is_refused(port, &pem);
        stolen = Some(pem);

        restored(&mut checkout.calls);
        checkout.streams.open();
        let since = now_ms();
        let told = kill(&mesh.server(), &["quarantine", "prod/orders", "--reason", "again"]);
        quarantine.note(since, Some(now_ms()), checkout.streams.closed());
        is_in_force_on_all(&mesh, &told, "prod/orders");
        checkout.must_be_refused("quarantined");
        kill(&mesh.server(), &["release", "prod/orders"]);

        report.streams.open();
        let since = now_ms();
        hand.forward(Duration::from_secs(6));
        until.note(since, None, report.streams.closed());
        report.must_be_refused("rule_expired");

        restored(&mut checkout.calls);
        checkout.streams.open();
        let (since, told) = apply(&mesh, &Files::without_rule(&all));
        rule.note(since, Some(told), checkout.streams.closed());
        checkout.must_be_refused("no_rule");

        third.streams.open();
        let (since, told) = apply(&mesh, &Files::with_deny(&all));
        deny.note(since, Some(told), third.streams.closed());
        third.must_be_refused("denied_by_rule");
    }
    println!(
        "{TRIES} tries each, {HOSTS} proxies of one CA, from the command's start; the next call was refused each time"
    );
    for figures in [quarantine, rule, deny, until, evict] {
        figures.judge();
    }
    kill(&mesh.server(), &["quarantine", "prod/stock", "--reason", "to stay"]);
    in_force_after_restarts(&mut mesh, &stolen.expect("the last stolen SVID"));
}

fn live(told: &Value) -> usize {
    let hosts = told["hosts"].as_array().unwrap();
    hosts.iter().filter(|host| host["state"] == "live").count()
}

/// What the operator was told holds after a crash of any host, whether the CA is there or not.
fn is_in_force_on_all(mesh: &Mesh, told: &Value, bot: &str) {
    assert_eq!(live(told), HOSTS, "{told}");
    for host in 1..=HOSTS {
        let kept = mesh.host(&format!("web-{host}")).dir.join("endpoints.json");
        let kept = std::fs::read_to_string(kept).unwrap();
        assert!(
            kept.contains(&format!(r#""quarantined_bots":["{bot}"]"#)),
            "web-{host}: {kept}"
        );
    }
}

fn stolen_is_refused(port: u16, pem: &Pem) {
    let (status, body) = curl(
        port,
        &sni("prod/orders"),
        Some(pem),
        &["-H", "Host: orders.prod.mesh", "--http1.1"],
        "/orders/17",
    );
    assert_eq!(status, "403", "{body}");
    assert!(body.contains(r#""reason":"quarantined""#), "{body}");
}

/// Both proxies restart while the CA is away, then the CA: what was stopped stays stopped.
fn in_force_after_restarts(mesh: &mut Mesh, stolen: &Pem) {
    mesh.ca.kill();
    for host in ["web-1", "web-2"] {
        mesh.restart(host);
        mesh.wait_for(host, "/readyz");
    }
    let check = |mesh: &Mesh| {
        let socket = mesh.host("web-1").bot_socket();
        for (uid, host, path, reason) in [
            (CHECKOUT, "stock.prod.mesh", "/stock/4", "quarantined"),
            (CHECKOUT, "orders.prod.mesh", "/orders/17", "no_rule"),
            (THIRD, "orders.prod.mesh", "/orders/17", "denied_by_rule"),
            (REPORT, "orders.prod.mesh", "/orders/17", "rule_expired"),
        ] {
            refused(&Caller::new(uid, &socket).call("GET", host, path), reason);
        }
        stolen_is_refused(mesh.host("web-2").ports.mesh, stolen);
    };
    check(mesh);
    mesh.restart_ca();
    for host in ["web-1", "web-2"] {
        let admin = mesh.host(host).admin();
        eventually("the CA to be heard", || {
            let told = ok(botmesh().args(["proxy", "status", "-o", "json", "--server", &admin]));
            let told: Value = serde_json::from_str(&told).unwrap();
            (told["ca_connected"] == true).then_some(())
        });
    }
    check(mesh);
    println!("all five in force after restarts of both proxies without the CA, and of the CA");
}
