use ca_api::node::{BotEndpoints, Bundle, CaTime, Edge, Endpoints, Generation, Quarantines, host_message};

use super::fake_ca::{FakeCa, Root, State};
use super::*;
use crate::control::Missing;

const G1: Option<Generation> = Some(Generation { epoch: 1, revision: 1 });

/// A host whose first slice, revision 5, names one bot.
async fn with_slice_5() -> (FakeCa, Host, Running) {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(5, &["prod/orders"])];
    let (host, running) = Host::joined(&ca, host).await;
    assert!(ca.receipt(5).await.ok);
    (ca, host, running)
}

#[tokio::test]
async fn a_slice_is_in_force_before_its_receipt_goes_up() {
    let (ca, host, running) = with_slice_5().await;
    let snapshot = running.control.snapshot();
    assert_eq!(snapshot.generation, policy::Generation { epoch: 1, revision: 5 });
    assert_eq!(host.entries.lock().unwrap()[0].bot, bot("prod/orders"));
    assert_eq!(ca.receipt(5).await.sha256, snapshot.slice_sha256().unwrap());
    running.stop().await;
    assert!(host.ledger_text().contains("policy_applied"));
}

#[tokio::test]
async fn an_older_slice_is_refused_and_the_newer_one_stays() {
    let (ca, _host, running) = with_slice_5().await;
    ca.say(slice(4, &["prod/orders", "prod/evil"])).await;
    let receipt = ca.receipt(4).await;
    assert!(!receipt.ok && receipt.error.contains("older"), "{receipt:?}");
    assert_eq!(running.control.snapshot().generation.revision, 5);
    running.stop().await;
}

