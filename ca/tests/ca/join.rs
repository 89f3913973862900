//! Attestation: a token makes one machine one host, once.

use std::time::Duration;

use ca_api::admin::path;
use ca_api::node::attest_request::Evidence;
use serde_json::json;
use spiffe::id::SpiffeId;
use spiffe_tls::PrivateKey;
use tonic::Code;

use crate::support::*;

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

#[tokio::test]
async fn a_token_makes_its_bearer_the_host_that_it_names() {
    let ca = TestCa::start().await;
    let host = ca.join("web-1").await;
    assert_eq!(host.name, host_name("web-1"));
    assert_eq!(*host.svid.leaf().id(), SpiffeId::for_host(&domain(), &host.name));
    let joined = ca.events("host_joined");
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0]["actor"], "host:web-1");
}

#[tokio::test]
async fn the_token_is_kept_neither_in_the_store_nor_in_the_ledger() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    ca.join_with(&token, key()).await.unwrap();
    let secret = token.secret().expose_text().to_string();
    for line in ca.ledger() {
        assert!(!line.to_string().contains(&secret));
    }
    let (dir, settings, ..) = ca.stop().await;
    let database = std::fs::read(&settings.database).unwrap();
    assert!(!database.windows(secret.len()).any(|window| window == secret.as_bytes()));
    assert!(!database.windows(32).any(|window| window == token.secret().expose()));
    drop(dir);
}

#[tokio::test]
async fn a_lost_answer_is_given_again_to_the_same_key() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let key = key();
    let first = ca.join_with(&token, same(&key)).await.unwrap();
    let again = ca.join_with(&token, key).await.unwrap();
    assert_ne!(first.svid.leaf().serial(), again.svid.leaf().serial());
    ca.connect(&again).await.sync(hello("")).await.unwrap();
}

#[tokio::test]
async fn a_claimed_token_is_refused_to_another_key_and_an_alert_says_so() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    ca.join_with(&token, key()).await.unwrap();
    let refused = ca.join_with(&token, key()).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        !refused.message().contains("token"),
        "the peer learns nothing: {}",
        refused.message()
    );
    let events = ca.events("token_refused");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["detail"]["reason"], "token_other_key");
    assert_eq!(events[0]["subject"], "host:web-1");
}

#[tokio::test]
async fn of_many_keys_that_race_for_one_token_one_wins() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let attempts: Vec<_> = (0..8).map(|_| ca.join_with(&token, key())).collect();
    let won = join_all(attempts).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(won, 1);
}

