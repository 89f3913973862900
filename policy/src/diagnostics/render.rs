//! Diagnostics as people read them, by annotate-snippets.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diag, Mark, Severity};

/// The width that long lines are cut to.
const WIDTH: usize = 140;

pub(super) fn render(diags: &[Diag], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() }.term_width(WIDTH);
    let mut text = String::new();
    for diag in diags {
        text.push_str(&renderer.render(&[group(diag)]));
        text.push_str("\n\n");
    }
    text
}

fn group(diag: &Diag) -> Group<'_> {
    let level = match diag.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diag.message.as_str()).id(diag.code.as_str());
    let mut group = Group::with_title(title);
    for (index, mark) in diag.marks.iter().enumerate() {
        let kind = if index == 0 {
            AnnotationKind::Primary
        } else {
            AnnotationKind::Context
        };
        group = add(group, mark, kind);
    }
    match &diag.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

fn add<'d>(group: Group<'d>, mark: &'d Mark, kind: AnnotationKind) -> Group<'d> {
    let excerpt = &mark.excerpt;
    // An empty span is shown as one character, or as one column after the end of the line.
    let next = excerpt
        .text
        .get(excerpt.start..)
        .and_then(|rest| rest.chars().next())
        .map_or(1, char::len_utf8);
    let end = if excerpt.start == excerpt.end {
        excerpt.end + next
    } else {
        excerpt.end
    };
    let snippet = Snippet::source(excerpt.text.as_str())
        .line_start(excerpt.line)
        .annotation(kind.span(excerpt.start..end).label(mark.label.as_str()));
    let shown = excerpt.text.get(..excerpt.start).unwrap_or_default().chars().count();
    if shown + 1 == excerpt.column {
        return group.element(snippet.path(&*excerpt.file));
    }
    // The renderer would count the column in the part of the line that is shown.
    let origin = Origin::path(&*excerpt.file)
        .line(excerpt.line)
        .char_column(excerpt.column);
    group.element(origin).element(snippet)
}
