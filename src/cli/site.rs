//! A CA and proxies that this program starts itself, for `up` and `demo`: their folders, their files, and waiting until they answer.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ca_api::admin::{CaStatus, path as ca_path};
use ca_api::proxy_admin::{ProxyStatus, path as proxy_path};
use spiffe::id::{HostName, TrustDomain};
use tokio::time::{Instant, sleep};

use crate::children::{Child, Program};
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure};

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a starting server is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// The longest path of a Unix socket that Linux takes, less its terminator (`sockaddr_un`).
const SOCKET_PATH_MAX: usize = 107;

/// Which ports a site listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// The documented ones, or others where those are taken.
    Documented,
    /// Any that are free.
    Free,
}

impl Ports {
    fn pick(self, documented: u16) -> u16 {
        match self {
            Self::Free => 0,
            Self::Documented => {
                let free = TcpListener::bind((Ipv4Addr::LOCALHOST, documented)).is_ok();
                if free { documented } else { free_port().unwrap_or(0) }
            }
        }
    }
}

/// A loopback port that nobody listens on at this moment.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

/// The CA of a site: everything in `dir/ca` but the socket.
#[derive(Debug, Clone)]
pub(crate) struct CaSite {
    pub(crate) config: PathBuf,
    pub(crate) socket: PathBuf,
}

impl CaSite {
    /// Names the files of a CA whose configuration and socket are in `dir`.
    pub(crate) fn in_folder(dir: &Path) -> Self {
        Self {
            config: dir.join("ca.yaml"),
            socket: dir.join(Peer::Ca.file_name()),
        }
    }

    /// Writes its configuration.
    pub(crate) fn write_config(&self, trust_domain: &TrustDomain, state: &Path, ports: Ports) -> Result<()> {
        check_socket(&self.socket)?;
        let mut text = String::new();
        writeln!(text, "trust_domain: {trust_domain}")?;
        writeln!(text, "state_dir: {}", quoted(state))?;
        writeln!(text, "node_api: {{listen: \"127.0.0.1:{}\"}}", ports.pick(7443))?;
        writeln!(
            text,
            "admin: {{socket: {}, operators: [{}]}}",
            quoted(&self.socket),
            nix::unistd::geteuid()
        )?;
        writeln!(text, "dashboard: {{listen: \"127.0.0.1:{}\"}}", ports.pick(7070))?;
        write_new(&self.config, &text)
    }

    pub(crate) fn program(&self, extra: &[String]) -> Program {
        program("ca", &self.config, extra)
    }

    pub(crate) fn server(&self) -> Server {
        Server::at(Peer::Ca, &self.socket)
    }
}

/// The proxy of one host.
#[derive(Debug, Clone)]
pub(crate) struct ProxySite {
    pub(crate) host: HostName,
    pub(crate) dir: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) token: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) bot_socket: PathBuf,
}

/// What a proxy's configuration says beside its folders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProxySettings<'a> {
    pub(crate) trust_domain: &'a TrustDomain,
    pub(crate) ca: SocketAddr,
    pub(crate) state: &'a Path,
    pub(crate) ports: Ports,
    /// Further lines.
    pub(crate) more: &'a str,
}

impl ProxySite {
    /// Names the files of a proxy whose configuration and sockets are in `dir`.
    pub(crate) fn in_folder(host: &HostName, dir: &Path) -> Self {
        Self {
            host: host.clone(),
            dir: dir.to_owned(),
            config: dir.join("proxy.yaml"),
            token: dir.join("join-token"),
            socket: dir.join(Peer::Proxy.file_name()),
            bot_socket: dir.join(Peer::BotSide.file_name()),
        }
    }

    /// Writes its configuration.
    pub(crate) fn write_config(&self, settings: &ProxySettings<'_>) -> Result<()> {
        check_socket(&self.socket)?;
        let ports = settings.ports;
        let mut text = String::new();
        writeln!(text, "trust_domain: {}", settings.trust_domain)?;
        writeln!(text, "host: {}", self.host)?;
        if nix::unistd::geteuid().is_root() {
            // Its folder may be one that no other user can enter. Hosts that are meant to stay are installed.
            writeln!(text, "user: root")?;
        }
        writeln!(text, "state_dir: {}", quoted(settings.state))?;
        writeln!(text, "ca: {{addresses: [\"{}\"]}}", settings.ca)?;
        writeln!(text, "join: {{token_file: {}}}", quoted(&self.token))?;
        let bots = ports.pick(15_080);
        writeln!(
            text,
            "bots: {{listen: \"127.0.0.1:{bots}\", socket: {}}}",
            quoted(&self.bot_socket)
        )?;
        writeln!(text, "mesh: {{listen: \"127.0.0.1:{}\"}}", ports.pick(15_443))?;
        writeln!(
            text,
            "admin: {{socket: {}, operators: [{}]}}",
            quoted(&self.socket),
            nix::unistd::geteuid()
        )?;
        writeln!(text, "metrics: {{listen: \"127.0.0.1:{}\"}}", ports.pick(15_090))?;
        writeln!(text, "ledger: {{dir: {}}}", quoted(&settings.state.join("ledger")))?;
        writeln!(text, "allow_run: true")?;
        text.push_str(settings.more);
        write_new(&self.config, &text)
    }

