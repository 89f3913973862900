//! What this host knows of the mesh at one moment, and the rules by which what the
//! CA says becomes the next moment: whole, checked, and only upward.

mod error;
mod offered;
mod quarantines;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use ca_api::node;
use policy::{Endpoint, Generation, Mesh, Policy, Source, Target};
use serde::Deserialize;
use spiffe::bundle::TrustBundle;
use spiffe::entry::Entry;
use spiffe::id::{BotName, HostName, TrustDomain};

use super::quarantine::LocalList;
use super::state_dir::{SavedBundle, SavedEndpoints};

pub use error::{BundleRefusal, FirstError, SliceError};
pub(in crate::control) use offered::OfferedSlice;
pub(crate) use quarantines::MeshQuarantines;

/// The most addresses kept of one bot; more add nothing to a choice among them.
const ADDRESSES_MAX: usize = 64;

/// The longest text of diagnostics that is kept, in characters.
const DIAGNOSTICS_MAX: usize = 4096;

/// What this host knows of the mesh at one moment. Never changed: the next moment
/// is another value.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// This host.
    pub host: HostName,
    /// The number of the policy; `0.0` before the first slice.
    pub generation: Generation,
    /// The policy. Before the first slice it allows nothing.
    pub policy: Arc<Policy>,
    /// The part of the mesh file that this host needs.
    pub mesh: Arc<Mesh>,
    /// Which process is which bot, among the bots that this host may claim.
    pub entries: Arc<[Entry]>,
    /// Whom to trust.
    pub bundle: Arc<TrustBundle>,
    /// Where the proxies that serve a bot can be reached.
    pub endpoints: Arc<BTreeMap<BotName, Vec<SocketAddr>>>,
    /// Bots that may neither call nor be called: set at the CA, set on this host, or at home on quarantined hosts only.
    pub quarantined_bots: Arc<BTreeSet<BotName>>,
    /// Hosts whose bots may neither call nor be called, set at the CA or on this host.
    pub quarantined_hosts: Arc<BTreeSet<HostName>>,
    /// What of that the CA said, and the SVIDs that are worth nothing.
    mesh_quarantines: Arc<MeshQuarantines>,
    /// What of that was set on this host.
    local_quarantines: Arc<LocalList>,
    slice: Option<AppliedSlice>,
    bundle_epoch: u64,
    endpoints_generation: Generation,
    quarantines_generation: Generation,
}

#[derive(Clone, Debug)]
struct AppliedSlice {
    sha256: [u8; 32],
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Change {
    /// It is news.
    Next(Box<Snapshot>),
    /// It was known already.
    Known,
}

/// What a slice says first.
#[derive(Deserialize)]
struct SliceHead {
    slice: HostName,
}

impl Snapshot {
    /// Where a bot is reached that opens its own mutual TLS; nothing for the others, before whom a proxy stands.
    pub(crate) fn own_endpoints(&self, bot: &BotName) -> Option<&[Endpoint]> {
        match self.mesh.bots().get(bot)?.serve.as_ref()?.target()? {
            Target::Endpoints(endpoints) => Some(endpoints),
            Target::Port(_) | Target::Unix(_) | Target::Elsewhere => None,
        }
    }

    /// The moment before the CA was heard: nobody exists, nothing is allowed, and
    /// nobody is trusted.
    pub(super) fn first(trust_domain: TrustDomain, host: HostName) -> Result<Self, FirstError> {
        let bundle = TrustBundle::new(trust_domain.clone(), Vec::new(), 0, None)
            .map_err(|source| FirstError::Bundle { source })?;
        let nothing = serde_json::json!({ "version": 1, "trust_domain": trust_domain.as_str(), "bots": {} });
        let mesh = policy::load(&[Source {
            name: "nothing".to_owned(),
            text: nothing.to_string(),
        }])
        .map_err(|diagnostics| FirstError::Mesh {
            diagnostics: diagnostics.render(false),
        })?;
        let generation = Generation::default();
        Ok(Self {
            trust_domain,
            host,
            generation,
            policy: Arc::new(mesh.compile(generation)),
            mesh: Arc::new(mesh),
            entries: Arc::new([]),
            bundle: Arc::new(bundle),
            endpoints: Arc::default(),
            quarantined_bots: Arc::default(),
            quarantined_hosts: Arc::default(),
            mesh_quarantines: Arc::default(),
            local_quarantines: Arc::default(),
            slice: None,
            bundle_epoch: 0,
            endpoints_generation: generation,
            quarantines_generation: generation,
        })
    }

