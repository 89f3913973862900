//! What a foreign process can do on this host: `check` runs this program again as a user that is no bot's.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

use crate::args::Stranger;
use crate::exit::Exit;
use crate::output::Screen;

/// How long one try may take; both ends are on this machine.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer's head and a refusal.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Users that no system gives out by itself; the first that has no name is taken.
const UIDS: std::ops::Range<u32> = 2_000_000_011..2_000_000_027;

/// What became of a try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// A port took the connection.
    Connected,
    /// No connection came about.
    NotConnected(String),
    /// A call was answered: status, and the word of a refusal by botmesh.
    Answered {
        /// The status.
        status: u16,
        /// The refusal's word, where the answer is one.
        reason: Option<String>,
    },
}

/// Tries it as whoever runs this, and prints the outcome.
pub(crate) fn run(command: &Stranger, screen: &Screen) -> Result<Exit> {
    let outcome = match command {
        Stranger::Port { port } => port_of(*port),
        Stranger::Call { socket, host } => call(|| UnixStream::connect(socket), host)?,
        Stranger::CallTcp { address, host } => call(|| TcpStream::connect_timeout(address, TIMEOUT), host)?,
    };
    screen.line(serde_json::to_string(&outcome)?)?;
    Ok(Exit::Fine)
}

/// Connects to a port of this host's loopback.
pub(super) fn port_of(port: u16) -> Outcome {
    match TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), TIMEOUT) {
        Ok(_connected) => Outcome::Connected,
        Err(error) => Outcome::NotConnected(error.to_string()),
    }
}

/// Both kinds of stream, as far as a call needs them.
trait Stream: std::io::Read + std::io::Write {
    fn patience(&self) -> std::io::Result<()>;
}

impl Stream for UnixStream {
    fn patience(&self) -> std::io::Result<()> {
        self.set_read_timeout(Some(TIMEOUT))
    }
}

impl Stream for TcpStream {
    fn patience(&self) -> std::io::Result<()> {
        self.set_read_timeout(Some(TIMEOUT))
    }
}

fn call<S: Stream>(connect: impl FnOnce() -> std::io::Result<S>, host: &str) -> Result<Outcome> {
    let mut stream = match connect() {
        Ok(stream) => stream,
        Err(error) => return Ok(Outcome::NotConnected(error.to_string())),
    };
    stream.patience()?;
    write!(
        stream,
        "GET /botmesh-check HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .context("read the answer")?;
    read(&String::from_utf8_lossy(&answer))
}

/// Reads status and reason. Only an answer with the header of botmesh's own refusals has a reason.
fn read(answer: &str) -> Result<Outcome> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("find the end of the answer's head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let ours = head
        .lines()
        .any(|line| line.to_ascii_lowercase().starts_with("botmesh-denied:"));
    let problem = body
        .get(body.find('{').unwrap_or(0)..=body.rfind('}').unwrap_or(0))
        .unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_str(problem).unwrap_or_default();
    let reason = problem.get("reason").and_then(serde_json::Value::as_str);
    Ok(Outcome::Answered {
        status: status.context("find the status")?,
        reason: reason.filter(|_| ours).map(ToOwned::to_owned),
    })
}

/// Runs this program as a foreign user; the error says why that cannot be done here.
pub(super) async fn tried(words: &[&str]) -> Result<Outcome> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "only root can become another user to try it"
    );
    let free = |uid: &u32| matches!(User::from_uid(Uid::from_raw(*uid)), Ok(None));
    let uid = UIDS.clone().find(free).context("find a user that nobody has")?;
    // The program itself, by the kernel's link: its folder need not be open to that user.
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command
        .arg("stranger")
        .args(words)
        .uid(uid)
        .gid(uid)
        .env_clear()
        .current_dir("/");
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let out = tokio::time::timeout(TIMEOUT * 3, command.output())
        .await
        .context("wait for the foreign process")?
        .with_context(|| format!("run as uid {uid}"))?;
    let told = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    anyhow::ensure!(
        out.status.success(),
        "the foreign process ended with {}: {told}",
        out.status
    );
    serde_json::from_slice(&out.stdout).context("read what the foreign process saw")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_its_word_only_with_the_header_of_ours() {
        let body = "{\"reason\":\"unknown_caller\"}";
        let ours = format!("HTTP/1.1 403 Forbidden\r\nBotmesh-Denied: 1\r\n\r\n{body}");
        let theirs = format!("HTTP/1.1 403 Forbidden\r\n\r\n{body}");
        let answered = |reason: Option<&str>| Outcome::Answered {
            status: 403,
            reason: reason.map(ToOwned::to_owned),
        };
        assert_eq!(read(&ours).unwrap(), answered(Some("unknown_caller")));
        assert_eq!(read(&theirs).unwrap(), answered(None));
        assert!(read("HTTP/1.1 403").is_err());
        assert!(read("}{\r\n\r\n}{").is_err());
    }
}
