//! Who is cut off at one moment: the union of what the CA listed and what was set on this host.

use std::collections::BTreeSet;
use std::sync::Arc;

use ca_api::admin::Quarantined;
use ca_api::node;
use policy::{Bot, Generation};
use spiffe::id::{BotName, HostName, HostPattern, SpiffeId};
use spiffe::svid::Serial;

use super::{Change, Snapshot, from_wire};
use crate::control::quarantine::LocalList;

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

impl Snapshot {
    /// How many are cut off at this moment, by kind.
    pub(crate) fn quarantined(&self) -> [(&'static str, usize); 3] {
        [
            ("bot", self.quarantined_bots.len()),
            ("host", self.quarantined_hosts.len()),
            ("svid", self.mesh_quarantines.serials.len()),
        ]
    }

    /// The next moment, with these quarantines. A name that does not parse makes
    /// the whole list unusable: leaving it out would release somebody.
    pub(in crate::control) fn with_quarantines(&self, quarantines: &node::Quarantines) -> Option<Change> {
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

    /// The moment in which nobody calls or is called on this host: what the CA has quarantined is not known.
    pub(in crate::control) fn with_quarantines_unknown(&self) -> Self {
        let mut next = self.clone();
        next.mesh_quarantines = Arc::new(MeshQuarantines {
            hosts: BTreeSet::from([self.host.clone()]),
            ..MeshQuarantines::default()
        });
        next.with_local(Arc::clone(&self.local_quarantines))
    }

    /// This moment, with these quarantines of this host: who is cut off is the union of both lists.
    pub(in crate::control) fn with_local(mut self, local: Arc<LocalList>) -> Self {
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
        self.local_quarantines = local;
        self
    }

    /// The number of the CA's list, and the list.
    pub(in crate::control) fn quarantines_generation(&self) -> Generation {
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

    /// Says whether an SVID is worth nothing, because a quarantined host holds it or an evicted host held it.
    pub(crate) fn revokes(&self, serial: &Serial) -> bool {
        self.mesh_quarantines.serials.contains(serial)
    }

    /// Says which quarantine forbids a call, if one does: of this host, of the caller, of the SVID that it calls by, of
    /// the callee where it is a bot. That the callee is quarantined learns only a caller that a rule links to it.
    pub(crate) fn cut_off(
        &self,
        id: &SpiffeId,
        from: &BotName,
        from_serial: Option<&Serial>,
        to: Option<&BotName>,
    ) -> Option<&'static str> {
        if self.quarantined_hosts.contains(&self.host) {
            return Some("this host is quarantined");
        }
        if self.is_quarantined(from) {
            return Some("the calling bot is quarantined");
        }
        if from_serial.is_some_and(|serial| self.revokes(serial)) {
            return Some("the host that the call comes from is quarantined");
        }
        let to = to.filter(|to| self.is_quarantined(to) && self.policy.links(id, to));
        to.map(|_called| "the bot that is called is quarantined")
    }

    /// Says whether a bot may be at home on a quarantined host.
    pub(crate) fn may_be_on_quarantined_host(&self, bot: &BotName) -> bool {
        let bot = self.mesh.bots().get(bot);
        bot.is_some_and(|bot| self.quarantined_hosts.iter().any(|host| bot.may_run_on(host)))
    }
}
