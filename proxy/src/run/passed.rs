//! The sockets that a service manager holds for the proxy and hands to it: `LISTEN_FDS`, as `sd_listen_fds(3)` has it.
//!
//! The manager keeps them while the proxy restarts, so what comes meanwhile waits and is refused nowhere, and no other
//! process can take a port. Each is known by where it is bound, which the kernel says, and not by its name, which a unit
//! says: a socket that is passed for another address than `proxy.yaml` has is refused, or one of the two would not be
//! served.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt};
use thiserror::Error;

/// More sockets than anybody has settings for.
const SOCKETS_MAX: usize = 1024;

/// The variables by which a service manager speaks to the process, as they were found.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// `LISTEN_PID`: for which process the sockets are.
    pub listen_pid: Option<OsString>,
    /// `LISTEN_FDS`: how many there are.
    pub listen_fds: Option<OsString>,
    /// `LISTEN_FDNAMES`: their names, for messages.
    pub listen_fdnames: Option<OsString>,
}

/// Sockets that were passed and that no setting has taken yet.
#[derive(Debug, Default)]
pub struct Passed(Vec<Socket>);

#[derive(Debug)]
struct Socket {
    /// As messages name it.
    name: String,
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Passed {
    /// Takes the sockets of this process, and the variables out of its environment, so that no child takes them too.
    ///
    /// Call it before any thread is started: no thread may read the environment while it changes.
    ///
    /// # Errors
    ///
    /// A [`PassedError`] for a socket that cannot be one of a proxy.
    pub fn take(variables: &Variables) -> Result<Self, PassedError> {
        let ours = is(variables.listen_pid.as_ref(), std::process::id());
        let count = variables.listen_fds.as_ref().filter(|_| ours).map(count).transpose()?;
        // Takes the variables away whomever they are for; what is not for this process is left alone.
        let mut found = ListenFd::from_env();
        let names: Vec<String> = variables
            .listen_fdnames
            .as_ref()
            .map(|names| names.to_string_lossy().split(':').map(str::to_owned).collect())
            .unwrap_or_default();
        let mut sockets = Vec::new();
        for number in 0..count.unwrap_or(0).min(found.len()) {
            let name = match names.get(number).filter(|name| !name.is_empty()) {
                Some(name) => format!("{number} ({})", printable(name)),
                None => number.to_string(),
            };
            let listener = listener(&mut found, number, &name)?;
            sockets.push(Socket { name, listener });
        }
        Ok(Self(sockets))
    }

    /// Takes the socket that is bound to a TCP address.
    pub(super) fn tcp(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        let at = |socket: &mut Socket| matches!(&socket.listener, Listener::Tcp(_, at) if same(*at, wanted));
        match self.0.extract_if(.., at).next()?.listener {
            Listener::Tcp(listener, _) => Some(listener),
            Listener::Unix(..) => None,
        }
    }

    /// Takes the socket that is bound to a path.
    pub(super) fn unix(&mut self, wanted: &Path) -> Option<UnixListener> {
        let at = |socket: &mut Socket| matches!(&socket.listener, Listener::Unix(_, at) if at == wanted);
        match self.0.extract_if(.., at).next()?.listener {
            Listener::Unix(listener, _) => Some(listener),
            Listener::Tcp(..) => None,
        }
    }

    /// Checks that every socket was taken.
    ///
    /// # Errors
    ///
    /// [`PassedError::NoSetting`] for the first that was not: whoever connects to it would wait for ever.
    pub(super) fn check_all_taken(&self, settings: &[(&'static str, String)]) -> Result<(), PassedError> {
        let Some(left) = self.0.first() else {
            return Ok(());
        };
        let is_tcp = matches!(left.listener, Listener::Tcp(..));
        let with_port_0 = |(_, address): &&(&str, String)| is_tcp && address.ends_with(":0");
        let hint = match settings.iter().find(with_port_0) {
            Some((setting, address)) => {
                format!("{setting} is {address}, and port 0 is no passed socket's: write the port that is passed")
            }
            None => {
                let known: Vec<String> = settings.iter().map(|(name, at)| format!("{name} {at}")).collect();
                format!("proxy.yaml has {}", known.join(", "))
            }
        };
        Err(PassedError::NoSetting {
            name: left.name.clone(),
            address: left.listener.to_string(),
            hint,
        })
    }
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(_, at) => at.fmt(f),
            Self::Unix(_, at) => write!(f, "unix:{}", at.display()),
        }
    }
}

/// Neither flow nor scope of an IPv6 address is written in a setting.
fn same(bound: SocketAddr, wanted: SocketAddr) -> bool {
    (bound.ip(), bound.port()) == (wanted.ip(), wanted.port())
}

fn is(text: Option<&OsString>, number: u32) -> bool {
    text.and_then(|text| text.to_str()?.parse().ok()) == Some(number)
}

fn count(text: &OsString) -> Result<usize, PassedError> {
    let count = text.to_str().and_then(|text| text.parse().ok());
    count.filter(|count| *count <= SOCKETS_MAX).ok_or(PassedError::Count)
}

/// Names come from a unit; a message is for a terminal.
fn printable(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(64)
        .collect()
}

/// Takes one socket over, and looks whether it is what can be accepted from.
fn listener(found: &mut ListenFd, number: usize, name: &str) -> Result<Listener, PassedError> {
    let wrong = |source| PassedError::NotStream {
        name: name.to_owned(),
        source,
    };
    let listener = match found.take_unix_listener(number) {
        Ok(Some(listener)) => {
            let at = listener.local_addr().map_err(wrong)?;
            let at = at
                .as_pathname()
                .ok_or_else(|| PassedError::NoPath { name: name.to_owned() })?;
            let at = at.to_owned();
            Listener::Unix(listener, at)
        }
        Ok(None) => return Err(wrong(io::Error::from(io::ErrorKind::NotFound))),
        Err(_not_unix) => {
            let taken = found.take_tcp_listener(number).map_err(wrong)?;
            let listener = taken.ok_or_else(|| wrong(io::Error::from(io::ErrorKind::NotFound)))?;
            let at = listener.local_addr().map_err(wrong)?;
            Listener::Tcp(listener, at)
        }
    };
    let (listens, blocks) = match &listener {
        Listener::Tcp(listener, _) => (listens(listener), listener.set_nonblocking(true)),
        Listener::Unix(listener, _) => (listens(listener), listener.set_nonblocking(true)),
    };
    blocks.map_err(wrong)?;
    if listens.map_err(|errno| wrong(errno.into()))? {
        Ok(listener)
    } else {
        Err(PassedError::NotListening {
            name: name.to_owned(),
            address: listener.to_string(),
        })
    }
}

fn listens(socket: &impl AsFd) -> nix::Result<bool> {
    getsockopt(socket, sockopt::AcceptConn)
}

/// Why a socket that was passed cannot be served.
#[derive(Debug, Error)]
pub enum PassedError {
    /// The count is none.
    #[error("LISTEN_FDS is no number up to {SOCKETS_MAX}")]
    Count,
    /// A file, a datagram socket, a pipe.
    #[error("the passed socket {name} is no stream socket of TCP or Unix")]
    NotStream {
        /// Its number, and its name where it has one.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A socket nobody can connect to by a path.
    #[error("the passed socket {name} is a Unix socket without a path")]
    NoPath {
        /// Its number, and its name where it has one.
        name: String,
    },
    /// A connection, or a socket that was only bound.
    #[error("the passed socket {name} at {address} does not listen: in a unit, use ListenStream= and Accept=no")]
    NotListening {
        /// Its number, and its name where it has one.
        name: String,
        /// Where it is bound.
        address: String,
    },
    /// No setting is left that has its address.
    #[error("the passed socket {name} listens on {address}, which no setting says: {hint}")]
    NoSetting {
        /// Its number, and its name where it has one.
        name: String,
        /// Where it is bound.
        address: String,
        /// What the settings say.
        hint: String,
    },
}
