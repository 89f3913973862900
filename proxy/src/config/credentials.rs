//! What the file says of credentials: where values are, and for how long they are kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use policy::CredentialName;

use super::Span;
use super::settings::ConfigError;
use crate::credentials::{Login, Source, VAULTS_MAX, VaultAddress, VaultConfig, VaultWord};

/// The most `credentials.sources`.
pub const CREDENTIALS_MAX: usize = 1_000;

/// The shortest `credentials.ttl`: each value is read no more often than that.
pub const CREDENTIAL_TTL_MIN: Duration = Duration::from_secs(1);

/// The longest that a value is used without being read: `credentials.ttl` and `credentials.stale` together.
pub const CREDENTIAL_KEPT_MAX: Duration = Duration::from_hours(24);

pub(super) fn resolve_sources(
    sources: BTreeMap<String, Source>,
    vaults: &BTreeMap<VaultWord, VaultConfig>,
) -> Result<BTreeMap<CredentialName, Source>, ConfigError> {
    if sources.len() > CREDENTIALS_MAX {
        return Err(ConfigError::Credentials { count: sources.len() });
    }
    let named = sources.into_iter().map(|(name, mut source)| {
        let is_absolute = match &mut source {
            Source::File(path) => path.is_absolute(),
            Source::Command(words) => words.first().is_some_and(|program| program.starts_with('/')),
            Source::Systemd(of) => !of.is_empty() && !of.contains('/') && of != "..",
            Source::Env(of) => !of.is_empty(),
            Source::Vault(source) => {
                source.of = Some(resolve_vault(&name, source.of.take(), vaults)?);
                true
            }
        };
        match CredentialName::parse(&name) {
            Some(name) if is_absolute => Ok((name, source)),
            Some(_) => Err(ConfigError::CredentialPath { name }),
            None => Err(ConfigError::CredentialName { name }),
        }
    });
    named.collect()
}

/// Which vault a source means: the one that it names, or else the only one.
fn resolve_vault(
    credential: &str,
    named: Option<VaultWord>,
    vaults: &BTreeMap<VaultWord, VaultConfig>,
) -> Result<VaultWord, ConfigError> {
    let only = || vaults.keys().next().filter(|_| vaults.len() == 1).cloned();
    let found = match named {
        Some(name) => Some(name).filter(|name| vaults.contains_key(name)),
        None => only(),
    };
    found.ok_or_else(|| ConfigError::WhichVault {
        name: credential.to_owned(),
        count: vaults.len(),
    })
}

pub(super) fn resolve_vaults(
    vaults: BTreeMap<String, VaultConfig>,
) -> Result<BTreeMap<VaultWord, VaultConfig>, ConfigError> {
    if vaults.len() > VAULTS_MAX {
        return Err(ConfigError::Vaults { count: vaults.len() });
    }
    let named = vaults.into_iter().map(|(name, vault)| {
        let Some(word) = VaultWord::parse(&name) else {
            return Err(ConfigError::VaultName { name });
        };
        let over_tls = matches!(vault.address, VaultAddress::Https { .. });
        let file = match &vault.login {
            Login::Cert(_) if !over_tls => return Err(ConfigError::VaultCert { name }),
            Login::Cert(_) => None,
            Login::Jwt(by) => Some(&by.file),
        };
        let is_absolute = |path: Option<&PathBuf>| path.is_none_or(|path| path.is_absolute());
        if !is_absolute(file) || !is_absolute(vault.ca.as_ref()) {
            return Err(ConfigError::VaultFile { name });
        }
        if vault.ca.is_some() && !over_tls {
            return Err(ConfigError::VaultCa { name });
        }
        Ok((word, vault))
    });
    named.collect()
}

pub(super) fn resolve_times(ttl: Option<Span>, stale: Option<Span>) -> Result<(Duration, Duration), ConfigError> {
    let ttl = ttl.map_or(Duration::from_mins(5), Span::duration);
    let stale = stale.map_or(Duration::from_hours(1), Span::duration);
    if ttl < CREDENTIAL_TTL_MIN || ttl + stale > CREDENTIAL_KEPT_MAX {
        return Err(ConfigError::CredentialTimes { ttl, stale });
    }
    Ok((ttl, stale))
}
