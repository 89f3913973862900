//! Values in memory: read when they are needed, kept for a bounded time, used for a bounded time more while their source
//! fails, and asked for again at intervals that grow.

mod exchanged;
mod federated;
mod leased;
mod loaded;
mod rotation;
mod slot;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::{Credential, CredentialName, Injection, Mesh, Permit};
use spiffe::id::{BotName, IdKind};
use spiffe::time::Clock;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::exchange::{Exchange, ExchangeError};
use super::inject;
use super::lease::Leases;
use super::mask::Finder;
use super::secret::Secret;
use super::source::{Environment, KeyError, Sealer, Shape, Source, SourceError};
use super::svid::{self, Signer};
use super::token::{Counts, Token, TokenState};
use crate::attest::Caller;
use crate::outside::WayOut;
use federated::Pairs;
pub(crate) use loaded::Loaded;
use rotation::OnTrial;
pub(crate) use rotation::{RotateError, Trial};
use slot::Slot;
pub(super) use slot::pause;

/// The way to where values are exchanged, and the time by which tokens end.
#[derive(Debug)]
pub(crate) struct Outward {
    pub(crate) way_out: WayOut,
    pub(crate) clock: Clock,
    /// Who signs for bots.
    pub(crate) signer: Signer,
}

/// The values.
#[derive(Debug)]
pub(crate) struct Credentials {
    sources: BTreeMap<CredentialName, Source>,
    sealer: Sealer,
    environment: Environment,
    leases: Arc<Leases>,
    outward: Outward,
    /// How long a value is used before it is read again.
    ttl: Duration,
    /// How long it is used after that while it cannot be read.
    stale: Duration,
    tasks: TaskTracker,
    /// Finds every value that is in memory; nothing while nobody asked since one came or went.
    live: Mutex<Option<(Arc<Finder>, u64)>>,
    slots: Mutex<BTreeMap<CredentialName, Arc<Slot>>>,
    /// Of credentials without a value, which are another one for each bot.
    pairs: Pairs,
}

/// Why a call gets no credential.
#[derive(Clone, Debug, Error)]
pub(crate) enum Unavailable {
    /// It was not read.
    #[error("credential {name} was not read")]
    NotRead {
        name: CredentialName,
        #[source]
        source: Arc<SourceError>,
    },
    /// It was not exchanged for a token.
    #[error("credential {name} was not exchanged for a token")]
    NotExchanged {
        name: CredentialName,
        #[source]
        source: Arc<ExchangeError>,
    },
    /// There is no JWT-SVID of the bot for it.
    #[error("credential {name} has no JWT-SVID of the bot")]
    NotSigned {
        name: CredentialName,
        #[source]
        source: Arc<ExchangeError>,
    },
    /// It cannot be looked for.
    #[error("credential {name} cannot be looked for in answers")]
    NoFinder { name: CredentialName },
}

/// How a credential is at the moment, for operators.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) name: CredentialName,
    pub(crate) kind: &'static str,
    /// How long a value lives.
    pub(crate) class: &'static str,
    /// How many processes have one of their own.
    pub(crate) leases: usize,
    /// Of the value in use.
    pub(crate) fingerprint: Option<String>,
    /// How long ago it was read.
    pub(crate) age: Option<Duration>,
    pub(crate) error: Option<Arc<SourceError>>,
    /// In how many answers it was, and was masked.
    pub(crate) masked: u64,
    /// How often it was read.
    pub(crate) reads_ok: u64,
    /// How often it was not.
    pub(crate) reads_failed: u64,
    /// Of one whose value is exchanged.
    pub(crate) token: Option<TokenState>,
    /// Of one without a value: each bot that has used it.
    pub(crate) bots: Vec<(BotName, TokenState)>,
    /// How often tokens were asked for.
    pub(crate) exchanges: Counts,
}

