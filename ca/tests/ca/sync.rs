//! The stream: what a host is told, what it is believed, and when it ends.

use std::time::Duration;

use ca_api::Generation;
use ca_api::admin::{HostList, HostState, path};
use ca_api::node::{Applied, Edge, Edges, Event, ca_message, host_message};

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_fresh_host_is_told_everything_in_order() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let other = ca.join("web-2").await;
    let mut other_stream = ca.connect(&other).await.sync(hello(":15443")).await.unwrap();
    other_stream.slice().await;
    let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
    let mut kinds = Vec::new();
    for _ in 0..5 {
        kinds.push(match stream.next().await.unwrap() {
            ca_message::Message::Bundle(bundle) => {
                assert_eq!(bundle.jwks, host.bundle.to_jwks());
                "bundle"
            }
            ca_message::Message::Quarantines(_) => "quarantines",
            ca_message::Message::Slice(slice) => {
                assert_eq!(
                    Generation::from(slice.generation.unwrap()),
                    Generation { epoch: 1, revision: 1 }
                );
                let json = String::from_utf8(slice.json).unwrap();
                let mesh = policy::load(&[policy::Source {
                    name: "slice".into(),
                    text: json,
                }])
                .unwrap();
                assert_eq!(*mesh.trust_domain(), domain());
                "slice"
            }
            ca_message::Message::Endpoints(endpoints) => {
                assert_eq!(endpoints.bots[0].bot, "prod/orders");
                assert_eq!(endpoints.bots[0].address, ["127.0.0.1:15443"]);
                "endpoints"
            }
            ca_message::Message::CaTime(time) => {
                assert_eq!(time.unix_ms, ca.clock.now().unix_millis());
                "time"
            }
            ca_message::Message::CredentialOrder(order) => panic!("{order:?}"),
            ca_message::Message::LedgerQuestion(question) => panic!("{question:?}"),
            ca_message::Message::Goodbye(goodbye) => panic!("{}", goodbye.reason),
        });
    }
    assert_eq!(kinds, ["quarantines", "bundle", "slice", "endpoints", "time"]);
}

#[tokio::test]
async fn a_change_is_pushed_and_its_receipts_make_live_on_n_of_m() {
    let ca = TestCa::with_mesh().await;
    let mut streams = Vec::new();
    for name in ["web-1", "web-2"] {
        let host = ca.join(name).await;
        let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
        let slice = stream.slice().await;
        stream.receipt(&slice, true, "").await;
        streams.push(stream);
    }
    let status = ca.live_on(1).await;
    assert_eq!((status.live(), status.total()), (2, 2));
    ca.apply(&MESH.replace("reads-orders", "reads"), Some((1, 1)))
        .await
        .unwrap();
    let slice = streams[0].slice().await;
    assert_eq!(Generation::from(slice.generation.unwrap()).revision, 2);
    streams[0].receipt(&slice, true, "").await;
    let slice = streams[1].slice().await;
    streams[1].receipt(&slice, false, "the disk is full").await;
    let status = ca.live_on(2).await;
    assert_eq!((status.live(), status.total()), (1, 2));
    let laggard = status.laggards().next().unwrap();
    assert_eq!((laggard.host.as_str(), laggard.state), ("web-2", HostState::Failed));
    assert_eq!(laggard.error, "the disk is full");
    assert_eq!(laggard.applied, Some(Generation { epoch: 1, revision: 1 }));
}

#[tokio::test]
async fn a_receipt_for_other_bytes_than_were_sent_counts_for_nothing() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
    let slice = stream.slice().await;
    let forged = Applied {
        generation: slice.generation,
        sha256: vec![0; 32],
        ok: true,
        error: String::new(),
    };
    stream.send(host_message::Message::Applied(forged)).await;
    let newer = Applied {
        generation: Some(Generation { epoch: 1, revision: 9 }.into()),
        sha256: slice.sha256.clone(),
        ok: true,
        error: String::new(),
    };
    stream.send(host_message::Message::Applied(newer)).await;
    // The honest receipt comes last; were a forged one believed, `applied` would be it.
    stream.receipt(&slice, false, "honest").await;
    let status = ca.live_on(1).await;
    assert_eq!(status.hosts[0].state, HostState::Failed);
    assert_eq!(status.hosts[0].applied, None);
}

