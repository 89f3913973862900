//! Binds every listener before anything else, so that a port that is taken is said at once. What a service manager has
//! bound is taken from it and left as it is: its file, mode and owner are the manager's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;

use policy::{Callee, Scheme};
use spiffe::id::TrustDomain;
use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::{Passed, RunError};
use crate::attest::prepare_listener;
use crate::bots::Source;
use crate::call::{OutsideRoute, Route, To};
use crate::config::{ListenAddress, Listener, Settings};
use crate::tcp::Leads;

/// Every process of the host may connect to the bot side: who it is decides what it may.
const FOR_ALL: u32 = 0o666;

/// Only operators have business here, and each of them is asked for.
const FOR_OPERATORS: u32 = 0o666;

/// The listeners of the process.
pub(super) struct Bound {
    pub(super) shared: Vec<(Source, &'static str)>,
    pub(super) fixed: Vec<(Source, Leads)>,
    pub(super) mesh: TcpListener,
    pub(super) mesh_address: SocketAddr,
    pub(super) admin: UnixListener,
    pub(super) metrics: TcpListener,
    pub(super) addresses: BTreeMap<String, String>,
}

impl Bound {
    pub(super) async fn new(settings: &Settings, mut passed: Passed) -> Result<Self, RunError> {
        let mut addresses = BTreeMap::new();
        let from = &mut passed;
        let bots = tcp("bots.listen", settings.bots_listen, from).await?;
        let socket = bot_socket("bots.socket", &settings.bots_socket, from).await?;
        let mesh = tcp("mesh.listen", settings.mesh_listen, from).await?;
        let metrics = tcp("metrics.listen", settings.metrics_listen, from).await?;
        let admin = unix("admin.socket", &settings.admin_socket, FOR_OPERATORS, from).await?;
        let mesh_address = address("mesh.listen", &mesh)?;
        addresses.insert("bots".to_owned(), address("bots.listen", &bots)?.to_string());
        addresses.insert(
            "bots_socket".to_owned(),
            format!("unix:{}", settings.bots_socket.display()),
        );
        addresses.insert("mesh".to_owned(), mesh_address.to_string());
        addresses.insert("metrics".to_owned(), address("metrics.listen", &metrics)?.to_string());
        addresses.insert("admin".to_owned(), format!("unix:{}", settings.admin_socket.display()));
        let mut fixed = Vec::with_capacity(settings.listeners.len());
        for (number, listener) in settings.listeners.iter().enumerate() {
            let (source, leads) = listen(&settings.trust_domain, listener, from).await?;
            let shown = source
                .address()
                .map_or_else(|| listener.listen.to_string(), |bound| bound.to_string());
            let port = listener.tcp.map(|port| format!(" by tcp {port}")).unwrap_or_default();
            addresses.insert(
                format!("listener {number}"),
                format!("{shown} to {}{port}", listener.to),
            );
            fixed.push((source, leads));
        }
        passed
            .check_all_taken(&said(settings))
            .map_err(|source| RunError::Passed { source })?;
        let shared = vec![(Source::Tcp(bots), "bots"), (Source::Unix(socket), "bots_socket")];
        Ok(Self {
            shared,
            fixed,
            mesh,
            mesh_address,
            admin,
            metrics,
            addresses,
        })
    }
}

/// Every setting that says where to listen, and what it says.
fn said(settings: &Settings) -> Vec<(&'static str, String)> {
    let unix = |path: &Path| format!("unix:{}", path.display());
    let mut said = vec![
        ("bots.listen", settings.bots_listen.to_string()),
        ("bots.socket", unix(&settings.bots_socket)),
        ("mesh.listen", settings.mesh_listen.to_string()),
        ("metrics.listen", settings.metrics_listen.to_string()),
        ("admin.socket", unix(&settings.admin_socket)),
    ];
    let listeners = settings.listeners.iter();
    said.extend(listeners.map(|listener| ("listeners", listener.listen.to_string())));
    said
}

async fn listen(
    trust_domain: &TrustDomain,
    listener: &Listener,
    passed: &mut Passed,
) -> Result<(Source, Leads), RunError> {
    let none = || RunError::Destination {
        name: listener.to.to_string(),
    };
    let to = match &listener.to {
        Callee::Bot(bot) => To::Bot(Route::new(trust_domain, bot.clone()).ok_or_else(none)?),
        // Its own name and no wildcard: a setting of this host bounds how many there are.
        Callee::Outside(outside) => {
            let route = OutsideRoute::new(outside.clone(), &outside.to_string());
            To::Outside(route.ok_or_else(none)?)
        }
    };
    let source = match &listener.listen {
        ListenAddress::Tcp(address) => Source::Tcp(tcp("listeners", *address, passed).await?),
        ListenAddress::Unix(path) => Source::Unix(bot_socket("listeners", path, passed).await?),
    };
    let tcp = match &listener.to {
        Callee::Bot(_) => listener.tcp,
        // Nothing but the name that it asks for is read of the bot's own TLS.
        Callee::Outside(outside) => (outside.scheme() == Scheme::Tls).then(|| outside.port()),
    };
    Ok((source, Leads { to, tcp }))
}

async fn tcp(setting: &'static str, listen: SocketAddr, passed: &mut Passed) -> Result<TcpListener, RunError> {
    let failed = |source| RunError::Bind {
        setting,
        address: listen.to_string(),
        source,
    };
    match passed.tcp(listen) {
        Some(held) => TcpListener::from_std(held).map_err(failed),
        None => TcpListener::bind(listen).await.map_err(failed),
    }
}

fn address(setting: &'static str, listener: &TcpListener) -> Result<SocketAddr, RunError> {
    listener.local_addr().map_err(|source| RunError::Bind {
        setting,
        address: "its address".to_owned(),
        source,
    })
}

async fn bot_socket(setting: &'static str, path: &Path, passed: &mut Passed) -> Result<UnixListener, RunError> {
    let listener = unix(setting, path, FOR_ALL, passed).await?;
    let failed = |source| RunError::Bind {
        setting,
        address: path.display().to_string(),
        source,
    };
    prepare_listener(&listener).map_err(failed)?;
    Ok(listener)
}

/// Binds a Unix socket. A socket that nobody listens on any more is what a killed process left, and is replaced;
/// anything else that is there is not touched.
async fn unix(setting: &'static str, path: &Path, mode: u32, passed: &mut Passed) -> Result<UnixListener, RunError> {
    let failed = |source| RunError::Bind {
        setting,
        address: path.display().to_string(),
        source,
    };
    if let Some(held) = passed.unix(path) {
        return UnixListener::from_std(held).map_err(failed);
    }
    if let Some(parent) = path.parent() {
        dir(parent, 0o755)?;
    }
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() || UnixStream::connect(path).await.is_ok() {
            return Err(failed(std::io::Error::from(std::io::ErrorKind::AddrInUse)));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// Makes a folder that only this user may enter, where there is none.
pub(super) fn private_dir(path: &Path) -> Result<(), RunError> {
    dir(path, 0o700)
}

fn dir(path: &Path, mode: u32) -> Result<(), RunError> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let failed = |source| RunError::Dir {
        path: path.to_owned(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(failed)
}

/// Lets this process open as many files as it may: each connection is one.
pub(super) fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
}
