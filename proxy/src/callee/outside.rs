//! Connections to destinations outside.
//!
//! One carries the calls of one caller to one destination, by the authorities that the mesh names for it: nobody outside can
//! tell two bots by a connection that they share, and what one bot did on it is no other one's. Nor are calls by an address that is
//! a secret, whose answers are searched for it, beside others to the same host. An address that the mesh
//! allows no more is not used, however long the connection has been kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::{Outside, OutsideDestination};
use rustls::sign::CertifiedKey;
use spiffe::id::BotName;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::exchange;
use super::greeting::Greeting;
use super::switch::{Switched, Wish};
use super::tunnel::Guard;
use super::{CalleeBody, CalleeFault, CalleeRequest, Callees, Connection, IDLE, Kept, TunnelBody, Whose};
use crate::call::RequestBody;
use crate::ends;
use crate::http1::status::AnswerHead;
use crate::live::Held;
use crate::outside::WayOut;
use crate::outside::address;
use crate::outside::connect::{Database, OutsideFault, Stream};

/// The most connections of one caller to one destination that are kept open between calls: as many as a bot that asks much has
/// calls at a time, for each further one is a TLS handshake.
const IDLE_MAX: usize = 128;

/// The most of them all.
const ALL_IDLE_MAX: usize = 2_048;

/// Who calls whom, and what the mesh says of that destination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving<'a> {
    pub(crate) from: &'a BotName,
    /// As rules name it.
    pub(crate) to: &'a Outside,
    /// Where it is: the same, unless its address is a secret.
    pub(crate) at: &'a Outside,
    pub(crate) said: &'a OutsideDestination,
}

/// A connection to a destination, for one call.
#[derive(Debug)]
pub(crate) struct OutsideLine {
    connection: Box<Connection>,
    /// Where it leads.
    pub(crate) address: SocketAddr,
    /// Whether an earlier call had it.
    pub(crate) kept: bool,
}

/// Whose a connection is, and where it leads.
#[derive(Debug)]
pub(super) struct OfOutside {
    key: Key,
    address: SocketAddr,
}

/// Who uses it, whom it reaches, and who vouched for that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    from: BotName,
    to: Outside,
    at: Outside,
    ca: Option<Arc<str>>,
}

/// The connections to destinations that wait for calls.
#[derive(Debug)]
pub(super) struct Outsides {
    idle: Mutex<BTreeMap<Key, Kept>>,
    way_out: WayOut,
}

impl Outsides {
    pub(super) fn new(way_out: WayOut) -> Self {
        Self {
            idle: Mutex::default(),
            way_out,
        }
    }

    pub(super) const fn way_out(&self) -> &WayOut {
        &self.way_out
    }

    /// Keeps a connection for later calls of the same caller.
    pub(super) fn keep(&self, connection: Box<Connection>) {
        let Whose::Outside(of) = &connection.whose else {
            return;
        };
        let mut idle = self.idle();
        if idle.values().map(Vec::len).sum::<usize>() >= ALL_IDLE_MAX {
            return;
        }
        let kept = idle.entry(of.key.clone()).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(connection);
        }
    }

    /// Ends the connections that nobody used for long.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.idle().retain(|_, kept| {
            kept.retain(|connection| now.duration_since(connection.used) < IDLE);
            !kept.is_empty()
        });
    }

    /// Takes a kept connection that is still good.
    fn take(&self, key: &Key, said: &OutsideDestination) -> Option<OutsideLine> {
        let now = Instant::now();
        loop {
            // The newest first: those that are not needed grow old and end.
            let mut connection = self.idle().get_mut(key)?.pop()?;
            let Whose::Outside(of) = &connection.whose else {
                continue;
            };
            let address = of.address;
            let may = address::judge(address.ip(), &said.addresses).is_ok();
            if may && now.duration_since(connection.used) < IDLE && !connection.reader.is_stale() {
                return Some(OutsideLine {
                    connection,
                    address,
                    kept: true,
                });
            }
        }
    }

    /// A thread that panicked while it held the lock left whole connections.
    fn idle(&self) -> MutexGuard<'_, BTreeMap<Key, Kept>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Callees {
    /// Finds a connection to a destination that an earlier call of the same caller has left, or opens one.
    pub(crate) async fn leave(&self, leaving: Leaving<'_>) -> Result<OutsideLine, OutsideFault> {
        match self.outside.take(&leaving.key(), leaving.said) {
            Some(kept) => Ok(kept),
            None => self.leave_anew(leaving).await,
        }
    }

    /// Opens a connection to a destination.
    pub(crate) async fn leave_anew(&self, leaving: Leaving<'_>) -> Result<OutsideLine, OutsideFault> {
        let connected = self.outside.way_out.connect(leaving.at, leaving.said).await?;
        let ends = match connected.stream {
            Stream::Plain(stream) => ends::tcp(stream),
            Stream::Tls(stream) => ends::tls(*stream),
        };
        let address = connected.address;
        let whose = Whose::Outside(OfOutside {
            key: leaving.key(),
            address,
        });
        Ok(OutsideLine {
            connection: self.connection(ends, whose),
            address,
            kept: false,
        })
    }

    /// Connects to a server of PostgreSQL, as [`WayOut::reach_database`] does.
    pub(crate) async fn reach_database(
        &self,
        to: &Outside,
        said: &OutsideDestination,
        shown: Option<Arc<CertifiedKey>>,
        at: Option<SocketAddr>,
    ) -> Result<Database, OutsideFault> {
        self.outside.way_out.reach_database(to, said, shown, at).await
    }

    /// Has `body` be said to a server at which the proxy has authenticated, and gives what it says.
    pub(crate) fn pass(
        &self,
        leaving: Leaving<'_>,
        database: Database,
        body: RequestBody,
        tasks: &TaskTracker,
    ) -> TunnelBody {
        let whose = Whose::Outside(OfOutside {
            key: leaving.key(),
            address: database.address,
        });
        let connection = self.connection(ends::tls(database.stream), whose);
        TunnelBody::open(*connection, body, Guard::None, tasks)
    }

    /// Sends a request to a destination and reads the head of its answer.
    pub(crate) async fn ask_outside(
        self: &Arc<Self>,
        line: OutsideLine,
        request: &CalleeRequest,
        body: RequestBody,
    ) -> Result<(AnswerHead, CalleeBody), CalleeFault> {
        exchange::exchange(self, line.connection, request, body).await
    }

    /// Asks a destination to switch to another protocol.
    pub(crate) async fn switch_outside(
        self: &Arc<Self>,
        line: OutsideLine,
        wish: Wish,
        body: RequestBody,
    ) -> Result<(AnswerHead, Switched), CalleeFault> {
        self.switch_on(line.connection, Guard::None, wish, body).await
    }
}

impl OutsideLine {
    /// Has `body`, which is TLS that asks for `host`, be said to the destination, and gives what it says.
    pub(crate) fn tunnel(self, host: &str, body: RequestBody, held: Held, tasks: &TaskTracker) -> TunnelBody {
        let guard = Guard::Hello(Greeting::new(host, held));
        TunnelBody::open(*self.connection, body, guard, tasks)
    }
}

impl Leaving<'_> {
    fn key(&self) -> Key {
        Key {
            from: self.from.clone(),
            to: self.to.clone(),
            at: self.at.clone(),
            ca: self.said.ca.clone(),
        }
    }
}
