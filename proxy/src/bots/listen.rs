//! Takes connections of local processes and attests each once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use prometheus::IntGauge;
use spiffe::id::{BotName, SpiffeId};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{BotSide, WayIn};
use crate::attest::{Caller, Unattested, Witnessed};
use crate::call::{Door, Nobody, OutsideRoute, Who};
use crate::connection::{self, Handler};
use crate::ends::{self, ReadEnd, WriteEnd};
use crate::postgres;
use crate::proxy::Proxy;
use crate::seldom::Seldom;
use crate::tcp::{self, Leads};

/// A process that is no bot must not fill the log; it is told why, and its calls are recorded.
static NO_BOT: Seldom = Seldom::new();

/// Nor may one that opens connections without end.
static FULL: Seldom = Seldom::new();

/// Where local processes connect.
#[derive(Debug)]
pub(crate) enum Source {
    /// On loopback.
    Tcp(TcpListener),
    /// On a Unix socket, prepared to tell who sends.
    Unix(UnixListener),
    /// On the Unix socket of one bot, prepared likewise, until `gone`.
    Own {
        /// Where it connects.
        listener: UnixListener,
        /// The bot.
        bot: BotName,
        /// When the socket goes.
        gone: CancellationToken,
    },
}

/// How many connections each user has open, over all listeners.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<BTreeMap<u32, usize>>);

/// One open connection of a listener.
#[derive(Debug)]
struct Open {
    listener: IntGauge,
    listeners: Arc<Listeners>,
    uid: Option<u32>,
}

/// What becomes of the connections of a listener.
#[derive(Clone, Debug)]
pub(crate) enum Ways {
    /// HTTP is read on them.
    Http(Arc<WayIn>),
    /// Nothing is read on them, and each is a call.
    Tcp(Arc<Leads>),
    /// The start-up of PostgreSQL is read on them, and each is a call.
    Postgres(Arc<OutsideRoute>),
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream, Option<BotName>),
}

/// Takes connections until the proxy closes.
pub(crate) async fn serve(
    proxy: Arc<Proxy>,
    listeners: Arc<Listeners>,
    source: Source,
    ways: Ways,
    name: &'static str,
) {
    let connections = proxy.metrics.connections(name);
    let closing = match &source {
        Source::Own { gone, .. } => gone.clone(),
        Source::Tcp(_) | Source::Unix(_) => proxy.closing.clone(),
    };
    let connections_max = i64::try_from(proxy.bounds.connections).unwrap_or(i64::MAX);
    loop {
        // Losing `accept` midway loses no connection: the kernel keeps it.
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = accept(&source) => accepted,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                connection::accept_failed(name, &error).await;
                continue;
            }
        };
        if connections.get() >= connections_max {
            if let Some(left_out) = FULL.due() {
                tracing::warn!(listener = name, left_out, "a connection was closed: too many are open");
            }
            proxy.metrics.denied(crate::reason::Reason::Overloaded);
            continue;
        }
        let open = Open::new(&connections, &listeners);
        let (proxy, ways) = (Arc::clone(&proxy), ways.clone());
        let tasks = proxy.tasks.clone();
        drop(tasks.spawn(async move { meet(proxy, accepted, ways, open).await }));
    }
}

async fn accept(source: &Source) -> std::io::Result<Accepted> {
    match source {
        Source::Tcp(listener) => listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
        Source::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream, None)),
        Source::Own { listener, bot, .. } => {
            let (stream, _) = listener.accept().await?;
            Ok(Accepted::Unix(stream, Some(bot.clone())))
        }
    }
}

/// Finds out who connected, and serves it: also one that is nobody, for it is owed the reason.
async fn meet(proxy: Arc<Proxy>, accepted: Accepted, ways: Ways, mut open: Open) {
    let (door, read, write) = match attest(&proxy, accepted).await {
        Ok(attested) => attested,
        Err(error) => {
            tracing::debug!(%error, "a connection ended at once");
            return;
        }
    };
    let uid = match &door {
        Door::Bot { caller, .. } => Some(caller.facts.uid),
        Door::Nobody(Nobody { unattested }) => unattested.facts.as_ref().map(|facts| facts.uid),
        Door::Peer { .. } => None,
    };
    if !open.count(uid, proxy.bounds.connections_of_uid) {
        if let Some(left_out) = FULL.due() {
            tracing::warn!(uid, left_out, "a connection was closed: the user has too many open");
        }
        proxy.metrics.denied(crate::reason::Reason::Overloaded);
        return;
    }
    match ways {
        Ways::Http(way) => {
            let handler = Handler::Bots(BotSide::new(door, way));
            Box::pin(connection::serve(&proxy, read, write, handler)).await;
        }
        Ways::Tcp(leads) => Box::pin(tcp::serve(&proxy, read, write, &door, &leads)).await,
        Ways::Postgres(to) => Box::pin(postgres::serve(&proxy, read, write, &door, &to)).await,
    }
}

