//! Connections to the proxies of other hosts: TLS with the caller's SVID to exactly the callee's ID, and HTTP/2 on it.
//!
//! A connection belongs to one caller's certificate, one callee, one address and one trust bundle; whatever of these
//! changes means another connection for the calls that begin. So no call ever travels under a name that its connection
//! did not prove. Those under way stay where they are, and both ends go on to prove their names there ([`crate::reproof`]).

mod again;
mod connect;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use rustls::ClientConfig;
use spiffe::bundle::TrustBundle;
use spiffe::id::SpiffeId;
use spiffe::time::Timestamp;
use spiffe_tls::{HandshakeRefusal, Svid, TlsError};
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use crate::call::RequestBody;
use crate::live::Held;
use crate::mesh::{CLOSING, CONNECTION_WINDOW, STREAM_WINDOW, STREAMS_MAX};
use crate::proven::Proven;
use crate::proxy::Proxy;
use crate::reason::Reason;
pub(crate) use again::broken_by_caller;

/// How many calls run on a connection before another is opened beside it. Half of what the peer takes
/// ([`crate::mesh::STREAMS_MAX`]), so that a burst finds room.
const CALLS_PER_CONNECTION: usize = 128;

/// The most connections of one key.
const CONNECTIONS_MAX: usize = 8;

/// The same for connections of which nothing is read: a thousand at a time between two bots.
const OPAQUE_CONNECTIONS_MAX: usize = 256;

/// How long a connection is kept without calls.
const IDLE: Duration = Duration::from_secs(60);

/// How many of a callee's addresses are tried for one call.
const ADDRESSES_TRIED_MAX: usize = 3;

/// The connections to other proxies.
#[derive(Debug)]
pub(crate) struct Pool {
    reuse: bool,
    slots: Mutex<BTreeMap<Key, Arc<Slot>>>,
    turn: AtomicUsize,
}

/// What a connection belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    caller: [u8; 32],
    callee: SpiffeId,
    address: SocketAddr,
    bundle: u64,
    streams: Streams,
}

/// The connections of one key.
#[derive(Debug)]
struct Slot {
    tls: Arc<ClientConfig>,
    links: Mutex<Vec<Link>>,
    /// Held while one connects, so that many calls that come at once open one connection and not many.
    connecting: tokio::sync::Mutex<()>,
}

/// One connection.
#[derive(Clone, Debug)]
struct Link {
    send: SendRequest<RequestBody>,
    need: Arc<Need>,
    used: Instant,
    /// The SVIDs of both ends; with the first that ends the connection does.
    proven: Arc<Proven>,
}

/// Who needs a connection: the pool and the calls on it. With the last of them its control stream ends, and then it.
#[derive(Debug)]
struct Need {
    busy: AtomicUsize,
    _unneeded: DropGuard,
}

/// A connection in use by one call. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    need: Arc<Need>,
    proven: Arc<Proven>,
}

impl Link {
    fn busy(&self) -> usize {
        self.need.busy.load(Ordering::Relaxed)
    }
}

impl Lease {
    fn of(link: &Link) -> Self {
        link.need.busy.fetch_add(1, Ordering::Relaxed);
        Self {
            need: Arc::clone(&link.need),
            proven: Arc::clone(&link.proven),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.need.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The other end of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer<'a> {
    /// As whom the call is made.
    pub(crate) svid: &'a Svid,
    /// Who must be at the other end.
    pub(crate) callee: &'a SpiffeId,
    /// By which authorities.
    pub(crate) bundle: &'a Arc<TrustBundle>,
    /// How long connecting may take, with the handshake, where the mesh says so.
    pub(crate) connect: Option<Duration>,
    /// Where; not empty.
    pub(crate) addresses: &'a [SocketAddr],
    /// For what.
    pub(crate) streams: Streams,
}

/// What the streams of a connection carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Streams {
    /// Requests, which end soon or move on.
    Requests,
    /// Connections of which nothing is read, whose callers may take nothing for hours. What then waits in one of them
    /// takes room of the window that all streams of a connection share, so there are no more of them on a connection than
    /// it has room for, and no requests beside them.
    Connections,
}

impl Streams {
    /// How many run on a connection before another is opened beside it.
    const fn per_connection(self) -> usize {
        match self {
            Self::Requests => CALLS_PER_CONNECTION,
            Self::Connections => (CONNECTION_WINDOW / STREAM_WINDOW) as usize,
        }
    }