    /// Says whether a slice was applied.
    #[must_use]
    pub fn has_slice(&self) -> bool {
        self.slice.is_some()
    }

    /// The SHA-256 of the slice that is applied.
    #[must_use]
    pub fn slice_sha256(&self) -> Option<[u8; 32]> {
        self.slice.as_ref().map(|slice| slice.sha256)
    }

    /// The bots that this host may claim, by name.
    pub fn claimable(&self) -> impl Iterator<Item = &BotName> {
        self.mesh
            .bots()
            .iter()
            .filter(|(_, bot)| bot.hosts.iter().any(|pattern| pattern.matches(&self.host)))
            .map(|(name, _)| name)
    }

    /// The next moment, with this slice.
    pub(super) fn with_slice(&self, offered: &OfferedSlice) -> Result<Change, SliceError> {
        let generation = offered.generation;
        if sha256(&offered.json).as_slice() != offered.sha256 {
            return Err(SliceError::Sha256 { offered: generation });
        }
        if let Some(applied) = &self.slice {
            if generation < self.generation {
                return Err(SliceError::Older {
                    offered: generation,
                    applied: self.generation,
                });
            }
            if generation == self.generation {
                let same = applied.sha256.as_slice() == offered.sha256;
                return if same {
                    Ok(Change::Known)
                } else {
                    Err(SliceError::Differs { offered: generation })
                };
            }
        }
        let mesh = self.read_slice(offered)?;
        let mut next = self.clone();
        next.generation = generation;
        next.policy = Arc::new(mesh.compile(generation));
        next.entries = mesh.entries_for(&self.host).into();
        next.mesh = Arc::new(mesh);
        next.slice = Some(AppliedSlice {
            sha256: sha256(&offered.json),
        });
        Ok(Change::Next(Box::new(next)))
    }

