//! A writer of flat JSON objects: the path of a call has no time for
//! `serde_json::Value`.

use std::fmt::Display;
use std::io::Write as _;

use serde::Serialize;
use spiffe::time::Timestamp;

/// Appends keys and values to a buffer. Keys are our own words and need no
/// escapes.
#[derive(Debug)]
pub(super) struct Json<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Json<'a> {
    /// Opens an object at the end of `out`.
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out }
    }

    /// Closes the object.
    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    /// Writes a string.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.string(value);
    }

    /// Writes a string if there is one.
    pub(super) fn text_if(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// Writes what `value` displays, which must need no escapes.
    pub(super) fn plain(&mut self, key: &str, value: impl Display) {
        self.key(key);
        self.out.push(b'"');
        self.display(value);
        self.out.push(b'"');
    }

    /// Writes a time in RFC 3339, as [`Timestamp`] displays itself.
    pub(super) fn time(&mut self, key: &str, value: Timestamp) {
        self.ascii(key, &rfc3339(value));
    }

    /// Writes bytes that are ASCII and need no escapes, as a string.
    pub(super) fn ascii(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(value);
        self.out.push(b'"');
    }

    /// Writes a number or a boolean.
    pub(super) fn bare(&mut self, key: &str, value: impl Display) {
        self.key(key);
        self.display(value);
    }

    /// Writes an array of numbers.
    pub(super) fn numbers(&mut self, key: &str, values: &[u32]) {
        self.key(key);
        self.out.push(b'[');
        for (place, value) in values.iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            self.display(value);
        }
        self.out.push(b']');
    }

    /// Writes an array of strings.
    pub(super) fn texts(&mut self, key: &str, values: &[String]) {
        self.key(key);
        self.out.push(b'[');
        for (place, value) in values.iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            self.string(value);
        }
        self.out.push(b']');
    }

    /// Writes whatever serde makes of `value`.
    pub(super) fn serde(&mut self, key: &str, value: &impl Serialize) -> serde_json::Result<()> {
        self.key(key);
        serde_json::to_writer(&mut *self.out, value)
    }

    /// Opens an object as the value of `key`.
    pub(super) fn object(&mut self, key: &str) -> Json<'_> {
        self.key(key);
        Json::open(self.out)
    }

    fn key(&mut self, key: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn display(&mut self, value: impl Display) {
        // Writing to a Vec cannot fail.
        write!(self.out, "{value}").unwrap_or_default();
    }

    fn string(&mut self, value: &str) {
        self.out.push(b'"');
        if value
            .bytes()
            .all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\')
        {
            self.out.extend_from_slice(value.as_bytes());
        } else {
            value.chars().for_each(|c| self.escaped(c));
        }
        self.out.push(b'"');
    }

    /// Escapes more than JSON asks for: a record is read on terminals, so no
    /// control character of either set and no line separator gets there.
    fn escaped(&mut self, c: char) {
        match c {
            '"' => self.out.extend_from_slice(b"\\\""),
            '\\' => self.out.extend_from_slice(b"\\\\"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                write!(self.out, "\\u{:04x}", u32::from(c)).unwrap_or_default();
            }
            c => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Milliseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// Writes a time without the general formatter, which costs more than all the
/// rest of a record. The date is computed in eras of 400 years that begin in
/// March, so that the leap day is the last of its year.
fn rfc3339(time: Timestamp) -> [u8; 24] {
    let (days, millis) = (time.unix_millis().div_euclid(DAY), time.unix_millis().rem_euclid(DAY));
    let since_march_0 = days + 719_468;
    let (era, day_of_era) = (since_march_0.div_euclid(146_097), since_march_0.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
    let digit = |number: i64, unit: i64| b'0'.saturating_add(u8::try_from(number / unit % 10).unwrap_or(0));
    [
        digit(year, 1000),
        digit(year, 100),
        digit(year, 10),
        digit(year, 1),
        b'-',
        digit(month, 10),
        digit(month, 1),
        b'-',
        digit(day, 10),
        digit(day, 1),
        b'T',
        digit(hour, 10),
        digit(hour, 1),
        b':',
        digit(minute, 10),
        digit(minute, 1),
        b':',
        digit(second, 10),
        digit(second, 1),
        b'.',
        digit(millis, 100),
        digit(millis, 10),
        digit(millis, 1),
        b'Z',
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: &str) -> String {
        let mut out = Vec::new();
        let mut json = Json::open(&mut out);
        json.text("k", value);
        json.close();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_object_has_its_keys_in_the_order_of_the_calls() {
        let mut out = Vec::new();
        let mut json = Json::open(&mut out);
        json.bare("z", 1);
        json.text_if("no", None);
        json.text_if("b", Some("x"));
        json.texts("list", &["a".into(), "b".into()]);
        let mut inner = json.object("o");
        inner.plain("p", 7);
        inner.ascii("q", b"r");
        inner.close();
        json.object("e").close();
        json.serde("s", &[1, 2]).unwrap();
        json.close();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"z":1,"b":"x","list":["a","b"],"o":{"p":"7","q":"r"},"e":{},"s":[1,2]}"#
        );
    }

    #[test]
    fn no_control_character_is_written_as_itself() {
        assert_eq!(
            written("a\u{1b}[2J\u{9b}\n\u{7f}"),
            r#"{"k":"a\u001b[2J\u009b\u000a\u007f"}"#
        );
        assert_eq!(written("\u{2028}\u{2029}é"), "{\"k\":\"\\u2028\\u2029é\"}");
        assert_eq!(written(r#"a"b\c"#), r#"{"k":"a\"b\\c"}"#);
    }

    #[test]
    fn times_at_the_turns_of_the_calendar_are_right() {
        for text in [
            "0000-01-01T00:00:00.000Z",
            "1970-01-01T00:00:00.000Z",
            "1999-12-31T23:59:59.999Z",
            "2000-02-29T12:34:56.789Z",
            "2000-03-01T00:00:00.000Z",
            "2100-02-28T23:59:59.999Z",
            "2100-03-01T00:00:00.000Z",
            "2400-02-29T00:00:00.000Z",
            "9999-12-31T23:59:59.999Z",
        ] {
            let time = Timestamp::from_rfc3339(text).unwrap();
            assert_eq!(rfc3339(time), text.as_bytes(), "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_is_written_as_a_timestamp_displays_itself() {
        for day in 0..146_100 {
            let time = Timestamp::from_unix_millis((day - 40_000) * DAY + day * 591);
            assert_eq!(rfc3339(time), time.to_string().as_bytes());
        }
    }

    proptest! {
        #[test]
        fn every_time_is_written_as_a_timestamp_displays_itself(millis: i64) {
            let time = Timestamp::from_unix_millis(millis % 300_000_000_000_000);
            prop_assert_eq!(rfc3339(time).to_vec(), time.to_string().into_bytes());
        }

        #[test]
        fn every_text_reads_back(value: String) {
            let written = written(&value);
            let read: serde_json::Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(&read["k"], &value);
            prop_assert!(!written.chars().any(char::is_control));
        }
    }
}
