//! Every bot's calls by destination and rule, and what is raised of them. Pure: time and what is told are arguments.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

use super::alert::{Alert, WatchKind};
use super::kept::{Kept, Row, RowKey};
use super::moment::{Hours, Moment, millis};
use super::series::{Excess, Limits, PAUSE_FRACTION, Series, is_learned};
use crate::config::WatchSettings;

/// Destinations and rules that are told apart, of all bots. Each takes about a KiB.
pub(super) const ROUTES_MAX: usize = 20_000;

/// And of those that one host told of first, so that no host takes the others' room.
pub(super) const ROUTES_PER_HOST_MAX: usize = 2_000;

/// What was not used for so long is new again.
const FORGET: Duration = Duration::from_hours(24 * 30);

/// Destinations that an alert about refusals names.
const DESTINATIONS_MAX: usize = 8;

/// What a host tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) host: &'a HostName,
    pub(super) from: &'a BotName,
    pub(super) to: &'a str,
    pub(super) what: What<'a>,
    pub(super) calls: u64,
    /// How long it took until it was told: the CA was away.
    pub(super) waited: Duration,
}

/// What became of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    /// They were carried, by this rule; none where the destination is `audit_only`.
    Carried(&'a str),
    /// They were refused.
    Refused,
}

/// A destination of a bot, and how it was reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) to: String,
    /// Absent where calls were refused.
    pub(super) rule: Option<String>,
}

/// What is known of one.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Who told of it first, whose room it takes.
    pub(super) host: HostName,
    pub(super) series: Series,
    dirty: bool,
}

/// A bot that calls.
#[derive(Clone, Debug)]
pub(super) struct Bot {
    pub(super) first: Moment,
    pub(super) routes: BTreeMap<Route, Known>,
    /// All refused calls together: who looks around is refused at one place after the other.
    pub(super) refused: Series,
    refused_at: VecDeque<String>,
    dirty: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Engine {
    settings: WatchSettings,
    hours: Hours,
    bots: BTreeMap<BotName, Bot>,
    /// When each rule of the live mesh was first there.
    rules: BTreeMap<String, Moment>,
    of_host: BTreeMap<HostName, usize>,
    /// Calls that had no room to be watched.
    unwatched: u64,
    gone: BTreeSet<RowKey>,
}

impl Engine {
    pub(super) fn new(settings: WatchSettings, now: Timestamp) -> Self {
        Self {
            settings,
            hours: Hours::begin(now),
            bots: BTreeMap::new(),
            rules: BTreeMap::new(),
            of_host: BTreeMap::new(),
            unwatched: 0,
            gone: BTreeSet::new(),
        }
    }

    /// How many routes are known.
    pub(super) fn routes(&self) -> usize {
        self.of_host.values().sum()
    }

    /// Calls that had no room to be watched since this was asked last.
    pub(super) fn take_unwatched(&mut self) -> u64 {
        std::mem::take(&mut self.unwatched)
    }

    /// Takes in which rules and bots are live, and forgets what was not used for long.
    pub(super) fn tick<'r>(
        &mut self,
        now: Timestamp,
        rules: impl Iterator<Item = &'r str>,
        is_live: impl Fn(&BotName) -> bool,
    ) {
        let at = self.hours.tick(now);
        let before = std::mem::take(&mut self.rules);
        for rule in rules {
            let since = before.get(rule).copied().unwrap_or(at);
            self.rules.insert(rule.to_owned(), since);
        }
        let ended = before.into_keys().filter(|rule| !self.rules.contains_key(rule));
        self.gone.extend(ended.map(|rule| RowKey::rule(&rule)));
        self.gone.retain(|key| !key.is_rule_of(&self.rules));
        self.forget(at, is_live);
    }

    fn forget(&mut self, at: Moment, is_live: impl Fn(&BotName) -> bool) {
        for (name, bot) in &mut self.bots {
            bot.routes.retain(|route, known| {
                let is_kept = at - known.series.last() < millis(FORGET);
                if !is_kept {
                    leave(&mut self.of_host, &known.host);
                    self.gone.insert(RowKey::route(name, route));
                }
                is_kept
            });
        }
        self.bots.retain(|name, bot| {
            // One that did nothing for a month is not new when it does something.
            let is_kept = !bot.routes.is_empty() || is_live(name);
            if !is_kept {
                self.gone.insert(RowKey::bot(name));
            }
            is_kept
        });
    }

    /// Takes in calls; says what of them is to be looked at.
    pub(super) fn told(&mut self, now: Timestamp, told: Told<'_>) -> Vec<Alert> {
        let at = self.hours.tick(now).before(told.waited);
        let Some(is_first) = self.route(at, told) else {
            self.unwatched = self.unwatched.saturating_add(told.calls);
            return Vec::new();
        };
        let limits = Limits {
            factor: self.settings.factor,
            floor: self.settings.floor,
            // Nobody is refused by habit.
            fraction: (told.what != What::Refused).then_some(PAUSE_FRACTION),
        };
        let Some(bot) = self.bots.get_mut(told.from) else {
            return Vec::new();
        };
        let learning = self.settings.learning;
        let is_known = is_learned(at - bot.first, learning);
        let mut found = Vec::new();
        let is_planned = match told.what {
            // Somebody wrote the rule for these calls just now.
            What::Carried(rule) if !rule.is_empty() => {
                let since = self.rules.get(rule);
                since.is_none_or(|since| !is_learned(at - *since, learning))
            }
            What::Carried(_) | What::Refused => false,
        };
        if is_first && is_known && !is_planned {
            found.push((WatchKind::FirstSeen, None));
        }
        if let Some(excess) = bot.count(at, told, limits, learning) {
            found.push(match told.what {
                What::Carried(_) => (WatchKind::RateJump, Some(excess)),
                What::Refused => (WatchKind::RefusalBurst, Some(excess)),
            });
        }
        if self.settings.ignore.contains(told.from) {
            return Vec::new();
        }
        let bot = &*bot;
        found
            .into_iter()
            .map(|(kind, excess)| bot.alert(now, told, kind, excess))
            .collect()
    }

