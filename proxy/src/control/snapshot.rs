//! What this host knows of the mesh at one moment, and the rules by which what the
//! CA says becomes the next moment: whole, checked, and only upward.

mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use ca_api::admin::Quarantined;
use ca_api::node;
use policy::{Bot, Generation, Mesh, Policy, Source, feature};
use serde::Deserialize;
use spiffe::bundle::TrustBundle;
use spiffe::entry::Entry;
use spiffe::id::{BotName, HostName, HostPattern, SpiffeId, TrustDomain};
use spiffe::svid::Serial;

use super::quarantine::LocalList;
use super::state_dir::{SavedBundle, SavedEndpoints, SavedSlice};

pub use error::{BundleRefusal, FirstError, SliceError};

/// The most addresses kept of one bot; more add nothing to a choice among them.
const ADDRESSES_MAX: usize = 64;

/// The most features that a refusal names.
const FEATURES_SAID: usize = 16;

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
    /// SVIDs of bots that quarantined hosts hold or evicted hosts held.
    pub quarantined_serials: Arc<BTreeSet<Serial>>,
    /// What of that the CA said.
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

/// The quarantines that the CA listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MeshQuarantines {
    pub(crate) bots: BTreeSet<BotName>,
    pub(crate) hosts: BTreeSet<HostName>,
    pub(crate) serials: BTreeSet<Serial>,
}

impl MeshQuarantines {
    /// Reads the list; nothing when a name or number in it cannot be read.
    fn from_wire(list: &node::Quarantines) -> Option<Self> {
        let bots = list.bots.iter().map(|bot| BotName::parse(bot).ok());
        let hosts = list.hosts.iter().map(|host| HostName::parse(host).ok());
        let serials = list.serials.iter().map(|serial| serial.parse().ok());
        Some(Self {
            bots: bots.collect::<Option<_>>()?,
            hosts: hosts.collect::<Option<_>>()?,
            serials: serials.collect::<Option<_>>()?,
        })
    }
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

/// A slice that has not been looked at.
#[derive(Clone, Debug)]
pub(super) struct OfferedSlice {
    pub(super) generation: Generation,
    pub(super) sha256: Vec<u8>,
    pub(super) json: Vec<u8>,
    /// What a host must be able to enforce to apply it, by the CA's word.
    pub(super) features: Vec<String>,
}

impl OfferedSlice {
    pub(super) fn from_wire(slice: node::Slice) -> Result<Self, SliceError> {
        let Some(generation) = slice.generation else {
            return Err(SliceError::NoGeneration);
        };
        Ok(Self {
            generation: from_wire(generation),
            sha256: slice.sha256,
            json: slice.json,
            features: slice.features,
        })
    }

    pub(super) fn from_saved(saved: SavedSlice) -> Self {
        let sha256 = sha256(saved.json.as_bytes()).to_vec();
        Self {
            generation: saved.generation,
            sha256,
            json: saved.json.into_bytes(),
            features: Vec::new(),
        }
    }

    pub(super) fn to_save(&self) -> SavedSlice {
        SavedSlice {
            generation: self.generation,
            json: String::from_utf8_lossy(&self.json).into_owned(),
        }
    }
}

impl Snapshot {
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
            quarantined_serials: Arc::default(),
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
        enforceable(generation, &offered.features)?;
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

