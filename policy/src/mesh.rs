//! A valid mesh file: who exists and who may call what.

mod about;
mod slice;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spiffe::entry::Entry;
use spiffe::id::{BotName, HostName, HostPattern, SpiffeId, TrustDomain};
use spiffe::selector::SelectorSet;
use spiffe::time::Timestamp;

use crate::audit_only::AuditOnly;
use crate::bits::Bits;
use crate::call::{Callee, What};
use crate::canonical;
use crate::credential::{Credential, CredentialName};
use crate::destination::{Destination, OutsideDestination};
use crate::diagnostics::Diagnostics;
use crate::endpoint::Endpoint;
use crate::explain::{Explainer, Explanation};
use crate::generation::Generation;
use crate::limit::Limit;
use crate::outside::{Outside, OutsidePattern};
use crate::overlap::{self, Indistinct};
use crate::policy::Policy;
use crate::roster::{Groups, Roster};
use crate::rule::{Effect, Rule, RuleId, Subject};
use crate::source::Place;
use crate::tests_of_mesh::{self, MeshTest, TestReport};

pub use about::{RuleAbout, RulesAbout};

/// A mesh: bots, groups, rules and tests, read and checked. Only [`load`](crate::load) makes one.
///
/// Two meshes are equal when they say the same, wherever it is written.
#[derive(Debug)]
pub struct Mesh {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) slice: Option<HostName>,
    pub(crate) bots: BTreeMap<BotName, Bot>,
    pub(crate) groups: Groups,
    pub(crate) rules: BTreeMap<RuleId, Arc<Rule>>,
    pub(crate) limits: BTreeMap<RuleId, Limit>,
    /// By callee.
    pub(crate) destinations: BTreeMap<BotName, Destination>,
    /// By destination outside, as rules name it.
    pub(crate) outsides: BTreeMap<OutsidePattern, OutsideDestination>,
    /// By their ends.
    pub(crate) audit_only: Vec<AuditOnly>,
    pub(crate) credentials: BTreeMap<CredentialName, Credential>,
    pub(crate) tests: Vec<MeshTest>,
    pub(crate) warnings: Diagnostics,
}

/// A bot of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bot {
    /// Whom to ask about it.
    pub owner: String,
    /// The hosts whose proxies may claim it; never empty.
    pub hosts: Vec<HostPattern>,
    /// The ways to be it, any of which is enough. Empty only in a slice, for bots of other hosts.
    pub attest: Vec<SelectorSet>,
    /// What it serves.
    pub serve: Option<Serve>,
    /// The life of its SVIDs, from one minute to one day.
    pub svid_ttl: Duration,
}

/// What a bot serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serve {
    /// HTTP.
    Http(Target),
    /// gRPC: HTTP/2 by prior knowledge.
    Grpc(Target),
    /// TCP, of which nothing is read.
    Tcp(TcpServe),
}

/// Where a bot serves TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpServe {
    /// The ports that are called, and where the bot listens for each; never empty.
    pub ports: BTreeMap<u16, Target>,
    /// Whether the bot reads who calls from a PROXY protocol header of version 2 before the first byte.
    pub proxy_protocol: bool,
}

/// The protocol that a bot serves, and that a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServeKind {
    /// `http`.
    Http,
    /// `grpc`.
    Grpc,
    /// `tcp`.
    Tcp,
}

impl Serve {
    /// Gives the protocol.
    pub const fn kind(&self) -> ServeKind {
        match self {
            Self::Http(_) => ServeKind::Http,
            Self::Grpc(_) => ServeKind::Grpc,
            Self::Tcp(_) => ServeKind::Tcp,
        }
    }

    /// Says where the bot takes requests, if it does.
    pub const fn target(&self) -> Option<&Target> {
        match self {
            Self::Http(target) | Self::Grpc(target) => Some(target),
            Self::Tcp(_) => None,
        }
    }

