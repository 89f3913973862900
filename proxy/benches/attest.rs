//! Figures of attestation: what a new connection costs, and what each request costs after that.
//!
//! Prints one line per figure: median and 99th percentile of the time that passed, the mean processor time that this
//! process spent, which a busy machine does not stretch as much, and the budget where there is one. First this process
//! looks by itself, then it has an attest helper look, whose processor time is not in the figure. Needs root for the
//! cases with 500 processes of another user and for the helper.

#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement that fails says so by panicking"
)]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use proxy::attest::{AttestConfig, Attestor, helper, prepare_listener};
use proxy::privileges::User;
use rustix::time::{ClockId, clock_gettime};
use spiffe::entry::Entry;
use spiffe::id::BotName;
use spiffe::selector::SelectorSet;
use spiffe::time::Clock;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;

const ROUNDS: usize = 2000;
const ROUNDS_IN_A_CROWD: usize = 200;
const CROWD: usize = 500;
const CGROUP: usize = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("connect-tcp") => knock(|| TcpStream::connect(&arguments[2]).unwrap()),
        Some("connect-unix") => knock(|| UnixStream::connect(&arguments[2]).unwrap()),
        // So a proxy that root started has itself started again (`helper::start`).
        Some("attest-helper") => {
            let number = |at: usize| arguments[at].parse().unwrap();
            let (uid, gid) = (number(2), number(3));
            helper::run(User { uid, gid }).unwrap();
        }
        _ => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(measure()),
    }
}

/// Connects again and again, each time until the other end has closed.
fn knock<S: Read + Write>(connect: impl Fn() -> S) {
    std::io::stdin().read_exact(&mut [0]).unwrap();
    loop {
        let mut connection = connect();
        let mut answer = [0];
        if connection.read(&mut answer).is_err() {
            return;
        }
    }
}

async fn measure() {
    measure_with("", Attestor::new(AttestConfig::default(), Clock::system()).unwrap()).await;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root, to start an attest helper");
        return;
    }
    let user = User {
        uid: 61_002,
        gid: 61_002,
    };
    let attestor = Attestor::with_helper(helper::start(user).unwrap(), Duration::from_secs(1)).unwrap();
    measure_with("helper: ", attestor).await;
}

async fn measure_with(by: &str, attestor: Attestor) {
    let report = |what: &str, budget, taken| report(&format!("{by}{what}"), budget, taken);
    let bench = Bench::new(attestor);
    let unix = bench.unix().await;
    report("Unix socket, new connection", Some(50.0), unix.attest);
    report("Unix socket, recheck", Some(3.0), unix.recheck);
    let alone = bench.tcp(ROUNDS, None).await;
    report(
        &format!("TCP, by user, one process of it, {} on the host", processes()),
        Some(300.0),
        alone.attest,
    );
    report("TCP, recheck", None, alone.recheck);
    report("TCP, deep recheck", None, alone.deep);
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root, to have {CROWD} processes of another user");
        return;
    }
    // Made first, so that it is removed last, when no process is in it any more.
    let cgroup = Cgroup::new();
    let crowd = Crowd::new(&bench, CROWD);
    let many = bench.tcp(ROUNDS_IN_A_CROWD, None).await;
    report(
        &format!("TCP, by user, {CROWD} processes of it, {} on the host", processes()),
        Some(5000.0),
        many.attest,
    );
    report("TCP, deep recheck, the same host", None, many.deep);
    match &cgroup {
        Some(cgroup) => {
            for child in &crowd.0[1..CGROUP] {
                cgroup.add(child.id());
            }
            let few = bench.tcp(ROUNDS, Some(cgroup)).await;
            report(
                &format!("TCP, by cgroup, {CGROUP} processes in it, the same host"),
                Some(300.0),
                few.attest,
            );
        }
        None => println!("skipped: no writable cgroups of version 2 here"),
    }
    drop(crowd);
}