    /// How many run on a connection where no other may be opened.
    const fn per_connection_max(self) -> usize {
        match self {
            Self::Requests => STREAMS_MAX as usize,
            Self::Connections => self.per_connection(),
        }
    }

    /// The most connections of one key.
    const fn connections_max(self) -> usize {
        match self {
            Self::Requests => CONNECTIONS_MAX,
            Self::Connections => OPAQUE_CONNECTIONS_MAX,
        }
    }
}

impl Pool {
    pub(crate) fn new(reuse: bool) -> Self {
        Self {
            reuse,
            slots: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Sends a request and waits for the head of its answer. Addresses are taken in turn; one that cannot be reached is
    /// followed by the next, for until then nothing was sent. A call that is known not to have begun at the other end,
    /// which restarts, is sent again.
    pub(crate) async fn call(
        &self,
        proxy: &Arc<Proxy>,
        peer: Peer<'_>,
        mut request: Request<RequestBody>,
        held: &Held,
    ) -> Result<(Response<Incoming>, Lease), PoolFault> {
        let mut turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (mut tries, mut times) = (peer.addresses.len().min(ADDRESSES_TRIED_MAX), again::TIMES);
        let mut last = PoolFault::NoAddress;
        while tries > 0 {
            let Some(address) = peer.addresses.get(turn % peer.addresses.len()) else {
                break;
            };
            turn = turn.wrapping_add(1);
            let (send, lease) = match self.lease(proxy, peer, *address).await {
                Ok(leased) => leased,
                // Somebody else where the callee should be is never passed over: a call that went on to the next address
                // would hide it.
                Err(fault @ (PoolFault::WrongId { .. } | PoolFault::Refused { .. })) => return Err(fault),
                Err(fault) => {
                    let again = times > 0 && again::broke_off(&fault);
                    *(if again { &mut times } else { &mut tries }) -= 1;
                    last = fault;
                    continue;
                }
            };
            if let Err(reason) = held.reached(proxy, &lease.proven) {
                last = PoolFault::Cut { reason };
                tries -= 1;
                continue;
            }
            // Boxed, for every connection of a bot would keep the room of two requests.
            match Box::pin(exchange(send, request)).await {
                Ok(mut answer) => {
                    if answer.headers_mut().remove(CLOSING).is_some() {
                        self.retire(&lease);
                    }
                    return Ok((answer, lease));
                }
                Err((Some(unsent), source)) if times > 0 => {
                    request = unsent;
                    last = PoolFault::Exchange { source };
                    times -= 1;
                }
                Err((_, source)) => return Err(PoolFault::Exchange { source }),
            }
        }
        Err(last)
    }

    /// Finds or opens a connection.
    async fn lease(
        &self,
        proxy: &Arc<Proxy>,
        peer: Peer<'_>,
        address: SocketAddr,
    ) -> Result<(SendRequest<RequestBody>, Lease), PoolFault> {
        let slot = self.slot(proxy, peer, address)?;
        if !self.reuse {
            let link = Box::pin(connect::connect(proxy, &slot.tls, peer, address)).await?;
            let lease = Lease::of(&link);
            return Ok((link.send, lease));
        }
        let now = proxy.control.now();
        if let Some(leased) = slot.least_busy(now, peer.streams.per_connection()) {
            return Ok(leased);
        }
        let _connecting = slot.connecting.lock().await;
        if let Some(leased) = slot.least_busy(now, peer.streams.per_connection()) {
            return Ok(leased);
        }
        if slot.links().len() >= peer.streams.connections_max() {
            return slot
                .least_busy(now, peer.streams.per_connection_max())
                .ok_or(PoolFault::Full);
        }
        let link = Box::pin(connect::connect(proxy, &slot.tls, peer, address)).await?;
        let lease = Lease::of(&link);
        let send = link.send.clone();
        slot.links().push(link);
        Ok((send, lease))
    }

    fn slot(&self, proxy: &Proxy, peer: Peer<'_>, address: SocketAddr) -> Result<Arc<Slot>, PoolFault> {
        let key = Key {
            caller: *peer.svid.leaf().sha256(),
            callee: peer.callee.clone(),
            address,
            bundle: peer.bundle.sequence(),
            streams: peer.streams,
        };
        if let Some(slot) = self.slots().get(&key) {
            return Ok(Arc::clone(slot));
        }
        let tls = connect::config(proxy, peer)?;
        let slot = Arc::new(Slot {
            tls,
            links: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        });
        Ok(Arc::clone(self.slots().entry(key).or_insert(slot)))
    }

    /// Ends connections that nobody used for long or whose callee's SVID has ended, and forgets keys without any.
    pub(crate) fn sweep(&self, now: Timestamp) {
        let moment = Instant::now();
        self.slots().retain(|_, slot| {
            let mut links = slot.links();
            links.retain(|link| {
                let idle = link.busy() == 0 && moment.duration_since(link.used) >= IDLE;
                !idle && !link.send.is_closed() && link.proven.holds(now)
            });
            // A key that somebody holds is about to get a connection.
            !links.is_empty() || Arc::strong_count(slot) > 1
        });
    }

    /// Has no further call use the connection of a call; it ends with the last one under way.
    fn retire(&self, lease: &Lease) {
        for slot in self.slots().values() {
            slot.links().retain(|link| !Arc::ptr_eq(&link.need, &lease.need));
        }
    }

    /// Lets go of connections that had no call for this long.
    pub(crate) fn close_idle(&self, quiet: Duration) {
        let moment = Instant::now();
        self.slots().retain(|_, slot| {
            let mut links = slot.links();
            links.retain(|link| link.busy() > 0 || moment.saturating_duration_since(link.used) < quiet);
            !links.is_empty() || Arc::strong_count(slot) > 1
        });
    }

    /// A thread that panicked while it held the lock left a whole map.
    fn slots(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a request; with an error comes the request, where it is known that nobody began to carry it.
async fn exchange(
    mut send: SendRequest<RequestBody>,
    request: Request<RequestBody>,
) -> Result<Response<Incoming>, (Option<Request<RequestBody>>, hyper::Error)> {
    let spare = again::spare(&request);
    send.try_send_request(request).await.map_err(|mut failed| {
        // The connection ended before the request was sent: it comes back whole.
        if let Some(unsent) = failed.take_message() {
            return (Some(unsent), failed.into_error());
        }
        let error = failed.into_error();
        (
            spare.filter(|spare| again::was_not_begun(&error, spare.method())),
            error,
        )
    })
}

impl Slot {
    /// Takes the connection with the fewest calls, if it has fewer than `most`.
    fn least_busy(&self, now: Timestamp, most: usize) -> Option<(SendRequest<RequestBody>, Lease)> {
        let mut links = self.links();
        links.retain(|link| !link.send.is_closed() && link.proven.holds(now));
        let link = links.iter_mut().min_by_key(|link| link.busy())?;
        if link.busy() >= most {
            return None;
        }
        link.used = Instant::now();
        Some((link.send.clone(), Lease::of(link)))
    }

    fn links(&self) -> MutexGuard<'_, Vec<Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a call did not come back from another proxy.
#[derive(Debug, Error)]
pub(crate) enum PoolFault {
    /// There is nobody to call.
    #[error("the callee has no address")]
    NoAddress,
    /// The caller's SVID or the bundle is not usable.
    #[error("set up TLS in the caller's name")]
    Config {
        /// Why.
        #[source]
        source: TlsError,
    },
    /// Nobody listens, or too slowly.
    #[error("connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The other end is somebody else.
    #[error("{address} is not the callee's proxy")]
    WrongId {
        /// Where.
        address: SocketAddr,
        /// Who it is.
        #[source]
        source: HandshakeRefusal,
    },
    /// The other end proved nothing.
    #[error("{address} proved nothing")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: HandshakeRefusal,
    },
    /// The handshake failed for another reason, or the other end refused us.
    #[error("shake hands with {address}")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// The other end does not speak HTTP/2.
    #[error("{address} does not speak HTTP/2")]
    Protocol {
        /// Where.
        address: SocketAddr,
        /// What happened, if it began to.
        #[source]
        source: Option<hyper::Error>,
    },
    /// The connection failed under the call.
    #[error("send the call and read its answer")]
    Exchange {
        /// What happened.
        #[source]
        source: hyper::Error,
    },
    /// The call may not be made any more, or not to that host.
    #[error("the call was ended: {reason}")]
    Cut {
        /// Why.
        reason: Reason,
    },
    /// All connections are full.
    #[error("all connections to the callee's proxy are full")]
    Full,
    /// It took too long.
    #[error("no answer in time")]
    Slow,
}
