//! One kind of calls.

use crate::watch::moment::Moment;
use crate::watch::series::{Excess, Limits, Rate, Series};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

const LIMITS: Limits = Limits {
    factor: 4,
    floor: 10,
    fraction: Some(50),
};

fn at(second: i64) -> Moment {
    Moment::from_millis(second * 1_000)
}

/// A series that was called so often at once, every so often, for so many days.
fn learned(days: i64, every: i64, calls: u64) -> Series {
    let mut series = Series::new(at(0));
    for second in (0..days * DAY).step_by(usize::try_from(every).unwrap()) {
        series.count(at(second), calls, LIMITS);
    }
    series
}

/// The calls after which something is said, of calls one by one.
fn raised(series: &mut Series, from: i64, every: i64, calls: i64) -> Vec<(i64, Excess)> {
    let call = |number| Some((number, series.count(at(from + (number - 1) * every), 1, LIMITS)?));
    (1..=calls).filter_map(call).collect()
}

fn excess(seen: (u32, u32), expected: (u32, u32)) -> Excess {
    let rate = |(calls, seconds)| Rate { calls, seconds };
    Excess {
        seen: rate(seen),
        expected: rate(expected),
    }
}

#[test]
fn one_an_hour_for_a_week_and_then_a_hundred_is_said_at_the_second_call() {
    let mut series = learned(7, HOUR, 1);
    let found = raised(&mut series, 7 * DAY, 36, 100);
    assert_eq!(found[0], (2, excess((2, 36), (2, 3_600))));
    // And again when it is four times as much, and has a window for it.
    assert_eq!(found[1], (10, excess((10, 600), (1, 600))));
    assert_eq!(found.iter().map(|(call, _)| *call).collect::<Vec<_>>(), [2, 10, 41]);
}

#[test]
fn more_than_so_many_times_the_most_of_the_days_before_is_too_many() {
    // 20 at once, each hour: the most of a minute, of ten and of sixty.
    for (calls, raises) in [(80, false), (81, true)] {
        let mut series = learned(6, HOUR, 20);
        let found = series.count(at(6 * DAY), calls, LIMITS);
        assert_eq!(found.is_some(), raises, "{calls}");
    }
    // A week, with its last day, says what a week is like; before, it is twice that.
    for (calls, raises) in [(160, false), (161, true)] {
        let mut series = learned(5, HOUR, 20);
        let found = series.count(at(6 * DAY - 1), calls, LIMITS);
        assert_eq!(found.is_some(), raises, "{calls} in the first week");
    }
    // Fewer calls than the floor are none, however few there had been.
    for (calls, raises) in [(9, false), (10, true)] {
        let mut series = learned(3, 12 * HOUR, 1);
        let found = series.count(at(3 * DAY + HOUR), calls, LIMITS);
        assert_eq!(found.is_some(), raises, "{calls}");
    }
}

#[test]
fn today_is_no_judge_of_itself_but_from_tomorrow_on_it_is() {
    let mut series = learned(7, HOUR, 20);
    assert!(series.count(at(7 * DAY + 1), 100, LIMITS).is_some());
    assert!(
        series.count(at(7 * DAY + 2 * HOUR), 300, LIMITS).is_none(),
        "it was said"
    );
    assert!(series.count(at(7 * DAY + 4 * HOUR), 500, LIMITS).is_some(), "much more");
    assert!(series.count(at(8 * DAY), 1_000, LIMITS).is_none(), "it is usual now");
    assert!(
        series.count(at(17 * DAY), 81, LIMITS).is_some(),
        "and forgotten after eight days"
    );
}

#[test]
fn a_job_of_every_week_is_usual() {
    let mut series = Series::new(at(0));
    assert!(series.count(at(HOUR), 5_000, LIMITS).is_some());
    for week in 1..4 {
        let found = series.count(at(week * 7 * DAY + HOUR), 6_000, LIMITS);
        assert_eq!(found, None, "{week}");
    }
}

