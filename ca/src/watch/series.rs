//! One kind of calls: what it was like on the days before, and whether it is unlike that now.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::moment::{Moment, millis};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// What is counted, in minutes: bursts, and what goes on.
pub(super) const WINDOWS: [u32; 3] = [1, 10, 60];

/// Days that are remembered: a week, so that what happens every week is known, and one more.
const DAYS_MAX: usize = 8;

/// Days after which a route has lived through a week, with today.
const WEEK: i64 = 6;

/// How many times more its calls may be: the most of few days is little more than what is usual, and no weekday but those was seen.
const YOUNG: u32 = 2;

/// Calls so close together are one visit: what is tried again at once is not a change of habit.
const VISIT: i64 = 10_000;

/// So many visits say that the pauses between them are a habit.
const VISITS_MIN: u32 = 24;

/// A pause is unlike those before when it is so many times shorter than the shortest.
pub(super) const PAUSE_FRACTION: i64 = 50;

/// Visits are regular where none came so many times sooner than they do on the whole. Of others, as a person's, the shortest pause says little.
const REGULAR: i64 = 2;

/// Days with a pause that are many.
const PAUSE_DAYS: usize = 4;

/// When a series is unlike itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// More than so many times the most of the days before, and [`YOUNG`] times that in the first week.
    pub(super) factor: u32,
    /// And no fewer calls than these.
    pub(super) floor: u32,
    /// Or so many times sooner than ever; nothing where pauses are no habit.
    pub(super) fraction: Option<i64>,
}

/// So many calls in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) calls: u32,
    pub(super) seconds: u32,
}

/// What there was, and what there had been at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) seen: Rate,
    pub(super) expected: Rate,
}

/// The most calls of a day in any minute, ten minutes and hour, and the shortest pause between two visits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Day {
    most: [u32; 3],
    #[serde(default)]
    pause: Option<i64>,
}

impl Day {
    fn and(self, other: Self) -> Self {
        let mut most = self.most;
        for (most, other) in most.iter_mut().zip(other.most) {
            *most = other.max(*most);
        }
        let pause = [self.pause, other.pause].into_iter().flatten().min();
        Self { most, pause }
    }
}

/// See the module. Days begin with the first call: none of them is cut short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Series {
    first: Moment,
    last: Moment,
    visits: u32,
    day: i64,
    today: Day,
    /// Those before, oldest first.
    days: VecDeque<Day>,
    /// The counts that were alerted of today.
    told: Option<[u32; 3]>,
    /// Counts by minute, oldest first, of an hour.
    #[serde(skip)]
    minutes: VecDeque<(i64, u32)>,
}

impl Series {
    pub(super) fn new(first: Moment) -> Self {
        Self {
            first,
            last: first,
            visits: 0,
            day: 0,
            today: Day::default(),
            days: VecDeque::new(),
            told: None,
            minutes: VecDeque::new(),
        }
    }

    /// When there was a call last.
    pub(super) fn last(&self) -> Moment {
        self.last
    }

    /// How long it has been known.
    pub(super) fn age(&self, at: Moment) -> i64 {
        at - self.first
    }

    /// Counts calls. Says what of them is unlike the days before, once: then only when it is so many times as much again.
    pub(super) fn count(&mut self, at: Moment, calls: u64, limits: Limits) -> Option<Excess> {
        self.begin_day(at);
        let sums = self.sums(at, u32::try_from(calls).unwrap_or(u32::MAX));
        let pause = self.visit(at);
        let before = self.before();
        let excess = self
            .too_many(sums, before, limits)
            .or_else(|| self.too_soon(pause, before, limits));
        if excess.is_some() {
            self.told = Some(self.told.map_or(sums, |told| most(told, sums)));
        }
        self.today = self.today.and(Day { most: sums, pause });
        excess
    }

    /// What was usual on the days before. Of many days, the one with the shortest pause is left out: a job that was started by
    /// hand once must not make the CA blind for a week. Of few, as a job of every week has, it is not.
    fn before(&self) -> Day {
        let days = self.days.iter().copied();
        let mut pauses: Vec<i64> = days.clone().filter_map(|day| day.pause).collect();
        pauses.sort_unstable();
        Day {
            pause: pauses.get(usize::from(pauses.len() >= PAUSE_DAYS)).copied(),
            ..days.fold(Day::default(), Day::and)
        }
    }