#[tokio::test]
async fn another_slice_of_the_same_number_is_refused() {
    let (ca, _host, running) = with_slice_5().await;
    ca.state().up.clear();
    ca.say(slice(5, &["prod/orders", "prod/evil"])).await;
    assert!(!ca.receipt(5).await.ok);
    assert_eq!(running.control.snapshot().claimable().count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn the_same_slice_again_is_acknowledged_again() {
    let (ca, _host, running) = with_slice_5().await;
    ca.state().up.clear();
    ca.say(slice(5, &["prod/orders"])).await;
    assert!(ca.receipt(5).await.ok);
    running.stop().await;
}

#[tokio::test]
async fn a_slice_with_a_wrong_sha256_is_refused() {
    let (ca, _host, running) = with_slice_5().await;
    let ca_message::Message::Slice(mut bad) = slice(6, &["prod/orders", "prod/evil"]) else {
        unreachable!()
    };
    bad.sha256[0] ^= 1;
    ca.say(ca_message::Message::Slice(bad)).await;
    let receipt = ca.receipt(6).await;
    assert!(!receipt.ok && receipt.error.contains("SHA-256"), "{receipt:?}");
    assert_eq!(running.control.snapshot().generation.revision, 5);
    running.stop().await;
}

#[tokio::test]
async fn a_slice_that_does_not_load_is_refused_and_recorded() {
    let (ca, host, running) = with_slice_5().await;
    let json = br#"{"version":1,"trust_domain":"acme.internal","slice":"web-1","bots":{"NOT A NAME":{}}}"#;
    ca.say(slice_of(6, json.to_vec())).await;
    let receipt = ca.receipt(6).await;
    assert!(!receipt.ok && receipt.error.contains("does not load"), "{receipt:?}");
    assert_eq!(running.control.snapshot().generation.revision, 5);
    running.stop().await;
    assert!(host.ledger_text().contains("policy_refused"));
}

#[tokio::test]
async fn a_slice_of_another_host_is_refused() {
    let (ca, _host, running) = with_slice_5().await;
    ca.say(slice_of(6, slice_json("web-2", &["prod/orders"]).into_bytes()))
        .await;
    let receipt = ca.receipt(6).await;
    assert!(!receipt.ok && receipt.error.contains("web-2"), "{receipt:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_slice_of_another_trust_domain_is_refused() {
    let (ca, _host, running) = with_slice_5().await;
    let json = slice_json("web-1", &["prod/orders"]).replace(
        "\"trust_domain\":\"acme.internal\"",
        "\"trust_domain\":\"evil.internal\"",
    );
    ca.say(slice_of(6, json.into_bytes())).await;
    let receipt = ca.receipt(6).await;
    assert!(!receipt.ok && receipt.error.contains("evil.internal"), "{receipt:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_trust_bundle_is_taken_only_upward() {
    let (ca, _host, running) = with_slice_5().await;
    let other = Root::new(start_time());
    let bundle = |sequence: u64, root: &Root| {
        ca_message::Message::Bundle(Bundle {
            generation: G1,
            jwks: root.bundle(sequence).to_jwks(),
        })
    };
    let newer = spiffe::bundle::TrustBundle::new(
        trust_domain(),
        vec![ca.root.authority.clone(), other.authority.clone()],
        3,
        None,
    )
    .unwrap();
    ca.say(ca_message::Message::Bundle(Bundle {
        generation: G1,
        jwks: newer.to_jwks(),
    }))
    .await;
    running
        .until("the bundle", |control| {
            (control.status().bundle_sequence == 3).then_some(())
        })
        .await;
    ca.say(bundle(2, &other)).await;
    ca.say(ca_message::Message::Bundle(Bundle {
        generation: G1,
        jwks: br#"{"keys":[],"spiffe_sequence":9}"#.to_vec(),
    }))
    .await;
    ca.say(slice(6, &["prod/orders"])).await;
    assert!(ca.receipt(6).await.ok);
    assert_eq!(
        *running.control.snapshot().bundle,
        newer,
        "older and empty bundles changed nothing"
    );
    running.stop().await;
}

#[tokio::test]
async fn endpoints_and_quarantines_become_part_of_the_snapshot() {
    let (ca, _host, running) = with_slice_5().await;
    let at = |bot: &str, addresses: &[&str]| BotEndpoints {
        bot: bot.to_owned(),
        address: addresses.iter().map(|address| (*address).to_owned()).collect(),
    };
    let bots = vec![
        at("prod/orders", &["10.0.0.5:15443", "nonsense"]),
        at("NOT A NAME", &["10.0.0.6:1"]),
    ];
    ca.say(ca_message::Message::Endpoints(Endpoints { generation: G1, bots }))
        .await;
    let quarantines = Quarantines {
        generation: G1,
        bots: vec!["prod/orders".into()],
        hosts: vec!["web-7".into()],
        serials: vec![],
    };
    ca.say(ca_message::Message::Quarantines(quarantines)).await;
    let snapshot = running
        .until("quarantines", |control| {
            let snapshot = control.snapshot();
            (!snapshot.quarantined_hosts.is_empty()).then_some(snapshot)
        })
        .await;
    assert_eq!(snapshot.endpoints.len(), 1);
    assert_eq!(
        snapshot.endpoints[&bot("prod/orders")],
        ["10.0.0.5:15443".parse().unwrap()]
    );
    assert!(snapshot.quarantined_bots.contains(&bot("prod/orders")));
    running.stop().await;
}

#[tokio::test]
async fn a_slice_is_on_disk_before_the_ca_hears_that_it_is_in_force() {
    let (ca, host, running) = with_slice_5().await;
    let kept = host.config(&ca).state_dir.join("slice.json");
    for revision in 6..=25 {
        ca.say(slice(revision, &["prod/orders"])).await;
        assert!(ca.receipt(revision).await.ok);
        let kept = std::fs::read_to_string(&kept).unwrap_or_default();
        assert!(kept.contains(&format!("\"revision\":{revision}")), "{kept:.200}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_list_of_quarantines_is_on_disk_before_the_ca_hears_that_it_is_in_force() {
    let (ca, host, running) = with_slice_5().await;
    let kept = host.config(&ca).state_dir.join("endpoints.json");
    for revision in 1..=20 {
        let name = format!("prod/bot-{revision}");
        let list = Quarantines {
            generation: Some(Generation { epoch: 1, revision }),
            bots: vec![name.clone()],
            hosts: vec![],
            serials: vec![],
        };
        ca.say(ca_message::Message::Quarantines(list)).await;
        ca.until("a receipt of quarantines", |state| {
            state.up.iter().find_map(|message| {
                let host_message::Message::QuarantinesApplied(applied) = message else {
                    return None;
                };
                (applied.generation?.revision == revision).then_some(())
            })
        })
        .await;
        let kept = std::fs::read_to_string(&kept).unwrap_or_default();
        assert!(kept.contains(&format!("\"{name}\"")), "{kept}");
    }
    running.stop().await;
}

#[tokio::test]
async fn quarantines_that_cannot_be_read_release_nobody() {
    let (ca, _host, running) = with_slice_5().await;
    let say = |bots: &[&str]| {
        let bots = bots.iter().map(|bot| (*bot).to_owned()).collect();
        ca_message::Message::Quarantines(Quarantines {
            generation: G1,
            bots,
            hosts: vec![],
            serials: vec![],
        })
    };
    ca.say(say(&["prod/orders"])).await;
    ca.say(say(&["NOT A NAME"])).await;
    ca.say(slice(6, &["prod/orders"])).await;
    assert!(ca.receipt(6).await.ok);
    assert!(
        running
            .control
            .snapshot()
            .quarantined_bots
            .contains(&bot("prod/orders"))
    );
    running.stop().await;
}

#[tokio::test]
async fn a_clock_far_from_the_ca_makes_the_host_unready() {
    let (ca, host, running) = with_slice_5().await;
    let skewed = |control: &Control| control.ready().missing.contains(&Missing::ClockSkew);
    let ahead = start_time() + Duration::from_secs(60);
    ca.say(ca_message::Message::CaTime(CaTime {
        unix_ms: ahead.unix_millis(),
    }))
    .await;
    running.until("skew", |control| skewed(control).then_some(())).await;
    assert_eq!(
        running.control.now(),
        ahead - Duration::from_secs(5),
        "time follows the CA"
    );
    host.hand.set(ahead);
    ca.say(ca_message::Message::CaTime(CaTime {
        unix_ms: ahead.unix_millis(),
    }))
    .await;
    running
        .until("no skew", |control| (!skewed(control)).then_some(()))
        .await;
    running.stop().await;
}

#[tokio::test]
async fn edges_and_events_go_up() {
    let (ca, _host, running) = with_slice_5().await;
    running.control.send_edges(vec![Edge {
        from: "prod/orders".into(),
        count: 3,
        ..Edge::default()
    }]);
    running.control.send_event("denied", "{}");
    let found = |state: &State| {
        let edges = state
            .up
            .iter()
            .any(|up| matches!(up, host_message::Message::Edges(edges) if edges.edges[0].count == 3));
        let events = state
            .up
            .iter()
            .any(|up| matches!(up, host_message::Message::Event(event) if event.kind == "denied"));
        (edges && events).then_some(())
    };
    ca.until("edges and an event", found).await;
    running.stop().await;
}

#[tokio::test]
async fn a_stream_that_was_cut_resumes_with_what_is_applied() {
    let (ca, _host, running) = with_slice_5().await;
    ca.state().greeting.clear();
    ca.goodbye("shutdown").await;
    let hello = ca.until("a second hello", |state| state.hellos.get(1).cloned()).await;
    assert_eq!(hello.applied, Some(Generation { epoch: 1, revision: 5 }));
    assert_eq!(hello.applied_sha256, running.control.snapshot().slice_sha256().unwrap());
    running.stop().await;
}

#[tokio::test]
async fn a_slice_that_needs_what_this_proxy_does_not_enforce_is_refused_and_said() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(1, &["prod/orders"])];
    let (host, running) = Host::joined(&ca, host).await;
    assert!(ca.receipt(1).await.ok);
    assert_eq!(ca.state().hellos[0].features, policy::feature::ENFORCED);
    let json = slice_json("web-1", &["prod/orders", "prod/quotes"]).into_bytes();
    ca.say(slice_needing(2, json.clone(), &["unit", "telepathy"])).await;
    let receipt = ca.receipt(2).await;
    assert!(!receipt.ok && receipt.error.contains("telepathy"), "{}", receipt.error);
    assert!(
        !receipt.error.contains("unit"),
        "what it enforces it does not lack: {}",
        receipt.error
    );
    assert_eq!(running.control.snapshot().generation.revision, 1);
    ca.say(slice_needing(3, json, &["unit"])).await;
    assert!(ca.receipt(3).await.ok);
    running.stop().await;
    assert!(host.ledger_text().contains("telepathy"));
}
