//! A server of a test: a script that listens, says what it does line by line, and is told things on its standard input.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::{PYTHON, eventually};

/// Ends with the test; a failing test prints what it said.
pub(super) struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    /// Starts a script of Python, and waits until it says that it listens.
    pub(super) fn python(script: &str, words: &[&str]) -> Self {
        Self::start(
            TempDir::new().unwrap(),
            Command::new(PYTHON).args(["-c", script]).args(words),
        )
    }

    /// Starts a program whose output is in this folder, and waits until it says that it listens.
    pub(super) fn start(folder: TempDir, command: &mut Command) -> Self {
        let out = fs::File::create(folder.path().join("log")).unwrap();
        let child = command
            .stdin(Stdio::piped())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let server = Self { child, folder };
        eventually("the server to listen", || {
            server.log().starts_with("ready").then_some(())
        });
        server
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that it has said.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// How many lines it has said that begin so.
    pub(super) fn said(&self, words: &str) -> usize {
        self.log().lines().filter(|line| line.starts_with(words)).count()
    }

    /// Tells it a line, and waits until it says one more that begins with the answer.
    pub(super) fn tell(&self, line: &str, answer: &str) {
        let before = self.said(answer);
        writeln!(self.child.stdin.as_ref().unwrap(), "{line}").unwrap();
        eventually("the server to hear it", || (self.said(answer) > before).then_some(()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            println!("--- the server\n{}", self.log());
        }
    }
}
