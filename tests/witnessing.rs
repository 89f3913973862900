//! Witnesses outside: they cosign what a host and its CA cannot take back together, and calls go on without them.

mod go;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cosigning::copy;
use crate::spine::{CHECKOUT, with_callees};
use crate::support::hand::Hand;
use crate::support::witness::{Manner, Witness};
use crate::support::{Caller, Mesh, Setup, both, botmesh, eventually_within, http_get, ok, root_or_skip, run};

const MINUTE: Duration = Duration::from_secs(61);

/// Longer than a witness is left in peace about a ledger that it does not know.
const LONG: Duration = Duration::from_secs(11 * 60);

const PATIENCE: Duration = Duration::from_secs(60);

const WEB_1: &str = "acme.internal/host/web-1";

/// Two hosts and two witnesses under a clock of the test's.
struct Scene {
    hand: Hand,
    mesh: Mesh,
    one: Witness,
    two: Witness,
    kept: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let kept = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
        let hand = Hand::new(kept.path());
        let witness = |name| {
            let hand = hand.clone();
            Witness::start(name, move || hand.shows())
        };
        let (one, two) = (witness("w.example/w1"), witness("w.example/w2"));
        let ca = format!("ledger: {{witnesses: [{}, {}]}}\n", one.setting(), two.setting());
        let mesh = with_callees(&Setup {
            hosts: &["web-1", "web-2"],
            clock: Some(hand.path()),
            ca: &ca,
            ..Setup::default()
        });
        let scene = Self {
            hand,
            mesh,
            one,
            two,
            kept,
        };
        // Its operator is told the keys of the ledgers; until then they are unknown to it, and left out for a time.
        for ledger in [scene.ledger(), scene.mesh.ca_ledger()] {
            let vkey = fs::read_to_string(ledger.join("ledger.vkey")).unwrap();
            scene.one.knows(vkey.trim_end());
            scene.two.knows(vkey.trim_end());
        }
        scene.hand.forward(LONG);
        scene
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

    fn sealed(&self) -> u64 {
        audit::Head::read(&self.ledger()).unwrap().checkpoint().size
    }

    /// Calls, and waits until all of it is under a checkpoint.
    fn grow(&self) -> u64 {
        self.call(3);
        let records = audit::tail(&self.ledger(), audit::Start::First).unwrap().count() as u64;
        eventually_within(PATIENCE, "the records to be sealed", || {
            (self.sealed() >= records).then_some(records)
        })
    }

