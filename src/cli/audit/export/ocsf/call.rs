//! Calls, and what is counted in place of them.

use audit::record::{RefusalsRecord, StrangersRecord};
use audit::{Actor, CallRecord, Callee, Direction, Party, Protocol, Verdict};
use serde_json::{Map, Value, json};
use spiffe::id::SpiffeId;

use super::{API, Activity, NETWORK, OTHER, Origin, Severity, Told, fields, object};

/// The methods that the schema knows.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// The profile of verdicts, rules and alerts, with that of the actor or that of traces.
const REQUEST: &[&str] = &["security_control", "trace"];
const CONNECTION: &[&str] = &["security_control", "host"];

/// A decision: of a request that of an API, of a connection that of the network.
pub(super) fn call(record: &CallRecord, origin: &Origin) -> Told {
    let mut fields = verdict(record.verdict, record.rule.as_deref());
    let mut set = |key: &str, value: Value| {
        fields.insert(key.to_owned(), value);
    };
    set("actor", actor(&record.from, record.actor));
    let here = |own: Direction| (record.direction == own).then_some(origin.name.as_str());
    let (from, to) = (name(&record.from), callee_name(&record.to));
    let source = endpoint(&from, record.from.id.as_ref(), None, here(Direction::Out));
    set("src_endpoint", source);
    let destination = endpoint(&to, record.to.id.as_ref(), record.port, here(Direction::In));
    set("dst_endpoint", destination);
    if record.verdict == Verdict::Deny {
        set("status_id", 2.into());
        set("status", "Failure".into());
    }
    if let Some(reason) = &record.reason {
        set("status_detail", reason.as_str().into());
    }
    let what = if record.protocol.has_requests() {
        let what = format!("{} {}", record.method, record.path);
        set("api", api(record, &what));
        set("http_request", http_request(record));
        if let Some(trace) = &record.trace {
            set("trace", json!({ "uid": trace }));
        }
        what
    } else {
        let direction = if record.direction == Direction::Out { 2 } else { 1 };
        set(
            "connection_info",
            json!({ "direction_id": direction, "protocol_name": "tcp" }),
        );
        record.protocol.as_str().to_owned()
    };
    let word = record.verdict.as_str();
    let message = format!("{word} {from} → {to}: {what}");
    Told {
        activity: activity(record),
        severity: severity(record.verdict),
        message,
        correlation: Some(record.id.to_string()),
        profiles: if record.protocol.has_requests() {
            REQUEST
        } else {
            CONNECTION
        },
        fields,
    }
}

/// Refusals that were counted.
pub(super) fn refusals(record: &RefusalsRecord) -> Told {
    let mut fields = verdict(record.verdict, record.rule.as_deref());
    fields.extend(super::fields(json!({
        "actor": actor(&record.from, Actor::Unknown),
        "api": { "operation": "calls that were refused too fast to be recorded one by one" },
        "src_endpoint": endpoint(&name(&record.from), record.from.id.as_ref(), None, None),
        "status_id": 2,
        "status": "Failure",
        "status_detail": record.reason,
    })));
    fields.extend(span(
        record.count,
        record.first.unix_millis(),
        record.last.unix_millis(),
    ));
    Told {
        activity: API.activity(OTHER, "Refused"),
        severity: severity(record.verdict),
        message: format!(
            "{} calls of {} were refused: {}",
            record.count,
            name(&record.from),
            record.reason
        ),
        correlation: None,
        profiles: REQUEST,
        fields,
    }
}

/// What one unauthenticated source did in a minute.
pub(super) fn strangers(record: &StrangersRecord) -> Told {
    let source = record.source.map_or_else(
        || json!({ "name": "many sources" }),
        |source| json!({ "ip": source.to_string() }),
    );
    let named = record
        .source
        .map_or_else(|| "many sources".to_owned(), |source| source.to_string());
    let mut fields = verdict(Verdict::Deny, None);
    fields.extend(super::fields(json!({
        "src_endpoint": source,
        "status_id": 2,
        "status": "Failure",
        "status_detail": record.reason,
    })));
    fields.extend(span(
        record.count,
        record.first.unix_millis(),
        record.last.unix_millis(),
    ));
    Told {
        activity: NETWORK.activity(5, "Refuse"),
        severity: Severity::Low,
        message: format!("{} tries of {named} were refused: {}", record.count, record.reason),
        correlation: None,
        profiles: &["security_control"],
        fields,
    }
}

