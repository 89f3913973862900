use ca_api::node;
use policy::{Call, CanonicalPath, HttpAsk, Method, What};
use spiffe::id::SpiffeId;

use super::*;

const RULE: &str = r#"{"id": "reads", "from": "prod/checkout", "to": "prod/orders", "http": ["GET /orders/*"]}"#;

/// `prod/checkout` is at home on web-1 and web-2, `prod/orders` on web-3 only.
fn snapshot(allow: &str, deny: &str, quarantines: node::Quarantines) -> Snapshot {
    let json = format!(
        r#"{{"version": 1, "trust_domain": "acme.internal", "slice": "web-1", "bots": {{
            "prod/checkout": {{"owner": "o@acme.internal", "hosts": ["web-1", "web-2"], "attest": {{"uid": 2000}}}},
            "prod/orders": {{"owner": "o@acme.internal", "hosts": ["web-3"], "serve": "http"}}
        }}, "allow": [{allow}], "deny": [{deny}]}}"#
    );
    Snapshot::of_slice(&json, &quarantines)
}

fn serial(last: u8) -> Serial {
    Serial::from_bytes(&[1, last]).unwrap()
}

fn subject() -> Subject {
    Subject {
        call: Call {
            from: SpiffeId::parse("spiffe://acme.internal/prod/checkout").unwrap(),
            to: BotName::parse("prod/orders").unwrap().into(),
            what: What::Http(HttpAsk::new(
                Method::parse("GET").unwrap(),
                CanonicalPath::parse(b"/orders/17").unwrap(),
            )),
        },
        from: BotName::parse("prod/checkout").unwrap(),
        from_proven: Some(Proven::by_serial(serial(1))),
        granted: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_unix_seconds(second)
}

/// What becomes of a call when this moment comes, and how many calls that ended.
fn decided(snapshot: &Snapshot, now: Timestamp) -> (Option<&'static str>, u64) {
    let live = Arc::new(Live::default());
    let held = live.enter(subject());
    *held.0.to_proven() = Some(Proven::by_serial(serial(2)));
    let cut = live.decide(snapshot, now);
    assert_eq!(live.decide(snapshot, now), 0, "a call is ended once");
    (held.cut().map(Reason::as_str), cut)
}

#[test]
fn a_call_that_would_be_let_in_again_goes_on() {
    assert_eq!(
        decided(&snapshot(RULE, "", node::Quarantines::default()), at(0)),
        (None, 0)
    );
}

#[test]
fn each_end_of_a_right_ends_the_call_by_its_own_word() {
    let nobody = node::Quarantines::default;
    let deny = r#"{"id": "stop", "from": "prod/checkout", "to": "prod/orders", "reason": "stop"}"#;
    let ends = r#"{"id": "reads", "from": "prod/checkout", "to": "prod/orders", "http": ["GET /orders/*"],
        "until": "1970-01-01T00:01:00Z", "reason": "for a minute"}"#;
    let ended = |snapshot: Snapshot, second| decided(&snapshot, at(second));
    assert_eq!(ended(snapshot("", "", nobody()), 0), (Some("no_rule"), 1));
    assert_eq!(ended(snapshot(RULE, deny, nobody()), 0), (Some("denied_by_rule"), 1));
    assert_eq!(ended(snapshot(ends, "", nobody()), 59), (None, 0));
    assert_eq!(ended(snapshot(ends, "", nobody()), 60), (Some("rule_expired"), 1));
}

#[test]
fn a_call_ends_when_nothing_moves_for_as_long_as_its_callee_may_stand_still() {
    use tokio::time::Instant;

    let live = Arc::new(Live::default());
    let (still, moving, free) = (live.enter(subject()), live.enter(subject()), live.enter(subject()));
    let limit = Duration::from_millis(300);
    let sent = Arc::new(std::sync::atomic::AtomicU64::new(0));
    still.may_stand_still(Some(limit), crate::call::RequestCount::Known(5));
    moving.may_stand_still(Some(limit), crate::call::RequestCount::Counted(Arc::clone(&sent)));
    free.may_stand_still(None, crate::call::RequestCount::Known(5));
    let began = Instant::now();
    let at = |millis| began + Duration::from_millis(millis);
    assert_eq!(live.end_idle(at(250)), 0);
    moving.moved(0);
    assert_eq!(live.end_idle(at(500)), 1, "what moved between two looks has moved");
    assert_eq!(
        [&still, &moving, &free].map(Held::cut),
        [Some(Reason::Timeout), None, None]
    );
    sent.fetch_add(1, Ordering::Relaxed);
    assert_eq!(live.end_idle(at(799)), 0, "a byte of the request is one too");
    assert_eq!(live.end_idle(at(1_098)), 0);
    assert_eq!(live.end_idle(at(1_099)), 1);
    assert_eq!(live.cuts().into_iter().collect::<Vec<_>>(), [(Reason::Timeout, 2)]);
    assert_eq!(live.watched.load(Ordering::Relaxed), 2);
    drop((still, moving));
    assert_eq!(live.watched.load(Ordering::Relaxed), 0, "then nobody is looked at");
}

