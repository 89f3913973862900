//! Records as log records of OpenTelemetry.
//!
//! The messages are those of opentelemetry-proto 1.x (`logs/v1`, `common/v1`, `resource/v1`, `collector/logs/v1`), as far as they
//! are used; the suite reads them with the official crate. The attribute `log.record.uid` is the record's name: of two log
//! records with the same one, one can be dropped (semantic conventions, "General identification attributes").

use audit::{EventKind, Record, Verdict};
use prost::Message;
use serde_json::{Map, Value};

use super::item::{Item, Origin};

/// How deep what a record holds becomes attributes of their own; below that it is one text.
const DEPTH_MAX: usize = 3;

/// What a server is asked to take.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct LogRecord {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    severity_number: i32,
    #[prost(string, tag = "3")]
    severity_text: String,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(bytes = "vec", tag = "9")]
    trace_id: Vec<u8>,
    #[prost(fixed64, tag = "11")]
    observed_time_unix_nano: u64,
    #[prost(string, tag = "12")]
    event_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Array(ArrayValue),
}

#[derive(Clone, PartialEq, Message)]
struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

/// Writes a request with these records.
pub(super) fn request(origin: &Origin, items: &[Item]) -> Vec<u8> {
    let attributes = [
        ("service.namespace", origin.trust_domain.as_str()),
        ("service.name", &service(origin)),
        ("service.instance.id", origin.ledger.as_str()),
        ("host.name", &origin.name),
    ];
    let scope = Scope {
        name: "botmesh.audit".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let request = Request {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: attributes.map(|(key, value)| text(key, value)).into(),
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope),
                log_records: items.iter().map(|item| log_record(item, origin)).collect(),
            }],
        }],
    };
    request.encode_to_vec()
}

/// How many bytes a record adds to a request.
pub(super) fn size(item: &Item, origin: &Origin) -> usize {
    log_record(item, origin).encoded_len().saturating_add(8)
}

fn service(origin: &Origin) -> String {
    match origin.role {
        "" => "botmesh".to_owned(),
        role => format!("botmesh-{role}"),
    }
}

fn log_record(item: &Item, origin: &Origin) -> LogRecord {
    let (number, word) = severity(item.record.as_ref());
    let millis = item.time().map_or(0, |time| time.unix_millis());
    let nanos = u64::try_from(millis).unwrap_or_default().saturating_mul(1_000_000);
    LogRecord {
        time_unix_nano: nanos,
        observed_time_unix_nano: nanos,
        severity_number: number,
        severity_text: word.to_owned(),
        body: any(Any::String(item.text())),
        attributes: attributes(item, origin),
        trace_id: trace(item.record.as_ref()).unwrap_or_default(),
        event_name: format!("botmesh.{}", item.kind()),
    }
}

/// A refusal and what looks like one is a warning, an alert an error; the numbers are those of the log data model.
fn severity(record: Option<&Record>) -> (i32, &'static str) {
    const INFO: (i32, &str) = (9, "INFO");
    const WARN: (i32, &str) = (13, "WARN");
    const ERROR: (i32, &str) = (17, "ERROR");
    match record {
        Some(Record::Call(call)) => match call.verdict {
            Verdict::Allow | Verdict::Audit => INFO,
            Verdict::Deny => WARN,
        },
        Some(Record::Refusals(_) | Record::Strangers(_)) | None => WARN,
        Some(Record::End(_) | Record::Segment(_)) => INFO,
        Some(Record::Event(event)) if is_refusal(event.kind) => WARN,
        Some(Record::Event(event)) if event.kind == EventKind::Alert => ERROR,
        Some(Record::Event(_)) => INFO,
    }
}

/// Says whether something was asked for and not given.
pub(super) const fn is_refusal(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::IssueRefused
            | EventKind::HostRefused
            | EventKind::TokenRefused
            | EventKind::PolicyRefused
            | EventKind::CheckpointRefused
    )
}

/// The trace that a call is part of (W3C trace context: 16 bytes, not all zero).
fn trace(record: Option<&Record>) -> Option<Vec<u8>> {
    let Some(Record::Call(call)) = record else { return None };
    let hex = call.trace.as_deref().filter(|hex| hex.len() == 32)?;
    let pairs = hex.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    bytes.iter().any(|byte| *byte != 0).then_some(bytes)
}

