//! What hosts tell of calls: counts by the minute for an hour, and the newest refusals of each bot.
//!
//! In memory only: it is for looking, and the hosts' ledgers hold every call. Nothing here decides anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ca_api::admin::{Denied, EdgeCount, EdgeList, EventList, MINUTES_MAX, ToldBy};
use ca_api::observation::{DeniedCall, PATH_BYTES_MAX, TEXT_BYTES_MAX};
use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

/// Edges that are told apart, of all hosts.
const EDGES_MAX: usize = 50_000;

/// And of one, so that one host cannot take the others' room. A proxy has no more series.
const EDGES_PER_HOST_MAX: usize = 2_000;

/// Refused calls that are kept of one bot, as caller or callee.
const DENIED_PER_BOT_MAX: usize = 20;

/// Bots with refused calls; of more, those refused longest ago are forgotten.
const BOTS_MAX: usize = 4_096;

/// Refused calls and alerts that are kept of the whole mesh.
const NEWEST_MAX: usize = 200;

const MINUTE_MS: i64 = 60_000;

/// What is told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EdgeKey {
    pub(crate) from: BotName,
    pub(crate) to: String,
    pub(crate) rule: String,
    pub(crate) verdict: String,
    pub(crate) reason: String,
}

/// Counts by minute, oldest first; at most [`MINUTES_MAX`].
#[derive(Debug)]
struct Minutes {
    counts: VecDeque<(i64, u64)>,
    last: Timestamp,
}

impl Minutes {
    fn add(&mut self, now: Timestamp, count: u64) {
        let minute = minute(now);
        self.last = self.last.max(now);
        match self.counts.back_mut() {
            // A clock that went back counts into the newest minute.
            Some((newest, sum)) if *newest >= minute => *sum = sum.saturating_add(count),
            Some(_) | None => self.counts.push_back((minute, count)),
        }
        self.forget(minute - minutes_max());
    }

    fn forget(&mut self, before: i64) {
        while self.counts.front().is_some_and(|(minute, _)| *minute <= before) {
            self.counts.pop_front();
        }
    }

    fn since(&self, first: i64) -> u64 {
        let counts = self.counts.iter().filter(|(minute, _)| *minute > first);
        counts.map(|(_, count)| *count).fold(0, u64::saturating_add)
    }
}

fn minute(time: Timestamp) -> i64 {
    time.unix_millis().div_euclid(MINUTE_MS)
}

