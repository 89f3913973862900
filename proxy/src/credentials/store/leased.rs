//! Credentials that are taken anew for each process of a bot.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use policy::{Credential, CredentialName};
use tokio::time::Instant;

use super::super::events::{Step, Whose};
use super::super::inject;
use super::super::lease::{Key, Least, Taken, Value, value_of};
use super::super::mask::Finder;
use super::super::source::{Source, SourceError};
use super::super::vault::{Fields, Granted, VaultSource, VaultWord, What};
use super::{Credentials, Loaded, Slot, Unavailable};
use crate::attest::Caller;

/// What is taken.
struct Wanted {
    name: CredentialName,
    credential: Credential,
    source: VaultSource,
}

impl Credentials {
    /// Where a credential is made for each process, if it is.
    pub(super) fn leased_source(&self, name: &CredentialName) -> Option<&VaultSource> {
        match self.sources.get(name)? {
            Source::Vault(source) if matches!(source.what, What::Lease { .. }) => Some(source),
            Source::File(_) | Source::Command(_) | Source::Systemd(_) | Source::Env(_) | Source::Vault(_) => None,
        }
    }

    /// Whether a credential is made for each process.
    pub(crate) fn is_leased(&self, name: &CredentialName) -> bool {
        self.leased_source(name).is_some()
    }

    /// Gives the lease of the process that calls, or takes one for it.
    pub(super) async fn leased(
        self: &Arc<Self>,
        (name, credential): (&CredentialName, &Credential),
        source: &VaultSource,
        caller: Option<&Caller>,
    ) -> Result<Arc<Loaded>, Unavailable> {
        let failed = |source| Unavailable::NotRead {
            name: name.clone(),
            source,
        };
        let process = caller.and_then(|caller| Some((caller, caller.process()?)));
        let (caller, process) = process.ok_or_else(|| failed(Arc::new(SourceError::ProcessEnded)))?;
        let key = Key::new(name, &caller.bot, &process);
        let usable = |least| self.leases.usable(&key, &credential.injection, least);
        if let Some(loaded) = usable(Least::Fresh) {
            return Ok(loaded);
        }
        let turn = self.leases.turn(&key, &process).await;
        if let Some(loaded) = usable(Least::Fresh) {
            return Ok(loaded);
        }
        let slot = self.slot(name);
        if let Some(source) = slot.left_alone(Instant::now()) {
            // What has not ended is better than nothing.
            return usable(Least::Good).ok_or_else(|| failed(source));
        }
        let wanted = Wanted {
            name: name.clone(),
            credential: credential.clone(),
            source: source.clone(),
        };
        let (this, place) = (Arc::clone(self), key.clone());
        // A task of its own: a call that is given up must not leave a lease behind of which nobody knows.
        let taking = self.tasks.spawn(async move {
            let taken = this.take(&wanted, &place, &slot).await;
            drop(turn);
            taken
        });
        let taken = taking
            .await
            .unwrap_or_else(|_ended| Err(Arc::new(SourceError::Stopping)));
        taken.or_else(|source| usable(Least::Good).ok_or_else(|| failed(source)))
    }

    async fn take(&self, wanted: &Wanted, place: &Key, slot: &Slot) -> Result<Arc<Loaded>, Arc<SourceError>> {
        let _counted = self.leases.begin(&place.bot).map_err(Arc::new)?;
        let was_failing = slot.kept().failed.is_some();
        let taken = slot.note_lease(&wanted.name, self.taken(wanted, slot).await);
        if let Some(vault) = &wanted.source.of {
            let (of, events) = (place.whose(vault), &self.leases.events);
            match &taken {
                Ok(_taken) => events.lease(Step::Taken, &of, Ok(())),
                // The first in a row, as the log has it.
                Err(error) if !was_failing => events.lease(Step::Taken, &of, Err(&**error)),
                Err(_again) => {}
            }
        }
        self.leases.install(place, taken?).map_err(Arc::new)
    }

    /// Takes a lease for nobody, looks at it and gives it back: whether that goes well is what an operator wants to know.
    pub(crate) async fn try_lease(&self, name: &CredentialName, credential: &Credential) {
        let Some(source) = self.leased_source(name) else { return };
        let slot = self.slot(name);
        let _one_at_a_time = slot.reading.lock().await;
        let wanted = Wanted {
            name: name.clone(),
            credential: credential.clone(),
            source: source.clone(),
        };
        let taken = slot.note_lease(name, self.taken(&wanted, &slot).await);
        if let Ok(taken) = taken {
            let of = nobodys(name, &taken.vault);
            self.leases.events.lease(Step::Taken, &of, Ok(()));
            self.leases.give_back(of, taken.id, &taken.grant);
        }
    }

    /// Takes a lease, and gives it back where its value is of no use.
    async fn taken(&self, wanted: &Wanted, slot: &Slot) -> Result<Taken, SourceError> {
        let Granted { id, fields, grant } = self.leases.vaults.take(&wanted.source).await?;
        let Some(vault) = wanted.source.of.clone() else {
            return Err(SourceError::Stopping);
        };
        let made = match self.leases.remember(&vault, &id, &grant).await {
            Ok(()) => self.made(wanted, &fields, slot),
            Err(error) => Err(error),
        };
        match made {
            Ok(loaded) => Ok(Taken {
                vault,
                id,
                grant,
                injection: wanted.credential.injection.clone(),
                loaded,
            }),
            Err(error) => {
                self.leases.give_back(nobodys(&wanted.name, &vault), id, &grant);
                Err(error)
            }
        }
    }

    fn made(&self, wanted: &Wanted, fields: &Fields, slot: &Slot) -> Result<Arc<Loaded>, SourceError> {
        let (What::Lease { key, .. }, name) = (&wanted.source.what, &wanted.name) else {
            return Err(SourceError::Nowhere {
                name: wanted.name.to_string(),
            });
        };
        let made = value_of(fields, key.as_ref(), &wanted.credential.injection);
        let Value { secret, injection } = made.map_err(|cause| self.leases.vaults.misfit(&wanted.source, cause))?;
        let guarded = inject::guarded(&injection, &secret);
        let finder = Finder::new(guarded.iter().map(|part| part.as_slice()));
        Ok(Arc::new(Loaded {
            name: name.clone(),
            injection,
            value: Arc::new(secret),
            token: None,
            masked: Arc::clone(&slot.masked),
            over: AtomicBool::new(false),
            finder: finder.map_err(|_too_many| SourceError::NoFinder)?,
            trial: None,
        }))
    }
}

/// Of a lease that no process got.
fn nobodys(name: &CredentialName, vault: &VaultWord) -> Whose {
    Whose {
        vault: vault.clone(),
        name: Some(name.clone()),
        bot: None,
    }
}
