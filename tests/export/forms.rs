//! OCSF in files, checked against the published schema; and OpenTelemetry's own collector, cut off for a minute.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use audit::{
    Actor, CallRecord, Callee, Direction, EndRecord, EventKind, EventRecord, Ledger, Party, Protocol, Verdict,
};
use serde_json::Value;
use spiffe::id::SpiffeId;
use spiffe::selector::Facts;
use spiffe::time::Clock;

use super::collector::Taken;
use super::{Place, all_came, call, id, told, write};
use crate::support::{Process, both, botmesh, eventually, eventually_within, free_port, ok, run};

/// Something of each kind, by way of the ledger.
fn all_sorts(ledger: &Ledger) {
    for kind in EventKind::ALL {
        let event = EventRecord {
            kind: *kind,
            time: Clock::system().now(),
            actor: "operator:root".to_owned(),
            subject: "prod/checkout".to_owned(),
            detail: [("alert".to_owned(), "key_seen".into())].into(),
        };
        // An epoch that did not begin would be one to whoever reads on.
        if *kind != EventKind::EpochBegun {
            ledger.event(&event).unwrap();
        }
    }
    for (number, protocol) in (1000..).zip([Protocol::Http, Protocol::Grpc, Protocol::Tcp, Protocol::Tls]) {
        let mut call = CallRecord {
            protocol,
            ..call(number)
        };
        if !protocol.has_requests() {
            (call.method, call.path, call.port) = (String::new(), String::new(), Some(5432));
        }
        let _receipt = ledger.call(&call).unwrap();
        ledger.end(&EndRecord {
            id: id(number),
            time: Clock::system().now(),
            status: protocol.has_requests().then_some(200),
            grpc_status: None,
            request_bytes: 1,
            response_bytes: 2,
            duration_us: 3000,
            upstream_us: 2000,
            tries: 1,
            address: "192.0.2.1:443".parse().ok(),
            outcome: "done".to_owned(),
        });
        // More than are recorded one by one.
        for _ in 0..60 {
            let refused = CallRecord {
                verdict: Verdict::Deny,
                reason: Some("no_rule".to_owned()),
                rule: None,
                ..call.clone()
            };
            assert!(ledger.deny(&refused).is_ok());
        }
    }
    ledger.stranger("192.0.2.7".parse().unwrap(), "handshake");
    calls_of_all_sorts(ledger);
}

fn calls_of_all_sorts(ledger: &Ledger) {
    let bot = |name: &str| SpiffeId::parse(&format!("spiffe://acme.internal/{name}")).ok();
    let facts = Facts {
        user: Some("checkout".to_owned()),
        exe: Some("/srv/checkout".to_owned()),
        ..Facts::new(4711, 1001, 1001)
    };
    let own = CallRecord {
        from: Party {
            id: bot("prod/checkout"),
            facts: Some(Arc::new(facts)),
            ..Party::default()
        },
        ..call(2000)
    };
    let callee = |id, outside: Option<&str>, host: Option<&str>| Callee {
        id,
        outside: outside.map(str::to_owned),
        host: host.map(str::to_owned),
        ..Callee::default()
    };
    let mut calls = Vec::new();
    let mut add = |change: &dyn Fn(&mut CallRecord)| {
        let mut call = own.clone();
        change(&mut call);
        calls.push(call);
    };
    Actor::ALL.iter().for_each(|actor| add(&|call| call.actor = *actor));
    for method in ["POST", "PUT", "PATCH", "DELETE", "HEAD", "PROPFIND"] {
        add(&|call| call.method = method.to_owned());
    }
    for verdict in Verdict::ALL {
        add(&|call| (call.verdict, call.direction) = (*verdict, Direction::In));
    }
    add(&|call| (call.protocol, call.path) = (Protocol::Postgres, "orders".to_owned()));
    add(&|call| call.to = callee(bot("prod/orders"), None, None));
    add(&|call| call.to = callee(None, Some("https://api.example.com"), None));
    add(&|call| call.to = callee(None, None, Some("nobody\u{1b}.mesh")));
    for call in calls {
        match call.verdict {
            Verdict::Deny => assert!(ledger.deny(&call).is_ok()),
            Verdict::Allow | Verdict::Audit => assert!(ledger.call(&call).is_ok()),
        }
    }
}

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_events(events: &[Value]) -> Vec<Taken> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let taken = events.iter().map(|event| Taken {
        uid: text(&event["metadata"]["uid"]),
        line: text(&event["raw_data"]),
        event: text(&event["type_name"]),
        trace: Vec::new(),
    });
    taken.collect()
}

#[test]
fn events_of_ocsf_are_added_to_a_file_and_go_on_there() {
    let place = Place::filled(100);
    let file = place.file("events.jsonl");
    let to = file.to_str().unwrap().to_owned();
    let out = run(&mut place.export(&to));
    assert!(out.status.success(), "{}", both(&out));
    let mut text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 100);
    // It was ended in the middle of a line, and had not kept its place yet.
    text.push_str("{\"metadata\":{");
    fs::write(&file, text).unwrap();
    let ledger = place.open();
    write(&ledger, 100..120);
    ledger.shutdown();
    let out = run(place.export(&to).args(["--format", "ocsf"]));
    assert!(out.status.success(), "{}", both(&out));
    assert!(
        told(&out).contains("cut 13 bytes of an unfinished line"),
        "{}",
        told(&out)
    );
    let found = events(&fs::read_to_string(&file).unwrap());
    assert_eq!(all_came(&of_events(&found), &place.lines()), 0);
    let out = ok(botmesh()
        .args(["audit", "export", "--filter", "path=/orders/7"])
        .arg(place.ledger()));
    let found = events(&out);
    assert_eq!(
        (found.len(), found[0]["api"]["operation"].as_str()),
        (1, Some("GET /orders/7"))
    );
    let later = ok(botmesh()
        .args(["audit", "export", "--since", "2099-01-01T00:00:00Z"])
        .arg(place.ledger()));
    assert_eq!(later, "");
}

