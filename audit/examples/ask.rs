//! Asks a ledger, to measure what that costs: the records that match, or with keys how many there are of each.
//!
//! `cargo run --release -p botmesh-audit --example ask -- LEDGER FILTER [write|read|ignore|scan|verify] [KEY,…]`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example that fails by panicking and measures real time"
)]

use std::path::Path;
use std::time::Instant;

use audit::query::{self, Counts, Indexes, Key};
use spiffe::time::Timestamp;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [ledger, filter, way, keys @ ..] = arguments.as_slice() else {
        println!("LEDGER FILTER write|read|ignore|scan|verify [KEY,…]");
        return;
    };
    let begin = Instant::now();
    let dir = Path::new(ledger);
    if way == "verify" {
        let records = audit::verify(dir, None).unwrap().records;
        println!("{records} records verified in {:?}", begin.elapsed());
        return;
    }
    let filter = query::parse(filter, Timestamp::from_rfc3339("2026-11-29T00:00:00Z").unwrap()).unwrap();
    let indexes = match way.as_str() {
        "write" => Indexes::Write,
        "read" => Indexes::Read,
        _ => Indexes::Ignore,
    };
    if let [keys] = keys {
        let keys: Vec<Key> = keys.split(',').map(|key| Key::parse(key).unwrap()).collect();
        let mut counts = Counts::by(&keys);
        counts.add(dir, &filter, indexes).unwrap();
        let groups = counts.groups();
        for group in groups.iter().take(3) {
            println!("{:?} {}", group.values, group.count);
        }
        println!("{} groups in {:?}", groups.len(), begin.elapsed());
        return;
    }
    let found = if way == "scan" {
        query::scan(dir, filter, None).unwrap()
    } else {
        query::run(dir, filter, None, indexes).unwrap()
    };
    let count = found.map(Result::unwrap).count();
    println!("{count} records in {:?}", begin.elapsed());
}
