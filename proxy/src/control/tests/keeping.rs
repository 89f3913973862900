//! What is kept for a restart without the CA, and what of it is believed.

use spiffe_tls::{PrivateKey, Svid};

use super::fake_ca::{FakeCa, Root};
use super::*;
use crate::control::Missing;
use crate::control::state_dir::{SavedSvid, SavedTime, StateDir};
use spiffe::id::SpiffeId;

const HOUR: Duration = Duration::from_hours(1);

/// A host of `prod/orders` that has joined.
async fn joined() -> (FakeCa, Host, Running) {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(1, &["prod/orders"])];
    let (host, running) = Host::joined(&ca, host).await;
    (ca, host, running)
}

/// A host that has SVIDs for these bots, and has stopped; its CA is gone.
async fn stopped(bots: &[&str]) -> (Host, ControlConfig, Arc<Root>) {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(1, bots)];
    let (host, running) = Host::joined(&ca, host).await;
    for name in bots {
        running.until("an SVID", |control| control.svid(&bot(name))).await;
    }
    ca.say(slice(2, bots)).await;
    assert!(ca.receipt(2).await.ok);
    // The stream takes the next message once the slice is on disk.
    ca.say(slice(3, bots)).await;
    assert!(ca.receipt(3).await.ok);
    let config = host.config(&ca);
    running.stop().await;
    (host, config, Arc::clone(&ca.root))
}

fn files(config: &ControlConfig) -> StateDir {
    StateDir::open(config.state_dir.clone()).unwrap()
}

/// Puts one SVID into the cache in the place of those that are there: for `id`, by `root`, of the key `certified`, and
/// with the key `kept`.
fn keep(config: &ControlConfig, root: &Root, id: &SpiffeId, certified: &PrivateKey, kept: &PrivateKey) {
    let chain = root.chain(id, &certified.spki_der(), start_time(), HOUR);
    let key = kept.to_pkcs8().unwrap();
    files(config).save_svids(|| vec![SavedSvid { key, chain }]).unwrap();
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::for_bot(&trust_domain(), &bot(name))
}

/// Starts without the CA and says which bots have SVIDs.
async fn found(host: &Host, config: &ControlConfig, names: &[&str]) -> Vec<bool> {
    let running = host.start(config.clone()).await.unwrap();
    let found = names
        .iter()
        .map(|name| running.control.svid(&bot(name)).is_some())
        .collect();
    running.stop().await;
    found
}

#[tokio::test]
async fn a_restart_without_the_ca_finds_the_svids_and_is_ready() {
    let (host, config, _) = stopped(&["prod/orders", "prod/quotes"]).await;
    let file = config.state_dir.join("svids/svids.json");
    assert!(file.exists());
    let running = host.start(config.clone()).await.unwrap();
    for name in ["prod/orders", "prod/quotes"] {
        assert!(running.control.svid(&bot(name)).is_some());
    }
    assert!(running.control.ready().is_ready());
    let end = running.control.svid(&bot("prod/orders")).unwrap().leaf().not_after();
    host.hand.set(end);
    assert!(running.control.svid(&bot("prod/orders")).is_none());
    running.stop().await;
    assert_eq!(
        host.ledger_text().matches("\"issued\"").count(),
        2,
        "nothing was issued again"
    );
}

#[tokio::test]
async fn a_renewed_svid_replaces_the_one_that_was_kept() {
    let (ca, host, running) = joined().await;
    let first = running
        .until("an SVID", |control| control.svid(&bot("prod/orders")))
        .await;
    host.hand.advance(HOUR / 2);
    let next = running
        .until("the next SVID", |control| {
            let svid = control.svid(&bot("prod/orders"))?;
            (svid.leaf().serial() != first.leaf().serial()).then_some(svid)
        })
        .await;
    let config = host.config(&ca);
    running.stop().await;
    let kept = files(&config).svids().unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].chain, next.chain());
}

#[tokio::test]
async fn an_svid_that_has_ended_is_not_used_and_a_clock_set_back_does_not_help() {
    let (host, config, _) = stopped(&["prod/orders"]).await;
    host.hand.advance(HOUR);
    assert_eq!(found(&host, &config, &["prod/orders"]).await, [false]);
    host.hand.set(start_time());
    assert_eq!(
        found(&host, &config, &["prod/orders"]).await,
        [false],
        "the time is on disk"
    );
}