impl Credentials {
    pub(crate) fn new(
        sources: BTreeMap<CredentialName, Source>,
        (sealer, environment, leases): (Sealer, Environment, Arc<Leases>),
        outward: Outward,
        (ttl, stale): (Duration, Duration),
        tasks: TaskTracker,
    ) -> Self {
        Self {
            sources,
            sealer,
            environment,
            leases,
            outward,
            ttl,
            stale,
            tasks,
            live: Mutex::default(),
            slots: Mutex::default(),
            pairs: Pairs::default(),
        }
    }

    /// Gives the credential of a call that was allowed; nothing where its rule adds none. One that is made for each process is
    /// that of the process that calls.
    pub(crate) async fn of(
        self: &Arc<Self>,
        permit: &Permit,
        mesh: &Mesh,
        caller: Option<&Caller>,
    ) -> Result<Option<Arc<Loaded>>, Unavailable> {
        let Some((name, credential)) = mesh.credential_of(permit) else {
            return Ok(None);
        };
        if let Some(federate) = credential.injection.federate() {
            // A rule about the outside is for bots of the mesh.
            let IdKind::Bot(bot) = permit.call().from.kind() else {
                return Ok(None);
            };
            // Of much room.
            let loaded = Box::pin(self.federated((name, credential), (federate, &bot), mesh)).await;
            return loaded.map(Some);
        }
        if let Some(source) = self.leased_source(name) {
            // Rare, and of much room.
            let leased = Box::pin(self.leased((name, credential), source, caller)).await;
            return leased.map(Some);
        }
        let slot = self.slot(name);
        match slot.on_trial(name, credential, &permit.call().from)? {
            Some(trial) => Ok(Some(trial)),
            None => self.load_in(&slot, (name, credential), mesh).await.map(Some),
        }
    }

    /// Gives a credential, from memory or from its source, and exchanged where the mesh file says so.
    pub(crate) async fn load(
        self: &Arc<Self>,
        name: &CredentialName,
        credential: &Credential,
        mesh: &Mesh,
    ) -> Result<Arc<Loaded>, Unavailable> {
        self.load_in(&self.slot(name), (name, credential), mesh).await
    }

    async fn load_in(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        (name, credential): (&CredentialName, &Credential),
        mesh: &Mesh,
    ) -> Result<Arc<Loaded>, Unavailable> {
        let value = self.value(name, &Shape::of(&credential.injection), slot).await?;
        let token = match Exchange::of(credential, &value, mesh) {
            // It is rare and large beside what every call holds.
            Some(exchange) => Some(Box::pin(self.token(name, slot, exchange)).await?),
            None => None,
        };
        self.ready(name, &credential.injection, slot, (value, token))
    }

    /// Gives a value, from memory or from its source.
    async fn value(
        self: &Arc<Self>,
        name: &CredentialName,
        shape: &Shape,
        slot: &Arc<Slot>,
    ) -> Result<Arc<Secret>, Unavailable> {
        if let Some(found) = self.usable(name, shape, slot, Instant::now()) {
            return Ok(found);
        }
        let _one_at_a_time = slot.reading.lock().await;
        if let Some(found) = self.usable(name, shape, slot, Instant::now()) {
            return Ok(found);
        }
        if let Some(source) = slot.left_alone(Instant::now()) {
            return Err(Unavailable::NotRead {
                name: name.clone(),
                source,
            });
        }
        let read = self.read(name, shape.clone()).await;
        slot.note(name, read).map_err(|source| Unavailable::NotRead {
            name: name.clone(),
            source,
        })
    }

    /// A value that is in memory and may be used; one that is old is read again beside the call.
    fn usable(
        self: &Arc<Self>,
        name: &CredentialName,
        shape: &Shape,
        slot: &Arc<Slot>,
        now: Instant,
    ) -> Option<Arc<Secret>> {
        let mut kept = slot.kept();
        let (value, read) = kept.value.as_ref()?;
        let (age, value) = (now.duration_since(*read), Arc::clone(value));
        if shape.fits(&value).is_err() {
            return None;
        }
        if age < self.ttl {
            return Some(value);
        }
        if self.is_too_old(*read, now) {
            drop(kept);
            self.sweep();
            return None;
        }
        let may = kept.failed.as_ref().is_none_or(|failed| failed.may_again(now));
        if may && !std::mem::replace(&mut kept.refreshing, true) {
            let (this, slot, name) = (Arc::clone(self), Arc::clone(slot), name.clone());
            let shape = shape.clone();
            drop(self.tasks.spawn(async move {
                {
                    let _one_at_a_time = slot.reading.lock().await;
                    let read = this.read(&name, shape).await;
                    let _told: Result<_, _> = slot.note(&name, read);
                    this.changed();
                }
                slot.kept().refreshing = false;
            }));
        }
        Some(value)
    }

