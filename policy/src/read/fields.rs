//! Maps and lists, before their values are read.

use super::{Keys, LIST_ITEMS_MAX, Reader};
use crate::code::{self, Code};
use crate::diagnostics::Draft;
use crate::source::Span;
use crate::suggest;
use crate::yaml::{Node, Value};

/// The known entries of one map, each key once.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    of: &'static str,
    entries: Vec<(&'n str, &'n Node)>,
    refused: bool,
    /// What unknown keys were probably meant to be.
    meant: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, node)| *node)
    }

    /// Says whether a key was refused: what is missing may be just that, and is not told again.
    pub(super) fn refused(&self) -> bool {
        self.refused
    }
}

impl Reader {
    pub(super) fn push(&mut self, draft: Draft) {
        self.collector.push(draft);
    }

    pub(super) fn error(&mut self, code: Code, span: Span, message: impl Into<String>, label: &str) {
        self.push(Draft::new(code, span, message, label));
    }

    /// Reads a map with a fixed set of keys; unknown, later and duplicate ones are refused.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, keys: &Keys) -> Option<Fields<'n>> {
        let entries = self.entries(node, keys.of)?;
        let mut known = Vec::with_capacity(entries.len());
        let (mut refused, mut meant) = (false, Vec::new());
        for (key, value) in entries {
            let Some(text) = self.text(key) else {
                continue;
            };
            if keys.known.contains(&text) {
                known.push((text, value));
                continue;
            }
            refused = true;
            if keys.is_later(text) {
                self.later(key.span, &format!("`{text}` in {}", keys.of));
                continue;
            }
            let near = suggest::nearest(text, keys.known.iter().chain(keys.later).copied());
            meant.extend(keys.known.iter().copied().find(|known| Some(*known) == near));
            let draft = Draft::new(
                code::UNKNOWN_KEY,
                key.span,
                format!("{} has no key `{text}`", keys.of),
                "unknown",
            );
            self.push(draft.maybe_help(near.map(|near| format!("did you mean `{near}`?"))));
        }
        Some(Fields {
            of: keys.of,
            entries: known,
            refused,
            meant,
        })
    }

    /// Refuses what a later version enforces.
    pub(super) fn later(&mut self, span: Span, what: &str) {
        self.error(
            code::NOT_ENFORCED,
            span,
            format!("{what} is not enforced by this version"),
            "not enforced",
        );
    }

    /// Gives the entries of a map without duplicates of text keys; the first of two stays.
    pub(super) fn entries<'n>(&mut self, node: &'n Node, of: &str) -> Option<Vec<(&'n Node, &'n Node)>> {
        let Value::Map(entries) = &node.value else {
            let message = format!("{of} is a map, found {}", node.value.kind());
            self.error(code::WRONG_KIND, node.span, message, "not a map");
            return None;
        };
        let mut seen: std::collections::BTreeMap<&str, Span> = std::collections::BTreeMap::new();
        let mut unique = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if let Value::Text(text) = &key.value {
                if let Some(first) = seen.get(text.as_str()) {
                    let draft = Draft::new(
                        code::DUPLICATE_KEY,
                        key.span,
                        format!("the key `{text}` is here twice"),
                        "again",
                    )
                    .also(*first, "first here");
                    self.push(draft);
                    continue;
                }
                seen.insert(text, key.span);
            }
            unique.push((key, value));
        }
        Some(unique)
    }

    /// Gives a key that must be there; `at` is where its absence is shown, unless it is there under a wrong name.
    pub(super) fn required<'n>(&mut self, fields: &Fields<'n>, key: &str, at: Span) -> Option<&'n Node> {
        let found = fields.get(key);
        if found.is_none() && !fields.meant.contains(&key) {
            self.error(
                code::MISSING_KEY,
                at,
                format!("{} needs the key `{key}`", fields.of),
                "missing here",
            );
        }
        found
    }

    /// Gives the entries of a top-level map, or none when it is absent; refuses more than `most` over all files.
    pub(super) fn section<'n>(
        &mut self,
        node: Option<&'n Node>,
        name: &str,
        most: usize,
        already: usize,
    ) -> Vec<(&'n Node, &'n Node)> {
        let Some(node) = node else {
            return Vec::new();
        };
        let entries = self.entries(node, name).unwrap_or_default();
        if self.too_many(node.span, entries.len() + already, most, name) {
            Vec::new()
        } else {
            entries
        }
    }

    /// Gives the items of a top-level list, or none when it is absent; refuses more than `most` over all files.
    pub(super) fn records<'n>(
        &mut self,
        node: Option<&'n Node>,
        name: &str,
        most: usize,
        already: usize,
    ) -> &'n [Node] {
        match node {
            None => &[],
            Some(Node {
                value: Value::List(items),
                span,
            }) => {
                if self.too_many(*span, items.len() + already, most, name) {
                    &[]
                } else {
                    items
                }
            }
            Some(other) => {
                let message = format!("`{name}` is a list, found {}", other.value.kind());
                self.error(code::WRONG_KIND, other.span, message, "not a list");
                &[]
            }
        }
    }

    fn too_many(&mut self, span: Span, count: usize, most: usize, what: &str) -> bool {
        let excess = count > most;
        if excess {
            self.whole = false;
            self.error(
                code::TOO_LARGE,
                span,
                format!("the mesh has more than {most} {what}"),
                "too many",
            );
        }
        excess
    }

    /// Gives one value, or each of a flat list of values.
    pub(super) fn items<'n>(&mut self, node: &'n Node) -> Vec<&'n Node> {
        let Value::List(items) = &node.value else {
            return vec![node];
        };
        if items.len() > LIST_ITEMS_MAX {
            let message = format!("a list has at most {LIST_ITEMS_MAX} items, found {}", items.len());
            self.error(code::TOO_LARGE, node.span, message, "too many");
            return Vec::new();
        }
        items.iter().collect()
    }

    /// Reads a text; a number or boolean is not taken for one.
    pub(super) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let Value::Text(text) = &node.value else {
            let message = format!("text is expected, found {}", node.value.kind());
            let help = match &node.value {
                Value::Bool(_) | Value::Integer(_) | Value::Float => Some("quote it if text is meant".to_owned()),
                Value::List(_) => Some("one value, or a flat list of values".to_owned()),
                Value::Null | Value::Map(_) | Value::Text(_) => None,
            };
            self.push(Draft::new(code::WRONG_KIND, node.span, message, "not text").maybe_help(help));
            return None;
        };
        Some(text)
    }
}