#[tokio::test]
async fn an_svid_of_an_authority_that_is_not_trusted_is_not_used() {
    let (host, config, root) = stopped(&["prod/orders"]).await;
    let key = PrivateKey::generate().unwrap();
    let other = Root::new(start_time());
    keep(&config, &other, &id("prod/orders"), &key, &key);
    assert_eq!(found(&host, &config, &["prod/orders"]).await, [false]);
    keep(&config, &root, &id("prod/orders"), &key, &key);
    assert_eq!(
        found(&host, &config, &["prod/orders"]).await,
        [true],
        "of the right one it is"
    );
}

#[tokio::test]
async fn an_svid_with_the_key_of_another_is_not_used() {
    let (host, config, root) = stopped(&["prod/orders"]).await;
    let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    keep(&config, &root, &id("prod/orders"), &key, &other);
    assert_eq!(found(&host, &config, &["prod/orders"]).await, [false]);
}

#[tokio::test]
async fn an_svid_of_a_bot_that_this_host_may_not_claim_is_not_used() {
    let (host, config, root) = stopped(&["prod/orders"]).await;
    let key = PrivateKey::generate().unwrap();
    keep(&config, &root, &id("prod/foreign"), &key, &key);
    assert_eq!(
        found(&host, &config, &["prod/orders", "prod/foreign"]).await,
        [false, false]
    );
    let node = SpiffeId::for_host(&trust_domain(), &config.host);
    keep(&config, &root, &node, &key, &key);
    assert_eq!(
        found(&host, &config, &["prod/orders"]).await,
        [false],
        "a node SVID is no bot's"
    );
}

#[tokio::test]
async fn a_cache_that_others_could_have_read_is_not_used_and_the_rest_works() {
    use std::os::unix::fs::PermissionsExt as _;
    let (host, config, _) = stopped(&["prod/orders"]).await;
    let file = config.state_dir.join("svids/svids.json");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let running = host.start(config.clone()).await.unwrap();
    assert!(running.control.snapshot().has_slice());
    assert_eq!(running.control.ready().missing, [Missing::Svid(bot("prod/orders"))]);
    running.stop().await;
}

#[tokio::test]
async fn a_bot_that_leaves_the_slice_leaves_the_cache() {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(1, &["prod/orders", "prod/quotes"])];
    let (host, running) = Host::joined(&ca, host).await;
    for name in ["prod/orders", "prod/quotes"] {
        running.until("an SVID", |control| control.svid(&bot(name))).await;
    }
    ca.say(slice(2, &["prod/orders"])).await;
    assert!(ca.receipt(2).await.ok);
    let config = host.config(&ca);
    running.stop().await;
    let kept = files(&config).svids().unwrap();
    let key = PrivateKey::from_pkcs8(&kept[0].key).unwrap();
    let svid = Svid::new(kept[0].chain.clone(), key).unwrap();
    assert_eq!((kept.len(), svid.leaf().id()), (1, &id("prod/orders")));
}

#[tokio::test]
async fn an_evicted_host_keeps_no_svid() {
    let (ca, host, running) = joined().await;
    running
        .until("an SVID", |control| control.svid(&bot("prod/orders")))
        .await;
    std::fs::remove_file(host.dir.path().join("token")).unwrap();
    ca.goodbye("evicted").await;
    running
        .until("the eviction", |control| control.status().link.evicted.then_some(()))
        .await;
    let file = host.config(&ca).state_dir.join("svids/svids.json");
    running.stop().await;
    assert!(!file.exists());
}

#[tokio::test]
async fn a_host_that_cannot_read_whom_it_has_quarantined_does_not_start() {
    let (host, config, _) = stopped(&["prod/orders"]).await;
    std::fs::write(config.state_dir.join("quarantines.json"), "[{\"whom\": ").unwrap();
    assert!(matches!(host.start(config).await, Err(StartError::State { .. })));
}

