//! Appending: receipts, ends, rotation, sealing.

use audit::record::EventKind;
use audit::{CallId, LedgerError, Record, Recorded};

use crate::support::{Place, call, end, event, id, refusal};

/// Waits until the ledger's own numbers say so.
fn wait_for(ledger: &audit::Ledger, state: impl Fn(&audit::Stats) -> bool) {
    while !state(&ledger.stats()) {
        std::thread::yield_now();
    }
}

#[test]
fn a_refused_call_gets_no_receipt() {
    let place = Place::new();
    let ledger = place.open();
    let refused = refusal(1, "prod/a");
    assert!(matches!(ledger.call(&refused), Err(LedgerError::Refused { call }) if call == refused.id));
    ledger.shutdown();
    assert!(place.lines_of("call").is_empty(), "nothing was written");
}

#[test]
fn a_receipt_names_the_record_and_the_record_is_in_the_file() {
    let place = Place::new();
    let ledger = place.open();
    let first = ledger.call(&call(1)).unwrap();
    let second = ledger.event(&event(EventKind::Started)).unwrap();
    assert_eq!((first.index(), first.call(), second), (1, id(1), 2));
    let lines = place.lines();
    assert_eq!(lines[0]["kind"], "segment");
    assert_eq!(lines[1]["id"], id(1).to_string());
    assert_eq!(lines[2]["kind"], "started");
    assert_eq!(ledger.stats().records, 3);
}

#[test]
fn a_call_reads_well_with_jq() {
    let place = Place::new();
    let ledger = place.open();
    let _receipt = ledger.call(&call(1)).unwrap();
    let bytes = std::fs::read_to_string(place.dir().join("segments/00000000000000000000.jsonl")).unwrap();
    assert_eq!(
        bytes.lines().nth(1).unwrap(),
        concat!(
            r#"{"kind":"call","id":"01990000-0000-7000-8000-000000000001","time":"2026-11-05T10:00:00.001Z","#,
            r#""direction":"out","actor":"bot","from":{"id":"spiffe://acme.internal/prod/checkout","pid":4711,"#,
            r#""uid":1001,"gid":1001,"user":"checkout","exe":"/srv/checkout/bin/checkout"},"#,
            r#""to":{"id":"spiffe://acme.internal/prod/orders"},"method":"GET","path":"/orders/1","query":["page"],"#,
            r#""verdict":"allow","rule":"checkout-reads-orders","epoch":1,"revision":3,"hop":"mtls","#,
            r#""trace":"4bf92f3577b34da6a3ce929d0e0e4736"}"#
        )
    );
}

#[test]
fn an_end_is_written_without_being_waited_for() {
    let place = Place::new();
    let ledger = place.open();
    let _receipt = ledger.call(&call(1)).unwrap();
    ledger.end(&end(1));
    wait_for(&ledger, |stats| stats.synced == 3);
    let lines = place.lines_of("end");
    assert_eq!((lines.len(), &lines[0]["status"]), (1, &200.into()));
}

#[test]
fn ends_are_written_before_the_next_call() {
    let mut place = Place::new();
    place.sync = std::time::Duration::from_secs(10);
    let ledger = place.open();
    let _receipt = ledger.call(&call(1)).unwrap();
    ledger.end(&end(1));
    let receipt = ledger.call(&call(2)).unwrap();
    assert_eq!(receipt.index(), 3);
    assert_eq!(place.lines()[2]["kind"], "end");
}

#[test]
fn every_record_is_sealed_by_itself_in_the_end() {
    let place = Place::new();
    let ledger = place.open();
    for number in 0..700 {
        let _receipt = ledger.call(&call(number)).unwrap();
        ledger.end(&end(number));
    }
    wait_for(&ledger, |stats| stats.sealed == 1401);
    let report = place.verify().unwrap();
    assert_eq!((report.covered, report.not_covered), (1401, 0));
    assert_eq!(ledger.stats().trouble, None);
    // Nothing new, nothing to seal: shutting down leaves the history alone.
    let history = std::fs::read(place.dir().join("checkpoints")).unwrap();
    ledger.shutdown();
    assert_eq!(std::fs::read(place.dir().join("checkpoints")).unwrap(), history);
}

#[test]
fn after_shutdown_nothing_is_taken() {
    let place = Place::new();
    let ledger = place.open();
    let _receipt = ledger.call(&call(1)).unwrap();
    ledger.shutdown();
    ledger.shutdown();
    assert!(matches!(ledger.call(&call(2)), Err(LedgerError::Closed)));
    assert!(matches!(ledger.deny(&refusal(2, "prod/a")), Err(LedgerError::Closed)));
    assert!(matches!(
        ledger.event(&event(EventKind::Stopped)),
        Err(LedgerError::Closed)
    ));
    ledger.end(&end(1));
    assert_eq!(ledger.stats().ends_lost, 1);
    assert_eq!(place.verify().unwrap().records, 2);
}

#[test]
fn dropping_the_last_clone_seals_the_ledger() {
    let place = Place::new();
    let ledger = place.open();
    let clone = ledger.clone();
    drop(ledger);
    let _receipt = clone.call(&call(1)).unwrap();
    drop(clone);
    assert_eq!(place.verify().unwrap().covered, 2);
}

