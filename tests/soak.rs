//! Hours of calls through everything that happens to a mesh meanwhile: SVIDs that rotate, policies that are applied,
//! proxies that restart. No call fails and no proxy grows.
//!
//! By itself the test is six hours of a test's clock. `BOTMESH_SOAK_SECONDS=3600` makes it as many real seconds:
//!
//!     BOTMESH_SOAK_SECONDS=3600 cargo test --release --features test-clock --test mesh -- soak --nocapture

use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::away::{folder, serial, svid};
use crate::restart::two_held;
use crate::spine::CHECKOUT;
use crate::support::hand::Hand;
use crate::support::load::Load;
use crate::support::manager::Manager;
use crate::support::{Mesh, PYTHON, Setup, as_user, eventually, root_or_skip};

const HOSTS: [&str; 2] = ["web-1", "web-2"];
const PER_SECOND: u32 = 500;

/// How long, and what happens how often.
struct Plan {
    seconds: u64,
    /// How far the test's clock goes in each second, where it has one.
    step: Option<Duration>,
    apply_every: u64,
    /// In the first half only: in the second one nobody restarts, and memory is watched.
    restart_every: u64,
    /// Calls in a second at the least; a debug build beside other tests has no bound.
    rate_least: u64,
    growth_most_kib: u64,
}

impl Plan {
    fn new() -> Self {
        let seconds = std::env::var("BOTMESH_SOAK_SECONDS").ok();
        match seconds.map(|seconds| seconds.parse().expect("a number of seconds")) {
            Some(seconds) => Self {
                seconds,
                step: None,
                apply_every: 60,
                restart_every: 120,
                rate_least: 480,
                growth_most_kib: 4 * 1024,
            },
            None => Self {
                // An SVID has half an hour left at its renewal. That is four and a half seconds of a busy machine.
                seconds: 54,
                step: Some(Duration::from_secs(400)),
                apply_every: 5,
                restart_every: 4,
                rate_least: 1,
                growth_most_kib: 12 * 1024,
            },
        }
    }
}

/// What was seen of one host's proxy.
#[derive(Default)]
struct Seen {
    process: u32,
    /// Of each process: its resident memory in KiB, a sample each second.
    lives: Vec<Vec<u64>>,
    serials: Vec<String>,
}

impl Seen {
    fn look(&mut self, mesh: &Mesh, host: &str, bot: &str) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process)).expect("it runs");
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        let kib = resident.trim().trim_end_matches(" kB").parse().expect("a number");
        self.lives.last_mut().expect("a life").push(kib);
        if let Some(serial) = serial(mesh, host, bot)
            && !self.serials.contains(&serial)
        {
            self.serials.push(serial);
        }
    }

    fn begins(&mut self, manager: &mut Manager) {
        self.process = manager.start();
        self.lives.push(Vec::new());
    }

    /// Memory of the last process after its warm-up, and at its end: medians of a tenth of its samples.
    fn memory(&self) -> (u64, u64) {
        let life = self.lives.last().expect("a life");
        let tenth = (life.len() / 10).max(1);
        let median = |samples: &[u64]| {
            let mut sorted = samples.to_vec();
            sorted.sort_unstable();
            sorted[sorted.len() / 2]
        };
        (median(&life[tenth..2 * tenth]), median(&life[life.len() - tenth..]))
    }
}

/// Applies a policy that differs from the one before.
fn apply(mesh: &Mesh, number: u64) {
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let (before, _) = text.split_once("\ndeny:").expect("denies");
    let deny = format!(
        "\ndeny:\n  - {{id: turn-{number}, from: \"**\", to: prod/**, http: [GET /never/{number}], reason: another policy}}\n"
    );
    mesh.apply(&(before.to_owned() + &deny));
}

/// What the test drives, and what it has seen.
struct Soak {
    plan: Plan,
    hand: Option<Hand>,
    mesh: Mesh,
    managers: [Manager; 2],
    seen: [Seen; 2],
    applied: u64,
    restarted: usize,
}

