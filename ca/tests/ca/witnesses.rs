//! Witnesses outside: what the CA carries to them, what it makes of their answers, and that nothing waits for them.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use audit::hash::Hash;
use audit::note::Note;
use audit::{Head, VerifierKey};
use ca_api::admin::{CaStatus, HostList, LedgerHeads, path};
use ca_api::node::{WitnessRequest, WitnessResponse};
use serde_json::json;
use spiffe::time::Clock;
use tonic::Code;

use crate::heads::{Log, copy, tell};
use crate::support::*;
use crate::witness::{Manner, Witness};

const MINUTE: Duration = Duration::from_secs(60);

/// A CA and a witness that has its time.
async fn watched() -> (TestCa, Witness) {
    let clock = Arc::new(OnceLock::<Clock>::new());
    let shows = Arc::clone(&clock);
    let witness = Witness::start("w.example/w1", move || {
        shows.get().map_or(0, |clock| clock.now().unix_millis())
    });
    let ca = TestCa::start_with(json!({"ledger": {"witnesses": [witness.setting()]}})).await;
    clock.set(ca.clock.clone()).unwrap();
    (ca, witness)
}

/// A CA with a witness, and a host whose ledger the witness knows.
struct Scene {
    ca: TestCa,
    witness: Witness,
    log: Log,
    connection: Connection,
}

impl Scene {
    async fn new() -> Self {
        let (ca, witness) = watched().await;
        let host = ca.join("web-1").await;
        let connection = ca.connect(&host).await;
        let log = Log::new(&ca, "web-1");
        log.grow(5);
        witness.knows(&log.told(0).vkey);
        let scene = Self {
            ca,
            witness,
            log,
            connection,
        };
        // Of the CA's own ledger it does not know, and it was left in peace about it from then on.
        eventually(async || (scene.count("unknown_ledger").await == 1).then_some(())).await;
        scene
    }

    /// How often the witness was asked about the host's ledger.
    fn asked(&self) -> usize {
        let questions = self.witness.questions();
        questions
            .iter()
            .filter(|question| question.contains("\nacme.internal/host/"))
            .count()
    }

    /// Has the CA cosign the head; says where it says that the witness stands.
    async fn cosign(&mut self, old: u64) -> u64 {
        let told = tell(&mut self.connection, self.log.told(old)).await;
        assert_eq!(told.refusal, "");
        assert_eq!(told.witnesses[0].vkey, self.witness.cosigner().to_string());
        told.witnesses[0].size
    }

    fn request(&self, old: u64) -> WitnessRequest {
        let head = Head::read(&self.log.folder()).unwrap();
        let proof = head.extends(old).unwrap().unwrap_or_default();
        WitnessRequest {
            vkey: self.witness.cosigner().to_string(),
            size: self.log.size(),
            old_size: old,
            proof: proof.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
        }
    }

    async fn ask(&mut self, request: WitnessRequest) -> WitnessResponse {
        within(self.connection.client.witness(request))
            .await
            .unwrap()
            .into_inner()
    }

    async fn word(&mut self, old: u64) -> String {
        let request = self.request(old);
        self.ask(request).await.refusal
    }

    async fn heads(&self) -> LedgerHeads {
        self.ca.get(path::HEADS).await
    }

    async fn alerts(&self) -> Vec<String> {
        let hosts: HostList = self.ca.get(path::HOSTS).await;
        let alerts = hosts.hosts.into_iter().flat_map(|host| host.alerts);
        alerts.map(|alert| alert.kind).collect()
    }