fn attributes(item: &Item, origin: &Origin) -> Vec<KeyValue> {
    let mut all = vec![
        text("log.record.uid", &item.uid),
        text("botmesh.ledger", origin.ledger.as_str()),
        number("botmesh.ledger.epoch", u64::from(item.sealed.epoch)),
        number("botmesh.ledger.record", item.sealed.index),
        text("botmesh.ledger.leaf_hash", &item.sealed.hash.to_hex()),
    ];
    all.extend(conventional(item.record.as_ref()));
    if let Ok(record) = serde_json::from_slice::<Map<String, Value>>(&item.sealed.line) {
        // The time is the record's own.
        let record = record.iter().filter(|(key, _)| *key != "time");
        record.for_each(|(key, value)| flatten(&format!("botmesh.{key}"), value, 1, &mut all));
    }
    all
}

/// What the semantic conventions have a name for.
fn conventional(record: Option<&Record>) -> Vec<KeyValue> {
    match record {
        Some(Record::Call(call)) => {
            let mut all = vec![text("network.protocol.name", call.protocol.as_str())];
            if call.protocol.has_requests() {
                all.push(text("http.request.method", &call.method));
                all.push(text("url.path", &call.path));
            }
            all.extend(call.port.map(|port| number("server.port", u64::from(port))));
            all
        }
        Some(Record::End(end)) => {
            let status = end
                .status
                .map(|status| number("http.response.status_code", u64::from(status)));
            let grpc = end
                .grpc_status
                .map(|status| text("rpc.response.status_code", &status.to_string()));
            status.into_iter().chain(grpc).collect()
        }
        Some(Record::Strangers(strangers)) => {
            let source = strangers
                .source
                .map(|source| text("client.address", &source.to_string()));
            source.into_iter().collect()
        }
        Some(Record::Event(_) | Record::Refusals(_) | Record::Segment(_)) | None => Vec::new(),
    }
}

/// Makes attributes of all that a value holds.
fn flatten(key: &str, value: &Value, depth: usize, all: &mut Vec<KeyValue>) {
    if let Value::Object(fields) = value
        && depth < DEPTH_MAX
    {
        for (name, value) in fields {
            flatten(&format!("{key}.{name}"), value, depth.saturating_add(1), all);
        }
        return;
    }
    all.extend(scalar(value).map(|value| KeyValue {
        key: key.to_owned(),
        value: any(value),
    }));
}

fn scalar(value: &Value) -> Option<Any> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Any::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Any::Int(number),
            // Past 2^63 a double would be another number.
            (None, Some(double)) if number.is_f64() => Any::Double(double),
            _ => Any::String(number.to_string()),
        },
        Value::String(text) => Any::String(text.clone()),
        Value::Array(values) if values.iter().all(|value| !value.is_array() && !value.is_object()) => {
            Any::Array(ArrayValue {
                values: values
                    .iter()
                    .filter_map(scalar)
                    .map(|value| AnyValue { value: Some(value) })
                    .collect(),
            })
        }
        nested @ (Value::Array(_) | Value::Object(_)) => Any::String(nested.to_string()),
    })
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: any(Any::String(value.to_owned())),
    }
}

fn number(key: &str, value: u64) -> KeyValue {
    let value = i64::try_from(value).map_or_else(|_large| Any::String(value.to_string()), Any::Int);
    KeyValue {
        key: key.to_owned(),
        value: any(value),
    }
}

// An option, as every field of a message that holds one has it.
#[expect(clippy::unnecessary_wraps, reason = "it is the type of the field")]
const fn any(value: Any) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

/// What a server answers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_log_records: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