#[tokio::test]
async fn a_host_that_kept_its_slice_is_not_sent_it_again() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
    let slice = stream.slice().await;
    stream.receipt(&slice, true, "").await;
    ca.live_on(1).await;
    drop(stream);
    let mut resumed = hello("");
    resumed.applied = slice.generation;
    resumed.applied_sha256 = slice.sha256.clone();
    let mut stream = ca.connect(&host).await.sync(resumed.clone()).await.unwrap();
    loop {
        match stream.next().await.unwrap() {
            ca_message::Message::Slice(_) => panic!("the slice was sent again"),
            ca_message::Message::CaTime(_) => break,
            _ => {}
        }
    }
    let status = ca.live_on(1).await;
    assert_eq!(status.live(), 1);
    // With other bytes under the same number it is sent.
    resumed.applied_sha256 = vec![1; 32];
    let mut stream = ca.connect(&host).await.sync(resumed).await.unwrap();
    assert_eq!(stream.slice().await.sha256, slice.sha256);
}

#[tokio::test]
async fn an_evicted_hosts_stream_ends_at_once() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
    stream.slice().await;
    assert!(ca.evict("web-1").await.was_connected);
    assert_eq!(stream.goodbye().await.as_deref(), Some("evicted"));
    assert!(ca.connect(&host).await.sync(hello("")).await.is_err());
    let hosts: HostList = ca.get(path::HOSTS).await;
    assert_eq!(
        (hosts.hosts[0].state.as_str(), hosts.hosts[0].connected),
        ("evicted", false)
    );
    assert_eq!(ca.events("host_evicted").len(), 1);
}

#[tokio::test]
async fn a_stream_ends_with_the_svid_that_opened_it() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
    stream.slice().await;
    ca.hand.set(host.svid.leaf().not_after());
    assert_eq!(stream.goodbye().await.as_deref(), Some("svid_expired"));
}

#[tokio::test]
async fn a_newer_stream_of_the_same_host_replaces_the_older() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut old = ca.connect(&host).await.sync(hello("")).await.unwrap();
    old.slice().await;
    let mut new = ca.connect(&host).await.sync(hello("")).await.unwrap();
    new.slice().await;
    assert_eq!(old.goodbye().await.as_deref(), Some("replaced"));
    let hosts: HostList = ca.get(path::HOSTS).await;
    assert!(hosts.hosts[0].connected);
}

#[tokio::test]
async fn where_a_bot_is_reached_follows_its_hosts_and_stays_when_one_disconnects() {
    let mesh = MESH.replace("hosts: [web-2]", "hosts: [web-2, web-3]");
    let ca = TestCa::start().await;
    ca.apply(&mesh, None).await.unwrap();
    let caller = ca.join("web-1").await;
    let mut stream = ca.connect(&caller).await.sync(hello("")).await.unwrap();
    assert_eq!(stream.endpoints().await, []);
    let second = ca.join("web-2").await;
    let second_stream = ca.connect(&second).await.sync(hello("10.0.0.2:1")).await.unwrap();
    assert_eq!(
        stream.endpoints().await,
        [("prod/orders".to_owned(), vec!["10.0.0.2:1".to_owned()])]
    );
    drop(second_stream);
    let third = ca.join("web-3").await;
    let _third_stream = ca.connect(&third).await.sync(hello("10.0.0.3:1")).await.unwrap();
    let both = vec!["10.0.0.2:1".to_owned(), "10.0.0.3:1".to_owned()];
    assert_eq!(stream.endpoints().await, [("prod/orders".to_owned(), both)]);
    ca.evict("web-2").await;
    assert_eq!(
        stream.endpoints().await,
        [("prod/orders".to_owned(), vec!["10.0.0.3:1".to_owned()])]
    );
}

