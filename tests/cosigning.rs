//! Heads of hosts' ledgers, cosigned by the CA: what a host loses, sets back or exchanges is seen, and calls go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::spine::CHECKOUT;
use crate::spine::two_hosts_at;
use crate::support::hand::Hand;
use crate::support::{Caller, Mesh, both, botmesh, eventually, eventually_within, http_get, ok, root_or_skip, run};

const MINUTE: Duration = Duration::from_secs(61);

/// Two hosts under a clock of the test's, and where the test keeps what it copies.
struct Scene {
    hand: Hand,
    mesh: Mesh,
    kept: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let kept = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
        let hand = Hand::new(kept.path());
        let mesh = two_hosts_at(&hand);
        Self { hand, mesh, kept }
    }

    fn ledger(&self) -> PathBuf {
        self.mesh.host("web-1").ledger()
    }

    fn call(&self, times: usize) {
        let mut checkout = Caller::new(CHECKOUT, &self.mesh.host("web-1").bot_socket());
        for _ in 0..times {
            let answer = checkout.call("GET", "orders.prod.mesh", "/orders/17");
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }

    /// What the CA has cosigned of web-1, by epoch.
    fn heads(&self) -> Vec<Value> {
        let mut list = botmesh();
        list.args(["audit", "heads", "web-1", "-o", "json", "--server", &self.mesh.server()]);
        let out = run(&mut list);
        let found: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        found["heads"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until the newest checkpoint covers so many records, and the CA has cosigned one that does.
    fn until_cosigned(&self, epoch: u64, at_least: u64) -> u64 {
        eventually_within(Duration::from_secs(60), "the records to be sealed", || {
            let head = audit::Head::read(&self.ledger()).ok()?;
            (head.checkpoint().size >= at_least).then_some(())
        });
        self.hand.forward(MINUTE);
        eventually_within(Duration::from_secs(60), "the head to be cosigned", || {
            let newest = self.heads().pop()?;
            let size = newest["size"].as_u64()?;
            (newest["epoch"] == epoch && size >= at_least).then_some(size)
        })
    }

    fn records(&self) -> u64 {
        audit::tail(&self.ledger(), audit::Start::First).unwrap().count() as u64
    }

    /// What a gauge of web-1 shows.
    fn gauge(&self, name: &str) -> i64 {
        gauge(self.mesh.host("web-1").ports.metrics, name)
    }

    /// What a gauge of the CA shows.
    fn ca_gauge(&self, name: &str) -> i64 {
        let status = ok(botmesh().args(["ca", "status", "-o", "json", "--server", &self.mesh.server()]));
        let status: Value = serde_json::from_str(&status).unwrap();
        let dashboard: std::net::SocketAddr = status["dashboard"].as_str().unwrap().parse().unwrap();
        gauge(dashboard.port(), name)
    }

    /// Has an auditor check a ledger against what the CA has cosigned.
    fn audited(&self, ledger: &Path) -> (Option<i32>, String) {
        let server = self.mesh.server();
        let notes = self.kept.path().join("heads");
        let text = ok(botmesh().args(["audit", "heads", "--notes", "--server", &server]));
        fs::write(&notes, text).unwrap();
        let list = ok(botmesh().args(["audit", "heads", "-o", "json", "--server", &server]));
        let list: Value = serde_json::from_str(&list).unwrap();
        let mut verify = botmesh();
        verify
            .args(["audit", "verify"])
            .arg(ledger)
            .arg("--cosigned")
            .arg(&notes);
        let out = run(verify.args(["--cosigner", list["cosigner"].as_str().unwrap()]));
        (out.status.code(), both(&out))
    }

    /// The kinds of alerts about web-1.
    fn alerts(&self) -> Vec<String> {
        let hosts = ok(botmesh().args(["host", "list", "-o", "json", "--server", &self.mesh.server()]));
        let hosts: Value = serde_json::from_str(&hosts).unwrap();
        let web_1 = hosts["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|host| host["host"] == "web-1");
        let alerts = web_1.unwrap()["alerts"].as_array().cloned().unwrap_or_default();
        alerts
            .iter()
            .map(|alert| alert["kind"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn gauge(port: u16, name: &str) -> i64 {
    let (status, text) = http_get(port, "/metrics").expect("the metrics");
    assert_eq!(status, 200, "{text}");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{name}"))
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(copied.success());
}

#[test]
fn a_head_is_cosigned_and_an_auditor_sees_what_was_cut_off_after_it() {
    if !root_or_skip("cosigned heads") {
        return;
    }
    let scene = Scene::new();
    scene.call(5);
    let size = scene.until_cosigned(1, scene.records());
    let (code, told) = scene.audited(&scene.ledger());
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&format!("the first {size} were cosigned at ")), "{told}");
    assert!(told.contains(" of acme.internal/host/web-1"), "{told}");
    let beside = ok(botmesh().args(["audit", "verify"]).arg(scene.ledger()));
    assert!(beside.contains("as the head beside it has them"), "{beside}");
    // The clock stands since the head was cosigned.
    let cosigned_at = scene.hand.shows() / 1000;
    assert_eq!(scene.gauge("botmesh_ledger_cosigned_timestamp_seconds"), cosigned_at);
    assert_eq!(scene.gauge("botmesh_ledger_cosigned_records").cast_unsigned(), size);
    let oldest = scene.ca_gauge("botmesh_ca_heads_oldest_timestamp_seconds");
    assert!(
        oldest <= cosigned_at && oldest > cosigned_at - 600,
        "{oldest}, {cosigned_at}"
    );
    let in_ca = ok(botmesh()
        .args(["audit", "query", "kind=checkpoint_cosigned", "-o", "jsonl"])
        .arg(scene.mesh.ca_ledger()));
    assert!(in_ca.contains("\"subject\":\"host:web-1\""), "{in_ca}");

    // A copy that is older than the head, with nothing beside it that says so.
    let older = scene.kept.path().join("older");
    copy(&scene.ledger(), &older);
    scene.call(5);
    let cosigned = scene.until_cosigned(1, scene.records());
    fs::remove_file(older.join("cosigned")).unwrap();
    let alone = run(botmesh().args(["audit", "verify"]).arg(&older));
    assert_eq!(alone.status.code(), Some(0), "by itself it is whole: {}", both(&alone));
    let (code, told) = scene.audited(&older);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains(&format!("but {cosigned} were cosigned: the ledger was cut or set back")),
        "{told}"
    );
    assert_eq!(scene.alerts(), [""; 0]);
}

#[test]
fn a_disk_that_was_set_back_begins_a_new_epoch_is_told_of_and_calls_go_on() {
    if !root_or_skip("a disk that was set back") {
        return;
    }
    let mut scene = Scene::new();
    scene.call(3);
    scene.until_cosigned(1, scene.records());
    let older = scene.kept.path().join("older");
    scene.mesh.host_mut("web-1").process.terminate();
    copy(&scene.ledger(), &older);
    scene.mesh.restart("web-1");
    scene.mesh.wait_for("web-1", "/readyz");
    scene.call(3);
    let lost = scene.until_cosigned(1, scene.records());

    scene.mesh.host_mut("web-1").process.terminate();
    fs::remove_dir_all(scene.ledger()).unwrap();
    copy(&older, &scene.ledger());
    scene.mesh.restart("web-1");
    scene.mesh.wait_for("web-1", "/readyz");
    scene.call(3);
    eventually_within(Duration::from_secs(60), "a new epoch", || {
        scene.hand.forward(MINUTE);
        scene.call(1);
        let head = audit::Head::read(&scene.ledger()).ok()?;
        head.checkpoint()
            .origin
            .as_str()
            .ends_with("/host/web-1/epoch/2")
            .then_some(())
    });
    let cosigned = scene.until_cosigned(2, scene.records());
    assert_eq!(scene.alerts(), ["ledger_set_back", "ledger_begun_anew"]);
    let begun = scene.mesh.host("web-1").query("kind=epoch_begun");
    assert_eq!((begun.len(), &begun[0]["detail"]["epoch"]), (1, &2.into()));
    let why = begun[0]["detail"]["why"].as_str().unwrap();
    assert!(["shrunken", "forked"].contains(&why), "{why}");

    // What is there now is proven, and that it is not all there was is told.
    let (code, told) = scene.audited(&scene.ledger());
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains(&format!("the first {cosigned} were cosigned at ")),
        "{told}"
    );
    assert!(
        told.contains("in epoch 2, and of 1 cosigned heads of epochs before not all is there"),
        "{told}"
    );
    let heads = scene.heads();
    assert_eq!(
        (heads.len(), &heads[0]["size"]),
        (2, &lost.into()),
        "what was there before is not forgotten"
    );
    scene.call(1);
}

#[test]
fn a_ledger_that_is_lost_or_damaged_is_begun_anew_at_start_and_calls_go_on() {
    if !root_or_skip("a ledger that is lost") {
        return;
    }
    let mut scene = Scene::new();
    scene.call(3);
    scene.until_cosigned(1, scene.records());
    // Damaged: a record in its middle is another one.
    scene.mesh.host_mut("web-1").process.terminate();
    let segment = scene.ledger().join("segments/00000000000000000000.jsonl");
    let text = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, text.replacen("/orders/17", "/orders/18", 1)).unwrap();
    scene.mesh.restart("web-1");
    scene.mesh.wait_for("web-1", "/readyz");
    scene.call(3);
    assert!(scene.ledger().join("set-aside/1/segments").is_dir());
    scene.until_cosigned(2, scene.records());
    assert!(
        scene.alerts().contains(&"ledger_begun_anew".to_owned()),
        "{:?}",
        scene.alerts()
    );

    // Lost, with its key: only the CA knows that there was one.
    scene.mesh.host_mut("web-1").process.terminate();
    fs::remove_dir_all(scene.ledger()).unwrap();
    let key = scene.ledger().with_file_name("log.key");
    fs::remove_file(&key).unwrap_or_else(|error| panic!("{}: {error}", key.display()));
    scene.mesh.restart("web-1");
    scene.mesh.wait_for("web-1", "/readyz");
    scene.call(3);
    eventually_within(Duration::from_secs(60), "the third epoch", || {
        scene.hand.forward(MINUTE);
        let head = audit::Head::read(&scene.ledger()).ok()?;
        head.checkpoint()
            .origin
            .as_str()
            .ends_with("/host/web-1/epoch/3")
            .then_some(())
    });
    scene.until_cosigned(3, scene.records());
    let (code, told) = scene.audited(&scene.ledger());
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("in epoch 3, and of 2 cosigned heads of epochs before not all is there"),
        "{told}"
    );
}

#[test]
fn a_host_that_was_killed_is_accused_of_nothing() {
    if !root_or_skip("a host that was killed") {
        return;
    }
    let mut scene = Scene::new();
    scene.call(3);
    scene.until_cosigned(1, scene.records());
    for _ in 0..3 {
        scene.call(3);
        scene.mesh.restart("web-1");
        scene.mesh.wait_for("web-1", "/readyz");
        scene.call(1);
        scene.until_cosigned(1, scene.records());
    }
    let (size, at) = (
        scene.gauge("botmesh_ledger_cosigned_records"),
        scene.hand.shows() / 1000,
    );
    assert!(size > 0, "{size}");
    scene.mesh.restart("web-1");
    scene.mesh.wait_for("web-1", "/readyz");
    assert_eq!(
        scene.gauge("botmesh_ledger_cosigned_timestamp_seconds"),
        at,
        "kept over a restart"
    );
    // A CA that starts over knows where it stood.
    scene.mesh.restart_ca();
    scene.mesh.wait_for("web-1", "/readyz");
    scene.call(2);
    eventually("the stream to be up again", || {
        (!scene.heads().is_empty()).then_some(())
    });
    scene.until_cosigned(1, scene.records());
    assert_eq!(scene.alerts(), [""; 0]);
    let (code, told) = scene.audited(&scene.ledger());
    assert_eq!(code, Some(0), "{told}");
}
