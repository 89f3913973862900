//! Calls joined with their ends, in the order of the calls, in bounded memory.

use serde_json::{Map, Value};

use super::filter::Filter;
use super::pairs::Pairs;
use super::view::View;

/// The records that matched and wait for those before them.
#[derive(Debug)]
pub(super) struct Join {
    filter: Filter,
    pairs: Pairs<String, Vec<u8>>,
}

/// What an end adds to its call.
const END_KEYS: [&str; 8] = [
    "status",
    "grpc_status",
    "request_bytes",
    "response_bytes",
    "duration_us",
    "upstream_us",
    "tries",
    "outcome",
];

impl Join {
    pub(super) const fn new(filter: Filter) -> Self {
        Self {
            filter,
            pairs: Pairs::new(),
        }
    }

    /// Takes the next line of the ledger, or of those that can matter.
    pub(super) fn add(&mut self, line: &[u8]) {
        let Some(view) = View::read(line) else { return };
        if view.is_end() && self.end(&view, line) {
            return;
        }
        if !self.filter.admits(&view) {
            return;
        }
        let awaits = view.id.as_deref().filter(|_| view.awaits_end()).map(str::to_owned);
        self.pairs.add(line.to_owned(), line.len(), awaits);
    }

    fn end(&mut self, end: &View<'_>, line: &[u8]) -> bool {
        let id = end.id.as_deref();
        id.is_some_and(|id| self.pairs.end(id, line.len(), || line.to_owned()))
    }

    /// Returns the next record that waits for nothing any more.
    pub(super) fn ready(&mut self) -> Option<Value> {
        loop {
            let (line, end) = self.pairs.ready()?;
            if let Some(record) = self.joined(&line, end) {
                return Some(record);
            }
        }
    }

    /// Returns the next record, complete or not: there is no more to come.
    pub(super) fn rest(&mut self) -> Option<Value> {
        loop {
            let (line, end) = self.pairs.rest()?;
            if let Some(record) = self.joined(&line, end) {
                return Some(record);
            }
        }
    }

    /// Returns the ids of the calls that wait for their ends.
    pub(super) fn open(&self) -> impl Iterator<Item = &String> {
        self.pairs.open()
    }

    /// Joins the two; `None` if the status does not match.
    fn joined(&self, line: &[u8], end: Option<Vec<u8>>) -> Option<Value> {
        let mut record: Map<String, Value> = serde_json::from_slice(line).ok()?;
        if let Some(end) = end.and_then(|end| serde_json::from_slice(&end).ok()) {
            merge(&mut record, end);
        }
        let status = record.get("status").and_then(Value::as_u64);
        let status = status.and_then(|status| u16::try_from(status).ok());
        self.filter.admits_status(status).then_some(Value::Object(record))
    }
}

fn merge(call: &mut Map<String, Value>, mut end: Map<String, Value>) {
    for key in END_KEYS {
        if let Some(value) = end.remove(key) {
            call.insert(key.to_owned(), value);
        }
    }
    if let Some(time) = end.remove("time") {
        call.insert("ended".to_owned(), time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse;
    use spiffe::time::Timestamp;

    fn join(filter: &str) -> Join {
        Join::new(parse(filter, Timestamp::from_unix_millis(0)).unwrap())
    }

    fn call(id: &str, verdict: &str) -> Vec<u8> {
        format!(r#"{{"kind":"call","id":"{id}","verdict":"{verdict}"}}"#).into_bytes()
    }

    fn end(id: &str, status: u16) -> Vec<u8> {
        format!(r#"{{"kind":"end","id":"{id}","time":"t","status":{status}}}"#).into_bytes()
    }

    fn rest(mut join: Join) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(record) = join.ready().or_else(|| join.rest()) {
            ids.push(format!("{}:{}", record["id"].as_str().unwrap(), record["status"]));
        }
        assert!(join.pairs.is_empty(), "what was let go is forgotten");
        ids
    }

    #[test]
    fn a_call_waits_for_its_end_and_those_behind_it_wait_too() {
        let mut join = join("");
        join.add(&call("a", "allow"));
        join.add(&call("b", "deny"));
        assert_eq!(join.ready(), None);
        join.add(&end("a", 200));
        assert_eq!(join.ready().unwrap()["ended"], "t");
        assert_eq!(join.ready().unwrap()["id"], "b");
        assert_eq!(join.ready(), None);
        assert_eq!(rest(join), [""; 0]);
    }

    #[test]
    fn a_status_is_asked_of_the_joined_call() {
        let mut join = join("status=503");
        for line in [
            call("a", "allow"),
            call("b", "allow"),
            end("b", 503),
            end("a", 200),
            call("c", "allow"),
        ] {
            join.add(&line);
        }
        assert_eq!(rest(join), ["b:503"]);
    }

    #[test]
    fn an_id_that_comes_twice_takes_its_ends_one_by_one() {
        let mut join = join("");
        for line in [call("a", "allow"), call("a", "allow"), end("a", 200), end("a", 201)] {
            join.add(&line);
        }
        assert_eq!(rest(join), ["a:null", "a:200", "a:201"]);
    }

    #[test]
    fn lines_that_are_no_records_are_passed_over() {
        let mut join = join("");
        for line in [&b"{"[..], b"[]", b"null"] {
            join.add(line);
        }
        assert_eq!(rest(join), [""; 0]);
    }

    #[test]
    fn records_that_wait_are_bounded_by_their_bytes() {
        let mut join = join("");
        join.add(&call("a", "allow"));
        let long = format!(r#"{{"kind":"x","id":"{}"}}"#, "y".repeat(30_000));
        let mut added = 0;
        while join.ready().is_none() {
            join.add(long.as_bytes());
            added += 1;
        }
        assert!((2000..2300).contains(&added), "{added}");
    }
}
