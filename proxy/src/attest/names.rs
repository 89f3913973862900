//! Names of users and groups, remembered for a short while.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User};
use tokio::time::Instant;

use super::error::KernelError;
use super::kernel::lock;

/// How long a name is believed. A user renamed or removed meanwhile keeps the name for so long.
const TTL: Duration = Duration::from_secs(30);
/// How many users, and how many groups, are remembered.
const USERS_MAX: usize = 1024;

/// A bounded memory of `getpwuid` and `getgrnam` answers, "there is none" included.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: Memory<u32, String>,
    groups: Memory<String, u32>,
}

type Memory<K, V> = Mutex<BTreeMap<K, (Option<V>, Instant)>>;

fn known<K: Ord + Borrow<Q>, V: Clone, Q: Ord + ?Sized>(memory: &Memory<K, V>, key: &Q) -> Option<Option<V>> {
    let memory = lock(memory);
    let (value, at) = memory.get(key)?;
    (at.elapsed() < TTL).then(|| value.clone())
}

fn remember<K: Ord, V>(memory: &Memory<K, V>, key: K, value: Option<V>) {
    let mut memory = lock(memory);
    if memory.len() >= USERS_MAX && !memory.contains_key(&key) {
        memory.retain(|_, (_, at)| at.elapsed() < TTL);
        if memory.len() >= USERS_MAX {
            memory.pop_first();
        }
    }
    memory.insert(key, (value, Instant::now()));
}

impl Names {
    /// Returns the remembered answer for `uid`, where there is a fresh one. Never blocks on the name service.
    pub(super) fn known(&self, uid: u32) -> Option<Option<String>> {
        known(&self.users, &uid)
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
        remember(&self.users, uid, name.clone());
        Ok(name)
    }

    /// Returns the remembered number of the group `name`, where there is a fresh answer. Never blocks.
    pub(super) fn known_group(&self, name: &str) -> Option<Option<u32>> {
        known(&self.groups, name)
    }

    /// Returns the number of the group `name`, asking the name service where it must, which can block.
    ///
    /// # Errors
    /// When the name service fails.
    pub(super) fn find_group(&self, name: &str) -> Result<Option<u32>, KernelError> {
        if let Some(gid) = self.known_group(name) {
            return Ok(gid);
        }
        let group = Group::from_name(name)
            .map_err(|error| KernelError::new("look up the number of", format!("group {name}"), error))?;
        let gid = group.map(|group| group.gid.as_raw());
        remember(&self.groups, name.to_owned(), gid);
        Ok(gid)
    }

    /// Returns the names of those `gids` that have one, ascending, for an operator to read.
    ///
    /// # Errors
    /// When the name service fails.
    pub(super) fn of_groups(gids: &[u32]) -> Result<Vec<String>, KernelError> {
        let mut names = Vec::new();
        for gid in gids {
            let group = Group::from_gid(Gid::from_raw(*gid))
                .map_err(|error| KernelError::new("look up the name of", format!("gid {gid}"), error))?;
            names.extend(group.map(|group| group.name));
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests;
