//! SVIDs for bots: only to a host that may claim them, and only their key.

use std::time::Duration;

use ca_api::node::{IssueRequest, SvidRequest};
use spiffe::id::SpiffeId;
use spiffe::svid::Leaf;
use spiffe_tls::{PrivateKey, Svid};
use tonic::Code;

use crate::support::*;

fn csr(bot: &str) -> (PrivateKey, Vec<u8>) {
    let key = PrivateKey::generate().unwrap();
    let csr = key.csr(&bot_id(bot)).unwrap();
    (key, csr)
}

#[tokio::test]
async fn a_host_gets_the_svid_of_its_own_bot() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let (key, csr) = csr("prod/checkout");
    let result = ca.connect(&host).await.issue("prod/checkout", csr).await.unwrap();
    assert_eq!(result.refusal, "");
    let svid = Svid::new(result.chain, key).unwrap();
    assert_eq!(*svid.leaf().id(), bot_id("prod/checkout"));
    assert_eq!(
        svid.leaf().not_after().unix_seconds(),
        (ca.clock.now() + Duration::from_mins(15)).unix_seconds()
    );
    let issued = ca.events("issued");
    let record = issued
        .iter()
        .find(|event| event["subject"] == bot_id("prod/checkout").as_str())
        .unwrap();
    assert_eq!(record["actor"], "host:web-1");
    assert_eq!(record["detail"]["serial"], svid.leaf().serial().to_string());
}

#[tokio::test]
async fn a_bot_of_another_host_and_a_bot_that_is_not_there_are_refused_alike() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let (_, orders) = csr("prod/orders");
    let other = connection.issue("prod/orders", orders.clone()).await.unwrap();
    let absent = connection.issue("prod/absent", orders).await.unwrap();
    for result in [&other, &absent] {
        assert_eq!(result.refusal, "not_your_bot");
        assert!(result.chain.is_empty());
    }
    assert_eq!(other.message, absent.message);
}

#[tokio::test]
async fn the_name_in_a_csr_counts_for_nothing() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let (_, csr_for_another) = csr("prod/orders");
    let result = ca
        .connect(&host)
        .await
        .issue("prod/checkout", csr_for_another)
        .await
        .unwrap();
    assert_eq!(*Leaf::parse(&result.chain[0]).unwrap().id(), bot_id("prod/checkout"));
}

#[tokio::test]
async fn bytes_that_are_no_csr_are_refused() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let (_, good) = csr("prod/checkout");
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    for csr in [Vec::new(), vec![0; 5000], forged] {
        assert_eq!(
            connection.issue("prod/checkout", csr).await.unwrap().refusal,
            "bad_request"
        );
    }
    assert_eq!(
        connection.issue("Prod/Checkout", good).await.unwrap().refusal,
        "bad_request"
    );
}

#[tokio::test]
async fn before_the_first_apply_no_bot_gets_anything() {
    let ca = TestCa::start().await;
    let host = ca.join("web-1").await;
    let (_, csr) = csr("prod/checkout");
    assert_eq!(
        ca.connect(&host)
            .await
            .issue("prod/checkout", csr)
            .await
            .unwrap()
            .refusal,
        "not_your_bot"
    );
}

