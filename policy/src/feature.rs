//! Words for what a mesh asks of the hosts that enforce it.
//!
//! A host says which words it knows, and a slice which words it needs. A host that lacks one refuses the slice, and
//! `apply` refuses a mesh that a connected host cannot enforce, so that no rule and no selector is ever passed over by a
//! proxy that does not know it.

use std::collections::BTreeSet;

use crate::credential::Injection;
use crate::destination::Destination;
use crate::mesh::{Mesh, Serve, ServeKind, Target};

/// Bots told apart by their group: `group`, `gid`.
pub const GROUP: &str = "group";
/// Bots told apart by their cgroup: `cgroup`.
pub const CGROUP: &str = "cgroup";
/// Bots told apart by the service that they belong to: `unit`.
pub const UNIT: &str = "unit";

/// Bots told apart by the socket of their own: `socket`.
pub const SOCKET: &str = "socket";

/// Calls without a rule that are carried for a time: `audit_only`.
pub const AUDIT_ONLY: &str = "audit_only";

/// Calls that are counted and refused beyond a rate: `limits`.
pub const LIMITS: &str = "limits";

/// Calls to a bot that are waited for no longer than it says: `destinations`.
pub const DESTINATIONS: &str = "destinations";

/// Calls to a bot that are bounded in number and sent again: `max_in_flight` and its like, `retries: 1`.
pub const DESTINATION_BOUNDS: &str = "destination_bounds";

/// Rules that let a caller switch to another protocol: `upgrade`.
pub const UPGRADE: &str = "upgrade";

/// Bots that serve gRPC, and rules over its methods: `grpc`.
pub const GRPC: &str = "grpc";

/// Bots that serve TCP, and rules over their ports: `tcp`.
pub const TCP: &str = "tcp";

/// Bots that open their own mutual TLS: `endpoints`.
pub const ENDPOINTS: &str = "endpoints";

/// Destinations outside of the mesh: `https://`, `http://`, `tls://`.
pub const OUTSIDE: &str = "outside";

/// Credentials that proxies add to calls to the outside: `inject`.
pub const CREDENTIALS: &str = "credentials";

/// Databases of PostgreSQL, at which proxies authenticate for bots: `postgres://`.
pub const POSTGRES: &str = "postgres";

/// Credentials that proxies exchange for short tokens: `oauth`.
pub const OAUTH: &str = "oauth";

/// Credentials that proxies exchange at GitHub: `github_app`.
pub const GITHUB_APP: &str = "github_app";

/// Credentials that are a bot's own JWT-SVID, or what it is exchanged for: `federate`.
pub const FEDERATE: &str = "federate";
/// Addresses that are secrets, which credentials hold: `secret://`.
pub const SECRET_URL: &str = "secret_url";

/// Requests that tell whether a service takes a value: `probe`.
pub const CREDENTIAL_PROBE: &str = "credential_probe";

/// Rules whose calls are recorded with a hash of their path: `path: hashed`.
pub const PATH_HASHED: &str = "path_hashed";

/// What this version's proxies enforce, as they tell the CA.
pub const ENFORCED: &[&str] = &[
    GROUP,
    CGROUP,
    UNIT,
    SOCKET,
    AUDIT_ONLY,
    LIMITS,
    DESTINATIONS,
    DESTINATION_BOUNDS,
    UPGRADE,
    GRPC,
    TCP,
    OUTSIDE,
    ENDPOINTS,
    CREDENTIALS,
    POSTGRES,
    OAUTH,
    GITHUB_APP,
    FEDERATE,
    SECRET_URL,
    CREDENTIAL_PROBE,
    PATH_HASHED,
];

