use std::collections::BTreeSet;

use audit::{CallRecord, EndRecord, EventKind, Verdict};

use super::super::samples;
use super::*;

fn made(record: &Record) -> Value {
    event(&samples::item(record), &samples::origin())
}

/// What an event says, without what all say.
fn own(record: &Record) -> Value {
    let Value::Object(mut event) = made(record) else {
        panic!("no object")
    };
    for key in ["raw_data", "raw_data_size", "unmapped"] {
        event.remove(key).unwrap();
    }
    event.insert("metadata".to_owned(), event["metadata"]["profiles"].clone());
    Value::Object(event)
}

#[test]
fn an_event_names_its_record_and_holds_it_byte_by_byte() {
    let item = samples::item(&Record::Call(Box::new(samples::call())));
    let event = event(&item, &samples::origin());
    assert_eq!(event["raw_data"].as_str().unwrap().as_bytes(), item.sealed.line);
    let hash = item.sealed.hash.to_hex();
    assert_eq!(
        event["metadata"]["uid"],
        format!("acme.internal/host/web-1#1.17.{}", hash.get(..32).unwrap())
    );
    assert_eq!(
        event["unmapped"]["botmesh"],
        json!({ "epoch": 1, "record": 17, "leaf_hash": hash })
    );
    assert_eq!(event["metadata"]["version"], "1.8.0");
    assert_eq!(event["metadata"]["log_name"], "acme.internal/host/web-1");
    assert_eq!(event["metadata"]["original_time"], "2026-11-30T10:00:00.250Z");
    assert_eq!(
        event["metadata"]["correlation_uid"],
        "019a0000-0000-7000-8000-000000000001"
    );
    assert_eq!(event["time"], 1_796_032_800_250_i64);
}

#[test]
fn a_call_is_an_activity_of_an_api() {
    assert_eq!(
        own(&Record::Call(Box::new(samples::call()))),
        json!({
            "category_uid": 6, "category_name": "Application Activity", "class_uid": 6003, "class_name": "API Activity",
            "activity_id": 2, "activity_name": "Read", "type_uid": 600_302, "type_name": "API Activity: Read",
            "severity_id": 1, "severity": "Informational", "time": 1_796_032_800_250_i64,
            "message": "allow prod/checkout → prod/orders: GET /orders/17",
            "metadata": ["security_control", "trace"],
            "action_id": 1, "action": "Allowed", "disposition_id": 1, "disposition": "Allowed",
            "policy": { "uid": "checkout-reads-orders", "name": "checkout-reads-orders" },
            "actor": {
                "app_name": "prod/checkout", "app_uid": "spiffe://acme.internal/prod/checkout",
                "process": { "pid": 4711, "path": "/srv/checkout", "user": { "uid": "1001", "name": "checkout" } },
            },
            "api": {
                "operation": "GET /orders/17", "service": { "name": "prod/orders" },
                "request": { "uid": "019a0000-0000-7000-8000-000000000001" },
            },
            "http_request": {
                "uid": "019a0000-0000-7000-8000-000000000001", "http_method": "GET", "url": { "path": "/orders/17" },
            },
            "src_endpoint": {
                "name": "prod/checkout", "svc_name": "prod/checkout", "uid": "spiffe://acme.internal/prod/checkout", "zone": "web-1",
            },
            "dst_endpoint": { "name": "prod/orders", "svc_name": "prod/orders", "uid": "spiffe://acme.internal/prod/orders" },
            "trace": { "uid": "4bf92f3577b34da6a3ce929d0e0e4736" },
        })
    );
}

#[test]
fn a_refusal_says_denied_and_why() {
    let refused = own(&Record::Call(Box::new(CallRecord {
        verdict: Verdict::Deny,
        rule: None,
        reason: Some("no_rule".to_owned()),
        ..samples::call()
    })));
    let told = [
        "action_id",
        "disposition_id",
        "status_id",
        "status_detail",
        "severity_id",
    ]
    .map(|key| refused[key].clone());
    assert_eq!(json!(told), json!([2, 2, 2, "no_rule", 2]));
    assert_eq!(refused.get("policy"), None);
}

#[test]
fn an_end_belongs_to_its_call_and_says_how_it_went() {
    let ended = made(&Record::End(samples::end()));
    assert_eq!(ended["class_uid"], 4002);
    assert_eq!(
        ended["metadata"]["correlation_uid"],
        "019a0000-0000-7000-8000-000000000001"
    );
    assert_eq!(ended["http_response"]["code"], 200);
    assert_eq!(
        (ended["status_id"].clone(), ended["duration"].clone()),
        (1.into(), 20.into())
    );
    let failed = made(&Record::End(EndRecord {
        status: Some(503),
        ..samples::end()
    }));
    assert_eq!(failed["status_id"], 2);
    let closed = made(&Record::End(EndRecord {
        status: None,
        ..samples::end()
    }));
    assert_eq!(
        (closed["class_uid"].clone(), closed["activity_id"].clone()),
        (4001.into(), 2.into())
    );
}

#[test]
fn an_alert_is_a_finding_and_an_operators_deed_has_a_person() {
    let alert = made(&Record::Event(samples::event(EventKind::Alert)));
    assert_eq!(alert["class_uid"], 2004);
    assert_eq!(alert["finding_info"]["title"], "key_seen");
    assert_eq!(
        (alert["severity"].clone(), alert["is_alert"].clone()),
        ("High".into(), true.into())
    );
    let deed = made(&Record::Event(samples::event(EventKind::Quarantined)));
    assert_eq!(deed["class_uid"], 6003);
    assert_eq!(
        deed["actor"],
        json!({ "user": { "name": "root", "type_id": 2, "type": "Admin" } })
    );
    assert_eq!(deed["resources"], json!([{ "name": "prod/checkout" }]));
}

#[test]
fn every_kind_of_record_has_an_event_of_a_class_whose_numbers_fit() {
    let mut classes = BTreeSet::new();
    for record in samples::all() {
        let event = made(&record);
        let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("{key}: {event}"));
        classes.insert(number("class_uid"));
        assert_eq!(number("category_uid"), number("class_uid") / 1000, "{event}");
        assert_eq!(
            number("type_uid"),
            number("class_uid") * 100 + number("activity_id"),
            "{event}"
        );
        for key in ["message", "class_name", "activity_name"] {
            assert!(!event[key].as_str().unwrap().is_empty(), "{event}");
        }
    }
    assert_eq!(
        classes.into_iter().collect::<Vec<_>>(),
        [1008, 2004, 4001, 4002, 6002, 6003]
    );
}

#[test]
fn a_line_of_another_version_is_not_lost() {
    for line in [
        &br#"{"kind":"call","time":"2026-11-30T10:00:00.250Z","new":1}"#[..],
        b"\xff{",
        b"",
    ] {
        let event = event(&samples::item_of(line), &samples::origin());
        assert_eq!(
            (event["class_uid"].clone(), event["metadata"]["event_code"].clone()),
            (0.into(), "unreadable".into())
        );
        assert_eq!(event["raw_data_size"], line.len());
    }
    let later = samples::item_of(br#"{"kind":"call","time":"2026-11-30T10:00:00.250Z","new":1}"#);
    assert_eq!(event(&later, &samples::origin())["time"], 1_796_032_800_250_i64);
}
