//! `watch:`, what is unlike the days before.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use spiffe::id::BotName;

use super::WebhookSettings;

/// What is counted as days.
const DAY: Duration = Duration::from_hours(24);

/// As long as days are remembered.
const LEARNING_MAX: Duration = Duration::from_hours(24 * 8);

/// Bots that raise no alerts.
const IGNORED_MAX: usize = 1_000;

/// `watch:`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct WatchSettings {
    /// Whether anything is watched; true.
    pub enabled: bool,
    /// Calls are too many when they are more than so many times the most of the days before; 4.
    pub factor: u32,
    /// And no fewer than these; 10.
    pub floor: u32,
    /// How long a bot, a route or a rule is new and raises nothing; a day.
    pub learning: Duration,
    /// Bots that raise nothing.
    pub ignore: BTreeSet<BotName>,
    /// Where alerts are sent; nowhere without it.
    pub webhook: Option<WebhookSettings>,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            factor: 4,
            floor: 10,
            learning: DAY,
            ignore: BTreeSet::new(),
            webhook: None,
        }
    }
}

/// The section as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    factor: Option<u32>,
    #[serde(default)]
    floor: Option<u32>,
    #[serde(default)]
    learning: Option<String>,
    #[serde(default)]
    ignore: Vec<BotName>,
    #[serde(default)]
    webhook: Option<WebhookSettings>,
}

impl TryFrom<Written> for WatchSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let default = Self::default();
        let factor = written.factor.unwrap_or(default.factor);
        if !(2..=1_000).contains(&factor) {
            return Err(format!(
                "watch.factor is {factor}: it is 2 to 1000, so many times the calls of the days before"
            ));
        }
        let floor = written.floor.unwrap_or(default.floor);
        if !(2..=1_000_000).contains(&floor) {
            return Err(format!("watch.floor is {floor}: it is 2 to 1000000 calls"));
        }
        let learning = match &written.learning {
            Some(text) => learning(text)
                .ok_or_else(|| format!("watch.learning is {text:?}: it is 24h to 192h, or 1d to 8d, a whole number"))?,
            None => default.learning,
        };
        if written.ignore.len() > IGNORED_MAX {
            return Err(format!("watch.ignore has more than {IGNORED_MAX} bots"));
        }
        Ok(Self {
            enabled: written.enabled.unwrap_or(default.enabled),
            factor,
            floor,
            learning,
            ignore: written.ignore.into_iter().collect(),
            webhook: written.webhook,
        })
    }
}

/// Days begin with the first call, and what is judged has had one.
fn learning(text: &str) -> Option<Duration> {
    let (number, hours) = [("h", 1), ("d", 24)]
        .into_iter()
        .find_map(|(unit, hours)| text.strip_suffix(unit).map(|number| (number, hours)))?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let hours = number.parse::<u64>().ok()?.checked_mul(hours)?;
    let learning = Duration::from_secs(hours.checked_mul(3_600)?);
    (DAY..=LEARNING_MAX).contains(&learning).then_some(learning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<WatchSettings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_has_a_default() {
        assert_eq!(parse("{}"), Ok(WatchSettings::default()));
        let all = parse(r#"{"enabled":false,"factor":10,"floor":5,"learning":"3d","ignore":["prod/load"]}"#).unwrap();
        assert_eq!((all.enabled, all.factor, all.floor), (false, 10, 5));
        assert_eq!(all.learning, 3 * DAY);
        assert_eq!(all.ignore.first().map(BotName::as_str), Some("prod/load"));
        assert_eq!(
            parse(r#"{"learning":"36h"}"#).unwrap().learning,
            Duration::from_hours(36)
        );
    }

    #[test]
    fn what_would_never_or_always_raise_is_refused() {
        for (text, why) in [
            (r#"{"factor":1}"#, "watch.factor"),
            (r#"{"factor":1001}"#, "watch.factor"),
            (r#"{"floor":1}"#, "watch.floor"),
            (r#"{"floor":1000001}"#, "watch.floor"),
            (r#"{"learning":"23h"}"#, "watch.learning"),
            (r#"{"learning":"9d"}"#, "watch.learning"),
            (r#"{"learning":"+1d"}"#, "watch.learning"),
            (r#"{"learning":"1w"}"#, "watch.learning"),
            (r#"{"learning":"99999999999999999999d"}"#, "watch.learning"),
            (r#"{"ignore":["prod/*"]}"#, "not a name"),
            (r#"{"quarantine":true}"#, "unknown field"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
        let many: Vec<String> = (0..=IGNORED_MAX).map(|number| format!("\"bot-{number}\"")).collect();
        let refused = parse(&format!("{{\"ignore\":[{}]}}", many.join(","))).unwrap_err();
        assert!(refused.contains("watch.ignore"), "{refused}");
    }
}