impl Soak {
    fn start(plan: Plan, dir: &std::path::Path) -> Self {
        let hand = plan.step.map(|_| Hand::new(dir));
        let (mesh, managers, processes) = two_held(&Setup {
            hosts: &HOSTS,
            clock: hand.as_ref().map(Hand::path),
            ..Setup::default()
        });
        if hand.is_none() {
            let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
            mesh.apply(&text.replace("{owner:", "{svid_ttl: 120s, owner:"));
        }
        let seen = processes.map(|process| Seen {
            process,
            lives: vec![Vec::new()],
            ..Seen::default()
        });
        Self {
            plan,
            hand,
            mesh,
            managers,
            seen,
            applied: 0,
            restarted: 0,
        }
    }

    /// Does what is due in a second of the plan.
    fn second(&mut self, second: u64) {
        let plan = &self.plan;
        if let (Some(hand), Some(step)) = (&self.hand, plan.step) {
            // Time does not outrun a machine that is busy: where an SVID is not renewed yet, it goes on in small steps. (It does
            // not stand still, for a proxy that has just started renews after a while of the mesh's time.)
            let step_ms = i64::try_from(step.as_millis()).expect("few");
            for (host, bot) in HOSTS.iter().zip(["prod/checkout", "prod/orders"]) {
                eventually("an SVID that outlives the next step", || {
                    let (_, end) = svid(&self.mesh, host, bot)?;
                    let outlives = end > hand.shows() + 2 * step_ms;
                    if !outlives {
                        hand.forward(Duration::from_secs(5));
                    }
                    outlives.then_some(())
                });
            }
            hand.forward(step);
        }
        if second.is_multiple_of(plan.apply_every) {
            self.applied += 1;
            apply(&self.mesh, self.applied);
        }
        if second.is_multiple_of(plan.restart_every) && second * 2 <= plan.seconds {
            let which = self.restarted % 2;
            assert_eq!(self.managers[which].stop().0, 0, "it ends in order");
            self.seen[which].begins(&mut self.managers[which]);
            self.restarted += 1;
        }
        for (which, bot) in ["prod/checkout", "prod/orders"].iter().enumerate() {
            self.seen[which].look(&self.mesh, HOSTS[which], bot);
        }
    }

    fn tell(&self, clock: u64) {
        let (applied, restarted) = (self.applied, self.restarted);
        println!("{clock} s by its clock: {applied} policies applied, {restarted} restarts");
        for (host, seen) in HOSTS.iter().zip(&self.seen) {
            let (warm, end) = seen.memory();
            let serials = seen.serials.len();
            println!("{host}: {serials} SVIDs of its bot; KiB resident after warm-up {warm}, at the end {end}");
            let lives: Vec<_> = seen.lives.iter().map(|life| (life.first(), life.last())).collect();
            println!("{host}: KiB of each process, first and last: {lives:?}");
        }
    }

    fn check(&self, clock: u64) {
        assert!(self.restarted >= 2 && self.applied >= 2);
        // An SVID is renewed at 45 % of its life at the latest.
        let ttl = if self.hand.is_some() { 3600 } else { 120 };
        for (host, seen) in HOSTS.iter().zip(&self.seen) {
            assert!(seen.serials.len() as u64 >= clock / ttl, "{host}: {:?}", seen.serials);
            let (warm, end) = seen.memory();
            let most = warm + self.plan.growth_most_kib;
            assert!(end <= most, "{host} grew from {warm} to {end} KiB");
        }
    }
}

#[test]
fn soak_with_rotation_new_policies_and_restarts_fails_no_call_and_grows_no_memory() {
    if !root_or_skip("a soak") {
        return;
    }
    let dir = folder();
    let mut soak = Soak::start(Plan::new(), dir.path());
    let mut load = Load::start(CHECKOUT, soak.mesh.host("web-1"), PER_SECOND);
    load.more(200);
    let begin = Instant::now();
    for second in 1..=soak.plan.seconds {
        // The pace of the test, not a wait for a state.
        let due = begin + Duration::from_secs(second);
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        soak.second(second);
        if second.is_multiple_of(60) {
            let memory = soak
                .seen
                .each_ref()
                .map(|seen| seen.lives.last().and_then(|life| life.last()));
            println!("{second} s: {}; KiB {memory:?}", load.so_far());
        }
    }
    let outcome = load.stop();
    let real = begin.elapsed().as_secs();
    let clock = soak.plan.step.map_or(real, |step| soak.plan.seconds * step.as_secs());
    println!("{outcome}, in {real} s");
    soak.tell(clock);
    outcome.none_failed();
    let least = soak.plan.rate_least * real;
    assert!(outcome.count("calls") >= least, "too few calls for a load");
    soak.check(clock);
    for host in HOSTS {
        let whole = || soak.mesh.host(host).verify().status.success().then_some(());
        eventually("the ledger to be whole", whole);
    }
}