#[tokio::test]
async fn a_policy_is_too_old_when_the_ca_was_not_heard_for_so_long() {
    let (host, config, _) = stopped(&["prod/orders"]).await;
    let running = host.start(config.clone()).await.unwrap();
    host.hand.set(start_time() + config.max_policy_age);
    assert!(!running.control.policy_too_old(running.control.now()));
    host.hand.advance(Duration::from_millis(1));
    assert!(running.control.policy_too_old(running.control.now()));
    let missing = running.control.ready().missing;
    let too_old = |missing: &Missing| missing.to_string().contains("the policy is too old");
    assert!(missing.iter().any(too_old), "{missing:?}");
    running.stop().await;
    let running = host.start(config.clone()).await.unwrap();
    assert!(
        running.control.policy_too_old(running.control.now()),
        "a restart makes it no younger"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_policy_whose_age_nobody_knows_is_too_old() {
    let (host, config, _) = stopped(&["prod/orders"]).await;
    let unknown = SavedTime {
        seen_unix_ms: start_time().unix_millis(),
        ca_heard_unix_ms: None,
    };
    files(&config).save_time(&unknown).unwrap();
    let running = host.start(config).await.unwrap();
    assert!(running.control.policy_too_old(running.control.now()));
    assert_eq!(running.control.ready().missing, [Missing::CaNotHeard]);
    running.stop().await;
}

#[tokio::test]
async fn a_ca_that_is_heard_again_makes_the_policy_young() {
    let (ca, host, running) = joined().await;
    assert!(ca.receipt(1).await.ok);
    host.hand.advance(Duration::from_hours(5));
    assert!(running.control.policy_too_old(running.control.now()));
    ca.say(slice(2, &["prod/orders"])).await;
    assert!(ca.receipt(2).await.ok);
    assert!(!running.control.policy_too_old(running.control.now()));
    running.stop().await;
}

fn ca_time(time: Timestamp) -> ca_message::Message {
    ca_message::Message::CaTime(ca_api::node::CaTime {
        unix_ms: time.unix_millis(),
    })
}

#[tokio::test]
async fn a_clock_that_jumped_ahead_locks_nobody_out_once_it_is_right_again() {
    let (ca, host, running) = joined().await;
    running
        .until("an SVID", |control| control.svid(&bot("prod/orders")))
        .await;
    let day = Duration::from_hours(24);
    host.hand.set(start_time() + day);
    ca.say(ca_time(start_time())).await;
    running
        .until("the skew", |control| {
            control.ready().missing.contains(&Missing::ClockSkew).then_some(())
        })
        .await;
    assert!(running.control.now() >= start_time() + day);
    host.hand.set(start_time());
    assert!(
        running.control.now() >= start_time() + day,
        "only the CA can say that the clock is right"
    );
    ca.say(ca_time(start_time())).await;
    running
        .until("the correction", |control| {
            (control.now() == start_time() && control.ready().is_ready()).then_some(())
        })
        .await;
    let config = host.config(&ca);
    running.stop().await;
    let kept = files(&config).time().unwrap().unwrap();
    assert!(kept.seen_unix_ms <= start_time().unix_millis(), "{kept:?}");
    for what in ["clock_skew", "time_set_back"] {
        assert!(host.ledger_text().contains(what), "{what} is no alert in the ledger");
    }
}

#[tokio::test]
async fn a_host_that_starts_with_a_time_from_the_future_finds_its_ca_and_is_corrected() {
    let (host, config, root) = stopped(&["prod/orders"]).await;
    let ahead = SavedTime {
        seen_unix_ms: (start_time() + Duration::from_hours(24)).unix_millis(),
        ca_heard_unix_ms: Some(start_time().unix_millis()),
    };
    files(&config).save_time(&ahead).unwrap();
    assert_eq!(
        found(&host, &config, &["prod/orders"]).await,
        [false],
        "without the CA it stays shut"
    );
    let ca = FakeCa::start_with(&host.clock, &root).await;
    ca.state().greeting = vec![slice(3, &["prod/orders"]), ca_time(start_time())];
    let running = host.start(host.config(&ca)).await.unwrap();
    running
        .until("an SVID", |control| control.svid(&bot("prod/orders")))
        .await;
    assert_eq!(running.control.now(), start_time());
    running.stop().await;
}

#[tokio::test]
async fn a_clock_that_went_back_is_an_alert_and_unready_without_the_ca() {
    let (host, config, _) = stopped(&["prod/orders"]).await;
    let running = host.start(config).await.unwrap();
    assert!(running.control.ready().is_ready());
    host.hand.set(start_time() - Duration::from_hours(24));
    assert_eq!(running.control.ready().missing, [Missing::ClockSkew]);
    assert!(running.control.now() >= start_time());
    running
        .until("the alert", |_| {
            host.ledger_text().contains("clock_went_back").then_some(())
        })
        .await;
    running.stop().await;
}

#[tokio::test]
async fn renewal_goes_on_by_the_time_of_the_ca_while_the_clock_is_back() {
    let (ca, host, running) = joined().await;
    let first = running
        .until("an SVID", |control| control.svid(&bot("prod/orders")))
        .await;
    host.hand.set(start_time() - Duration::from_hours(24));
    ca.say(ca_time(start_time() + HOUR / 2)).await;
    // The double's own clock is the host's, so what it issues has ended by the time of the host.
    running
        .until("a request for the next", |control| {
            control.status().svids.first()?.error.clone()
        })
        .await;
    assert!(
        running
            .control
            .svid(&bot("prod/orders"))
            .is_some_and(|svid| svid.leaf().serial() == first.leaf().serial())
    );
    running.stop().await;
}
