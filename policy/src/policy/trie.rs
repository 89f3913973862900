//! Path patterns as a tree over segments: one walk finds every pattern that matches a path.

use std::collections::HashMap;

use crate::bits::Sparse;
use crate::method::Method;
use crate::pattern::Segment;
use crate::rule::{Effect, HttpMatch, MethodMatch};

/// A tree whose edges are segments. Its depth is that of the longest pattern, at most some 500 segments.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// Whether ASCII case is ignored: deny rules hold for every spelling that a server may take for the same.
    fold: bool,
    /// Which bits of a hash are used: all of them, but in tests.
    mask: u64,
}

#[derive(Debug, Default)]
struct Node {
    /// The text of the edge that leads here, to tell it from others with the same hash.
    label: Box<str>,
    /// Another edge from the same node whose text has the same hash.
    twin: Option<usize>,
    literals: Table,
    /// Segments that start with a text, by the length of that text.
    starts: Vec<(usize, Table)>,
    any: Option<usize>,
    /// The patterns that end here.
    here: Terminal,
    /// The patterns that end here with `**`.
    below: Terminal,
}

/// Edges by the hash of their text. The hash only finds; whoever follows compares the text.
///
/// Texts are not the keys, because a path is looked up without its case by the deny rules, and without being copied.
type Table = HashMap<u64, usize>;

/// The rules that a pattern belongs to, by the methods that they name there, which are few.
#[derive(Debug, Default)]
pub(super) struct Terminal(Vec<(MethodMatch, Sparse)>);

impl Terminal {
    /// Adds a rule; rules come in order.
    fn add(&mut self, rule: usize, method: &MethodMatch) {
        match self.0.iter_mut().find(|(known, _)| known == method) {
            Some((_, rules)) => rules.push(rule),
            None => {
                let mut rules = Sparse::default();
                rules.push(rule);
                self.0.push((method.clone(), rules));
            }
        }
    }

    /// Goes through the sets of rules that name a method here, or any.
    pub(super) fn rules(&self, method: &Method) -> impl Iterator<Item = &Sparse> {
        self.0
            .iter()
            .filter(|(wanted, _)| wanted.matches(method))
            .map(|(_, rules)| rules)
    }
}

impl Trie {
    /// Builds the tree of the `http` items of rules, which come in the order of their numbers.
    ///
    /// A deny rule without items covers every call.
    pub(super) fn new<'r>(rules: impl Iterator<Item = &'r [HttpMatch]>, effect: Effect) -> Self {
        Self::with_mask(rules, effect, u64::MAX)
    }

    fn with_mask<'r>(rules: impl Iterator<Item = &'r [HttpMatch]>, effect: Effect, mask: u64) -> Self {
        let mut trie = Self {
            nodes: vec![Node::default()],
            fold: effect == Effect::Deny,
            mask,
        };
        for (number, items) in rules.enumerate() {
            for item in items {
                trie.add(number, item);
            }
            if items.is_empty()
                && effect == Effect::Deny
                && let Some(root) = trie.nodes.first_mut()
            {
                root.below.add(number, &MethodMatch::Any);
            }
        }
        trie
    }

    fn add(&mut self, rule: usize, item: &HttpMatch) {
        let segments = item.path.segments();
        let node = segments.head.iter().fold(0, |node, segment| self.edge(node, segment));
        if let Some(node) = self.nodes.get_mut(node) {
            let terminal = if segments.below {
                &mut node.below
            } else {
                &mut node.here
            };
            terminal.add(rule, &item.method);
        }
    }

    /// Follows an edge, or makes it.
    fn edge(&mut self, from: usize, segment: &Segment) -> usize {
        if let Some(found) = self.child(from, segment) {
            return found;
        }
        let made = self.nodes.len();
        let label: Box<str> = match segment {
            Segment::Literal(text) | Segment::Starts(text) => text.clone(),
            Segment::Any => "*".into(),
        };
        let (hash, length) = (self.hash(label.as_bytes()), label.len());
        let Some(node) = self.nodes.get_mut(from) else {
            return made;
        };
        let twin = match segment {
            Segment::Literal(_) => node.literals.insert(hash, made),
            Segment::Starts(_) => match node.starts.iter_mut().find(|(known, _)| *known == length) {
                Some((_, table)) => table.insert(hash, made),
                None => {
                    node.starts.push((length, Table::from([(hash, made)])));
                    None
                }
            },
            Segment::Any => node.any.replace(made),
        };
        self.nodes.push(Node {
            label,
            twin,
            ..Node::default()
        });
        made
    }

    fn child(&self, from: usize, segment: &Segment) -> Option<usize> {
        let node = self.nodes.get(from)?;
        match segment {
            Segment::Literal(text) => self.find(&node.literals, text.as_bytes()),
            Segment::Starts(text) => {
                let (_, table) = node.starts.iter().find(|(length, _)| *length == text.len())?;
                self.find(table, text.as_bytes())
            }
            Segment::Any => node.any,
        }
    }

    fn find(&self, table: &Table, text: &[u8]) -> Option<usize> {
        if table.is_empty() {
            return None;
        }
        let mut found = table.get(&self.hash(text)).copied();
        while let Some(number) = found {
            let node = self.nodes.get(number)?;
            let label = node.label.as_bytes();
            if if self.fold {
                label.eq_ignore_ascii_case(text)
            } else {
                label == text
            } {
                break;
            }
            found = node.twin;
        }
        found
    }

    /// FNV-1a. Who writes the mesh file chooses all texts in a table, so a hash without a secret is enough.
    fn hash(&self, text: &[u8]) -> u64 {
        let hash = text.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            let byte = if self.fold { byte.to_ascii_lowercase() } else { *byte };
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash & self.mask
    }

    /// Visits every terminal whose pattern matches a canonical path.
    pub(super) fn walk(&self, path: &str, visit: &mut impl FnMut(&Terminal)) {
        self.visit(0, path.strip_prefix('/'), visit);
    }

    fn visit(&self, node: usize, rest: Option<&str>, visit: &mut impl FnMut(&Terminal)) {
        let Some(node) = self.nodes.get(node) else {
            return;
        };
        visit(&node.below);
        let Some(rest) = rest else {
            visit(&node.here);
            return;
        };
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        if let Some(next) = self.find(&node.literals, segment.as_bytes()) {
            self.visit(next, rest, visit);
        }
        for (length, table) in &node.starts {
            // At least one character more than the text.
            let start = segment.as_bytes().get(..*length).filter(|_| segment.len() > *length);
            if let Some(next) = start.and_then(|start| self.find(table, start)) {
                self.visit(next, rest, visit);
            }
        }
        if let Some(next) = node.any.filter(|_| !segment.is_empty()) {
            self.visit(next, rest, visit);
        }
    }
}

#[cfg(test)]
mod tests;
