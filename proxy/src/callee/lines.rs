//! Connections to the bots of this host that serve gRPC: HTTP/2 by prior knowledge (RFC 9113 §3.3).
//!
//! `h2` itself and not hyper's client on it: what the callee takes at a time is known before a call is sent, so a full
//! connection is followed by another one and no call waits behind long streams; a call that the callee has not begun is
//! told apart from one that it may have; and a small request needs no task of its own. Whoever listens is checked
//! before anything is sent, before a call after a second, and each second while calls run; another holder ends the
//! connection and all calls on it. Nothing is pinged: the callee is on this host, so the kernel tells when it is gone,
//! and servers of gRPC send clients away that ping.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use policy::Target;
use spiffe::id::BotName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::socket::{Socket, Stream};
use super::{CONNECT, CalleeFault, IDLE, Place};
use crate::attest::{Attestor, Callee};
use crate::mesh;

/// The most calls at a time on one connection, if the callee takes as many.
const CALLS_MAX: usize = 256;

/// The most connections to one callee. With [`CALLS_MAX`] they carry as many calls as the proxy does.
const CONNECTIONS_MAX: usize = 32;

/// How often it is looked at who is there while calls run.
const LOOK: Duration = Duration::from_secs(1);

/// How much of one call's body waits to be written. What is on its way to be sent is one frame more.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// The connections to callees that serve gRPC.
#[derive(Debug, Default)]
pub(super) struct Lines {
    slots: Mutex<BTreeMap<BotName, Arc<Slot>>>,
}

/// The connections to one callee.
#[derive(Debug, Default)]
struct Slot {
    lines: Mutex<Vec<Line>>,
    /// Held while one connects, so that many calls that come at once open one connection and not many.
    connecting: tokio::sync::Mutex<()>,
}

/// One connection.
#[derive(Clone, Debug)]
struct Line {
    send: SendRequest<Bytes>,
    target: Target,
    used: Instant,
    shared: Arc<Shared>,
}

/// What the calls on a connection, its keeper and its task share.
#[derive(Debug)]
struct Shared {
    socket: Arc<Stream>,
    bot: BotName,
    busy: AtomicUsize,
    closed: AtomicBool,
    /// Who was found at the other end; nobody before the first check.
    found: Mutex<Option<Callee>>,
}

/// A connection in use by one call. Given back when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) send: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

/// Whose connections are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whom<'a> {
    pub(crate) attestor: &'a Attestor,
    pub(crate) bot: &'a BotName,
    pub(crate) target: &'a Target,
    /// How long connecting may take, where the mesh says so.
    pub(crate) connect: Option<Duration>,
    /// Where the tasks of connections belong.
    pub(crate) tasks: &'a TaskTracker,
}

impl Lines {
    /// Finds or opens a connection to the callee that has room for one call more.
    pub(super) async fn lease(&self, whom: Whom<'_>) -> Result<Lease, CalleeFault> {
        let slot = Arc::clone(self.slots().entry(whom.bot.clone()).or_default());
        if let Some(lease) = slot.take(whom).await? {
            return Ok(lease);
        }
        let _connecting = slot.connecting.lock().await;
        if let Some(lease) = slot.take(whom).await? {
            return Ok(lease);
        }
        if slot.lines().len() >= CONNECTIONS_MAX {
            return Err(CalleeFault::Full);
        }
        let line = connect(whom).await?;
        let lease = Lease::of(&line);
        slot.lines().push(line);
        Ok(lease)
    }