#[tokio::test]
async fn a_host_learns_no_address_of_bots_that_its_slice_does_not_mention() {
    let ca = TestCa::with_mesh().await;
    let orders = ca.join("web-2").await;
    let _serving = ca.connect(&orders).await.sync(hello(":15443")).await.unwrap();
    let stranger = ca.join("db-1").await;
    let mut stream = ca.connect(&stranger).await.sync(hello("")).await.unwrap();
    assert_eq!(stream.endpoints().await, []);
}

/// Two that web-1 may tell, three that are not its own, and three with something that there is not.
fn edges_of_every_kind() -> Vec<Edge> {
    let edge = |from: &str, to: &str| Edge {
        from: from.into(),
        to: to.into(),
        verdict: "allow".into(),
        count: 1,
        ..Edge::default()
    };
    let own = bot_id("prod/checkout").to_string();
    vec![
        edge(&own, "prod/orders"),
        edge("prod/orders", "prod/orders"),
        edge("spiffe://other.internal/prod/checkout", "prod/orders"),
        edge("spiffe://acme.internal/botmesh/host/web-1", ""),
        Edge {
            rule: "no-such-rule".into(),
            ..edge(&own, "prod/orders")
        },
        Edge {
            verdict: "perhaps".into(),
            ..edge(&own, "prod/orders")
        },
        Edge {
            reason: "<b>".into(),
            ..edge(&own, "prod/orders")
        },
        Edge {
            rule: "reads-orders".into(),
            ..edge("prod/checkout", "prod/orders")
        },
    ]
}

#[tokio::test]
async fn a_host_is_believed_only_about_its_own_bots() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
    stream.slice().await;
    let edges = edges_of_every_kind();
    stream
        .send(host_message::Message::Edges(Edges {
            edges,
            ..Edges::default()
        }))
        .await;
    let event = |json: &str| Event {
        kind: "denied".into(),
        json: json.into(),
        unix_ms: 0,
    };
    let denied = |from: &str, to: &str| {
        json!({"call": "", "direction": "out", "from": from, "to": to, "method": "GET", "path": "/", "reason": "no_rule"})
            .to_string()
    };
    let own_event = denied("prod/checkout", "prod/orders");
    let foreign_event = denied("prod/orders", "prod/orders");
    for json in [own_event.as_str(), foreign_event.as_str(), "{}", "[]"] {
        stream.send(host_message::Message::Event(event(json))).await;
    }
    // What follows on the stream is read after what went before.
    let slice = {
        ca.apply(&MESH.replace("reads-orders", "reads"), Some((1, 1)))
            .await
            .unwrap();
        stream.slice().await
    };
    stream.receipt(&slice, true, "").await;
    ca.live_on(2).await;
    let metrics = String::from_utf8(tcp_http(ca.addresses.dashboard, "/metrics").await.1.to_vec()).unwrap();
    for line in [
        r#"botmesh_ca_observations_total{kind="edges",result="accepted"} 2"#,
        r#"botmesh_ca_observations_total{kind="edges",result="refused"} 6"#,
        r#"botmesh_ca_refused_total{reason="edge_not_yours"} 3"#,
        r#"botmesh_ca_refused_total{reason="edge_unreadable"} 3"#,
        r#"botmesh_ca_refused_total{reason="event_not_yours"} 1"#,
        r#"botmesh_ca_refused_total{reason="event_unreadable"} 2"#,
        r#"botmesh_ca_observations_total{kind="events",result="accepted"} 1"#,
        r#"botmesh_ca_observations_total{kind="events",result="refused"} 3"#,
        "botmesh_ca_hosts_connected 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn what_the_protocol_forbids_ends_the_stream() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut newer = hello("");
    newer.version = 2;
    for bad in [newer, hello("0.0.0.0:15443"), hello("web-1:15443")] {
        let mut stream = ca.connect(&host).await.sync(bad).await.unwrap();
        assert_eq!(stream.goodbye().await.as_deref(), Some("protocol"));
    }
    let too_many = vec![Edge::default(); 513];
    let messages = [
        host_message::Message::Hello(hello("")),
        host_message::Message::Edges(Edges {
            edges: too_many,
            ..Edges::default()
        }),
        host_message::Message::Event(Event {
            kind: "x".into(),
            json: " ".repeat(9000),
            unix_ms: 0,
        }),
    ];
    for message in messages {
        let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
        stream.send(message).await;
        assert_eq!(stream.goodbye().await.as_deref(), Some("protocol"));
    }
}