    /// Says where the bot listens: one place, or one for each port of TCP.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        let ports = match self {
            Self::Tcp(tcp) => Some(&tcp.ports),
            Self::Http(_) | Self::Grpc(_) => None,
        };
        self.target()
            .into_iter()
            .chain(ports.into_iter().flat_map(BTreeMap::values))
    }

    /// Gives the same as hosts see it on which the bot is not: the protocol, and the ports of TCP.
    pub(crate) fn elsewhere(&self) -> Self {
        match self {
            // Every caller's host connects to them itself.
            Self::Http(Target::Endpoints(_)) | Self::Grpc(Target::Endpoints(_)) => self.clone(),
            Self::Http(_) => Self::Http(Target::Elsewhere),
            Self::Grpc(_) => Self::Grpc(Target::Elsewhere),
            Self::Tcp(tcp) => Self::Tcp(TcpServe {
                ports: tcp.ports.keys().map(|port| (*port, Target::Elsewhere)).collect(),
                proxy_protocol: false,
            }),
        }
    }
}

impl fmt::Display for Serve {
    /// Writes it for people: `http on 127.0.0.1:8080`, `tcp 5432 on unix:/run/pg/pg.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind().as_str();
        let at = |target: &Target| match target {
            Target::Port(port) => format!(" on 127.0.0.1:{port}"),
            Target::Unix(path) => format!(" on unix:{}", path.display()),
            Target::Elsewhere => String::new(),
            Target::Endpoints(endpoints) => {
                let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
                format!(" by its own TLS at {}", endpoints.join(", "))
            }
        };
        match self {
            Self::Http(target) | Self::Grpc(target) => write!(f, "{kind}{}", at(target)),
            Self::Tcp(tcp) => {
                for (number, (port, target)) in tcp.ports.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    write!(f, "{comma}{kind} {port}{}", at(target))?;
                }
                Ok(())
            }
        }
    }
}

impl ServeKind {
    /// Gives the key of the mesh file that names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }

    /// Makes what a bot of this protocol serves in one place.
    pub(crate) fn at(self, target: Target) -> Serve {
        match self {
            Self::Http => Serve::Http(target),
            Self::Grpc => Serve::Grpc(target),
            Self::Tcp => Serve::Tcp(TcpServe {
                ports: BTreeMap::from([(1, target)]),
                proxy_protocol: false,
            }),
        }
    }
}

/// Where a bot serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// On this port of 127.0.0.1, on its own host.
    Port(u16),
    /// On this Unix socket, by its absolute path, on its own host.
    Unix(PathBuf),
    /// On another host. Only in a slice, which does not say more.
    Elsewhere,
    /// Wherever one of these leads, by mutual TLS that the bot opens itself with its own SVID. Never empty.
    Endpoints(Vec<Endpoint>),
}

impl Bot {
    /// Says whether the proxy of a host may claim the bot.
    pub fn may_run_on(&self, host: &HostName) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

impl PartialEq for Mesh {
    fn eq(&self, other: &Self) -> bool {
        (&self.trust_domain, &self.slice, &self.bots) == (&other.trust_domain, &other.slice, &other.bots)
            && (&self.destinations, &self.outsides) == (&other.destinations, &other.outsides)
            && self.credentials == other.credentials
            && (&self.groups, &self.rules, &self.limits, &self.audit_only, &self.tests)
                == (
                    &other.groups,
                    &other.rules,
                    &other.limits,
                    &other.audit_only,
                    &other.tests,
                )
    }
}

impl Mesh {
    /// Gives the trust domain of all its bots.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Gives the bots by name.
    pub fn bots(&self) -> &BTreeMap<BotName, Bot> {
        &self.bots
    }

    /// Gives the ids of all rules, in order.
    pub fn rule_ids(&self) -> impl ExactSizeIterator<Item = &RuleId> {
        self.rules.keys()
    }

    /// Gives the ends of all rules that have one, by id.
    pub fn rule_ends(&self) -> impl Iterator<Item = (&RuleId, Timestamp)> {
        self.rules.iter().filter_map(|(id, rule)| Some((id, rule.until?)))
    }

    /// Says where a rule stands.
    pub fn rule_place(&self, id: &RuleId) -> Option<&Place> {
        self.rules.get(id).map(|rule| &rule.place)
    }

    /// Gives what is said of calls to a bot; nothing of one that no one says anything of.
    pub fn destination(&self, bot: &BotName) -> Destination {
        self.destinations.get(bot).copied().unwrap_or_default()
    }

    /// Gives what is said of a destination outside: by its name, or else by the wildcard that covers it.
    pub fn outside_destination(&self, outside: &Outside) -> Option<&OutsideDestination> {
        if self.outsides.is_empty() {
            return None;
        }
        let exact = self.outsides.get(&OutsidePattern::from(outside.clone()));
        exact.or_else(|| self.outsides.get(&OutsidePattern::above(outside)?))
    }

