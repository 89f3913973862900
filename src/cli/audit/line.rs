//! A record as one line that people read.

use serde_json::Value;

use crate::output::{bold, dim, green, printable, red};

/// Writes a record as one line. What came from callers is escaped.
pub(crate) fn line(record: &Value) -> String {
    let kind = text(record, "kind");
    let told = match kind.as_str() {
        "call" => call(record),
        "end" => format!("{:<6} {} {}", "end", number(record, "status"), text(record, "outcome")),
        "refusals" => format!(
            "{} {}× {} {}",
            red("DENY "),
            number(record, "count"),
            text(record, "reason"),
            from(record)
        ),
        "strangers" => format!(
            "{} {}× {} from {}",
            red("DENY "),
            number(record, "count"),
            text(record, "reason"),
            or(text(record, "source"), "many sources")
        ),
        _ => format!(
            "{kind:<6} {} {}  {}",
            text(record, "actor"),
            text(record, "subject"),
            detail(record)
        ),
    };
    let id = text(record, "id");
    let id = if id.is_empty() { id } else { dim(&format!("  {id}")) };
    format!("{}  {}{id}", text(record, "time"), told.trim_end())
}

fn call(record: &Value) -> String {
    let verdict = match text(record, "verdict").as_str() {
        "allow" => green("ALLOW"),
        "audit" => bold("AUDIT"),
        _ => red("DENY "),
    };
    let to = record
        .pointer("/to/id")
        .or_else(|| record.pointer("/to/outside"))
        .or_else(|| record.pointer("/to/host"))
        .and_then(Value::as_str);
    let mut line = format!(
        "{verdict} {:<3} {} → {}  {}",
        text(record, "direction"),
        from(record),
        to.map_or_else(|| "?".to_owned(), short),
        what(record),
    );
    for field in ["reason", "rule", "hop", "tls"] {
        let value = text(record, field);
        if !value.is_empty() {
            line.push_str("  ");
            line.push_str(&value);
        }
    }
    let status = number(record, "status");
    if !status.is_empty() {
        line.push_str(&format!("  {status}"));
    }
    line
}

/// The request, or the protocol of a connection that is none and its database or port.
fn what(record: &Value) -> String {
    let (protocol, port) = (text(record, "protocol"), number(record, "port"));
    if port.is_empty() {
        return format!("{} {}", text(record, "method"), text(record, "path"));
    }
    let database = text(record, "path");
    if !database.is_empty() {
        return format!("{protocol} {database}");
    }
    format!("{protocol} {port}")
}

/// The caller: its name, else the user whose process it is.
fn from(record: &Value) -> String {
    if let Some(id) = record.pointer("/from/id").and_then(Value::as_str) {
        return short(id);
    }
    match record.pointer("/from/uid").and_then(Value::as_u64) {
        Some(uid) => format!("uid {uid}"),
        None => "?".to_owned(),
    }
}

/// A SPIFFE ID without its scheme and trust domain, as rules name it.
pub(super) fn short(id: &str) -> String {
    let path = id
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
        .map(|(_, path)| path);
    printable(path.unwrap_or(id))
}

fn text(record: &Value, field: &str) -> String {
    printable(record.get(field).and_then(Value::as_str).unwrap_or_default())
}

fn number(record: &Value, field: &str) -> String {
    record
        .get(field)
        .and_then(Value::as_u64)
        .map(|number| number.to_string())
        .unwrap_or_default()
}

fn or(text: String, other: &str) -> String {
    if text.is_empty() { other.to_owned() } else { text }
}

fn detail(record: &Value) -> String {
    let Some(fields) = record.get("detail").and_then(Value::as_object) else {
        return String::new();
    };
    let field = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name}={}", printable(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            format!("{name}={}", printable(&value.to_string()))
        }
    };
    fields.iter().map(field).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(record: &Value) -> String {
        anstream::adapter::strip_str(&line(record)).to_string()
    }

    #[test]
    fn a_call_says_who_what_and_why() {
        let record = json!({
            "kind": "call", "id": "0190", "time": "2026-11-22T12:00:00.000Z", "direction": "out", "verdict": "deny",
            "from": {"id": "spiffe://acme.internal/prod/checkout"}, "to": {"id": "spiffe://acme.internal/prod/orders"},
            "method": "DELETE", "path": "/orders/17", "reason": "no_rule",
        });
        assert_eq!(
            plain(&record),
            "2026-11-22T12:00:00.000Z  DENY  out prod/checkout → prod/orders  DELETE /orders/17  no_rule  0190"
        );
    }

    #[test]
    fn a_connection_says_its_protocol_and_its_port() {
        let record = json!({
            "kind": "call", "id": "0190", "time": "t", "direction": "out", "verdict": "allow",
            "from": {"id": "spiffe://acme.internal/prod/orders"}, "to": {"outside": "tls://www.news.example"},
            "protocol": "tls", "port": 443, "rule": "news", "hop": "outside",
        });
        assert_eq!(
            plain(&record),
            "t  ALLOW out prod/orders → tls://www.news.example  tls 443  news  outside  0190"
        );
    }

    #[test]
    fn what_a_stranger_named_cannot_move_the_cursor() {
        let record = json!({"kind": "call", "verdict": "deny", "to": {"host": "\u{1b}[2J"}, "path": "/\u{7}"});
        assert!(!plain(&record).chars().any(char::is_control), "{:?}", plain(&record));
    }
}