fn report(what: &str, budget: Option<f64>, taken: Taken) {
    let Taken { mut passed, spent } = taken;
    passed.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let at = |part: usize| micros(passed[passed.len() * part / 100]);
    let spent = micros(spent) / passed.len() as f64;
    let budget = budget.map_or_else(String::new, |budget| format!("  budget {budget:.0} us"));
    println!(
        "{what:<66} p50 {:>8.1} us  p99 {:>8.1} us  cpu {spent:>8.1} us{budget}",
        at(50),
        at(99)
    );
}

/// What a step took, once for each time that it was done.
#[derive(Default)]
struct Taken {
    passed: Vec<Duration>,
    spent: Duration,
}

impl Taken {
    async fn time<T>(&mut self, step: impl Future<Output = T>) -> T {
        let (before, spent) = (Instant::now(), spent());
        let done = step.await;
        self.passed.push(before.elapsed());
        self.spent += self::spent() - spent;
        done
    }
}

/// The processor time that this process has used.
fn spent() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}

fn processes() -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .count()
}

struct Bench {
    folder: TempDir,
    attestor: Attestor,
    uid: u32,
}

#[derive(Default)]
struct Times {
    attest: Taken,
    recheck: Taken,
    deep: Taken,
}

impl Bench {
    fn new(attestor: Attestor) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let exe = folder.path().join("client");
        fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        fs::set_permissions(&exe, Permissions::from_mode(0o755)).unwrap();
        let own = rustix::process::geteuid();
        let uid = if own.is_root() { 61_001 } else { own.as_raw() };
        let set = SelectorSet {
            uid: Some(uid),
            exe: Some(exe.to_str().unwrap().to_owned()),
            ..SelectorSet::default()
        };
        let bot = BotName::parse("prod/client").unwrap();
        attestor.set_entries(Arc::from([Entry { bot, attest: vec![set] }]));
        Self { folder, attestor, uid }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if rustix::process::geteuid().is_root() {
            command.uid(self.uid).gid(self.uid);
        }
        command.stdin(Stdio::piped());
        command
    }

    /// Starts a client and, when it is where it belongs, lets it begin.
    fn client(&self, how: &str, to: &str, cgroup: Option<&Cgroup>) -> Killed {
        let mut child = self
            .command(&self.folder.path().join("client"))
            .args([how, to])
            .spawn()
            .unwrap();
        if let Some(cgroup) = cgroup {
            cgroup.add(child.id());
        }
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        Killed(child)
    }

    async fn unix(&self) -> Times {
        let path = self.folder.path().join("bot.sock");
        let listener = UnixListener::bind(&path).unwrap();
        prepare_listener(&listener).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let _client = self.client("connect-unix", path.to_str().unwrap(), None);
        let mut times = Times::default();
        for _ in 0..ROUNDS {
            let (stream, _) = listener.accept().await.unwrap();
            let caller = times.attest.time(self.attestor.unix_caller(&stream)).await.unwrap();
            times.recheck.time(async { caller.recheck() }).await.unwrap();
        }
        times
    }

    async fn tcp(&self, rounds: usize, cgroup: Option<&Cgroup>) -> Times {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let _client = self.client("connect-tcp", &address, cgroup);
        let mut times = Times::default();
        for round in 0..rounds {
            let (stream, _) = listener.accept().await.unwrap();
            let caller = times.attest.time(self.attestor.tcp_caller(&stream)).await.unwrap();
            times.recheck.time(async { caller.recheck() }).await.unwrap();
            if round % 20 == 0 {
                times.deep.time(caller.deep_recheck()).await.unwrap();
            }
        }
        times
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _exited_already = self.0.kill();
        let _reaped_already = self.0.wait();
    }
}

struct Crowd(Vec<Child>);

impl Crowd {
    fn new(bench: &Bench, size: usize) -> Self {
        Self(
            (0..size)
                .map(|_| bench.command(Path::new("/bin/cat")).spawn().unwrap())
                .collect(),
        )
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _exited_already = child.kill();
            let _reaped_already = child.wait();
        }
    }
}

/// A cgroup of its own below where cgroups of version 2 are mounted.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let path = Path::new(line.split(' ').nth(4)?).join(format!("botmesh-bench-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn add(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}
