use super::fake_ca::{Asked, AttestAnswer, FakeCa, Root, token};
use super::*;
use crate::control::JoinError;

fn in_ten_minutes() -> Timestamp {
    start_time() + Duration::from_mins(10)
}

/// Starts a host that must not get in, and gives the reason.
async fn refused(ca: &FakeCa, token: &str) -> JoinError {
    let host = Host::new();
    host.write_token(token);
    match host.start(host.config(ca)).await {
        Err(StartError::Join { source }) => source,
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("joined"),
    }
}

#[tokio::test]
async fn a_host_joins_with_a_token_and_says_hello() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let (host, running) = Host::joined(&ca, host).await;
    let hello = ca.until("a hello", |state| state.hellos.first().cloned()).await;
    assert_eq!(hello.advertise, ":15443");
    assert_eq!(hello.applied, None);
    assert_eq!(hello.bundle_sequence, 1);
    let status = running.control.status();
    assert_eq!(status.node_not_after, Some(start_time() + Duration::from_hours(24)));
    assert_eq!(running.control.snapshot().bundle.authorities().len(), 1);
    running.stop().await;
    assert!(host.ledger_text().contains("host_joined"));
}

#[tokio::test]
async fn a_server_whose_root_is_not_pinned_gets_no_token() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let other = Root::new(start_time());
    let error = refused(&ca, &token("web-1", vec![other.pin()], in_ten_minutes())).await;
    assert!(
        matches!(&error, JoinError::Dial { source } if source.is_not_the_ca()),
        "{error:?}"
    );
    assert!(ca.state().asked.is_empty(), "the secret stayed here");
}

#[tokio::test]
async fn a_token_of_another_host_is_not_even_sent() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let error = refused(&ca, &ca.token("web-2", in_ten_minutes())).await;
    assert!(matches!(error, JoinError::OtherHost { .. }), "{error:?}");
    assert!(ca.state().asked.is_empty());
}

#[tokio::test]
async fn a_ca_that_names_the_host_differently_is_an_error() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().answers.push_back(AttestAnswer::NameIt("web-9"));
    let error = refused(&ca, &ca.token("web-1", in_ten_minutes())).await;
    assert!(
        matches!(&error, JoinError::NamedOtherwise { named, .. } if named == "web-9"),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_svid_of_another_host_is_not_taken() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().answers.push_back(AttestAnswer::OtherLeaf);
    let error = refused(&ca, &ca.token("web-1", in_ten_minutes())).await;
    assert!(
        matches!(&error, JoinError::NamedOtherwise { named, .. } if named.ends_with("host/web-9")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_refused_token_is_an_error_for_the_operator() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().answers.push_back(AttestAnswer::Refuse);
    let error = refused(&ca, &ca.token("web-1", in_ten_minutes())).await;
    assert!(matches!(error, JoinError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refused_token_that_has_ended_is_said_to_have_ended() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().answers.push_back(AttestAnswer::Refuse);
    let error = refused(&ca, &ca.token("web-1", start_time())).await;
    assert!(
        matches!(error, JoinError::TokenExpired { expired, .. } if expired == start_time()),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_host_without_key_and_token_is_told_how_to_get_one() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let Err(error) = host.start(host.config(&ca)).await else {
        panic!("started")
    };
    let text = crate::control::chain_of(&error);
    assert!(text.contains("botmesh host token web-1"), "{text}");
}

#[tokio::test]
async fn what_is_no_token_is_refused_without_showing_it() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let error = refused(&ca, "bmj1_c2VjcmV0").await;
    let text = crate::control::chain_of(&error);
    assert!(
        matches!(error, JoinError::BadToken { .. }) && !text.contains("c2VjcmV0"),
        "{text}"
    );
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().answers.push_back(AttestAnswer::Lose);
    let (_host, running) = Host::joined(&ca, host).await;
    let asked = ca.state().asked.clone();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1]);
    running.stop().await;
}

#[tokio::test]
async fn a_proxy_killed_while_it_joins_asks_again_with_the_same_key() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().answers.extend([AttestAnswer::Lose, AttestAnswer::Refuse]);
    host.write_token(&ca.token("web-1", in_ten_minutes()));
    assert!(host.start(host.config(&ca)).await.is_err());
    let running = host.start(host.config(&ca)).await.unwrap();
    let asked = ca.state().asked.clone();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|each| *each == asked[0]), "one key claims the token");
    running.stop().await;
}

