//! YAML, and so JSON, as a tree of values that know where they stand.
//!
//! The traps of YAML are off: anchors, aliases, merge keys and tags are refused, only `true` and `false` are booleans, a
//! number with a leading zero or an underscore is text, one source is one document, and depth and size are bounded.
//! Duplicate keys stay in the tree, because only there both places are known.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Error, Location, MergeKeyPolicy, Options, Spanned};

use crate::code::{self, Code};
use crate::diagnostics::Draft;
use crate::read::MESH_DEPTH_MAX;
use crate::source::Span;

/// More nodes than rules and bots of 4 MiB have; only tiny values without a meaning are more.
const NODES_MAX: usize = 500_000;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
}

/// A value by its YAML 1.2 core type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// Names the type for people.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Parses the one document of a source.
pub(crate) fn parse(source: usize, text: &str) -> Result<Node, Draft> {
    parse_within(source, text, NODES_MAX)
}

fn parse_within(source: usize, text: &str, nodes: usize) -> Result<Node, Draft> {
    let read: Result<Spanned<Raw>, Error> = serde_saphyr::from_str_with_options(text, options(nodes));
    match read {
        Ok(raw) => Ok(node(source, raw)),
        Err(error) => Err(refusal(source, text, &error)),
    }
}

fn options(nodes: usize) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_depth: MESH_DEPTH_MAX,
            max_documents: 1,
            max_nodes: nodes,
            max_events: 2 * nodes + 8,
            max_inclusion_depth: 0,
        },
        emit_comments: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// A value as the deserializer gives it, before its spans are turned into ours.
#[derive(Debug)]
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<Self>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Integer(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Integer(value.into())))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Float))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

/// Turns the spans into ours. The depth is bounded by the parser.
fn node(source: usize, raw: Spanned<Raw>) -> Node {
    let span = span(source, raw.referenced).unwrap_or(Span {
        source,
        start: 0,
        end: 0,
    });
    let value = match raw.value {
        Raw::Scalar(value) => value,
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(source, item)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (node(source, key), node(source, value)))
                .collect(),
        ),
    };
    Node { value, span }
}

fn span(source: usize, location: Location) -> Option<Span> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    Some(Span {
        source,
        start,
        end: start + length,
    })
}

/// Translates what the parser refused; its own words for limits and switched-off features would mislead.
fn refusal(source: usize, text: &str, error: &Error) -> Draft {
    let place = error.location().map_or(
        Span {
            source,
            start: 0,
            end: 0,
        },
        |location| span(source, location).unwrap_or_else(|| line_start(source, text, location)),
    );
    let told = told(error.without_snippet());
    Draft::new(told.code, place, told.message, told.label).maybe_help(told.help.map(str::to_owned))
}

/// What is told about an error.
struct Told {
    code: Code,
    message: String,
    label: &'static str,
    help: Option<&'static str>,
}

impl Told {
    fn anchor(label: &'static str) -> Self {
        let help = Some("write the value out; quote a pattern that starts with `*`");
        Self {
            code: code::YAML_FEATURE,
            message: "anchors and aliases are not read".to_owned(),
            label,
            help,
        }
    }

    fn second_document() -> Self {
        let help = Some("put it in a file of its own");
        let message = "a file holds one document".to_owned();
        Self {
            code: code::ONE_DOCUMENT,
            message,
            label: "a second one starts here",
            help,
        }
    }
}

fn told(error: &Error) -> Told {
    if let Error::Budget { breach, .. } = error {
        return over_budget(breach);
    }
    if let Error::UnsupportedTag { tag, .. } = error {
        let message = format!("the tag `{tag}` is not read");
        return Told {
            code: code::YAML_FEATURE,
            message,
            label: "tagged",
            help: Some("leave the tag out"),
        };
    }
    if matches!(error, Error::MergeKeyNotAllowed { .. }) {
        let message = "merge keys are not read".to_owned();
        return Told {
            code: code::YAML_FEATURE,
            message,
            label: "merge key",
            help: Some("write the keys out"),
        };
    }
    if matches!(error, Error::UnknownAnchor { .. }) {
        return Told::anchor("alias");
    }
    if matches!(error, Error::MultipleDocuments { .. }) {
        return Told::second_document();
    }
    let message = format!("this is not YAML: {}", plain_message(error));
    Told {
        code: code::SYNTAX,
        message,
        label: "here",
        help: None,
    }
}

fn over_budget(breach: &BudgetBreach) -> Told {
    if matches!(breach, BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. }) {
        return Told::anchor("anchor or alias");
    }
    if matches!(breach, BudgetBreach::Documents { .. }) {
        return Told::second_document();
    }
    if matches!(breach, BudgetBreach::Depth { .. }) {
        let message = format!("values nest deeper than {MESH_DEPTH_MAX} levels");
        return Told {
            code: code::TOO_LARGE,
            message,
            label: "too deep",
            help: None,
        };
    }
    Told {
        code: code::TOO_LARGE,
        message: "the file holds too many values".to_owned(),
        label: "here",
        help: None,
    }
}

/// The parser's message without the place that it appends.
fn plain_message(error: &Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let end = line.find(" at line ").unwrap_or(line.len());
    line.get(..end).unwrap_or(line).trim_end_matches(':').to_owned()
}

/// Where a line and column are, for errors without byte offsets.
fn line_start(source: usize, text: &str, location: Location) -> Span {
    let line = usize::try_from(location.line()).unwrap_or(usize::MAX).saturating_sub(1);
    let column = usize::try_from(location.column())
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(before..).unwrap_or_default();
    let within = rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at);
    Span {
        source,
        start: before + within,
        end: before + within,
    }
}

#[cfg(test)]
mod tests;