/// What a server says when it takes nothing (`google.rpc.Status`).
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use audit::EndRecord;
    use serde_json::json;

    use super::super::samples;
    use super::*;

    fn made(record: &Record) -> (LogRecord, BTreeMap<String, Any>) {
        of(&samples::item(record))
    }

    fn of(item: &Item) -> (LogRecord, BTreeMap<String, Any>) {
        let record = log_record(item, &samples::origin());
        let mut attributes = BTreeMap::new();
        for KeyValue { key, value } in &record.attributes {
            let value = value.clone().unwrap().value.unwrap();
            assert_eq!(attributes.insert(key.clone(), value), None, "{key} is there twice");
        }
        (record, attributes)
    }

    fn string(text: &str) -> Any {
        Any::String(text.to_owned())
    }

    #[test]
    fn a_call_is_a_log_record_with_its_line_and_what_is_in_it() {
        let item = samples::item(&Record::Call(Box::new(samples::call())));
        let (record, attributes) = of(&item);
        let nanos = 1_796_032_800_250_000_000;
        assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (nanos, nanos));
        assert_eq!((record.severity_number, record.severity_text.as_str()), (9, "INFO"));
        assert_eq!(record.event_name, "botmesh.call");
        assert_eq!(record.body, any(Any::String(item.text())));
        assert_eq!(record.trace_id.len(), 16);
        assert_eq!(record.trace_id[..2], [0x4b, 0xf9]);
        let hash = item.sealed.hash.to_hex();
        for (key, wanted) in [
            (
                "log.record.uid",
                string(&format!("acme.internal/host/web-1#1.17.{}", hash.get(..32).unwrap())),
            ),
            ("botmesh.ledger", string("acme.internal/host/web-1")),
            ("botmesh.ledger.epoch", Any::Int(1)),
            ("botmesh.ledger.record", Any::Int(17)),
            ("botmesh.ledger.leaf_hash", string(&hash)),
            ("network.protocol.name", string("http")),
            ("http.request.method", string("GET")),
            ("url.path", string("/orders/17")),
            ("botmesh.kind", string("call")),
            ("botmesh.verdict", string("allow")),
            ("botmesh.rule", string("checkout-reads-orders")),
            ("botmesh.from.id", string("spiffe://acme.internal/prod/checkout")),
            ("botmesh.from.uid", Any::Int(1001)),
            ("botmesh.to.id", string("spiffe://acme.internal/prod/orders")),
            ("botmesh.query", scalar(&json!(["page"])).unwrap()),
        ] {
            assert_eq!(attributes.get(key), Some(&wanted), "{key}");
        }
        assert!(!attributes.contains_key("botmesh.time"));
    }

    #[test]
    fn refusals_are_warnings_and_alerts_errors() {
        let told = |record: &Record| made(record).0.severity_text;
        let mut refused = samples::call();
        refused.verdict = Verdict::Deny;
        assert_eq!(told(&Record::Call(Box::new(refused))), "WARN");
        assert_eq!(told(&Record::Event(samples::event(EventKind::IssueRefused))), "WARN");
        assert_eq!(told(&Record::Event(samples::event(EventKind::Alert))), "ERROR");
        assert_eq!(told(&Record::Event(samples::event(EventKind::Issued))), "INFO");
    }

    #[test]
    fn what_an_event_holds_is_flat_as_far_as_people_look_and_no_number_changes() {
        let (record, attributes) = made(&Record::Event(samples::event(EventKind::Issued)));
        assert_eq!(record.event_name, "botmesh.issued");
        assert_eq!(attributes["botmesh.detail.alert"], string("key_seen"));
        assert_eq!(
            attributes["botmesh.detail.deep.a"],
            string(r#"{"b":[1,2.5,true,null],"c":{"d":1}}"#)
        );
        assert_eq!(attributes["botmesh.detail.large"], string("18446744073709551615"));
    }

    #[test]
    fn an_end_has_the_status_under_its_conventional_name() {
        let (_, attributes) = made(&Record::End(EndRecord {
            grpc_status: Some(5),
            ..samples::end()
        }));
        assert_eq!(attributes["http.response.status_code"], Any::Int(200));
        assert_eq!(attributes["rpc.response.status_code"], string("5"));
        assert_eq!(attributes["botmesh.duration_us"], Any::Int(20_500));
    }

    #[test]
    fn every_kind_of_record_has_a_log_record_and_is_as_large_as_was_said() {
        for record in samples::all() {
            let item = samples::item(&record);
            let (log, _attributes) = of(&item);
            assert!(log.severity_number > 0 && log.time_unix_nano > 0, "{record:?}");
            let one = request(&samples::origin(), std::slice::from_ref(&item)).len();
            let none = request(&samples::origin(), &[]).len();
            assert!(one - none <= size(&item, &samples::origin()), "{record:?}");
        }
    }

    #[test]
    fn a_trace_that_is_none_is_left_out() {
        for trace in [
            None,
            Some("0".repeat(32)),
            Some("4bf9".to_owned()),
            Some("é".repeat(16)),
            Some("x".repeat(32)),
        ] {
            let mut call = samples::call();
            call.trace = trace.clone();
            assert_eq!(super::trace(Some(&Record::Call(Box::new(call)))), None, "{trace:?}");
        }
    }

    #[test]
    fn a_line_of_another_version_is_not_lost() {
        let item = samples::item_of(br#"{"kind":"call","time":"2026-11-30T10:00:00.250Z","new":{"a":1}}"#);
        let (record, attributes) = of(&item);
        assert_eq!(
            (record.event_name.as_str(), record.severity_text.as_str()),
            ("botmesh.unreadable", "WARN")
        );
        assert_eq!(attributes["botmesh.new.a"], Any::Int(1));
        let (record, _) = of(&samples::item_of(b"\xff{"));
        assert_eq!(record.body, any(string("\u{fffd}{")));
    }
}
