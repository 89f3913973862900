//! Calls joined with their ends, in the order of the calls, in bounded memory.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value};

use super::filter::Filter;
use super::view::View;

/// Calls that wait for their ends, at most; the oldest is let go without one.
pub(super) const OPEN_MAX: usize = 10_000;

/// Bytes of records that wait, at most.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The records that matched and wait for those before them.
#[derive(Debug)]
pub(super) struct Join {
    filter: Filter,
    waiting: VecDeque<Waiting>,
    /// Number of the first in `waiting`.
    first: u64,
    /// Calls without an end, by id: their numbers.
    open: BTreeMap<String, u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    line: Vec<u8>,
    end: Option<Vec<u8>>,
    /// The id under which an end is awaited.
    awaits: Option<String>,
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
            waiting: VecDeque::new(),
            first: 0,
            open: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes the next line of the ledger.
    pub(super) fn add(&mut self, line: &[u8]) {
        let Some(view) = View::read(line) else { return };
        if view.kind == "end" && self.join(&view, line) {
            return;
        }
        if !self.filter.admits(&view) {
            return;
        }
        let awaits = view.id.as_deref().filter(|_| view.awaits_end()).map(str::to_owned);
        if let Some(id) = &awaits {
            self.open
                .insert(id.clone(), self.first.saturating_add(self.waiting.len() as u64));
        }
        self.bytes = self.bytes.saturating_add(line.len());
        self.waiting.push_back(Waiting {
            line: line.to_owned(),
            end: None,
            awaits,
        });
    }

    /// Returns the next record that waits for nothing any more.
    pub(super) fn ready(&mut self) -> Option<Value> {
        loop {
            let first = self.waiting.front()?;
            let full = self.open.len() > OPEN_MAX || self.bytes > WAITING_BYTES_MAX;
            if first.awaits.is_some() && !full {
                return None;
            }
            if let Some(record) = self.pop() {
                return Some(record);
            }
        }
    }

    /// Returns the next record, complete or not: there is no more to come.
    pub(super) fn rest(&mut self) -> Option<Value> {
        while !self.waiting.is_empty() {
            if let Some(record) = self.pop() {
                return Some(record);
            }
        }
        None
    }

    /// Gives an end to its call; says whether the call was there.
    fn join(&mut self, end: &View<'_>, line: &[u8]) -> bool {
        let number = end.id.as_deref().and_then(|id| self.open.remove(id));
        let place = number.and_then(|number| usize::try_from(number.checked_sub(self.first)?).ok());
        let Some(call) = place.and_then(|place| self.waiting.get_mut(place)) else {
            return false;
        };
        call.end = Some(line.to_owned());
        call.awaits = None;
        self.bytes = self.bytes.saturating_add(line.len());
        true
    }

    /// Takes the first record; `None` if its status does not match.
    fn pop(&mut self) -> Option<Value> {
        let first = self.waiting.pop_front()?;
        let number = self.first;
        self.first = number.saturating_add(1);
        let end_bytes = first.end.as_ref().map_or(0, Vec::len);
        self.bytes = self.bytes.saturating_sub(first.line.len().saturating_add(end_bytes));
        if let Some(id) = &first.awaits
            && self.open.get(id) == Some(&number)
        {
            self.open.remove(id);
        }
        let mut record: Map<String, Value> = serde_json::from_slice(&first.line).ok()?;
        if let Some(end) = first.end.and_then(|end| serde_json::from_slice(&end).ok()) {
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
        assert_eq!((join.bytes, join.open.len()), (0, 0), "what was let go is forgotten");
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
