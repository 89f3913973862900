//! A callee, with everything that is the same for each call to it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::HeaderValue;
use http::uri::Authority;
use spiffe::id::{BotName, SpiffeId, TrustDomain};

/// A bot that is called.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) bot: BotName,
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
            bot,
        }))
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
