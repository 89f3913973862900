//! Bots, rules, hosts.

use std::time::Duration;

use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

use crate::config::WatchSettings;
use crate::watch::alert::{Alert, WatchKind};
use crate::watch::engine::{Engine, ROUTES_MAX, ROUTES_PER_HOST_MAX, Told, What};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn at(second: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_700_000_000_000 + second * 1_000)
}

/// An engine, and a clock that it follows.
struct Scene {
    engine: Engine,
    rules: Vec<&'static str>,
}

impl Scene {
    fn new(settings: WatchSettings) -> Self {
        let mut scene = Self {
            engine: Engine::new(settings, at(0)),
            rules: vec!["reads", "old"],
        };
        scene.look(0);
        scene
    }

    /// One where `a` has called `orders` once an hour for so many days.
    fn learned(days: i64) -> Self {
        let mut scene = Self::new(WatchSettings::default());
        for hour in 0..days * 24 {
            assert_eq!(scene.carried(hour * HOUR, "a", "orders", "reads", 1), []);
        }
        scene
    }

    fn look(&mut self, second: i64) {
        let is_live = |bot: &BotName| bot.as_str() != "gone";
        self.engine.tick(at(second), self.rules.iter().copied(), is_live);
    }

    /// Hours without calls.
    fn pass(&mut self, from: i64, to: i64) {
        for hour in from / HOUR..=to / HOUR {
            self.look(hour * HOUR);
        }
    }

    fn carried(&mut self, second: i64, from: &str, to: &str, rule: &str, calls: u64) -> Vec<(WatchKind, String)> {
        kinds(self.told("web-1", second, from, to, What::Carried(rule), calls))
    }

    fn refused(&mut self, second: i64, from: &str, to: &str, calls: u64) -> Vec<(WatchKind, String)> {
        kinds(self.told("web-1", second, from, to, What::Refused, calls))
    }

    fn told(&mut self, host: &str, second: i64, from: &str, to: &str, what: What<'_>, calls: u64) -> Vec<Alert> {
        let told = Told {
            host: &HostName::parse(host).unwrap(),
            from: &BotName::parse(from).unwrap(),
            to,
            what,
            calls,
            waited: Duration::ZERO,
        };
        self.engine.told(at(second), told)
    }

    fn restarted(mut self, second: i64) -> Self {
        let (rows, gone) = self.engine.take_changes();
        assert_eq!(gone, []);
        let mut engine = Engine::new(WatchSettings::default(), at(second));
        assert_eq!(engine.restore(at(second), rows), 0);
        Self { engine, ..self }
    }
}

fn kinds(alerts: Vec<Alert>) -> Vec<(WatchKind, String)> {
    alerts
        .into_iter()
        .map(|alert| (alert.kind, alert.to_api(1).message))
        .collect()
}

fn said(kind: WatchKind, message: &str) -> [(WatchKind, String); 1] {
    [(kind, message.to_owned())]
}

#[test]
fn a_jump_is_said_with_what_was_usual_and_the_command() {
    let mut scene = Scene::learned(7);
    assert_eq!(scene.carried(7 * DAY, "a", "orders", "reads", 1), []);
    let alerts = scene.told("web-2", 7 * DAY + 36, "a", "orders", What::Carried("reads"), 1);
    let alert = alerts[0].to_api(3);
    assert_eq!(
        alert.message,
        "a called orders 2 times in 36 seconds by rule reads; in the days before never 2 times in less than an hour"
    );
    assert_eq!(alert.command, "botmesh quarantine a --reason rate_jump");
    assert_eq!(
        (alert.id, alert.host.as_str(), alert.kind.as_str()),
        (3, "web-2", "rate_jump")
    );
}

#[test]
fn a_bot_that_moves_to_another_host_is_the_same_bot() {
    let mut scene = Scene::learned(3);
    for hour in 72..96 {
        let alerts = scene.told("web-2", hour * HOUR, "a", "orders", What::Carried("reads"), 1);
        assert_eq!(alerts, []);
    }
    assert_eq!(scene.engine.routes(), 1);
}