#[test]
fn every_kind_of_record_is_an_event_of_the_published_schema() {
    let place = Place::new();
    let ledger = place.open();
    all_sorts(&ledger);
    ledger.shutdown();
    let text = ok(botmesh().args(["audit", "export"]).arg(place.ledger()));
    let found = events(&text);
    assert_eq!(all_came(&of_events(&found), &place.lines()), 0);
    let classes: BTreeSet<u64> = found.iter().map(|event| event["class_uid"].as_u64().unwrap()).collect();
    assert_eq!(
        classes.into_iter().collect::<Vec<_>>(),
        [1008, 2004, 4001, 4002, 6002, 6003]
    );
    let Some(python) = std::env::var_os("BOTMESH_OCSF") else {
        println!("skipped: events by the published schema: BOTMESH_OCSF names no Python");
        return;
    };
    let file = place.file("events.jsonl");
    fs::write(&file, text).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/ocsf.py");
    print!("{}", ok(Command::new(python).arg(script).arg(file)));
}

/// A link that can be cut: the answers under way are lost, their connections end, and new ones find nobody.
struct Link {
    port: u16,
    whole: Arc<AtomicBool>,
}

impl Link {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Self {
            port: listener.local_addr().unwrap().port(),
            whole: Arc::new(AtomicBool::new(true)),
        };
        let whole = Arc::clone(&link.whole);
        std::thread::spawn(move || {
            for from in listener.incoming() {
                let from = from.unwrap();
                if !whole.load(Ordering::Acquire) {
                    continue;
                }
                let to = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let ends = || (from.try_clone().unwrap(), to.try_clone().unwrap());
                let (asks, answers) = (ends(), ends());
                let whole = Arc::clone(&whole);
                std::thread::spawn(move || carry(asks.0, asks.1, || true));
                std::thread::spawn(move || carry(answers.1, answers.0, || whole.load(Ordering::Acquire)));
            }
        });
        link
    }

    fn set(&self, whole: bool) {
        self.whole.store(whole, Ordering::Release);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, goes_on: impl Fn() -> bool) {
    let mut bytes = [0; 16_384];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if !goes_on() || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        end.shutdown(Shutdown::Both).ok();
    }
}

/// What the collector wrote into its file: one request a line.
fn collected(file: &std::path::Path) -> Vec<Taken> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut taken = Vec::new();
    for request in whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        for record in request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
            .as_array()
            .unwrap()
        {
            let attributes = record["attributes"].as_array().unwrap();
            let uid = attributes.iter().find(|one| one["key"] == "log.record.uid").unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            taken.push(Taken {
                uid: text(&uid["value"]["stringValue"]),
                line: text(&record["body"]["stringValue"]),
                event: text(&record["eventName"]),
                trace: record["traceId"].as_str().unwrap_or_default().as_bytes().to_vec(),
            });
        }
    }
    taken
}

#[test]
fn opentelemetrys_own_collector_is_cut_off_for_a_minute_and_gets_all() {
    let Some(binary) = std::env::var_os("BOTMESH_OTELCOL") else {
        println!("skipped: a collector of OpenTelemetry: BOTMESH_OTELCOL names no binary");
        return;
    };
    let place = Place::filled(5000);
    let (port, out) = (free_port(), place.file("collected.jsonl"));
    let config = format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: \"127.0.0.1:{port}\"}}}}}}}}\n\
         exporters: {{file: {{path: {}, flush_interval: 100ms}}}}\n\
         service: {{pipelines: {{logs: {{receivers: [otlp], exporters: [file]}}}}, telemetry: {{metrics: {{level: none}}}}}}\n",
        out.display()
    );
    fs::write(place.file("otelcol.yaml"), config).unwrap();
    let mut command = Command::new(binary);
    command.arg("--config").arg(place.file("otelcol.yaml"));
    let _otelcol = Process::spawn(command, place.file("otelcol.log"));
    eventually("the collector", || TcpStream::connect(("127.0.0.1", port)).ok());
    let link = Link::to(port);
    let mut export = place.follow(
        &format!("otlp+http://127.0.0.1:{}", link.port),
        &["--batch-records", "200"],
    );
    eventually("the first records", || (collected(&out).len() > 1000).then_some(()));
    link.set(false);
    let cut = Instant::now();
    let ledger = place.open();
    write(&ledger, 5000..8000);
    ledger.shutdown();
    eventually_within(Duration::from_secs(90), "a minute", || {
        (cut.elapsed() > Duration::from_secs(60)).then_some(())
    });
    let (seconds, before) = (cut.elapsed().as_secs(), collected(&out).len());
    link.set(true);
    let lines = place.lines();
    eventually_within(Duration::from_secs(90), "all of it", || {
        let names: BTreeSet<String> = collected(&out).into_iter().map(|one| one.uid).collect();
        (names.len() == lines.len()).then_some(())
    });
    eventually("the place", || (place.cursor()["record"] == 7999).then_some(()));
    assert!(export.terminate().success(), "{}", export.log());
    let taken = collected(&out);
    let twice = all_came(&taken, &lines);
    assert!(before < 5000 && twice > 0, "{before} came before, {twice} came twice");
    println!(
        "{} log records came, of {} records, {twice} of them twice under one id; the link was cut after {before} for {seconds} s\n{}",
        taken.len(),
        lines.len(),
        export.log()
    );
}
