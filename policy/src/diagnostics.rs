//! Errors and warnings about a mesh file, with a code, a place and a caret.

mod render;

use std::fmt;

use serde::Serialize;

use crate::code::Code;
use crate::source::{Excerpt, Sources, Span};

/// The most diagnostics that one reading reports; what follows the first hundred is rarely read.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Whether a diagnostic keeps the mesh file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used; the writer should look.
    Warning,
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diag {
    /// The code, which `botmesh help CODE` explains.
    pub code: Code,
    /// Whether it is an error.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The name of the source.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What to do about it, where that is known.
    pub help: Option<String>,
    #[serde(skip)]
    pub(crate) marks: Vec<Mark>,
}

/// A marked piece of source; the first of a diagnostic is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) excerpt: Excerpt,
    pub(crate) label: String,
}

impl Diag {
    pub(crate) fn new(sources: &Sources, draft: Draft) -> Self {
        let severity = draft.code.severity();
        let marks: Vec<Mark> = draft
            .marks
            .into_iter()
            .map(|(span, label)| Mark {
                excerpt: sources.excerpt(span),
                label,
            })
            .collect();
        let (file, line, column) = marks
            .first()
            .map(|mark| (mark.excerpt.file.to_string(), mark.excerpt.line, mark.excerpt.column))
            .unwrap_or_default();
        Self {
            code: draft.code,
            severity,
            message: draft.message,
            file,
            line,
            column,
            help: draft.help,
            marks,
        }
    }
}

/// A diagnostic before its places are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    code: Code,
    message: String,
    marks: Vec<(Span, String)>,
    help: Option<String>,
}

impl Draft {
    /// Starts one; `span` is where it is and `label` what the caret says.
    pub(crate) fn new(code: Code, span: Span, message: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            marks: vec![(span, label.into())],
            help: None,
        }
    }

    /// Gives the code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Says where it is.
    pub(crate) fn span(&self) -> Option<Span> {
        self.marks.first().map(|(span, _)| *span)
    }

    pub(crate) fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.marks.push((span, label.into()));
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }
}

/// Collects diagnostics while a mesh is read; what is beyond the bound is dropped.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    drafts: Vec<Draft>,
    errors: usize,
}

impl Collector {
    pub(crate) fn push(&mut self, draft: Draft) {
        let is_error = draft.code.severity() == Severity::Error;
        self.errors += usize::from(is_error);
        if self.drafts.len() < DIAGNOSTICS_MAX {
            self.drafts.push(draft);
        } else if is_error && self.errors <= DIAGNOSTICS_MAX {
            // Warnings must not crowd out the error that explains the refusal.
            if let Some(warning) = self
                .drafts
                .iter()
                .rposition(|kept| kept.code.severity() == Severity::Warning)
            {
                self.drafts.remove(warning);
                self.drafts.push(draft);
            }
        }
    }

    /// Says whether nothing more can be reported.
    pub(crate) fn is_full(&self) -> bool {
        self.errors >= DIAGNOSTICS_MAX
    }

    /// Counts the errors so far, with those that were dropped.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Looks the places up; diagnostics come in the order of the sources.
    pub(crate) fn finish(mut self, sources: &Sources) -> Diagnostics {
        self.drafts
            .sort_by_key(|draft| draft.marks.first().map(|(span, _)| *span));
        Diagnostics(self.drafts.into_iter().map(|draft| Diag::new(sources, draft)).collect())
    }
}

/// Errors and warnings in the order of the sources, at most [`DIAGNOSTICS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diag>);

impl Diagnostics {
    pub(crate) fn of(diags: Vec<Diag>) -> Self {
        Self(diags)
    }

    /// Says how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes through them in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diag> {
        self.0.iter()
    }

    /// Renders all of them for people, with carets; `color` adds ANSI styles. Each ends with an empty line.
    pub fn render(&self, color: bool) -> String {
        render::render(&self.0, color)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diag;
    type IntoIter = std::slice::Iter<'a, Diag>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests;
