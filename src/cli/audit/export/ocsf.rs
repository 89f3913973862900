//! Records as events of the Open Cybersecurity Schema Framework.
//!
//! The form is OCSF 1.8.0, and events are checked against its published schema (tests/export.rs). `metadata.uid` is the
//! record's name: of two events with the same one, one can be dropped. `raw_data` is the record itself, byte by byte.

mod call;
mod event;

use audit::key::KeyName;
use audit::{EndRecord, Record};
use serde_json::{Map, Value, json};

use super::item::{Item, Origin};

/// The version of the schema.
pub(super) const VERSION: &str = "1.8.0";

/// A class of events, with the numbers that the schema has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    uid: u64,
    name: &'static str,
    category: &'static str,
}

const BASE: Class = Class::new(0, "Base Event", "Uncategorized");
const EVENT_LOG: Class = Class::new(1008, "Event Log Activity", "System Activity");
const DETECTION: Class = Class::new(2004, "Detection Finding", "Findings");
const NETWORK: Class = Class::new(4001, "Network Activity", "Network Activity");
const HTTP: Class = Class::new(4002, "HTTP Activity", "Network Activity");
const LIFECYCLE: Class = Class::new(6002, "Application Lifecycle", "Application Activity");
const API: Class = Class::new(6003, "API Activity", "Application Activity");

/// The activity that no class has a number for.
const OTHER: u64 = 99;

impl Class {
    const fn new(uid: u64, name: &'static str, category: &'static str) -> Self {
        Self { uid, name, category }
    }

    /// What is done, by the number and the name that the class has for it.
    const fn activity(self, id: u64, name: &'static str) -> Activity {
        Activity { class: self, id, name }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Activity {
    class: Class,
    id: u64,
    name: &'static str,
}

/// How bad it is, as the schema counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Informational = 1,
    Low = 2,
    High = 4,
}

/// What a record says beyond what all of them say.
struct Told {
    activity: Activity,
    severity: Severity,
    message: String,
    /// What ties records to each other.
    correlation: Option<String>,
    profiles: &'static [&'static str],
    fields: Map<String, Value>,
}

/// Makes the event of a record.
pub(super) fn event(item: &Item, origin: &Origin) -> Value {
    let told = told(item, origin);
    let Activity { class, id, name } = told.activity;
    let mut event = told.fields;
    let mut set = |key: &str, value: Value| {
        event.insert(key.to_owned(), value);
    };
    set("category_uid", (class.uid / 1000).into());
    set("category_name", class.category.into());
    set("class_uid", class.uid.into());
    set("class_name", class.name.into());
    set("activity_id", id.into());
    set("activity_name", name.into());
    set("type_uid", (class.uid * 100 + id).into());
    set("type_name", format!("{}: {name}", class.name).into());
    set("severity_id", (told.severity as u64).into());
    set("severity", format!("{:?}", told.severity).into());
    set("time", item.time().map_or(0, |time| time.unix_millis()).into());
    set("message", told.message.into());
    set("metadata", metadata(item, origin, told.correlation, told.profiles));
    set("raw_data", item.text().into());
    set("raw_data_size", item.sealed.line.len().into());
    let place =
        json!({ "epoch": item.sealed.epoch, "record": item.sealed.index, "leaf_hash": item.sealed.hash.to_hex() });
    set("unmapped", json!({ "botmesh": place }));
    Value::Object(event)
}

fn metadata(item: &Item, origin: &Origin, correlation: Option<String>, profiles: &[&str]) -> Value {
    let product = json!({ "name": "botmesh", "vendor_name": "botmesh", "version": env!("CARGO_PKG_VERSION") });
    let reporter = json!({ "name": origin.name, "uid": origin.ledger.as_str() });
    object([
        ("version", Some(VERSION.into())),
        ("product", Some(product)),
        ("uid", Some(item.uid.as_str().into())),
        ("sequence", Some(item.sealed.index.into())),
        ("event_code", Some(item.kind().into())),
        ("log_name", Some(origin.ledger.as_str().into())),
        ("log_provider", Some("botmesh".into())),
        ("reporter", Some(reporter)),
        ("original_time", item.time().map(|time| time.to_string().into())),
        ("correlation_uid", correlation.map(Value::from)),
        ("profiles", (!profiles.is_empty()).then(|| json!(profiles))),
    ])
}

fn told(item: &Item, origin: &Origin) -> Told {
    match &item.record {
        Some(Record::Call(record)) => call::call(record, origin),
        Some(Record::End(record)) => end(record, origin),
        Some(Record::Refusals(record)) => call::refusals(record),
        Some(Record::Strangers(record)) => call::strangers(record),
        Some(Record::Segment(record)) => Told {
            activity: EVENT_LOG.activity(5, "Rotate"),
            severity: Severity::Informational,
            message: format!("a segment of the ledger begins with record {}", record.first),
            correlation: None,
            profiles: &[],
            fields: log(&origin.ledger),
        },
        Some(Record::Event(record)) => event::event(record, item, origin),
        None => Told {
            activity: BASE.activity(OTHER, "Unreadable"),
            severity: Severity::Low,
            message: "a line of the ledger that this version does not know".to_owned(),
            correlation: None,
            profiles: &[],
            fields: Map::new(),
        },
    }
}

/// How a call ended. Its record names neither end, so what is left is the host that both sides of the connection have.
fn end(record: &EndRecord, origin: &Origin) -> Told {
    let worked = record.outcome == "done" && record.status.is_none_or(|status| status < 400);
    let mut fields = fields(json!({
        "duration": record.duration_us / 1000,
        "traffic": {
            "bytes": record.request_bytes.saturating_add(record.response_bytes),
            "bytes_in": record.request_bytes,
            "bytes_out": record.response_bytes,
        },
        "status_id": if worked { 1 } else { 2 },
        "status": if worked { "Success" } else { "Failure" },
        "status_detail": record.outcome,
    }));
    if let Some(address) = record.address {
        let place = json!({ "ip": address.ip().to_string(), "port": address.port() });
        fields.insert("dst_endpoint".to_owned(), place);
    }
    let activity = if let Some(status) = record.status {
        let answer =
            json!({ "code": status, "body_length": record.response_bytes, "latency": record.upstream_us / 1000 });
        fields.insert("http_response".to_owned(), answer);
        fields.insert("http_status".to_owned(), status.into());
        fields.insert("status_code".to_owned(), status.to_string().into());
        HTTP.activity(OTHER, "Answer")
    } else {
        fields.insert("src_endpoint".to_owned(), json!({ "name": origin.name }));
        fields.insert("is_src_dst_assignment_known".to_owned(), false.into());
        NETWORK.activity(2, "Close")
    };
    Told {
        activity,
        severity: Severity::Informational,
        message: format!("a call ended: {}", record.outcome),
        correlation: Some(record.id.to_string()),
        profiles: &[],
        fields,
    }
}

/// What events about the ledger itself name.
fn log(ledger: &KeyName) -> Map<String, Value> {
    fields(json!({ "log_name": ledger.as_str(), "log_provider": "botmesh" }))
}

/// An object of what there is.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter();
    let there = fields.filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(there.collect())
}

/// The fields of an object that was written as one.
fn fields(object: Value) -> Map<String, Value> {
    if let Value::Object(fields) = object {
        fields
    } else {
        Map::new()
    }
}

#[cfg(test)]
mod tests;