    /// Gives the destinations outside that rules name, as they name them.
    pub fn outside_names(&self) -> BTreeSet<String> {
        let named = self.rules.values().flat_map(|rule| &rule.to);
        let outside = named.filter_map(Subject::outside);
        outside.map(ToString::to_string).collect()
    }

    /// Gives the host whose slice this is; `None` for a whole mesh.
    pub fn slice_host(&self) -> Option<&HostName> {
        self.slice.as_ref()
    }

    /// Gives what the writer should look at; a slice has no warnings.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// Writes the whole as JSON that reads back to an equal mesh. Equal meshes give equal bytes.
    pub fn canonical_json(&self) -> String {
        canonical::write(self)
    }

    /// Writes, as JSON that [`load`](crate::load) reads, the part that one host needs.
    ///
    /// It holds the bots that the host may claim, the bots that any rule links to them (without how they are attested and
    /// where they serve), the rules that can touch the host's bots, the limits on calls to them, what is said of calls
    /// to the bots that the host's own may call, and the groups of these; never tests. What is `audit_only`
    /// links every bot of the mesh to it, until the mesh does not name it any more. For every call whose
    /// caller or callee lives on the host it decides as the whole does: same verdict, same rule, same nearest rule.
    pub fn slice(&self, host: &HostName) -> String {
        canonical::write(&slice::cut(self, host))
    }

    /// Names the bots that those of a host may call, by a rule or by what is `audit_only`: whose addresses it needs. The
    /// slice names more, such as the callers of its own bots and the far ends of rules that forbid calls.
    pub fn callees_for(&self, host: &HostName) -> BTreeSet<BotName> {
        slice::callees(self, host)
    }

    /// Gives the words that a host must know to enforce its slice; see [`feature`](crate::feature).
    pub fn features_for(&self, host: &HostName) -> BTreeSet<&'static str> {
        let whole = self.features();
        // What the whole does not need, no part of it does.
        if whole.is_empty() {
            return whole;
        }
        slice::cut(self, host).features()
    }

    /// Gives the entries of the bots that a host may claim.
    pub fn entries_for(&self, host: &HostName) -> Vec<Entry> {
        self.bots
            .iter()
            .filter(|(_, bot)| bot.may_run_on(host))
            .map(|(name, bot)| Entry {
                bot: name.clone(),
                attest: bot.attest.clone(),
            })
            .collect()
    }

    /// Finds the bots that a host cannot tell apart, where `uid_of` gives the numbers of its users.
    ///
    /// What is true on every host `load` has told already; this knows the users of one.
    pub fn indistinct(&self, host: &HostName, uid_of: impl Fn(&str) -> Option<u32>) -> Vec<Indistinct> {
        overlap::on_host(&self.entries_for(host), uid_of)
    }

    /// Compiles the rules.
    pub fn compile(&self, generation: Generation) -> Policy {
        Policy::new(self, generation)
    }

    /// Runs the tests of the mesh at `now`; a test with `at` runs at its own time.
    pub fn run_tests(&self, now: Timestamp) -> TestReport {
        tests_of_mesh::run(self, now)
    }

    /// Explains one call. For many calls, keep an [`Explainer`]: this compiles the rules each time.
    pub fn explain(&self, now: Timestamp, from: &SpiffeId, to: &Callee, what: &What) -> Explanation {
        Explainer::new(self).explain(now, from, to, what)
    }

    pub(crate) fn roster(&self) -> Roster<'_> {
        Roster::new(self.bots.keys(), &self.groups)
    }

    /// Gives the bots that a rule lets be called, or forbids to call. An allow rule speaks of those only that serve its
    /// protocol, whatever its patterns match besides; a deny rule holds whatever they serve.
    pub(crate) fn callees_of<'m>(&'m self, roster: &mut Roster<'m>, rule: &'m Rule) -> Bits {
        let mut callees = roster.expand(&rule.to);
        let Some(kind) = rule.kind.filter(|_| rule.effect == Effect::Allow) else {
            return callees;
        };
        for (number, bot) in self.bots.values().enumerate() {
            if bot.serve.as_ref().is_some_and(|serve| serve.kind() != kind) {
                callees.remove(number);
            }
        }
        callees
    }
}

#[cfg(test)]
mod tests;