    fn ready(
        &self,
        name: &CredentialName,
        injection: &Injection,
        slot: &Slot,
        (value, token): (Arc<Secret>, Option<Token>),
    ) -> Result<Arc<Loaded>, Unavailable> {
        let mut kept = slot.kept();
        if let Some(loaded) = &kept.loaded
            && loaded.is_made_of(&value, token.as_ref())
            && loaded.injection == *injection
        {
            return Ok(Arc::clone(loaded));
        }
        if token.is_none() {
            slot.tokens().forget();
        }
        let loaded = Arc::new(slot.load(name, injection, (value, token), None)?);
        kept.loaded = Some(Arc::clone(&loaded));
        drop(kept);
        self.changed();
        Ok(loaded)
    }

    async fn read(&self, name: &CredentialName, shape: Shape) -> Result<Secret, SourceError> {
        match self.source(name) {
            Some(source) => {
                source
                    .read(shape, &self.sealer, self.environment, &self.leases.vaults)
                    .await
            }
            None => Err(SourceError::Nowhere { name: name.to_string() }),
        }
    }

    /// Where the value is: where the configuration says, or else where it was put.
    fn source(&self, name: &CredentialName) -> Option<Source> {
        let put = || {
            let file = self.sealer.file(name);
            file.exists().then_some(Source::File(file))
        };
        self.sources.get(name).cloned().or_else(put)
    }

    /// Puts a value on this host, in the place of the one that was there. Calls that begin from now on get it.
    pub(crate) async fn put(&self, name: &CredentialName, secret: Secret) -> Result<(), PutError> {
        if let Some(source) = self.sources.get(name) {
            return Err(PutError::Elsewhere { kind: source.kind() });
        }
        let (secret, slot) = (Arc::new(secret), self.slot(name));
        // Whoever reads the value that was there before does not bring it back.
        let _one_at_a_time = slot.reading.lock().await;
        self.sealer.put(name, &secret).await?;
        let mut kept = slot.kept();
        (kept.value, kept.loaded, kept.failed) = (Some((secret, Instant::now())), None, None);
        drop(kept);
        // Whatever was exchanged was so for another value, or failed and is worth another try.
        slot.tokens().forget();
        self.changed();
        Ok(())
    }

    /// Wipes the values that are too old to be used, and the tokens that have ended, whether anybody asks for them or not.
    pub(crate) fn sweep(&self) {
        let (now, moment, mut any) = (Instant::now(), self.moment(), false);
        for slot in self.slots().values() {
            let mut kept = slot.kept();
            if kept.value.as_ref().is_some_and(|(_, read)| self.is_too_old(*read, now)) {
                // With the last call that has it.
                (kept.value, kept.loaded, any) = (None, None, true);
            }
            if slot.tokens().drop_ended(moment) {
                (kept.loaded, any) = (None, true);
            }
        }
        if self.pairs.sweep(moment) || any {
            self.changed();
        }
    }

    fn is_too_old(&self, read: Instant, now: Instant) -> bool {
        now.duration_since(read) >= self.ttl + self.stale
    }

    /// Reads a value anew, at once and whatever was found before, and exchanges it anew. What is in use stays while that fails.
    pub(crate) async fn renew(self: &Arc<Self>, name: &CredentialName, credential: &Credential, mesh: &Mesh) {
        let slot = self.slot(name);
        {
            let _one_at_a_time = slot.reading.lock().await;
            let read = self.read(name, Shape::of(&credential.injection)).await;
            let _told_by_the_state: Result<_, _> = slot.note(name, read);
        }
        self.exchange_anew(name, credential, &slot, mesh).await;
        self.changed();
    }

