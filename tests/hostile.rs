//! Requests that two readers could read differently: each entry of two lists, by every way in, in front of a callee that
//! keeps the exact bytes it got. `tests/hostile/README.md` says what an entry is.

mod attack;
mod frames;
mod h2spec;
mod hop;
mod reading;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::foreign::{joined, sni};
use crate::spine::{CHECKOUT, ORDERS};
use crate::support::join::write_pem;
use crate::support::{Mesh, PYTHON, Process, Setup, as_user, eventually, free_port, http_get, root_or_skip};
pub(crate) use frames::Flood;
use reading::Message;

/// The letters of `{aaa}`.
const LETTERS: usize = 40_000;

const CALLEE: &str = "orders.prod.mesh";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    section: String,
    about: String,
    bytes: Option<String>,
    frames: Option<Value>,
    hop: Option<Value>,
    must: Value,
}

/// What an entry's request is to be at the callee.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arrival {
    line: String,
    body: String,
    #[serde(default)]
    once: BTreeMap<String, String>,
    #[serde(default)]
    lacks: Vec<String>,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    Cut,
    Arrived,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Cut => "cut off",
            Self::Arrived => "arrived, one reading",
        })
    }
}

fn list(text: &str) -> Vec<Entry> {
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    lines.collect()
}

/// A second request, which no rule allows and no answer of the callee would tell from the first.
fn suffix(label: &str) -> String {
    format!("GET /smuggled/{label} HTTP/1.1\r\nHost: {CALLEE}\r\n\r\n")
}

/// Puts in what an entry leaves open.
fn filled(text: &str, label: &str, scheme: &str) -> String {
    let suffix = suffix(label);
    text.replace("{suffix_length}", &suffix.len().to_string())
        .replace("{suffix_hex}", &format!("{:x}", suffix.len()))
        .replace("{suffix}", &suffix)
        .replace("{scheme}", scheme)
        .replace("{aaa}", &"a".repeat(LETTERS))
        .replace("{id}", label)
}

/// The same in every text of a value.
fn filled_in(value: &Value, label: &str, scheme: &str) -> Value {
    match value {
        Value::String(text) => filled(text, label, scheme).into(),
        Value::Array(items) => items.iter().map(|item| filled_in(item, label, scheme)).collect(),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, item)| (key.clone(), filled_in(item, label, scheme)));
            Value::Object(pairs.collect())
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other.clone(),
    }
}

