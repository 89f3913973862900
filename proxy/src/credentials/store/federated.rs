//! Credentials without a value: each bot has a token of its own, because what is exchanged is the bot's identity.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::{Credential, CredentialName, Federate, Injection, Mesh};
use spiffe::id::BotName;
use spiffe::time::Timestamp;
use tokio::time::Instant;

use super::super::secret::Secret;
use super::super::source::SourceError;
use super::super::svid::Identity;
use super::super::token::{Counts, Moment, TokenState};
use super::{Credentials, Exchange, Loaded, Slot, Unavailable};

/// The most bots and credentials, together, that are kept. Each token is looked for in requests to everybody else.
const PAIRS_MAX: usize = 256;

/// How long nobody has used what makes room for somebody else.
const IDLE: Duration = Duration::from_mins(10);

/// The most bots for which an operator has tokens asked for at once.
const TESTED_MAX: usize = 16;

/// What is known of such credentials, for each bot that has used one.
#[derive(Debug, Default)]
pub(super) struct Pairs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    pairs: BTreeMap<(CredentialName, BotName), Pair>,
    /// How often tokens were asked for, for bots that are not here any more.
    before: BTreeMap<CredentialName, Counts>,
}

#[derive(Debug)]
struct Pair {
    slot: Arc<Slot>,
    identity: Arc<Identity>,
    injection: Injection,
    used: Instant,
}

impl Pair {
    /// What is in memory and may be sent to nobody else.
    fn secrets(&self) -> Vec<Arc<Secret>> {
        let tokens = self.slot.tokens();
        tokens.secrets().cloned().chain(self.identity.secret()).collect()
    }
}

impl Known {
    fn remove(&mut self, key: &(CredentialName, BotName)) {
        if let Some(pair) = self.pairs.remove(key) {
            let counts = pair.slot.tokens().counts;
            let before = self.before.entry(key.0.clone()).or_default();
            *before = before.and(counts);
        }
    }

    /// Makes room for one more, where somebody has not used theirs for long.
    fn make_room(&mut self, now: Instant) -> Result<(), SourceError> {
        if self.pairs.len() < PAIRS_MAX {
            return Ok(());
        }
        let longest = self.pairs.iter().min_by_key(|(_, pair)| pair.used);
        let idle = longest.filter(|(_, pair)| now.duration_since(pair.used) >= IDLE);
        let key = idle.map(|(key, _)| key.clone());
        let key = key.ok_or(SourceError::Pairs { all: self.pairs.len() })?;
        self.remove(&key);
        Ok(())
    }
}

impl Pairs {
    /// A thread that panicked while it held the lock left whole pairs.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wipes what has ended. Says whether there was something.
    pub(super) fn sweep(&self, now: Moment) -> bool {
        let mut any = false;
        for pair in self.known().pairs.values() {
            let token = pair.slot.tokens().drop_ended(now);
            if token {
                pair.slot.kept().loaded = None;
            }
            any |= pair.identity.drop_ended(now) || token;
        }
        any
    }

    pub(super) fn secrets(&self) -> Vec<Arc<Secret>> {
        self.known().pairs.values().flat_map(Pair::secrets).collect()
    }

    /// How each bot's token is.
    pub(super) fn states(&self, name: &CredentialName, now: Moment) -> Vec<(BotName, TokenState)> {
        let known = self.known();
        let of_name = known.pairs.iter().filter(|((of, _), _)| of == name);
        let state = |((_, bot), pair): (&(CredentialName, BotName), &Pair)| {
            let state = pair.slot.tokens().state(now)?;
            Some((bot.clone(), state))
        };
        of_name.filter_map(state).collect()
    }

    pub(super) fn before(&self, name: &CredentialName) -> Counts {
        self.known().before.get(name).copied().unwrap_or_default()
    }
}

