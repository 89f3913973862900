//! Why the CA does not run, or stopped.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use spiffe::bundle::BundleError;
use spiffe::id::TrustDomain;

use crate::admin::{SocketError, UnknownUser};
use crate::authority::SignError;
use crate::cosigner::CosignerError;
use crate::federation::{CertificateError, FederationError};
use crate::keys::KeyError;
use crate::mesh_file::MeshError;
use crate::node::ServeError;
use crate::server_identity::IdentityError;
use crate::store::StoreError;
use crate::webhook::WebhookError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The database cannot be used.
    #[error("use the database {path}")]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The configuration and the database name different trust domains.
    #[error("the configuration is for {configured}, the database holds the CA of {stored}")]
    OtherTrustDomain {
        /// In the configuration.
        configured: TrustDomain,
        /// In the database.
        stored: TrustDomain,
    },
    /// The root's key cannot be used.
    #[error("open the root's key")]
    Keys {
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The root cannot be used.
    #[error("use the root")]
    Root {
        /// Why.
        #[source]
        source: SignError,
    },
    /// The trust bundle cannot be made.
    #[error("make the trust bundle")]
    Bundle {
        /// Why.
        #[source]
        source: BundleError,
    },
    /// The live mesh cannot be read.
    #[error("restore the live mesh")]
    Mesh {
        /// Why.
        #[source]
        source: MeshError,
    },
    /// The key that cosigns heads of ledgers cannot be used.
    #[error("use the cosigner's key")]
    Cosigner {
        /// Why.
        #[source]
        source: CosignerError,
    },
    /// The ledger cannot be used.
    #[error("open the ledger")]
    Ledger {
        /// Why.
        #[source]
        source: audit::OpenError,
    },
    /// The metrics cannot be registered.
    #[error("register the metrics")]
    Metrics {
        /// Why.
        #[source]
        source: prometheus::Error,
    },
    /// The webhook for alerts cannot be used.
    #[error("use watch.webhook")]
    Webhook {
        /// Why.
        #[source]
        source: WebhookError,
    },
    /// An operator is unknown.
    #[error("find the operators")]
    Operators {
        /// Why.
        #[source]
        source: UnknownUser,
    },
    /// A TCP listener could not be bound.
    #[error("listen on {address} for the {what}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// For what.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are no keys for JWT-SVIDs.
    #[error("open the keys for JWT-SVIDs")]
    Federation {
        /// Why.
        #[source]
        source: FederationError,
    },
    /// The certificate of the federation endpoint cannot be used.
    #[error("use the certificate of the federation endpoint")]
    Certificate {
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// The admin socket could not be opened.
    #[error("open the admin socket")]
    Socket {
        /// Why.
        #[source]
        source: SocketError,
    },
    /// The CA has no SVID of its own.
    #[error("get the CA's own SVID")]
    Identity {
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// The node API cannot serve.
    #[error("serve the node API")]
    Serve {
        /// Why.
        #[source]
        source: ServeError,
    },
    /// A part ended although nobody asked it to.
    #[error("a part of the CA ended by itself")]
    PartEnded,
}
