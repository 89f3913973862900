//! Two bots that one process could be.

use std::collections::BTreeMap;

use serde::Serialize;
use spiffe::entry::Entry;
use spiffe::id::{BotName, HostPattern};
use spiffe::selector::{SelectorSet, unit_of};

use crate::code;
use crate::diagnostics::{Collector, Draft};
use crate::read::MeshDraft;
use crate::resolve::Bots;
use crate::source::Span;

/// How many pairs of bots are told.
const INDISTINCT_MAX: usize = 1_000;

/// One attest map of one bot.
#[derive(Clone, Copy, Debug)]
struct Way<'d> {
    bot: &'d BotName,
    hosts: &'d [HostPattern],
    set: &'d SelectorSet,
    span: Span,
}

/// Refuses bots of which one takes every process that the other takes, and warns of bots that share a user or a unit.
///
/// Only maps with one user, uid or unit in common are compared: from the file alone nothing is known of others.
pub(crate) fn check(draft: &MeshDraft, collector: &mut Collector) {
    for (key, ways) in users(&draft.bots) {
        for (index, left) in ways.iter().enumerate() {
            let others = ways.iter().skip(index + 1).filter(|right| is_pair(&key, left, right));
            let mut shared = None;
            for right in others {
                if collector.is_full() {
                    return;
                }
                if covers(left.set, right.set) || covers(right.set, left.set) {
                    collector.push(same_process(left, right));
                } else if !apart(left.set, right.set) {
                    shared = shared.or(Some(right));
                }
            }
            // One warning a bot is enough, and a slice has none.
            if let Some(right) = shared.filter(|_| draft.slice.is_none()) {
                collector.push(shared_user(&key, left, right));
            }
        }
    }
}

/// Two bots that a host cannot tell apart, or only by what processes of one user can change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Indistinct {
    /// The first by name.
    pub one: BotName,
    /// The second.
    pub other: BotName,
    /// How alike they are.
    pub likeness: Likeness,
}

/// How alike two bots are to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Likeness {
    /// A process of one is refused as both.
    SameProcess,
    /// They share a user or a unit, and their processes can become each other.
    Shared,
}

/// Finds the bots of one host that it cannot tell apart, where `uid_of` says what its users' numbers are: two names may
/// be one user, and a name may be a number that another bot asks for. Gives at most a thousand.
pub(crate) fn on_host(entries: &[Entry], uid_of: impl Fn(&str) -> Option<u32>) -> Vec<Indistinct> {
    let mut ways: BTreeMap<String, Vec<(&BotName, SelectorSet)>> = BTreeMap::new();
    for entry in entries {
        for set in &entry.attest {
            let set = by_number(set, &uid_of);
            let keys = [
                set.uid.map(|uid| format!("uid {uid}")),
                set.user.as_ref().map(|user| format!("user {user}")),
                unit(&set).map(|unit| format!("unit {unit}")),
            ];
            for key in keys.into_iter().flatten() {
                ways.entry(key).or_default().push((&entry.bot, set.clone()));
            }
        }
    }
    let mut found: BTreeMap<(&BotName, &BotName), Likeness> = BTreeMap::new();
    for ways in ways.values() {
        for (index, (left, left_set)) in ways.iter().enumerate() {
            for (right, right_set) in ways.iter().skip(index + 1) {
                if left == right || found.len() >= INDISTINCT_MAX || apart(left_set, right_set) {
                    continue;
                }
                let likeness = if covers(left_set, right_set) || covers(right_set, left_set) {
                    Likeness::SameProcess
                } else {
                    Likeness::Shared
                };
                let pair = if left < right { (*left, *right) } else { (*right, *left) };
                let known = found.entry(pair).or_insert(likeness);
                *known = likeness.min(*known);
            }
        }
    }
    let told = |((one, other), likeness): ((&BotName, &BotName), Likeness)| Indistinct {
        one: one.clone(),
        other: other.clone(),
        likeness,
    };
    found.into_iter().map(told).collect()
}

/// Writes a user as its number where the host knows it.
fn by_number(set: &SelectorSet, uid_of: impl Fn(&str) -> Option<u32>) -> SelectorSet {
    let known = set.user.as_deref().and_then(uid_of);
    match (set.uid, known) {
        (None, Some(uid)) => SelectorSet {
            uid: Some(uid),
            user: None,
            ..set.clone()
        },
        (Some(uid), Some(known)) if uid == known => SelectorSet {
            user: None,
            ..set.clone()
        },
        _ => set.clone(),
    }
}

