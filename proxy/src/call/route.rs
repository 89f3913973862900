//! A callee, with everything that is the same for each call to it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::HeaderValue;
use http::uri::Authority;
use policy::{Callee, Outside};
use spiffe::id::{BotName, SpiffeId, TrustDomain};

/// Whom a call is for.
#[derive(Clone, Debug)]
pub(crate) enum To {
    /// A bot of the mesh.
    Bot(Arc<Route>),
    /// Somebody outside of it.
    Outside(Arc<OutsideRoute>),
}

/// The same by its name alone, as the mesh file writes it: there are no more of them than it names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Called {
    /// A bot of the mesh.
    Bot(BotName),
    /// A destination outside, or the wildcard that covers it.
    Outside(Arc<str>),
}

/// A destination outside that is called.
#[derive(Debug)]
pub(crate) struct OutsideRoute {
    pub(crate) outside: Outside,
    pub(crate) called: Called,
    /// What it reads in `Host`.
    pub(crate) host: HeaderValue,
}

/// A bot that is called.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) bot: BotName,
    /// The same.
    pub(crate) called: Called,
    pub(crate) id: SpiffeId,
    /// Its mesh host, as the callee sees it in `Host`.
    ///
    /// Whatever way a caller took (a listener, a proxy, a tunnel), the callee sees this one name: it can build URLs
    /// from it that work for every caller, and it has nothing to learn from the ways.
    pub(crate) host: HeaderValue,
    pub(crate) authority: Authority,
}

impl Route {
    /// Makes the route to a bot; nothing for a name whose host is no authority, which no valid name is.
    pub(crate) fn new(trust_domain: &TrustDomain, bot: BotName) -> Option<Arc<Self>> {
        let host = Bytes::from(bot.mesh_host());
        Some(Arc::new(Self {
            id: SpiffeId::for_bot(trust_domain, &bot),
            host: HeaderValue::from_maybe_shared(host.clone()).ok()?,
            authority: Authority::from_maybe_shared(host).ok()?,
            called: bot.clone().into(),
            bot,
        }))
    }
}

impl OutsideRoute {
    /// Makes the route to a destination outside that the rules name so; nothing for a host that is no field value, which no
    /// valid name is.
    pub(crate) fn new(outside: Outside, named: &str) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            host: host_of(&outside)?,
            called: Called::Outside(named.into()),
            outside,
        }))
    }
}

/// What a destination outside reads in `Host`.
pub(super) fn host_of(outside: &Outside) -> Option<HeaderValue> {
    let (host, port) = (outside.host(), outside.port());
    // RFC 9110 §4.2.3: the scheme's own port is left out.
    let host = if port == outside.scheme().default_port() {
        HeaderValue::from_str(host)
    } else {
        HeaderValue::from_str(&format!("{host}:{port}"))
    };
    host.ok()
}

impl To {
    pub(crate) fn callee(&self) -> Callee {
        match self {
            Self::Bot(route) => route.bot.clone().into(),
            Self::Outside(route) => route.outside.clone().into(),
        }
    }

    pub(crate) fn called(&self) -> &Called {
        match self {
            Self::Bot(route) => &route.called,
            Self::Outside(route) => &route.called,
        }
    }

    /// The bot, if it is one.
    pub(crate) fn bot(&self) -> Option<&BotName> {
        match self {
            Self::Bot(route) => Some(&route.bot),
            Self::Outside(_) => None,
        }
    }
}

impl From<&Arc<Route>> for To {
    fn from(route: &Arc<Route>) -> Self {
        Self::Bot(Arc::clone(route))
    }
}

impl From<&Arc<OutsideRoute>> for To {
    fn from(route: &Arc<OutsideRoute>) -> Self {
        Self::Outside(Arc::clone(route))
    }
}

impl From<&Self> for To {
    fn from(to: &Self) -> Self {
        to.clone()
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bot(route) => route.bot.fmt(f),
            Self::Outside(route) => route.outside.fmt(f),
        }
    }
}

impl Called {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Bot(bot) => bot.as_str(),
            Self::Outside(named) => named,
        }
    }

    /// The bot, if it is one.
    pub(crate) const fn bot(&self) -> Option<&BotName> {
        match self {
            Self::Bot(bot) => Some(bot),
            Self::Outside(_) => None,
        }
    }
}

impl From<BotName> for Called {
    fn from(bot: BotName) -> Self {
        Self::Bot(bot)
    }
}

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The route that a connection took last: most connections only ever take one.
#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<Option<Arc<Route>>>);

impl Routes {
    /// Finds the route to a mesh host, or nothing where no bot can have that name.
    pub(crate) fn find(&self, trust_domain: &TrustDomain, host: &str) -> Option<Arc<Route>> {
        // A thread that panicked while it held the lock left a whole value.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = last.as_ref().filter(|route| route.host == host) {
            return Some(Arc::clone(route));
        }
        let route = Route::new(trust_domain, BotName::from_mesh_host(host)?)?;
        *last = Some(Arc::clone(&route));
        Some(route)
    }
}
