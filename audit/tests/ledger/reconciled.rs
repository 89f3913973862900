//! Both ends of calls whose paths are hashes.

use std::path::PathBuf;
use std::time::Duration;

use audit::reconcile::{Disagreement, reconcile};
use audit::{CallRecord, Direction};

use crate::support::{Place, call, id};

const CALLER: &str = "hashed:00112233445566778899aabbccddeeff";
const CALLEE: &str = "hashed:ffeeddccbbaa99887766554433221100";

/// A ledger with one end of a call.
fn ledger(end: CallRecord) -> (Place, PathBuf) {
    let place = Place::new();
    let ledger = place.open();
    place.hand.advance(Duration::from_mins(1));
    let _receipt = ledger.call(&end).unwrap();
    ledger.shutdown();
    let dir = place.dir();
    (place, dir)
}

/// What is found of a call with these paths, and how many paths were not compared.
fn found(caller: &str, callee: &str) -> (Vec<Disagreement>, u64) {
    let out = CallRecord {
        path: caller.to_owned(),
        query: Vec::new(),
        ..call(1)
    };
    let end = CallRecord {
        id: id(2),
        direction: Direction::In,
        peer_call: Some(id(1)),
        path: callee.to_owned(),
        ..out.clone()
    };
    let ((_one, out), (_other, end)) = (ledger(out), ledger(end));
    let report = reconcile(&[&out, &end]).unwrap();
    assert_eq!(report.paired, 1);
    (
        report.findings.into_iter().map(|finding| finding.what).collect(),
        report.hashed,
    )
}

#[test]
fn hashes_of_two_hosts_do_not_disagree_and_are_counted() {
    assert_eq!(found(CALLER, CALLEE), (Vec::new(), 1));
    assert_eq!(
        found(CALLER, "/orders/1"),
        (Vec::new(), 1),
        "one end refused, and hashed for that"
    );
    assert_eq!(found("/orders/1", "/orders/1"), (Vec::new(), 0));
    let (findings, hashed) = found("/orders/1", "/orders/2");
    assert_eq!((findings.len(), hashed), (1, 0));
    assert!(matches!(findings[0], Disagreement::Differs { key: "path", .. }));
}

#[test]
fn two_hashes_of_one_host_are_compared() {
    let place = Place::new();
    let ledger = place.open();
    let out = CallRecord {
        path: CALLER.to_owned(),
        ..call(1)
    };
    let _receipt = ledger.call(&out).unwrap();
    let end = CallRecord {
        id: id(2),
        direction: Direction::In,
        peer_call: Some(id(1)),
        path: CALLEE.to_owned(),
        ..out
    };
    let _receipt = ledger.call(&end).unwrap();
    ledger.shutdown();
    let report = reconcile(&[&place.dir()]).unwrap();
    assert_eq!((report.findings.len(), report.hashed), (1, 0));
}