    /// Finds every value that is in memory, in any form; nothing where there is none.
    pub(crate) fn live(&self) -> Option<Arc<Finder>> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let leased = self.leases.changes();
        if let Some((finder, _)) = live.as_ref().filter(|(_, known)| *known == leased) {
            return Some(Arc::clone(finder)).filter(|finder| !finder.is_empty());
        }
        let slots: Vec<_> = self.slots().values().cloned().collect();
        let mut parts = Vec::new();
        for loaded in self.leases.values() {
            parts.extend(inject::guarded(&loaded.injection, &loaded.value));
        }
        for slot in slots {
            let (kept, tokens) = (slot.kept(), slot.tokens());
            let loaded = kept.loaded.as_ref().map(|loaded| &loaded.injection);
            let injection = loaded.or(tokens.injection()).unwrap_or(&Injection::Bearer);
            let current = kept.value.as_ref().map(|(secret, _)| secret);
            let others = [kept.old.as_ref(), kept.trial.as_ref().map(OnTrial::secret)];
            for secret in others.into_iter().chain([current]).flatten() {
                parts.extend(inject::guarded(injection, secret));
            }
            parts.extend(tokens.secrets().map(|secret| secret.copy()));
        }
        let of_bots = self.pairs.secrets();
        let of_bots = of_bots.iter().map(|secret| svid::signature(secret));
        let finder = Finder::new(parts.iter().map(|part| part.as_slice()).chain(of_bots));
        let finder = finder
            .inspect_err(|error| tracing::error!(%error, "the credentials of this host cannot be looked for together"));
        let finder = Arc::new(finder.ok()?);
        *live = Some((Arc::clone(&finder), leased));
        Some(finder).filter(|finder| !finder.is_empty())
    }

    /// A value came, went, or is added in another way.
    fn changed(&self) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What processes of bots have.
    pub(crate) const fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    pub(crate) const fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// How these credentials are at the moment.
    pub(crate) fn states<'n>(&self, names: impl Iterator<Item = &'n CredentialName>) -> Vec<State> {
        let moment = self.moment();
        names
            .map(|name| {
                let slot = self.slot(name);
                let token = slot.tokens().state(moment);
                let bots = self.pairs.states(name, moment);
                let before = token
                    .as_ref()
                    .map_or_else(|| self.pairs.before(name), |token| token.counts);
                let kept = slot.kept();
                let (value, source) = (kept.value.as_ref(), self.source(name));
                State {
                    name: name.clone(),
                    kind: source.as_ref().map_or("none", Source::kind),
                    class: source.as_ref().map_or("static", Source::class),
                    leases: self.leases.count(name),
                    fingerprint: value.map(|(secret, _)| secret.fingerprint()),
                    age: value.map(|(_, read)| read.elapsed()),
                    error: kept.failed.as_ref().map(|failed| Arc::clone(&failed.error)),
                    masked: slot.masked.load(Ordering::Relaxed),
                    reads_ok: slot.reads_ok.load(Ordering::Relaxed),
                    reads_failed: slot.reads_failed.load(Ordering::Relaxed),
                    token,
                    exchanges: bots.iter().fold(before, |sum, (_, bot)| sum.and(bot.counts)),
                    bots,
                }
            })
            .collect()
    }

    fn slot(&self, name: &CredentialName) -> Arc<Slot> {
        let mut slots = self.slots();
        match slots.get(name) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(slots.entry(name.clone()).or_default()),
        }
    }

    /// A thread that panicked while it held the lock left whole slots.
    fn slots(&self) -> MutexGuard<'_, BTreeMap<CredentialName, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a value was not put.
#[derive(Debug, Error)]
pub(crate) enum PutError {
    /// Its place is another one.
    #[error("credentials.sources of proxy.yaml reads it from a {kind}: change it there, or take that entry out")]
    Elsewhere { kind: &'static str },
    /// It was not written.
    #[error(transparent)]
    Key(#[from] KeyError),
}

#[cfg(test)]
mod tests;