    /// Says whether the calls are the first of their route; nothing where there is no room.
    fn route(&mut self, at: Moment, told: Told<'_>) -> Option<bool> {
        let route = Route::of(told);
        let is_there = |bot: &Bot| bot.routes.contains_key(&route);
        if self.bots.get(told.from).is_some_and(is_there) {
            return Some(false);
        }
        let of_host = self.of_host.get(told.host).copied().unwrap_or_default();
        if of_host >= ROUTES_PER_HOST_MAX || self.routes() >= ROUTES_MAX {
            return None;
        }
        let bot = self.bots.entry(told.from.clone()).or_insert_with(|| Bot::new(at));
        self.gone.remove(&RowKey::route(told.from, &route));
        self.gone.remove(&RowKey::bot(told.from));
        let known = Known {
            host: told.host.clone(),
            series: Series::new(at),
            dirty: true,
        };
        bot.routes.insert(route, known);
        let of_host = self.of_host.entry(told.host.clone()).or_default();
        *of_host = of_host.saturating_add(1);
        Some(true)
    }

    /// Reads what was kept. A row that cannot be read is left out: it is learned again.
    pub(super) fn restore(&mut self, now: Timestamp, rows: Vec<Row>) -> usize {
        let mut unreadable = 0;
        for row in rows {
            match Kept::read(&row) {
                Some(Kept::Hours(mut hours)) => {
                    hours.tick(now);
                    self.hours = hours;
                }
                Some(Kept::Rule { rule, since }) => drop(self.rules.insert(rule, since)),
                Some(Kept::Bot { bot, first, refused }) => {
                    let known = self.bots.entry(bot).or_insert_with(|| Bot::new(first));
                    (known.first, known.refused) = (first, refused);
                }
                Some(Kept::Route {
                    bot,
                    route,
                    host,
                    series,
                }) if self.routes() < ROUTES_MAX => {
                    let of_host = self.of_host.entry(host.clone()).or_default();
                    *of_host = of_host.saturating_add(1);
                    let bot = self.bots.entry(bot).or_insert_with(|| Bot::new(Moment::default()));
                    let dirty = false;
                    drop(bot.routes.insert(route, Known { host, series, dirty }));
                }
                Some(Kept::Route { .. }) | None => unreadable += 1,
            }
        }
        unreadable
    }

    /// Takes what has changed since this was asked last, to be kept; and what is gone.
    pub(super) fn take_changes(&mut self) -> (Vec<Row>, Vec<RowKey>) {
        let mut rows = vec![Row::hours(self.hours)];
        rows.extend(self.rules.iter().map(|(rule, since)| Row::rule(rule, *since)));
        for (name, bot) in &mut self.bots {
            if std::mem::take(&mut bot.dirty) {
                rows.push(Row::bot(name, bot));
            }
            for (route, known) in &mut bot.routes {
                if std::mem::take(&mut known.dirty) {
                    rows.push(Row::route(name, route, known));
                }
            }
        }
        (rows, std::mem::take(&mut self.gone).into_iter().collect())
    }
}

impl Route {
    fn of(told: Told<'_>) -> Self {
        Self {
            to: told.to.to_owned(),
            rule: match told.what {
                What::Carried(rule) => Some(rule.to_owned()),
                What::Refused => None,
            },
        }
    }
}

impl Bot {
    fn new(first: Moment) -> Self {
        Self {
            first,
            routes: BTreeMap::new(),
            refused: Series::new(first),
            refused_at: VecDeque::new(),
            dirty: true,
        }
    }

    /// Counts calls, of which a bot or a route that is not known for long is no judge.
    fn count(&mut self, at: Moment, told: Told<'_>, limits: Limits, learning: Duration) -> Option<Excess> {
        let known = self.routes.get_mut(&Route::of(told))?;
        known.dirty = true;
        let excess = known.series.count(at, told.calls, limits);
        if told.what != What::Refused {
            return excess.filter(|_| is_learned(known.series.age(at), learning));
        }
        self.dirty = true;
        self.refused_at.retain(|to| to != told.to);
        self.refused_at.push_front(told.to.to_owned());
        self.refused_at.truncate(DESTINATIONS_MAX);
        let excess = self.refused.count(at, told.calls, limits);
        excess.filter(|_| is_learned(at - self.first, learning))
    }

    fn alert(&self, now: Timestamp, told: Told<'_>, kind: WatchKind, excess: Option<Excess>) -> Alert {
        let is_burst = kind == WatchKind::RefusalBurst;
        let named = |to: &String| {
            if to.is_empty() {
                "names that nobody has".to_owned()
            } else {
                to.clone()
            }
        };
        Alert {
            kind,
            time: now,
            host: told.host.clone(),
            from: told.from.clone(),
            to: if is_burst { String::new() } else { told.to.to_owned() },
            route: match told.what {
                What::Carried(rule) => rule.to_owned(),
                What::Refused => String::new(),
            },
            excess,
            destinations: self.refused_at.iter().filter(|_| is_burst).map(named).collect(),
            refused: told.what == What::Refused,
            count: 1,
        }
    }
}

fn leave(of_host: &mut BTreeMap<HostName, usize>, host: &HostName) {
    if let Some(count) = of_host.get_mut(host) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            of_host.remove(host);
        }
    }
}
