//! Heads of hosts' ledgers: cosigned while a ledger only grows, and told of where it does not.

use std::path::Path;
use std::time::Duration;

use audit::note::Note;
use audit::{Cosigner, EventKind, EventRecord, Head, Ledger, LedgerConfig};
use ca_api::admin::{HostList, LedgerHeads, path};
use ca_api::node::{CosignRequest, CosignResponse};
use spiffe::time::Clock;
use tempfile::TempDir;
use tonic::Code;

use crate::support::*;

const MINUTE: Duration = Duration::from_secs(60);

/// The ledger of a host, as its proxy has it.
pub(crate) struct Log {
    dir: TempDir,
    origin: String,
    clock: Clock,
}

impl Log {
    pub(crate) fn new(ca: &TestCa, host: &str) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            origin: format!("acme.internal/host/{host}"),
            clock: ca.clock.clone(),
        }
    }

    pub(crate) fn open(&self) -> Ledger {
        let config = LedgerConfig {
            dir: self.folder().to_owned(),
            key_file: self.dir.path().join("log.key"),
            origin: self.origin.clone(),
            sync: Duration::from_millis(1),
            max_bytes: 1 << 20,
            retention: None,
        };
        Ledger::open_or_begin(config, self.clock.clone()).unwrap().0
    }

    pub(crate) fn folder(&self) -> std::path::PathBuf {
        self.dir.path().join("ledger")
    }

    /// Writes records and seals them.
    pub(crate) fn grow(&self, records: u64) {
        let ledger = self.open();
        for number in 0..records {
            let event = EventRecord {
                kind: EventKind::Operator,
                time: self.clock.now(),
                actor: "operator:root".to_owned(),
                subject: number.to_string(),
                detail: std::collections::BTreeMap::new(),
            };
            ledger.event(&event).unwrap();
        }
        ledger.shutdown();
    }

    pub(crate) fn told(&self, old: u64) -> CosignRequest {
        request(&Head::read(&self.folder()).unwrap(), old)
    }

    pub(crate) fn size(&self) -> u64 {
        Head::read(&self.folder()).unwrap().checkpoint().size
    }

    /// Another key, as after both it and the ledger were lost.
    fn lose(&self) {
        std::fs::remove_dir_all(self.folder()).unwrap();
        std::fs::remove_file(self.dir.path().join("log.key")).unwrap();
    }
}

fn request(head: &Head, old: u64) -> CosignRequest {
    let proof = head.extends(old).unwrap().unwrap_or_default();
    CosignRequest {
        vkey: head.key().to_string(),
        note: head.note().to_owned(),
        old_size: old,
        proof: proof.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
    }
}

pub(crate) async fn tell(connection: &mut Connection, request: CosignRequest) -> CosignResponse {
    within(connection.client.cosign(request)).await.unwrap().into_inner()
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => std::fs::copy(entry.path(), target).map(drop).unwrap(),
        }
    }
}

async fn heads(ca: &TestCa) -> LedgerHeads {
    ca.get(path::HEADS).await
}

/// The kinds of the alerts about web-1.
async fn alerts(ca: &TestCa) -> Vec<String> {
    let hosts: HostList = ca.get(path::HOSTS).await;
    let alerts = hosts.hosts.into_iter().flat_map(|host| host.alerts);
    alerts.map(|alert| alert.kind).collect()
}

fn refusals(ca: &TestCa) -> Vec<String> {
    let refused = ca.events("checkpoint_refused");
    let words = refused
        .iter()
        .map(|event| event["detail"]["reason"].as_str().unwrap().to_owned());
    words.collect()
}

