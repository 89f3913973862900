//! Names of users, remembered for a short while.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use nix::unistd::{Uid, User};
use tokio::time::Instant;

use super::error::KernelError;
use super::kernel::lock;

/// How long a name is believed. A user renamed or removed meanwhile keeps the name for so long.
const TTL: Duration = Duration::from_secs(30);
/// How many users are remembered.
const USERS_MAX: usize = 1024;

/// A bounded memory of `getpwuid` answers, "has no name" included.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<BTreeMap<u32, (Option<String>, Instant)>>);

impl Names {
    /// Returns the remembered answer for `uid`, where there is a fresh one. Never blocks on the name service.
    pub(super) fn known(&self, uid: u32) -> Option<Option<String>> {
        let names = lock(&self.0);
        let (name, at) = names.get(&uid)?;
        (at.elapsed() < TTL).then(|| name.clone())
    }

    /// Returns the name of `uid`, asking the name service where it must, which can block.
    ///
    /// # Errors
    /// When the name service fails: a user whose name is not known is not taken for one without a name.
    pub(super) fn find(&self, uid: u32) -> Result<Option<String>, KernelError> {
        if let Some(name) = self.known(uid) {
            return Ok(name);
        }
        let user = User::from_uid(Uid::from_raw(uid))
            .map_err(|error| KernelError::new("look up the name of", format!("uid {uid}"), error))?;
        let name = user.map(|user| user.name);
        let mut names = lock(&self.0);
        if names.len() >= USERS_MAX && !names.contains_key(&uid) {
            names.retain(|_, (_, at)| at.elapsed() < TTL);
            if names.len() >= USERS_MAX {
                names.pop_first();
            }
        }
        names.insert(uid, (name.clone(), Instant::now()));
        Ok(name)
    }
}

#[cfg(test)]
mod tests;
