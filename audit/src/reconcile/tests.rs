use std::time::Duration;

use spiffe::id::SpiffeId;

use super::*;
use crate::record::{CallRecord, Direction, EndRecord, Hop, Party, RefusalsRecord, Verdict};

const CALLER: usize = 0;
const CALLEE: usize = 1;

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_millis(0) + Duration::from_secs(second)
}

fn id(bot: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://acme.internal/{bot}")).unwrap()
}

fn call_id(number: u64) -> CallId {
    CallId::from_bytes(u128::from(number).to_be_bytes())
}

fn call(number: u64, second: u64, direction: Direction) -> CallRecord {
    let own = match direction {
        Direction::Out => number,
        Direction::In => number + 1_000_000,
    };
    let mut call = CallRecord::new(call_id(own), at(second), direction);
    call.from.id = Some(id("prod/a"));
    call.to.id = Some(id("prod/b"));
    call.method = "GET".to_owned();
    call.path = "/x".to_owned();
    call.verdict = Verdict::Allow;
    call.hop = Some(Hop::Mtls);
    call.peer_call = (direction == Direction::In).then(|| call_id(number));
    call
}

fn end(of: &CallRecord, status: u16, outcome: &str) -> Record {
    Record::End(EndRecord {
        id: of.id,
        time: of.time,
        status: Some(status),
        grpc_status: None,
        request_bytes: 0,
        response_bytes: 9,
        duration_us: 1,
        upstream_us: 1,
        tries: 1,
        address: None,
        outcome: outcome.to_owned(),
    })
}

fn refusals(second: u64, count: u64) -> Record {
    Record::Refusals(RefusalsRecord {
        time: at(second),
        verdict: Verdict::Deny,
        from: Party {
            id: Some(id("prod/a")),
            ..Party::default()
        },
        reason: "no_rule".to_owned(),
        rule: None,
        count,
        first: at(second),
        last: at(second),
    })
}

/// Two ledgers that both have a call at the beginning and at the end of five minutes.
struct Story(Pairs);

impl Story {
    fn new() -> Self {
        let mut story = Self(Pairs::new(2));
        story.whole(900_000, 0);
        story
    }

    fn add(&mut self, ledger: usize, record: &Record) {
        self.0.add(ledger, 0, record);
    }

    fn out(&mut self, number: u64, second: u64, status: u16, outcome: &str) {
        let call = call(number, second, Direction::Out);
        let ended = end(&call, status, outcome);
        self.add(CALLER, &Record::Call(Box::new(call)));
        self.add(CALLER, &ended);
    }

    fn note_callee(&mut self, number: u64, second: u64, status: u16) {
        let call = call(number, second, Direction::In);
        let ended = end(&call, status, "done");
        self.add(CALLEE, &Record::Call(Box::new(call)));
        self.add(CALLEE, &ended);
    }

    fn whole(&mut self, number: u64, second: u64) {
        self.out(number, second, 200, "done");
        self.note_callee(number, second, 200);
    }

    fn finish(mut self) -> Report {
        self.whole(900_001, 300);
        self.0.finish()
    }
}

fn words(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.what.as_str()).collect()
}

#[test]
fn calls_with_both_ends_alike_are_paired() {
    let mut story = Story::new();
    story.whole(1, 100);
    let report = story.finish();
    assert_eq!((report.outgoing, report.incoming, report.paired), (3, 3, 3));
    assert!(report.findings.is_empty() && report.open.is_empty(), "{report:?}");
}

#[test]
fn a_call_with_one_end_is_held_against_the_other_ledger() {
    let mut story = Story::new();
    story.out(1, 100, 200, "done");
    story.note_callee(2, 101, 200);
    assert_eq!(words(&story.finish()), ["not_at_callee", "not_at_caller"]);
}

#[test]
fn one_that_broke_off_or_lies_at_the_edge_of_the_other_ledger_is_not() {
    let mut story = Story::new();
    story.out(1, 100, 502, "peer_unreachable");
    story.out(2, 1, 200, "done");
    story.out(3, 299, 200, "done");
    let report = story.finish();
    assert!(report.findings.is_empty(), "{report:?}");
    assert_eq!(report.open, BTreeMap::from([(Open::NotReached, 1), (Open::Edge, 2)]));
}

#[test]
fn counted_refusals_excuse_as_many_refused_calls_and_none_that_was_answered() {
    let mut story = Story::new();
    story.add(CALLEE, &refusals(100, 2));
    for number in 1..=3 {
        story.out(number, 100, 403, "done");
    }
    story.out(4, 100, 200, "done");
    let report = story.finish();
    assert_eq!(report.open, BTreeMap::from([(Open::Counted, 2)]));
    let calls: Vec<CallId> = report.findings.iter().map(|finding| finding.call).collect();
    assert_eq!(calls, [call_id(3), call_id(4)], "{report:?}");
}

#[test]
fn refusals_that_another_ledger_counted_or_at_another_time_excuse_nothing() {
    let mut story = Story::new();
    story.add(CALLER, &refusals(100, 9));
    story.add(CALLEE, &refusals(200, 9));
    story.out(1, 100, 403, "done");
    assert_eq!(words(&story.finish()), ["not_at_callee"]);
}

#[test]
fn a_call_that_came_more_often_than_it_was_sent_is_told() {
    let mut story = Story::new();
    story.whole(1, 100);
    story.note_callee(1, 100, 200);
    let report = story.finish();
    assert_eq!(report.findings[0].what, Disagreement::Repeated { times: 2, tries: 1 });
}

#[test]
fn what_the_ends_have_differently_is_told_by_its_key() {
    let mut story = Story::new();
    story.out(1, 100, 200, "done");
    let mut there = call(1, 100, Direction::In);
    there.path = "/y".to_owned();
    let ended = end(&there, 404, "done");
    story.add(CALLEE, &Record::Call(Box::new(there)));
    story.add(CALLEE, &ended);
    let report = story.finish();
    let differs = |key, caller: &str, callee: &str| Disagreement::Differs {
        key,
        caller: caller.to_owned(),
        callee: callee.to_owned(),
    };
    let found: Vec<&Disagreement> = report.findings.iter().map(|finding| &finding.what).collect();
    assert_eq!(found, [&differs("path", "/x", "/y"), &differs("status", "200", "404")]);
}

#[test]
fn a_ledger_that_is_not_here_and_a_foreign_peer_are_counted() {
    let mut pairs = Pairs::new(1);
    for second in [0, 100, 300] {
        let out = call(second, second, Direction::Out);
        pairs.add(0, 0, &Record::Call(Box::new(out.clone())));
        pairs.add(0, 0, &end(&out, 200, "done"));
    }
    let mut foreign = call(7, 300, Direction::In);
    foreign.to.id = Some(id("prod/c"));
    foreign.peer_call = None;
    pairs.add(0, 0, &Record::Call(Box::new(foreign)));
    let report = pairs.finish();
    assert_eq!(report.open, BTreeMap::from([(Open::NotGiven, 3), (Open::Foreign, 1)]));
}