#[tokio::test]
async fn a_ledger_that_grows_is_cosigned_once_a_minute() {
    let ca = TestCa::start().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let log = Log::new(&ca, "web-1");
    log.grow(5);
    let first = tell(&mut connection, log.told(0)).await;
    assert_eq!((first.refusal.as_str(), first.epoch, first.size), ("", 1, log.size()));
    let cosigner = Cosigner::parse(&first.cosigner).unwrap();
    assert!(cosigner.name().as_str().starts_with("acme.internal/ca/"));
    let note = Note::parse(first.cosigned.as_bytes()).unwrap();
    let time = cosigner.cosigned(&note).unwrap();
    assert_eq!(time.unix_seconds(), ca.clock.now().unix_seconds());
    assert_eq!(
        tell(&mut connection, log.told(first.size)).await,
        first,
        "the same one again is no news"
    );

    log.grow(5);
    assert_eq!(tell(&mut connection, log.told(first.size)).await.refusal, "too_soon");
    ca.hand.advance(MINUTE);
    let behind = tell(&mut connection, log.told(0)).await;
    assert_eq!((behind.refusal.as_str(), behind.size), ("behind", first.size));
    let second = tell(&mut connection, log.told(behind.size)).await;
    assert_eq!((second.refusal.as_str(), second.size), ("", log.size()));

    let recorded = ca.events("checkpoint_cosigned");
    assert_eq!(recorded.len(), 2);
    assert_eq!(recorded[1]["subject"], "host:web-1");
    assert_eq!(recorded[1]["detail"]["size"], log.size());
    let listed = heads(&ca).await;
    assert_eq!(listed.cosigner, first.cosigner);
    assert_eq!(listed.heads.len(), 1);
    assert_eq!(
        (listed.heads[0].size, &listed.heads[0].note),
        (log.size(), &second.cosigned)
    );
    assert!(refusals(&ca).is_empty() && alerts(&ca).await.is_empty());
}

#[tokio::test]
async fn what_was_cosigned_survives_a_restart_of_the_ca() {
    let ca = TestCa::start().await;
    let host = ca.join("web-1").await;
    let log = Log::new(&ca, "web-1");
    log.grow(5);
    let first = tell(&mut ca.connect(&host).await, log.told(0)).await;
    let ca = ca.restart().await;
    ca.hand.advance(MINUTE);
    log.grow(5);
    let mut connection = ca.connect(&host).await;
    assert_eq!(tell(&mut connection, log.told(0)).await.refusal, "behind");
    let second = tell(&mut connection, log.told(first.size)).await;
    assert_eq!((second.refusal.as_str(), second.cosigner), ("", first.cosigner));
}

#[tokio::test]
async fn a_ledger_that_was_set_back_is_not_cosigned_and_raises_an_alert() {
    let ca = TestCa::start().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let log = Log::new(&ca, "web-1");
    log.grow(5);
    let older = tempfile::tempdir().unwrap();
    copy(&log.folder(), older.path());
    log.grow(5);
    let seen = tell(&mut connection, log.told(0)).await.size;
    ca.hand.advance(MINUTE);
    std::fs::remove_dir_all(log.folder()).unwrap();
    copy(older.path(), &log.folder());
    let refused = tell(&mut connection, log.told(log.size())).await;
    assert_eq!(
        (refused.refusal.as_str(), refused.epoch, refused.size),
        ("shrunken", 1, seen)
    );
    assert_eq!(refused.cosigned, "");

    // It goes on for longer than it was, and is another one.
    log.grow(20);
    assert_eq!(tell(&mut connection, log.told(seen)).await.refusal, "forked");
    assert_eq!(refusals(&ca), ["ledger_shrunken", "ledger_forked"]);
    assert_eq!(alerts(&ca).await, ["ledger_set_back"]);
    assert_eq!(heads(&ca).await.heads[0].size, seen, "what was cosigned stands");

    // A new epoch of it is cosigned, and told of.
    let ledger = log.open();
    ledger.begin_epoch(refused.epoch, "forked");
    eventually(async || (ledger.stats().epoch == 2).then_some(())).await;
    ledger.shutdown();
    let begun = tell(&mut connection, log.told(0)).await;
    assert_eq!((begun.refusal.as_str(), begun.epoch), ("", 2));
    let recorded = ca.events("checkpoint_cosigned");
    assert_eq!(recorded[1]["detail"]["ended_epoch"], 1);
    assert_eq!(recorded[1]["detail"]["ledger"], "acme.internal/host/web-1/epoch/2");
    assert_eq!(alerts(&ca).await, ["ledger_set_back", "ledger_begun_anew"]);
    let listed = heads(&ca).await.heads;
    assert_eq!(
        listed.iter().map(|head| (head.epoch, head.current)).collect::<Vec<_>>(),
        [(1, false), (2, true)]
    );
    assert_eq!(listed[0].size, seen);
}