    fn read_slice(&self, offered: &OfferedSlice) -> Result<Mesh, SliceError> {
        let generation = offered.generation;
        // Before the file is read: one that this version cannot read may say so here.
        offered.enforceable()?;
        let text = std::str::from_utf8(&offered.json).map_err(|source| SliceError::Utf8 {
            offered: generation,
            source,
        })?;
        let head: SliceHead = serde_json::from_str(text).map_err(|source| SliceError::Head {
            offered: generation,
            source,
        })?;
        if head.slice != self.host {
            return Err(SliceError::OtherHost {
                offered: generation,
                named: head.slice,
                host: self.host.clone(),
            });
        }
        let source = Source {
            name: format!("slice {generation}"),
            text: text.to_owned(),
        };
        let mesh = policy::load(&[source]).map_err(|diagnostics| {
            let diagnostics = diagnostics.render(false).chars().take(DIAGNOSTICS_MAX).collect();
            SliceError::Load {
                offered: generation,
                diagnostics,
            }
        })?;
        if *mesh.trust_domain() != self.trust_domain {
            return Err(SliceError::OtherTrustDomain {
                offered: generation,
                named: mesh.trust_domain().clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        Ok(mesh)
    }

    /// The next moment, with this trust bundle. `epoch` is `None` where the bundle
    /// came with an attestation, which numbers nothing.
    pub(super) fn with_bundle(&self, epoch: Option<u64>, jwks: &[u8]) -> Result<Change, BundleRefusal> {
        let bundle = parse_bundle(&self.trust_domain, jwks)?;
        let offered = (epoch.unwrap_or(self.bundle_epoch), bundle.sequence());
        let applied = (self.bundle_epoch, self.bundle.sequence());
        let first = self.bundle.authorities().is_empty();
        if !first && offered < applied {
            return Err(BundleRefusal::Older { offered, applied });
        }
        if !first && offered == applied {
            let same = bundle == *self.bundle;
            return if same {
                Ok(Change::Known)
            } else {
                Err(BundleRefusal::Differs { offered })
            };
        }
        let mut next = self.clone();
        next.bundle = Arc::new(bundle);
        next.bundle_epoch = offered.0;
        Ok(Change::Next(Box::new(next)))
    }

    /// The bundle in the form that is kept.
    pub(super) fn bundle_to_save(&self) -> SavedBundle {
        let jwks = String::from_utf8_lossy(&self.bundle.to_jwks()).into_owned();
        SavedBundle {
            epoch: self.bundle_epoch,
            jwks,
        }
    }

    /// The next moment, with these endpoints; a list of an earlier state is left.
    pub(super) fn with_endpoints(&self, endpoints: node::Endpoints) -> Change {
        let generation = endpoints.generation.map(from_wire).unwrap_or_default();
        if generation < self.endpoints_generation {
            tracing::warn!(%generation, known = %self.endpoints_generation, "endpoints of an earlier state were not taken");
            return Change::Known;
        }
        let known: BTreeMap<_, _> = endpoints.bots.iter().filter_map(read_endpoints).collect();
        if known == *self.endpoints && generation == self.endpoints_generation {
            return Change::Known;
        }
        let mut next = self.clone();
        next.endpoints = Arc::new(known);
        next.endpoints_generation = generation;
        Change::Next(Box::new(next))
    }

    /// Endpoints and quarantines in the form that is kept.
    pub(super) fn endpoints_to_save(&self) -> SavedEndpoints {
        SavedEndpoints {
            endpoints_generation: self.endpoints_generation,
            endpoints: (*self.endpoints).clone(),
            quarantines_generation: self.quarantines_generation,
            quarantined_bots: self.mesh_quarantines.bots.clone(),
            quarantined_hosts: self.mesh_quarantines.hosts.clone(),
            quarantined_serials: self.mesh_quarantines.serials.clone(),
        }
    }

    /// The next moment, with what was kept.
    pub(super) fn with_saved(&self, saved: SavedEndpoints) -> Self {
        let mut next = self.clone();
        next.endpoints_generation = saved.endpoints_generation;
        next.endpoints = Arc::new(saved.endpoints);
        next.quarantines_generation = saved.quarantines_generation;
        next.mesh_quarantines = Arc::new(MeshQuarantines {
            bots: saved.quarantined_bots,
            hosts: saved.quarantined_hosts,
            serials: saved.quarantined_serials,
        });
        next.with_local(Arc::clone(&self.local_quarantines))
    }

    /// This moment, with the bundle of another.
    pub(super) fn with_bundle_of(mut self, other: &Self) -> Self {
        self.bundle = Arc::clone(&other.bundle);
        self.bundle_epoch = other.bundle_epoch;
        self
    }

    /// This moment, with the slice of another that was made of an earlier one.
    pub(super) fn with_policy_of(&self, other: Self) -> Self {
        Self {
            generation: other.generation,
            policy: other.policy,
            mesh: other.mesh,
            entries: other.entries,
            slice: other.slice,
            ..self.clone()
        }
    }
}

/// Reads a bundle that trusts somebody.
pub(super) fn parse_bundle(trust_domain: &TrustDomain, jwks: &[u8]) -> Result<TrustBundle, BundleRefusal> {
    let bundle = TrustBundle::parse(trust_domain, jwks).map_err(|source| BundleRefusal::Parse { source })?;
    if bundle.authorities().is_empty() {
        Err(BundleRefusal::Empty)
    } else {
        Ok(bundle)
    }
}

/// An endpoint that cannot be read cannot be called; the others can.
fn read_endpoints(endpoints: &node::BotEndpoints) -> Option<(BotName, Vec<SocketAddr>)> {
    let Ok(bot) = BotName::parse(&endpoints.bot) else {
        tracing::warn!(bot = %endpoints.bot.escape_debug(), "endpoints of a bot whose name does not parse were left out");
        return None;
    };
    let addresses = endpoints
        .address
        .iter()
        .filter_map(|address| address.parse().ok())
        .take(ADDRESSES_MAX)
        .collect();
    Some((bot, addresses))
}

pub(super) fn from_wire(generation: node::Generation) -> Generation {
    Generation {
        epoch: generation.epoch,
        revision: generation.revision,
    }
}

pub(super) fn to_wire(generation: Generation) -> node::Generation {
    node::Generation {
        epoch: generation.epoch,
        revision: generation.revision,
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests;