    pub(crate) fn program(&self, extra: &[String]) -> Program {
        program("proxy", &self.config, extra)
    }

    pub(crate) fn server(&self) -> Server {
        Server::at(Peer::Proxy, &self.socket)
    }

    /// Writes a join token where only this user reads it.
    pub(crate) fn write_token(&self, token: &str) -> Result<()> {
        self.forget_token()?;
        let told = || format!("write {}", self.token.display());
        let mut file = std::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.token)
            .with_context(told)?;
        writeln!(file, "{token}").with_context(told)
    }

    /// Removes the token: once the host has joined, it is of use to nobody.
    pub(crate) fn forget_token(&self) -> Result<()> {
        match std::fs::remove_file(&self.token) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.token.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn program(server: &str, config: &Path, extra: &[String]) -> Program {
    let mut args = vec![
        server.into(),
        "run".into(),
        "--with-parent".into(),
        "--config".into(),
        config.as_os_str().to_owned(),
    ];
    args.extend(extra.iter().map(Into::into));
    Program::new(server, args)
}

/// Waits until the CA answers.
pub(crate) async fn ca_up(server: &Server, child: &mut Child) -> Result<CaStatus> {
    until(child, async || server.get::<CaStatus>(ca_path::STATUS).await, |_| true).await
}

/// Waits until the proxy answers and can carry calls.
pub(crate) async fn proxy_ready(server: &Server, child: &mut Child) -> Result<ProxyStatus> {
    until(
        child,
        async || server.get::<ProxyStatus>(proxy_path::STATUS).await,
        |status| status.ready,
    )
    .await
}

async fn until<T>(child: &mut Child, ask: impl AsyncFn() -> Result<T>, enough: impl Fn(&T) -> bool) -> Result<T> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(status) = child.try_ended()? {
            return Err(anyhow!(
                "{} ended while it started ({status}){}",
                child.name,
                log_tail(child)
            ));
        }
        let answer = ask().await;
        match answer {
            Ok(answer) if enough(&answer) => return Ok(answer),
            Ok(_) | Err(_) if Instant::now() < deadline => sleep(ASK_EVERY).await,
            Ok(_) | Err(_) => {
                let message = format!(
                    "{} was not ready within {} s{}",
                    child.name,
                    START_TIMEOUT.as_secs(),
                    log_tail(child)
                );
                return Err(Failure::new(Exit::Unreachable, message).into());
            }
        }
    }
}

/// The last lines of a child's log, where it has one of its own.
fn log_tail(child: &Child) -> String {
    let Some(text) = child.log.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) else {
        return String::new();
    };
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
    format!("; the end of its log:\n  {}", tail.join("\n  "))
}

fn check_socket(path: &Path) -> Result<()> {
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_MAX {
        return Ok(());
    }
    let message = format!(
        "{} has {length} bytes; a Unix socket's path has at most {SOCKET_PATH_MAX}",
        path.display()
    );
    Err(Failure::usage(message).hint("choose a shorter --dir").into())
}

/// A path as YAML: a JSON string is one.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let told = || format!("write {}", path.display());
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(told)?;
    file.write_all(text.as_bytes()).with_context(told)
}

/// An absolute path, also of a folder that is not there yet.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("find {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_before_anything_starts() {
        let dir = PathBuf::from(format!("/tmp/{}", "x".repeat(110)));
        let domain = TrustDomain::parse("acme.internal").unwrap();
        let error = CaSite::in_folder(&dir)
            .write_config(&domain, &dir, Ports::Free)
            .unwrap_err();
        assert!(error.to_string().contains("--dir"), "{error}");
    }

    #[test]
    fn a_token_is_for_this_user_alone_and_goes_nowhere_else() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let proxy = ProxySite::in_folder(&HostName::parse("web-1").unwrap(), dir.path());
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &proxy.token).unwrap();
        proxy.write_token("bmj1_one").unwrap();
        proxy.write_token("bmj1_two").unwrap();
        assert_eq!(std::fs::read_to_string(&proxy.token).unwrap(), "bmj1_two\n");
        assert_eq!(
            std::fs::metadata(&proxy.token).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "");
    }

    #[test]
    fn what_is_written_is_what_the_servers_read() {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("acme.internal").unwrap();
        let ca = CaSite::in_folder(dir.path());
        ca.write_config(&domain, &dir.path().join("ca"), Ports::Free).unwrap();
        let _read: ::ca::Config = crate::config::load(&ca.config).unwrap();
        let proxy = ProxySite::in_folder(&HostName::parse("web-1").unwrap(), dir.path());
        let settings = ProxySettings {
            trust_domain: &domain,
            ca: SocketAddr::from(([127, 0, 0, 1], 7443)),
            state: dir.path(),
            ports: Ports::Free,
            more: "disclose: full\nlocal_hop: mtls\n",
        };
        proxy.write_config(&settings).unwrap();
        let _read: ::proxy::config::Config = crate::config::load(&proxy.config).unwrap();
    }
}
