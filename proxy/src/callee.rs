//! Connections to whoever is called without another proxy in between: the bots of this host, and destinations outside
//! ([`outside`]).
//!
//! A bot that serves gRPC is called by HTTP/2 ([`lines`], [`stream`]), every other one by
//! HTTP/1.1 with our own writer and reader: one write carries head and body, one read mostly brings the whole answer,
//! and no task or channel stands in between. Whoever listens is checked before anything is sent, and was checked within
//! the last second at each call after that: mostly beside the calls ([`Attestor::watch`]). A connection carries the calls
//! of many callers, for who calls is said on each call; it is never used for another callee.

mod exchange;
mod greeting;
mod lines;
mod opaque;
mod outside;
mod socket;
mod stream;
mod switch;
mod tunnel;
mod upload;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use policy::{Endpoint, Target};
use spiffe::id::BotName;
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use crate::attest::{self, Attestor, CalleeMismatch};
use crate::call::{RequestBody, RequestError};
use crate::ends::{self, ReadEnd, Socket, WriteEnd};
use crate::http1::Limits;
use crate::http1::head::HeadError;
use crate::http1::read::Reader;
use crate::http1::status::AnswerHead;
use crate::http1::write::Writer;
use crate::outside::WayOut;
use crate::outside::resolve::ResolveError;
use crate::upstream::Admitted;
use lines::Lines;
use outside::{OfOutside, Outsides};

pub(crate) use exchange::CalleeBody;
pub(crate) use lines::Whom;
pub(crate) use opaque::{Introduction, Opaque};
pub(crate) use outside::{Leaving, OutsideLine};
pub(crate) use stream::{StreamBody, StreamRequest};
pub(crate) use switch::{Switched, Wish};
pub(crate) use tunnel::TunnelBody;

/// The most connections to one callee that are kept open between calls. Fewer than calls come at a time, and each of the
/// others would connect anew and have it looked at anew who listens, which costs more than the call.
const IDLE_MAX: usize = 512;

/// How long a connection is kept open between calls. Servers commonly wait longer.
const IDLE: Duration = Duration::from_secs(30);

/// How long connecting may take where the mesh does not say: the callee is on this host.
const CONNECT: Duration = Duration::from_secs(2);

/// The connections to callees that wait for calls.
#[derive(Debug)]
pub(crate) struct Callees {
    idle: Mutex<BTreeMap<BotName, Kept>>,
    /// To those that serve gRPC.
    lines: Lines,
    /// To destinations outside.
    outside: Outsides,
    limits: Limits,
}

/// The connections that wait for calls to one callee, in boxes in which they go from step to step of a call.
type Kept = Vec<Box<Connection>>;

/// One connection to a callee.
#[derive(Debug)]
struct Connection {
    reader: Reader<ReadEnd>,
    writer: Writer<WriteEnd>,
    whose: Whose,
    used: Instant,
}

/// Whom a connection leads to, and who may use it.
#[derive(Debug)]
enum Whose {
    /// To a bot of this host, for all callers.
    Bot(OfBot),
    /// To a destination outside, for one caller.
    Outside(OfOutside),
}

/// A bot of this host.
#[derive(Debug)]
struct OfBot {
    bot: BotName,
    target: Target,
    /// Who is at the other end; nobody knows before the first check.
    end: Option<attest::Callee>,
}

/// A request, ready to be written.
#[derive(Debug)]
pub(crate) struct CalleeRequest {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: Bytes,
    pub(crate) headers: HeaderMap,
    /// How long the answer's head is waited for once nothing of the request moves.
    pub(crate) patience: Duration,
    /// How long connecting may take, where the mesh says so.
    pub(crate) connect: Option<Duration>,
}

/// Whose budget a call that is sent again takes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Again<'a> {
    /// The place of the call among those to the callee.
    pub(crate) admitted: &'a Admitted,
    /// When it began.
    pub(crate) now: Duration,
}

impl Again<'_> {
    fn may(self) -> bool {
        let may = self.admitted.may_retry(self.now);
        if may {
            self.admitted.tried();
        }
        may
    }
}

impl Callees {
    pub(crate) fn new(limits: Limits, way_out: WayOut) -> Self {
        Self {
            idle: Mutex::default(),
            lines: Lines::default(),
            outside: Outsides::new(way_out),
            limits,
        }
    }