    /// The next moment, with these quarantines. A name that does not parse makes
    /// the whole list unusable: leaving it out would release somebody.
    pub(super) fn with_quarantines(&self, quarantines: &node::Quarantines) -> Option<Change> {
        let generation = quarantines.generation.map(from_wire).unwrap_or_default();
        if generation < self.quarantines_generation {
            tracing::warn!(%generation, known = %self.quarantines_generation, "quarantines of an earlier state were not taken");
            return Some(Change::Known);
        }
        let list = MeshQuarantines::from_wire(quarantines)?;
        if generation == self.quarantines_generation && list == *self.mesh_quarantines {
            return Some(Change::Known);
        }
        let mut next = self.clone();
        next.mesh_quarantines = Arc::new(list);
        next.quarantines_generation = generation;
        Some(Change::Next(Box::new(
            next.with_local(Arc::clone(&self.local_quarantines)),
        )))
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

    /// The moment in which nobody calls or is called on this host: what the CA has quarantined is not known.
    pub(super) fn with_quarantines_unknown(&self) -> Self {
        let mut next = self.clone();
        next.mesh_quarantines = Arc::new(MeshQuarantines {
            hosts: BTreeSet::from([self.host.clone()]),
            ..MeshQuarantines::default()
        });
        next.with_local(Arc::clone(&self.local_quarantines))
    }

    /// This moment, with these quarantines of this host: who is cut off is the union of both lists.
    pub(super) fn with_local(mut self, local: Arc<LocalList>) -> Self {
        let (mut bots, mut hosts) = (self.mesh_quarantines.bots.clone(), self.mesh_quarantines.hosts.clone());
        for whom in local.keys() {
            match whom {
                Quarantined::Bot(bot) => drop(bots.insert(bot.clone())),
                Quarantined::Host(host) => drop(hosts.insert(host.clone())),
            }
        }
        if !hosts.is_empty() {
            let cut_off = |bot: &Bot| {
                let names = |pattern: &HostPattern| hosts.iter().any(|host| host.as_str() == pattern.as_str());
                !bot.hosts.is_empty() && bot.hosts.iter().all(names)
            };
            let at_home = self.mesh.bots().iter().filter(|(_, bot)| cut_off(bot));
            bots.extend(at_home.map(|(name, _)| name.clone()));
        }
        self.quarantined_bots = Arc::new(bots);
        self.quarantined_hosts = Arc::new(hosts);
        self.quarantined_serials = Arc::new(self.mesh_quarantines.serials.clone());
        self.local_quarantines = local;
        self
    }

    /// The number of the CA's list, and the list.
    pub(super) fn quarantines_generation(&self) -> Generation {
        self.quarantines_generation
    }

    /// What the CA has quarantined.
    pub(crate) fn mesh_quarantines(&self) -> &MeshQuarantines {
        &self.mesh_quarantines
    }

    /// Says whether a bot may neither call nor be called.
    #[must_use]
    pub fn is_quarantined(&self, bot: &BotName) -> bool {
        self.quarantined_bots.contains(bot)
    }

    /// Says which quarantine forbids a call, if one does: of this host, of the caller, of the SVID that it calls by, of
    /// the callee. That the callee is quarantined learns only a caller that a rule links to it.
    pub(crate) fn cut_off(
        &self,
        id: &SpiffeId,
        from: &BotName,
        from_serial: Option<&Serial>,
        to: &BotName,
    ) -> Option<&'static str> {
        if self.quarantined_hosts.contains(&self.host) {
            return Some("this host is quarantined");
        }
        if self.is_quarantined(from) {
            return Some("the calling bot is quarantined");
        }
        if from_serial.is_some_and(|serial| self.quarantined_serials.contains(serial)) {
            return Some("the host that the call comes from is quarantined");
        }
        (self.is_quarantined(to) && self.policy.links(id, to)).then_some("the bot that is called is quarantined")
    }

    /// Says whether a bot may be at home on a quarantined host.
    pub(crate) fn may_be_on_quarantined_host(&self, bot: &BotName) -> bool {
        let bot = self.mesh.bots().get(bot);
        bot.is_some_and(|bot| self.quarantined_hosts.iter().any(|host| bot.may_run_on(host)))
    }

    /// This moment, with the bundle of another.
    pub(super) fn with_bundle_of(mut self, other: &Self) -> Self {
        self.bundle = Arc::clone(&other.bundle);
        self.bundle_epoch = other.bundle_epoch;
        self
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

/// Refuses a slice that needs what this proxy does not enforce: the rest of it would
/// be read as if that were not there.
fn enforceable(offered: Generation, needed: &[String]) -> Result<(), SliceError> {
    let lacking: BTreeSet<&str> = needed
        .iter()
        .map(String::as_str)
        .filter(|word| !feature::ENFORCED.contains(word))
        .take(FEATURES_SAID)
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = lacking
        .into_iter()
        .map(|word| word.escape_debug().to_string())
        .collect();
    Err(SliceError::Features {
        offered,
        lacking: words.join(", "),
    })
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
