//! The JWT-SVID of a bot for one audience: the CA signs it when it is needed, it is kept in memory for half of its life, and it
//! is never on disk.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spiffe::id::BotName;

use super::secret::Secret;
use super::token::Moment;
use crate::control::{JwtSvid, MintError};

/// A JWT-SVID on its way.
pub(crate) type Signing = Pin<Box<dyn Future<Output = Result<JwtSvid, MintError>> + Send>>;

/// Has the CA sign a JWT-SVID of a bot for an audience.
#[derive(Clone)]
pub(crate) struct Signer(pub(crate) Arc<dyn Fn(BotName, Box<str>) -> Signing + Send + Sync>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

#[cfg(test)]
impl Signer {
    /// A CA that is away.
    pub(crate) fn nobody() -> Self {
        Self(Arc::new(|_bot, _audience| Box::pin(async { Err(MintError::NoStream) })))
    }
}

/// What proves a bot to one audience.
#[derive(Debug)]
pub(super) struct Identity {
    signer: Signer,
    bot: BotName,
    audience: Box<str>,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    secret: Arc<Secret>,
    asked: Moment,
    life: Duration,
    /// It was sent to a provider, and some of them take each one once.
    shown: bool,
}

impl Kept {
    fn has_ended(&self, now: Moment) -> bool {
        now.since(self.asked) >= self.life
    }

    fn is_fresh(&self, now: Moment) -> bool {
        !self.shown && now.since(self.asked) < self.life / 2
    }
}

impl Identity {
    pub(super) fn new(signer: Signer, bot: BotName, audience: Box<str>) -> Self {
        Self {
            signer,
            bot,
            audience,
            kept: Mutex::default(),
        }
    }

    pub(super) const fn bot(&self) -> &BotName {
        &self.bot
    }

    /// Has the next one signed, whatever is kept.
    pub(super) async fn signed(&self) -> Result<JwtSvid, MintError> {
        (self.signer.0)(self.bot.clone(), self.audience.clone()).await
    }

    /// Gives one that can be exchanged: a fresh one, or, while the CA is away, the one that is kept until it ends. What the CA
    /// refuses is not kept either.
    pub(super) async fn to_exchange(&self, now: Moment) -> Result<Arc<Secret>, MintError> {
        let fresh = self.kept().as_ref().filter(|kept| kept.is_fresh(now)).map(Kept::secret);
        if let Some(secret) = fresh {
            return Ok(secret);
        }
        let signed = self.signed().await;
        let mut kept = self.kept();
        match signed {
            Ok(JwtSvid { token, life }) => {
                let secret = Arc::new(token);
                *kept = Some(Kept {
                    secret: Arc::clone(&secret),
                    asked: now,
                    life,
                    shown: false,
                });
                Ok(secret)
            }
            Err(error) if error.is_refusal() => {
                *kept = None;
                Err(error)
            }
            Err(error) => {
                let usable = kept.as_ref().filter(|kept| !kept.has_ended(now)).map(Kept::secret);
                usable.ok_or(error)
            }
        }
    }

    /// Notes that a provider has seen the one that is kept.
    pub(super) fn was_shown(&self) {
        if let Some(kept) = self.kept().as_mut() {
            kept.shown = true;
        }
    }

    /// The one that is kept, for whoever looks for it.
    pub(super) fn secret(&self) -> Option<Arc<Secret>> {
        self.kept().as_ref().map(Kept::secret)
    }

    /// Wipes one that has ended. Says whether there was one.
    pub(super) fn drop_ended(&self, now: Moment) -> bool {
        self.kept().take_if(|kept| kept.has_ended(now)).is_some()
    }

    /// A thread that panicked while it held the lock left a whole one.
    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn secret(&self) -> Arc<Secret> {
        Arc::clone(&self.secret)
    }
}

/// What nobody else may have of a token: of a JWT its signature, without which the rest is no secret, or else all of it.
pub(super) fn signature(secret: &Secret) -> &[u8] {
    /// The shortest signature that is told from the end of a token that is none: that of ECDSA P-256 has 86 characters.
    const SIGNATURE_BYTES_MIN: usize = 43;
    let whole = secret.bytes();
    let mut parts = whole.split(|byte| *byte == b'.');
    let jwt = matches!(
        (parts.next(), parts.next(), parts.next(), parts.next()),
        (Some([b'e', b'y', ..]), Some([b'e', b'y', ..]), Some(_), None)
    );
    let last = whole.rsplit(|byte| *byte == b'.').next().unwrap_or(whole);
    if jwt && last.len() >= SIGNATURE_BYTES_MIN {
        last
    } else {
        whole
    }
}

#[cfg(test)]
mod tests;
