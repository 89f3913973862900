//! A service manager that holds a proxy's listening sockets, as systemd does with a socket unit.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Mesh, PYTHON};

/// It and its process end with the test.
pub(crate) struct Manager {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    log: PathBuf,
}

/// How a process ended: its exit status (negative: a signal), and after how many milliseconds.
pub(crate) type Ended = (i32, u64);

impl Manager {
    /// Holds `sockets` (words of `manager.py`) for the proxy of a host, which must not run.
    pub(crate) fn hold(mesh: &Mesh, host: &str, sockets: &[String], variables: &[(&str, &str)]) -> Self {
        let host = mesh.host(host);
        let config = host.dir.join("proxy.yaml").display().to_string();
        let mut command = [env!("CARGO_BIN_EXE_botmesh"), "proxy", "run", "--config", &config]
            .map(str::to_owned)
            .to_vec();
        if let Some(clock) = &mesh.clock {
            command.extend(["--clock".to_owned(), format!("unix:{}", clock.display())]);
        }
        Self::new(&host.dir, sockets, &command, variables)
    }

    fn new(dir: &Path, sockets: &[String], command: &[String], variables: &[(&str, &str)]) -> Self {
        std::fs::remove_file(dir.join("notify")).ok();
        let log = dir.join("proxy.log");
        let mut child = Command::new(PYTHON)
            .args(["-c", include_str!("manager.py")])
            .args([dir, log.as_path()])
            .args(sockets)
            .arg("--")
            .args(command)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().unwrap());
        let mut manager = Self { child, to, from, log };
        assert_eq!(manager.line(), "holds");
        manager
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn order(&mut self, order: &str) -> String {
        writeln!(self.to.as_mut().unwrap(), "{order}").unwrap();
        self.line()
    }

    fn ended(&mut self, order: &str) -> Ended {
        let line = self.order(order);
        let (status, millis) = line.split_once(' ').unwrap_or_else(|| panic!("{order}: {line}"));
        (status.parse().unwrap(), millis.parse().unwrap())
    }

    /// Starts the next process, and says its number.
    pub(crate) fn start(&mut self) -> u32 {
        self.order("start").parse().unwrap()
    }

    /// Ends the process by SIGTERM.
    pub(crate) fn stop(&mut self) -> Ended {
        self.ended("stop")
    }

    /// Waits for a process that ends by itself.
    pub(crate) fn wait(&mut self) -> Ended {
        self.ended("wait")
    }

    /// What the process said to the manager since.
    pub(crate) fn told(&mut self) -> String {
        self.order("told").trim_end().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // At the end of its orders it kills its process, which a kill of its own would leave.
        drop(self.to.take());
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = self.log();
            let tail: String = log.chars().skip(log.chars().count().saturating_sub(6000)).collect();
            println!("--- {}\n{tail}", self.log.display());
        }
    }
}
