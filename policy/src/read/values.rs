//! Single values that several sections share.

use std::sync::Arc;
use std::time::Duration;

use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

use super::{Reader, shared};
use crate::code::{self, Code};
use crate::diagnostics::Draft;
use crate::outside::OutsidePattern;
use crate::pattern::NamePattern;
use crate::rule::Subject;
use crate::yaml::Node;

/// The longest owner, reason or name of a test, in characters.
const TEXT_CHARS_MAX: usize = 256;

impl Reader {
    /// Reads one bot, pattern or group, or a destination outside. A SPIFFE ID is refused as not enforced.
    pub(super) fn subject(&mut self, node: &Node) -> Option<Subject> {
        let text = self.text(node)?;
        if let Some(group) = text.strip_prefix("group:") {
            if let Err(error) = HostName::parse(group) {
                self.error(code::GROUP, node.span, error.to_string(), "not the name of a group");
                return None;
            }
            return Some(Subject::Group(group.into()));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            if scheme == "spiffe" {
                self.later(node.span, "a SPIFFE ID in a rule");
                return None;
            }
            return self.outside(node, text).map(Subject::Outside);
        }
        match NamePattern::parse(text) {
            Ok(pattern) => Some(Subject::Bots(pattern)),
            Err(error) => {
                self.error(code::NAME_PATTERN, node.span, error.to_string(), "not a bot or pattern");
                None
            }
        }
    }

    pub(super) fn outside(&mut self, node: &Node, text: &str) -> Option<OutsidePattern> {
        match OutsidePattern::parse(text) {
            Ok(outside) => Some(outside),
            Err(error) => {
                self.error(code::OUTSIDE, node.span, error.to_string(), "not a destination");
                None
            }
        }
    }

    pub(super) fn bot_name(&mut self, node: &Node) -> Option<BotName> {
        let text = self.text(node)?;
        match BotName::parse(text) {
            Ok(name) => Some(name),
            Err(error) => {
                self.error(code::BOT_NAME, node.span, error.to_string(), "not a bot name");
                None
            }
        }
    }

    pub(super) fn timestamp(&mut self, node: &Node) -> Option<Timestamp> {
        let text = self.text(node)?;
        match Timestamp::from_rfc3339(text) {
            Ok(time) => Some(time),
            Err(error) => {
                self.error(code::TIME, node.span, error.to_string(), "not a time");
                None
            }
        }
    }

    /// Reads a text that people see: owner, reason, name of a test.
    pub(super) fn shown_text(&mut self, node: &Node, code: Code) -> Option<Arc<str>> {
        let text = self.text(node)?;
        match check_shown(text) {
            Ok(()) => Some(shared(text)),
            Err((found, problem)) => {
                let code = if found == Problem::Empty { code } else { code::TEXT };
                self.error(code, node.span, problem, "here");
                None
            }
        }
    }

    pub(super) fn svid_ttl(&mut self, node: &Node) -> Option<Duration> {
        let text = self.text(node)?;
        let found = duration(text).filter(|ttl| (SVID_TTL_MIN..=SVID_TTL_MAX).contains(ttl));
        if found.is_none() {
            let draft = Draft::new(
                code::SVID_TTL,
                node.span,
                "the life of an SVID is from 1m to 24h",
                "not in bounds",
            );
            self.push(draft.help("a whole number and s, m or h: 15m"));
        }
        found
    }
}

const SVID_TTL_MIN: Duration = Duration::from_secs(60);
const SVID_TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a whole number and a unit: `200ms`, `90s`, `15m`, `24h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    // `ms` comes first, for it ends like `s`.
    let (number, millis) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]
        .into_iter()
        .find_map(|(unit, millis)| text.strip_suffix(unit).map(|number| (number, millis)))?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    Empty,
    Other,
}

/// Refuses texts that a terminal would not show as they are.
fn check_shown(text: &str) -> Result<(), (Problem, String)> {
    if text.trim().is_empty() {
        return Err((Problem::Empty, "the text is empty".to_owned()));
    }
    if text.chars().count() > TEXT_CHARS_MAX {
        return Err((
            Problem::Other,
            format!("the text has more than {TEXT_CHARS_MAX} characters"),
        ));
    }
    match text.chars().find(|found| found.is_control() || is_format(*found)) {
        Some(found) => Err((
            Problem::Other,
            format!("the text holds the character U+{:04X}", u32::from(found)),
        )),
        None => Ok(()),
    }
}

/// Characters that change how others are shown: separators of lines, directions, and the byte-order mark.
fn is_format(found: char) -> bool {
    matches!(found, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        for (text, millis) in [
            ("0s", 0),
            ("200ms", 200),
            ("90s", 90_000),
            ("15m", 900_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "s",
            "ms",
            "1.5ms",
            "15",
            "15d",
            "1.5h",
            "-1m",
            "+1m",
            "1h30m",
            " 1m",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn shown_texts_hold_nothing_that_hides() {
        assert_eq!(check_shown("INC-4711: caf\u{e9} \u{1f980}"), Ok(()));
        assert_eq!(check_shown(&"\u{e9}".repeat(256)), Ok(()));
        for text in ["", " ", "\t"] {
            assert_eq!(check_shown(text).unwrap_err().0, Problem::Empty);
        }
        let hidden = [
            "a\nb",
            "a\u{1b}[31m",
            "a\u{7f}",
            "a\u{9b}",
            "a\u{200e}",
            "\u{200f}b",
            "a\u{2028}b",
            "\u{202e}b",
            "\u{2066}b",
            "\u{2069}",
            "\u{feff}a",
        ];
        for text in hidden.into_iter().map(str::to_owned).chain(["a".repeat(257)]) {
            assert_eq!(check_shown(&text).unwrap_err().0, Problem::Other, "{text:?}");
        }
        assert!(check_shown("a\u{202e}").unwrap_err().1.contains("U+202E"));
    }
}
