//! From texts to a draft of the mesh: every value is read and checked on its own; `resolve` compares them.

mod audit_only;
mod bots;
mod credentials;
mod databases;
mod destinations;
mod exchange;
mod federate;
mod fields;
mod keys;
mod limits;
mod mesh_tests;
mod probe;
mod rules;
mod serve;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spiffe::id::{BotName, HostName, HostPattern, TrustDomain};
use spiffe::selector::SelectorSet;
use spiffe::time::Timestamp;

use crate::call::Callee;
use crate::code;
use crate::credential::CredentialName;
use crate::diagnostics::{Collector, Diagnostics, Draft};
use crate::mesh::{Mesh, Serve};
use crate::outside::OutsidePattern;
use crate::pattern::NamePattern;
use crate::resolve;
use crate::rule::{Effect, Rule, RuleId, Subject};
use crate::source::{Source, Sources, Span};
use crate::tests_of_mesh::TestCall;
use crate::yaml::{self, Node, Value};

pub(crate) use audit_only::AuditDraft;
pub(crate) use credentials::CredentialDraft;
pub(crate) use destinations::{DestinationDraft, OutsideDraft};
pub(crate) use keys::{
    ATTEST, AUDIT_ONLY, BOT, CREDENTIAL, DESTINATION, FEDERATE, GITHUB_APP, HMAC, Keys, LIMIT, MESH, OAUTH, OUTSIDE,
    POSTGRES, SERVE, SIGV4, TEST, rule as rule_keys,
};
pub(crate) use limits::LimitDraft;

/// The most bytes that all sources of a mesh have together.
pub const MESH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most levels of maps and lists in a source.
pub const MESH_DEPTH_MAX: usize = 8;
/// The most rules of a mesh, allow and deny together.
pub const RULES_MAX: usize = 10_000;
/// The most bots of a mesh.
pub const BOTS_MAX: usize = 10_000;
/// The most items of one list inside a bot, group, rule or test.
const LIST_ITEMS_MAX: usize = 1_000;

/// How many entries the sections have at most, over all sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    bots: usize,
    groups: usize,
    /// Allow and deny together.
    rules: usize,
    limits: usize,
    audit_only: usize,
    credentials: usize,
    tests: usize,
}

const COUNTS: Counts = Counts {
    bots: BOTS_MAX,
    groups: 1_000,
    rules: RULES_MAX,
    limits: 1_000,
    audit_only: 1_000,
    credentials: 1_000,
    tests: 10_000,
};

/// Reads sources, merges them, and validates the whole.
///
/// Order never matters: not of sources, keys or rules.
///
/// # Errors
/// With every error that could be found at once, at most [`DIAGNOSTICS_MAX`](crate::DIAGNOSTICS_MAX), when the sources are
/// not one valid mesh. Warnings alone do not refuse; they stay with the [`Mesh`].
pub fn load(sources: &[Source]) -> Result<Mesh, Diagnostics> {
    load_within(sources, COUNTS)
}

fn load_within(sources: &[Source], most: Counts) -> Result<Mesh, Diagnostics> {
    let index = Sources::new(sources);
    let mut reader = Reader {
        collector: Collector::default(),
        draft: MeshDraft::default(),
        whole: true,
        most,
    };
    if fits(sources, &mut reader.collector) {
        for (number, source) in sources.iter().enumerate() {
            match yaml::parse(number, &source.text) {
                Ok(node) => reader.file(&node),
                Err(draft) => reader.collector.push(draft),
            }
        }
        // What is missing may be in the source that could not be read: only a whole draft is compared.
        if reader.whole {
            return resolve::resolve(reader.draft, reader.collector, index);
        }
    }
    Err(reader.collector.finish(&index))
}

