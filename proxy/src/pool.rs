//! Connections to the proxies of other hosts: TLS with the caller's SVID to exactly the callee's ID, and HTTP/2 on it.
//!
//! A connection belongs to one caller's certificate, one callee, one address and one trust bundle; whatever of these
//! changes means another connection for the calls that begin. So no call ever travels under a name that its connection
//! did not prove. Those under way stay where they are, and both ends go on to prove their names there ([`crate::reproof`]).

mod again;
mod connect;
mod fault;
mod one_task;
mod way;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use rustls::ClientConfig;
use spiffe::bundle::TrustBundle;
use spiffe::id::SpiffeId;
use spiffe::time::{Clock, Timestamp};
use spiffe_tls::Svid;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use crate::call::{HopBody, RequestBody};
use crate::hop;
use crate::live::Held;
use crate::mesh::{CLOSING, CONNECTION_WINDOW, STREAM_WINDOW, STREAMS_MAX};
use crate::proven::Proven;
use crate::proxy::Proxy;
use crate::upstream::{Admitted, Using};
pub(crate) use again::broken_by_caller;
use again::{Chance, Chances};
pub(crate) use fault::PoolFault;
use way::{Failed, Way};

/// How many calls run on a connection before another is opened beside it. Half of what the peer takes
/// ([`crate::mesh::STREAMS_MAX`]), so that a burst finds room.
const CALLS_PER_CONNECTION: usize = 128;

/// The most connections of one key.
const CONNECTIONS_MAX: usize = 8;

/// The same for connections of which nothing is read: a thousand at a time between two bots.
const OPAQUE_CONNECTIONS_MAX: usize = 256;

/// How long a connection is kept without calls.
const IDLE: Duration = Duration::from_secs(60);

/// The connections to other proxies.
#[derive(Debug)]
pub(crate) struct Pool {
    reuse: bool,
    slots: Mutex<BTreeMap<Key, Arc<Slot>>>,
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
    /// How many calls wait for a connection.
    waiting: AtomicUsize,
    /// Held while one connects, so that many calls that come at once open one connection and not many.
    connecting: tokio::sync::Mutex<()>,
}

/// One connection.
#[derive(Clone, Debug)]
struct Link {
    send: Way,
    need: Arc<Need>,
    used: Instant,
    /// The SVIDs of both ends; with the first that ends the connection does.
    proven: Arc<Proven>,
}

/// A call that waits for a connection. Dropped, it gives its place to another.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who needs a connection: the pool and the calls on it. With the last of them its control stream ends, and then it.
#[derive(Debug)]
struct Need {
    busy: AtomicUsize,
    _ends: Ends,
}