#[tokio::test]
async fn a_lost_ledger_has_another_key_and_no_epoch_comes_back() {
    let ca = TestCa::start().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let log = Log::new(&ca, "web-1");
    log.grow(5);
    assert_eq!(tell(&mut connection, log.told(0)).await.refusal, "");
    let first = Head::read(&log.folder()).unwrap();
    let first = request(&first, 0);
    ca.hand.advance(MINUTE);
    log.lose();
    log.grow(9);
    assert_eq!(tell(&mut connection, log.told(0)).await.refusal, "other_key");
    let ledger = log.open();
    ledger.begin_epoch(1, "other_key");
    eventually(async || (ledger.stats().epoch == 2).then_some(())).await;
    ledger.shutdown();
    assert_eq!(tell(&mut connection, log.told(0)).await.refusal, "");
    let old = tell(&mut connection, first).await;
    assert_eq!((old.refusal.as_str(), old.epoch), ("old_epoch", 2));
    assert_eq!(refusals(&ca), ["ledger_other_key", "ledger_old_epoch"]);
}

#[tokio::test]
async fn the_ledger_of_another_host_and_bytes_that_are_no_head_are_refused() {
    let ca = TestCa::start().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let other = Log::new(&ca, "web-2");
    other.grow(5);
    assert_eq!(tell(&mut connection, other.told(0)).await.refusal, "other_ledger");
    let log = Log::new(&ca, "web-1");
    log.grow(5);
    let good = log.told(0);
    let forged = CosignRequest {
        vkey: {
            let second = Log::new(&ca, "web-1");
            second.grow(1);
            second.told(0).vkey
        },
        ..good.clone()
    };
    assert_eq!(tell(&mut connection, forged).await.refusal, "no_checkpoint");
    let hash = vec![0; 32];
    for bad in [
        CosignRequest {
            note: "x".to_owned(),
            ..good.clone()
        },
        CosignRequest {
            note: format!("{}{}", good.note, " ".repeat(4096)),
            ..good.clone()
        },
        CosignRequest {
            vkey: "x".to_owned(),
            ..good.clone()
        },
        CosignRequest {
            vkey: "x".repeat(2000),
            ..good.clone()
        },
        CosignRequest {
            proof: vec![vec![0; 31]],
            ..good.clone()
        },
        CosignRequest {
            proof: vec![hash; 64],
            ..good.clone()
        },
    ] {
        let refused = within(connection.client.cosign(bad)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    assert!(heads(&ca).await.heads.is_empty());
    let words = refusals(&ca);
    assert_eq!(words[..2], ["checkpoint_not_yours", "checkpoint_unreadable"]);
    assert!(
        alerts(&ca).await.is_empty(),
        "a host that says nonsense has lost no ledger"
    );
}

#[tokio::test]
async fn a_host_that_tells_heads_without_end_is_slowed_down() {
    let ca = TestCa::start().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let log = Log::new(&ca, "web-1");
    log.grow(1);
    let mut slowed = 0;
    for _ in 0..100 {
        if let Err(status) = within(connection.client.cosign(log.told(0))).await {
            assert_eq!(status.code(), Code::ResourceExhausted);
            slowed += 1;
        }
    }
    assert!(slowed > 10, "{slowed}");
}

#[tokio::test]
async fn a_stranger_and_an_evicted_host_have_nothing_cosigned() {
    let ca = TestCa::start().await;
    let log = Log::new(&ca, "web-1");
    log.grow(1);
    let token = ca.token("web-1").await;
    let mut stranger = ca.pinned(&token).await;
    let refused = within(stranger.client.cosign(log.told(0))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let host = ca
        .join_with(&token, spiffe_tls::PrivateKey::generate().unwrap())
        .await
        .unwrap();
    let mut connection = ca.connect(&host).await;
    ca.evict("web-1").await;
    let refused = within(connection.client.cosign(log.told(0))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(heads(&ca).await.heads.is_empty());
}
