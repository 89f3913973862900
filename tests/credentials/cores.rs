//! What is left of a proxy that is made to end: no memory of it on a disk, and nothing in its last words.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::scene::{KEYS, Service, no_file_has, no_key_in};
use crate::support::hand::Hand;
use crate::support::{as_user, eventually, ok, root_or_skip};

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// Has the kernel put the memory of processes that it ends into this folder, while this lives.
struct Cores {
    before: String,
    dir: tempfile::TempDir,
}

impl Cores {
    fn into_a_folder() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::Builder::new().prefix("bmcore").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let before = fs::read_to_string(PATTERN).unwrap();
        fs::write(PATTERN, format!("{}/core.%p", dir.path().display())).unwrap();
        // Of this process, from which every process of a test has it.
        core_limit("unlimited");
        Self { before, dir }
    }

    fn of(&self, pid: u32) -> PathBuf {
        self.dir.path().join(format!("core.{pid}"))
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        core_limit("0");
        fs::write(PATTERN, &self.before).ok();
    }
}

fn core_limit(soft: &str) {
    let pid = std::process::id().to_string();
    ok(Command::new("prlimit").args([&format!("--core={soft}:"), "--pid", &pid]));
}

fn end(child: &mut Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_proxy_that_is_made_to_dump_its_memory_leaves_none_and_its_last_words_have_no_key() {
    if !root_or_skip("credentials") {
        return;
    }
    let cores = Cores::into_a_folder();
    let mut service = Service::start("");
    for (name, value) in KEYS {
        service.put(name, value);
    }
    // A process of the same user that has nothing to hide: the kernel does write what it is told to.
    let uid = proxy_uid(service.scene.host().process.child.id());
    let mut other = as_user("sleep", uid).arg("600").spawn().unwrap();
    end(&mut other, Signal::SIGABRT);
    assert!(
        cores.of(other.id()).exists(),
        "this machine writes no core files, so nothing is shown"
    );
    // Not SIGQUIT, which whoever started this may have had ignored.
    for signal in [Signal::SIGABRT, Signal::SIGILL] {
        let mut checkout = service.scene.checkout();
        for (rule, _, _) in super::scene::RULES {
            let answer = checkout.call("GET", &format!("{rule}.example.com"), "/echo");
            assert_eq!(answer.status, 200, "it has every value in memory: {}", answer.body);
        }
        let host = service.scene.mesh.host_mut("web-1");
        let pid = host.process.child.id();
        end(&mut host.process.child, signal);
        assert!(!cores.of(pid).exists(), "{signal}: the proxy's memory is on the disk");
        no_key_in("its last words", host.process.log().as_bytes());
        service.scene.mesh.restart("web-1");
        service.scene.mesh.wait_for("web-1", "/readyz");
    }
    nothing_in(cores.dir.path());
    service.nobody_has_a_key();
}

#[test]
fn a_proxy_whose_tasks_panic_says_no_key_anywhere() {
    if !root_or_skip("credentials") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(dir.path());
    let mut service = Service::with_clock(hand.path());
    for (name, value) in KEYS {
        service.put(name, value);
    }
    let mut checkout = service.scene.checkout();
    for (rule, _, _) in super::scene::RULES {
        assert_eq!(
            checkout.call("GET", &format!("{rule}.example.com"), "/echo").status,
            200
        );
    }
    hand.end_whoever_reads_it();
    let panics = |service: &Service| service.scene.host().process.log().matches("panicked at").count();
    // The call that comes now, and whatever of the proxy looks at the time by itself.
    let order = json!({"method": "GET", "target": "/echo", "headers": [["Host", "header.example.com"]]});
    eventually("a call to be broken off", || checkout.order(&order).err());
    eventually("others to panic", || (panics(&service) >= 4).then_some(()));
    no_file_has(&service.scene, &KEYS);
    // It is started anew, as a service manager does, and calls go on.
    hand.forward(Duration::from_secs(1));
    service.scene.mesh.restart_ca();
    service.scene.mesh.restart("web-1");
    service.scene.mesh.wait_for("web-1", "/readyz");
    assert_eq!(
        service
            .scene
            .checkout()
            .call("GET", "header.example.com", "/echo")
            .status,
        200
    );
}

/// The user that a proxy has become.
fn proxy_uid(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    uids.split_whitespace().next().unwrap().parse().unwrap()
}

fn nothing_in(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        no_key_in("a core file", &fs::read(entry.unwrap().path()).unwrap());
    }
}