    /// Moves the clock until something is so.
    fn in_time<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        for _ in 0..5 {
            self.hand.forward(MINUTE);
            for _ in 0..60 {
                if let Some(found) = ask() {
                    return found;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        panic!("{what} did not come");
    }

    /// Waits until a witness has cosigned so much of the ledger of web-1.
    fn until_witnessed(&self, witness: &Witness, records: u64) -> u64 {
        self.in_time("a cosignature", || {
            let kept = audit::kept::kept_witnessed(&self.ledger(), &witness.cosigner())?;
            (kept.checkpoint.size >= records && witness.seen(WEB_1)? == kept.checkpoint.size)
                .then_some(kept.checkpoint.size)
        })
    }

    fn heads(&self) -> Value {
        let server = self.mesh.server();
        serde_json::from_str(&ok(
            botmesh().args(["audit", "heads", "-o", "json", "--server", &server])
        ))
        .unwrap()
    }

    /// Carries the notes of all heads away.
    fn notes(&self) -> PathBuf {
        let file = self.kept.path().join("heads");
        let server = self.mesh.server();
        fs::write(
            &file,
            ok(botmesh().args(["audit", "heads", "--notes", "--server", &server])),
        )
        .unwrap();
        file
    }

    /// Has an auditor check a ledger or a proof, who believes both witnesses.
    fn audited(&self, what: &Path, more: &[&str]) -> (Option<i32>, String) {
        let [one, two] = [&self.one, &self.two].map(|witness| witness.cosigner().to_string());
        let mut verify = botmesh();
        verify.args(["audit", "verify"]).arg(what);
        let out = run(verify.args(["--witness", &one, "--witness", &two]).args(more));
        (out.status.code(), both(&out))
    }

    /// Does something to the folders of web-1 and of the CA while neither runs.
    fn stopped(&mut self, act: impl FnOnce()) {
        self.mesh.host_mut("web-1").process.terminate();
        self.mesh.ca.terminate();
        act();
        self.mesh.restart_ca();
        self.mesh.restart("web-1");
        self.mesh.wait_for("web-1", "/readyz");
    }

    fn gauge(&self, name: &str) -> u64 {
        let (_, text) = http_get(self.mesh.host("web-1").ports.metrics, "/metrics").expect("the metrics");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("{name} in {text}"))
    }

    fn alerts(&self) -> Vec<String> {
        let hosts = ok(botmesh().args(["host", "list", "-o", "json", "--server", &self.mesh.server()]));
        let hosts: Value = serde_json::from_str(&hosts).unwrap();
        let alerts = hosts["items"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|host| host["alerts"].as_array().unwrap());
        alerts.map(|alert| alert["kind"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn what_witnesses_have_cosigned_is_shown_kept_and_counted_by_whoever_has_their_keys() {
    if !root_or_skip("witnessed heads") {
        return;
    }
    let scene = Scene::new();
    let records = scene.grow();
    let size = scene.until_witnessed(&scene.one, records);
    scene.until_witnessed(&scene.two, size);
    // The auditor has the folder, or the notes from the CA; the keys are from elsewhere.
    let (code, told) = scene.audited(&scene.ledger(), &[]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(" are witnessed (w.example/w1 "), "{told}");
    let notes = scene.notes();
    let (code, told) = scene.audited(&scene.ledger(), &["--cosigned", notes.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    let cosigner = scene.heads()["cosigner"].as_str().unwrap().to_owned();
    let with_the_ca = ["--cosigned", notes.to_str().unwrap(), "--cosigner", &cosigner];
    let (code, told) = scene.audited(&scene.ledger(), &with_the_ca);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains(" were cosigned at ") && told.contains(" are witnessed ("),
        "{told}"
    );
    let (code, told) = scene.audited(&scene.ledger(), &["--require", "3"]);
    assert_eq!(code, Some(2), "{told}");

    counted_in_proofs(&scene);

    // The CA's own ledger is witnessed as well.
    scene.in_time("the CA's own ledger", || {
        let heads = scene.heads();
        let own = heads["witnessed"]
            .as_array()?
            .iter()
            .filter(|head| head["host"].is_null())
            .count();
        (own == 2).then_some(())
    });
    let (code, told) = scene.audited(&scene.mesh.ca_ledger(), &[]);
    assert_eq!(code, Some(0), "{told}");
    let shown = ok(botmesh().args(["audit", "heads", "--server", &scene.mesh.server()]));
    assert!(
        shown.contains("WITNESSED") && shown.contains("acme.internal/ca/"),
        "{shown}"
    );
    assert_eq!(scene.alerts(), [""; 0]);
}

/// The lines of witnesses are in a proof, and each that is wanted has to be.
fn counted_in_proofs(scene: &Scene) {
    let proof = scene.kept.path().join("p.tlog-proof");
    fs::write(&proof, ok(botmesh().args(["audit", "prove", "0"]).arg(scene.ledger()))).unwrap();
    let vkey = scene.ledger().join("ledger.vkey");
    let key = ["--key", vkey.to_str().unwrap()];
    let (code, told) = scene.audited(&proof, &key);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told.matches(" cosigned it at ").count(), 2, "{told}");
    // The lines of one are taken out: that one is not enough for whoever wants both.
    let text = fs::read_to_string(&proof).unwrap();
    let without: String = text
        .split_inclusive('\n')
        .filter(|line| !line.contains(" w.example/w2 "))
        .collect();
    fs::write(&proof, without).unwrap();
    let (code, told) = scene.audited(&proof, &key);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("1 of the witnesses that were named have cosigned its checkpoint, and 2 must"),
        "{told}"
    );
    let (code, told) = scene.audited(&proof, &[key[0], key[1], "--require", "1"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("w.example/w2 has not cosigned it"), "{told}");
}

#[test]
fn a_witness_that_is_away_stops_nothing_and_hears_what_it_missed() {
    if !root_or_skip("a witness that is away") {
        return;
    }
    let mut scene = Scene::new();
    let records = scene.grow();
    let first = scene.until_witnessed(&scene.two, records);
    scene.two.set(Manner::HangsUp);
    let records = scene.grow();
    let second = scene.until_witnessed(&scene.one, records);
    let of_two = || audit::kept::kept_witnessed(&scene.ledger(), &scene.two.cosigner()).unwrap();
    assert_eq!(of_two().checkpoint.size, first);
    assert!(scene.gauge("botmesh_ledger_witnessed_records{witness=\"w.example/w1\"}") >= second);
    assert_eq!(
        scene.gauge("botmesh_ledger_witnessed_records{witness=\"w.example/w2\"}"),
        first
    );
    let status = scene.in_time("that it is away", || {
        let status = ok(botmesh().args(["ca", "status", "--server", &scene.mesh.server()]));
        status
            .contains("the witness w.example/w2 is away since ")
            .then_some(status)
    });
    assert!(!status.contains("the witness w.example/w1 is away"), "{status}");
    scene.call(1);
    // Nobody knows any more where it stood but itself and the CA, and it is told from there.
    scene.mesh.restart_ca();
    scene.mesh.restart("web-1");
    scene.mesh.wait_for("web-1", "/readyz");
    scene.two.set(Manner::Honest);
    let records = scene.grow();
    scene.until_witnessed(&scene.two, records);
    assert_eq!(scene.alerts(), [""; 0]);
    let (code, told) = scene.audited(&scene.ledger(), &[]);
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn a_host_and_a_ca_that_were_set_back_together_are_found_by_the_witness_alone() {
    if !root_or_skip("a host and a CA that were set back") {
        return;
    }
    let mut scene = Scene::new();
    let records = scene.grow();
    scene.until_witnessed(&scene.one, records);
    let older = scene.kept.path().join("older");
    fs::create_dir(&older).unwrap();
    let (ca, ledger) = (scene.mesh.dir().join("ca"), scene.ledger());
    scene.stopped(|| {
        copy(&ca, &older.join("ca"));
        copy(&ledger, &older.join("ledger"));
    });
    let records = scene.grow();
    let lost = scene.until_witnessed(&scene.one, records);
    scene.until_witnessed(&scene.two, lost);
    let notes = scene.notes();
    scene.stopped(|| {
        for (folder, name) in [(&ca, "ca"), (&ledger, "ledger")] {
            fs::remove_dir_all(folder).unwrap();
            copy(&older.join(name), folder);
        }
    });
    scene.call(1);
    // The CA, which was set back as well, cosigns it: it cannot know better.
    let cosigner = scene.heads()["cosigner"].as_str().unwrap().to_owned();
    scene.in_time("the alert", || {
        scene
            .alerts()
            .contains(&"ledger_not_as_witnessed".to_owned())
            .then_some(())
    });
    assert!(
        !scene.alerts().contains(&"ledger_set_back".to_owned()),
        "{:?}",
        scene.alerts()
    );
    alarms_are_recorded(&scene);
    // Whoever carried the notes away sees it; by what the CA says of itself nobody would.
    let (code, told) = scene.audited(&scene.ledger(), &["--cosigned", notes.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{told}");
    let found =
        told.contains("were cosigned: the ledger was cut or set back") || told.contains("was forked or exchanged");
    assert!(found, "{told}");
    let now = scene.notes();
    let mut verify = botmesh();
    verify
        .args(["audit", "verify"])
        .arg(scene.ledger())
        .arg("--cosigned")
        .arg(&now);
    ok(verify.args(["--cosigner", &cosigner]));
}

/// The alarm is in the ledger of the host and, about its own, in the CA's; and nothing was begun or stopped.
fn alarms_are_recorded(scene: &Scene) {
    let recorded = scene.mesh.host("web-1").query("kind=alert");
    assert!(
        recorded
            .iter()
            .any(|record| record["detail"]["what"] == "ledger_not_as_witnessed"),
        "{recorded:?}"
    );
    scene.in_time("the alert about the CA's own ledger", || {
        let found = ok(botmesh()
            .args(["audit", "query", "kind=alert", "-o", "jsonl"])
            .arg(scene.mesh.ca_ledger()));
        found.contains("\"witness\":\"w.example/w1\"").then_some(())
    });
    assert_eq!(
        audit::Head::read(&scene.ledger()).unwrap().checkpoint().origin.as_str(),
        WEB_1
    );
    scene.call(1);
}