    /// Gives the addresses at which a bot that opens its own mutual TLS can be tried.
    ///
    /// # Errors
    /// When none of its endpoints has one.
    pub(crate) async fn addresses(&self, endpoints: &[Endpoint]) -> Result<Vec<SocketAddr>, ResolveError> {
        self.outside.way_out().addresses(endpoints).await
    }

    /// Calls a bot of this host.
    ///
    /// A call is sent a second time only when its connection had been kept from an earlier call and ended without a
    /// byte of an answer, its body is here whole, and sending it twice is the same as once (RFC 9110 §9.2.2, RFC 9112
    /// §9.3.1).
    pub(crate) async fn call(
        self: &Arc<Self>,
        attestor: &Attestor,
        bot: &BotName,
        target: &Target,
        request: CalleeRequest,
        body: RequestBody,
        tries: Again<'_>,
    ) -> Result<(AnswerHead, CalleeBody), CalleeFault> {
        tries.admitted.tried();
        let again = body.as_whole().filter(|_| request.method.is_idempotent());
        let none = body.is_empty();
        if let Some(kept) = self.take(attestor, bot, target).await? {
            match exchange::exchange(self, kept, &request, body).await {
                Err(CalleeFault::Gone { begun: false }) if again.is_some() && tries.may() => {}
                done => return done,
            }
            let body = again
                .filter(|_| !none)
                .map_or_else(RequestBody::empty, RequestBody::whole);
            // Connecting is rare and needs much room.
            let fresh = Box::pin(self.connect(attestor, bot, target, request.connect)).await?;
            return exchange::exchange(self, fresh, &request, body).await;
        }
        let fresh = Box::pin(self.connect(attestor, bot, target, request.connect)).await?;
        exchange::exchange(self, fresh, &request, body).await
    }

    /// Connects and checks who listens, as a call would, and sends nothing.
    pub(crate) async fn look(&self, attestor: &Attestor, bot: &BotName, target: &Target) -> Result<(), CalleeFault> {
        Box::pin(self.connect(attestor, bot, target, None)).await.map(drop)
    }

    /// Takes a kept connection that is still good.
    async fn take(
        &self,
        attestor: &Attestor,
        bot: &BotName,
        target: &Target,
    ) -> Result<Option<Box<Connection>>, CalleeFault> {
        let now = Instant::now();
        loop {
            // The newest first: those that are not needed grow old and end.
            let Some(mut kept) = self.idle().get_mut(bot).and_then(Vec::pop) else {
                return Ok(None);
            };
            let Whose::Bot(of) = &kept.whose else {
                continue;
            };
            let fresh = now.duration_since(kept.used) < IDLE && of.target == *target;
            let is_checked = of.end.as_ref().is_some_and(attest::Callee::is_fresh);
            if !fresh || kept.reader.is_stale() {
                continue;
            }
            if !is_checked {
                kept.check(attestor, bot).await?;
            }
            return Ok(Some(kept));
        }
    }

