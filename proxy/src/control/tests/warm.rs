use spiffe_tls::{ServerIdentity, sni_label};

use super::fake_ca::{FakeCa, Trick};
use super::*;
use crate::control::Missing;
use spiffe::id::SpiffeId;

const HOUR: Duration = Duration::from_hours(1);

async fn with_bots(bots: &[&str]) -> (FakeCa, Host, Running) {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(1, bots)];
    let (host, running) = Host::joined(&ca, host).await;
    for name in bots {
        running.until("an SVID", |control| control.svid(&bot(name))).await;
    }
    (ca, host, running)
}

fn renewal(running: &Running, name: &str) -> Timestamp {
    let status = running.control.status();
    status
        .svids
        .iter()
        .find(|svid| svid.bot == bot(name))
        .unwrap()
        .renew_at
        .unwrap()
}

#[tokio::test]
async fn every_bot_of_the_slice_gets_an_svid_and_the_host_is_ready() {
    let (_ca, host, running) = with_bots(&["prod/orders", "prod/quotes"]).await;
    let svid = running.control.svid(&bot("prod/orders")).unwrap();
    assert_eq!(svid.leaf().id().as_str(), "spiffe://acme.internal/prod/orders");
    assert!(running.control.svid(&bot("prod/stranger")).is_none());
    let ready = running.control.ready();
    assert!(ready.is_ready(), "{ready:?}");
    running.stop().await;
    assert_eq!(host.ledger_text().matches("\"issued\"").count(), 2);
}

#[tokio::test]
async fn renewal_is_in_its_window_with_a_new_key_each_time() {
    let (ca, host, running) = with_bots(&["prod/orders"]).await;
    for round in 1..4 {
        let old = running.control.svid(&bot("prod/orders")).unwrap();
        let (start, due) = (old.leaf().not_before(), renewal(&running, "prod/orders"));
        assert!(due >= start + HOUR * 35 / 100 && due <= start + HOUR * 45 / 100);
        host.hand.set(due);
        running
            .until("the next SVID", |control| {
                let svid = control.svid(&bot("prod/orders"))?;
                (svid.leaf().serial() != old.leaf().serial()).then_some(())
            })
            .await;
        let keys: std::collections::BTreeSet<_> = ca.state().issued.iter().map(|(_, key)| key.clone()).collect();
        assert_eq!(keys.len(), round + 1, "no key was used twice");
    }
    running.stop().await;
    assert!(host.ledger_text().contains("svid_renewed"));
}

