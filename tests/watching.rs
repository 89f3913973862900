//! What is unlike the days before, by real calls and a clock that the test moves: who hears of it, and how soon.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::lifetimes::renewed;
use crate::spine::{CHECKOUT, with_callees};
use crate::support::hand::Hand;
use crate::support::{Caller, Mesh, PYTHON, Setup, botmesh, eventually, http_get, ok, root_or_skip};

const MINUTE: Duration = Duration::from_secs(60);

/// One host whose bot calls another, by the test's clock.
struct Scene {
    hand: Hand,
    mesh: Mesh,
    seen: Vec<String>,
    _kept: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let kept = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
        let hand = Hand::new(kept.path());
        let mesh = with_callees(&Setup {
            hosts: &["web-1"],
            clock: Some(hand.path()),
            ..Setup::default()
        });
        let more = "allow:\n  - {id: checkout-counts-stock, from: prod/checkout, to: prod/stock, http: [GET /count]}\n";
        let text = fs::read_to_string(mesh.mesh_file()).unwrap();
        mesh.apply(&text.replace("allow:\n", more));
        Self {
            hand,
            mesh,
            seen: Vec::new(),
            _kept: kept,
        }
    }

    fn call(&self, method: &str, path: &str) -> u64 {
        let mut checkout = Caller::new(CHECKOUT, &self.mesh.host("web-1").bot_socket());
        checkout.call(method, "stock.prod.mesh", path).status
    }

    /// Waits until the CA has heard of so many seconds with calls since it started.
    fn heard(&self, times: u32) {
        let heard = format!("botmesh_ca_observations_total{{kind=\"edges\",result=\"accepted\"}} {times}\n");
        eventually("the CA to hear of the calls", || {
            self.metrics().contains(&heard).then_some(())
        });
    }

    fn metrics(&self) -> String {
        let config = fs::read_to_string(self.mesh.dir().join("ca.yaml")).unwrap();
        let port = config.split_once("dashboard: {listen: 127.0.0.1:").unwrap().1;
        let port = port.split_once('}').unwrap().0.parse().unwrap();
        http_get(port, "/metrics").map(|(_, text)| text).unwrap_or_default()
    }

    /// An hour, in steps that the SVIDs live through.
    fn hour(&mut self) {
        for minutes in [28, 32] {
            self.hand.forward(minutes * MINUTE);
            renewed(&self.mesh, "web-1", "prod/checkout", &mut self.seen);
        }
    }

    fn stop_ca(&mut self) {
        assert!(self.mesh.ca.terminate().success());
    }

    /// Makes what a CA that does not run has learned a week older.
    fn age(&self) {
        let older = "import sqlite3,sys\ndb=sqlite3.connect(sys.argv[1])\n\
                     db.execute(\"UPDATE watched SET state=json_set(state,'$.at',json_extract(state,'$.at')+?) WHERE kind='hours'\",\
                     (7*86400000,))\ndb.commit()";
        ok(Command::new(PYTHON)
            .args(["-c", older])
            .arg(self.mesh.dir().join("ca/ca.db")));
    }

    fn alerts(&self) -> Vec<Value> {
        let list = ok(botmesh().args(["alerts", "-o", "json", "--server", &self.mesh.server()]));
        let list: Value = serde_json::from_str(&list).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Waits for so many, and gives their kinds.
    fn kinds(&self, count: usize) -> Vec<String> {
        let found = eventually("alerts", || Some(self.alerts()).filter(|found| found.len() >= count));
        let kind = |alert: &Value| alert["kind"].as_str().unwrap().to_owned();
        found.iter().map(kind).collect()
    }
}

#[test]
fn a_jump_a_first_use_and_refusals_are_told_and_nobody_is_cut_off() {
    if !root_or_skip("what is unlike the days before") {
        return;
    }
    let mut scene = Scene::new();
    assert_eq!(scene.call("GET", "/stock/4"), 200);
    scene.heard(1);
    scene.stop_ca();
    scene.age();
    scene.mesh.restart_ca();
    for _ in 0..10 {
        assert_eq!(scene.call("GET", "/stock/4"), 200);
    }
    assert_eq!(scene.kinds(1), ["rate_jump"]);
    // A rule that was there all the time, and what no rule allows.
    assert_eq!(scene.call("GET", "/count"), 200);
    assert_eq!(scene.kinds(2), ["rate_jump", "first_seen"]);
    for _ in 0..10 {
        assert_eq!(scene.call("DELETE", "/stock/4"), 403);
    }
    assert_eq!(
        scene.kinds(4),
        ["rate_jump", "first_seen", "first_seen", "refusal_burst"]
    );
    told(&scene);
}

/// Everywhere: the status, the ledger, the metrics. Nothing was done by itself.
fn told(scene: &Scene) {
    let server = scene.mesh.server();
    let status = ok(botmesh().args(["status", "--server", &server]));
    println!("{status}");
    for line in [
        "ALERT rate_jump: prod/checkout called prod/stock 10 times in a minute by rule checkout-reads-stock; in the days before \
         at most 1 times in a minute",
        "ALERT first_seen: prod/checkout called prod/stock by rule checkout-counts-stock for the first time",
        "ALERT first_seen: prod/checkout was refused at prod/stock, which it never called before",
        "if it should not be: botmesh quarantine prod/checkout --reason refusal_burst",
    ] {
        assert!(status.contains(line), "{line}");
    }
    let query = ["audit", "query", "kind=alert", "-o", "jsonl"];
    let written = ok(botmesh().args(query).arg(scene.mesh.ca_ledger()));
    for reason in ["rate_jump", "first_seen", "refusal_burst"] {
        assert!(
            written.contains(&format!("\"reason\":\"{reason}\"")),
            "{reason} in {written}"
        );
    }
    let counted = "botmesh_ca_alerts_total{kind=\"first_seen\"} 2";
    assert!(scene.metrics().contains(counted));
    let mut checkout = Caller::new(CHECKOUT, &scene.mesh.host("web-1").bot_socket());
    assert_eq!(checkout.call("GET", "stock.prod.mesh", "/stock/4").status, 200);
}

#[test]
fn one_call_an_hour_for_a_week_and_then_a_hundred_is_told_within_a_minute() {
    if std::env::var_os("BOTMESH_WEEKS").is_none() {
        println!("skipped: a week of calls: BOTMESH_WEEKS is not set");
        return;
    }
    if !root_or_skip("a week of calls") {
        return;
    }
    let mut scene = Scene::new();
    for hour in 1..=7 * 24 {
        assert_eq!(scene.call("GET", "/stock/4"), 200);
        scene.heard(hour);
        scene.hour();
    }
    scene.stop_ca();
    scene.mesh.restart_ca();
    assert_eq!(scene.call("GET", "/stock/4"), 200);
    scene.heard(1);
    assert_eq!(scene.alerts(), [Value::Null; 0]);
    // A hundred an hour are one every 36 seconds.
    scene.hand.forward(Duration::from_secs(36));
    assert_eq!(scene.call("GET", "/stock/4"), 200);
    assert_eq!(scene.kinds(1), ["rate_jump"]);
    let alert = &scene.alerts()[0];
    println!("{alert}");
    // The first call waited for the CA to be back, by a clock that does not stand still, and counts where it belongs.
    let seen = alert["seen"]["seconds"].as_u64().unwrap();
    assert!(alert["seen"]["calls"] == 2 && (36..60).contains(&seen), "{alert}");
}
