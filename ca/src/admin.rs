//! The admin API: HTTP on a Unix socket, for operators.
//!
//! Who asks is what the kernel says (SO_PEERCRED), once for each connection; there
//! is nothing to log in with and therefore nothing to steal.

mod alerts;
mod bundle;
mod credentials;
mod heads;
mod hold;
mod hosts;
mod ledgers;
mod live_on;
mod mesh;
mod observed;
mod operators;
mod problem;
mod quarantines;
mod reports;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Extension, Router};
use ca_api::admin::{REQUEST_BYTES_MAX, path};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::core::Core;
use crate::http1;
use crate::keys::create_private_dir;
pub use operators::UnknownUser;
pub(crate) use operators::{Actor, Operators};
use problem::Refused;

/// Connections of operators.
const OPERATORS_MAX: usize = 64;

/// Connections of everybody else, who only gets to hear that he is none.
const OTHERS_MAX: usize = 8;

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another CA answers there.
    #[error("{path} is in use: is another CA running?")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket has the name.
    #[error("{path} is there already and is not a socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Its folder could not be made.
    #[error("make the folder of {path}")]
    Folder {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: crate::keys::KeyError,
    },
    /// It could not be bound.
    #[error("bind {path}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Opens the socket, taking over one that nobody answers on.
pub(crate) fn bind(path: &Path, operators: &Operators) -> Result<UnixListener, SocketError> {
    if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
        create_private_dir(dir, 0o750).map_err(|source| SocketError::Folder {
            path: path.to_owned(),
            source,
        })?;
    }
    remove_stale(path)?;
    let failed = |source| SocketError::Bind {
        path: path.to_owned(),
        source,
    };
    let listener = UnixListener::bind(path).map_err(failed)?;
    // The kernel asks for write permission before it tells us who it is. Where an
    // operator is somebody else than root or ourselves, the answer is left to us.
    let mode = if operators.need_others() { 0o666 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt as _;
    let failed = |source| SocketError::Bind {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket { path: path.to_owned() }),
        Ok(_socket) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_answered) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(_nobody) => std::fs::remove_file(path).map_err(failed),
    }
}

/// Accepts until the CA stops.
pub(crate) async fn serve(core: Arc<Core>, listener: UnixListener, operators: Operators) {
    let routes = routes(Arc::clone(&core));
    let places = (
        Arc::new(Semaphore::new(OPERATORS_MAX)),
        Arc::new(Semaphore::new(OTHERS_MAX)),
    );
    loop {
        // Cancel safe: `accept` loses nothing when it is dropped before it is ready.
        let accepted = tokio::select! {
            () = core.cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _unnamed)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept a connection to the admin socket");
                http1::pause().await;
                continue;
            }
        };
        let (router, places) = match who(&operators, &stream) {
            Ok(actor) => (routes.clone().layer(Extension(actor)), &places.0),
            Err(refused) => (refuse_all(refused), &places.1),
        };
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            let core = Arc::clone(&core);
            core.tasks.clone().spawn(async move {
                let _place = place;
                http1::serve(&core.cancel, stream, router).await;
            });
        }
    }
}

fn who(operators: &Operators, stream: &UnixStream) -> Result<Actor, Refused> {
    let credentials = stream.peer_cred().map_err(|error| {
        tracing::warn!(%error, "read the credentials of a peer of the admin socket");
        Refused::not_an_operator("the kernel did not say which user this is".to_owned())
    })?;
    operators.find(credentials.uid()).ok_or_else(|| {
        let uid = credentials.uid();
        tracing::warn!(
            uid,
            pid = credentials.pid(),
            "a user who is no operator called the admin socket"
        );
        Refused::not_an_operator(format!(
            "uid {uid} is not among admin.operators of the CA's configuration"
        ))
    })
}

fn refuse_all(refused: Refused) -> Router {
    Router::new().fallback(move || std::future::ready(refused.clone()))
}

fn routes(core: Arc<Core>) -> Router {
    Router::new()
        .route(path::APPLY, post(mesh::apply))
        .route(path::ROLLBACK, post(mesh::rollback))
        .route(path::REVISIONS, get(mesh::revisions))
        .route(path::MESH, get(mesh::sources))
        .route(path::GENERATION, get(live_on::generation))
        .route(path::HOST_TOKEN, post(hosts::token))
        .route(path::HOSTS, get(hosts::list))
        .route(path::HOST_EVICT, post(hosts::evict))
        .route(path::QUARANTINE, post(quarantines::quarantine))
        .route(path::RELEASE, post(quarantines::release))
        .route(path::QUARANTINES, get(quarantines::list))
        .route(path::CREDENTIALS, get(credentials::list))
        .route(path::CREDENTIAL_ROTATE, post(credentials::rotate))
        .route(path::CREDENTIAL_ADVANCE, post(credentials::advance))
        .route(path::HEADS, get(heads::list))
        .route(path::LEDGERS, post(ledgers::ask))
        .route(path::LEDGER_HOLD, post(hold::hold))
        .route(path::LEDGER_RELEASE, post(hold::release))
        .route(path::BOTS, get(reports::bots))
        .route(path::EDGES, get(observed::edges))
        .route(path::EVENTS, get(observed::events))
        .route(path::ALERTS, get(alerts::list))
        .route(path::ALERTS_STREAM, get(alerts::stream))
        .route(path::BUNDLE, get(bundle::bundle))
        .route(path::STATUS, get(reports::status))
        .fallback(|| std::future::ready(Refused::not_found()))
        .method_not_allowed_fallback(|| std::future::ready(Refused::method_not_allowed()))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(core)
}
