//! A value that is ready to be added to calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::StatusCode;
use policy::{CredentialName, Injection};
use spiffe::id::BotName;

use super::super::mask::Finder;
use super::super::secret::Secret;
use super::super::token::Token;
use super::Trial;

/// A value that is ready to be added, and what finds it in an answer.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: CredentialName,
    pub(crate) injection: Injection,
    /// As it is on the host.
    pub(super) value: Arc<Secret>,
    /// What it was exchanged for, where it is.
    pub(super) token: Option<Token>,
    pub(crate) finder: Finder,
    pub(super) masked: Arc<AtomicU64>,
    /// Of a lease that has ended, or was given back.
    pub(super) over: AtomicBool,
    /// Of a new value that is tried out.
    pub(super) trial: Option<Arc<Trial>>,
}

impl Loaded {
    /// Notes that a service said it to a bot, which did not hear it.
    pub(crate) fn masked(&self, from: &BotName) {
        self.masked.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(credential = %self.name, %from, "a service had the credential in its answer; the bot got asterisks");
    }

    /// Whether it is a lease that has ended or was given back: what goes on with it is to end.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Notes that the lease has ended, or is given back.
    pub(in crate::credentials) fn ends(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// What is added, for as long as somebody works with it.
    pub(crate) fn shared(&self) -> Arc<Secret> {
        Arc::clone(self.token.as_ref().map_or(&self.value, |token| &token.secret))
    }

    #[cfg(test)]
    pub(crate) fn of(name: &CredentialName, injection: &Injection, value: &str) -> Arc<Self> {
        let secret = Secret::new(value.as_bytes().to_vec()).expect("a value");
        Arc::new(Self {
            name: name.clone(),
            injection: injection.clone(),
            finder: Finder::new([secret.bytes()]).expect("a finder"),
            value: Arc::new(secret),
            token: None,
            masked: Arc::default(),
            over: AtomicBool::new(false),
            trial: None,
        })
    }

    /// What is added.
    pub(crate) fn secret(&self) -> &Secret {
        self.token.as_ref().map_or(&self.value, |token| &token.secret)
    }

    /// Notes that a service refused it. A token that was believed good is doubted: a later call gets another one.
    fn refused(&self) {
        if let Some(token) = &self.token {
            token.doubted.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_made_of(&self, value: &Arc<Secret>, token: Option<&Token>) -> bool {
        let same = match (&self.token, token) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one.secret, &other.secret),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same && Arc::ptr_eq(&self.value, value)
    }

    /// Whether a status says that the value is worth nothing. Of an address that is one, services say that it is not there.
    fn is_refusal(&self, status: StatusCode) -> bool {
        let gone = [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::GONE];
        status == StatusCode::UNAUTHORIZED || matches!(self.injection, Injection::Url(_)) && gone.contains(&status)
    }

    /// Notes what the service said to a call that had it.
    pub(crate) fn answered(&self, status: StatusCode) {
        if let Some(trial) = &self.trial {
            trial.answered(self.is_refusal(status));
        }
        if status == StatusCode::UNAUTHORIZED {
            self.refused();
        }
    }
}