    /// Keeps a connection for later calls.
    fn keep(&self, mut connection: Box<Connection>) {
        connection.used = Instant::now();
        let Whose::Bot(of) = &connection.whose else {
            return self.outside.keep(connection);
        };
        let mut idle = self.idle();
        let kept = idle.entry(of.bot.clone()).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(connection);
        }
    }

    /// Ends the connections that nobody used for long.
    pub(crate) fn sweep(&self) {
        self.lines.sweep();
        self.outside.sweep();
        let now = Instant::now();
        self.idle().retain(|_, kept| {
            kept.retain(|connection| now.duration_since(connection.used) < IDLE);
            !kept.is_empty()
        });
    }

    /// A thread that panicked while it held the lock left whole connections.
    fn idle(&self) -> MutexGuard<'_, BTreeMap<BotName, Kept>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(
        &self,
        attestor: &Attestor,
        bot: &BotName,
        target: &Target,
        limit: Option<Duration>,
    ) -> Result<Box<Connection>, CalleeFault> {
        let connecting = async {
            match target {
                Target::Port(port) => {
                    let stream = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, *port)).await?;
                    stream.set_nodelay(true)?;
                    Ok(ends::tcp(stream))
                }
                Target::Unix(path) => Ok(ends::unix(UnixStream::connect(path).await?)),
                Target::Elsewhere | Target::Endpoints(_) => {
                    Err(std::io::Error::from(std::io::ErrorKind::AddrNotAvailable))
                }
            }
        };
        let place = || Place(target.clone());
        let connected = timeout(limit.unwrap_or(CONNECT), connecting)
            .await
            .map_err(|_elapsed| CalleeFault::Slow)?;
        let (read, write) = connected.map_err(|source| CalleeFault::Connect { place: place(), source })?;
        let whose = Whose::Bot(OfBot {
            bot: bot.clone(),
            target: target.clone(),
            end: None,
        });
        let mut connection = self.connection((read, write), whose);
        connection.check(attestor, bot).await?;
        Ok(connection)
    }

    fn connection(&self, (read, write): (ReadEnd, WriteEnd), whose: Whose) -> Box<Connection> {
        Box::new(Connection {
            reader: Reader::new(read, self.limits),
            writer: Writer::new(write, self.limits.body_idle),
            whose,
            used: Instant::now(),
        })
    }
}

impl Connection {
    /// Checks that whoever is at the other end is the bot.
    async fn check(&mut self, attestor: &Attestor, bot: &BotName) -> Result<(), CalleeFault> {
        let end = check(attestor, bot, self.reader.io().socket()).await?;
        if let Whose::Bot(of) = &mut self.whose {
            of.end = Some(end);
        }
        Ok(())
    }
}

/// Checks that whoever is at the other end of a connection to a callee is the bot.
async fn check(attestor: &Attestor, bot: &BotName, socket: Option<Socket<'_>>) -> Result<attest::Callee, CalleeFault> {
    let checked = match socket {
        Some(Socket::Tcp(stream)) => attestor.callee_tcp(stream, bot).await,
        Some(Socket::Unix(stream)) => attestor.callee_unix(stream, bot).await,
        // Connections to callees are made above, of those two kinds only.
        None => return Err(CalleeFault::Interim),
    };
    checked.map_err(|source| CalleeFault::Mismatch {
        source: Box::new(source),
    })
}

/// Where a callee listens, for messages.
#[derive(Debug)]
pub(crate) struct Place(Target);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Target::Port(port) => write!(f, "127.0.0.1:{port}"),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
            Target::Elsewhere | Target::Endpoints(_) => f.write_str("another host"),
        }
    }
}

/// Why a callee of this host gave no answer.
#[derive(Debug, Error)]
pub(crate) enum CalleeFault {
    /// Whoever listens is not the callee.
    #[error("what listens is not the callee")]
    Mismatch {
        /// What it is.
        #[source]
        source: Box<CalleeMismatch>,
    },
    /// Nobody listens.
    #[error("connect to {place}")]
    Connect {
        /// Where.
        place: Place,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// By HTTP/2 it ended the call, or the connection, or broke the protocol.
    #[error("call it by HTTP/2")]
    Stream {
        /// What happened.
        #[source]
        source: h2::Error,
    },
    /// It takes no more calls at a time.
    #[error("all connections to it are full")]
    Full,
    /// HTTP/2 cannot carry the query.
    #[error("the query holds a byte that no HTTP/2 request can carry")]
    Target,
    /// Its answer is refused.
    #[error("read the head of its answer")]
    NotHttp {
        /// What is wrong with it.
        #[source]
        source: HeadError,
    },
    /// It switched protocols unasked, or sends interim answers without end.
    #[error("its answer is no final one")]
    Interim,
    /// It ended the connection.
    #[error("it ended the connection before its answer{}", if *.begun { " was whole" } else { "" })]
    Gone {
        /// Whether some bytes had come.
        begun: bool,
    },
    /// It took too long.
    #[error("it took too long")]
    Slow,
    /// The caller's body is not as long as it said; the callee did nothing wrong.
    #[error("the caller's body is not as long as it said")]
    Length,
    /// The caller's body broke off; the callee did nothing wrong.
    #[error("the caller's body broke off")]
    Caller {
        /// What happened.
        #[source]
        source: RequestError,
    },
}

#[cfg(test)]
mod tests;