/// Groups all attest maps by the user, by the uid and by the unit that they demand.
fn users(bots: &Bots) -> BTreeMap<String, Vec<Way<'_>>> {
    let mut users: BTreeMap<String, Vec<Way<'_>>> = BTreeMap::new();
    for (bot, draft) in bots {
        for (set, span) in draft.attest.iter().flatten() {
            let way = Way {
                bot,
                hosts: &draft.hosts,
                set,
                span: *span,
            };
            let keys = [
                set.uid.map(|uid| format!("uid {uid}")),
                set.user.as_ref().map(|user| format!("user {user}")),
                unit(set).map(|unit| format!("unit {unit}")),
            ];
            for key in keys.into_iter().flatten() {
                users.entry(key).or_default().push(way);
            }
        }
    }
    users
}

/// The service whose processes alone a map takes, where it says so, by name or by the path of the service's cgroup.
fn unit(set: &SelectorSet) -> Option<&str> {
    set.unit.as_deref().or_else(|| unit_of(set.cgroup.as_deref()?))
}

/// Says whether two maps demand different users, so that no process is in both.
fn apart(left: &SelectorSet, right: &SelectorSet) -> bool {
    let differ = |left: Option<&str>, right: Option<&str>| left.zip(right).is_some_and(|(left, right)| left != right);
    left.uid.zip(right.uid).is_some_and(|(left, right)| left != right)
        || differ(left.user.as_deref(), right.user.as_deref())
}

/// Says whether two maps are to be compared under a key. Two that share a uid are compared under that alone, and two that
/// share a user not again under their unit.
fn is_pair(key: &str, left: &Way<'_>, right: &Way<'_>) -> bool {
    let uid = left.set.uid.is_some() && left.set.uid == right.set.uid;
    let user = left.set.user.is_some() && left.set.user == right.set.user;
    let elsewhere = key.starts_with("user ") && uid || key.starts_with("unit ") && (uid || user);
    left.bot != right.bot && !elsewhere && share_host(left, right)
}

fn share_host(left: &Way<'_>, right: &Way<'_>) -> bool {
    left.hosts
        .iter()
        .any(|one| right.hosts.iter().any(|other| meet(one, other)))
}

/// Says whether a host can match both patterns.
fn meet(one: &HostPattern, other: &HostPattern) -> bool {
    let starts = |pattern: &HostPattern| pattern.as_str().strip_suffix('*').map(str::to_owned);
    match (starts(one), starts(other)) {
        (None, None) => one == other,
        (Some(start), None) => other.as_str().len() > start.len() && other.as_str().starts_with(&start),
        (None, Some(start)) => one.as_str().len() > start.len() && one.as_str().starts_with(&start),
        (Some(one), Some(other)) => one.starts_with(&other) || other.starts_with(&one),
    }
}

/// Says whether `wide` takes every process that `narrow` takes.
///
/// A map with `run_by` takes only processes that were started as its own bot, and one with `socket` only connections over
/// its own bot's socket, so they never cover another bot's.
fn covers(wide: &SelectorSet, narrow: &SelectorSet) -> bool {
    fn demands<T: PartialEq>(wide: Option<&T>, narrow: Option<&T>) -> bool {
        wide.is_none() || wide == narrow
    }
    wide.run_by.is_empty()
        && !wide.socket
        && (wide.unit.is_none() || wide.unit.as_deref() == unit(narrow))
        && demands(wide.cgroup.as_ref(), narrow.cgroup.as_ref())
        && demands(wide.group.as_ref(), narrow.group.as_ref())
        && demands(wide.gid.as_ref(), narrow.gid.as_ref())
        && demands(wide.user.as_ref(), narrow.user.as_ref())
        && demands(wide.uid.as_ref(), narrow.uid.as_ref())
        && demands(wide.exe.as_ref(), narrow.exe.as_ref())
        && demands(wide.exe_sha256.as_ref(), narrow.exe_sha256.as_ref())
}

fn same_process(left: &Way<'_>, right: &Way<'_>) -> Draft {
    let (first, second) = if left.span < right.span {
        (left, right)
    } else {
        (right, left)
    };
    let message = format!("one process would be bot `{}` and bot `{}`", first.bot, second.bot);
    Draft::new(
        code::SAME_PROCESS,
        second.span,
        message,
        format!("takes a process of `{}`", first.bot),
    )
    .also(first.span, format!("and this is how `{}` is attested", first.bot))
    .help("give each bot a user of its own")
}

fn shared_user(key: &str, left: &Way<'_>, right: &Way<'_>) -> Draft {
    let (first, second) = if left.span < right.span {
        (left, right)
    } else {
        (right, left)
    };
    let what = if key.starts_with("unit ") { "unit" } else { "user" };
    let message = format!("bots `{}` and `{}` share a {what}", first.bot, second.bot);
    Draft::new(code::SHARED_USER, second.span, message, format!("the same {what}"))
        .also(first.span, "as here")
        .help("processes of one user can become each other; give each bot a user of its own")
}

#[cfg(test)]
mod tests;