fn fits(sources: &[Source], collector: &mut Collector) -> bool {
    let at = |source| Span {
        source,
        start: 0,
        end: 0,
    };
    if sources.is_empty() {
        collector.push(Draft::new(code::ONE_DOCUMENT, at(0), "there is no mesh file", "here"));
        return false;
    }
    let mut bytes = 0_usize;
    for (number, source) in sources.iter().enumerate() {
        bytes = bytes.saturating_add(source.text.len());
        if bytes > MESH_BYTES_MAX {
            let message = format!("the mesh has more than {MESH_BYTES_MAX} bytes");
            collector.push(Draft::new(code::TOO_LARGE, at(number), message, "with this file"));
            return false;
        }
    }
    true
}

/// Everything that was read, not yet compared with each other.
#[derive(Debug, Default)]
pub(crate) struct MeshDraft {
    pub(crate) trust_domain: Option<(TrustDomain, Span)>,
    pub(crate) slice: Option<(HostName, Span)>,
    pub(crate) bots: BTreeMap<BotName, BotDraft>,
    pub(crate) groups: BTreeMap<Box<str>, GroupDraft>,
    pub(crate) rules: BTreeMap<RuleId, RuleDraft>,
    pub(crate) destinations: BTreeMap<BotName, DestinationDraft>,
    pub(crate) outsides: BTreeMap<OutsidePattern, OutsideDraft>,
    pub(crate) limits: BTreeMap<RuleId, LimitDraft>,
    pub(crate) audit_only: Vec<AuditDraft>,
    pub(crate) credentials: BTreeMap<CredentialName, CredentialDraft>,
    pub(crate) tests: Vec<TestDraft>,
    pub(crate) files: usize,
}

#[derive(Debug)]
pub(crate) struct BotDraft {
    pub(crate) span: Span,
    pub(crate) owner: String,
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) attest: Option<Vec<(SelectorSet, Span)>>,
    pub(crate) attest_span: Option<Span>,
    pub(crate) serve: Option<(Serve, Span)>,
    pub(crate) svid_ttl: Duration,
}

#[derive(Debug)]
pub(crate) struct GroupDraft {
    pub(crate) span: Span,
    pub(crate) members: Vec<(NamePattern, Span)>,
}

#[derive(Debug)]
pub(crate) struct RuleDraft {
    pub(crate) span: Span,
    pub(crate) from: Vec<(Subject, Span)>,
    pub(crate) to: Vec<(Subject, Span)>,
    /// Where its credential stands.
    pub(crate) inject: Option<Span>,
    /// Without `from`, `to` and `place`, which `resolve` fills in.
    pub(crate) rule: Rule,
}

impl RuleDraft {
    /// Says whether the rule lets somebody use a credential: adds it, or leads to the address that it holds.
    pub(crate) fn uses(&self, credential: &str) -> bool {
        if self.rule.effect == Effect::Deny {
            return false;
        }
        let added = self
            .rule
            .inject
            .as_ref()
            .is_some_and(|inject| inject.as_str() == credential);
        added || self.to.iter().any(|(to, _)| to.credential() == Some(credential))
    }
}

#[derive(Debug)]
pub(crate) struct TestDraft {
    pub(crate) name: String,
    pub(crate) from: (BotName, Span),
    pub(crate) to: (Callee, Span),
    pub(crate) at: Option<Timestamp>,
    pub(crate) by: Option<(RuleId, Span)>,
    pub(crate) calls: Vec<TestCall>,
}

/// Reads files into one draft.
#[derive(Debug)]
struct Reader {
    collector: Collector,
    draft: MeshDraft,
    /// Whether every file was read to its end.
    whole: bool,
    most: Counts,
}

