//! The sections `allow` and `deny`.

use std::sync::Arc;

use super::{Reader, RuleDraft, rule_keys};
use crate::code;
use crate::database::DatabaseMatch;
use crate::diagnostics::Draft;
use crate::grpc;
use crate::mesh::ServeKind;
use crate::method::Method;
use crate::outside::{OutsidePattern, Scheme};
use crate::pattern::PathPattern;
use crate::read::fields::Fields;
use crate::rule::{Effect, HttpMatch, MethodMatch, Rule, RuleId, Subject};
use crate::source::{Place, Span};
use crate::upgrade::Protocol;
use crate::yaml::{Node, Value};

/// The most protocols of one rule.
const PROTOCOLS_MAX: usize = 8;

/// Which calls a rule speaks of.
#[derive(Debug, Default)]
pub(super) struct Calls {
    kind: Option<ServeKind>,
    http: Vec<HttpMatch>,
    tcp: Vec<u16>,
    pub(super) postgres: Vec<DatabaseMatch>,
}

fn is_about(to: &[(Subject, Span)], scheme: Scheme) -> bool {
    let about = |subject: &Subject| subject.outside().is_some_and(|outside| outside.scheme() == scheme);
    to.iter().any(|(subject, _)| about(subject))
}

/// In which way somebody is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    Mesh,
    Requests,
    Tls,
    Postgres,
    Hooks,
}

impl From<&Subject> for Speech {
    fn from(subject: &Subject) -> Self {
        match subject.outside().map(OutsidePattern::scheme) {
            None => Self::Mesh,
            Some(Scheme::Https | Scheme::Http) => Self::Requests,
            Some(Scheme::Tls) => Self::Tls,
            Some(Scheme::Postgres) => Self::Postgres,
            Some(Scheme::Secret) => Self::Hooks,
        }
    }
}

impl Reader {
    pub(super) fn rules(&mut self, allow: Option<&Node>, deny: Option<&Node>) {
        for (effect, name, node) in [(Effect::Allow, "allow", allow), (Effect::Deny, "deny", deny)] {
            for node in self.records(node, name, self.most.rules, self.draft.rules.len()) {
                self.rule(effect, node);
            }
        }
    }

    fn rule(&mut self, effect: Effect, node: &Node) {
        let Some(fields) = self.fields(node, rule_keys(effect)) else {
            return;
        };
        let id_node = self.required(&fields, "id", node.span);
        let id = id_node.and_then(|node| self.rule_id(node));
        let span = id_node.map_or(node.span, |node| node.span);
        let from = self.callers(&fields, span);
        let to = self.callees(&fields, span);
        let tls = is_about(&to, Scheme::Tls);
        let Calls {
            kind,
            http,
            tcp,
            postgres,
        } = self.calls(&fields, effect, &to, span);
        let rule = Rule {
            effect,
            from: Vec::new(),
            to: Vec::new(),
            kind,
            http,
            tcp,
            postgres,
            justify: self.justify(&fields, effect, tls, span),
            until: fields.get("until").and_then(|node| self.timestamp(node)),
            reason: fields
                .get("reason")
                .and_then(|node| self.shown_text(node, code::UNTIL_REASON)),
            browser: fields.get("browser").is_some_and(|node| self.browser(node)),
            upgrade: fields.get("upgrade").map(|node| self.upgrade(node)).unwrap_or_default(),
            inject: fields.get("inject").and_then(|node| self.credential_name(node)),
            hashed: fields.get("path").is_some_and(|node| self.path(node)),
            place: Place {
                file: "".into(),
                line: 0,
            },
        };
        self.until_and_reason(&fields, effect, span);
        self.has_paths(&fields, &rule, &to);
        if effect == Effect::Allow && is_about(&to, Scheme::Postgres) && fields.get("inject").is_none() {
            let message = "a rule about postgres:// has an `inject`: the proxy authenticates, and not the bot";
            self.error(code::CREDENTIAL, span, message, "`inject` is missing");
        }
        let Some(id) = id else {
            return;
        };
        if let Some(first) = self.id_taken(&id) {
            self.duplicate("id", id.as_str(), span, first);
        } else {
            let inject = fields.get("inject").map(|node| node.span);
            let draft = RuleDraft {
                span,
                from,
                to,
                inject,
                rule,
            };
            self.draft.rules.insert(id, draft);
        }
    }