#[tokio::test]
async fn a_host_that_does_not_read_gets_the_newest_state_and_not_a_queue() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
    stream.slice().await;
    for revision in 1..=40_u64 {
        let text = MESH.replace("reads-orders", &format!("reads-{revision}-{}", "x".repeat(8)));
        ca.apply(&text, Some((1, revision))).await.unwrap();
    }
    let mut slices = 0;
    loop {
        let slice = stream.slice().await;
        slices += 1;
        if Generation::from(slice.generation.unwrap()).revision == 41 {
            break;
        }
    }
    assert!(slices <= 40);
    // And nothing more comes after the newest.
    ca.hand.set(host.svid.leaf().not_after());
    assert_eq!(stream.goodbye().await.as_deref(), Some("svid_expired"));
}

#[tokio::test]
async fn an_operator_who_waits_is_answered_when_the_last_receipt_comes() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
    let slice = stream.slice().await;
    let started = tokio::time::Instant::now();
    let (status, ()) = tokio::join!(ca.live_on(1), stream.receipt(&slice, true, ""));
    assert_eq!(status.live(), 1);
    assert!(
        started.elapsed() < Duration::from_secs(25),
        "not by the end of the wait"
    );
}

const GROUPED: &str = "{user: checkout, group: shop}";

#[tokio::test]
async fn a_mesh_that_a_connected_host_cannot_enforce_is_not_applied() {
    let ca = TestCa::with_mesh().await;
    let (old, unconcerned) = (ca.join("web-1").await, ca.join("web-2").await);
    let mut stream = ca.connect(&old).await.sync(hello("")).await.unwrap();
    let mut other = ca.connect(&unconcerned).await.sync(hello("")).await.unwrap();
    assert!(stream.slice().await.features.is_empty());
    other.slice().await;
    let grouped = MESH.replace("{user: checkout}", GROUPED);
    let refused = ca.apply(&grouped, Some((1, 1))).await.unwrap_err();
    assert_eq!(refused.code, "host_lacks_feature");
    assert!(
        refused.detail.contains("host web-1 does not enforce group"),
        "{}",
        refused.detail
    );
    assert!(
        !refused.detail.contains("web-2"),
        "its slice has no such bot: {}",
        refused.detail
    );
    assert_eq!(ca.live_on(1).await.total(), 2);
    assert!(
        ca.events("policy_refused")
            .iter()
            .any(|event| event.to_string().contains("host_lacks_feature"))
    );

    // Once the host enforces it, the mesh is applied, and its slice says what it needs.
    drop(stream);
    let knows = ca_api::node::Hello {
        features: vec!["group".into()],
        ..hello("")
    };
    let mut stream = ca.connect(&old).await.sync(knows).await.unwrap();
    stream.slice().await;
    ca.apply(&grouped, Some((1, 1))).await.unwrap();
    assert_eq!(stream.slice().await.features, ["group"]);
    assert!(other.slice().await.features.is_empty());
}

#[tokio::test]
async fn a_host_that_is_away_does_not_keep_a_mesh_from_being_applied() {
    let ca = TestCa::with_mesh().await;
    let old = ca.join("web-1").await;
    ca.apply(&MESH.replace("{user: checkout}", GROUPED), Some((1, 1)))
        .await
        .unwrap();
    let mut stream = ca.connect(&old).await.sync(hello("")).await.unwrap();
    assert_eq!(
        stream.slice().await.features,
        ["group"],
        "it refuses the slice by itself"
    );
}

#[tokio::test]
async fn a_host_that_says_words_without_end_is_not_taken_in() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    for features in [vec!["x".to_owned(); 33], vec!["x".repeat(65)]] {
        let hello = ca_api::node::Hello { features, ..hello("") };
        let mut stream = ca.connect(&host).await.sync(hello).await.unwrap();
        assert_eq!(stream.goodbye().await.as_deref(), Some("protocol"));
    }
}
