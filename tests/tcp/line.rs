//! Bots with one TCP connection, and those that they connect to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::support::{Mesh, PYTHON, Process, as_user, eventually};

/// A bot's connection by its proxy: a process of a user.
pub(super) struct Line {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Line {
    /// Starts the process; it connects when it is told to.
    pub(super) fn new(uid: u32, at: &str, connect: Option<&str>) -> Self {
        let mut command = as_user(PYTHON, uid);
        command
            .args(["-c", include_str!("../support/tcpc.py"), at])
            .args(connect);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python");
        let to = child.stdin.take().expect("a pipe");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, to, from }
    }

    /// Connects, which must work.
    pub(super) fn open(uid: u32, at: &str, connect: Option<&str>) -> Self {
        let mut line = Self::new(uid, at, connect);
        let head = line.order(json!({"do": "connect"}))["head"].clone();
        let head = head.as_str().expect("a head");
        if connect.is_some() {
            assert!(
                head.starts_with("HTTP/1.1 200 ") && head.contains("botmesh-call: "),
                "{head}"
            );
        }
        line
    }

    pub(super) fn order(&mut self, order: Value) -> Value {
        writeln!(self.to, "{order}").expect("it runs");
        let mut line = String::new();
        self.from.read_line(&mut line).expect("it runs");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{order}: {error}: {line:?}"))
    }

    /// Reads: `until` a text, a `count` of bytes, or to the end.
    pub(super) fn receive(&mut self, mut how: Value) -> Value {
        how["do"] = "receive".into();
        self.order(how)
    }

    pub(super) fn send(&mut self, mut what: Value) -> Value {
        what["do"] = "send".into();
        self.order(what)
    }

    pub(super) fn shutdown(&mut self) {
        self.order(json!({"do": "shutdown"}));
    }

    pub(super) fn reset(&mut self) {
        self.order(json!({"do": "reset"}));
    }

    /// What the callee says first.
    pub(super) fn greeting(&mut self) -> Value {
        let told = self.receive(json!({"until": "\n"}));
        serde_json::from_str(told["text"].as_str().expect("text")).unwrap_or_else(|error| panic!("{error}: {told}"))
    }

    /// Hears the callee and tells it what to do.
    pub(super) fn begin(&mut self, words: &str) {
        self.greeting();
        let sent = self.send(json!({"text": format!("{words}\n")}));
        assert!(sent["error"].is_null(), "{sent}");
    }

    /// Has the callee give back what it is sent, and sees that it does.
    pub(super) fn lives(&mut self) {
        self.begin("echo");
        self.lives_on();
    }

    pub(super) fn lives_on(&mut self) {
        self.send(json!({"text": "ping"}));
        let told = self.receive(json!({"count": 4}));
        assert_eq!(told["text"], "ping", "{told}");
    }

    /// Goes on until that does not work any more.
    pub(super) fn talk_until_cut(&mut self) -> Value {
        eventually("the connection to be cut", || {
            self.send(json!({"text": "ping"}));
            let told = self.receive(json!({"count": 4}));
            (told["why"] != "enough").then_some(told)
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts a program in Python as a user.
pub(super) fn program(mesh: &Mesh, uid: u32, text: &str, words: &[&str]) -> Process {
    let mut command = as_user(PYTHON, uid);
    command.args(["-c", text]).args(words);
    let log = tempfile::NamedTempFile::new_in(mesh.dir())
        .expect("a file")
        .into_temp_path();
    let process = Process::spawn(command, log.to_path_buf());
    log.keep().expect("kept");
    process
}

/// Starts the bot that serves TCP.
pub(super) fn tcpd(mesh: &Mesh, uid: u32, words: &[&str]) -> Process {
    let process = program(mesh, uid, include_str!("../support/tcpd.py"), words);
    eventually("the bot to listen", || {
        process.log().lines().any(|line| line == "ready").then_some(())
    });
    process
}

/// A process of another user that takes a socket which it is handed, and gives back what it hears.
pub(super) struct Holder {
    pub(super) process: Process,
    pub(super) path: PathBuf,
}

const HOLD: &str = "
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
server.listen(1)
print('ready', flush=True)
conn, _ = server.accept()
_, taken, _, _ = socket.recv_fds(conn, 1, 1)
conn.sendall(b'!')
print('holds', flush=True)
held = socket.socket(fileno=taken[0])
while data := held.recv(65536):
    held.sendall(data)
";

pub(super) fn foreign_holder(mesh: &Mesh, uid: u32) -> Holder {
    let folder = tempfile::Builder::new()
        .prefix("bm")
        .tempdir_in("/tmp")
        .expect("a folder")
        .keep();
    nix::unistd::chown(&folder, Some(uid.into()), None).expect("chown");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let path = folder.join("hand.sock");
    let process = program(mesh, uid, HOLD, &[path.to_str().expect("text")]);
    eventually("the other process to listen", || {
        process.log().contains("ready").then_some(())
    });
    Holder { process, path }
}