impl Credentials {
    /// Gives the token of a bot, or its JWT-SVID where that is not exchanged.
    pub(super) async fn federated(
        self: &Arc<Self>,
        (name, credential): (&CredentialName, &Credential),
        (federate, bot): (&Federate, &BotName),
        mesh: &Mesh,
    ) -> Result<Arc<Loaded>, Unavailable> {
        let (slot, identity) = self.pair((name, credential), (federate, bot))?;
        let exchange = Exchange::of_bot(credential, &identity, mesh);
        let token = self.token(name, &slot, exchange).await?;
        // Both are taken out of what the service answers.
        let value = identity.secret().unwrap_or_else(|| Arc::clone(&token.secret));
        self.ready(name, &credential.injection, &slot, (value, Some(token)))
    }

    fn pair(
        &self,
        (name, credential): (&CredentialName, &Credential),
        (federate, bot): (&Federate, &BotName),
    ) -> Result<(Arc<Slot>, Arc<Identity>), Unavailable> {
        let slot = self.slot(name);
        let failed = |source| {
            let told = slot.note(name, Err(source)).err();
            let source = told.unwrap_or_else(|| Arc::new(SourceError::Stopping));
            Unavailable::NotRead {
                name: name.clone(),
                source,
            }
        };
        if let Some(source) = self.sources.get(name) {
            return Err(failed(SourceError::NoValue { kind: source.kind() }));
        }
        let (key, now) = ((name.clone(), bot.clone()), Instant::now());
        let mut known = self.pairs.known();
        if let Some(pair) = known.pairs.get_mut(&key)
            && pair.injection == credential.injection
        {
            pair.used = now;
            return Ok((Arc::clone(&pair.slot), Arc::clone(&pair.identity)));
        }
        known.remove(&key);
        known.make_room(now).map_err(failed)?;
        let identity = Identity::new(self.outward.signer.clone(), bot.clone(), federate.audience.clone());
        let pair = Pair {
            slot: Arc::new(Slot {
                masked: Arc::clone(&slot.masked),
                ..Slot::default()
            }),
            identity: Arc::new(identity),
            injection: credential.injection.clone(),
            used: now,
        };
        let made = (Arc::clone(&pair.slot), Arc::clone(&pair.identity));
        known.pairs.insert(key, pair);
        slot.kept().failed = None;
        Ok(made)
    }

    /// Forgets what bots may not have any more: their rule was revoked or has ended, the credential is another one, the bot has
    /// left this host or is quarantined.
    pub(crate) fn keep_pairs(&self, mesh: &Mesh, now: Timestamp, is_here: impl Fn(&BotName) -> bool) {
        let mut known = self.pairs.known();
        let may = |name: &CredentialName, bot: &BotName, pair: &Pair| {
            let Some(federate) = pair.injection.federate() else {
                return false;
            };
            let same = mesh
                .credential(name.as_str())
                .is_some_and(|found| found.injection == pair.injection);
            same && is_here(bot) && mesh.may_have_jwt(bot, &federate.audience, now)
        };
        let gone: Vec<_> = known
            .pairs
            .iter()
            .filter(|((name, bot), pair)| !may(name, bot, pair))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            known.remove(key);
        }
        drop(known);
        if !gone.is_empty() {
            self.changed();
        }
    }

    /// Asks for tokens of these bots, whatever is here.
    pub(crate) async fn renew_for(
        self: &Arc<Self>,
        (name, credential): (&CredentialName, &Credential),
        bots: &[BotName],
        mesh: &Mesh,
    ) {
        let Some(federate) = credential.injection.federate() else {
            return;
        };
        let mut asked = Vec::new();
        for bot in bots.iter().take(TESTED_MAX) {
            if let Ok((slot, identity)) = self.pair((name, credential), (federate, bot)) {
                let exchange = Exchange::of_bot(credential, &identity, mesh);
                asked.push(self.ask_anew(name, &slot, exchange));
            }
        }
        for asked in asked {
            let _told_by_the_state: Result<_, _> = asked.await;
        }
    }
}

#[cfg(test)]
mod tests;
