//! The addresses of bots that open their own mutual TLS, whom the mesh file names by host and port.
//!
//! Unlike a destination outside, such a bot is believed by its SVID alone, so no address is judged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use policy::Endpoint;
use tokio::time::Instant;

use super::resolve::{ResolveError, Resolver};

/// How long a name is believed to have the addresses that were found: each call asks, and few of them connect.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

/// How long a look-up is waited for.
const LOOKUP: Duration = Duration::from_secs(2);

/// Names that are remembered. They come from the mesh file, so a mesh with more looks some up again.
const NAMES_MAX: usize = 1_024;

/// What was found of names.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<BTreeMap<Endpoint, (Instant, Vec<SocketAddr>)>>);

impl Names {
    /// Gives the addresses of all endpoints that have one. Those whose name is not found are left out.
    ///
    /// # Errors
    /// When none has an address: why the last one has none.
    pub(super) async fn addresses(
        &self,
        resolver: &Resolver,
        endpoints: &[Endpoint],
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let (mut found, mut missing) = (Vec::with_capacity(endpoints.len()), ResolveError::NoAddress);
        for endpoint in endpoints {
            match endpoint {
                Endpoint::Address(address) => found.push(*address),
                Endpoint::Name(host, port) => match self.look_up(resolver, endpoint, host, *port).await {
                    Ok(addresses) => found.extend(addresses),
                    Err(error) => {
                        tracing::info!(%endpoint, error = &error as &dyn std::error::Error, "an endpoint has no address");
                        missing = error;
                    }
                },
            }
        }
        if found.is_empty() { Err(missing) } else { Ok(found) }
    }

    async fn look_up(
        &self,
        resolver: &Resolver,
        endpoint: &Endpoint,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let now = Instant::now();
        let fresh = |(at, addresses): &(Instant, Vec<SocketAddr>)| {
            (now.duration_since(*at) < BELIEVED_FOR).then(|| addresses.clone())
        };
        if let Some(known) = self.lock().get(endpoint).and_then(fresh) {
            return Ok(known);
        }
        let addresses = resolver.look_up(host, port, LOOKUP).await?;
        let mut names = self.lock();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(endpoint.clone(), (now, addresses.clone()));
        Ok(addresses)
    }

    /// A thread that panicked while it held the lock left a whole value.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Endpoint, (Instant, Vec<SocketAddr>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_is_believed_for_some_seconds_and_one_without_an_address_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, "10.0.0.1 a.example").unwrap();
        let resolver = Resolver::new(Some(path.clone()), TaskTracker::new());
        let names = Names::default();
        let endpoints =
            ["b.example:1", "a.example:8443", "[2001:db8::7]:8443"].map(|text| Endpoint::parse(text).unwrap());
        let found = async || {
            let found = names.addresses(&resolver, &endpoints).await.unwrap();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found().await, ["10.0.0.1:8443", "[2001:db8::7]:8443"]);
        std::fs::write(&path, "10.0.0.2 a.example").unwrap();
        assert_eq!(found().await, ["10.0.0.1:8443", "[2001:db8::7]:8443"]);
        tokio::time::advance(BELIEVED_FOR).await;
        assert_eq!(found().await, ["10.0.0.2:8443", "[2001:db8::7]:8443"]);
        let [missing, ..] = &endpoints;
        let nobody = names.addresses(&resolver, std::slice::from_ref(missing)).await;
        assert!(matches!(nobody, Err(ResolveError::NoAddress)));
    }
}
