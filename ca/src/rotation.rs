//! New values of credentials, brought to every host that needs them in steps that an operator can watch.
//!
//! The CA carries values that it cannot read: each is sealed to the key of one host. What it adds is the order of things. No
//! bot gets a value before every host has it, all bots get it only after the service took it, and the value before is thrown
//! away only once the service refuses it.

mod advance;
mod reports;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit::EventKind;
use ca_api::node::CredentialOrder;
use ca_api::rotation::Phase;
use policy::CredentialName;
use serde_json::json;
use spiffe::id::{BotName, HostName};
use tokio::sync::watch;

use crate::core::Core;
use crate::journal::JournalError;
use crate::store::{HostRowState, RotationRow, StoreError};

pub(crate) use reports::Report;

/// The newest rotation of each name.
#[derive(Clone, Debug, Default)]
pub(crate) struct RotationList {
    by_name: BTreeMap<CredentialName, Arc<RotationRow>>,
}

impl RotationList {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<RotationRow>> {
        self.by_name.get(name)
    }

    /// The names of which a host is told something.
    pub(crate) fn of(&self, host: &HostName) -> impl Iterator<Item = (&CredentialName, &RotationRow)> {
        let all = self.by_name.iter().map(|(name, rotation)| (name, &**rotation));
        all.filter(|(_, rotation)| rotation.values.contains_key(host))
    }
}

/// The rotations, and what hosts have said of them.
#[derive(Debug)]
pub(crate) struct Rotations {
    list: watch::Sender<Arc<RotationList>>,
    reports: Mutex<BTreeMap<(CredentialName, HostName), Report>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

/// Why a rotation does not begin or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotationError {
    #[error("no rule of the mesh adds a credential of that name")]
    NoSuchCredential,
    #[error("it has no value: the proxy shows the bot's own SVID")]
    NoValue,
    #[error("{0}")]
    UnderWay(String),
    #[error("{0}")]
    Hosts(String),
    #[error("{0}")]
    NotYet(String),
    #[error("write it down")]
    Store {
        #[source]
        source: StoreError,
    },
    #[error("record it")]
    Journal {
        #[source]
        source: JournalError,
    },
}

/// What somebody asks for who has a new value, checked as far as it can be without the mesh.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) name: CredentialName,
    pub(crate) reason: String,
    pub(crate) fingerprint: String,
    pub(crate) canary: Option<BotName>,
    pub(crate) values: BTreeMap<HostName, Vec<u8>>,
}

