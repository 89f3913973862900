//! A credential that gets a new value: the new one is kept beside the one in use, tried out by one bot, and put in its place.
//! The one before is kept until the service refuses it, because what it leaks is worth something until then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use policy::{Credential, CredentialName, Injection};
use spiffe::id::{BotName, IdKind, SpiffeId};
use thiserror::Error;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::super::secret::Secret;
use super::super::source::{KeyError, Shape, SourceError, Which};
use super::{Credentials, Loaded, Slot, Unavailable};

/// What became of calls with a new value.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    calls: AtomicU64,
    refused: AtomicU64,
}

impl Trial {
    pub(super) fn answered(&self, is_refusal: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if is_refusal {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there were, and how many of them the service refused.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// A new value, and who gets it.
#[derive(Debug)]
pub(super) struct OnTrial {
    bot: BotName,
    secret: Arc<Secret>,
    loaded: Option<Arc<Loaded>>,
    trial: Arc<Trial>,
}

impl OnTrial {
    pub(super) const fn secret(&self) -> &Arc<Secret> {
        &self.secret
    }
}

/// Why a host does not carry out what it was told of a new value.
#[derive(Debug, Error)]
pub(crate) enum RotateError {
    /// Its place is another one, which somebody else fills.
    #[error(
        "credentials.sources of its proxy.yaml reads the value from a {kind}: change it there, or take that entry out"
    )]
    Elsewhere { kind: &'static str },
    /// What came is sealed to another key, damaged, or no value.
    #[error("the new value cannot be opened")]
    Sealed {
        #[source]
        source: SourceError,
    },
    /// What came is not what was announced.
    #[error("the new value is not the one that was announced: its fingerprint is {found}")]
    OtherValue { found: String },
    /// It is not there.
    #[error("there is no new value on this host")]
    NotStaged,
    /// A later one is in use.
    #[error("a later rotation, {done}, has brought this host a value already")]
    Older { done: u64 },
    /// It could not be written.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Slot {
    /// The new value for the bot that tries it out; nothing for every other one.
    pub(super) fn on_trial(
        &self,
        name: &CredentialName,
        credential: &Credential,
        from: &SpiffeId,
    ) -> Result<Option<Arc<Loaded>>, Unavailable> {
        // What is exchanged is tried by exchanging it, which every bot does at once.
        if matches!(
            credential.injection,
            Injection::OAuth(_) | Injection::GithubApp(_) | Injection::Federate(_)
        ) {
            return Ok(None);
        }
        let mut kept = self.kept();
        let tries = |bot: &BotName| matches!(from.kind(), IdKind::Bot(caller) if caller == *bot);
        let Some(on) = kept.trial.as_mut().filter(|on| tries(&on.bot)) else {
            return Ok(None);
        };
        if let Some(loaded) = on
            .loaded
            .as_ref()
            .filter(|loaded| loaded.injection == credential.injection)
        {
            return Ok(Some(Arc::clone(loaded)));
        }
        let (secret, trial) = (Arc::clone(&on.secret), Arc::clone(&on.trial));
        let loaded = Arc::new(self.load(name, &credential.injection, (secret, None), Some(trial))?);
        on.loaded = Some(Arc::clone(&loaded));
        Ok(Some(loaded))
    }
}

impl Credentials {
    /// Keeps a new value beside the one in use, if it is what it should be. One that is there already, or in use, is not kept
    /// twice.
    pub(crate) async fn stage(
        &self,
        name: &CredentialName,
        shape: Shape,
        (sealed, fingerprint): (&[u8], &str),
    ) -> Result<(), RotateError> {
        if let Some(source) = self.sources.get(name) {
            return Err(RotateError::Elsewhere { kind: source.kind() });
        }
        if self.is(name, Which::Next, fingerprint).await || self.is(name, Which::Current, fingerprint).await {
            return Ok(());
        }
        let next = self.sealer.file_of(name, Which::Next);
        let bytes = Zeroizing::new(sealed.to_vec());
        let secret = self.sealer.unseal(next.clone(), bytes, shape).await;
        let secret = secret.map_err(|source| RotateError::Sealed { source })?;
        let found = secret.fingerprint();
        if found != fingerprint {
            return Err(RotateError::OtherValue { found });
        }
        self.sealer.keep(next, sealed.to_vec()).await?;
        // Of a rotation whose end this host did not hear.
        self.slot(name).kept().trial = None;
        self.changed();
        Ok(())
    }

    async fn is(&self, name: &CredentialName, which: Which, fingerprint: &str) -> bool {
        let found = self.sealer.open(self.sealer.file_of(name, which), Shape::Line).await;
        found.is_ok_and(|secret| secret.fingerprint() == fingerprint)
    }

    /// Gives the new value to one bot.
    pub(crate) async fn try_out(&self, name: &CredentialName, bot: &BotName) -> Result<(), RotateError> {
        let slot = self.slot(name);
        if slot.kept().trial.as_ref().is_some_and(|trial| trial.bot == *bot) {
            return Ok(());
        }
        let secret = self.of_file(name, Which::Next).await?;
        slot.kept().trial = Some(OnTrial {
            bot: bot.clone(),
            secret,
            loaded: None,
            trial: Arc::default(),
        });
        self.changed();
        Ok(())
    }

    /// What became of calls with the new value.
    pub(crate) fn trial(&self, name: &CredentialName) -> Option<(u64, u64)> {
        let slot = self.slot(name);
        let kept = slot.kept();
        kept.trial.as_ref().map(|on| on.trial.counts())
    }

    /// Whether that rotation has brought its value already: what an operator put in its place since stays.
    ///
    /// # Errors
    ///
    /// When a later one has.
    pub(crate) async fn has_done(&self, name: &CredentialName, rotation: u64) -> Result<bool, RotateError> {
        let done = self.sealer.done(name).await?;
        if done > rotation {
            return Err(RotateError::Older { done });
        }
        Ok(done == rotation)
    }

    /// Puts the new value in the place of the one in use. Calls that begin from now on get it; those under way end with the
    /// one that they have, which they hold up by what is given here.
    pub(crate) async fn promote(
        &self,
        name: &CredentialName,
        (rotation, fingerprint): (u64, &str),
    ) -> Result<Weak<Secret>, RotateError> {
        let slot = self.slot(name);
        // Whoever reads the value that was there before does not bring it back.
        let _one_at_a_time = slot.reading.lock().await;
        if !self.is(name, Which::Current, fingerprint).await {
            if !self.is(name, Which::Next, fingerprint).await {
                return Err(RotateError::NotStaged);
            }
            self.sealer.promote(name).await?;
        }
        self.sealer.note_done(name, rotation).await?;
        let secret = self.of_file(name, Which::Current).await?;
        let old = self.of_file(name, Which::Old).await.ok();
        let mut kept = slot.kept();
        let before = kept.value.replace((secret, Instant::now()));
        let under_way = before.map_or_else(Weak::new, |(before, _)| Arc::downgrade(&before));
        (kept.loaded, kept.failed) = (None, None);
        (kept.trial, kept.old) = (None, old);
        drop(kept);
        // What was exchanged was so for the value before.
        slot.tokens().forget();
        self.changed();
        Ok(under_way)
    }

    /// Guards the value before again, after a restart.
    pub(crate) async fn remember_old(&self, name: &CredentialName) {
        let old = self.of_file(name, Which::Old).await.ok();
        self.slot(name).kept().old = old;
        self.changed();
    }

    /// Deletes the value before: the service refuses it.
    pub(crate) async fn forget_old(&self, name: &CredentialName) -> Result<(), RotateError> {
        self.sealer.delete(self.sealer.file_of(name, Which::Old)).await?;
        self.slot(name).kept().old = None;
        self.changed();
        Ok(())
    }

    /// Gives the new value up.
    pub(crate) async fn give_up(&self, name: &CredentialName) -> Result<(), RotateError> {
        self.slot(name).kept().trial = None;
        self.changed();
        Ok(self.sealer.delete(self.sealer.file_of(name, Which::Next)).await?)
    }

    /// Gives a value that is not in use, for a probe; nothing where there is none.
    pub(crate) async fn for_probe(
        &self,
        name: &CredentialName,
        credential: &Credential,
        which: Which,
    ) -> Result<Option<Loaded>, Unavailable> {
        let Ok(secret) = self.of_file(name, which).await else {
            return Ok(None);
        };
        self.slot(name)
            .load(name, &credential.injection, (secret, None), None)
            .map(Some)
    }

    async fn of_file(&self, name: &CredentialName, which: Which) -> Result<Arc<Secret>, RotateError> {
        let found = self.sealer.open(self.sealer.file_of(name, which), Shape::Line).await;
        found.map(Arc::new).map_err(|_unread| RotateError::NotStaged)
    }
}

#[cfg(test)]
mod tests;
