//! What hosts say of a rotation.

use ca_api::node::CredentialReport;
use ca_api::rotation::{NAME_BYTES_MAX, Phase, UNAUTHORIZED};
use policy::CredentialName;
use spiffe::id::HostName;

use super::Rotations;
use crate::core::Core;
use crate::observed::shorten;

/// The longest text of an error that is kept.
const ERROR_BYTES_MAX: usize = 512;

/// How far one host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) rotation: u64,
    pub(crate) phase: Option<Phase>,
    pub(crate) error: String,
    pub(crate) probe_new: Option<u16>,
    pub(crate) probe_old: Option<u16>,
    pub(crate) probe_error: String,
    pub(crate) canary_calls: u64,
    pub(crate) canary_refused: u64,
}

/// A status of HTTP; 0 is none.
fn status(told: u32) -> Option<u16> {
    u16::try_from(told).ok().filter(|status| (100..=999).contains(status))
}

impl From<CredentialReport> for Report {
    fn from(told: CredentialReport) -> Self {
        Self {
            rotation: told.rotation,
            phase: Phase::from_word(&told.phase),
            error: shorten(told.error, ERROR_BYTES_MAX),
            probe_new: status(told.probe_new),
            probe_old: status(told.probe_old),
            probe_error: shorten(told.probe_error, ERROR_BYTES_MAX),
            canary_calls: told.canary_calls,
            canary_refused: told.canary_refused,
        }
    }
}

impl Rotations {
    /// Takes a report in; `false` where the host was told of no such rotation.
    fn take(&self, host: &HostName, name: &CredentialName, report: Report) -> bool {
        let list = self.list();
        let told = list
            .get(name.as_str())
            .filter(|rotation| rotation.values.contains_key(host));
        // One of an earlier rotation was on its way when the newest began.
        let Some(rotation) = told.filter(|rotation| report.rotation <= rotation.rotation) else {
            return false;
        };
        if report.rotation == rotation.rotation {
            drop(self.reports().insert((name.clone(), host.clone()), report));
        }
        true
    }
}

impl Core {
    /// Takes a report of a host in, and ends the rotation when the value before is refused. `false` where the host was told
    /// of no such rotation.
    pub(crate) fn rotation_reported(self: &std::sync::Arc<Self>, host: &HostName, told: CredentialReport) -> bool {
        if told.name.len() > NAME_BYTES_MAX {
            return false;
        }
        let Some(name) = CredentialName::parse(&told.name) else {
            return false;
        };
        if !self.rotations.take(host, &name, told.into()) {
            return false;
        }
        // Whether every host has the new one is looked at where the rotation goes on.
        if self.is_refused(&name) {
            let core = std::sync::Arc::clone(self);
            drop(self.tasks.spawn(async move { core.old_value_refused(&name).await }));
        }
        true
    }

    /// Whether the service refuses the value before.
    fn is_refused(&self, name: &CredentialName) -> bool {
        let list = self.rotations.list();
        let rotation = list.get(name.as_str());
        let Some(rotation) = rotation.filter(|rotation| rotation.phase == Phase::Current) else {
            return false;
        };
        let told = self.rotations.report(name, &rotation.canary.1);
        told.is_some_and(|told| told.probe_old == Some(UNAUTHORIZED))
    }
}
