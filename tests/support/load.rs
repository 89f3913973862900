//! Load by ordinary clients, and what it came to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::Value;

use super::{Host, Mesh, PYTHON, as_user, eventually};

/// Clients that call `orders.prod.mesh` as one user, over the port and the socket of its proxy, until they are ended.
pub(crate) struct Load {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

/// What a load came to since it began.
#[derive(Debug)]
pub(crate) struct Outcome(Value);

impl Load {
    pub(crate) fn start(uid: u32, proxy: &Host, per_second: u32) -> Self {
        let mut command = as_user(PYTHON, uid);
        command.args(["-c", include_str!("load.py"), &per_second.to_string(), &proxy.bot_tcp()]);
        command.arg(proxy.dir.join("bot.sock"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    /// What it came to so far.
    pub(crate) fn so_far(&mut self) -> Outcome {
        writeln!(self.to.as_mut().unwrap()).unwrap();
        self.read()
    }

    fn read(&mut self) -> Outcome {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        Outcome(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}")))
    }

    /// Waits until this many more calls have ended.
    pub(crate) fn more(&mut self, calls: u64) {
        let until = self.so_far().count("calls") + calls;
        eventually("calls", || (self.so_far().count("calls") >= until).then_some(()));
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> Outcome {
        drop(self.to.take());
        self.read()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Outcome {
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("{name}: {}", self.0))
    }

    /// Fails where a call failed.
    pub(crate) fn none_failed(&self) {
        assert_eq!(self.count("failed"), 0, "{:#}", self.0["failures"]);
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = |name| self.count(name);
        let ms = &self.0["milliseconds"];
        write!(
            f,
            "{} calls, {} failed, {} retried by clients, {} connections; ms p50 {} p99 {} max {}; longest pause {} ms",
            count("calls"),
            count("failed"),
            count("retried"),
            count("connects"),
            ms[0],
            ms[1],
            ms[2],
            count("paused")
        )
    }
}

impl Mesh {
    /// Starts a bot that answers fast.
    pub(crate) fn quick_callee(&mut self, uid: u32, port: u16) {
        self.bot(uid, include_str!("quick.py"), &port.to_string());
    }
}
