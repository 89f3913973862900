//! The bots of the mesh and what they do. Written without a look at how it is judged.

use std::f64::consts::TAU;

use spiffe::id::{BotName, HostName};

use super::random::Random;

pub(super) const HOUR: i64 = 3_600;
pub(super) const DAY: i64 = 24 * HOUR;

/// Days without an attack; the attacks are on the one after them.
pub(super) const DAYS: i64 = 14;

const END: i64 = (DAYS + 1) * DAY;

/// How finely busy traffic is made.
const STEP: i64 = 60;

/// What is tried on the last day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Attack {
    /// A bot that calls once an hour by the clock calls 100 times an hour.
    HourlyTo100,
    /// One that calls about once an hour, at random.
    RandomTo100,
    /// One that calls once a day.
    DailyTo100,
    /// A busy bot calls ten times as often.
    BusyTimesTen,
    /// A bot uses a rule that it never used.
    UnusedRule,
    /// A refused call to another destination every forty minutes.
    SlowScan,
    /// Fifty refused calls in five minutes to where the bot is refused now and then.
    RefusalBurst,
    /// A bot with some 100 calls an hour makes ten more.
    TenAmong100,
}

impl Attack {
    pub(super) const ALL: [Self; 8] = [
        Self::HourlyTo100,
        Self::RandomTo100,
        Self::DailyTo100,
        Self::BusyTimesTen,
        Self::UnusedRule,
        Self::SlowScan,
        Self::RefusalBurst,
        Self::TenAmong100,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Carried,
    Refused,
}

/// A caller, a callee, a rule.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) host: HostName,
    pub(super) from: BotName,
    pub(super) to: String,
    pub(super) rule: String,
    pub(super) fate: Fate,
    /// Made for it, or changed by it.
    pub(super) attack: Option<Attack>,
    /// First used by the new version.
    pub(super) deployed: Option<New>,
}

/// What is new of a flow of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum New {
    Rule,
    UseOfARule,
}

/// Calls of one flow at one second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) second: i64,
    pub(super) flow: usize,
    pub(super) calls: u32,
}

pub(super) struct Traffic {
    flows: Vec<Flow>,
    events: Vec<Event>,
    pub(super) deploy_at: i64,
    pub(super) attack_at: i64,
    /// When the CA is stopped and started over what it kept.
    pub(super) restart_at: i64,
}

impl Traffic {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut maker = Maker::new(random);
        for number in 0..6 {
            maker.busy(&format!("service-{number}"), 0.5);
        }
        for number in 0..12 {
            maker.by_hand(&format!("desk-{number}"));
        }
        for number in 0..12 {
            maker.hourly(&format!("hourly-{number}"));
        }
        for number in 0..8 {
            maker.polling(&format!("poller-{number}"));
        }
        for number in 0..8 {
            maker.batch(&format!("nightly-{number}"), 1);
        }
        for number in 0..3 {
            maker.batch(&format!("weekly-{number}"), 7);
        }
        for number in 0..4 {
            maker.stray(&format!("service-{number}"));
        }
        maker.deployed();
        maker.attacks();
        maker.done()
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    pub(super) fn flow(&self, event: &Event) -> &Flow {
        &self.flows[event.flow]
    }

    /// The rules of the live mesh: those of the new version come just before it does.
    pub(super) fn rules(&self, second: i64) -> impl Iterator<Item = &str> {
        let is_live = move |flow: &&Flow| flow.deployed != Some(New::Rule) || second >= self.deploy_at - 600;
        self.flows.iter().filter(is_live).map(|flow| flow.rule.as_str())
    }

    /// What the CA's clock shows: set an hour back for an hour, two hours ahead for three, and a year ahead for ten minutes.
    pub(super) fn wall(second: i64) -> i64 {
        let in_hours = |from: i64, to: i64| (from..to).contains(&(second - 10 * DAY));
        match () {
            () if in_hours(0, HOUR) => second - HOUR,
            () if in_hours(6 * HOUR, 9 * HOUR) => second + 2 * HOUR,
            () if in_hours(DAY, DAY + 600) => second + 365 * DAY,
            () => second,
        }
    }
}

struct Maker<'r> {
    random: &'r mut Random,
    flows: Vec<Flow>,
    events: Vec<Event>,
    weekday: i64,
    deploy_at: i64,
    attack_at: i64,
    /// From when on clocks on walls are an hour back: summer time ends.
    winter_at: i64,
    /// Half an hour in which one busy bot has three times as much to do.
    burst_at: i64,
}