async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_token_ends_after_ten_minutes_for_everybody() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let key = key();
    ca.join_with(&token, same(&key)).await.unwrap();
    ca.hand.advance(Duration::from_secs(599));
    assert!(ca.join_with(&token, same(&key)).await.is_ok());
    ca.hand.advance(Duration::from_secs(1));
    assert_eq!(
        ca.join_with(&token, key).await.err().unwrap().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn an_unknown_secret_is_refused() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let mut connection = ca.pinned(&token).await;
    let mut request = token_request(&token, &key(), &connection.exporter);
    let secret = ca_api::TokenSecret::new([7; 32]).expose_text().to_string();
    request.evidence = Some(Evidence::Token(ca_api::node::TokenEvidence { secret }));
    assert_eq!(
        connection.client.attest(request).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert!(ca.join_with(&token, key()).await.is_ok(), "and the token is still good");
}

#[tokio::test]
async fn a_proof_made_for_another_connection_is_refused() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let other = ca.pinned(&token).await;
    let mut connection = ca.pinned(&token).await;
    let relayed = token_request(&token, &key(), &other.exporter);
    assert_eq!(
        connection.client.attest(relayed).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn a_proof_by_another_key_than_the_csrs_is_refused() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let mut connection = ca.pinned(&token).await;
    let mut request = token_request(&token, &key(), &connection.exporter);
    request.proof = token_request(&token, &key(), &connection.exporter).proof;
    assert_eq!(
        connection.client.attest(request).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn a_request_without_evidence_or_with_another_host_is_refused() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let mut connection = ca.pinned(&token).await;
    let mut request = token_request(&token, &key(), &connection.exporter);
    request.host = "web-2".into();
    assert_eq!(
        connection.client.attest(request.clone()).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    request.host = String::new();
    request.evidence = None;
    assert_eq!(
        connection.client.attest(request).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn a_name_that_holds_a_key_is_not_given_to_another_key() {
    let ca = TestCa::start().await;
    ca.join("web-1").await;
    let second = ca.token("web-1").await;
    assert_eq!(
        ca.join_with(&second, key()).await.err().unwrap().code(),
        Code::PermissionDenied
    );
    let events = ca.events("token_refused");
    assert_eq!(events[0]["detail"]["reason"], "host_has_key");
    assert!(events[0]["detail"]["hint"].as_str().unwrap().contains("evict"));
}

#[tokio::test]
async fn after_eviction_the_name_is_free_and_the_old_key_and_tokens_are_worth_nothing() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let old_key = key();
    let old = ca.join_with(&token, same(&old_key)).await.unwrap();
    ca.evict("web-1").await;
    assert_eq!(
        ca.join_with(&token, same(&old_key)).await.err().unwrap().code(),
        Code::PermissionDenied
    );
    ca.join("web-1").await;
    let mut connection = ca.stranger(token.pins().to_vec()).await.unwrap();
    let request = bound_request(&old.name, &old_key, &key(), &connection.exporter);
    assert_eq!(
        connection.client.attest(request).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let refused = ca.connect(&old).await.issue("prod/checkout", Vec::new()).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_host_re_attests_with_its_own_key_even_after_its_certificate_ended() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let old = key();
    ca.join_with(&token, same(&old)).await.unwrap();
    ca.hand.advance(Duration::from_hours(48));
    // The CA's own SVID renews in the background, when its clock moves.
    let mut connection = eventually(async || ca.stranger(token.pins().to_vec()).await.ok()).await;
    let new = key();
    let request = bound_request(token.host(), &old, &new, &connection.exporter);
    let host = Host::new(connection.client.attest(request).await.unwrap().into_inner(), new);
    ca.connect(&host).await.sync(hello("")).await.unwrap();
}

#[tokio::test]
async fn a_renewed_key_replaces_the_old_one_once_it_is_used_and_not_before() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let old_key = key();
    let old = ca.join_with(&token, same(&old_key)).await.unwrap();
    let new_key = key();
    let mut connection = ca.stranger(token.pins().to_vec()).await.unwrap();
    let renew = |connection: &Connection| bound_request(token.host(), &old_key, &new_key, &connection.exporter);
    // The answer may be lost: the old key still works, twice.
    connection.client.attest(renew(&connection)).await.unwrap();
    let answer = connection.client.attest(renew(&connection)).await.unwrap().into_inner();
    let mut stream = ca.connect(&old).await.sync(hello("")).await.unwrap();
    stream.next().await.unwrap();
    let answer_again = connection.client.attest(renew(&connection)).await.unwrap().into_inner();
    assert_ne!(answer.chain, answer_again.chain);
    let new = Host::new(answer_again, same(&new_key));
    let mut newer = ca.connect(&new).await.sync(hello("")).await.unwrap();
    newer.next().await.unwrap();
    assert_eq!(stream.goodbye().await.as_deref(), Some("replaced"));
    let refused = ca.connect(&old).await.issue("prod/checkout", Vec::new()).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let refused = connection.client.attest(renew(&connection)).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_bound_key_is_good_for_its_own_host_only_and_must_sign() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    let web1 = key();
    ca.join_with(&token, same(&web1)).await.unwrap();
    ca.join("web-2").await;
    let mut connection = ca.stranger(token.pins().to_vec()).await.unwrap();
    let other_host = bound_request(&host_name("web-2"), &web1, &key(), &connection.exporter);
    assert_eq!(
        connection.client.attest(other_host).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    // The right public key, and a proof by somebody who does not hold it.
    let thief = key();
    let mut stolen = bound_request(&host_name("web-1"), &thief, &thief, &connection.exporter);
    if let Some(Evidence::BoundKey(bound)) = &mut stolen.evidence {
        bound.public_key = web1.spki_der();
    }
    assert_eq!(
        connection.client.attest(stolen).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn a_joining_host_that_pins_another_root_does_not_talk_to_this_ca() {
    let ca = TestCa::start().await;
    let refused = ca.stranger(vec![[9; 32]]).await.err().unwrap();
    assert!(refused.contains("pinned"), "{refused}");
}

#[tokio::test]
async fn the_number_of_open_tokens_of_a_host_is_bounded() {
    let ca = TestCa::start().await;
    for _ in 0..64 {
        ca.token("web-1").await;
    }
    let refused = ca
        .admin::<serde_json::Value>("POST", path::HOST_TOKEN, json!({"host": "web-1"}))
        .await;
    assert_eq!(refused.unwrap_err().status, 429);
    ca.token("web-2").await;
}

#[tokio::test]
async fn evicting_a_host_that_has_only_a_token_makes_the_token_worthless() {
    let ca = TestCa::start().await;
    let token = ca.token("web-1").await;
    assert_eq!(ca.evict("web-1").await.tokens, 1);
    assert_eq!(
        ca.join_with(&token, key()).await.err().unwrap().code(),
        Code::PermissionDenied
    );
    let refused = ca
        .admin::<serde_json::Value>("POST", path::HOST_EVICT, json!({"host": "web-1"}))
        .await;
    assert_eq!(refused.unwrap_err().code, "no_such_host");
}
