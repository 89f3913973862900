//! The two ends, played against each other in memory.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, PublicKeyData};
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;
use spiffe::bundle::TrustBundle;
use spiffe::id::{BotName, HostName, SpiffeId, TrustDomain};
use spiffe::svid::{Authority, Leaf, SvidError};
use spiffe::time::Clock;

use self::forge::{Ca, NOT_AFTER, NOT_BEFORE, NOW};
use self::wire::{Ends, handshake};
use super::*;

mod chains;
mod configs;
mod forge;
mod identities;
mod joining;
mod jws;
mod keys;
mod refusals;
mod reproofs;
mod requests;
mod versions;
mod wire;

fn acme() -> TrustDomain {
    TrustDomain::parse("acme").unwrap()
}

fn orders() -> SpiffeId {
    SpiffeId::for_bot(&acme(), &BotName::parse("prod/orders").unwrap())
}

fn checkout() -> SpiffeId {
    SpiffeId::for_bot(&acme(), &BotName::parse("prod/checkout").unwrap())
}

/// A server identity that presents one certificate to whoever asks for anything.
#[derive(Debug)]
struct Anything(Arc<CertifiedKey>);

impl ServerIdentity for Anything {
    fn resolve(&self, _sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A mesh of one CA: the server is `prod/orders`, the client `prod/checkout`, and either can be made to present
/// something else.
struct Mesh {
    ca: Ca,
    bundle: Arc<TrustBundle>,
    clock: Clock,
    server: Arc<CertifiedKey>,
    client: Option<Arc<CertifiedKey>>,
    expect: Expect,
    auth: ClientAuth,
}

impl Mesh {
    fn new() -> Self {
        let ca = Ca::root("acme");
        let bundle = ca.bundle();
        Self {
            clock: Clock::fixed(NOW).0,
            server: ca.svid(&orders()).certified_key(),
            client: Some(ca.svid(&checkout()).certified_key()),
            expect: Expect::Exact(orders()),
            auth: ClientAuth::Required,
            bundle,
            ca,
        }
    }

    fn client_config(&self) -> Arc<rustls::ClientConfig> {
        let config = client_config(None, &self.bundle, self.expect.clone(), &self.clock, &[]).unwrap();
        let Some(client) = &self.client else {
            return config;
        };
        // A bad certificate cannot become an `Svid`, so it is put in place of one.
        let mut config = (*config).clone();
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(client)));
        Arc::new(config)
    }

    fn server_config(&self) -> Arc<rustls::ServerConfig> {
        let bundle = Arc::new(FixedBundle(Arc::clone(&self.bundle)));
        server_config(
            Arc::new(Anything(Arc::clone(&self.server))),
            bundle,
            self.auth,
            &self.clock,
            &[],
        )
        .unwrap()
    }

    fn shake(&self) -> Ends {
        handshake(self.client_config(), self.server_config(), sni_for(&orders()))
    }

    /// Why the client refuses a server, and the server a client, that presents what `present` gives for its ID.
    fn refusals_of(mut self, present: impl Fn(&Self, &SpiffeId) -> Arc<CertifiedKey>) -> [HandshakeRefusal; 2] {
        let bad_client = present(&self, &checkout());
        let bad_server = present(&self, &orders());
        let good_server = std::mem::replace(&mut self.server, bad_server);
        let by_client = self.shake().client_refusal();
        self.server = good_server;
        self.client = Some(bad_client);
        let by_server = self.shake().server_refusal();
        [by_client, by_server]
    }

    /// The same for certificates of this mesh's CA with one change.
    fn refusals_with(self, change: impl Fn(&mut CertificateParams)) -> [HandshakeRefusal; 2] {
        self.refusals_of(|mesh, id| mesh.ca.certified(id, &change))
    }
}

/// The reasons of both sides.
fn reasons(refusals: &[HandshakeRefusal; 2]) -> [&'static str; 2] {
    [refusals[0].reason(), refusals[1].reason()]
}