    /// Ends the connections that nobody used for long.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.slots().retain(|_, slot| {
            let mut lines = slot.lines();
            lines.retain(|line| !line.is_closed() && (line.busy() > 0 || now.duration_since(line.used) < IDLE));
            // Who holds the slot is about to open a connection.
            !lines.is_empty() || Arc::strong_count(slot) > 1
        });
    }

    /// A thread that panicked while it held the lock left a whole map.
    fn slots(&self) -> MutexGuard<'_, BTreeMap<BotName, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Takes the connection with the fewest calls that has room, checked where that is due.
    async fn take(&self, whom: Whom<'_>) -> Result<Option<Lease>, CalleeFault> {
        let Some(lease) = self.least_busy(whom.target) else {
            return Ok(None);
        };
        if !lease.shared.is_fresh() {
            // Who is somebody else now must not see the calls of before either.
            lease.shared.check(whom.attestor).await.inspect_err(|_other| {
                lease.shared.closed.store(true, Ordering::Release);
            })?;
        }
        Ok(Some(lease))
    }

    fn least_busy(&self, target: &Target) -> Option<Lease> {
        let mut lines = self.lines();
        // One to where the callee listened before ends with its calls.
        lines.retain(|line| !line.is_closed() && line.target == *target);
        let line = lines.iter_mut().min_by_key(|line| line.busy())?;
        if line.busy() >= CALLS_MAX.min(line.send.current_max_send_streams()) {
            return None;
        }
        line.used = Instant::now();
        Some(Lease::of(line))
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn busy(&self) -> usize {
        self.shared.busy.load(Ordering::Relaxed)
    }

    fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl Lease {
    fn of(line: &Line) -> Self {
        line.shared.busy.fetch_add(1, Ordering::Relaxed);
        Self {
            send: line.send.clone(),
            shared: Arc::clone(&line.shared),
        }
    }

    /// Has no further call use the connection; it ends with those under way.
    pub(super) fn retire(&self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Checks that whoever is at the other end is the bot.
    async fn check(&self, attestor: &Attestor) -> Result<(), CalleeFault> {
        let checked = match &*self.socket {
            Stream::Tcp(stream) => attestor.callee_tcp(stream, &self.bot).await,
            Stream::Unix(stream) => attestor.callee_unix(stream, &self.bot).await,
        };
        let found = checked.map_err(|source| CalleeFault::Mismatch {
            source: Box::new(source),
        })?;
        *self.found() = Some(found);
        Ok(())
    }

    /// Looks at whoever listens each second while calls run, until it is somebody else.
    async fn watch(&self, attestor: &Attestor) -> CalleeFault {
        loop {
            tokio::time::sleep(LOOK).await;
            let due = self.busy.load(Ordering::Relaxed) > 0 && !self.is_fresh();
            if due && let Err(fault) = self.check(attestor).await {
                return fault;
            }
        }
    }

    /// Tells whether the other end was found to be the bot within the last second.
    fn is_fresh(&self) -> bool {
        self.found().as_ref().is_some_and(Callee::is_fresh)
    }

    /// A thread that panicked while it held the lock left a whole value.
    fn found(&self) -> MutexGuard<'_, Option<Callee>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects, checks who is there, and starts HTTP/2.
async fn connect(whom: Whom<'_>) -> Result<Line, CalleeFault> {
    let opening = async {
        Ok(match whom.target {
            Target::Port(port) => {
                let stream = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, *port)).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Target::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
            Target::Elsewhere | Target::Endpoints(_) => {
                return Err(std::io::Error::from(std::io::ErrorKind::AddrNotAvailable));
            }
        })
    };
    let limit = whom.connect.unwrap_or(CONNECT);
    let opened = timeout(limit, opening).await.map_err(|_elapsed| CalleeFault::Slow)?;
    let place = || Place(whom.target.clone());
    let stream = Arc::new(opened.map_err(|source| CalleeFault::Connect { place: place(), source })?);
    let shared = Arc::new(Shared {
        socket: Arc::clone(&stream),
        bot: whom.bot.clone(),
        busy: AtomicUsize::new(0),
        closed: AtomicBool::new(false),
        found: Mutex::default(),
    });
    shared.check(whom.attestor).await?;
    // Sends the preface and waits for nothing: a callee that speaks something else is found out by the first call.
    let started = Builder::new()
        .enable_push(false)
        .initial_window_size(mesh::STREAM_WINDOW)
        .initial_connection_window_size(mesh::CONNECTION_WINDOW)
        .max_frame_size(mesh::FRAME_BYTES)
        .max_header_list_size(mesh::HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_local_error_reset_streams(Some(mesh::PROVOKED_RESETS_MAX))
        .handshake(Socket(stream))
        .await;
    let (send, connection) = started.map_err(|source| CalleeFault::Stream { source })?;
    let work = run(connection, Arc::clone(&shared), whom.attestor.clone());
    drop(whom.tasks.spawn(work));
    Ok(Line {
        send,
        target: whom.target.clone(),
        used: Instant::now(),
        shared,
    })
}

/// Serves a connection to its end, or until whoever listens is somebody else.
async fn run(connection: Connection<Socket, Bytes>, shared: Arc<Shared>, attestor: Attestor) {
    // Losing the connection midway is what another holder means: all calls on it end.
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(bot = %shared.bot, error = &error as &dyn std::error::Error, "a connection to a callee ended");
            }
        }
        fault = shared.watch(&attestor) => {
            tracing::warn!(
                bot = %shared.bot,
                error = &fault as &dyn std::error::Error,
                "ended the calls to a callee that is somebody else now"
            );
        }
    }
    shared.closed.store(true, Ordering::Release);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn line(send: SendRequest<Bytes>, socket: Arc<Stream>) -> Line {
        let shared = Shared {
            socket,
            bot: BotName::parse("prod/orders").unwrap(),
            busy: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            found: Mutex::default(),
        };
        Line {
            send,
            target: Target::Port(1),
            used: Instant::now(),
            shared: Arc::new(shared),
        }
    }

    async fn opened(near: UnixStream, tasks: &TaskTracker) -> Line {
        let socket = Arc::new(Stream::Unix(near));
        let (send, connection) = Builder::new().handshake(Socket(Arc::clone(&socket))).await.unwrap();
        drop(tasks.spawn(async move { connection.await.unwrap_or_default() }));
        line(send, socket)
    }

    /// A connection in use.
    pub(in super::super) async fn lease(near: UnixStream, tasks: &TaskTracker) -> Lease {
        Lease::of(&opened(near, tasks).await)
    }

    #[tokio::test]
    async fn a_connection_has_as_many_calls_as_its_callee_takes_and_none_when_it_is_closed() {
        let tasks = TaskTracker::new();
        let (near, far) = UnixStream::pair().unwrap();
        let mut few = h2::server::Builder::new();
        few.max_concurrent_streams(2);
        let (line, far) = tokio::join!(opened(near, &tasks), few.handshake::<_, Bytes>(far));
        let mut far = far.unwrap();
        // What the callee takes is known once its SETTINGS have come.
        while line.send.current_max_send_streams() != 2 {
            tokio::select! {
                _ = far.accept() => {}
                () = tokio::task::yield_now() => {}
            }
        }
        let slot = Slot::default();
        slot.lines().push(line.clone());
        let first = slot.least_busy(&Target::Port(1)).unwrap();
        let second = slot.least_busy(&Target::Port(1)).unwrap();
        assert!(slot.least_busy(&Target::Port(1)).is_none(), "it takes two");
        drop(second);
        assert!(slot.least_busy(&Target::Port(1)).is_some());
        assert!(slot.least_busy(&Target::Port(2)).is_none(), "it leads elsewhere");
        assert!(slot.lines().is_empty(), "and is forgotten");
        slot.lines().push(line.clone());
        first.retire();
        assert!(slot.least_busy(&Target::Port(1)).is_none());
    }
}
