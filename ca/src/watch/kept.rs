//! What was learned, as rows of the database.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spiffe::id::{BotName, HostName};

use super::engine::{Bot, Known, Route};
use super::moment::{Hours, Moment};
use super::series::Series;

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowKey {
    /// `hours`, `rule`, `bot`, `carried` or `refused`.
    pub(crate) kind: String,
    /// The caller.
    pub(crate) bot: String,
    /// The destination.
    pub(crate) callee: String,
    /// The rule.
    pub(crate) rule: String,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: RowKey,
    /// JSON.
    pub(crate) state: String,
}

/// What a row says.
#[derive(Debug)]
pub(super) enum Kept {
    Hours(Hours),
    Rule {
        rule: String,
        since: Moment,
    },
    Bot {
        bot: BotName,
        first: Moment,
        refused: Series,
    },
    Route {
        bot: BotName,
        route: Route,
        host: HostName,
        series: Series,
    },
}

#[derive(Serialize, Deserialize)]
struct OfBot<S> {
    first: Moment,
    refused: S,
}

#[derive(Serialize, Deserialize)]
struct OfRoute<H, S> {
    host: H,
    series: S,
}

impl RowKey {
    fn new(kind: &str, bot: &str, callee: &str, rule: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            bot: bot.to_owned(),
            callee: callee.to_owned(),
            rule: rule.to_owned(),
        }
    }

    pub(super) fn rule(rule: &str) -> Self {
        Self::new("rule", "", "", rule)
    }

    pub(super) fn is_rule_of(&self, rules: &BTreeMap<String, Moment>) -> bool {
        self.kind == "rule" && rules.contains_key(&self.rule)
    }

    pub(super) fn bot(bot: &BotName) -> Self {
        Self::new("bot", bot.as_str(), "", "")
    }

    pub(super) fn route(bot: &BotName, route: &Route) -> Self {
        match &route.rule {
            Some(rule) => Self::new("carried", bot.as_str(), &route.to, rule),
            None => Self::new("refused", bot.as_str(), &route.to, ""),
        }
    }
}

impl Row {
    fn new(key: RowKey, state: &impl Serialize) -> Self {
        // Numbers, names and lists of them always have a form in JSON.
        let state = serde_json::to_string(state).unwrap_or_default();
        Self { key, state }
    }

    pub(super) fn hours(hours: Hours) -> Self {
        Self::new(RowKey::new("hours", "", "", ""), &hours)
    }

    pub(super) fn rule(rule: &str, since: Moment) -> Self {
        Self::new(RowKey::rule(rule), &since)
    }

    pub(super) fn bot(name: &BotName, bot: &Bot) -> Self {
        let (first, refused) = (bot.first, &bot.refused);
        Self::new(RowKey::bot(name), &OfBot { first, refused })
    }

    pub(super) fn route(bot: &BotName, route: &Route, known: &Known) -> Self {
        let of_route = OfRoute {
            host: known.host.as_str(),
            series: &known.series,
        };
        Self::new(RowKey::route(bot, route), &of_route)
    }
}

impl Kept {
    /// Reads a row; nothing where it is none of this version.
    pub(super) fn read(row: &Row) -> Option<Self> {
        let (key, state) = (&row.key, row.state.as_str());
        match key.kind.as_str() {
            "hours" => serde_json::from_str(state).ok().map(Self::Hours),
            "rule" => Some(Self::Rule {
                rule: key.rule.clone(),
                since: serde_json::from_str(state).ok()?,
            }),
            "bot" => {
                let OfBot { first, refused } = serde_json::from_str(state).ok()?;
                let bot = BotName::parse(&key.bot).ok()?;
                Some(Self::Bot { bot, first, refused })
            }
            kind @ ("carried" | "refused") => {
                let OfRoute::<String, Series> { host, series } = serde_json::from_str(state).ok()?;
                Some(Self::Route {
                    bot: BotName::parse(&key.bot).ok()?,
                    route: Route {
                        to: key.callee.clone(),
                        rule: (kind == "carried").then(|| key.rule.clone()),
                    },
                    host: HostName::parse(&host).ok()?,
                    series,
                })
            }
            _other => None,
        }
    }
}