    /// Days without calls are forgotten like any other.
    fn begin_day(&mut self, at: Moment) {
        let day = (at - self.first).div_euclid(DAY);
        if day <= self.day {
            return;
        }
        let over = usize::try_from(day - self.day).unwrap_or(usize::MAX).min(DAYS_MAX + 1);
        let ended = std::mem::take(&mut self.today);
        self.days.push_back(ended);
        self.days.extend(std::iter::repeat_n(Day::default(), over - 1));
        while self.days.len() > DAYS_MAX {
            self.days.pop_front();
        }
        self.day = day;
        self.told = None;
    }

    /// The counts of the windows that end now. What is told late counts where it belongs.
    fn sums(&mut self, at: Moment, calls: u32) -> [u32; 3] {
        let minute = at.millis().div_euclid(MINUTE);
        let place = self.minutes.partition_point(|(known, _)| *known < minute);
        match self.minutes.get_mut(place) {
            Some((known, count)) if *known == minute => *count = count.saturating_add(calls),
            Some(_) | None => self.minutes.insert(place, (minute, calls)),
        }
        let newest = self.minutes.back().map_or(minute, |(newest, _)| *newest);
        let oldest = newest - i64::from(WINDOWS.iter().copied().max().unwrap_or_default());
        while self.minutes.front().is_some_and(|(known, _)| *known <= oldest) {
            self.minutes.pop_front();
        }
        WINDOWS.map(|window| {
            let of_window = |(known, _): &&(i64, u32)| *known <= minute && *known > minute - i64::from(window);
            let counts = self.minutes.iter().filter(of_window).map(|(_, count)| *count);
            counts.fold(0, u32::saturating_add)
        })
    }

    /// The pause before a visit, if this is a new one.
    fn visit(&mut self, at: Moment) -> Option<i64> {
        let pause = at - self.last;
        let is_first = self.visits == 0;
        self.last = self.last.max(at);
        if !is_first && pause <= VISIT {
            return None;
        }
        self.visits = self.visits.saturating_add(1);
        (!is_first).then_some(pause)
    }

    fn too_many(&self, sums: [u32; 3], before: Day, limits: Limits) -> Option<Excess> {
        let told = self.told.unwrap_or_default();
        let young = if self.day < WEEK { YOUNG } else { 1 };
        let factor = limits.factor.saturating_mul(young);
        let each = WINDOWS.into_iter().zip(sums).zip(before.most).zip(told);
        let mut over = each
            .filter(|(((_, sum), most), told)| *sum >= limits.floor && *sum > factor.saturating_mul(*most.max(told)));
        let (((window, sum), most), _) = over.next()?;
        let rate = |calls| Rate {
            calls,
            seconds: window * 60,
        };
        Some(Excess {
            seen: rate(sum),
            expected: rate(most),
        })
    }

    fn too_soon(&self, pause: Option<i64>, before: Day, limits: Limits) -> Option<Excess> {
        let (pause, shortest, fraction) = (pause?, before.pause?, limits.fraction?);
        let on_the_whole = (self.last - self.first) / i64::from(self.visits.saturating_sub(1).max(1));
        let is_regular = shortest.saturating_mul(REGULAR) >= on_the_whole;
        let is_habit = self.day >= WEEK && self.visits > VISITS_MIN && self.told.is_none();
        if !is_habit || !is_regular || pause > shortest / fraction {
            return None;
        }
        let rate = |pause: i64| Rate {
            calls: 2,
            seconds: u32::try_from(pause / 1000).unwrap_or(u32::MAX),
        };
        Some(Excess {
            seen: rate(pause),
            expected: rate(shortest),
        })
    }
}

fn most(one: [u32; 3], other: [u32; 3]) -> [u32; 3] {
    let mut most = one;
    for (most, other) in most.iter_mut().zip(other) {
        *most = other.max(*most);
    }
    most
}

/// Whether something has been known for long enough to be judged.
pub(super) fn is_learned(age: i64, learning: Duration) -> bool {
    age >= millis(learning)
}
