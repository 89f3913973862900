use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use spiffe::time::Clock;

use tokio::time::Instant;

use super::{Ask, Duration, Holder, Kernel, Pin, Why};
use crate::attest::AttestConfig;

fn kernel() -> Kernel {
    Kernel::new(AttestConfig::default(), Clock::system()).unwrap()
}

fn pin(pid: u32) -> Result<Arc<Pin>, Why> {
    kernel().pin(pid, Ask::default())
}

/// A shell that says `ready`, waits for a line, executes `next`, and is killed at the end.
struct Shell(Child);

impl Shell {
    fn start(next: &str) -> Self {
        let script = format!("echo ready; read line; {next}");
        let child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut shell = Self(child.unwrap());
        shell.hear("ready");
        shell
    }

    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn hear(&mut self, expected: &str) {
        let mut line = String::new();
        BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line.trim_end(), expected);
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have exited already.
        let _exited_already = self.0.kill();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_process_that_goes_on_stays_pinned() {
    let mut shell = Shell::start("echo more; read line");
    let pin = pin(shell.0.id()).unwrap();
    shell.go();
    shell.hear("more");
    pin.check().unwrap();
}

#[test]
fn executing_another_program_is_seen() {
    let mut shell = Shell::start("exec cat /dev/stdin");
    let pin = pin(shell.0.id()).unwrap();
    shell.go();
    shell.0.stdin.as_mut().unwrap().write_all(b"cat\n").unwrap();
    shell.hear("cat");
    assert!(matches!(pin.check(), Err(Why::ImageChanged(_))));
}

#[test]
fn executing_the_same_program_is_seen() {
    let mut shell = Shell::start("exec sh -c 'echo again; read line'");
    let pin = pin(shell.0.id()).unwrap();
    shell.go();
    shell.hear("again");
    assert!(matches!(pin.check(), Err(Why::ImageChanged(_))));
}

#[test]
fn an_exit_is_seen_before_and_after_it_is_waited_for() {
    let mut shell = Shell::start("exit 0");
    let pid = shell.0.id();
    let held = pin(pid).unwrap();
    shell.go();
    drop(shell.0.stdin.take());
    while !held.exited().unwrap() {
        std::thread::yield_now();
    }
    assert!(matches!(held.check(), Err(Why::Exited(_))));
    shell.0.wait().unwrap();
    assert!(matches!(held.check(), Err(Why::Exited(_))));
    assert!(matches!(pin(pid), Err(Why::Exited(_))));
}

#[test]
fn a_process_that_has_exited_cannot_be_pinned() {
    let mut shell = Shell::start("exit 0");
    let held = pin(shell.0.id()).unwrap();
    shell.go();
    while !held.exited().unwrap() {
        std::thread::yield_now();
    }
    // Not waited for yet, so there still is a process of that number.
    assert!(pin(shell.0.id()).is_err());
}

#[test]
fn a_number_that_no_process_can_have_is_refused() {
    assert!(matches!(pin(0), Err(Why::PeerNotVisible)));
    assert!(matches!(pin(u32::MAX), Err(Why::PeerNotVisible)));
}

#[test]
fn a_socket_is_held_under_its_number_only() {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    let (one, two) = std::os::unix::net::UnixStream::pair().unwrap();
    let inode = File::from(std::os::fd::OwnedFd::from(one.try_clone().unwrap()))
        .metadata()
        .unwrap()
        .ino();
    let this = pin(std::process::id()).unwrap();
    let kernel = kernel();
    assert!(this.holds(&kernel, one.as_raw_fd().cast_unsigned(), inode));
    assert!(!this.holds(&kernel, two.as_raw_fd().cast_unsigned(), inode));
    assert!(!this.holds(&kernel, 9999, inode));
}

#[test]
fn what_a_scan_found_of_a_number_is_believed_of_a_process_that_had_it_or_is_looked_at_again() {
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = File::from(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()));
    let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
    let (kernel, pid) = (kernel(), std::process::id());
    let holder = |inode| Holder {
        inode,
        pid,
        fd: std::os::fd::AsRawFd::as_raw_fd(&socket).cast_unsigned(),
    };
    let (right, wrong) = (holder(inode), holder(inode + 1));
    let before = Instant::now();
    for ask in [None, Some(&right), Some(&wrong)] {
        let ask = Ask {
            holder: ask,
            entries: None,
        };
        let pin = Pin::by_number(&kernel, pid, ask).unwrap();
        assert!(pin.is_holder(&kernel, &right, before));
        assert!(!pin.is_holder(&kernel, &wrong, before), "{ask:?}");
        let after = pin.since + Duration::from_nanos(1);
        assert!(pin.is_holder(&kernel, &wrong, after), "the scan looked at this process");
    }
}