/// Ends what a connection ends with when it is dropped.
#[derive(Debug)]
enum Ends {
    /// The connection itself.
    Own(#[expect(dead_code, reason = "its drop does it")] hop::Unneeded),
    /// A control stream, and the connection with it.
    Http2(#[expect(dead_code, reason = "its drop does it")] DropGuard),
}

/// A connection in use by one call. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    need: Arc<Need>,
    proven: Arc<Proven>,
    using: Using,
}

impl Link {
    fn busy(&self) -> usize {
        self.need.busy.load(Ordering::Relaxed)
    }
}

impl Lease {
    fn of(link: &Link, using: Using) -> Self {
        link.need.busy.fetch_add(1, Ordering::Relaxed);
        Self {
            need: Arc::clone(&link.need),
            proven: Arc::clone(&link.proven),
            using,
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
    /// The place of the call among those to the callee.
    pub(crate) admitted: &'a Admitted,
    /// How often it may be sent again once it may have begun.
    pub(crate) retries: u32,
    /// How many calls may wait for a connection.
    pub(crate) pending: usize,
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
        }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// What was not sent is sent elsewhere: to another endpoint where one cannot be reached, and again where the other
    /// end, which restarts, is known not to have begun. What may have begun is sent a second time only where that is the
    /// same as once (RFC 9110 §9.2.2). Each time but the first takes from the caller's budget, and nothing is sent again
    /// after a byte of an answer.
    pub(crate) async fn call(
        &self,
        proxy: &Arc<Proxy>,
        peer: Peer<'_>,
        mut request: Request<RequestBody>,
        held: &Held,
    ) -> Result<(Response<HopBody>, Lease), PoolFault> {
        let (upstreams, upstream) = (&proxy.upstreams, peer.admitted.upstream());
        let endpoints = upstream.endpoints(peer.addresses);
        let mut chances = Chances::new(&endpoints, peer.retries);
        let mut next = chances.first(upstreams).ok_or(PoolFault::NoAddress)?;
        loop {
            peer.admitted.tried();
            let using = upstreams.using(next);
            let (fault, chance) = match self.lease(proxy, peer, using).await {
                Ok((send, mut lease)) => match held.reached(proxy, &lease.proven) {
                    // Boxed, for every connection of a bot would keep the room of two requests.
                    Ok(()) => match Box::pin(exchange(send, request, &mut lease.using)).await {
                        Ok(mut answer) => {
                            if answer.headers_mut().remove(CLOSING).is_some() {
                                self.retire(&lease);
                            }
                            return Ok((answer, lease));
                        }
                        Err(failed) => match *failed {
                            (Some((spare, chance)), source) => {
                                request = spare;
                                (PoolFault::Exchange { source }, chance)
                            }
                            (None, source) => return Err(PoolFault::Exchange { source }),
                        },
                    },
                    Err(reason) => (PoolFault::Cut { reason }, Chance::Elsewhere),
                },
                // Somebody else where the callee should be is never passed over: a call that went on to the next address
                // would hide it.
                Err(fault @ (PoolFault::WrongId { .. } | PoolFault::Refused { .. })) => return Err(fault),
                Err(fault) if again::broke_off(&fault) => (fault, Chance::NotBegun),
                Err(fault) => (fault, Chance::Elsewhere),
            };
            match chances.next(upstreams, chance) {
                Some(endpoint) if peer.admitted.may_retry(upstreams.now()) => next = endpoint,
                Some(_) | None => return Err(fault),
            }
        }
    }

    /// Finds or opens a connection.
    async fn lease(&self, proxy: &Arc<Proxy>, peer: Peer<'_>, using: Using) -> Result<(Way, Lease), PoolFault> {
        let address = using.endpoint().address;
        let slot = self.slot(&proxy.clock, peer, address)?;
        if !self.reuse {
            let link = Box::pin(connected(proxy, &slot, peer, &using)).await?;
            let lease = Lease::of(&link, using);
            return Ok((link.send, lease));
        }
        let now = proxy.control.now();
        if let Some((send, link)) = slot.least_busy(now, peer.streams.per_connection()) {
            return Ok((send, Lease::of(&link, using)));
        }
        let failures = using.endpoint().failures();
        let _waiting = slot.wait(peer.pending)?;
        let _connecting = slot.connecting.lock().await;
        if let Some((send, link)) = slot.least_busy(now, peer.streams.per_connection()) {
            return Ok((send, Lease::of(&link, using)));
        }
        if using.endpoint().failures() > failures {
            // Whoever came first waited for nothing. One wait is enough for all.
            return Err(PoolFault::Ejected { address });
        }
        if slot.links().len() >= peer.streams.connections_max() {
            let (send, link) = slot
                .least_busy(now, peer.streams.per_connection_max())
                .ok_or(PoolFault::Full)?;
            return Ok((send, Lease::of(&link, using)));
        }
        let link = Box::pin(connected(proxy, &slot, peer, &using)).await?;
        let send = link.send.clone();
        let lease = Lease::of(&link, using);
        slot.links().push(link);
        Ok((send, lease))
    }

    fn slot(&self, clock: &Clock, peer: Peer<'_>, address: SocketAddr) -> Result<Arc<Slot>, PoolFault> {
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
        let tls = connect::config(clock, peer)?;
        let slot = Arc::new(Slot {
            tls,
            links: Mutex::default(),
            waiting: AtomicUsize::new(0),
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

/// Connects, and notes at the endpoint what came of it.
async fn connected(proxy: &Arc<Proxy>, slot: &Slot, peer: Peer<'_>, using: &Using) -> Result<Link, PoolFault> {
    let (upstream, endpoint) = (peer.admitted.upstream(), using.endpoint());
    let link = connect::connect(proxy, &slot.tls, peer, endpoint.address).await;
    match &link {
        Ok(_) => upstream.connected(endpoint),
        Err(fault) if again::is_down(fault) => {
            upstream.eject(endpoint, proxy.upstreams.now(), proxy.upstreams.random());
        }
        Err(_) => {}
    }
    link
}

/// Sends a request, and notes at the endpoint what came of it.
async fn exchange(send: Way, request: Request<RequestBody>, using: &mut Using) -> Result<Response<HopBody>, Failed> {
    using.sent();
    let answered = send.call(request).await;
    if answered.is_ok() {
        using.answered();
    }
    answered
}

impl Slot {
    /// Takes the connection with the fewest calls, if it has fewer than `most`.
    fn least_busy(&self, now: Timestamp, most: usize) -> Option<(Way, Link)> {
        let mut links = self.links();
        links.retain(|link| !link.send.is_closed() && link.proven.holds(now));
        let link = links.iter_mut().min_by_key(|link| link.busy())?;
        if link.busy() >= most {
            return None;
        }
        link.used = Instant::now();
        Some((link.send.clone(), link.clone()))
    }

    /// Takes one of the places of those who wait for a connection.
    fn wait(&self, most: usize) -> Result<Waiting<'_>, PoolFault> {
        // Counted first and looked at afterwards, so that two that come at once do not both take the last place.
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) < most {
            Ok(waiting)
        } else {
            Err(PoolFault::Pending)
        }
    }

    fn links(&self) -> MutexGuard<'_, Vec<Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
