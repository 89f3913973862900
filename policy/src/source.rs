//! Texts and the places in them.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// One mesh file as it was read, with the name that errors show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name, usually the path of the file.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The name of the source.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A stretch of bytes of one of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) source: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// All sources of one mesh, with the starts of their lines.
#[derive(Debug, Default)]
pub(crate) struct Sources(Vec<Indexed>);

#[derive(Debug)]
struct Indexed {
    name: Arc<str>,
    text: Box<str>,
    /// The byte at which each line starts; the first is 0.
    lines: Vec<usize>,
}

/// What a caret needs: where a span is, and the line that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Excerpt {
    pub(crate) file: Arc<str>,
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
    /// The line, or the part of a very long one around the span.
    pub(crate) text: String,
    /// The span as bytes of `text`.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A line longer than this is cut to the part around the span.
const EXCERPT_BYTES_MAX: usize = 200;
/// How much of a long line is kept before the span.
const EXCERPT_LEAD_BYTES: usize = 60;

impl Sources {
    pub(crate) fn new(sources: &[Source]) -> Self {
        Self(sources.iter().map(Indexed::new).collect())
    }

    pub(crate) fn place(&self, span: Span) -> Place {
        let Some(source) = self.0.get(span.source) else {
            return Place {
                file: Arc::from(""),
                line: 1,
            };
        };
        Place {
            file: Arc::clone(&source.name),
            line: source.line_of(span.start),
        }
    }

    /// Finds what a caret needs; a span over several lines is cut at the end of the first.
    pub(crate) fn excerpt(&self, span: Span) -> Excerpt {
        self.0.get(span.source).map_or_else(
            || Excerpt {
                file: Arc::from(""),
                line: 1,
                column: 1,
                text: String::new(),
                start: 0,
                end: 0,
            },
            |source| source.excerpt(span),
        )
    }
}

impl Indexed {
    fn new(source: &Source) -> Self {
        let newlines = source
            .text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            name: Arc::from(source.name.as_str()),
            text: source.text.as_str().into(),
            lines: std::iter::once(0).chain(newlines).collect(),
        }
    }

    /// The line, from 1, that holds a byte.
    fn line_of(&self, byte: usize) -> usize {
        self.lines.partition_point(|start| *start <= byte).max(1)
    }

    fn excerpt(&self, span: Span) -> Excerpt {
        let line = self.line_of(span.start);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let rest = self.text.get(start..).unwrap_or_default();
        let text = rest.split('\n').next().unwrap_or_default();
        let text = text.strip_suffix('\r').unwrap_or(text);
        let from = floor(text, span.start.saturating_sub(start));
        let to = floor(text, span.end.saturating_sub(start)).max(from);
        let column = text.get(..from).unwrap_or_default().chars().count() + 1;
        let (cut, kept) = crop(text, from);
        let end = (to - cut).min(kept.len());
        Excerpt {
            file: Arc::clone(&self.name),
            line,
            column,
            text: kept.to_owned(),
            start: from - cut,
            end,
        }
    }
}

/// Cuts a long line to the part around a byte; gives how much was cut before it.
fn crop(line: &str, at: usize) -> (usize, &str) {
    if line.len() <= EXCERPT_BYTES_MAX {
        return (0, line);
    }
    let cut = floor(line, at.saturating_sub(EXCERPT_LEAD_BYTES));
    let end = floor(line, cut + EXCERPT_BYTES_MAX);
    (cut, line.get(cut..end).unwrap_or_default())
}

/// The last character boundary at or before a byte.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Sources {
        Sources::new(&[Source {
            name: "mesh.yaml".to_owned(),
            text: text.to_owned(),
        }])
    }

    fn span(start: usize, end: usize) -> Span {
        Span { source: 0, start, end }
    }

    #[test]
    fn a_place_is_the_line_of_the_first_byte() {
        let sources = sources("a\nbb\n\nc");
        let lines: Vec<usize> = (0..8).map(|at| sources.place(span(at, at)).line).collect();
        assert_eq!(lines, [1, 1, 2, 2, 2, 3, 4, 4]);
        assert_eq!(sources.place(span(2, 3)).to_string(), "mesh.yaml:2");
    }

    #[test]
    fn an_excerpt_counts_columns_in_characters_and_spans_in_bytes() {
        let excerpt = sources("x\n\u{e9}\u{e9}: bad\r\nz").excerpt(span(8, 11));
        assert_eq!((excerpt.line, excerpt.column), (2, 5));
        assert_eq!(excerpt.text, "\u{e9}\u{e9}: bad");
        assert_eq!(excerpt.text.get(excerpt.start..excerpt.end), Some("bad"));
    }

    #[test]
    fn a_span_over_lines_ends_with_its_first_line() {
        let excerpt = sources("abc\ndef").excerpt(span(1, 6));
        assert_eq!((excerpt.start, excerpt.end, excerpt.text.as_str()), (1, 3, "abc"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_span() {
        let text = format!("{}\u{e9}{}bad{}", "x".repeat(300), "y".repeat(59), "z".repeat(300));
        let excerpt = sources(&text).excerpt(span(361, 364));
        assert_eq!(excerpt.column, 361);
        assert_eq!(excerpt.text.get(excerpt.start..excerpt.end), Some("bad"));
        assert!(excerpt.text.starts_with('\u{e9}') && excerpt.text.len() <= EXCERPT_BYTES_MAX);
        assert_eq!(
            sources(&"x".repeat(EXCERPT_BYTES_MAX)).excerpt(span(199, 200)).start,
            199,
            "not cut"
        );
    }

    #[test]
    fn a_span_outside_the_text_is_brought_inside() {
        let excerpt = sources("ab").excerpt(span(9, 12));
        assert_eq!((excerpt.line, excerpt.column, excerpt.start, excerpt.end), (1, 3, 2, 2));
        assert_eq!(Sources::default().excerpt(span(0, 1)).line, 1);
        assert_eq!(Sources::default().place(span(0, 1)).line, 1);
    }
}