#[test]
fn the_first_day_of_a_bot_a_route_and_a_rule_is_for_learning() {
    let mut scene = Scene::learned(2);
    // A new bot may do what it likes.
    let start = 2 * DAY;
    assert_eq!(scene.carried(start, "b", "orders", "reads", 1_000), []);
    assert_eq!(scene.carried(start + HOUR, "b", "users", "old", 50), []);
    assert_eq!(scene.refused(start + HOUR, "b", "vault", 50), []);
    // So may calls by a rule that somebody has just made.
    scene.rules.push("new");
    assert_eq!(
        scene.carried(start + 2 * HOUR, "a", "users", "new", 1),
        [],
        "not looked at yet"
    );
    scene.look(start + 2 * HOUR);
    assert_eq!(scene.carried(start + 3 * HOUR, "a", "stock", "new", 1), []);
    // After a day the rule is old, the bot is known, and so is its route.
    scene.pass(start + 3 * HOUR, start + 27 * HOUR);
    let first = "b called vault by rule new for the first time";
    assert_eq!(
        scene.carried(start + 27 * HOUR, "b", "vault", "new", 1),
        said(WatchKind::FirstSeen, first)
    );
    let many = scene.carried(start + 28 * HOUR, "b", "orders", "reads", 8_001);
    assert_eq!(many[0].0, WatchKind::RateJump);
    assert_eq!(
        scene.carried(start + 28 * HOUR, "b", "vault", "new", 8_001),
        [],
        "a new route"
    );
}

#[test]
fn a_destination_and_a_rule_are_said_when_they_are_first_used_and_once() {
    let mut scene = Scene::learned(2);
    let now = 2 * DAY;
    let first = "a called orders by rule old for the first time";
    assert_eq!(
        scene.carried(now, "a", "orders", "old", 1),
        said(WatchKind::FirstSeen, first)
    );
    let first = "a called users by rule old for the first time";
    assert_eq!(
        scene.carried(now, "a", "users", "old", 1),
        said(WatchKind::FirstSeen, first)
    );
    let first = "a called echo without a rule for the first time";
    assert_eq!(
        scene.carried(now, "a", "echo", "", 1),
        said(WatchKind::FirstSeen, first)
    );
    let first = "a was refused at vault, which it never called before";
    assert_eq!(scene.refused(now, "a", "vault", 1), said(WatchKind::FirstSeen, first));
    let first = "a was refused at a name that nobody has, which it never called before";
    assert_eq!(scene.refused(now, "a", "", 1), said(WatchKind::FirstSeen, first));
    for (to, rule) in [("orders", "old"), ("users", "old"), ("echo", "")] {
        assert_eq!(scene.carried(now + 1, "a", to, rule, 1), [], "{to}");
    }
    assert_eq!(scene.refused(now + 1, "a", "vault", 1), []);
    // What was not used for a month is new again.
    scene.pass(2 * DAY, 33 * DAY);
    assert_eq!(scene.engine.routes(), 0);
    assert_eq!(scene.carried(33 * DAY, "a", "users", "old", 1).len(), 1);
}

#[test]
fn refusals_everywhere_are_counted_together() {
    let mut scene = Scene::learned(2);
    let mut alerts = Vec::new();
    for number in 0..12 {
        alerts.extend(scene.told(
            "web-1",
            2 * DAY + number,
            "a",
            &format!("bot-{number}"),
            What::Refused,
            1,
        ));
    }
    let bursts: Vec<&Alert> = alerts
        .iter()
        .filter(|alert| alert.kind == WatchKind::RefusalBurst)
        .collect();
    assert_eq!((bursts.len(), alerts.len()), (1, 13));
    let told = bursts[0].to_api(1);
    assert_eq!(told.destinations.len(), 8);
    assert!(
        told.message
            .starts_with("a was refused 10 times in a minute, lately at bot-9, bot-8, ")
            && told.message.ends_with("; in the days before never"),
        "{}",
        told.message
    );
}

#[test]
fn two_refusals_after_each_other_are_no_burst() {
    let mut scene = Scene::learned(2);
    for day in 2..8 {
        for number in 0..6 {
            scene.refused(day * DAY + number * 4 * HOUR, "a", "vault", 1);
        }
        scene.pass(day * DAY, day * DAY + 23 * HOUR);
    }
    assert_eq!(scene.refused(8 * DAY, "a", "vault", 1), []);
    assert_eq!(scene.refused(8 * DAY + 60, "a", "vault", 1), []);
}

