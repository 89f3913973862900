//! What has to be so before a rotation goes on.

use ca_api::rotation::Phase;
use policy::CredentialName;
use spiffe::id::HostName;

use super::RotationError;
use crate::core::Core;
use crate::store::{HostRowState, RotationRow};

impl Core {
    /// Goes on with a rotation, or gives it up.
    pub(crate) async fn advance_rotation(
        &self,
        (actor, name): (&str, &CredentialName),
        (rotation, to): (u64, Phase),
        without_away: bool,
    ) -> Result<(), RotationError> {
        let _turn = self.rotations.changing.lock().await;
        let list = self.rotations.list();
        let Some(now) = list.get(name.as_str()) else {
            return Err(RotationError::NoSuchCredential);
        };
        if now.rotation != rotation {
            return Err(RotationError::UnderWay(format!(
                "the newest rotation of {name} is {}",
                now.rotation
            )));
        }
        if !now.phase.may_become(to) {
            return Err(RotationError::NotYet(format!(
                "it is {}, and cannot become {to}",
                now.phase
            )));
        }
        self.may_become(name, now, to, without_away)?;
        let changed = self.now();
        let next = RotationRow {
            phase: to,
            changed,
            rotated: if to == Phase::Current {
                Some(changed)
            } else {
                now.rotated
            },
            ..(**now).clone()
        };
        // First the record: a value that bots get, and one that is thrown away, has one.
        self.record_rotation(actor, &next)?;
        let kept = self.store.advance_rotation(next.clone()).await;
        kept.map_err(|source| RotationError::Store { source })?;
        self.rotations.set(name, next);
        Ok(())
    }

    /// Ends a rotation whose value before the service refuses.
    pub(super) async fn old_value_refused(&self, name: &CredentialName) {
        let Some(rotation) = self.rotations.list().get(name.as_str()).map(|found| found.rotation) else {
            return;
        };
        let ended = self
            .advance_rotation(("ca", name), (rotation, Phase::Revoked), true)
            .await;
        match ended {
            Ok(()) => {
                tracing::info!(credential = %name, rotation, "the service refuses the value before: the rotation is over")
            }
            // Another report was first, or a host has not got the new one yet: its report will be the next.
            Err(RotationError::NotYet(_)) => {}
            Err(error) => {
                tracing::error!(credential = %name, error = &error as &dyn std::error::Error, "a rotation was not ended");
            }
        }
    }

    fn may_become(
        &self,
        name: &CredentialName,
        now: &RotationRow,
        to: Phase,
        without_away: bool,
    ) -> Result<(), RotationError> {
        let needed = match to {
            Phase::Staged | Phase::Aborted => return Ok(()),
            Phase::Canary | Phase::Current => Phase::Staged,
            Phase::Revoked => Phase::Current,
        };
        let behind = self.behind(name, now, needed, without_away);
        if !behind.is_empty() {
            return Err(RotationError::NotYet(format!("not {needed} on {}", behind.join(", "))));
        }
        if needed == Phase::Current {
            return Ok(());
        }
        let told = self.rotations.report(name, &now.canary.1);
        if self.has_probe(name) {
            match told.as_ref().and_then(|told| told.probe_new) {
                Some(200..=299) => {}
                Some(status) => {
                    return Err(RotationError::NotYet(format!(
                        "the service answered {status} to the probe with the new value"
                    )));
                }
                None => {
                    let why = told.map(|told| told.probe_error).filter(|why| !why.is_empty());
                    let why = why.unwrap_or_else(|| "it has not been made yet".to_owned());
                    return Err(RotationError::NotYet(format!(
                        "no probe with the new value was answered: {why}"
                    )));
                }
            }
        }
        match told.map_or(0, |told| told.canary_refused) {
            0 => Ok(()),
            refused => Err(RotationError::NotYet(format!(
                "{refused} calls of {} with the new value were answered by 401",
                now.canary.0
            ))),
        }
    }

    fn has_probe(&self, name: &CredentialName) -> bool {
        let live = self.world.live();
        let credential = live.mesh.as_deref().and_then(|mesh| mesh.credential(name.as_str()));
        credential.is_some_and(|credential| credential.probe.is_some())
    }

    /// The hosts of a rotation that have not come so far, each with what it said.
    fn behind(&self, name: &CredentialName, rotation: &RotationRow, needed: Phase, without_away: bool) -> Vec<String> {
        let (hosts, cut_off) = (self.world.hosts(), self.quarantines.list());
        let is_behind = |host: &&HostName| {
            let view = hosts.get(*host).filter(|view| view.row.state == HostRowState::Joined)?;
            // It is told nothing until it is released, and makes no calls.
            if cut_off.has_host(host) || without_away && view.session.is_none() {
                return None;
            }
            let told = self.rotations.report(name, host);
            let done = told
                .as_ref()
                .is_some_and(|told| told.error.is_empty() && told.phase >= Some(needed));
            let why = match told {
                _ if view.session.is_none() => " (away)".to_owned(),
                Some(told) if !told.error.is_empty() => format!(" ({})", told.error),
                Some(_) | None => String::new(),
            };
            (!done).then(|| format!("{host}{why}"))
        };
        rotation.values.keys().filter_map(|host| is_behind(&host)).collect()
    }
}