#[tokio::test]
async fn a_caller_without_a_certificate_gets_nothing_but_attestation() {
    let ca = TestCa::with_mesh().await;
    let token = ca.token("web-1").await;
    let mut connection = ca.pinned(&token).await;
    let (_, csr) = csr("prod/checkout");
    let refused = connection.issue("prod/checkout", csr).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = connection.sync(hello("")).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_bots_svid_is_not_a_hosts() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let (key, request) = csr("prod/checkout");
    let result = ca.connect(&host).await.issue("prod/checkout", request).await.unwrap();
    let bot = Svid::new(result.chain, key).unwrap();
    let mut connection = ca.connect_as(&bot, &host.bundle).await.unwrap();
    let (_, request) = csr("prod/checkout");
    let refused = connection.issue("prod/checkout", request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_host_svid_that_ends_while_its_connection_lives_is_worth_nothing() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let (_, request) = csr("prod/checkout");
    assert_eq!(
        connection
            .issue("prod/checkout", request.clone())
            .await
            .unwrap()
            .refusal,
        ""
    );
    ca.hand.advance(Duration::from_hours(1));
    assert!(connection.issue("prod/checkout", request).await.is_err());
}

#[tokio::test]
async fn an_evicted_host_gets_nothing_on_a_connection_that_is_still_open() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    ca.evict("web-1").await;
    let (_, request) = csr("prod/checkout");
    let refused = connection.issue("prod/checkout", request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_host_that_loses_a_bot_by_an_apply_gets_no_more_svids_for_it() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let moved = MESH.replace("hosts: [web-1]", "hosts: [web-3]");
    ca.apply(&moved, Some((1, 1))).await.unwrap();
    let (_, request) = csr("prod/checkout");
    let result = ca.connect(&host).await.issue("prod/checkout", request).await.unwrap();
    assert_eq!(result.refusal, "not_your_bot");
}

#[tokio::test]
async fn a_batch_is_bounded_and_answers_in_order() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let request = |bot: &str| SvidRequest {
        bot: bot.into(),
        csr: csr("prod/checkout").1,
    };
    let svids = vec![
        request("prod/orders"),
        request("prod/checkout"),
        request("x"),
        request("prod/checkout"),
    ];
    let answer = connection
        .client
        .issue(IssueRequest { svids })
        .await
        .unwrap()
        .into_inner();
    let words: Vec<_> = answer.results.iter().map(|result| result.refusal.as_str()).collect();
    assert_eq!(words, ["not_your_bot", "", "not_your_bot", ""]);
    let chains: Vec<_> = answer.results.iter().map(|result| result.chain.len()).collect();
    assert_eq!(chains, [0, 1, 0, 1]);
    let one = request("prod/checkout");
    let svids = vec![one; 65];
    let refused = connection.client.issue(IssueRequest { svids }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn no_svid_outlives_the_root() {
    let ca = TestCa::with_mesh().await;
    let token = ca.token("web-1").await;
    let key = PrivateKey::generate().unwrap();
    ca.join_with(&token, same(&key)).await.unwrap();
    let status: ca_api::admin::CaStatus = ca.get(ca_api::admin::path::STATUS).await;
    ca.hand.set(status.root_not_after - Duration::from_mins(5));
    // The CA's own SVID renews in the background, when its clock moves.
    let mut connection = eventually(async || ca.stranger(token.pins().to_vec()).await.ok()).await;
    let new = PrivateKey::generate().unwrap();
    let request = bound_request(token.host(), &key, &new, &connection.exporter);
    let host = Host::new(connection.client.attest(request).await.unwrap().into_inner(), new);
    assert_eq!(host.svid.leaf().not_after(), status.root_not_after);
    let (_, request) = csr("prod/checkout");
    let mut connection = ca.connect(&host).await;
    let result = connection.issue("prod/checkout", request).await.unwrap();
    assert_eq!(
        Leaf::parse(&result.chain[0]).unwrap().not_after(),
        status.root_not_after
    );
    ca.hand.set(status.root_not_after);
    let readiness = tcp_http(ca.addresses.dashboard, "/readyz").await;
    assert_eq!(readiness.0, 503);
    assert_eq!(host.svid.leaf().id(), &SpiffeId::for_host(&domain(), &host.name));
}

#[tokio::test]
async fn a_thousand_svids_of_many_requests_are_all_recorded() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let connection = ca.connect(&host).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut client = connection.client.clone();
        let request = SvidRequest {
            bot: "prod/checkout".into(),
            csr: csr("prod/checkout").1,
        };
        clients.spawn(async move {
            let answer = client
                .issue(IssueRequest {
                    svids: vec![request; 64],
                })
                .await
                .unwrap();
            answer
                .into_inner()
                .results
                .iter()
                .filter(|result| result.refusal.is_empty())
                .count()
        });
    }
    let issued: usize = within(clients.join_all()).await.into_iter().sum();
    assert_eq!(issued, 1024);
    let recorded = ca.events("issued");
    let serials: std::collections::BTreeSet<_> = recorded
        .iter()
        .filter(|event| event["subject"] == bot_id("prod/checkout").as_str())
        .map(|event| event["detail"]["serial"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(serials.len(), 1024);
    let metrics = String::from_utf8(tcp_http(ca.addresses.dashboard, "/metrics").await.1.to_vec()).unwrap();
    assert!(
        metrics.contains("botmesh_ca_svids_total{kind=\"bot\",result=\"issued\"} 1024"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_host_that_asks_without_end_is_told_to_wait_and_others_are_not() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let other = ca.join("web-2").await;
    let mut connection = ca.connect(&host).await;
    let request = SvidRequest {
        bot: "prod/checkout".into(),
        csr: csr("prod/checkout").1,
    };
    let svids = vec![request; 64];
    let refused = loop {
        // 4096 at once, one of them went to the host itself.
        if let Err(refused) = connection.client.issue(IssueRequest { svids: svids.clone() }).await {
            break refused;
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        ca.connect(&other)
            .await
            .issue("prod/orders", csr("prod/orders").1)
            .await
            .unwrap()
            .refusal,
        ""
    );
    ca.hand.advance(Duration::from_secs(2));
    assert!(connection.client.issue(IssueRequest { svids }).await.is_ok());
}
