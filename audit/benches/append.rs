//! What a record costs: written in the caller's thread under a short lock, one
//! at a time or by turns, or by a thread of its own that callers wait for.
//!
//! `cargo bench -p botmesh-audit`. The last way lives only here; it is kept
//! so that the choice can be measured again on another machine.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and prints its figures"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use audit::{
    Actor, CallId, CallRecord, Callee, Direction, EndRecord, Hop, Ledger, LedgerConfig, Party, Record, Verdict,
};
use spiffe::id::SpiffeId;
use spiffe::selector::Facts;
use spiffe::time::{Clock, Timestamp};

const RECORDS: u64 = 200_000;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    // `-- turns N` measures that alone, for whoever counts processor time or instructions.
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "turns") {
        let calls = arguments.get(at + 1).and_then(|calls| calls.parse().ok()).unwrap_or(1);
        println!("turns of {calls}: {} ns", turns(&folder.path().join("turns"), calls));
        return;
    }
    let encode = encode();
    println!("encode and hash a call: {encode} ns, {} bytes", line().len());
    for threads in [1, 4, 16] {
        let inline = inline(&folder.path().join(format!("inline-{threads}")), threads, false);
        let ended = self::inline(&folder.path().join(format!("ended-{threads}")), threads, true);
        let channel = channel(&folder.path().join(format!("channel-{threads}")), threads);
        println!(
            "{threads:>2} threads: inline {inline} ns, with its end {ended} ns, writer thread {channel} ns a call"
        );
    }
    for calls in [1, 2, 4, 8, 16] {
        let turns = turns(&folder.path().join(format!("turns-{calls}")), calls);
        println!(" turns of {calls:>2}: {turns} ns a call with its end");
    }
}

fn call() -> CallRecord {
    let id = |bot: &str| Some(SpiffeId::parse(&format!("spiffe://acme.internal/{bot}")).unwrap());
    let facts = Facts {
        user: Some("checkout".to_owned()),
        exe: Some("/srv/checkout/bin/checkout".to_owned()),
        ..Facts::new(4711, 1001, 1001)
    };
    CallRecord {
        actor: Actor::Bot,
        from: Party {
            id: id("prod/checkout"),
            facts: Some(Arc::new(facts)),
            ..Party::default()
        },
        to: Callee {
            id: id("prod/orders"),
            ..Callee::default()
        },
        method: "GET".to_owned(),
        path: "/orders/1742".to_owned(),
        query: vec!["page".to_owned(), "limit".to_owned()],
        verdict: Verdict::Allow,
        rule: Some("checkout-reads-orders".to_owned()),
        epoch: 1,
        revision: 3,
        hop: Some(Hop::Mtls),
        trace: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        ..CallRecord::new(
            CallId::from_bytes([7; 16]),
            Timestamp::from_unix_millis(1_793_872_800_000),
            Direction::Out,
        )
    }
}

fn end() -> EndRecord {
    EndRecord {
        id: CallId::from_bytes([7; 16]),
        time: Timestamp::from_unix_millis(1_793_872_800_020),
        status: Some(200),
        grpc_status: None,
        request_bytes: 0,
        response_bytes: 1024,
        duration_us: 20_000,
        upstream_us: 18_000,
        tries: 1,
        address: None,
        outcome: "done".to_owned(),
    }
}

fn line() -> Vec<u8> {
    Record::Call(Box::new(call())).encode().unwrap()
}

fn encode() -> u64 {
    let record = Record::Call(Box::new(call()));
    let start = Instant::now();
    for _ in 0..RECORDS {
        std::hint::black_box(audit::hash::Hash::leaf(&record.encode().unwrap()));
    }
    each(start.elapsed())
}

fn open(folder: &Path) -> Ledger {
    std::fs::create_dir(folder).unwrap();
    let config = LedgerConfig {
        dir: folder.join("ledger"),
        key_file: folder.join("log.key"),
        origin: "bench".to_owned(),
        sync: Duration::from_millis(100),
        max_bytes: 1 << 40,
        retention: None,
    };
    Ledger::open(config, Clock::system()).unwrap().0
}

fn inline(folder: &Path, threads: u64, with_end: bool) -> u64 {
    let ledger = open(folder);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (call, end) = (call(), end());
                for _ in 0..RECORDS / threads {
                    let _receipt = std::hint::black_box(ledger.call(&call).unwrap());
                    if with_end {
                        ledger.end(&end);
                    }
                }
            });
        }
    });
    let elapsed = start.elapsed();
    ledger.shutdown();
    each(elapsed)
}

/// One thread, as an event loop: calls that are ready together are written together.
fn turns(path: &Path, calls: u64) -> u64 {
    let ledger = open(path);
    let start = Instant::now();
    let (call, end) = (call(), end());
    for _ in 0..RECORDS / calls {
        let staged: Vec<_> = (0..calls).map(|_| ledger.stage(&call).unwrap()).collect();
        ledger.commit();
        for one in staged {
            let _receipt = std::hint::black_box(one.receipt().unwrap().unwrap());
            ledger.end(&end);
        }
    }
    let elapsed = start.elapsed();
    ledger.shutdown();
    each(elapsed)
}

type Job = (Vec<u8>, SyncSender<u64>);

fn channel(path: &Path, threads: u64) -> u64 {
    let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    let (jobs, inbox) = sync_channel::<Job>(1024);
    std::thread::scope(|scope| {
        scope.spawn(move || write_all_that_come(&file, &inbox));
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let jobs = jobs.clone();
                scope.spawn(move || {
                    let record = Record::Call(Box::new(call()));
                    let (answer, answered) = sync_channel(1);
                    for _ in 0..RECORDS / threads {
                        let mut line = record.encode().unwrap();
                        std::hint::black_box(audit::hash::Hash::leaf(&line));
                        line.push(b'\n');
                        jobs.send((line, answer.clone())).unwrap();
                        std::hint::black_box(answered.recv().unwrap());
                    }
                });
            }
        });
        drop(jobs);
        each(start.elapsed())
    })
}

fn write_all_that_come(mut file: &File, inbox: &Receiver<Job>) {
    let mut index = 0;
    while let Ok(first) = inbox.recv() {
        let jobs: Vec<Job> = std::iter::once(first).chain(inbox.try_iter()).collect();
        let lines: Vec<u8> = jobs.iter().flat_map(|(line, _)| line.iter().copied()).collect();
        file.write_all(&lines).unwrap();
        for (_, answer) in jobs {
            answer.send(index).unwrap();
            index += 1;
        }
    }
}

fn each(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos()).unwrap() / RECORDS
}
