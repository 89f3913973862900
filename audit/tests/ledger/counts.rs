//! What is counted instead of written.

use std::time::Duration;

use audit::{CallRecord, Party, Recorded};

use crate::support::{Place, call, refusal};

fn count(line: &serde_json::Value) -> u64 {
    line["count"].as_u64().unwrap()
}

#[test]
fn fifty_refusals_of_a_caller_are_written_in_a_second_and_the_rest_counted() {
    let place = Place::new();
    let ledger = place.open();
    for number in 0..1000 {
        let recorded = ledger.deny(&refusal(number, "prod/a")).unwrap();
        assert_eq!(matches!(recorded, Recorded::Written(_)), number < 50, "{number}");
    }
    assert!(matches!(ledger.deny(&refusal(0, "prod/b")), Ok(Recorded::Written(_))));
    ledger.shutdown();
    assert_eq!(place.lines_of("call").len(), 51);
    let counts = place.lines_of("refusals");
    assert_eq!((counts.len(), count(&counts[0])), (1, 950));
    assert_eq!(counts[0]["from"]["id"], "spiffe://acme.internal/prod/a");
    assert_eq!(
        (&counts[0]["verdict"], &counts[0]["reason"]),
        (&"deny".into(), &"no_rule".into())
    );
    assert_eq!(ledger.stats().refusals_counted, 950);
}

#[test]
fn counts_are_kept_apart_by_reason_and_rule_and_written_when_a_second_is_over() {
    let place = Place::new();
    let ledger = place.open();
    for number in 0..50 {
        assert!(ledger.deny(&refusal(number, "prod/a")).is_ok());
    }
    for rule in [None, Some("no-admin"), Some("no-admin"), Some("other")] {
        let reason = if rule.is_some() { "denied_by_rule" } else { "no_rule" };
        let record = CallRecord {
            rule: rule.map(str::to_owned),
            reason: Some(reason.into()),
            ..refusal(0, "prod/a")
        };
        assert_eq!(ledger.deny(&record).unwrap(), Recorded::Counted);
    }
    place.hand.advance(Duration::from_secs(1));
    while place.lines_of("refusals").len() < 3 {
        std::thread::yield_now();
    }
    let mut counts: Vec<_> = place
        .lines_of("refusals")
        .iter()
        .map(|line| (line["rule"].clone(), count(line)))
        .collect();
    counts.sort_by_key(|(rule, _)| rule.to_string());
    assert_eq!(
        counts,
        [
            ("no-admin".into(), 2),
            ("other".into(), 1),
            (serde_json::Value::Null, 1)
        ]
    );
    // The new second starts with fifty again.
    assert!(matches!(ledger.deny(&refusal(0, "prod/a")), Ok(Recorded::Written(_))));
}

#[test]
fn strangers_are_counted_by_source_and_minute() {
    let place = Place::new();
    let ledger = place.open();
    for _ in 0..500 {
        ledger.stranger("192.0.2.1".parse().unwrap(), "expired");
        ledger.stranger("::ffff:192.0.2.1".parse().unwrap(), "expired");
    }
    ledger.stranger("192.0.2.1".parse().unwrap(), "no_certificate");
    place.hand.advance(Duration::from_secs(60));
    while place.lines_of("strangers").len() < 2 {
        std::thread::yield_now();
    }
    let counts = place.lines_of("strangers");
    assert_eq!(
        (&counts[0]["source"], &counts[0]["reason"], count(&counts[0])),
        (&"192.0.2.1".into(), &"expired".into(), 1000)
    );
    assert_eq!((&counts[1]["reason"], count(&counts[1])), (&"no_certificate".into(), 1));
    assert_eq!(counts[0]["first"], "2026-11-05T10:00:00.000Z");
    assert_eq!(ledger.stats().strangers_counted, 1001);
}

#[test]
fn a_full_share_of_refusals_drops_to_numbers_and_alerts_and_leaves_calls_alone() {
    let mut place = Place::new();
    place.max_bytes = 100_000;
    let ledger = place.open();
    let mut written = 0;
    for number in 0..200 {
        place.hand.advance(Duration::from_millis(100));
        match ledger.deny(&refusal(number, "prod/a")).unwrap() {
            Recorded::Written(_) => written += 1,
            Recorded::Counted => {}
        }
    }
    let dropped = ledger.stats().refusals_dropped;
    assert_eq!(written + dropped, 200);
    assert!((20..100).contains(&written), "{written}");
    assert!(ledger.call(&call(1)).is_ok());
    ledger.shutdown();
    let alerts = place.lines_of("alert");
    assert!((1..10).contains(&alerts.len()), "{}", alerts.len());
    let last = &alerts[alerts.len() - 1]["detail"];
    assert_eq!(
        (&last["share"], &last["dropped"]),
        (&"refusals".into(), &dropped.into())
    );
    place.verify().unwrap();
}

#[test]
fn a_full_share_of_strangers_leaves_named_refusals_alone() {
    let mut place = Place::new();
    place.max_bytes = 100_000;
    let ledger = place.open();
    let nobody = CallRecord {
        from: Party::default(),
        ..refusal(0, "prod/a")
    };
    for number in 0..100_u64 {
        place.hand.advance(Duration::from_secs(60));
        assert!(ledger.deny(&nobody).is_ok());
        ledger.stranger(
            std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into(),
            "expired",
        );
    }
    assert!(matches!(ledger.deny(&refusal(0, "prod/a")), Ok(Recorded::Written(_))));
    ledger.shutdown();
    let stats = ledger.stats();
    assert!(stats.strangers_dropped > 0);
    assert_eq!(stats.refusals_dropped, 0);
    let told: u64 = place.lines_of("strangers").iter().map(count).sum();
    let written = place.lines_of("call").len() as u64 - 1;
    assert_eq!(told + written + stats.strangers_dropped, 200);
}

#[test]
fn callers_and_sources_beyond_the_bounds_share_one_exact_count() {
    let place = Place::new();
    let ledger = place.open();
    for number in 0..5000 {
        assert!(ledger.deny(&refusal(number, &format!("prod/b{number}"))).is_ok());
    }
    for number in 0..2000_u32 {
        ledger.stranger(std::net::Ipv4Addr::from_bits(number).into(), "expired");
    }
    ledger.shutdown();
    let refusals = place.lines_of("refusals");
    assert_eq!(place.lines_of("call").len(), 4096);
    assert_eq!((refusals.len(), count(&refusals[0])), (1, 904));
    assert_eq!(
        (&refusals[0]["reason"], &refusals[0]["from"]),
        (&"other".into(), &serde_json::json!({}))
    );
    let strangers = place.lines_of("strangers");
    assert_eq!(strangers.len(), 1025);
    assert_eq!((strangers[1024].get("source"), count(&strangers[1024])), (None, 976));
}
