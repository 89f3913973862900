use ca_api::node::host_message;

use super::fake_ca::{Asked, FakeCa};
use super::*;
use crate::control::Missing;

/// Waits until slice 5 is on disk: what comes after it is read after it was kept.
async fn kept(ca: &FakeCa) {
    assert!(ca.receipt(5).await.ok);
    ca.say(slice(5, &["prod/orders"])).await;
    ca.until("a second receipt", |state| {
        let receipts = state
            .up
            .iter()
            .filter(|up| matches!(up, host_message::Message::Applied(_)));
        (receipts.count() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_restart_without_the_ca_enforces_the_policy_that_was_kept() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(5, &["prod/orders"])];
    let (host, running) = Host::joined(&ca, host).await;
    kept(&ca).await;
    running.stop().await;
    std::fs::remove_file(host.dir.path().join("token")).unwrap();
    let config = host.config(&ca);
    drop(ca);
    host.entries.lock().unwrap().clear();

    let running = host.start(config).await.unwrap();
    let snapshot = running.control.snapshot();
    assert_eq!(snapshot.generation.revision, 5);
    assert_eq!(snapshot.bundle.authorities().len(), 1);
    assert_eq!(host.entries.lock().unwrap().len(), 1);
    let ready = running.control.ready();
    assert!(
        ready.is_ready(),
        "the CA was heard a moment ago, and the SVIDs are kept: {ready:?}"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_restart_needs_no_token_and_resumes() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(5, &["prod/orders"])];
    let (host, running) = Host::joined(&ca, host).await;
    kept(&ca).await;
    running.stop().await;
    std::fs::remove_file(host.dir.path().join("token")).unwrap();

    ca.state().greeting.clear();
    let running = host.start(host.config(&ca)).await.unwrap();
    running
        .until("the stream", |control| control.status().link.connected.clone())
        .await;
    assert!(running.control.svid(&bot("prod/orders")).is_some());
    assert_eq!(ca.state().asked.len(), 1, "the node SVID that was kept is used");
    assert_eq!(ca.state().hellos.last().unwrap().applied.unwrap().revision, 5);
    running.stop().await;
}

#[tokio::test]
async fn a_host_that_slept_past_its_node_svid_proves_itself_by_its_key() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let (host, running) = Host::joined(&ca, host).await;
    running.stop().await;
    std::fs::remove_file(host.dir.path().join("token")).unwrap();
    host.hand.advance(Duration::from_hours(48));

    let running = host.start(host.config(&ca)).await.unwrap();
    running
        .until("the stream", |control| control.status().link.connected.clone())
        .await;
    assert!(matches!(
        ca.state().asked.as_slice(),
        [Asked::Token { .. }, Asked::BoundKey { .. }]
    ));
    running.stop().await;
}

#[tokio::test]
async fn a_state_directory_of_another_host_is_refused() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let (host, running) = Host::joined(&ca, host).await;
    running.stop().await;
    let mut config = host.config(&ca);
    config.host = HostName::parse("web-2").unwrap();
    assert!(matches!(host.start(config).await, Err(StartError::OtherHost { .. })));
}

#[tokio::test]
async fn a_slice_that_was_tampered_with_on_disk_is_not_used() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(5, &["prod/orders"])];
    let (host, running) = Host::joined(&ca, host).await;
    kept(&ca).await;
    running.stop().await;
    let config = host.config(&ca);
    drop(ca);
    let file = config.state_dir.join("slice.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("web-1", "web-2")).unwrap();
    let running = host.start(config).await.unwrap();
    assert!(!running.control.snapshot().has_slice());
    assert!(running.control.ready().missing.contains(&Missing::Slice));
    running.stop().await;
}

#[tokio::test]
async fn after_joining_only_a_ca_of_the_kept_bundle_is_believed() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let (host, running) = Host::joined(&ca, host).await;
    running.stop().await;
    let impostor = FakeCa::start(&host.clock).await;
    impostor.state().greeting = vec![slice(9, &["prod/evil"])];
    let running = host.start(host.config(&impostor)).await.unwrap();
    let error = running.until("a refusal", |control| control.status().link.error).await;
    assert!(error.contains("is not the CA"), "{error}");
    assert!(impostor.state().hellos.is_empty() && !running.control.snapshot().has_slice());
    running.stop().await;
}

#[tokio::test]
async fn time_does_not_go_back_over_a_restart() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let (host, running) = Host::joined(&ca, host).await;
    running.stop().await;
    host.hand.set(start_time() - Duration::from_hours(1));
    let running = host.start(host.config(&ca)).await.unwrap();
    assert!(running.control.now() >= start_time() - Duration::from_secs(5));
    running.stop().await;
}