impl Rotations {
    pub(crate) fn new(rows: Vec<RotationRow>) -> Self {
        let by_name = rows.into_iter().filter_map(|row| {
            let name = CredentialName::parse(&row.name)?;
            Some((name, Arc::new(row)))
        });
        let list = RotationList {
            by_name: by_name.collect(),
        };
        Self {
            list: watch::Sender::new(Arc::new(list)),
            reports: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn list(&self) -> Arc<RotationList> {
        Arc::clone(&self.list.borrow())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<RotationList>> {
        self.list.subscribe()
    }

    /// What a host has said of the newest rotation.
    pub(crate) fn report(&self, name: &CredentialName, host: &HostName) -> Option<Report> {
        let rotation = Arc::clone(self.list().by_name.get(name)?);
        let report = self.reports().get(&(name.clone(), host.clone())).cloned();
        report.filter(|report| report.rotation == rotation.rotation)
    }

    fn set(&self, name: &CredentialName, row: RotationRow) {
        self.change(|list| drop(list.by_name.insert(name.clone(), Arc::new(row))));
    }

    /// Forgets the rotations of names that no mesh has any more.
    fn keep_only(&self, known: &BTreeSet<String>) {
        self.change(|list| list.by_name.retain(|name, _| known.contains(name.as_str())));
        self.reports().retain(|(name, _), _| known.contains(name.as_str()));
    }

    /// Forgets the values of a host that is evicted: whoever comes in its name has another key.
    pub(crate) fn forget_host(&self, host: &HostName) {
        self.change(|list| {
            for rotation in list.by_name.values_mut() {
                if rotation.values.contains_key(host) {
                    drop(Arc::make_mut(rotation).values.remove(host));
                }
            }
        });
        self.reports().retain(|(_, of), _| of != host);
    }

    fn change(&self, change: impl FnOnce(&mut RotationList)) {
        self.list.send_modify(|list| change(Arc::make_mut(list)));
    }

    /// A thread that panicked while it held the lock left whole reports.
    fn reports(&self) -> MutexGuard<'_, BTreeMap<(CredentialName, HostName), Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a host is told of a rotation, unless it has no value in it.
pub(crate) fn order(rotation: &RotationRow, host: &HostName) -> Option<CredentialOrder> {
    let sealed = rotation.values.get(host)?;
    let (bot, canary) = &rotation.canary;
    let is_here = canary == host;
    // Everywhere else the bot goes on with the value in use.
    let phase = match rotation.phase {
        Phase::Canary if !is_here => Phase::Staged,
        Phase::Staged | Phase::Canary | Phase::Current | Phase::Revoked | Phase::Aborted => rotation.phase,
    };
    Some(CredentialOrder {
        name: rotation.name.clone(),
        rotation: rotation.rotation,
        phase: phase.as_str().to_owned(),
        // A host that was away gets it late.
        sealed: if phase == Phase::Aborted {
            Vec::new()
        } else {
            sealed.clone()
        },
        fingerprint: rotation.fingerprint.clone(),
        canary: if is_here { bot.to_string() } else { String::new() },
    })
}

impl Core {
    /// The bots that may use a credential now, each with its rule.
    pub(crate) fn users_of(&self, name: &CredentialName) -> Vec<(BotName, String)> {
        let live = self.world.live();
        let Some(mesh) = live.mesh.as_deref() else {
            return Vec::new();
        };
        let consumers = mesh.consumers_of(name.as_str(), self.now()).into_iter();
        let uses = consumers.flat_map(|(rule, bots)| bots.into_iter().map(move |bot| (bot.clone(), rule.to_string())));
        uses.collect()
    }

    /// The hosts on which such a bot may run.
    pub(crate) fn hosts_of(&self, name: &CredentialName) -> BTreeSet<HostName> {
        let (live, users) = (self.world.live(), self.users_of(name));
        let Some(mesh) = live.mesh.as_deref() else {
            return BTreeSet::new();
        };
        let may_run = |host: &HostName| {
            let mut bots = users.iter().filter_map(|(bot, _)| mesh.bots().get(bot));
            bots.any(|bot| bot.may_run_on(host))
        };
        let hosts = self.world.hosts();
        let joined = hosts.iter().filter(|(_, view)| view.row.state == HostRowState::Joined);
        joined.map(|(name, _)| name.clone()).filter(may_run).collect()
    }

    /// Gives a new value to the hosts, which keep it beside the one in use.
    pub(crate) async fn begin_rotation(&self, actor: &str, by: String, asked: Asked) -> Result<(), RotationError> {
        let _turn = self.rotations.changing.lock().await;
        let live = self.world.live();
        let known: BTreeSet<String> = live
            .mesh
            .iter()
            .flat_map(|mesh| mesh.credentials().map(|(name, _)| name.to_string()))
            .collect();
        let hosts = self.hosts_of(&asked.name);
        if !known.contains(asked.name.as_str()) || hosts.is_empty() {
            return Err(RotationError::NoSuchCredential);
        }
        let found = live
            .mesh
            .as_deref()
            .and_then(|mesh| mesh.credential(asked.name.as_str()));
        if found.is_some_and(|found| !found.injection.has_value()) {
            return Err(RotationError::NoValue);
        }
        let list = self.rotations.list();
        let before = list.get(asked.name.as_str());
        if let Some(before) = before.filter(|before| !before.phase.is_over()) {
            return Err(RotationError::UnderWay(format!(
                "that of {} which began {} is {}: go on with it by --resume, or end it by --abort or --revoked",
                asked.name, before.started, before.phase
            )));
        }
        let sealed: BTreeSet<HostName> = asked.values.keys().cloned().collect();
        let cut_off = self.quarantines.list();
        let needed: BTreeSet<HostName> = hosts.into_iter().filter(|host| !cut_off.has_host(host)).collect();
        if sealed != needed {
            let names = |hosts: &BTreeSet<HostName>| hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ");
            return Err(RotationError::Hosts(format!(
                "the value is for {}, and needed by {}: ask again",
                names(&sealed),
                names(&needed)
            )));
        }
        let now = self.now();
        let row = RotationRow {
            canary: self.canary(&asked, &needed)?,
            name: asked.name.to_string(),
            rotation: 0,
            phase: Phase::Staged,
            fingerprint: asked.fingerprint,
            actor: by,
            reason: asked.reason,
            started: now,
            changed: now,
            rotated: before.and_then(|before| before.rotated),
            values: asked.values,
        };
        self.record_rotation(actor, &row)?;
        let begun = self.store.begin_rotation(row, known.clone()).await;
        let row = begun.map_err(|source| RotationError::Store { source })?;
        self.rotations.keep_only(&known);
        self.rotations.set(&asked.name, row);
        Ok(())
    }

    /// Who gets the value before the others, and where: a bot that may use it, on a host that hears of it.
    fn canary(&self, asked: &Asked, hosts: &BTreeSet<HostName>) -> Result<(BotName, HostName), RotationError> {
        let (live, all, cut_off) = (self.world.live(), self.world.hosts(), self.quarantines.list());
        let heard = |host: &&HostName| all.get(*host).is_some_and(|view| view.session.is_some());
        let place = |bot: &BotName| {
            let entry = live.mesh.as_deref()?.bots().get(bot)?;
            hosts.iter().filter(heard).find(|host| entry.may_run_on(host)).cloned()
        };
        let users = self.users_of(&asked.name).into_iter().map(|(bot, _)| bot);
        let wanted = users.filter(|bot| asked.canary.as_ref().is_none_or(|canary| canary == bot));
        let mut able = wanted.filter(|bot| !cut_off.has_bot(bot));
        let found = able.find_map(|bot| place(&bot).map(|host| (bot, host)));
        found.ok_or_else(|| {
            RotationError::Hosts(match &asked.canary {
                Some(bot) => format!("{bot} may not use {}, or runs on no host that is connected", asked.name),
                None => format!("no host is connected on which a bot that uses {} may run", asked.name),
            })
        })
    }

    fn record_rotation(&self, actor: &str, row: &RotationRow) -> Result<(), RotationError> {
        let (bot, host) = &row.canary;
        let detail = [
            ("phase", json!(row.phase)),
            ("fingerprint", json!(row.fingerprint)),
            ("reason", json!(row.reason)),
            ("canary", json!(format!("{bot} on {host}"))),
            ("hosts", json!(row.values.len())),
        ];
        self.journal
            .event(
                EventKind::CredentialRotated,
                actor,
                &format!("credential:{}", row.name),
                detail,
            )
            .map_err(|source| RotationError::Journal { source })
    }
}