impl<'r> Maker<'r> {
    fn new(random: &'r mut Random) -> Self {
        Self {
            weekday: random.whole(0, 7),
            deploy_at: 9 * DAY + random.whole(9 * HOUR, 17 * HOUR),
            attack_at: DAYS * DAY + random.whole(8 * HOUR, 12 * HOUR),
            winter_at: 11 * DAY + 3 * HOUR,
            burst_at: 12 * DAY + random.whole(9 * HOUR, 17 * HOUR),
            flows: Vec::new(),
            events: Vec::new(),
            random,
        }
    }

    fn flow(&mut self, from: &str, fate: Fate) -> usize {
        let number = self.flows.len();
        self.flows.push(Flow {
            host: HostName::parse(&format!("web-{}", number % 3)).unwrap(),
            from: BotName::parse(from).unwrap(),
            to: format!("callee-{number}"),
            rule: format!("rule-{number}"),
            fate,
            attack: None,
            deployed: None,
        });
        number
    }

    fn event(&mut self, flow: usize, second: i64, calls: u32) {
        if calls > 0 {
            self.events.push(Event { second, flow, calls });
        }
    }

    /// How much there is to do, by the time of day and the day of the week.
    fn rhythm(&self, second: i64, at_night: f64, at_weekends: f64) -> f64 {
        let turn = TAU * (second.rem_euclid(DAY) as f64 / DAY as f64 - 0.33);
        let day = at_night + (1.0 - at_night) * (0.5 + 0.5 * turn.sin());
        let weekday = (second / DAY + self.weekday) % 7;
        if weekday >= 5 { day * at_weekends } else { day }
    }

    /// What a new version changes: some more, some less.
    fn shift(&mut self) -> f64 {
        self.random.between(0.7, 1.6)
    }

    /// A service, day and night; two flows.
    fn busy(&mut self, from: &str, at_weekends: f64) -> usize {
        let mut last = 0;
        for _ in 0..2 {
            last = self.flow(from, Fate::Carried);
            let (a_minute, shift) = (self.random.between(1.0, 60.0), self.shift());
            let bursts = last == 0;
            for second in (0..END).step_by(usize::try_from(STEP).unwrap()) {
                let is_down = (0..30).contains(&(second - self.deploy_at));
                let mut mean = a_minute * STEP as f64 / 60.0 * self.rhythm(second, 0.3, at_weekends);
                if second >= self.deploy_at {
                    mean *= shift;
                }
                if bursts && (0..1_800).contains(&(second - self.burst_at)) {
                    mean *= 3.0;
                }
                let calls = self.random.poisson(if is_down { 0.0 } else { mean });
                self.event(last, second, calls);
            }
        }
        last
    }

    /// People at work: some calls an hour, few at night.
    fn by_hand(&mut self, from: &str) {
        let flow = self.flow(from, Fate::Carried);
        let an_hour = self.random.between(0.5, 12.0);
        for minute in 0..END / 60 {
            let mean = an_hour / 60.0 * self.rhythm(minute * 60, 0.02, 0.2);
            // Who has called once often calls again.
            let calls = self.random.poisson(mean) * u32::try_from(self.random.whole(1, 5)).unwrap();
            let second = minute * 60 + self.random.whole(0, 60);
            self.event(flow, second, calls);
        }
    }

    /// By the clock, at a minute of each hour, sometimes with another try; half of them when they start as well.
    fn hourly(&mut self, from: &str) -> usize {
        let flow = self.flow(from, Fate::Carried);
        let (minute, calls) = (
            self.random.whole(0, 60),
            u32::try_from(self.random.whole(1, 4)).unwrap(),
        );
        for hour in 0..END / HOUR {
            let second = hour * HOUR + minute * 60 + self.random.whole(0, 5);
            self.event(flow, second, calls);
            if self.random.unit() < 0.02 {
                let again = second + self.random.whole(1, 8);
                self.event(flow, again, calls);
            }
        }
        if self.random.unit() < 0.5 {
            let start = self.deploy_at + self.random.whole(5, 60);
            self.event(flow, start, calls);
        }
        flow
    }

    /// Every so often since it started.
    fn polling(&mut self, from: &str) {
        let flow = self.flow(from, Fate::Carried);
        let every = self.random.between(60.0, 1_800.0);
        let mut second = self.random.between(0.0, every);
        let mut is_new = false;
        while second < END as f64 {
            self.event(flow, second as i64, 1);
            second += every * self.random.between(0.95, 1.05);
            if !is_new && second as i64 >= self.deploy_at {
                is_new = true;
                second = self.deploy_at as f64 + self.random.between(5.0, 60.0);
            }
        }
    }

