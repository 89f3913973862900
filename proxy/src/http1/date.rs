//! The field `Date` (RFC 9110 §5.6.7), written once a second.

use std::cell::RefCell;

use http::HeaderValue;

thread_local! {
    static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// Gives the time, in whole seconds since 1970, as an IMF-fixdate.
#[must_use]
pub fn header(unix_seconds: u64) -> HeaderValue {
    LAST.with_borrow_mut(|last| match last {
        Some((second, value)) if *second == unix_seconds => value.clone(),
        _ => {
            let value = HeaderValue::from_str(&text(unix_seconds)).unwrap_or(HeaderValue::from_static(""));
            *last = Some((unix_seconds, value.clone()));
            value
        }
    })
}

/// Writes `Sun, 06 Nov 1994 08:49:37 GMT`.
fn text(unix_seconds: u64) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil(days);
    let weekday = WEEKDAYS
        .into_iter()
        .zip(0..)
        .find(|(_, day)| *day == days % 7)
        .map_or("", |(name, _)| name);
    let month = MONTHS
        .into_iter()
        .zip(1..)
        .find(|(_, number)| *number == month)
        .map_or("", |(name, _)| name);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Turns days since 1970 into year, month and day. Years are counted from March, so that the leap day is the last of
/// its year, in cycles of 400 years, which all have 146 097 days.
const fn civil(days: u64) -> (u64, u64, u64) {
    let since_0000_03_01 = days + 719_468;
    let cycle = since_0000_03_01 / 146_097;
    let day_of_cycle = since_0000_03_01 % 146_097;
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_cycle + cycle * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_rfc_9110_shows_them() {
        for (seconds, shown) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(header(seconds), shown);
        }
    }
}
