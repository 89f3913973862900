//! Two weeks of a mesh that nobody attacks, with a burst, a deploy, a restart of the CA and clocks that change; and then
//! attacks. What is raised of the first, and how soon of the second.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of calls and seconds, made up"
)]

mod random;
mod traffic;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use spiffe::time::Timestamp;

use self::random::Random;
use self::traffic::{Attack, DAY, Fate, Flow, HOUR, New, Traffic};
use crate::config::WatchSettings;
use crate::watch::alert::{Alert, WatchKind};
use crate::watch::engine::{Engine, Told, What};

/// A Wednesday.
const BEGIN: i64 = 1_700_000_000_000;

/// What was raised in one run.
struct Run {
    /// Alerts while nobody attacked, with the second and the flow.
    normal: Vec<(i64, Flow, Alert)>,
    /// Seconds from the beginning of an attack to its first alert.
    delays: BTreeMap<Attack, Option<i64>>,
    routes: usize,
    calls: u64,
    deploy_at: i64,
}

fn run(traffic: &Traffic, settings: &WatchSettings) -> Run {
    let at = |second: i64| Timestamp::from_unix_millis(BEGIN + Traffic::wall(second) * 1_000);
    let mut engine = Engine::new(settings.clone(), at(0));
    let mut run = Run {
        normal: Vec::new(),
        delays: Attack::ALL.into_iter().map(|attack| (attack, None)).collect(),
        routes: 0,
        calls: 0,
        deploy_at: traffic.deploy_at,
    };
    let (mut looked, mut is_restarted) = (-1, false);
    for event in traffic.events() {
        let (second, flow) = (event.second, traffic.flow(event));
        if !is_restarted && second >= traffic.restart_at {
            is_restarted = true;
            let (rows, _gone) = engine.take_changes();
            engine = Engine::new(settings.clone(), at(second));
            assert_eq!(engine.restore(at(second), rows), 0);
        }
        if second / 60 != looked {
            looked = second / 60;
            engine.tick(at(second), traffic.rules(second), |_| true);
        }
        run.calls += u64::from(event.calls);
        for alert in engine.told(at(second), told(flow, event.calls)) {
            let attack = flow.attack.filter(|_| second >= traffic.attack_at);
            match attack.and_then(|attack| run.delays.get_mut(&attack)) {
                Some(delay) => drop(delay.get_or_insert(second - traffic.attack_at)),
                None => run.normal.push((second, flow.clone(), alert)),
            }
        }
    }
    run.routes = engine.routes();
    run
}

fn told(flow: &Flow, calls: u32) -> Told<'_> {
    Told {
        host: &flow.host,
        from: &flow.from,
        to: &flow.to,
        what: match flow.fate {
            Fate::Carried => What::Carried(&flow.rule),
            Fate::Refused => What::Refused,
        },
        calls: u64::from(calls),
        waited: Duration::ZERO,
    }
}

impl Run {
    /// What has no explanation: not the use of an old rule by a new version, not a bot that is refused somewhere new, and not
    /// one that was started by the deploy, within a minute of it, and called so soon after it had called before, or at its hour so soon after that.
    fn unexplained(&self) -> Vec<String> {
        let is_explained = |second: i64, flow: &Flow, alert: &Alert| match alert.kind {
            WatchKind::FirstSeen => flow.deployed == Some(New::UseOfARule) || alert.refused,
            WatchKind::RateJump => {
                let two = alert.excess.is_some_and(|excess| excess.seen.calls == 2);
                two && (0..60 + 72).contains(&(second - self.deploy_at))
            }
            WatchKind::RefusalBurst | WatchKind::More => false,
        };
        let alerts = self
            .normal
            .iter()
            .filter(|(second, flow, alert)| !is_explained(*second, flow, alert));
        alerts.map(|(second, _, alert)| said(*second, alert)).collect()
    }

