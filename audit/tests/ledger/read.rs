//! Tailing and asking a ledger.

use audit::query::{self, Indexes, parse};
use audit::record::EventKind;
use audit::{CallRecord, Direction, EndRecord, Start};

use crate::support::{Place, call, end, event, id, refusal, spiffe, time};

fn asked(place: &Place, filter: &str) -> Vec<serde_json::Value> {
    let filter = parse(filter, time(10_000)).unwrap();
    let found = query::run(&place.dir(), filter.clone(), None, Indexes::Write).unwrap();
    let found: Vec<_> = found.map(Result::unwrap).collect();
    let scanned = query::scan(&place.dir(), filter, None).unwrap();
    assert_eq!(scanned.map(Result::unwrap).collect::<Vec<_>>(), found);
    found
}

fn paths(place: &Place, filter: &str) -> Vec<String> {
    asked(place, filter)
        .iter()
        .map(|record| record["path"].as_str().unwrap_or("-").to_owned())
        .collect()
}

/// Five calls, of which one is refused, one comes in and one has not ended.
fn sample() -> Place {
    let place = Place::new();
    let ledger = place.open();
    let _started = ledger.event(&event(EventKind::Started)).unwrap();
    for number in 1..=3 {
        let _receipt = ledger.call(&call(number)).unwrap();
    }
    let staging = CallRecord {
        method: "POST".into(),
        ..refusal(4, "staging/echo")
    };
    assert!(ledger.deny(&staging).is_ok());
    let mut incoming = CallRecord {
        direction: Direction::In,
        peer_call: Some(id(77)),
        ..call(5)
    };
    incoming.from.id = Some(spiffe("prod/quotes"));
    let _receipt = ledger.call(&incoming).unwrap();
    ledger.end(&EndRecord {
        status: Some(503),
        address: None,
        outcome: "timeout".into(),
        ..end(2)
    });
    ledger.end(&end(1));
    ledger.end(&end(5));
    ledger.shutdown();
    place
}

#[test]
fn each_key_finds_its_records() {
    let place = sample();
    for (filter, wanted) in [
        ("verdict=deny", vec!["/orders/4"]),
        ("verdict=allow method=GET direction=in", vec!["/orders/5"]),
        ("from=prod/*", vec!["/orders/1", "/orders/2", "/orders/3", "/orders/5"]),
        ("from=staging/**", vec!["/orders/4"]),
        ("from=spiffe://acme.internal/prod/quotes", vec!["/orders/5"]),
        ("from=spiffe://*/prod/q*", vec!["/orders/5"]),
        ("to=prod/orders method=POST", vec!["/orders/4"]),
        ("path=/orders/3", vec!["/orders/3"]),
        ("rule=checkout-reads-orders direction=in", vec!["/orders/5"]),
        ("reason=no_rule", vec!["/orders/4"]),
        ("kind=started", vec!["-"]),
        ("status=503", vec!["/orders/2"]),
        ("status=2xx", vec!["/orders/1", "/orders/5"]),
        (
            "kind=call since=2026-11-05T10:00:00.004Z",
            vec!["/orders/4", "/orders/5"],
        ),
        ("kind=call until=2026-11-05T10:00:00.002Z", vec!["/orders/1"]),
        ("kind=call since=9s", vec![]),
        (
            "kind=call since=10s until=9s",
            vec!["/orders/1", "/orders/2", "/orders/3", "/orders/4", "/orders/5"],
        ),
        ("verdict=deny from=prod/*", vec![]),
    ] {
        assert_eq!(paths(&place, filter), wanted, "{filter}");
    }
    assert_eq!(paths(&place, &format!("id={}", id(3))), ["/orders/3"]);
    assert_eq!(paths(&place, &format!("id={}", id(77))), ["/orders/5"]);
}

