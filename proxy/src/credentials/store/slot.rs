//! What is known of one credential: its value, how reading it went, and what is waited for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::{CredentialName, Injection};
use tokio::time::Instant;

use super::super::exchange::Lineage;
use super::super::inject;
use super::super::mask::Finder;
use super::super::secret::Secret;
use super::super::source::SourceError;
use super::super::token::{Token, Tokens};
use super::rotation::OnTrial;
use super::{Loaded, Trial, Unavailable};

/// How long a source that failed is left alone, at first and at most.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long what failed so many times in a row is left alone.
pub(in crate::credentials) fn pause(times: u32) -> Duration {
    let doubled = BACKOFF.0.saturating_mul(1 << times.saturating_sub(1).min(8));
    doubled.min(BACKOFF.1)
}

/// One credential.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) state: Mutex<Kept>,
    /// One reads at a time, and the others wait for what that finds.
    pub(super) reading: tokio::sync::Mutex<()>,
    /// In how many answers it was.
    pub(super) masked: Arc<AtomicU64>,
    pub(super) reads_ok: AtomicU64,
    pub(super) reads_failed: AtomicU64,
    /// Where the value is exchanged for one.
    pub(super) tokens: Mutex<Tokens>,
    /// One asks for a token at a time.
    pub(super) exchanging: tokio::sync::Mutex<Option<Lineage>>,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) value: Option<(Arc<Secret>, Instant)>,
    /// Made of the value for one way of adding it.
    pub(super) loaded: Option<Arc<Loaded>>,
    pub(super) failed: Option<Failed>,
    pub(super) refreshing: bool,
    /// A new value, which one bot gets.
    pub(super) trial: Option<OnTrial>,
    /// The value before, which the service may still take: nobody gets it, and it is guarded.
    pub(super) old: Option<Arc<Secret>>,
}

#[derive(Debug)]
pub(super) struct Failed {
    pub(super) at: Instant,
    pub(super) times: u32,
    pub(super) error: Arc<SourceError>,
}

impl Failed {
    pub(super) fn may_again(&self, now: Instant) -> bool {
        now.duration_since(self.at) >= pause(self.times)
    }
}

impl Slot {
    /// Makes of a value what calls get.
    pub(super) fn load(
        &self,
        name: &CredentialName,
        injection: &Injection,
        (value, token): (Arc<Secret>, Option<Token>),
        trial: Option<Arc<Trial>>,
    ) -> Result<Loaded, Unavailable> {
        let mut guarded = inject::guarded(injection, &value);
        if let Some(token) = &token {
            guarded.push(token.secret.copy());
            guarded.extend(self.tokens().secrets().map(|secret| secret.copy()));
        }
        let finder = Finder::new(guarded.iter().map(|part| part.as_slice()));
        Ok(Loaded {
            name: name.clone(),
            injection: injection.clone(),
            value,
            token,
            masked: Arc::clone(&self.masked),
            over: AtomicBool::new(false),
            finder: finder.map_err(|_too_many| Unavailable::NoFinder { name: name.clone() })?,
            trial,
        })
    }

    /// A thread that panicked while it held the lock left a whole state.
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the source is left alone at the moment, if it is.
    pub(super) fn left_alone(&self, now: Instant) -> Option<Arc<SourceError>> {
        let kept = self.kept();
        let failed = kept.failed.as_ref().filter(|failed| !failed.may_again(now));
        failed.map(|failed| Arc::clone(&failed.error))
    }

    /// Notes what taking a lease came to.
    pub(super) fn note_lease<T>(
        &self,
        name: &CredentialName,
        taken: Result<T, SourceError>,
    ) -> Result<T, Arc<SourceError>> {
        self.count(taken.is_ok());
        let mut kept = self.kept();
        match taken {
            Ok(taken) => {
                kept.succeeded(name);
                Ok(taken)
            }
            Err(error) => Err(kept.failed(name, error)),
        }
    }

    fn count(&self, is_ok: bool) {
        let count = if is_ok { &self.reads_ok } else { &self.reads_failed };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes what reading came to.
    pub(super) fn note(
        &self,
        name: &CredentialName,
        read: Result<Secret, SourceError>,
    ) -> Result<Arc<Secret>, Arc<SourceError>> {
        self.count(read.is_ok());
        let mut kept = self.kept();
        match read {
            Ok(secret) => {
                // The same value stays the same: what was made of it is used on.
                let same = kept
                    .value
                    .as_ref()
                    .map(|(value, _)| value)
                    .filter(|value| ***value == secret);
                let secret = same.map_or_else(|| Arc::new(secret), Arc::clone);
                kept.value = Some((Arc::clone(&secret), Instant::now()));
                kept.succeeded(name);
                Ok(secret)
            }
            Err(error) => Err(kept.failed(name, error)),
        }
    }
}

impl Kept {
    fn succeeded(&mut self, name: &CredentialName) {
        if self.failed.take().is_some() {
            tracing::info!(credential = %name, "a credential can be read again");
        }
    }

    fn failed(&mut self, name: &CredentialName, error: SourceError) -> Arc<SourceError> {
        let times = self.failed.as_ref().map_or(1, |failed| failed.times.saturating_add(1));
        let error = Arc::new(error);
        if times == 1 {
            tracing::warn!(credential = %name, error = &*error as &dyn std::error::Error, "a credential was not read");
        }
        self.failed = Some(Failed {
            at: Instant::now(),
            times,
            error: Arc::clone(&error),
        });
        error
    }
}
