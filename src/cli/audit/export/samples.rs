//! A record of each kind, for tests of what is made of them.

use std::sync::Arc;

use audit::hash::Hash;
use audit::key::KeyName;
use audit::record::{RefusalsRecord, SegmentRecord, StrangersRecord};
use audit::{
    Actor, CallId, CallRecord, Callee, Direction, EndRecord, EventKind, EventRecord, Hop, Party, Protocol, Record,
    Sealed, Verdict,
};
use spiffe::id::SpiffeId;
use spiffe::selector::Facts;
use spiffe::time::Timestamp;

use super::item::{Item, Origin};

pub(super) fn origin() -> Origin {
    Origin::of(&KeyName::parse("acme.internal/host/web-1").unwrap())
}

fn time() -> Timestamp {
    Timestamp::from_rfc3339("2026-11-30T10:00:00.250Z").unwrap()
}

fn id() -> CallId {
    CallId::parse("019a0000-0000-7000-8000-000000000001").unwrap()
}

fn bot(name: &str) -> Option<SpiffeId> {
    SpiffeId::parse(&format!("spiffe://acme.internal/{name}")).ok()
}

/// The item of a line, as the seventeenth record.
pub(super) fn item_of(line: &[u8]) -> Item {
    let sealed = Sealed {
        epoch: 1,
        index: 17,
        hash: Hash::leaf(line),
        line: line.to_vec(),
    };
    Item::of(sealed, &origin())
}

pub(super) fn item(record: &Record) -> Item {
    let item = item_of(&record.encode().unwrap());
    assert_eq!(item.record.as_ref(), Some(record));
    item
}

pub(super) fn call() -> CallRecord {
    CallRecord {
        actor: Actor::Bot,
        from: Party {
            id: bot("prod/checkout"),
            serial: None,
            facts: Some(Arc::new(Facts {
                user: Some("checkout".to_owned()),
                exe: Some("/srv/checkout".to_owned()),
                ..Facts::new(4711, 1001, 1001)
            })),
        },
        to: Callee {
            id: bot("prod/orders"),
            ..Callee::default()
        },
        method: "GET".to_owned(),
        path: "/orders/17".to_owned(),
        query: vec!["page".to_owned()],
        verdict: Verdict::Allow,
        rule: Some("checkout-reads-orders".to_owned()),
        epoch: 1,
        revision: 3,
        hop: Some(Hop::Mtls),
        trace: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        ..CallRecord::new(id(), time(), Direction::Out)
    }
}

pub(super) fn end() -> EndRecord {
    EndRecord {
        id: id(),
        time: time(),
        status: Some(200),
        grpc_status: None,
        request_bytes: 10,
        response_bytes: 1024,
        duration_us: 20_500,
        upstream_us: 18_000,
        tries: 1,
        address: None,
        outcome: "done".to_owned(),
    }
}

pub(super) fn event(kind: EventKind) -> EventRecord {
    EventRecord {
        kind,
        time: time(),
        actor: "operator:root".to_owned(),
        subject: "prod/checkout".to_owned(),
        detail: [
            ("alert".to_owned(), "key_seen".into()),
            (
                "deep".to_owned(),
                serde_json::json!({ "a": { "b": [1, 2.5, true, null], "c": { "d": 1 } } }),
            ),
            ("large".to_owned(), u64::MAX.into()),
        ]
        .into(),
    }
}

fn calls() -> Vec<CallRecord> {
    let mut all = Vec::new();
    for protocol in [
        Protocol::Http,
        Protocol::Grpc,
        Protocol::Tcp,
        Protocol::Tls,
        Protocol::Postgres,
    ] {
        for verdict in Verdict::ALL {
            for direction in Direction::ALL {
                let mut call = CallRecord {
                    protocol,
                    verdict: *verdict,
                    direction: *direction,
                    ..call()
                };
                if !protocol.has_requests() {
                    (call.method, call.path, call.port) = (String::new(), String::new(), Some(5432));
                    call.query.clear();
                }
                if protocol == Protocol::Postgres {
                    call.path = "orders".to_owned();
                }
                if *verdict == Verdict::Deny {
                    (call.rule, call.hop, call.reason) = (None, None, Some("no_rule".to_owned()));
                }
                all.push(call);
            }
        }
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "HEAD", "PROPFIND"] {
        let method = method.to_owned();
        all.push(CallRecord { method, ..call() });
    }
    for actor in Actor::ALL {
        all.push(CallRecord {
            actor: *actor,
            ..call()
        });
    }
    let nobody = Party::default();
    let callees = [
        Callee {
            outside: Some("https://api.example.com".to_owned()),
            ..Callee::default()
        },
        Callee {
            host: Some("nobody\u{1b}.mesh".to_owned()),
            ..Callee::default()
        },
        Callee::default(),
    ];
    all.extend(callees.map(|to| CallRecord {
        to,
        from: nobody.clone(),
        path: String::new(),
        trace: None,
        ..call()
    }));
    all
}

/// Every kind of record, and each in the forms that it has.
pub(super) fn all() -> Vec<Record> {
    let counted = |party: Party| RefusalsRecord {
        time: time(),
        verdict: Verdict::Deny,
        from: party,
        reason: "no_rule".to_owned(),
        rule: None,
        count: 17,
        first: time(),
        last: time(),
    };
    let strangers = |source: Option<&str>| StrangersRecord {
        time: time(),
        source: source.map(|source| source.parse().unwrap()),
        reason: "handshake".to_owned(),
        count: 3,
        first: time(),
        last: time(),
    };
    let mut all: Vec<Record> = calls().into_iter().map(|call| Record::Call(Box::new(call))).collect();
    all.extend([
        Record::End(end()),
        Record::End(EndRecord {
            status: Some(503),
            outcome: "timeout".to_owned(),
            ..end()
        }),
        Record::End(EndRecord {
            grpc_status: Some(5),
            address: "[2001:db8::1]:443".parse().ok(),
            ..end()
        }),
        Record::End(EndRecord { status: None, ..end() }),
        Record::Refusals(counted(call().from)),
        Record::Refusals(counted(Party::default())),
        Record::Strangers(strangers(Some("192.0.2.7"))),
        Record::Strangers(strangers(None)),
        Record::Segment(SegmentRecord {
            time: time(),
            first: 17,
            calls_bytes: 1,
            refusals_bytes: 2,
            strangers_bytes: 3,
        }),
    ]);
    all.extend(EventKind::ALL.iter().map(|kind| Record::Event(event(*kind))));
    all
}