#[test]
fn a_call_is_joined_with_its_end_and_an_unfinished_one_is_not() {
    let place = sample();
    let calls = asked(&place, "kind=call");
    assert_eq!(
        (&calls[1]["status"], &calls[1]["outcome"]),
        (&503.into(), &"timeout".into())
    );
    assert_eq!(
        (&calls[1]["duration_us"], &calls[1]["ended"]),
        (&20_000.into(), &"2026-11-05T10:00:00.022Z".into())
    );
    assert_eq!(calls[1]["time"], "2026-11-05T10:00:00.002Z");
    assert_eq!(calls[2].get("status"), None);
    // Without a filter each record is there once, the joined ends not again.
    let kinds: Vec<_> = asked(&place, "")
        .iter()
        .map(|record| record["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["segment", "started", "call", "call", "call", "call", "call"]);
    assert_eq!(asked(&place, "kind=end").len(), 3);
}

#[test]
fn a_limit_ends_the_answer() {
    let place = sample();
    let filter = parse("kind=call", time(0)).unwrap();
    let count = |limit| {
        query::run(&place.dir(), filter.clone(), Some(limit), Indexes::Read)
            .unwrap()
            .count()
    };
    assert_eq!((count(2), count(0)), (2, 0));
}

#[test]
fn more_open_calls_than_are_kept_lose_their_ends_and_nothing_else() {
    let place = Place::new();
    let ledger = place.open();
    for number in 0..10_050 {
        let _receipt = ledger.call(&call(number)).unwrap();
    }
    for number in 0..10_050 {
        ledger.end(&end(number));
    }
    ledger.shutdown();
    let calls = asked(&place, "kind=call");
    assert_eq!(calls.len(), 10_050);
    let joined = calls.iter().filter(|call| call.get("status").is_some()).count();
    assert_eq!(joined, 10_000);
    // An end whose call was let go stands for itself.
    assert_eq!(asked(&place, "kind=end").len(), 10_050);
    assert_eq!(asked(&place, "").len(), 1 + 10_050 + 50);
}

#[test]
fn a_tail_goes_on_with_what_was_written_meanwhile() {
    let place = Place::new();
    let ledger = place.open();
    let _receipt = ledger.call(&call(1)).unwrap();
    let mut tail = audit::tail(&place.dir(), Start::First).unwrap();
    let mut seen = Vec::new();
    assert_eq!(tail.poll(|entry| seen.push(entry.index)).unwrap(), 2);
    assert_eq!(tail.poll(|_| panic!("nothing is new")).unwrap(), 0);
    let _receipt = ledger.call(&call(2)).unwrap();
    assert_eq!(tail.poll(|entry| seen.push(entry.index)).unwrap(), 1);
    assert_eq!((seen, tail.next_index()), (vec![0, 1, 2], 3));
}

#[test]
fn a_tail_begins_where_it_is_told() {
    let place = Place::filled(300);
    let segments = place.dir().join("segments");
    let first = |start| {
        audit::tail(&place.dir(), start)
            .unwrap()
            .next()
            .map(|entry| entry.unwrap().index)
    };
    let check = || {
        assert_eq!(first(Start::First), Some(0));
        assert_eq!(first(Start::Index(250)), Some(250));
        assert_eq!(first(Start::Index(300)), None);
        assert_eq!(first(Start::Last(10)), Some(290));
        assert_eq!(first(Start::Last(0)), None);
        assert_eq!(first(Start::Last(1000)), Some(0));
    };
    check();
    // The same records in two segments.
    let text = std::fs::read_to_string(segments.join("00000000000000000000.jsonl")).unwrap();
    let (one, two) = text.split_at(text.match_indices('\n').nth(199).unwrap().0 + 1);
    std::fs::write(segments.join("00000000000000000000.jsonl"), one).unwrap();
    std::fs::write(segments.join("00000000000000000200.jsonl"), two).unwrap();
    check();
    assert_eq!(place.lines().len(), 300);
    assert_eq!(place.verify().unwrap().segments, 2);
}

#[test]
fn a_tail_waits_for_the_rest_of_a_line() {
    let place = Place::filled(3);
    let path = place.dir().join("segments/00000000000000000000.jsonl");
    let mut tail = audit::tail(&place.dir(), Start::Last(0)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}{{\"kind\":")).unwrap();
    assert_eq!(tail.poll(|_| panic!("the line is torn")).unwrap(), 0);
    std::fs::write(&path, format!("{text}{{\"kind\":\"x\"}}\n")).unwrap();
    let mut lines = Vec::new();
    tail.poll(|entry| lines.push(entry.line)).unwrap();
    assert_eq!(lines, [b"{\"kind\":\"x\"}"]);
}