#[test]
fn threads_get_indexes_of_their_own() {
    let place = Place::new();
    let ledger = place.open();
    let mut indexes: Vec<(u64, CallId)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let ledger = &ledger;
                scope.spawn(move || {
                    (0..500)
                        .map(|number| {
                            let id = id(thread * 1000 + number);
                            let record = audit::CallRecord { id, ..call(number) };
                            (ledger.call(&record).unwrap().index(), id)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    ledger.shutdown();
    indexes.sort();
    let lines = place.lines();
    assert_eq!(indexes.len(), 2000);
    for (place, (index, id)) in indexes.iter().enumerate() {
        assert_eq!(*index, place as u64 + 1);
        assert_eq!(lines[place + 1]["id"], id.to_string());
    }
    place.verify().unwrap();
}

#[test]
fn a_call_too_long_for_a_record_is_refused_and_a_refusal_is_shortened() {
    let place = Place::new();
    let ledger = place.open();
    let long = |record: audit::CallRecord| audit::CallRecord {
        path: format!("/{}", "é".repeat(20_000)),
        ..record
    };
    assert!(matches!(ledger.call(&long(call(1))), Err(LedgerError::Record { .. })));
    assert!(matches!(
        ledger.deny(&long(refusal(1, "prod/a"))),
        Ok(Recorded::Written(_))
    ));
    let query = vec!["name".to_owned(); 8_000];
    assert!(
        ledger
            .deny(&audit::CallRecord {
                query,
                ..refusal(2, "prod/a")
            })
            .is_ok()
    );
    ledger.shutdown();
    let lines = place.lines_of("call");
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["path"].as_str().unwrap().len(), 1023);
    assert_eq!(
        (&lines[0]["shortened"], &lines[1]["shortened"]),
        (&true.into(), &true.into())
    );
    assert_eq!(lines[1].get("query"), None);
    let Record::Call(record) = Record::decode(&serde_json::to_vec(&lines[1]).unwrap()).unwrap() else {
        panic!()
    };
    assert_eq!(record.path, "/orders/2");
}

#[test]
fn a_ledger_is_verified_and_read_while_it_is_written() {
    let mut place = Place::new();
    place.sync = std::time::Duration::from_millis(1);
    let ledger = place.open();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for number in 0..6_000 {
                let _receipt = ledger.call(&call(number)).unwrap();
                ledger.end(&end(number));
            }
        });
        let mut tail = audit::tail(&place.dir(), audit::Start::First).unwrap();
        let mut next = 0;
        while !writing.is_finished() {
            place.verify().unwrap_or_else(|failure| panic!("{failure}"));
            tail.poll(|entry| {
                assert_eq!(entry.index, next);
                assert!(Record::decode(&entry.line).is_ok());
                next += 1;
            })
            .unwrap();
        }
        assert!(next > 0);
    });
    ledger.shutdown();
    assert_eq!(place.verify().unwrap().covered, 12_001);
}

#[test]
fn the_calls_of_a_turn_are_written_in_their_order_and_before_their_ends() {
    let place = Place::new();
    let ledger = place.open();
    let before = ledger.call(&call(0)).unwrap().index();
    ledger.end(&end(0));
    let staged: Vec<_> = (1..4).map(|number| ledger.stage(&call(number)).unwrap()).collect();
    assert_eq!(
        staged.iter().map(audit::Staged::is_first).collect::<Vec<_>>(),
        [true, false, false]
    );
    // Given up before it was written: its record is, and so must be its end.
    ledger.end(&end(2));
    assert!(staged.iter().all(|one| one.receipt().is_none()));
    ledger.commit();
    for (number, one) in (1..).zip(&staged) {
        let receipt = one.receipt().unwrap().unwrap();
        assert_eq!((receipt.index(), receipt.call()), (before + number, call(number).id));
    }
    // Any other record takes a turn along.
    let carried = ledger.stage(&call(4)).unwrap();
    assert!(carried.is_first());
    let _receipt = ledger.call(&call(5)).unwrap();
    assert!(carried.receipt().unwrap().is_ok());
    ledger.commit();
    ledger.shutdown();
    let kinds: Vec<_> = place.lines().iter().map(|line| line["kind"].to_string()).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "\"call\"").count(), 6);
    let ids: Vec<_> = place
        .lines()
        .iter()
        .map(|line| (line["kind"].clone(), line["id"].clone()))
        .collect();
    for id in [call(0).id, call(2).id] {
        let at = |kind: &str| ids.iter().position(|(k, i)| k == kind && *i == id.to_string()).unwrap();
        assert!(at("call") < at("end"));
    }
    assert_eq!(place.verify().unwrap().torn_bytes, 0);
}

#[test]
fn a_refused_call_cannot_be_handed_over() {
    let place = Place::new();
    let ledger = place.open();
    let refused = refusal(1, "prod/a");
    assert!(matches!(ledger.stage(&refused), Err(LedgerError::Refused { call }) if call == refused.id));
    ledger.commit();
    assert_eq!(ledger.stats().calls, 0);
}
