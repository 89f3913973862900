//! Refresh tokens that take each other's place (RFC 6749 §6, RFC 9700 §4.14.2): an authorization server that rotates them
//! takes an old one for a thief's and ends them all, so the newest is on disk before anything is done with what came with it.

use std::io::ErrorKind;
use std::sync::Arc;

use policy::CredentialName;

use super::super::secret::Secret;
use super::super::source::{Sealer, SourceError};
use super::ExchangeError;

/// The newest refresh token, and which value it descends from.
#[derive(Debug)]
pub(in crate::credentials) struct Lineage {
    /// The fingerprint of the value on the host: another value there begins anew.
    root: String,
    pub(in crate::credentials) newest: Arc<Secret>,
    kept: bool,
}

impl Lineage {
    /// The newest refresh token that descends from the value; nothing where the value itself is the newest.
    pub(super) async fn newest(
        held: &mut Option<Self>,
        name: &CredentialName,
        value: &Secret,
        sealer: &Sealer,
    ) -> Result<Option<Arc<Secret>>, ExchangeError> {
        let root = value.fingerprint();
        if held.as_ref().is_none_or(|held| held.root != root) {
            *held = Self::read(name, &root, sealer).await?;
        }
        let Some(held) = held else { return Ok(None) };
        held.keep(name, sealer).await?;
        Ok(Some(Arc::clone(&held.newest)))
    }

    /// Takes a refresh token that was given in the place of the newest.
    pub(super) async fn follow(
        held: &mut Option<Self>,
        name: &CredentialName,
        value: &Secret,
        next: Secret,
        sealer: &Sealer,
    ) -> Result<(), ExchangeError> {
        if held.as_ref().is_some_and(|held| *held.newest == next) {
            return Ok(());
        }
        let held = held.insert(Self {
            root: value.fingerprint(),
            newest: Arc::new(next),
            kept: false,
        });
        held.keep(name, sealer).await
    }

    /// Writes it down, unless that is done.
    async fn keep(&mut self, name: &CredentialName, sealer: &Sealer) -> Result<(), ExchangeError> {
        if !self.kept {
            let kept = sealer.put_newest(name, &self.root, &self.newest).await;
            kept.map_err(|source| ExchangeError::NotKept { source })?;
            self.kept = true;
        }
        Ok(())
    }

    async fn read(name: &CredentialName, root: &str, sealer: &Sealer) -> Result<Option<Self>, ExchangeError> {
        match sealer.newest(name).await {
            Ok((of, newest)) if of == root => Ok(Some(Self {
                root: of,
                newest: Arc::new(newest),
                kept: true,
            })),
            // Of a value that was here before.
            Ok(_other) => Ok(None),
            Err(SourceError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ExchangeError::Lineage { source }),
        }
    }
}