    fn show(&self, seed: u64) {
        println!("seed {seed}: {} calls, {} routes", self.calls, self.routes);
        for (second, _, alert) in &self.normal {
            println!("  {}", said(*second, alert));
        }
        for (attack, delay) in &self.delays {
            match delay {
                Some(delay) => println!("  {attack:?}: after {delay} s"),
                None => println!("  {attack:?}: not seen"),
            }
        }
    }
}

fn said(second: i64, alert: &Alert) -> String {
    let (day, hour) = (second / DAY, second % DAY / HOUR);
    format!(
        "day {day}, {hour:02}h, {}: {}",
        alert.kind.as_str(),
        alert.to_api(0).message
    )
}

#[test]
fn two_normal_weeks_raise_nothing_that_is_not_explained_and_attacks_are_seen() {
    for seed in seeds() {
        let run = run(&Traffic::new(&mut Random::new(seed)), &WatchSettings::default());
        run.show(seed);
        assert_eq!(run.unexplained(), [""; 0], "seed {seed}");
        let deployed = run.normal.iter().filter(|(_, flow, _)| flow.deployed.is_some());
        assert_eq!(
            deployed.count(),
            1,
            "the rule that was there, and not the one that came with the version"
        );
        for (attack, most) in [
            (Attack::HourlyTo100, 60),
            (Attack::RandomTo100, 20 * 60),
            (Attack::DailyTo100, 10 * 60),
            (Attack::BusyTimesTen, 60 * 60),
            (Attack::UnusedRule, 0),
            (Attack::SlowScan, 0),
            (Attack::RefusalBurst, 3 * 60),
        ] {
            let delay = run.delays[&attack];
            assert!(
                delay.is_some_and(|delay| delay <= most),
                "seed {seed}: {attack:?} {delay:?}"
            );
        }
        // What this cannot see.
        assert_eq!(run.delays[&Attack::TenAmong100], None);
    }
}

/// That of the suite; other ones with `BOTMESH_WEEKS=5`.
fn seeds() -> Vec<u64> {
    match fresh() {
        Some(count) => (0..count).map(|_| RandomState::new().hash_one(())).collect(),
        None => vec![1],
    }
}

#[expect(clippy::disallowed_methods, reason = "more weeks take longer than the suite may")]
fn fresh() -> Option<u64> {
    std::env::var("BOTMESH_WEEKS").ok()?.parse().ok()
}

/// How the defaults were chosen.
#[test]
fn other_settings_say_more_or_later() {
    let Some(count) = fresh() else {
        println!("skipped: made-up weeks with other settings: BOTMESH_WEEKS is not set");
        return;
    };
    println!("| factor | floor | unexplained | hourly to 100 | random to 100 | busy times ten | burst of refusals |");
    let traffics: Vec<Traffic> = seeds()
        .iter()
        .map(|seed| Traffic::new(&mut Random::new(*seed)))
        .collect();
    for (factor, floor) in [(2, 10), (3, 10), (4, 5), (4, 10), (4, 20), (6, 10)] {
        let settings = WatchSettings {
            factor,
            floor,
            ..WatchSettings::default()
        };
        let runs: Vec<Run> = traffics.iter().map(|traffic| run(traffic, &settings)).collect();
        let unexplained: usize = runs.iter().map(|run| run.unexplained().len()).sum();
        let slowest = |attack| {
            let delays = runs.iter().map(|run| run.delays[&attack].unwrap_or(i64::MAX));
            match delays.max() {
                Some(i64::MAX) | None => "not seen".to_owned(),
                Some(delay) => format!("{delay} s"),
            }
        };
        println!(
            "| {factor} | {floor} | {unexplained} in {count} | {} | {} | {} | {} |",
            slowest(Attack::HourlyTo100),
            slowest(Attack::RandomTo100),
            slowest(Attack::BusyTimesTen),
            slowest(Attack::RefusalBurst),
        );
    }
}
