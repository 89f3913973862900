use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use spiffe::time::Clock;

use super::super::pin::{Ask, Pin};
use super::{FORGET_EVERY, Kernel, RECENT_MAX, Why, lock};
use crate::attest::AttestConfig;

const ASK: Ask<'static> = Ask {
    holder: None,
    entries: None,
};

fn kernel() -> Kernel {
    Kernel::new(AttestConfig::default(), Clock::system()).unwrap()
}

fn pidfd(pid: u32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap()
}

/// A shell that waits for a line and then executes `next`.
struct Shell(Child);

impl Shell {
    fn start(next: &str) -> Self {
        let mut command = Command::new("sh");
        let command = command.args(["-c", &format!("read line; {next}")]);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn go_on_until_it_says(&mut self, expected: &str) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line.trim(), expected);
    }

    fn end(&mut self) {
        let _exited_already = self.0.kill();
        self.0.wait().unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn a_process_is_pinned_once_by_whichever_way_it_is_named() {
    let kernel = kernel();
    let (one, other) = (Shell::start("read line"), Shell::start("read line"));
    let pin = kernel.pin(one.0.id(), ASK).unwrap();
    assert!(Arc::ptr_eq(&pin, &kernel.pin(one.0.id(), ASK).unwrap()));
    let named = kernel.pin_of(one.0.id(), pidfd(one.0.id()), ASK).unwrap();
    assert!(Arc::ptr_eq(&pin, &named));
    assert!(!Arc::ptr_eq(&pin, &kernel.pin(other.0.id(), ASK).unwrap()));
}

#[test]
fn a_process_that_executed_a_program_is_pinned_anew_and_its_old_pin_refuses() {
    let kernel = kernel();
    let mut shell = Shell::start("exec sh -c 'echo again; read line'");
    let old = kernel.pin(shell.0.id(), ASK).unwrap();
    shell.go_on_until_it_says("again");
    let new = kernel.pin(shell.0.id(), ASK).unwrap();
    assert!(!Arc::ptr_eq(&old, &new));
    assert!(matches!(old.check(), Err(Why::ImageChanged(_))));
    new.check().unwrap();
}

#[test]
fn a_process_that_is_gone_is_not_taken_for_the_one_that_has_its_number() {
    let kernel = kernel();
    let (mut gone, living) = (Shell::start("read line"), Shell::start("read line"));
    let named = pidfd(gone.0.id());
    gone.end();
    // As if the living one had been given the number of the one that is gone.
    kernel.pin(living.0.id(), ASK).unwrap();
    let pinned = kernel.pin_of(living.0.id(), named, ASK);
    assert!(matches!(pinned, Err(Why::Exited(_))), "{pinned:?}");
}

#[test]
fn what_nobody_holds_is_forgotten_and_a_few_are_kept() {
    let kernel = kernel();
    let mut shell = Shell::start("read line");
    let pid = shell.0.id();
    let held = kernel.pin(pid, ASK).unwrap();
    for number in 0..2 * FORGET_EVERY {
        let mut pin = Pin::by_number(&kernel, pid, ASK).unwrap();
        pin.pid = 1 << 24 | u32::try_from(number).unwrap();
        drop(kernel.pins.add(pin));
        let table = lock(&kernel.pins.0);
        assert!(table.recent.len() <= RECENT_MAX);
        assert!(table.known.len() <= 2 * (RECENT_MAX + 1) + FORGET_EVERY);
    }
    assert!(Arc::ptr_eq(&held, &kernel.pin(pid, ASK).unwrap()), "what is held stays");
    drop(held);
    shell.end();
    kernel.pins.forget_gone();
    assert_eq!(lock(&kernel.pins.0).recent.len(), 0);
}