#[tokio::test]
async fn nothing_is_renewed_before_its_time() {
    let (ca, host, running) = with_bots(&["prod/orders"]).await;
    host.hand
        .set(renewal(&running, "prod/orders") - Duration::from_millis(1));
    ca.say(slice(2, &["prod/orders"])).await;
    assert!(ca.receipt(2).await.ok);
    assert_eq!(ca.state().issued.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn without_the_ca_an_svid_is_used_to_its_end_and_not_beyond() {
    let (ca, host, running) = with_bots(&["prod/orders"]).await;
    let end = running.control.svid(&bot("prod/orders")).unwrap().leaf().not_after();
    drop(ca);
    running
        .until("the cut", |control| {
            control.status().link.connected.is_none().then_some(())
        })
        .await;
    host.hand.set(end - Duration::from_millis(1));
    assert!(running.control.svid(&bot("prod/orders")).is_some());
    host.hand.set(end);
    assert!(running.control.svid(&bot("prod/orders")).is_none());
    assert!(
        running
            .control
            .ready()
            .missing
            .contains(&Missing::Svid(bot("prod/orders")))
    );
    host.hand.set(start_time());
    assert!(
        running.control.svid(&bot("prod/orders")).is_none(),
        "a clock set back revives nothing"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_failed_renewal_keeps_the_old_svid_and_is_tried_again() {
    let (ca, host, running) = with_bots(&["prod/orders"]).await;
    let old = running.control.svid(&bot("prod/orders")).unwrap();
    ca.state().issue_fails = true;
    host.hand.set(renewal(&running, "prod/orders"));
    running
        .until("an error", |control| control.status().svids[0].error.clone())
        .await;
    let kept = running.control.svid(&bot("prod/orders")).unwrap();
    assert_eq!(kept.leaf().serial(), old.leaf().serial());
    ca.state().issue_fails = false;
    running
        .until("the next SVID", |control| {
            let svid = control.svid(&bot("prod/orders"))?;
            (svid.leaf().serial() != old.leaf().serial() && control.status().svids[0].error.is_none()).then_some(())
        })
        .await;
    running.stop().await;
}

#[tokio::test]
async fn a_refused_bot_does_not_keep_the_others_from_theirs() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(1, &["prod/orders", "prod/refused"])];
    ca.state().refuse.insert("prod/refused".to_owned());
    let (_host, running) = Host::joined(&ca, host).await;
    running
        .until("an SVID", |control| control.svid(&bot("prod/orders")))
        .await;
    let error = running
        .until("a refusal", |control| control.status().svids.get(1)?.error.clone())
        .await;
    assert!(error.contains("not_your_bot"), "{error}");
    assert!(
        running
            .control
            .ready()
            .missing
            .contains(&Missing::Svid(bot("prod/refused")))
    );
    running.stop().await;
}

#[tokio::test]
async fn a_bot_that_leaves_the_slice_loses_its_svid_at_once() {
    let (ca, _host, running) = with_bots(&["prod/orders", "prod/quotes"]).await;
    ca.say(slice(2, &["prod/orders"])).await;
    assert!(ca.receipt(2).await.ok);
    assert!(running.control.svid(&bot("prod/quotes")).is_none());
    assert!(running.control.svid(&bot("prod/orders")).is_some());
    let label = sni_label(&SpiffeId::for_bot(&trust_domain(), &bot("prod/quotes")));
    assert!(running.control.resolve(Some(&label)).is_none());
    running.stop().await;
}

#[tokio::test]
async fn a_peer_gets_the_certificate_of_the_bot_that_it_names() {
    let (_ca, _host, running) = with_bots(&["prod/orders", "prod/quotes"]).await;
    for name in ["prod/orders", "prod/quotes"] {
        let label = sni_label(&SpiffeId::for_bot(&trust_domain(), &bot(name)));
        let key = running.control.resolve(Some(&label)).unwrap();
        let leaf = spiffe_tls::peer_leaf(Some(&key.cert)).unwrap();
        assert_eq!(leaf.id(), &SpiffeId::for_bot(&trust_domain(), &bot(name)));
    }
    let stranger = sni_label(&SpiffeId::for_bot(&trust_domain(), &bot("prod/stranger")));
    for name in [None, Some(""), Some("orders.prod.mesh"), Some(stranger.as_str())] {
        assert!(running.control.resolve(name).is_none(), "{name:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn svids_are_asked_for_in_bounded_batches() {
    let names: Vec<String> = (0..70).map(|index| format!("prod/bot-{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (ca, _host, running) = with_bots(&names).await;
    assert_eq!(ca.state().batches, [64, 6]);
    running.stop().await;
}

/// What the control side says of SVIDs with which something is wrong.
async fn error_of(trick: Trick) -> String {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    {
        let mut state = ca.state();
        state.greeting = vec![slice(1, &["prod/orders"])];
        state.trick = trick;
    }
    let (host, running) = Host::joined(&ca, host).await;
    let error = running
        .until("an error", |control| control.status().svids.first()?.error.clone())
        .await;
    assert!(running.control.svid(&bot("prod/orders")).is_none());
    running.stop().await;
    assert!(
        !host.ledger_text().contains("\"issued\""),
        "what is not used is not recorded as issued"
    );
    error
}

#[tokio::test]
async fn an_svid_of_another_bot_is_not_used() {
    assert!(
        error_of(Trick::OtherId)
            .await
            .contains("spiffe://acme.internal/prod/evil")
    );
}

#[tokio::test]
async fn an_svid_for_another_key_is_not_used() {
    assert!(error_of(Trick::OtherKey).await.contains("not usable"));
}

#[tokio::test]
async fn an_svid_that_has_ended_is_not_used() {
    assert!(error_of(Trick::Ended).await.contains("ended"));
}

#[tokio::test]
async fn an_svid_under_another_name_is_not_used() {
    assert!(
        error_of(Trick::OtherName)
            .await
            .contains("something else than was asked")
    );
}

#[tokio::test]
async fn an_svid_that_does_not_come_is_an_error() {
    assert!(error_of(Trick::Missing).await.contains("something else than was asked"));
}
