//! What outlives the process, and what refuses to start.

use ca::{InitError, RunError};
use ca_api::admin::{CaStatus, HostList, RevisionList, path};
use spiffe::id::TrustDomain;
use spiffe::time::Clock;
use spiffe_tls::PrivateKey;
use tokio_util::sync::CancellationToken;

use crate::support::*;

#[tokio::test]
async fn a_restart_keeps_mesh_numbers_hosts_and_tokens() {
    let ca = TestCa::with_mesh().await;
    ca.apply(&MESH.replace("reads-orders", "second"), Some((1, 1)))
        .await
        .unwrap();
    let host = ca.join("web-2").await;
    let mut stream = ca.connect(&host).await.sync(hello("10.0.0.2:15443")).await.unwrap();
    let slice = stream.slice().await;
    let token = ca.token("web-1").await;
    let evicted = ca.join("db-1").await;
    ca.evict("db-1").await;
    let before: CaStatus = ca.get(path::STATUS).await;

    let ca = ca.restart().await;
    assert_eq!(stream.goodbye().await.as_deref(), Some("shutdown"));
    let after: CaStatus = ca.get(path::STATUS).await;
    assert_eq!((after.generation, after.root_pin), (before.generation, before.root_pin));
    let revisions: RevisionList = ca.get(path::REVISIONS).await;
    assert_eq!(revisions.revisions.len(), 2);
    let mut again = ca.connect(&host).await.sync(hello("")).await.unwrap();
    assert_eq!(again.slice().await.sha256, slice.sha256);
    let caller = ca.join_with(&token, PrivateKey::generate().unwrap()).await.unwrap();
    let mut stream = ca.connect(&caller).await.sync(hello("")).await.unwrap();
    let known = vec!["10.0.0.2:15443".to_owned()];
    assert_eq!(stream.endpoints().await, [("prod/orders".to_owned(), known)]);
    assert!(ca.connect(&evicted).await.sync(hello("")).await.is_err());
    let hosts: HostList = ca.get(path::HOSTS).await;
    let states: Vec<_> = hosts
        .hosts
        .iter()
        .map(|host| (host.host.as_str(), host.state.as_str()))
        .collect();
    assert_eq!(states, [("db-1", "evicted"), ("web-1", "joined"), ("web-2", "joined")]);
    let applied = ca
        .apply(&MESH.replace("reads-orders", "third"), Some((1, 2)))
        .await
        .unwrap();
    assert_eq!(applied.generation.revision, 3);
}

#[tokio::test]
async fn the_ledger_verifies_after_a_stop_and_tells_the_whole_story() {
    let ca = TestCa::with_mesh().await;
    ca.join("web-1").await;
    ca.evict("web-1").await;
    let kinds: Vec<_> = ca
        .ledger()
        .iter()
        .filter_map(|line| Some(line["kind"].as_str()?.to_owned()))
        .collect();
    for kind in [
        "key_activated",
        "started",
        "policy_applied",
        "token_created",
        "host_joined",
        "issued",
        "host_evicted",
    ] {
        assert!(kinds.iter().any(|found| found == kind), "{kind} in {kinds:?}");
    }
    let (_dir, settings, ..) = ca.stop().await;
    audit::verify(&settings.ledger_dir(), None).unwrap();
}

#[tokio::test]
async fn init_refuses_a_folder_that_holds_a_ca_or_what_is_left_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let clock = Clock::system();
    ca::init(&settings, &clock).await.unwrap();
    assert!(matches!(
        ca::init(&settings, &clock).await,
        Err(InitError::AlreadyThere { .. })
    ));
    std::fs::remove_file(&settings.database).unwrap();
    assert!(matches!(
        ca::init(&settings, &clock).await,
        Err(InitError::AlreadyThere { .. })
    ));
}

#[tokio::test]
async fn a_ca_that_was_never_made_does_not_start_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let started = ca::start(settings.clone(), Clock::system(), CancellationToken::new()).await;
    assert!(matches!(
        started,
        Err(RunError::Store {
            source: ca::StoreError::NotInitialised,
            ..
        })
    ));
    assert!(!settings.database.exists());
}

#[tokio::test]
async fn a_ca_of_another_trust_domain_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    let clock = Clock::system();
    ca::init(&settings, &clock).await.unwrap();
    settings.trust_domain = TrustDomain::parse("other.internal").unwrap();
    let started = ca::start(settings, clock, CancellationToken::new()).await;
    assert!(matches!(started, Err(RunError::OtherTrustDomain { .. })));
}

#[tokio::test]
async fn a_lost_or_foreign_key_encryption_key_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let clock = Clock::system();
    ca::init(&settings, &clock).await.unwrap();
    let kek = settings.state_dir.join("kek");
    std::fs::write(&kek, [0; 32]).unwrap();
    let started = ca::start(settings.clone(), clock.clone(), CancellationToken::new()).await;
    assert!(matches!(
        started,
        Err(RunError::Keys {
            source: ca::KeyError::Unseal { .. }
        })
    ));
    std::fs::remove_file(&kek).unwrap();
    let started = ca::start(settings, clock, CancellationToken::new()).await;
    assert!(matches!(
        started,
        Err(RunError::Keys {
            source: ca::KeyError::Read { .. }
        })
    ));
}

#[tokio::test]
async fn two_cas_do_not_share_one_state() {
    let ca = TestCa::start().await;
    let mut settings = ca.settings.clone();
    let second = ca::start(settings.clone(), ca.clock.clone(), CancellationToken::new()).await;
    assert!(matches!(
        second,
        Err(RunError::Socket {
            source: ca::SocketError::InUse { .. }
        })
    ));
    settings.admin_socket = ca.dir.path().join("other.sock");
    let second = ca::start(settings, ca.clock.clone(), CancellationToken::new()).await;
    assert!(second.is_err(), "the ledger has one writer");
}