async fn attest(proxy: &Proxy, accepted: Accepted) -> std::io::Result<(Door, ReadEnd, WriteEnd)> {
    let (attested, (read, write)) = match accepted {
        Accepted::Tcp(stream) => {
            stream.set_nodelay(true)?;
            let attested = proxy.attestor.tcp_caller(&stream).await;
            proxy
                .metrics
                .attested("tcp", attested.as_ref().err().map(Unattested::word));
            (attested, ends::tcp(stream))
        }
        Accepted::Unix(stream, own) => {
            let attested = proxy.attestor.unix_caller_over(&stream, own.as_ref()).await;
            proxy
                .metrics
                .attested("unix", attested.as_ref().err().map(Unattested::word));
            match attested {
                Ok(caller) => {
                    let stream = Witnessed::new(stream, &caller)?;
                    (Ok(caller), ends::witnessed(stream))
                }
                Err(unattested) => (Err(unattested), ends::unix(stream)),
            }
        }
    };
    Ok((door(proxy, attested), read, write))
}

fn door(proxy: &Proxy, attested: Result<Caller, Unattested>) -> Door {
    match attested {
        Ok(caller) => {
            let id = SpiffeId::for_bot(&proxy.trust_domain, &caller.bot);
            // A SPIFFE ID holds nothing that a field value may not (SPIFFE-ID §2.1, §2.2).
            let header = HeaderValue::from_str(id.as_str()).unwrap_or(HeaderValue::from_static(""));
            let facts = Some(Arc::clone(&caller.facts));
            let who = Who {
                places: proxy.places.of(&caller.bot),
                bot: caller.bot.clone(),
                id,
                header,
                facts,
                proven: None,
            };
            Door::Bot { caller, who }
        }
        Err(unattested) => {
            if let Some(left_out) = NO_BOT.due() {
                tracing::info!(why = %unattested, word = unattested.word(), left_out, "a local process is no bot");
            }
            Door::Nobody(Nobody { unattested })
        }
    }
}

impl Source {
    /// Returns the address on loopback; nothing for a Unix socket.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) | Self::Own { .. } => None,
        }
    }
}

impl Listeners {
    /// A thread that panicked while it held the lock left whole counts.
    fn counts(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn new(listener: &IntGauge, listeners: &Arc<Listeners>) -> Self {
        listener.inc();
        Self {
            listener: listener.clone(),
            listeners: Arc::clone(listeners),
            uid: None,
        }
    }

    /// Counts the connection for its user; false when that user has too many.
    fn count(&mut self, uid: Option<u32>, most: usize) -> bool {
        let Some(uid) = uid else {
            return true;
        };
        let mut counts = self.listeners.counts();
        let count = counts.entry(uid).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        self.uid = Some(uid);
        true
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listener.dec();
        let Some(uid) = self.uid else {
            return;
        };
        let mut counts = self.listeners.counts();
        if let Some(count) = counts.get_mut(&uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_bound_on_connections_and_gets_their_places_back() {
        let (gauge, listeners) = (IntGauge::new("x", "x").unwrap(), Arc::new(Listeners::default()));
        let mut first = Open::new(&gauge, &listeners);
        let mut second = Open::new(&gauge, &listeners);
        assert!(first.count(Some(1000), 1));
        assert!(!second.count(Some(1000), 1));
        assert!(second.count(Some(1001), 1), "another user has room");
        drop(first);
        let mut third = Open::new(&gauge, &listeners);
        assert!(third.count(Some(1000), 1));
        drop((second, third));
        assert!(listeners.counts().is_empty());
        assert_eq!(gauge.get(), 0);
    }
}