#[tokio::test]
async fn an_unreachable_ca_is_waited_for_until_told_to_stop() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    host.write_token(&ca.token("web-1", in_ten_minutes()));
    let config = host.config(&ca);
    drop(ca);
    let cancel = CancellationToken::new();
    let start = Control::start(config, host.clock.clone(), host.ledger(), |_| {}, cancel.clone());
    let mut start = std::pin::pin!(start);
    tokio::select! {
        biased;
        outcome = &mut start => panic!("did not wait: {outcome:?}"),
        () = std::future::ready(()) => cancel.cancel(),
    }
    assert!(matches!(start.await, Err(StartError::Cancelled)));
}

#[tokio::test]
async fn the_first_server_that_is_the_ca_is_used() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let impostor = FakeCa::start(&host.clock).await;
    host.write_token(&ca.token("web-1", in_ten_minutes()));
    let mut config = host.config(&impostor);
    config.ca_addresses.extend(host.config(&ca).ca_addresses);
    let running = host.start(config).await.unwrap();
    assert_eq!(ca.state().asked.len(), 1);
    assert!(impostor.state().asked.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn the_node_svid_is_renewed_with_a_new_key_proved_by_the_old_one() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let (host, running) = Host::joined(&ca, host).await;
    ca.until("a stream", |state| (state.hellos.len() == 1).then_some(()))
        .await;
    let due = running.control.status().node_renew_at.unwrap();
    let life = Duration::from_hours(24);
    assert!(due >= start_time() + life * 35 / 100 && due <= start_time() + life * 45 / 100);
    host.hand.set(due);
    ca.until("a second stream", |state| (state.hellos.len() == 2).then_some(()))
        .await;
    let asked = ca.state().asked.clone();
    let [Asked::Token { key: first }, Asked::BoundKey { bound, key: second }] = asked.as_slice() else {
        panic!("asked for {asked:?}");
    };
    assert_eq!(first, bound);
    assert_ne!(first, second);
    running.stop().await;
}

#[tokio::test]
async fn an_evicted_host_drops_everything_and_joins_again_with_a_new_token() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(1, &["prod/orders"])];
    let (host, running) = Host::joined(&ca, host).await;
    running
        .until("an SVID", |control| control.svid(&bot("prod/orders")))
        .await;
    std::fs::remove_file(host.dir.path().join("token")).unwrap();
    ca.state().greeting.clear();
    ca.goodbye("evicted").await;
    running
        .until("eviction", |control| control.status().link.evicted.then_some(()))
        .await;
    assert!(running.control.svid(&bot("prod/orders")).is_none());
    assert!(!running.control.snapshot().has_slice());
    assert!(host.entries.lock().unwrap().is_empty());
    ca.state().asked.clear();
    host.write_token(&ca.token("web-1", in_ten_minutes()));
    running
        .until("joining again", |control| {
            (!control.status().link.evicted).then_some(())
        })
        .await;
    running.stop().await;
}

#[tokio::test]
async fn a_host_whose_node_svid_is_refused_proves_itself_by_its_key() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().refuse_streams = 1;
    let (_host, running) = Host::joined(&ca, host).await;
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
async fn a_host_whose_key_is_refused_uses_a_token_if_an_operator_left_one() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    {
        let mut state = ca.state();
        state.refuse_streams = 1;
        state.answers.extend([AttestAnswer::Issue, AttestAnswer::Refuse]);
    }
    let (host, running) = Host::joined(&ca, host).await;
    // The double takes a token once: this host's second key is a stranger to it.
    ca.until("the refused key", |state| (state.asked.len() >= 2).then_some(()))
        .await;
    ca.state().asked.clear();
    running
        .until("the stream", |control| control.status().link.connected.clone())
        .await;
    assert!(
        ca.state()
            .asked
            .iter()
            .any(|asked| matches!(asked, Asked::Token { .. }))
    );
    running.stop().await;
    assert_eq!(host.ledger_text().matches("host_joined").count(), 2);
}