fn minutes_max() -> i64 {
    i64::try_from(MINUTES_MAX).unwrap_or(i64::MAX)
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Observed(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    edges: BTreeMap<HostName, BTreeMap<EdgeKey, Minutes>>,
    edges_dropped: u64,
    by_bot: BTreeMap<BotName, VecDeque<Arc<Denied>>>,
    denied: VecDeque<Arc<Denied>>,
    alerts: VecDeque<ToldBy>,
    events_dropped: u64,
}

impl Observed {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts calls that a host told of.
    pub(crate) fn edge(&self, host: &HostName, key: EdgeKey, count: u64, now: Timestamp) {
        let mut kept = self.kept();
        let known = kept.edges.get(host).is_some_and(|edges| edges.contains_key(&key));
        if !known && !kept.has_room(host, now) {
            kept.edges_dropped = kept.edges_dropped.saturating_add(1);
            return;
        }
        let edges = kept.edges.entry(host.clone()).or_default();
        let minutes = edges.entry(key).or_insert_with(|| Minutes {
            counts: VecDeque::new(),
            last: now,
        });
        minutes.add(now, count);
    }

    /// Counts edges that a host had no room for.
    pub(crate) fn edges_dropped(&self, count: u64) {
        let mut kept = self.kept();
        kept.edges_dropped = kept.edges_dropped.saturating_add(count);
    }

    /// Counts events that a host had no room for.
    pub(crate) fn events_dropped(&self, count: u64) {
        let mut kept = self.kept();
        kept.events_dropped = kept.events_dropped.saturating_add(count);
    }

    /// Keeps a refused call.
    pub(crate) fn denied(&self, host: &HostName, time: Timestamp, call: DeniedCall) {
        let ends: BTreeSet<BotName> = [&call.from, &call.to].into_iter().flatten().cloned().collect();
        let denied = Arc::new(Denied {
            time,
            host: host.clone(),
            call: shortened(call),
        });
        let mut kept = self.kept();
        for bot in ends {
            kept.room_for(&bot);
            push(
                kept.by_bot.entry(bot).or_default(),
                Arc::clone(&denied),
                DENIED_PER_BOT_MAX,
            );
        }
        push(&mut kept.denied, denied, NEWEST_MAX);
    }

    /// Keeps an alert of a host.
    pub(crate) fn alert(&self, alert: ToldBy) {
        let alert = ToldBy {
            reason: shorten(alert.reason, TEXT_BYTES_MAX),
            message: shorten(alert.message, TEXT_BYTES_MAX),
            ..alert
        };
        push(&mut self.kept().alerts, alert, NEWEST_MAX);
    }

    /// The counts of the last minutes, of one bot or of all, summed over hosts.
    pub(crate) fn edges(&self, bot: Option<&BotName>, minutes: u64, now: Timestamp, started: Timestamp) -> EdgeList {
        let minutes = minutes.clamp(1, MINUTES_MAX);
        let first = minute(now) - i64::try_from(minutes).unwrap_or(i64::MAX);
        let kept = self.kept();
        let mut all: BTreeMap<&EdgeKey, EdgeCount> = BTreeMap::new();
        for (host, edges) in &kept.edges {
            for (key, told) in edges {
                let count = told.since(first);
                if count == 0 || bot.is_some_and(|bot| key.from != *bot && key.to != bot.as_str()) {
                    continue;
                }
                let sum = all.entry(key).or_insert_with(|| EdgeCount {
                    from: key.from.clone(),
                    to: key.to.clone(),
                    rule: key.rule.clone(),
                    verdict: key.verdict.clone(),
                    reason: key.reason.clone(),
                    count: 0,
                    last: told.last,
                    hosts: Vec::new(),
                });
                sum.count = sum.count.saturating_add(count);
                sum.last = sum.last.max(told.last);
                sum.hosts.push(host.clone());
            }
        }
        EdgeList {
            since: started.max(now - Duration::from_secs(minutes * 60)),
            edges: all.into_values().collect(),
            dropped: kept.edges_dropped,
        }
    }

    /// The newest events, of one bot or of all.
    pub(crate) fn events(&self, bot: Option<&BotName>) -> EventList {
        let kept = self.kept();
        let of_bot = |bot: &BotName| kept.by_bot.get(bot);
        let denied = bot.map_or(Some(&kept.denied), of_bot);
        EventList {
            denied: denied
                .into_iter()
                .flatten()
                .rev()
                .map(|denied| (**denied).clone())
                .collect(),
            alerts: kept.alerts.iter().rev().cloned().collect(),
            dropped: kept.events_dropped,
        }
    }
}

impl Kept {
    /// Whether one more edge of a host has room, after what is over is forgotten.
    fn has_room(&mut self, host: &HostName, now: Timestamp) -> bool {
        let full = |kept: &Self| {
            let of_host = kept.edges.get(host).map_or(0, BTreeMap::len);
            of_host >= EDGES_PER_HOST_MAX || kept.edges.values().map(BTreeMap::len).sum::<usize>() >= EDGES_MAX
        };
        if !full(self) {
            return true;
        }
        let before = minute(now) - minutes_max();
        for edges in self.edges.values_mut() {
            edges.retain(|_, told| {
                told.forget(before);
                !told.counts.is_empty()
            });
        }
        self.edges.retain(|_, edges| !edges.is_empty());
        !full(self)
    }

    fn room_for(&mut self, bot: &BotName) {
        if self.by_bot.len() < BOTS_MAX || self.by_bot.contains_key(bot) {
            return;
        }
        let last = |denied: &VecDeque<Arc<Denied>>| denied.back().map(|denied| denied.time);
        let oldest = self.by_bot.iter().min_by_key(|(_, denied)| last(denied));
        if let Some(oldest) = oldest.map(|(bot, _)| bot.clone()) {
            self.by_bot.remove(&oldest);
        }
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(item);
}

fn shortened(call: DeniedCall) -> DeniedCall {
    let text = |text: String| shorten(text, TEXT_BYTES_MAX);
    DeniedCall {
        call: text(call.call),
        direction: text(call.direction),
        method: text(call.method),
        path: shorten(call.path, PATH_BYTES_MAX),
        reason: text(call.reason),
        rule: call.rule.map(text),
        nearest: call.nearest.map(text),
        ..call
    }
}

/// Cuts a text at a character boundary.
pub(crate) fn shorten(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bot(name: &str) -> BotName {
        BotName::parse(name).unwrap()
    }

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn key(from: &str, rule: &str) -> EdgeKey {
        EdgeKey {
            from: bot(from),
            to: "orders".to_owned(),
            rule: rule.to_owned(),
            verdict: "allow".to_owned(),
            reason: String::new(),
        }
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_unix_millis(minutes * MINUTE_MS)
    }

    fn counts(observed: &Observed, minutes: u64, now: Timestamp) -> Vec<u64> {
        let list = observed.edges(None, minutes, now, at(0));
        list.edges.iter().map(|edge| edge.count).collect()
    }

    #[test]
    fn counts_are_summed_over_hosts_and_forgotten_after_an_hour() {
        let observed = Observed::default();
        observed.edge(&host("web-1"), key("a", "r"), 3, at(100));
        observed.edge(&host("web-2"), key("a", "r"), 4, at(101));
        observed.edge(&host("web-2"), key("b", "r"), 1, at(159));
        let list = observed.edges(Some(&bot("a")), 60, at(159), at(0));
        assert_eq!(list.edges.len(), 1);
        assert_eq!((list.edges[0].count, list.edges[0].hosts.len()), (7, 2));
        assert_eq!(list.since, at(99));
        assert_eq!(counts(&observed, 60, at(160)), [4, 1]);
        assert_eq!(counts(&observed, 1, at(159)), [1]);
        assert_eq!(counts(&observed, 60, at(230)), [0; 0]);
        assert_eq!(
            observed.edges(None, 60, at(3), at(2)).since,
            at(2),
            "not before the start"
        );
    }

    #[test]
    fn one_host_cannot_take_the_room_of_the_others_and_what_is_dropped_is_counted() {
        let observed = Observed::default();
        for number in 0..EDGES_PER_HOST_MAX + 5 {
            observed.edge(&host("web-1"), key("a", &format!("r{number}")), 1, at(0));
        }
        observed.edge(&host("web-2"), key("a", "r"), 1, at(0));
        observed.edges_dropped(2);
        let list = observed.edges(None, 60, at(0), at(0));
        assert_eq!((list.edges.len(), list.dropped), (EDGES_PER_HOST_MAX + 1, 7));
        // What is over makes room.
        observed.edge(&host("web-1"), key("a", "new"), 1, at(61));
        assert_eq!(counts(&observed, 60, at(61)), [1]);
    }

    #[test]
    fn of_refusals_the_newest_of_each_bot_and_of_the_mesh_are_kept() {
        let observed = Observed::default();
        let call = |from: &str, path: String| DeniedCall {
            from: Some(bot(from)),
            to: Some(bot("orders")),
            path,
            ..DeniedCall::default()
        };
        observed.denied(&host("web-1"), at(0), call("rare", "/".to_owned()));
        for number in 0..NEWEST_MAX + 1 {
            observed.denied(
                &host("web-1"),
                at(1),
                call("often", format!("/{number}{}", "x".repeat(600))),
            );
        }
        let all = observed.events(None).denied;
        assert_eq!((all.len(), all[0].call.path.len()), (NEWEST_MAX, PATH_BYTES_MAX));
        assert!(all[0].call.path.starts_with("/200"), "newest first");
        assert_eq!(observed.events(Some(&bot("often"))).denied.len(), DENIED_PER_BOT_MAX);
        assert_eq!(observed.events(Some(&bot("rare"))).denied.len(), 1);
        assert_eq!(observed.events(Some(&bot("nobody"))).denied.len(), 0);
    }
}