/// One bot that sends what it is told.
pub(crate) struct Sender {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Sender {
    pub(crate) fn new() -> Self {
        let mut command = as_user(PYTHON, CHECKOUT);
        command.args(["-c", include_str!("support/raw.py")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    pub(crate) fn order(&mut self, order: &Value) -> Value {
        writeln!(self.to, "{order}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{order}: {e}: {line:?}"))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A mesh of two hosts whose callee keeps what it gets, and every way to it.
struct World {
    mesh: Mesh,
    keeper: Process,
    ways: Vec<(&'static str, Value)>,
}

impl World {
    fn start(alpn: &str) -> Self {
        Self::of(&["web-1", "web-2"], "", alpn)
    }

    /// The callee is on the last host.
    fn of(hosts: &[&str], extra: &str, alpn: &str) -> Self {
        let mesh = Mesh::start(&Setup {
            hosts,
            extra,
            ..Setup::default()
        });
        let last = hosts.last().expect("a host");
        let port = free_port();
        let mut command = as_user(PYTHON, ORDERS);
        command.args(["-c", include_str!("support/keeper.py"), &port.to_string()]);
        let keeper = Process::spawn(command, mesh.dir().join("keeper.log"));
        eventually("the callee to listen", || keeper.log().contains("ready").then_some(()));
        mesh.apply(&format!(
            "version: 1\ntrust_domain: acme.internal\nbots:\n\
             \x20 prod/checkout: {{owner: qa@acme.internal, hosts: [web-1, edge-1], attest: {{uid: {CHECKOUT}}}}}\n\
             \x20 prod/orders: {{owner: qa@acme.internal, hosts: [{last}], attest: {{uid: {ORDERS}}}, serve: {{http: {port}}}}}\n\
             allow:\n  - {{id: all, from: prod/checkout, to: prod/orders, http: [\"* /orders/**\"]}}\n"
        ));
        let edge = joined(&mesh);
        let (chain, key) = edge.issue("prod/checkout").expect("edge-1 may claim prod/checkout");
        let pem = write_pem(mesh.dir(), "edge", &chain, &key);
        let (host, peer) = (mesh.host("web-1"), mesh.host(last));
        let ways = vec![
            ("socket", json!({"at": host.bot_socket()})),
            ("port", json!({"at": host.bot_tcp()})),
            (
                "tunnel",
                json!({"at": host.bot_tcp(), "tunnel": format!("{CALLEE}:80")}),
            ),
            (
                "mesh",
                json!({"at": format!("127.0.0.1:{}", peer.ports.mesh),
                       "tls": {"name": sni("prod/orders"), "cert": pem.chain, "key": pem.key, "alpn": alpn}}),
            ),
        ];
        Self { mesh, keeper, ways }
    }

    /// Ends the proxies, so that nothing more can come, and reads what the callee got, by the entry and way that it names.
    /// What could be read otherwise comes beside it.
    fn arrived(&mut self) -> (BTreeMap<String, Vec<Message>>, Vec<String>) {
        for host in self.mesh.hosts.values_mut() {
            host.process.kill();
        }
        let keeper = &self.keeper;
        let log = eventually("the callee's connections to end", || {
            let log = keeper.log();
            let count = |start: &str| log.lines().filter(|line| line.starts_with(start)).count();
            (count("open") == count("bytes")).then_some(log)
        });
        let (mut all, mut wrong) = (BTreeMap::<String, Vec<Message>>::new(), Vec::new());
        for hex in log.lines().filter_map(|line| line.strip_prefix("bytes ")) {
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
                .collect();
            let (messages, plain) = reading::messages(&bytes);
            wrong.extend(plain.err());
            for message in messages {
                let label = message.target().split(['/', '?']).nth(2).unwrap_or_default().to_owned();
                if message.target().contains("smuggled") {
                    wrong.push(format!("a hidden request: {message:?}"));
                }
                all.entry(label).or_default().push(message);
            }
        }
        (all, wrong)
    }
}

/// How often proxies refused a call, for whatever reason.
fn counted(mesh: &Mesh) -> u64 {
    let of = |host: &crate::support::Host| {
        let (_, text) = http_get(host.ports.metrics, "/metrics").expect("metrics");
        let lines = text.lines().filter(|line| line.starts_with("botmesh_denied_total{"));
        let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        counts.sum::<u64>()
    };
    mesh.hosts.values().map(of).sum()
}

fn status_of(told: &Value) -> u64 {
    told["status"].as_u64().unwrap_or(0)
}

/// Says what became of an entry, by the answer and by what arrived.
fn fate(told: &Value, came: &[Message]) -> Result<Fate, String> {
    let status = status_of(told);
    if status >= 500 {
        return Err("somebody else was blamed for it".to_owned());
    }
    if told["hung"] == true {
        return Err("no answer and no end came".to_owned());
    }
    match (came, status) {
        ([], 200..300) => Err("an answer of 2xx to what never arrived".to_owned()),
        ([], _) => Ok(Fate::Refused),
        ([one], 200..300) if one.whole => Ok(Fate::Arrived),
        ([one], 0 | 400..) if !one.whole => Ok(Fate::Cut),
        _ => Err("what arrived and the answer do not go together".to_owned()),
    }
}

/// Compares what became of an entry with what must.
fn judge(entry: &Entry, label: &str, told: &Value, came: &[Message]) -> Result<Fate, String> {
    let fate = fate(told, came)?;
    match entry.must.as_str() {
        Some("refused") if fate == Fate::Refused => {}
        Some("cut") if fate != Fate::Arrived => {}
        Some("ended") if fate != Fate::Arrived && told["ended"] == true && status_of(told) == 0 => {}
        Some("either") => {}
        Some(_) => return Err(format!("it {fate}, and must be {}", entry.must)),
        None => {
            let must: Arrival = serde_json::from_value(filled_in(&entry.must, label, "")).unwrap();
            let [one] = came else {
                return Err(format!("it {fate}, and must arrive"));
            };
            let once = must
                .once
                .iter()
                .all(|(name, value)| one.values(name) == [value.as_str()]);
            let lacks = must.lacks.iter().all(|name| one.values(name).is_empty());
            if one.line != must.line || one.body != must.body.as_bytes() || !once || !lacks {
                return Err("it arrived as another request".to_owned());
            }
        }
    }
    Ok(fate)
}

/// Sends every entry by every way, and prints and judges what became of each.
fn try_all(entries: &[Entry], world: &mut World, order: impl Fn(&Entry, &str, &str) -> Value) {
    try_by(entries, world, &["socket", "port", "tunnel", "mesh"], order, |_| ());
}

/// The same by some ways; `count` looks at the mesh when all was sent.
fn try_by<T>(
    entries: &[Entry],
    world: &mut World,
    by: &[&str],
    order: impl Fn(&Entry, &str, &str) -> Value,
    count: impl FnOnce(&Mesh) -> T,
) -> T {
    let (mut sender, mut told) = (Sender::new(), BTreeMap::new());
    world.ways.retain(|(way, _)| by.contains(way));
    for (way, place) in &world.ways {
        let scheme = if *way == "mesh" { "https" } else { "http" };
        for entry in entries {
            let label = format!("{}.{way}", entry.id);
            let mut order = order(entry, &label, scheme);
            order
                .as_object_mut()
                .unwrap()
                .extend(place.as_object().unwrap().clone());
            told.insert(label, sender.order(&order));
        }
    }
    let (refusals, seen) = (counted(&world.mesh), count(&world.mesh));
    let (arrived, mut wrong) = world.arrived();
    let mut counts = BTreeMap::<String, usize>::new();
    for entry in entries {
        let mut row = Vec::new();
        for (way, _) in &world.ways {
            let label = format!("{}.{way}", entry.id);
            let came = arrived.get(&label).map_or(&[][..], Vec::as_slice);
            let fate = judge(entry, &label, &told[&label], came);
            row.push(fate.as_ref().map_or_else(|_| "WRONG".to_owned(), ToString::to_string));
            *counts.entry(row.last().unwrap().clone()).or_default() += 1;
            if let Err(why) = fate {
                wrong.push(format!(
                    "{label}: {}: {why}\n  told {}\n  came {came:?}",
                    entry.about, told[&label]
                ));
            }
        }
        row.dedup();
        println!(
            "{:7} {:38} {:62} {}",
            entry.section,
            entry.id,
            entry.about,
            row.join(" | ")
        );
    }
    println!(
        "{} entries by {} ways: {counts:?}; {refusals} refusals counted",
        entries.len(),
        world.ways.len()
    );
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    for label in arrived.keys() {
        assert!(told.contains_key(label), "somebody else's request arrived: {label}");
    }
    assert!(refusals > 0, "refusals are counted");
    seen
}

#[test]
fn no_request_of_rfc_9112_that_could_be_read_in_two_ways_arrives() {
    if !root_or_skip("hostile HTTP/1.1") {
        return;
    }
    let entries = list(include_str!("hostile/http1.jsonl"));
    try_all(&entries, &mut World::start("http/1.1"), http1);
}

/// The bytes of an entry of HTTP/1.1, with the second request in them or after them.
fn http1(entry: &Entry, label: &str, scheme: &str) -> Value {
    let text = entry.bytes.as_ref().unwrap();
    let mut bytes = filled(text, label, scheme);
    if !text.contains("{suffix}") {
        bytes.push_str(&suffix(label));
    }
    json!({"bytes": bytes})
}

/// `BOTMESH_CORPUS` names a file of entries that others wrote, in the form of ours.
#[test]
fn requests_of_other_peoples_suites_arrive_with_one_reading_or_not_at_all() {
    let Ok(corpus) = std::env::var("BOTMESH_CORPUS") else {
        return;
    };
    let entries = list(&std::fs::read_to_string(corpus).expect("a file"));
    try_all(&entries, &mut World::start("http/1.1"), http1);
}

#[test]
fn no_request_of_rfc_9113_that_could_be_read_in_two_ways_arrives() {
    if !root_or_skip("hostile HTTP/2") {
        return;
    }
    let entries = list(include_str!("hostile/http2.jsonl"));
    try_all(&entries, &mut World::start("h2"), |entry, label, scheme| {
        let after = [
            (":method", "GET"),
            (":scheme", scheme),
            (":authority", CALLEE),
            (":path", &format!("/smuggled/{label}")),
        ];
        json!({"frames": filled_in(entry.frames.as_ref().unwrap(), label, scheme), "after": after})
    });
}
