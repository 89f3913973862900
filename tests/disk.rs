//! A disk that is full: no call is carried unrecorded, and calls go on by themselves once there is room.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::spine::{CHECKOUT, two_hosts, with_callees};
use crate::support::{Caller, Mesh, Setup, both, eventually, http_get, root_or_skip, run};

/// A file system in memory of a size of its own, gone in the end.
struct Small(PathBuf);

impl Small {
    /// `None` where this machine mounts none.
    fn mount(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        let out = run(mount
            .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "botmesh-test"])
            .arg(at));
        if out.status.success() {
            return Some(Self(at.to_owned()));
        }
        println!("skipped: a small file system: {}", both(&out).trim());
        None
    }

    /// Fills it with a file that is not ours; gives its path.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("foreign");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

/// Stops a host's proxy, moves its ledger to a small file system, and starts it again.
fn to_a_small_disk(mesh: &mut Mesh, host: &str) -> Option<Small> {
    mesh.host_mut(host).process.terminate();
    let ledger = mesh.host(host).ledger();
    let old = ledger.with_file_name("ledger-before");
    fs::rename(&ledger, &old).unwrap();
    fs::create_dir(&ledger).unwrap();
    let small = Small::mount(&ledger)?;
    let copied = run(Command::new("cp").arg("-a").arg(old.join(".")).arg(&ledger));
    assert!(copied.status.success(), "{}", both(&copied));
    mesh.restart(host);
    mesh.wait_for(host, "/readyz");
    Some(small)
}

/// Has the caller's proxy ask on, however often the callee's refuses: what is looked at here is what the ledger's side says.
fn without_breaker(mesh: &Mesh) {
    let text = fs::read_to_string(mesh.mesh_file()).unwrap();
    mesh.apply(&format!("{text}destinations:\n  prod/orders: {{max_failures: 0}}\n"));
}

/// What the calls of one bot came to.
#[derive(Default)]
struct Told {
    /// How many calls the callee has answered, by its own count.
    number: u64,
    /// The ids of calls that were answered.
    answered: BTreeSet<String>,
    unavailable: usize,
}

impl Told {
    /// One call; says whether it was answered. Anything but an answer or `ledger_unavailable` is a failure.
    fn call(&mut self, caller: &mut Caller) -> bool {
        let answer = caller.call("GET", "orders.prod.mesh", "/orders/17");
        if answer.status == 200 {
            self.number = answer.json()["number"].as_u64().unwrap();
            self.answered.insert(answer.header("botmesh-call").unwrap().to_owned());
            return true;
        }
        let word = (answer.status, answer.reason());
        assert_eq!(word, (503, "ledger_unavailable".to_owned()), "{}", answer.body);
        self.unavailable += 1;
        false
    }
}

/// The host says why it is not ready.
fn unready(mesh: &Mesh, host: &str) -> String {
    eventually("the host to say that its ledger is in trouble", || {
        let (status, body) = http_get(mesh.host(host).ports.metrics, "/readyz")?;
        (status == 503 && body.contains("the ledger")).then_some(body)
    })
}

#[test]
fn a_full_disk_refuses_calls_at_either_end_and_room_brings_them_back_without_a_restart() {
    if !root_or_skip("a full disk") {
        return;
    }
    let mut mesh = two_hosts("");
    without_breaker(&mesh);
    let mut told = Told::default();
    let mut disks = Vec::new();
    for host in ["web-1", "web-2"] {
        let Some(disk) = to_a_small_disk(&mut mesh, host) else {
            return;
        };
        disks.push((host, disk));
    }
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    for (host, disk) in &disks {
        eventually("calls", || told.call(&mut checkout).then_some(()));
        let before = told.unavailable;
        let foreign = disk.fill();
        // The last page of a file has room for some records more.
        eventually("the disk to be full", || (!told.call(&mut checkout)).then_some(()));
        let reached = told.number;
        let answered = (0..200).filter(|_| told.call(&mut checkout)).count() as u64;
        assert!(
            told.number - reached <= answered,
            "the callee was asked and nobody was told"
        );
        let why = unready(&mesh, host);
        let refused = told.unavailable - before;
        fs::remove_file(foreign).unwrap();
        let number = told.number;
        eventually("calls again", || told.call(&mut checkout).then_some(()));
        assert_eq!(told.number, number + 1, "what was refused has reached nobody");
        mesh.wait_for(host, "/readyz");
        println!(
            "{host}'s disk full: {refused} calls 503 ledger_unavailable, none reached the callee; /readyz said {:?}; answered again by itself",
            why.trim()
        );
    }
    judge(&mut mesh, &told);
}

/// Every answer has its record at both ends, no record is of a call that was not made, and both ledgers are whole.
fn judge(mesh: &mut Mesh, told: &Told) {
    let allowed = |host: &str, direction: &str| {
        let calls = mesh
            .host(host)
            .query(&format!("kind=call verdict=allow direction={direction}"));
        calls
            .iter()
            .map(|call| call["id"].as_str().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert!(allowed("web-1", "out").is_superset(&told.answered));
    let inbound = allowed("web-2", "in").len() as u64;
    assert_eq!(inbound, told.number, "the callee answered what its proxy recorded");
    for host in ["web-1", "web-2"] {
        assert!(mesh.host_mut(host).process.terminate().success());
        let out = mesh.host(host).verify();
        assert!(out.status.success(), "{}", both(&out));
        println!("{host}: {}", both(&out).lines().next().unwrap_or_default());
    }
}

#[test]
fn a_ledger_that_has_used_up_its_bytes_refuses_calls_and_says_what_to_do() {
    if !root_or_skip("a ledger without room") {
        return;
    }
    let mesh = with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        ledger: ", max_bytes: 128KiB",
        ..Setup::default()
    });
    without_breaker(&mesh);
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let mut told = Told::default();
    let mut answered = 0;
    eventually("the share of calls to be used up", || {
        let ok = told.call(&mut checkout);
        answered += u32::from(ok);
        (!ok).then_some(())
    });
    assert!((0..20).all(|_| !told.call(&mut checkout)), "it stays so");
    let full = ["web-1", "web-2"].into_iter().find_map(|host| {
        let (status, body) = http_get(mesh.host(host).ports.metrics, "/readyz")?;
        (status == 503).then_some((host, body))
    });
    let (host, why) = full.expect("one of them says that its ledger is full");
    assert!(why.contains("ledger.max_bytes"), "{why}");
    let bytes: u64 = fs::read_dir(mesh.host(host).ledger().join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 128 * 1024 * 80 / 100, "{bytes}");
    println!(
        "max_bytes 128KiB: {answered} calls, then ledger_unavailable; {host} has {bytes} bytes of records and says {:?}",
        why.trim()
    );
}