    /// At an hour of the clock on the wall, every day or every week: more or fewer calls, faster or slower.
    fn batch(&mut self, from: &str, every: i64) {
        let flow = self.flow(from, Fate::Carried);
        let (hour, day) = (self.random.whole(0, 24), self.random.whole(0, every));
        let (calls, minutes) = (self.random.between(50.0, 5_000.0), self.random.between(1.0, 30.0));
        for number in (0..END / DAY).filter(|number| number % every == day) {
            let mut second = number * DAY + hour * HOUR + self.random.whole(0, 300);
            if second >= self.winter_at {
                second += HOUR;
            }
            let steps = (minutes * self.random.between(0.7, 1.5) * 60.0 / STEP as f64).ceil();
            let mean = calls * self.random.between(0.7, 1.3) / steps;
            for step in 0..steps as i64 {
                let calls = self.random.poisson(mean);
                self.event(flow, second + step * STEP, calls);
            }
        }
    }

    /// A bot that is refused now and then.
    fn stray(&mut self, from: &str) -> usize {
        let flow = self.flow(from, Fate::Refused);
        let a_day = self.random.between(1.0, 6.0);
        for minute in 0..END / 60 {
            let calls = self.random.poisson(a_day / 1_440.0);
            self.event(flow, minute * 60, calls);
        }
        flow
    }

    /// What the new version calls that the old one did not: by a rule that came with it, and by one that was there.
    fn deployed(&mut self) {
        for new in [New::Rule, New::UseOfARule] {
            let flow = self.flow("service-1", Fate::Carried);
            self.flows[flow].deployed = Some(new);
            for minute in self.deploy_at / 60 + 1..END / 60 {
                let calls = self.random.poisson(2.0);
                self.event(flow, minute * 60, calls);
            }
        }
    }

    fn attacks(&mut self) {
        let flow = self.hourly("victim-hourly");
        self.attack(Attack::HourlyTo100, flow, 0, 36, 200, 1);
        let flow = self.flow("victim-random", Fate::Carried);
        for minute in 0..END / 60 {
            let calls = self.random.poisson(1.0 / 60.0);
            self.event(flow, minute * 60, calls);
        }
        self.attack(Attack::RandomTo100, flow, 0, 36, 200, 1);
        let flow = self.flow("victim-daily", Fate::Carried);
        for day in 0..DAYS {
            self.event(flow, day * DAY + 6 * HOUR, 1);
        }
        self.attack(Attack::DailyTo100, flow, 0, 36, 200, 1);
        let flow = self.busy("victim-busy", 1.0);
        let mut busy: Vec<u32> = self.events.iter().filter(|e| e.flow == flow).map(|e| e.calls).collect();
        busy.sort_unstable();
        let usual = busy[busy.len() / 2];
        self.attack(Attack::BusyTimesTen, flow, 0, STEP, 360, usual * 9);
        let flow = self.flow("victim-busy", Fate::Carried);
        self.attack(Attack::UnusedRule, flow, 0, 1, 1, 1);
        for number in 0..12 {
            let flow = self.flow("service-2", Fate::Refused);
            self.attack(Attack::SlowScan, flow, number * 2_400, 1, 1, 1);
        }
        let flow = self.stray("service-3");
        self.attack(Attack::RefusalBurst, flow, 0, 6, 50, 1);
        let flow = self.flow("victim-hundred", Fate::Carried);
        for minute in 0..END / 60 {
            let calls = self.random.poisson(100.0 / 60.0);
            self.event(flow, minute * 60, calls);
        }
        self.attack(Attack::TenAmong100, flow, 0, 360, 50, 1);
    }

    fn attack(&mut self, attack: Attack, flow: usize, after: i64, every: i64, times: i64, calls: u32) {
        self.flows[flow].attack = Some(attack);
        for number in 0..times {
            self.event(flow, self.attack_at + after + number * every, calls);
        }
    }

    fn done(mut self) -> Traffic {
        self.events.retain(|event| event.second < END);
        self.events.sort_by_key(|event| event.second);
        Traffic {
            flows: self.flows,
            events: self.events,
            deploy_at: self.deploy_at,
            attack_at: self.attack_at,
            restart_at: 13 * DAY + 12 * HOUR,
        }
    }
}