    pub(super) fn rule_id(&mut self, node: &Node) -> Option<RuleId> {
        let text = self.text(node)?;
        let id = RuleId::parse(text);
        if id.is_none() {
            self.error(
                code::RULE_ID,
                node.span,
                "an id has 1 to 63 of a-z, 0-9 and `-`",
                "not an id",
            );
        }
        id
    }

    pub(super) fn subjects(&mut self, fields: &Fields<'_>, key: &str, at: Span) -> Vec<(Subject, Span)> {
        let Some(node) = self.required(fields, key, at) else {
            return Vec::new();
        };
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            self.error(code::NO_MATCH, node.span, format!("`{key}` names nobody"), "empty");
        }
        self.items(node)
            .into_iter()
            .filter_map(|item| Some((self.subject(item)?, item.span)))
            .collect()
    }

    /// Reads `from`, which names bots of the mesh.
    pub(super) fn callers(&mut self, fields: &Fields<'_>, at: Span) -> Vec<(Subject, Span)> {
        let from = self.subjects(fields, "from", at);
        for (_, span) in from.iter().filter(|(subject, _)| subject.outside().is_some()) {
            self.error(code::OUTSIDE, *span, "nobody calls from outside", "only called");
        }
        from
    }

    /// Reads `to`: bots, or destinations outside that are spoken to in one way.
    pub(super) fn callees(&mut self, fields: &Fields<'_>, at: Span) -> Vec<(Subject, Span)> {
        let to = self.subjects(fields, "to", at);
        let way = |subject: &Subject| Speech::from(subject);
        if let Some((first, _)) = to.first()
            && let Some((_, span)) = to.iter().find(|(subject, _)| way(subject) != way(first))
        {
            let message = "`to` names bots, or requests to the outside, or TLS to the outside, or databases, or addresses that are secrets, and no two of them";
            let draft = Draft::new(code::OUTSIDE, *span, message, "another kind");
            self.push(draft.help("write a second rule for it"));
        }
        to
    }

    /// A connection into which nobody looks is there for a reason that stands beside it.
    fn justify(&mut self, fields: &Fields<'_>, effect: Effect, tls: bool, at: Span) -> Option<Arc<str>> {
        match fields.get("justify") {
            Some(node) if tls => self.shown_text(node, code::OUTSIDE),
            Some(node) => {
                let message = "`justify` is for rules about tls://, into which nobody looks";
                self.error(code::OUTSIDE, node.span, message, "not such a rule");
                None
            }
            None => {
                if tls && effect == Effect::Allow {
                    let message = "a rule about tls:// has a `justify`: the proxy sees the name and nothing else";
                    let draft = Draft::new(code::OUTSIDE, at, message, "`justify` is missing");
                    self.push(draft.help("https:// is called as http://HOST/ through the proxy, which opens TLS"));
                }
                None
            }
        }
    }

    fn browser(&mut self, node: &Node) -> bool {
        let Value::Bool(browser) = node.value else {
            self.error(code::WRONG_KIND, node.span, "`browser` is true or false", "neither");
            return false;
        };
        browser
    }

    /// What records have of a path; there is one word for it.
    fn path(&mut self, node: &Node) -> bool {
        let hashed = matches!(&node.value, Value::Text(text) if text == "hashed");
        if !hashed {
            let message = "`path` is `hashed`: records have a hash of it, and not what was called";
            self.error(code::WRONG_KIND, node.span, message, "another word");
        }
        hashed
    }

    /// Only requests have a path that could be hashed. What a deny rule covers beside them has none.
    fn has_paths(&mut self, fields: &Fields<'_>, rule: &Rule, to: &[(Subject, Span)]) {
        let Some(node) = fields.get("path") else { return };
        let opaque = is_about(to, Scheme::Tls) || is_about(to, Scheme::Postgres);
        if opaque || rule.kind == Some(ServeKind::Tcp) {
            let message = "`path` is for rules about requests: other connections have none";
            self.error(code::OTHER_PROTOCOL, node.span, message, "no path");
        }
    }

    /// The protocols that a caller may switch to; their order plays no part.
    fn upgrade(&mut self, node: &Node) -> Vec<Protocol> {
        let items = self.items(node);
        if items.is_empty() || items.len() > PROTOCOLS_MAX {
            self.error(
                code::WRONG_KIND,
                node.span,
                "`upgrade` has 1 to 8 protocols",
                "not as many",
            );
        }
        let mut protocols = Vec::new();
        for item in items {
            let Some(text) = self.text(item) else { continue };
            match Protocol::parse(text.as_bytes()) {
                Some(protocol) => protocols.push(protocol),
                None => self.error(
                    code::WRONG_KIND,
                    item.span,
                    "a protocol is one name as `Upgrade` has it, such as `websocket`, and not HTTP or TLS again",
                    "not such a name",
                ),
            }
        }
        protocols.sort();
        protocols.dedup();
        protocols
    }

    /// Checks that a rule which ends says why, that an allow rule with a reason ends, and that a deny rule has one.
    fn until_and_reason(&mut self, fields: &Fields<'_>, effect: Effect, at: Span) {
        let (until, reason) = (fields.get("until"), fields.get("reason"));
        let (message, span) = match (effect, until, reason) {
            (Effect::Deny, _, None) => ("a deny rule has a `reason`: the refused caller reads it", at),
            (Effect::Allow, Some(until), None) => ("a rule with `until` has a `reason`", until.span),
            (Effect::Allow, None, Some(reason)) => ("a rule with a `reason` has an `until`", reason.span),
            (Effect::Deny, _, Some(_)) | (Effect::Allow, Some(_), Some(_)) | (Effect::Allow, None, None) => return,
        };
        self.error(code::UNTIL_REASON, span, message, "here");
    }

    /// Reads which calls a rule speaks of: those of one protocol, or all of them.
    fn calls(&mut self, fields: &Fields<'_>, effect: Effect, to: &[(Subject, Span)], at: Span) -> Calls {
        // Where the destination could not be read, the databases say what was meant.
        let named = fields.get("postgres");
        if is_about(to, Scheme::Postgres) || (to.is_empty() && named.is_some()) {
            return self.databases(fields, effect, at);
        }
        if let Some(node) = named {
            let message = "`postgres` names databases of postgres:// outside";
            self.error(code::OUTSIDE, node.span, message, "no such destination");
            return Calls::default();
        }
        let kinds = [ServeKind::Http, ServeKind::Grpc, ServeKind::Tcp];
        let mut named = kinds
            .into_iter()
            .filter_map(|kind| Some((kind, fields.get(kind.as_str())?)));
        let (kind, node) = match (named.next(), named.next()) {
            (Some(found), None) => found,
            (Some(_), Some((_, other))) => {
                let draft = Draft::new(
                    code::OTHER_PROTOCOL,
                    other.span,
                    "a rule is of one protocol",
                    "another one",
                );
                self.push(draft.help("write a second rule for it"));
                return Calls::default();
            }
            (None, _) => {
                // A rule of another protocol has been refused already, by its key.
                if effect == Effect::Allow && !fields.refused() && !is_about(to, Scheme::Tls) {
                    let draft = Draft::new(
                        code::NO_MATCH,
                        at,
                        "the rule says who but not what",
                        "`http` is missing",
                    );
                    self.push(draft.help(if is_about(to, Scheme::Secret) {
                        "http: [POST /]"
                    } else {
                        "to allow everything: http: [\"* /**\"]"
                    }));
                }
                return Calls::default();
            }
        };
        self.outside_speaks(kind, node, to);
        if let (ServeKind::Grpc | ServeKind::Tcp, Some(upgrade)) = (kind, fields.get("upgrade")) {
            let calls = if kind == ServeKind::Grpc { "gRPC" } else { "TCP" };
            let message = format!("calls of {calls} switch to no other protocol");
            self.error(code::OTHER_PROTOCOL, upgrade.span, message, "never happens");
        }
        let secret = is_about(to, Scheme::Secret);
        if let (true, Some(upgrade)) = (secret, fields.get("upgrade")) {
            let message = "a webhook takes requests and switches to no other protocol";
            self.error(code::OUTSIDE, upgrade.span, message, "never happens");
        }
        let items = self.items(node);
        if items.is_empty() {
            let message = format!("`{}` has no items", kind.as_str());
            self.error(code::NO_MATCH, node.span, message, "empty");
        }
        let mut calls = Calls {
            kind: Some(kind),
            ..Calls::default()
        };
        for item in items {
            match kind {
                ServeKind::Http if secret => calls.http.extend(self.hook_item(item)),
                ServeKind::Http => calls.http.extend(self.http_item(item)),
                ServeKind::Grpc => calls.http.extend(self.grpc_item(item)),
                ServeKind::Tcp => calls.tcp.extend(self.port(item)),
            }
        }
        calls.tcp.sort_unstable();
        calls.tcp.dedup();
        calls
    }

    /// To the outside there are requests, or TLS of which nothing more can be said.
    fn outside_speaks(&mut self, kind: ServeKind, node: &Node, to: &[(Subject, Span)]) {
        let Some(outside) = to.iter().find_map(|(subject, _)| subject.outside()) else {
            return;
        };
        if outside.scheme() == Scheme::Tls {
            let message = format!(
                "a rule about tls:// has no `{}`: nobody sees what is in it",
                kind.as_str()
            );
            self.error(code::OUTSIDE, node.span, message, "never seen");
        } else if kind != ServeKind::Http {
            let message = format!("`{}` is for bots; the outside is called by `http`", kind.as_str());
            self.error(code::OUTSIDE, node.span, message, "not to the outside");
        }
    }

    /// Reads the port of a TCP service.
    pub(super) fn port(&mut self, node: &Node) -> Option<u16> {
        let port = match &node.value {
            Value::Integer(port) => u16::try_from(*port).ok().filter(|port| *port != 0),
            Value::Null | Value::Bool(_) | Value::Float | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
        };
        if port.is_none() {
            let message = "a port is a number from 1 to 65535, as in tcp: [5432]";
            self.error(code::TCP_PORT, node.span, message, "not a port");
        }
        port
    }

    fn grpc_item(&mut self, node: &Node) -> Option<HttpMatch> {
        let text = self.text(node)?;
        match grpc::item(text) {
            Ok(item) => Some(item),
            Err(error) => {
                let bare = text.strip_prefix("POST ").unwrap_or(text);
                let bare = bare.strip_prefix('/').unwrap_or(bare);
                let meant = [bare.to_owned(), format!("{bare}/*")];
                let meant = meant.into_iter().find(|meant| grpc::item(meant).is_ok());
                let help = meant.map(|meant| format!("did you mean `{meant}`?"));
                let draft = Draft::new(code::GRPC_ITEM, node.span, error.to_string(), "not such a method");
                self.push(draft.maybe_help(help));
                None
            }
        }
    }

    fn http_item(&mut self, node: &Node) -> Option<HttpMatch> {
        let text = self.text(node)?;
        let Some((method, path)) = text.split_once(' ') else {
            let draft = Draft::new(
                code::HTTP_ITEM,
                node.span,
                "an item is METHOD, one space and a path",
                "not such an item",
            );
            let help = if text.starts_with('/') {
                format!("GET {text}")
            } else {
                "GET /orders/*".to_owned()
            };
            self.push(draft.help(help));
            return None;
        };
        let method = self.method_match(node, method);
        let path = self.path_pattern(node, path);
        Some(HttpMatch {
            method: method?,
            path: path?,
        })
    }

    /// The path is a part of the secret, so a rule does not say it, and a bot does not either.
    fn hook_item(&mut self, node: &Node) -> Option<HttpMatch> {
        let item = self.http_item(node)?;
        if item.path.as_str() == "/" {
            return Some(item);
        }
        let message = "what is called by secret:// is called at `/`: its path is a part of the secret";
        let draft = Draft::new(code::OUTSIDE, node.span, message, "another path");
        self.push(draft.help(format!("http: [{} /]", item.method.as_str())));
        None
    }

    fn method_match(&mut self, node: &Node, text: &str) -> Option<MethodMatch> {
        if text == "*" {
            return Some(MethodMatch::Any);
        }
        self.method(node, text).map(MethodMatch::Is)
    }

    pub(super) fn method(&mut self, node: &Node, text: &str) -> Option<Method> {
        match Method::parse(text) {
            Ok(method) => Some(method),
            Err(error) => {
                let upper = text.to_ascii_uppercase();
                let help = (upper != text && Method::parse(&upper).is_ok()).then(|| format!("did you mean `{upper}`?"));
                self.push(Draft::new(code::METHOD, node.span, error.to_string(), "not such a method").maybe_help(help));
                None
            }
        }
    }

    fn path_pattern(&mut self, node: &Node, text: &str) -> Option<PathPattern> {
        match PathPattern::parse(text) {
            Ok(path) => Some(path),
            Err(error) => {
                self.error(code::PATH, node.span, error.to_string(), "not such a path");
                None
            }
        }
    }
}
