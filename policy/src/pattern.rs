//! Patterns over segments: for bot names and for paths.
//!
//! `*` is one whole non-empty segment, `ab-*` is a longer segment that starts with `ab-`, and `**`, only as the last
//! segment, is zero or more segments. There are no regular expressions and there is no negation.

mod name;
mod path;

pub(crate) use name::NamePattern;
pub(crate) use path::{PathPattern, PathPatternError};

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Segment {
    /// Exactly this text.
    Literal(Box<str>),
    /// This text and at least one character more.
    Starts(Box<str>),
    /// Any text but none.
    Any,
}

/// Segments, and whether `**` follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Segments {
    pub(crate) head: Box<[Segment]>,
    pub(crate) below: bool,
}

/// A `*` where none can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misplaced {
    /// `**` before the last segment.
    BelowNotLast,
    /// A `*` that is neither alone nor last in its segment.
    StarInside,
}

impl Segments {
    /// Reads segments that `/` separates.
    pub(crate) fn parse(text: &str) -> Result<Self, Misplaced> {
        let (text, below) = match text.strip_suffix("**") {
            Some("") => (None, true),
            Some(head) => match head.strip_suffix('/') {
                Some(head) => (Some(head), true),
                None => return Err(Misplaced::StarInside),
            },
            None => (Some(text), false),
        };
        let head = text
            .into_iter()
            .flat_map(|text| text.split('/'))
            .map(segment)
            .collect::<Result<_, _>>()?;
        Ok(Self { head, below })
    }

    /// Says whether the pattern matches the segments of `text`, compared by `same`.
    pub(crate) fn matches(&self, text: &str, same: impl Fn(&str, &str) -> bool) -> bool {
        let mut rest = text.split('/');
        for segment in &self.head {
            let Some(found) = rest.next() else {
                return false;
            };
            let matched = match segment {
                Segment::Literal(wanted) => same(wanted, found),
                Segment::Starts(start) => {
                    found.len() > start.len() && found.get(..start.len()).is_some_and(|head| same(start, head))
                }
                Segment::Any => !found.is_empty(),
            };
            if !matched {
                return false;
            }
        }
        self.below || rest.next().is_none()
    }
}

fn segment(text: &str) -> Result<Segment, Misplaced> {
    match text.split_once('*') {
        None => Ok(Segment::Literal(text.into())),
        Some(("", "")) => Ok(Segment::Any),
        Some((start, "")) => Ok(Segment::Starts(start.into())),
        Some(("", "*")) => Err(Misplaced::BelowNotLast),
        Some(_) => Err(Misplaced::StarInside),
    }
}