impl Mesh {
    /// Gives what the mesh asks for that no proxy of this version enforces: whoever takes a mesh in refuses it (`BM0190`), for
    /// a rule that nobody enforces is a promise broken in silence.
    pub fn not_enforced(&self) -> BTreeSet<&'static str> {
        let mut words = self.features();
        words.retain(|word| !ENFORCED.contains(word));
        words
    }

    /// Gives the words for what is asked of credentials beyond being added.
    fn features_of_credentials(&self) -> BTreeSet<&'static str> {
        let mut features = BTreeSet::new();
        let injected = self.rules.values().filter_map(|rule| rule.inject.as_ref());
        let injected = injected.filter_map(|name| self.credentials.get(name));
        features.extend(injected.filter_map(|credential| match credential.injection {
            Injection::OAuth(_) => Some(OAUTH),
            Injection::GithubApp(_) => Some(GITHUB_APP),
            Injection::Federate(_) => Some(FEDERATE),
            Injection::Header { .. }
            | Injection::Bearer
            | Injection::Basic { .. }
            | Injection::Query { .. }
            | Injection::Hmac(_)
            | Injection::Sigv4 { .. }
            | Injection::Postgres { .. }
            | Injection::Url(_) => None,
        }));
        if self.credentials.values().any(|credential| credential.probe.is_some()) {
            features.insert(CREDENTIAL_PROBE);
        }
        if self.names_secret_urls() {
            features.insert(SECRET_URL);
        }
        features
    }

    /// Says whether anything is called by an address that is a secret, or counted, or waited for.
    fn names_secret_urls(&self) -> bool {
        let called = self.rules.values().flat_map(|rule| &rule.to);
        let counted = self.limits.values().flat_map(|limit| &limit.to);
        called.chain(counted).any(|to| to.credential().is_some())
            || self.outsides.keys().any(|to| to.credential().is_some())
    }

    /// Gives the words that a host must know to enforce this mesh or slice.
    pub fn features(&self) -> BTreeSet<&'static str> {
        let mut features = BTreeSet::new();
        for set in self.bots.values().flat_map(|bot| &bot.attest) {
            let asked = [
                (GROUP, set.group.is_some() || set.gid.is_some()),
                (CGROUP, set.cgroup.is_some()),
                (UNIT, set.unit.is_some()),
                (SOCKET, set.socket),
            ];
            features.extend(asked.into_iter().filter_map(|(word, asked)| asked.then_some(word)));
        }
        if !self.audit_only.is_empty() {
            features.insert(AUDIT_ONLY);
        }
        if !self.limits.is_empty() {
            features.insert(LIMITS);
        }
        if !self.destinations.is_empty() {
            features.insert(DESTINATIONS);
        }
        if self.destinations.values().any(Destination::bounds_calls) {
            features.insert(DESTINATION_BOUNDS);
        }
        if self.rules.values().any(|rule| !rule.upgrade.is_empty()) {
            features.insert(UPGRADE);
        }
        if self.rules.values().any(|rule| rule.inject.is_some()) {
            features.insert(CREDENTIALS);
        }
        if self.rules.values().any(|rule| rule.is_postgres()) {
            features.insert(POSTGRES);
        }
        if self.rules.values().any(|rule| rule.hashed) {
            features.insert(PATH_HASHED);
        }
        features.extend(self.features_of_credentials());
        let mut spoken_to = self.rules.values().flat_map(|rule| &rule.to);
        if spoken_to.any(|to| to.outside().is_some()) {
            features.insert(OUTSIDE);
        }
        let mut places = self.bots.values().filter_map(|bot| bot.serve.as_ref()?.target());
        if places.any(|place| matches!(place, Target::Endpoints(_))) {
            features.insert(ENDPOINTS);
        }
        let served = self.bots.values().filter_map(|bot| bot.serve.as_ref()).map(Serve::kind);
        let spoken = self.rules.values().filter_map(|rule| rule.kind);
        features.extend(served.chain(spoken).filter_map(|kind| match kind {
            ServeKind::Http => None,
            ServeKind::Grpc => Some(GRPC),
            ServeKind::Tcp => Some(TCP),
        }));
        features
    }
}
