//! What is measured runs alone: beside twenty other tests on two cores a figure says nothing.

use std::cell::Cell;
use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::run;

static TURNS: RwLock<()> = RwLock::new(());

thread_local! {
    /// A test that has two meshes has one turn.
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// A test's turn, held while its mesh lives.
#[allow(dead_code, reason = "guards are held, not read")]
pub(crate) enum Turn {
    Beside(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
    Nested,
}

impl Turn {
    /// Waits for a turn beside other tests, or `alone`.
    pub(crate) fn take(alone: bool) -> Self {
        if HELD.replace(true) {
            return Self::Nested;
        }
        if alone {
            let turn = TURNS.write().unwrap_or_else(PoisonError::into_inner);
            ahead();
            Self::Alone(turn)
        } else {
            Self::Beside(TURNS.read().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

/// Puts this thread, and what it starts from now on, ahead of what else the machine does, where that is allowed: a
/// build beside the test would be measured otherwise.
fn ahead() {
    let thread = nix::unistd::gettid().to_string();
    run(Command::new("renice").args(["-n", "-15", "-p", &thread]));
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !matches!(self, Self::Nested) {
            HELD.set(false);
        }
    }
}

/// Where the ports of tests lie: below those that the system gives to outgoing connections, which come and go.
const PORTS: std::ops::Range<u16> = 22_000..32_000;

/// A port nobody listens on at this moment, and that no other test of this machine is given for a long time: the last
/// one is noted in a file that all test runs of a user share.
pub(crate) fn free_port() -> u16 {
    let path = std::env::temp_dir().join(format!("botmesh-test-port-{}", nix::unistd::geteuid()));
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    file.lock().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let mut port = text.trim().parse().unwrap_or(PORTS.start);
    loop {
        port = if PORTS.contains(&(port + 1)) {
            port + 1
        } else {
            PORTS.start
        };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            break;
        }
    }
    file.set_len(0).unwrap();
    file.rewind().unwrap();
    write!(file, "{port}").unwrap();
    port
}