#[test]
fn an_ignored_bot_raises_nothing() {
    let settings = WatchSettings {
        ignore: [BotName::parse("a").unwrap()].into(),
        ..WatchSettings::default()
    };
    let mut scene = Scene::new(settings);
    for hour in 0..48 {
        scene.carried(hour * HOUR, "a", "orders", "reads", 1);
        scene.carried(hour * HOUR, "b", "orders", "reads", 1);
    }
    for (bot, raised) in [("a", 0), ("b", 1)] {
        assert_eq!(
            scene.carried(2 * DAY, bot, "orders", "reads", 500).len(),
            raised,
            "{bot}"
        );
        assert_eq!(scene.refused(2 * DAY, bot, "vault", 1).len(), raised, "{bot}");
    }
}

#[test]
fn clocks_that_are_set_neither_raise_nor_blind() {
    for jump in [-400 * DAY, -HOUR, HOUR, 400 * DAY] {
        let mut scene = Scene::learned(7);
        let now = 7 * DAY + jump;
        scene.look(now);
        for hour in 0..24 {
            assert_eq!(
                scene.carried(now + hour * HOUR, "a", "orders", "reads", 1),
                [],
                "{jump}"
            );
        }
        let found = scene.carried(now + 23 * HOUR + 36, "a", "orders", "reads", 1);
        assert_eq!(found.len(), 1, "{jump}");
    }
}

#[test]
fn what_was_learned_outlives_a_restart() {
    let mut scene = Scene::learned(7).restarted(7 * DAY);
    scene.look(7 * DAY);
    assert_eq!(scene.carried(7 * DAY, "a", "orders", "reads", 1), []);
    assert_eq!(scene.carried(7 * DAY + 36, "a", "orders", "reads", 1).len(), 1);
    assert_eq!(
        scene.carried(7 * DAY + 37, "a", "users", "old", 1).len(),
        1,
        "the rule is old"
    );
    // However long it was away.
    let mut scene = Scene::learned(7).restarted(30 * DAY);
    assert_eq!(scene.carried(30 * DAY, "a", "orders", "reads", 20).len(), 1);
    let mut scene = Scene::learned(7);
    let (mut rows, _) = scene.engine.take_changes();
    rows[1].state = "{}".to_owned();
    let mut engine = Engine::new(WatchSettings::default(), at(0));
    assert_eq!(engine.restore(at(0), rows), 1, "what cannot be read is left out");
}

#[test]
fn what_is_gone_is_not_kept() {
    let mut scene = Scene::learned(1);
    scene.carried(DAY - HOUR, "gone", "orders", "reads", 1);
    scene.engine.take_changes();
    scene.rules = vec!["reads"];
    scene.pass(DAY, 33 * DAY);
    let (rows, gone) = scene.engine.take_changes();
    let kinds: Vec<&str> = gone.iter().map(|key| key.kind.as_str()).collect();
    assert_eq!(kinds, ["bot", "carried", "carried", "rule"]);
    assert_eq!(gone[0].bot, "gone");
    let kept: Vec<&str> = rows.iter().map(|row| row.key.kind.as_str()).collect();
    assert_eq!(kept, ["hours", "rule"]);
    // A rule that comes back is there.
    scene.rules = vec!["reads", "old"];
    scene.look(40 * DAY);
    assert_eq!(scene.engine.take_changes().1, []);
}

#[test]
fn one_host_takes_its_own_room_and_no_more() {
    let mut scene = Scene::new(WatchSettings::default());
    let fill = |scene: &mut Scene, host: &str, routes: usize| {
        for number in 0..routes {
            scene.told(host, 0, "a", &format!("{host}-{number}"), What::Carried("reads"), 1);
        }
    };
    fill(&mut scene, "web-1", ROUTES_PER_HOST_MAX + 3);
    assert_eq!(
        (scene.engine.routes(), scene.engine.take_unwatched()),
        (ROUTES_PER_HOST_MAX, 3)
    );
    fill(&mut scene, "web-2", 1);
    assert_eq!(
        (scene.engine.routes(), scene.engine.take_unwatched()),
        (ROUTES_PER_HOST_MAX + 1, 0)
    );
    for host in 3..20 {
        fill(&mut scene, &format!("web-{host}"), ROUTES_PER_HOST_MAX);
    }
    assert_eq!(scene.engine.routes(), ROUTES_MAX);
    let (mut rows, _) = scene.engine.take_changes();
    let mut one_more = rows.last().unwrap().clone();
    one_more.key.callee = "one-more".to_owned();
    rows.push(one_more);
    let mut engine = Engine::new(WatchSettings::default(), at(0));
    assert_eq!(engine.restore(at(0), rows), 1);
    assert_eq!(engine.routes(), ROUTES_MAX);
}
