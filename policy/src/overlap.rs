//! Two bots that one process could be.

use std::collections::BTreeMap;

use spiffe::id::{BotName, HostPattern};
use spiffe::selector::SelectorSet;

use crate::code;
use crate::diagnostics::{Collector, Draft};
use crate::read::MeshDraft;
use crate::resolve::Bots;
use crate::source::Span;

/// One attest map of one bot.
#[derive(Clone, Copy, Debug)]
struct Way<'d> {
    bot: &'d BotName,
    hosts: &'d [HostPattern],
    set: &'d SelectorSet,
    span: Span,
}

/// Refuses bots of which one takes every process that the other takes, and warns of bots that share a user.
///
/// Only maps with one user or uid in common are compared: from the file alone nothing is known of others.
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
                } else {
                    shared = shared.or(Some(right));
                }
            }
            // One warning a bot is enough, and a slice has none.
            if let Some(right) = shared.filter(|_| draft.slice.is_none()) {
                collector.push(shared_user(left, right));
            }
        }
    }
}

/// Groups all attest maps by the user and by the uid that they demand.
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
            ];
            for key in keys.into_iter().flatten() {
                users.entry(key).or_default().push(way);
            }
        }
    }
    users
}

/// Says whether two maps are to be compared under a key. Two that share a uid are compared under that alone.
fn is_pair(key: &str, left: &Way<'_>, right: &Way<'_>) -> bool {
    let elsewhere = key.starts_with("user ") && left.set.uid.is_some() && left.set.uid == right.set.uid;
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
/// A map with `run_by` takes only processes that were started as its own bot, so it never covers another bot's.
fn covers(wide: &SelectorSet, narrow: &SelectorSet) -> bool {
    fn demands<T: PartialEq>(wide: Option<&T>, narrow: Option<&T>) -> bool {
        wide.is_none() || wide == narrow
    }
    wide.run_by.is_empty()
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

fn shared_user(left: &Way<'_>, right: &Way<'_>) -> Draft {
    let (first, second) = if left.span < right.span {
        (left, right)
    } else {
        (right, left)
    };
    let message = format!("bots `{}` and `{}` share a user", first.bot, second.bot);
    Draft::new(code::SHARED_USER, second.span, message, "the same user")
        .also(first.span, "as here")
        .help("processes of one user can become each other; give each bot a user of its own")
}

#[cfg(test)]
mod tests;
