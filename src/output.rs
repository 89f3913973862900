//! What a command prints: data on stdout in the format that was asked for, progress and hints on stderr for people only.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::{Color, Format, Global};

/// The name and version of every JSON document that a command prints. Fields are added, never changed or removed.
pub(crate) const SCHEMA: &str = "botmesh/v1";

/// Where a command writes.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    pub(crate) format: Format,
    notes: bool,
    color: bool,
}

impl Screen {
    pub(crate) fn new(global: &Global) -> Self {
        let choice = match global.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        let color = match anstream::AutoStream::choice(&io::stderr()) {
            anstream::ColorChoice::Never => false,
            anstream::ColorChoice::Auto | anstream::ColorChoice::Always | anstream::ColorChoice::AlwaysAnsi => true,
        };
        Self {
            format: global.output,
            notes: !global.quiet && io::stderr().is_terminal(),
            color,
        }
    }

    /// Says whether diagnostics on stderr are coloured.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    pub(crate) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// Writes one line of data; colours are stripped where stdout does not take them.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{}", text.as_ref())?;
        out.flush()
    }

    /// Writes one JSON document: indented for `json`, one line for `jsonl`.
    pub(crate) fn document(&self, value: &impl Serialize) -> io::Result<()> {
        let value = with_schema(serde_json::to_value(value)?);
        let text = match self.format {
            Format::Jsonl => serde_json::to_string(&value)?,
            Format::Json | Format::Table => serde_json::to_string_pretty(&value)?,
        };
        self.line(text)
    }

    /// Writes one JSON document on one line, for output that has no end.
    pub(crate) fn document_line(&self, value: &impl Serialize) -> io::Result<()> {
        self.line(serde_json::to_string(&with_schema(serde_json::to_value(value)?))?)
    }

    /// Writes a list: an aligned table, one document with `items`, or one document a line.
    pub(crate) fn list<T: Serialize>(
        &self,
        items: &[T],
        headings: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> io::Result<()> {
        match self.format {
            Format::Table => {
                let rows: Vec<Vec<String>> = items.iter().map(row).collect();
                write!(anstream::stdout().lock(), "{}", table(headings, &rows))
            }
            Format::Json => self.document(&serde_json::json!({ "items": items })),
            Format::Jsonl => items.iter().try_for_each(|item| self.document(item)),
        }
    }

    /// Tells a person at a terminal how it goes; a script never sees it.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if self.notes {
            self.warn(text);
        }
    }

    /// Tells something on stderr that a script's log must hold too.
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        // Nobody can be told that stderr is gone.
        drop(writeln!(anstream::stderr().lock(), "{}", text.as_ref().trim_end()));
    }
}

fn with_schema(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut all = Map::new();
            all.insert("schema".to_owned(), Value::from(SCHEMA));
            all.extend(fields);
            Value::Object(all)
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            serde_json::json!({ "schema": SCHEMA, "items": other })
        }
    }
}

/// Aligns columns by the width people see; the last column is not padded.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| {
            all.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in all {
        let mut line = String::new();
        for (cell, wide) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(wide.saturating_sub(width(cell)) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The number of characters of a cell, without colour codes.
pub(crate) fn width(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

/// Pads a cell to a width that people see.
pub(crate) fn padded(text: &str, wide: usize) -> String {
    format!("{text}{}", " ".repeat(wide.saturating_sub(width(text))))
}

/// The colours of the few words that have one; every colour stands beside a word that says the same.
pub(crate) fn green(text: &str) -> String {
    format!("\u{1b}[32m{text}\u{1b}[0m")
}

/// See [`green`].
pub(crate) fn red(text: &str) -> String {
    format!("\u{1b}[31m{text}\u{1b}[0m")
}

/// See [`green`].
pub(crate) fn bold(text: &str) -> String {
    format!("\u{1b}[1m{text}\u{1b}[0m")
}

/// See [`green`].
pub(crate) fn dim(text: &str) -> String {
    format!("\u{1b}[2m{text}\u{1b}[0m")
}

/// Makes text of another process or file safe for a terminal: control characters become `\u{…}`.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped: Vec<char> = if c.is_control() {
                c.escape_unicode().collect()
            } else {
                vec![c]
            };
            escaped
        })
        .collect()
}

/// Quotes a word for a POSIX shell where it needs that, so that a printed command works when it is pasted.
pub(crate) fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_for_the_shell_only_where_it_must_be() {
        assert_eq!(shell("/tmp/d/web-1/proxy.sock"), "/tmp/d/web-1/proxy.sock");
        assert_eq!(shell("/tmp/my d"), "'/tmp/my d'");
        assert_eq!(shell("it's"), "'it'\\''s'");
        assert_eq!(shell("$(x)"), "'$(x)'");
    }

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows = vec![
            vec!["prod/orders".to_owned(), green("live")],
            vec!["a".to_owned(), "behind".to_owned()],
        ];
        let text = anstream::adapter::strip_str(&table(&["BOT", "STATE"], &rows)).to_string();
        assert_eq!(text, "BOT          STATE\nprod/orders  live\na            behind\n");
    }

    #[test]
    fn every_document_names_its_schema() {
        assert_eq!(
            with_schema(serde_json::json!({"b": 1})),
            serde_json::json!({"b": 1, "schema": "botmesh/v1"})
        );
        assert_eq!(
            with_schema(serde_json::json!([1])),
            serde_json::json!({"items": [1], "schema": "botmesh/v1"})
        );
    }

    #[test]
    fn a_control_character_cannot_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("prod/orders → ok"), "prod/orders → ok");
    }
}