fn span(count: u64, first: i64, last: i64) -> Map<String, Value> {
    fields(json!({ "count": count, "start_time": first, "end_time": last }))
}

const fn severity(verdict: Verdict) -> Severity {
    match verdict {
        Verdict::Allow => Severity::Informational,
        Verdict::Audit | Verdict::Deny => Severity::Low,
    }
}

/// What was decided, and by which rule.
fn verdict(verdict: Verdict, rule: Option<&str>) -> Map<String, Value> {
    let (action, action_name, disposition, disposition_name) = match verdict {
        Verdict::Allow => (1, "Allowed", 1, "Allowed"),
        Verdict::Audit => (3, "Observed", 17, "Logged"),
        Verdict::Deny => (2, "Denied", 2, "Blocked"),
    };
    let mut told = fields(json!({
        "action_id": action, "action": action_name,
        "disposition_id": disposition, "disposition": disposition_name,
    }));
    if let Some(rule) = rule {
        told.insert("policy".to_owned(), json!({ "uid": rule, "name": rule }));
    }
    told
}

/// What kind of deed a call is, as far as its method says so.
fn activity(record: &CallRecord) -> Activity {
    let refused = record.verdict == Verdict::Deny;
    match record.protocol {
        Protocol::Grpc => API.activity(OTHER, "Call"),
        Protocol::Http => match record.method.as_str() {
            "POST" => API.activity(1, "Create"),
            "GET" | "HEAD" | "OPTIONS" => API.activity(2, "Read"),
            "PUT" | "PATCH" => API.activity(3, "Update"),
            "DELETE" => API.activity(4, "Delete"),
            _ => API.activity(OTHER, "Call"),
        },
        Protocol::Tcp | Protocol::Tls | Protocol::Postgres if refused => NETWORK.activity(5, "Refuse"),
        Protocol::Tcp | Protocol::Tls | Protocol::Postgres => NETWORK.activity(1, "Open"),
    }
}

fn api(record: &CallRecord, operation: &str) -> Value {
    json!({
        "operation": operation,
        "request": { "uid": record.id.to_string() },
        "service": { "name": callee_name(&record.to) },
    })
}

fn http_request(record: &CallRecord) -> Value {
    let method = Some(record.method.as_str()).filter(|method| METHODS.contains(method));
    let path = Some(record.path.as_str()).filter(|path| !path.is_empty());
    object([
        ("uid", Some(record.id.to_string().into())),
        ("http_method", method.map(Value::from)),
        ("url", path.map(|path| json!({ "path": path }))),
    ])
}

/// Who calls: a bot by its identity, and the process that the kernel showed.
fn actor(party: &Party, kind: Actor) -> Value {
    let person = (kind == Actor::Operator).then(|| json!({ "name": name(party), "type_id": 2, "type": "Admin" }));
    let process = party.facts.as_ref().map(|facts| {
        let user = object([
            ("uid", Some(facts.uid.to_string().into())),
            ("name", facts.user.as_deref().map(Value::from)),
        ]);
        object([
            ("pid", Some(facts.pid.into())),
            ("user", Some(user)),
            ("path", facts.exe.as_deref().map(Value::from)),
        ])
    });
    object([
        ("app_name", Some(name(party).into())),
        ("app_uid", party.id.as_ref().map(|id| id.as_str().into())),
        ("user", person),
        ("process", process),
    ])
}

/// One end of a call: a bot by its identity, and whatever it is by a name; on this host or, as far as this one knows, anywhere.
fn endpoint(name: &str, id: Option<&SpiffeId>, port: Option<u16>, host: Option<&str>) -> Value {
    object([
        ("name", Some(name.into())),
        ("svc_name", id.map(|_id| name.into())),
        ("uid", id.map(|id| id.as_str().into())),
        ("port", port.map(Value::from)),
        ("zone", host.map(Value::from)),
    ])
}

/// A bot's name, which is the path of its SPIFFE ID.
fn name(party: &Party) -> String {
    match (&party.id, &party.facts) {
        (Some(id), _) => short(id.as_str()),
        (None, Some(facts)) => format!("uid {}", facts.uid),
        (None, None) => "unknown".to_owned(),
    }
}

fn callee_name(callee: &Callee) -> String {
    let host = || callee.outside.clone().or_else(|| callee.host.clone());
    let named = callee.id.as_ref().map(|id| short(id.as_str())).or_else(host);
    named.unwrap_or_else(|| "unknown".to_owned())
}

fn short(id: &str) -> String {
    let path = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    path.map_or(id, |(_, path)| path).to_owned()
}
