//! Fills a ledger as a host with forty bots does in a week, to measure what asking it costs.
//!
//! `cargo run --release -p botmesh-audit --example fill -- FOLDER RECORDS`

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "an example that fails by panicking"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audit::{
    Actor, CallId, CallRecord, Callee, Direction, EndRecord, Hop, Ledger, LedgerConfig, LedgerError, Party, Protocol,
    Recorded, Verdict,
};
use spiffe::id::SpiffeId;
use spiffe::selector::Facts;
use spiffe::svid::Serial;
use spiffe::time::{Clock, Timestamp};

/// The time that the records are of.
const SPAN: u64 = 7 * 24 * 60 * 60 * 1000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap());
    let records: u64 = arguments.next().unwrap().parse().unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let start = Timestamp::from_rfc3339("2026-11-22T00:00:00Z").unwrap();
    let (clock, hand) = Clock::fixed(start);
    let config = LedgerConfig {
        dir: folder.join("ledger"),
        key_file: folder.join("log.key"),
        origin: "acme.internal/host/web-1".to_owned(),
        sync: Duration::from_millis(100),
        max_bytes: 64 << 30,
        retention: None,
    };
    let (ledger, _report) = Ledger::open(config, clock).unwrap();
    let world = World::new();
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let (mut written, mut calls) = (0, 0);
    while written < records {
        let time = start + Duration::from_millis(SPAN * written / records);
        hand.set(time);
        written += world.call(&ledger, &mut dice, calls, time);
        calls += 1;
    }
    ledger.shutdown();
    println!(
        "{written} records of {calls} calls in {}",
        folder.join("ledger").display()
    );
}

struct World {
    bots: Vec<SpiffeId>,
    facts: Vec<Arc<Facts>>,
}

impl World {
    fn new() -> Self {
        let names = [
            "checkout", "orders", "quotes", "support", "backfill", "ledger", "mail", "search",
        ];
        let bots = (0..40).map(|bot| format!("spiffe://acme.internal/prod/{}-{}", names[bot % 8], bot / 8));
        let facts = (0..40).map(|bot: u32| {
            Arc::new(Facts {
                user: Some(format!("bot-{bot}")),
                exe: Some(format!("/srv/bot-{bot}/bin/serve")),
                unit: Some(format!("bot-{bot}.service")),
                ..Facts::new(4000 + bot, 1000 + bot, 1000 + bot)
            })
        });
        Self {
            bots: bots.map(|bot| SpiffeId::parse(&bot).unwrap()).collect(),
            facts: facts.collect(),
        }
    }

    /// Records one call, and returns how many records that made.
    fn call(&self, ledger: &Ledger, dice: &mut Dice, number: u64, time: Timestamp) -> u64 {
        let millis = u64::try_from(time.unix_millis()).unwrap();
        let id = uuid(millis, dice.roll());
        let (from, to) = (dice.of(40), dice.of(40));
        let out = dice.of(2) == 0;
        // Each bot has a new SVID every hour.
        let serial = |bot: usize| Serial::from_bytes(&(1 + millis / 3_600_000 * 100 + bot as u64).to_be_bytes()).ok();
        let mut call = CallRecord {
            actor: Actor::Bot,
            from: Party {
                id: Some(self.bots[from].clone()),
                serial: serial(from),
                facts: out.then(|| Arc::clone(&self.facts[from])),
            },
            to: Callee {
                id: Some(self.bots[to].clone()),
                serial: serial(to),
                ..Callee::default()
            },
            protocol: if dice.of(20) == 0 {
                Protocol::Grpc
            } else {
                Protocol::Http
            },
            method: ["GET", "GET", "GET", "POST", "PUT"][dice.of(5)].to_owned(),
            path: format!("/v1/orders/{}/items/{}", dice.of(1_000_000), dice.of(100)),
            verdict: Verdict::Allow,
            rule: Some(format!("rule-{}", (from * 7 + to) % 120)),
            epoch: 1,
            revision: 3 + number / 500_000,
            hop: Some(Hop::Mtls),
            tls: (!out).then(|| Arc::from("TLSv1.3 X25519MLKEM768")),
            peer_call: (!out).then(|| uuid(millis, dice.roll())),
            trace: Some(format!("{:016x}{:016x}", dice.roll(), dice.roll())),
            ..CallRecord::new(id, time, if out { Direction::Out } else { Direction::In })
        };
        if dice.of(50) == 0 {
            call.verdict = Verdict::Deny;
            call.rule = None;
            call.hop = None;
            call.reason = Some(["no_rule", "no_rule", "quarantined", "rate_limited"][dice.of(4)].to_owned());
            return u64::from(matches!(patient(|| ledger.deny(&call)), Recorded::Written(_)));
        }
        let _receipt = patient(|| ledger.call(&call));
        ledger.end(&EndRecord {
            id,
            time: time + Duration::from_millis(dice.of(200) as u64),
            status: Some([200, 200, 200, 200, 201, 204, 404, 500, 503][dice.of(9)]),
            grpc_status: None,
            request_bytes: dice.of(4096) as u64,
            response_bytes: dice.of(65_536) as u64,
            duration_us: dice.of(200_000) as u64,
            upstream_us: dice.of(100_000) as u64,
            tries: 1,
            address: None,
            outcome: "done".to_owned(),
        });
        2
    }
}

/// Waits for the thread that syncs wherever it is behind.
fn patient<T>(write: impl Fn() -> Result<T, LedgerError>) -> T {
    loop {
        match write() {
            Err(LedgerError::Behind) => std::thread::sleep(Duration::from_millis(5)),
            written => return written.unwrap(),
        }
    }
}

fn uuid(millis: u64, random: u64) -> CallId {
    let bytes = (u128::from(millis) << 80) | (7 << 76) | (2 << 62) | u128::from(random >> 2);
    CallId::from_bytes(bytes.to_be_bytes())
}

/// Numbers that are the same each time (xorshift64*).
struct Dice(u64);

impl Dice {
    const fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn of(&mut self, sides: u64) -> usize {
        usize::try_from((self.roll() >> 33) % sides).unwrap()
    }
}