/// An SVID of an hour is renewed after 27 minutes at the latest.
const RENEWED_AFTER: Duration = Duration::from_secs(27 * 60 + 1);

/// Waits until the SVIDs of both bots are others than those that were seen last.
fn rotated(mesh: &Mesh, seen: &mut [Vec<String>; 2]) {
    for (which, bot) in ["prod/checkout", "prod/orders"].iter().enumerate() {
        let next = eventually("the next SVID", || {
            serial(mesh, HOSTS[which], bot).filter(|serial| seen[which].last() != Some(serial))
        });
        assert!(!seen[which].contains(&next), "an SVID came back");
        seen[which].push(next);
    }
}

/// Server-sent events that a bot reads all the while.
struct Events(Child);

impl Events {
    fn open(mesh: &Mesh) -> Self {
        let mut command = as_user(PYTHON, CHECKOUT);
        command
            .args([
                "-c",
                include_str!("support/events.py"),
                "http://orders.prod.mesh/orders/events",
            ])
            .env("http_proxy", format!("http://{}", mesh.host("web-1").bot_tcp()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut events = Self(command.spawn().expect("Python"));
        assert_eq!(events.line(), "open");
        events
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let from = self.0.stdout.as_mut().expect("a pipe");
        let mut byte = [0];
        while from.read(&mut byte).expect("a byte or the end") == 1 && byte != *b"\n" {
            line.extend(byte);
        }
        String::from_utf8(line).expect("text")
    }

    /// How many events came, and the longest pause between two in milliseconds.
    fn end(mut self) -> (u64, u64) {
        drop(self.0.stdin.take());
        let line = self.line();
        assert!(self.0.wait().expect("it ended").success(), "the events broke off");
        let (read, pause) = line.split_once(' ').expect("two numbers");
        (read.parse().expect("a count"), pause.parse().expect("milliseconds"))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// By itself three rotations, one every two seconds. `BOTMESH_ROTATIONS=30` makes them thirty, one every ten seconds:
///
///     BOTMESH_ROTATIONS=30 cargo test --release --features test-clock --test mesh -- soak::svids --nocapture
#[test]
fn svids_rotate_again_and_again_under_load_and_no_call_fails_nor_any_stream_ends() {
    if !root_or_skip("rotation under load") {
        return;
    }
    let rotations = std::env::var("BOTMESH_ROTATIONS").ok();
    let (rotations, pause) = match rotations.map(|count| count.parse::<u64>().expect("a number of rotations")) {
        Some(count) => (count, Duration::from_secs(10)),
        None => (3, Duration::from_secs(2)),
    };
    let dir = folder();
    let hand = Hand::new(dir.path());
    let (mesh, _managers, _) = two_held(&Setup {
        hosts: &HOSTS,
        clock: Some(hand.path()),
        ..Setup::default()
    });
    let mut seen = [Vec::new(), Vec::new()];
    rotated(&mesh, &mut seen);
    let mut load = Load::start(CHECKOUT, mesh.host("web-1"), PER_SECOND);
    load.more(200);
    let (begin, events) = (Instant::now(), Events::open(&mesh));
    for rotation in 1..=rotations {
        hand.forward(RENEWED_AFTER);
        rotated(&mesh, &mut seen);
        // The pace of the test, not a wait for a state.
        let due = begin + pause * u32::try_from(rotation).expect("few");
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
    }
    let outcome = load.stop();
    println!(
        "{rotations} rotations of both ends in {} s: {outcome}",
        begin.elapsed().as_secs()
    );
    outcome.none_failed();
    let (read, pause) = events.end();
    println!("{read} server-sent events on one connection, at most {pause} ms between two");
    let tenths = u64::try_from(begin.elapsed().as_millis() / 100).expect("few");
    assert!(read * 2 >= tenths, "ten a second, half of them on a busy machine");
    for (host, seen) in HOSTS.iter().zip(&seen) {
        assert_eq!(seen.len() as u64, rotations + 1, "{host}");
        let whole = || mesh.host(host).verify().status.success().then_some(());
        eventually("the ledger to be whole", whole);
    }
}
