//! The way out of the mesh: which address a destination may have, who answers there, and what a bot's own TLS says of
//! whom it wants.
//!
//! A name is looked up once for each connection, each address is judged, and the connection goes to an address that was
//! judged, by its number: a resolver that answers something else a moment later changes nothing (DNS rebinding).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use policy::{Endpoint, Outside, OutsideDestination};
use rustls::sign::CertifiedKey;
use spiffe::time::Clock;
use tokio_util::task::TaskTracker;

use connect::{Connected, Database, OutsideFault};
use endpoints::Names;
use resolve::{ResolveError, Resolver};

pub mod address;
pub mod connect;
mod endpoints;
pub mod hello;
pub mod resolve;
mod tls;

pub(crate) use tls::Time;

/// What leads out of the mesh.
#[derive(Debug)]
pub struct WayOut {
    resolver: Resolver,
    names: Names,
    clock: Clock,
}

impl WayOut {
    /// Makes one that looks names up in a file alone, where there is one; its tasks are of `tasks`.
    #[must_use]
    pub fn new(hosts_file: Option<PathBuf>, clock: Clock, tasks: TaskTracker) -> Self {
        Self {
            resolver: Resolver::new(hosts_file, tasks),
            names: Names::default(),
            clock,
        }
    }

    /// Connects to a destination at an address that may be called; where the proxy opens the TLS, to nobody but it.
    ///
    /// # Errors
    ///
    /// As [`connect::connect`].
    pub async fn connect(&self, outside: &Outside, said: &OutsideDestination) -> Result<Connected, OutsideFault> {
        connect::connect(&self.resolver, &self.clock, outside, said).await
    }

    /// Connects to a server of PostgreSQL, to nobody but it, and shows a certificate where it asks for one; at one address
    /// alone, where one is given.
    ///
    /// # Errors
    ///
    /// As [`connect::connect`].
    pub(crate) async fn reach_database(
        &self,
        outside: &Outside,
        said: &OutsideDestination,
        shown: Option<Arc<CertifiedKey>>,
        at: Option<SocketAddr>,
    ) -> Result<Database, OutsideFault> {
        connect::database(&self.resolver, &self.clock, (outside, said), shown, at).await
    }

    /// Gives the addresses at which a bot that opens its own mutual TLS can be tried.
    ///
    /// # Errors
    ///
    /// When none of its endpoints has one.
    pub(crate) async fn addresses(&self, endpoints: &[Endpoint]) -> Result<Vec<SocketAddr>, ResolveError> {
        self.names.addresses(&self.resolver, endpoints).await
    }
}