#[test]
fn a_call_that_audit_only_carries_ends_with_it() {
    let json = r#"{"version": 1, "trust_domain": "acme.internal", "slice": "web-1", "bots": {
            "prod/checkout": {"owner": "o@acme.internal", "hosts": ["web-1"], "attest": {"uid": 2000}},
            "prod/orders": {"owner": "o@acme.internal", "hosts": ["web-3"], "serve": "http"}},
        "audit_only": [{"to": "prod/orders", "until": "1970-01-01T00:01:00Z", "reason": "trying"}]}"#;
    let snapshot = Snapshot::of_slice(json, &node::Quarantines::default());
    assert_eq!(decided(&snapshot, at(59)), (None, 0));
    assert_eq!(decided(&snapshot, at(60)), (Some("no_rule"), 1));
    assert_eq!(snapshot.policy.next_end(at(59)), Some(at(60)));
}

#[test]
fn a_quarantine_of_either_end_or_of_its_host_ends_the_call() {
    let lists = [
        node::Quarantines {
            bots: vec!["prod/checkout".into()],
            ..node::Quarantines::default()
        },
        node::Quarantines {
            bots: vec!["prod/orders".into()],
            ..node::Quarantines::default()
        },
        // This host, and the only one of the callee.
        node::Quarantines {
            hosts: vec!["web-1".into()],
            ..node::Quarantines::default()
        },
        node::Quarantines {
            hosts: vec!["web-3".into()],
            ..node::Quarantines::default()
        },
        // By the SVIDs that the host of the caller and the host of the callee hold.
        node::Quarantines {
            serials: vec![serial(1).to_string()],
            ..node::Quarantines::default()
        },
        node::Quarantines {
            serials: vec![serial(2).to_string()],
            ..node::Quarantines::default()
        },
    ];
    for list in lists {
        let snapshot = snapshot(RULE, "", list.clone());
        assert_eq!(decided(&snapshot, at(0)), (Some("quarantined"), 1), "{list:?}");
    }
    let others = node::Quarantines {
        bots: vec!["prod/other".into()],
        hosts: vec!["web-2".into()],
        serials: vec![serial(3).to_string()],
        ..node::Quarantines::default()
    };
    assert_eq!(decided(&snapshot(RULE, "", others), at(0)), (None, 0));
}

#[test]
fn a_call_is_entered_before_it_is_looked_whether_the_moment_has_changed_meanwhile() {
    let live = Arc::new(Live::default());
    let still = Arc::new(snapshot(RULE, "", node::Quarantines::default()));
    let without = Arc::new(snapshot("", "", node::Quarantines::default()));
    let look = |newer: Option<Arc<Snapshot>>| {
        live.hold_unless(subject(), || {
            assert_eq!(live.len(), 1, "a change from here on finds it");
            Some((newer?, at(0)))
        })
        .map(drop)
    };
    assert_eq!(look(None), Ok(()));
    assert_eq!(look(Some(still)), Ok(()));
    assert_eq!(look(Some(without)), Err(Reason::NoRule));
    assert_eq!(live.len(), 0, "none of them stays");
}

#[test]
fn all_calls_can_be_ended_for_one_reason() {
    let live = Arc::new(Live::default());
    let calls = [live.enter(subject()), live.enter(subject())];
    assert_eq!(
        (live.end_all(Reason::NoIdentity), live.end_all(Reason::NoIdentity)),
        (2, 0)
    );
    assert!(calls.iter().all(|call| call.cut() == Some(Reason::NoIdentity)));
}

#[tokio::test]
async fn whoever_waits_on_any_lane_hears_the_end_at_once() {
    let live = Arc::new(Live::default());
    let held = live.enter(subject());
    for lane in [Lane::Answer, Lane::Request, Lane::Writer] {
        assert!(std::future::poll_fn(|cx| Poll::Ready(held.poll_cut(cx, lane).is_pending())).await);
    }
    let waiting = async {
        let forever = || Box::pin(std::future::pending::<()>());
        let (mut one, mut two, mut three) = (forever(), forever(), forever());
        tokio::join!(
            held.while_allowed(Lane::Answer, one.as_mut()),
            held.while_allowed(Lane::Request, two.as_mut()),
            held.while_allowed(Lane::Writer, three.as_mut()),
        )
    };
    let cutting = async {
        tokio::task::yield_now().await;
        live.decide(&snapshot("", "", node::Quarantines::default()), at(0))
    };
    let (waited, cut) = tokio::join!(waiting, cutting);
    let no_rule = Err(Reason::NoRule);
    assert_eq!((waited, cut), ((no_rule, no_rule, no_rule), 1));
    assert_eq!(
        held.while_allowed(Lane::Answer, std::pin::pin!(std::future::ready(())))
            .await,
        no_rule,
        "and whoever comes later"
    );
}

#[test]
fn a_call_leaves_with_the_last_of_its_clones_and_its_place_is_taken_again() {
    let live = Arc::new(Live::default());
    let first = live.enter(subject());
    let clone = first.clone();
    drop(first);
    assert_eq!(live.len(), 1);
    drop(clone);
    assert_eq!(live.len(), 0);
    for _ in 0..10 * SHARDS {
        drop(live.enter(subject()));
    }
    let places: usize = (0..SHARDS).map(|number| live.shard(number).places.len()).sum();
    assert!(places <= SHARDS, "{places} places for one call at a time");
}

impl Held {
    /// A call of nobody, for tests of what holds one.
    pub(crate) fn for_tests() -> Self {
        Arc::new(Live::default()).enter(subject())
    }
}
