//! Which alerts are written and sent one by one. Whoever holds a host can raise as many as he likes, and must neither fill
//! the ledger nor be heard so often that nobody listens: the rest of a window is one alert more.

use std::collections::{BTreeMap, BTreeSet};

use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

use super::alert::{Alert, WatchKind};
use crate::tally::WINDOW;

/// Alerts of one host that are written in a window, one for each bot and kind.
const WRITTEN_MAX: usize = 32;

/// What one host told in its window.
#[derive(Debug)]
struct Window {
    began: Timestamp,
    written: BTreeSet<(WatchKind, BotName)>,
    /// Those that were not.
    more: Option<Alert>,
}

/// The hosts whose windows are not over.
#[derive(Debug, Default)]
pub(super) struct Gate(BTreeMap<HostName, Window>);

impl Gate {
    /// Says whether an alert is written; if not it is counted.
    pub(super) fn admits(&mut self, alert: &Alert) -> bool {
        let window = self.0.entry(alert.host.clone()).or_insert_with(|| Window {
            began: alert.time,
            written: BTreeSet::new(),
            more: None,
        });
        let key = (alert.kind, alert.from.clone());
        if window.written.len() < WRITTEN_MAX && window.written.insert(key) {
            return true;
        }
        let more = window.more.get_or_insert_with(|| Alert {
            kind: WatchKind::More,
            to: String::new(),
            route: String::new(),
            excess: None,
            destinations: Vec::new(),
            refused: false,
            count: 0,
            ..alert.clone()
        });
        more.count = more.count.saturating_add(1);
        more.time = alert.time;
        false
    }

    /// Takes what is to be written of windows that are over, or of all. A clock that was set back ends them too.
    pub(super) fn take(&mut self, now: Timestamp, all: bool) -> Vec<Alert> {
        let mut taken = Vec::new();
        self.0.retain(|_, window| {
            let is_over = all || now < window.began || now.duration_since(window.began) >= WINDOW;
            if is_over {
                taken.extend(window.more.take());
            }
            !is_over
        });
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(host: &str, from: &str, kind: WatchKind, seconds: i64) -> Alert {
        Alert {
            kind,
            time: at(seconds),
            host: HostName::parse(host).unwrap(),
            from: BotName::parse(from).unwrap(),
            to: "orders".to_owned(),
            route: "reads".to_owned(),
            excess: None,
            destinations: Vec::new(),
            refused: false,
            count: 1,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1_000)
    }

    #[test]
    fn the_first_of_a_bot_and_a_kind_is_written_and_the_others_are_one_more() {
        let mut gate = Gate::default();
        assert!(gate.admits(&alert("web-1", "a", WatchKind::FirstSeen, 0)));
        assert!(gate.admits(&alert("web-1", "a", WatchKind::RateJump, 1)));
        assert!(gate.admits(&alert("web-1", "b", WatchKind::FirstSeen, 1)));
        for second in 2..5 {
            assert!(!gate.admits(&alert("web-1", "a", WatchKind::FirstSeen, second)));
        }
        assert_eq!(gate.take(at(599), false), []);
        let taken = gate.take(at(600), false);
        assert_eq!((taken.len(), taken[0].kind, taken[0].count), (1, WatchKind::More, 3));
        assert!(
            gate.admits(&alert("web-1", "a", WatchKind::FirstSeen, 601)),
            "a new window"
        );
        assert!(
            gate.0.len() == 1 && gate.take(at(300), false).is_empty() && gate.0.is_empty(),
            "a clock set back"
        );
    }

    #[test]
    fn one_host_is_written_so_often_and_takes_nothing_from_another() {
        let mut gate = Gate::default();
        let admitted = |gate: &mut Gate, host: &str| {
            let bots = 0..1_000;
            let admits = |bot| gate.admits(&alert(host, &format!("bot-{bot}"), WatchKind::RateJump, 0));
            bots.map(admits).filter(|admits| *admits).count()
        };
        assert_eq!(admitted(&mut gate, "web-1"), WRITTEN_MAX);
        assert_eq!(admitted(&mut gate, "web-2"), WRITTEN_MAX);
        let counts: Vec<u64> = gate.take(at(1), true).iter().map(|more| more.count).collect();
        assert_eq!(counts, [968, 968]);
    }
}