    /// What is counted of answers.
    async fn count(&self, word: &str) -> u64 {
        let (_, text) = tcp_http(self.ca.addresses.dashboard, "/metrics").await;
        let text = String::from_utf8(text.to_vec()).unwrap();
        let name = format!("botmesh_ca_witnessed_total{{result=\"{word}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
        value.unwrap_or(0)
    }
}

/// Asserts that a note is a head of the log that the witness cosigned.
fn is_witnessed(scene: &Scene, note: &str, size: u64) {
    let note = Note::parse(note.as_bytes()).unwrap();
    scene.witness.cosigner().cosigned(&note).unwrap();
    let key = VerifierKey::parse(&scene.log.told(0).vkey).unwrap();
    let checkpoint = audit::Checkpoint::open(note.to_string().as_bytes(), &key).unwrap();
    assert_eq!(checkpoint.size, size);
}

#[tokio::test]
async fn a_head_that_the_ca_cosigned_is_carried_and_the_witness_says_where_it_stands() {
    let mut scene = Scene::new().await;
    assert_eq!(
        scene.word(0).await,
        "not_cosigned",
        "the CA carries what it has cosigned itself"
    );
    assert_eq!(scene.cosign(0).await, 0);
    let first = scene.log.size();
    let request = scene.request(0);
    let answer = scene.ask(request.clone()).await;
    is_witnessed(&scene, &answer.note, first);
    assert_eq!(scene.ask(request).await, answer, "what it has is not asked for again");
    assert_eq!(scene.asked(), 1);

    scene.ca.hand.advance(MINUTE);
    scene.log.grow(5);
    assert_eq!(
        scene.cosign(first).await,
        first,
        "it says to the host where the proof begins"
    );
    let second = scene.log.size();
    let request = scene.request(first);
    let answer = scene.ask(request).await;
    is_witnessed(&scene, &answer.note, second);
    assert_eq!(scene.witness.seen("acme.internal/host/web-1"), Some(second));
    let listed = scene.heads().await;
    let head = listed.witnessed.iter().find(|head| head.host.is_some()).unwrap();
    assert_eq!((head.size, head.epoch, &head.note), (second, 1, &answer.note));
    assert_eq!(head.witness, scene.witness.cosigner().to_string());
    assert_eq!(listed.witnesses[0].away_since, None);
    assert!(scene.alerts().await.is_empty());
}

#[tokio::test]
async fn a_witness_that_stands_elsewhere_is_told_again_from_there() {
    let mut scene = Scene::new().await;
    let (origin, first) = ("acme.internal/host/web-1", scene.log.size());
    let root = Head::read(&scene.log.folder()).unwrap().checkpoint().root;
    scene.witness.pretend(origin, first, root);
    scene.log.grow(5);
    scene.cosign(0).await;
    let request = scene.request(0);
    let behind = scene.ask(request).await;
    assert_eq!((behind.refusal.as_str(), behind.size), ("behind", first));
    assert_eq!(scene.word(first).await, "");
    assert_eq!((scene.count("behind").await, scene.count("cosigned").await), (1, 1));
    assert!(scene.alerts().await.is_empty());
}

#[tokio::test]
async fn a_witness_that_has_seen_another_past_raises_an_alert_and_begins_nothing() {
    for (more, root, word) in [(100, [1; 32], "set_back"), (0, [1; 32], "forked")] {
        let mut scene = Scene::new().await;
        let size = scene.log.size();
        scene
            .witness
            .pretend("acme.internal/host/web-1", size + more, Hash::from_bytes(root));
        scene.cosign(0).await;
        let request = scene.request(if more == 0 { size } else { 0 });
        let answer = scene.ask(request).await;
        assert_eq!((answer.refusal.as_str(), answer.size), (word, size + more));
        assert_eq!(scene.alerts().await, ["ledger_not_as_witnessed"]);
        assert_eq!(scene.word(size).await, word, "it is left in peace");
        assert_eq!(scene.asked(), 1);
        let listed = scene.heads().await;
        assert_eq!((listed.heads.len(), listed.heads[0].epoch), (1, 1));
        assert!(listed.witnessed.is_empty());
    }
}

#[tokio::test]
async fn an_honest_proof_that_the_witness_refuses_is_a_fork_and_a_false_one_does_not_leave_the_ca() {
    let mut scene = Scene::new().await;
    let first = scene.log.size();
    scene.cosign(0).await;
    assert_eq!(scene.word(0).await, "");
    scene.ca.hand.advance(MINUTE);
    scene.log.grow(5);
    scene.cosign(first).await;
    let mut request = scene.request(first);
    request.proof[0][0] ^= 1;
    let refused = within(scene.connection.client.witness(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(scene.asked(), 1);
    scene
        .witness
        .pretend("acme.internal/host/web-1", first, Hash::from_bytes([1; 32]));
    assert_eq!(scene.word(first).await, "forked");
    assert_eq!(scene.alerts().await, ["ledger_not_as_witnessed"]);
}

#[tokio::test]
async fn answers_that_are_no_cosignature_are_not_kept_and_the_witness_is_left_in_peace() {
    let says = |status, text: &str| Manner::Says(status, "text/plain", text.to_owned());
    for (manner, word) in [
        (Manner::OtherKey, "not_signed"),
        (Manner::Lies, "not_signed"),
        (Manner::Late, "clock"),
        (Manner::HangsUp, "away"),
        (says("503 Service Unavailable", ""), "away"),
        (says("200 OK", "OK\n"), "unreadable"),
        (says("302 Found", ""), "unreadable"),
        (says("200 OK", &"\u{2014} w AAAAAAAA\n".repeat(8000)), "away"),
        (
            Manner::Says("409 Conflict", "text/x.tlog.size", "9".repeat(70_000)),
            "away",
        ),
    ] {
        let mut scene = Scene::new().await;
        scene.cosign(0).await;
        scene.witness.set(manner.clone());
        assert_eq!(scene.word(0).await, word, "{manner:?}");
        assert!(scene.heads().await.witnessed.is_empty());
        assert_eq!(scene.word(0).await, "away");
        assert_eq!(scene.asked(), 1, "{manner:?}");
        let listed = scene.heads().await;
        assert!(listed.witnesses[0].away_since.is_some() && listed.witnesses[0].why.is_some());
        let status: CaStatus = scene.ca.get(path::STATUS).await;
        let wanted = "the witness w.example/w1 is away since ";
        assert!(
            status.notes.iter().any(|note| note.starts_with(wanted)),
            "{:?}",
            status.notes
        );

        // It is back, and what was missed is made up for.
        scene.witness.set(Manner::Honest);
        scene
            .witness
            .pretend("acme.internal/host/web-1", 0, Hash::of_empty_tree());
        scene.ca.hand.advance(Duration::from_secs(11));
        assert_eq!(scene.word(0).await, "", "{manner:?}");
        assert_eq!(scene.heads().await.witnesses[0].away_since, None);
        assert!(scene.alerts().await.is_empty(), "{manner:?}");
    }
}

#[tokio::test]
async fn a_ledger_that_the_witness_does_not_know_is_told_of_and_asked_for_later() {
    let mut scene = Scene::new().await;
    let other = Log::new(&scene.ca, "web-1");
    other.grow(1);
    scene.witness.knows(&other.told(0).vkey);
    scene.cosign(0).await;
    assert_eq!(scene.word(0).await, "other_key");
    scene.witness.knows(&scene.log.told(0).vkey);
    assert_eq!(scene.word(0).await, "other_key", "nobody is asked without end");
    scene.ca.hand.advance(10 * MINUTE);
    assert_eq!(scene.word(0).await, "");

    // A new epoch is another ledger, which somebody has to tell the witness of.
    let ledger = scene.log.open();
    ledger.begin_epoch(1, "forked");
    eventually(async || (ledger.stats().epoch == 2).then_some(())).await;
    ledger.shutdown();
    assert_eq!(scene.cosign(0).await, 0);
    assert_eq!(scene.word(0).await, "unknown_ledger");
    scene.witness.knows(&scene.log.told(0).vkey);
    scene.ca.hand.advance(10 * MINUTE);
    assert_eq!(scene.word(0).await, "");
    assert_eq!(
        scene.witness.seen("acme.internal/host/web-1/epoch/2"),
        Some(scene.log.size())
    );
    let listed = scene.heads().await.witnessed;
    let epochs: Vec<_> = listed
        .iter()
        .filter(|head| head.host.is_some())
        .map(|head| head.epoch)
        .collect();
    assert_eq!(epochs, [1, 2]);
}

#[tokio::test]
async fn requests_that_are_none_are_refused_and_unknown_witnesses_and_strangers_get_nothing() {
    let mut scene = Scene::new().await;
    scene.cosign(0).await;
    let good = scene.request(0);
    for proof in [vec![vec![0; 31]], vec![vec![0; 32]; 64]] {
        let bad = WitnessRequest { proof, ..good.clone() };
        let refused = within(scene.connection.client.witness(bad)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let other = WitnessRequest {
        vkey: "w".to_owned(),
        ..good.clone()
    };
    assert_eq!(scene.ask(other).await.refusal, "no_such_witness");
    let other = WitnessRequest {
        size: good.size + 1,
        ..good.clone()
    };
    assert_eq!(scene.ask(other).await.refusal, "not_cosigned");
    let token = scene.ca.token("web-2").await;
    let mut stranger = scene.ca.pinned(&token).await;
    let refused = within(stranger.client.witness(good.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut slowed = 0;
    for _ in 0..100 {
        let request = WitnessRequest {
            vkey: "w".to_owned(),
            ..good.clone()
        };
        if let Err(status) = within(scene.connection.client.witness(request)).await {
            assert_eq!(status.code(), Code::ResourceExhausted);
            slowed += 1;
        }
    }
    assert!(slowed > 10, "{slowed}");
    assert_eq!(scene.asked(), 0);
}

/// The verifier key of the CA's own ledger.
fn own_key(ledger: &Path) -> String {
    std::fs::read_to_string(ledger.join("ledger.vkey"))
        .unwrap()
        .trim_end()
        .to_owned()
}

#[tokio::test]
async fn the_cas_own_ledger_is_witnessed_and_begins_anew_where_its_own_evidence_says_so() {
    let (ca, witness) = watched().await;
    let ledger = ca.settings.ledger_dir();
    let own = eventually(async || ledger.join("ledger.vkey").exists().then(|| own_key(&ledger))).await;
    witness.knows(&own);
    let origin = VerifierKey::parse(&own).unwrap().name().to_string();
    let witnessed = async |ca: &TestCa, origin: &str, more_than: u64| {
        eventually(async || {
            ca.hand.advance(11 * MINUTE);
            tokio::time::sleep(Duration::from_millis(50)).await;
            let listed: LedgerHeads = ca.get(path::HEADS).await;
            let head = listed.witnessed.into_iter().find(|head| {
                let name = if head.epoch == 1 {
                    head.ledger.clone()
                } else {
                    format!("{}/epoch/{}", head.ledger, head.epoch)
                };
                name == origin
            })?;
            (head.size > more_than && head.host.is_none()).then_some(head.size)
        })
        .await
    };
    let first = witnessed(&ca, &origin, 0).await;
    let kept = audit::kept::kept_witnessed(&ledger, &witness.cosigner()).unwrap();
    assert_eq!(kept.checkpoint.size, first);

    // The folder is set back, and the store is not: what it has was signed by the ledger's own key.
    let (dir, settings, clock, hand) = ca.stop().await;
    let older = tempfile::tempdir().unwrap();
    copy(&ledger, older.path());
    let ca = TestCa::serve(dir, settings, clock, hand).await;
    for number in 0..20 {
        ca.token(&format!("web-{number}")).await;
    }
    let before = Head::read(older.path()).unwrap().checkpoint().size;
    assert!(before >= first);
    let later = witnessed(&ca, &origin, before).await;
    let (dir, settings, clock, hand) = ca.stop().await;
    std::fs::remove_dir_all(&ledger).unwrap();
    copy(older.path(), &ledger);
    let ca = TestCa::serve(dir, settings, clock, hand).await;
    let anew = eventually(async || {
        ca.hand.advance(11 * MINUTE);
        let key = VerifierKey::parse(&own_key(&ledger)).unwrap();
        key.name().as_str().ends_with("/epoch/2").then_some(key)
    })
    .await;
    assert_eq!(ca.events("epoch_begun")[0]["detail"]["why"], "shrunken");
    let alerts = ca.events("alert");
    assert_eq!(alerts[0]["detail"]["reason"], "ledger_not_as_witnessed");
    witness.knows(&anew.to_string());
    assert!(witnessed(&ca, anew.name().as_str(), 0).await > 0);
    assert_eq!(
        witness.seen(&origin),
        Some(later),
        "what was there before is not forgotten"
    );
    drop(ca);
}