#[test]
fn another_try_is_no_visit_and_one_odd_day_does_not_blind() {
    let mut series = learned(7, HOUR, 1);
    let found = raised(&mut series, 7 * DAY - HOUR, 2, 5);
    assert_eq!(found, [], "tries again, two seconds apart");
    // A job is started by hand, half a minute after its time; it is said, and remembered.
    let by_hand = |series: &mut Series, day: i64| {
        for hour in 1..24 {
            series.count(at(day * DAY + hour * HOUR), 1, LIMITS);
        }
        series.count(at(day * DAY + 23 * HOUR + 30), 1, LIMITS).is_some()
    };
    assert!(by_hand(&mut series, 7));
    assert!(by_hand(&mut series, 8), "one day does not count");
    assert!(!by_hand(&mut series, 9), "it is a habit");
}

#[test]
fn pauses_are_a_habit_after_so_many_visits_and_only_where_they_are_long() {
    for (visits, raises) in [(23, false), (24, true)] {
        let mut series = Series::new(at(0));
        for number in 0..visits {
            series.count(at(number * 8 * HOUR), 1, LIMITS);
        }
        let next = series.count(at((visits - 1) * 8 * HOUR + 30), 1, LIMITS);
        assert_eq!(next.is_some(), raises, "{visits}");
    }
    // And after a week.
    for (hours, raises) in [(6 * 24 - 1, false), (6 * 24, true)] {
        let mut series = Series::new(at(0));
        for hour in 0..=hours {
            series.count(at(hour * HOUR), 1, LIMITS);
        }
        let next = series.count(at(hours * HOUR + 30), 1, LIMITS);
        assert_eq!(next.is_some(), raises, "{hours}");
    }
    // Ten seconds are a fiftieth of 500: what is closer is not told apart.
    let mut series = learned(7, 499, 1);
    assert_eq!(raised(&mut series, 7 * DAY, 10, 2), []);
    let mut series = learned(7, 600, 1);
    assert_eq!(raised(&mut series, 7 * DAY, 12, 2).len(), 1);
    assert_eq!(raised(&mut learned(7, 600, 1), 7 * DAY, 13, 2), []);
}

#[test]
fn pauses_of_visits_at_random_are_not_judged() {
    // Every two hours, and once a day after fifty-nine minutes, or after sixty-one.
    for (sooner, raises) in [(59, false), (61, true)] {
        let mut series = Series::new(at(0));
        for hour in (0..8 * 24).step_by(2) {
            let early = if hour % 24 == 2 { (120 - sooner) * MINUTE } else { 0 };
            series.count(at(hour * HOUR - early), 1, LIMITS);
        }
        let found = series.count(at(7 * DAY + 22 * HOUR + 30), 1, LIMITS);
        assert_eq!(found.is_some(), raises, "{sooner}");
    }
}

#[test]
fn a_batch_of_every_week_that_goes_over_the_end_of_a_day_is_usual() {
    let mut series = Series::new(at(0));
    let mut batch = |start: i64| -> Vec<_> {
        let steps = (0..30).map(|step| series.count(at(start + step * MINUTE), 1, LIMITS));
        steps.collect()
    };
    batch(0);
    // Its first step is in one day, and the others in the next.
    for week in 1..3 {
        assert_eq!(batch(week * 7 * DAY - 30), [None; 30], "{week}");
    }
}

#[test]
fn what_is_told_late_counts_where_it_belongs() {
    let mut series = learned(3, HOUR, 1);
    // Nine calls in each of seven minutes, told at once and in any order after the CA was away.
    series.count(at(3 * DAY + 20 * MINUTE), 1, LIMITS);
    let minutes = [5, 1, 3];
    let found: Vec<_> = minutes
        .iter()
        .map(|minute| series.count(at(3 * DAY + minute * MINUTE), 9, LIMITS))
        .collect();
    assert_eq!(found, [None, None, Some(excess((18, 600), (1, 600)))]);
}

#[test]
fn what_is_kept_is_what_was_learned() {
    let mut series = learned(7, HOUR, 1);
    let text = serde_json::to_string(&series).unwrap();
    let mut kept: Series = serde_json::from_str(&text).unwrap();
    let (found, again) = (raised(&mut series, 7 * DAY, 36, 30), raised(&mut kept, 7 * DAY, 36, 30));
    assert_eq!(found, again);
    assert!(!found.is_empty() && text.len() < 1_000, "{text}");
}