impl Reader {
    fn file(&mut self, node: &Node) {
        self.draft.files += 1;
        if node.value == Value::Null {
            self.whole = false;
            self.error(code::ONE_DOCUMENT, node.span, "the file is empty", "a map is expected");
            return;
        }
        let Some(fields) = self.fields(node, &MESH) else {
            self.whole = false;
            return;
        };
        match self.required(&fields, "version", node.span) {
            Some(Node {
                value: Value::Integer(1),
                ..
            })
            | None => {}
            Some(other) => {
                self.push(
                    Draft::new(
                        code::VERSION,
                        other.span,
                        "this version of the format is not read",
                        "not 1",
                    )
                    .help("write `version: 1`"),
                );
            }
        }
        if let Some(node) = fields.get("trust_domain") {
            self.trust_domain(node);
        }
        if let Some(node) = fields.get("slice") {
            self.slice(node);
        }
        self.bots(fields.get("bots"));
        self.groups(fields.get("groups"));
        self.rules(fields.get("allow"), fields.get("deny"));
        self.destinations(fields.get("destinations"));
        self.limits(fields.get("limits"));
        self.audit_only(fields.get("audit_only"));
        self.credentials(fields.get("credentials"));
        self.mesh_tests(fields.get("tests"));
    }

    fn trust_domain(&mut self, node: &Node) {
        let Some(text) = self.text(node) else {
            return;
        };
        let domain = match TrustDomain::parse(text) {
            Ok(domain) => domain,
            Err(error) => return self.error(code::TRUST_DOMAIN, node.span, error.to_string(), "not a trust domain"),
        };
        match &self.draft.trust_domain {
            Some((first, span)) if *first != domain => {
                let draft = Draft::new(
                    code::TRUST_DOMAIN,
                    node.span,
                    "the files name two trust domains",
                    "here",
                )
                .also(*span, "and another one here");
                self.push(draft);
            }
            Some(_) => {}
            None => self.draft.trust_domain = Some((domain, node.span)),
        }
    }

    fn slice(&mut self, node: &Node) {
        let Some(text) = self.text(node) else {
            return;
        };
        match HostName::parse(text) {
            Ok(host) => self.draft.slice = Some((host, node.span)),
            Err(error) => self.error(code::SLICE, node.span, error.to_string(), "not a host name"),
        }
    }

    fn groups(&mut self, node: Option<&Node>) {
        for (key, value) in self.section(node, "groups", self.most.groups, self.draft.groups.len()) {
            let Some(name) = self.text(key) else {
                continue;
            };
            if let Err(error) = HostName::parse(name) {
                self.error(code::GROUP, key.span, error.to_string(), "not the name of a group");
            }
            let members = self.group_members(name, value);
            let group = GroupDraft {
                span: key.span,
                members,
            };
            if let Some(first) = self.draft.groups.get(name) {
                let first = first.span;
                self.duplicate("group", name, key.span, first);
            } else {
                self.draft.groups.insert(name.into(), group);
            }
        }
    }

    fn group_members(&mut self, name: &str, value: &Node) -> Vec<(NamePattern, Span)> {
        let items = self.items(value);
        if items.is_empty() {
            self.error(
                code::GROUP,
                value.span,
                format!("group `{name}` has no members"),
                "empty",
            );
        }
        items
            .into_iter()
            .filter_map(|item| match self.subject(item)? {
                Subject::Bots(pattern) => Some((pattern, item.span)),
                Subject::Outside(_) => {
                    self.error(code::GROUP, item.span, "groups hold bots", "outside of the mesh");
                    None
                }
                Subject::Group(_) => {
                    let draft = Draft::new(
                        code::GROUP,
                        item.span,
                        "groups hold no groups",
                        "a group inside a group",
                    );
                    self.push(draft.help("write its members out"));
                    None
                }
            })
            .collect()
    }

    /// Says where an id stands already: rules and limits share theirs, for records and metrics name both alike.
    fn id_taken(&self, id: &RuleId) -> Option<Span> {
        let rule = self.draft.rules.get(id).map(|rule| rule.span);
        rule.or_else(|| self.draft.limits.get(id).map(|limit| limit.span))
    }

    fn duplicate(&mut self, what: &str, name: &str, span: Span, first: Span) {
        let draft = Draft::new(
            code::DUPLICATE_ID,
            span,
            format!("{what} `{name}` is defined twice"),
            "again here",
        )
        .also(first, "first defined here");
        self.push(draft);
    }
}

/// Shared text, so that records and answers copy a pointer.
fn shared(text: &str) -> Arc<str> {
    Arc::from(text)
}

#[cfg(test)]
mod tests;
