//! From a draft to a mesh: what can be said only once everything was read.

mod build;

use std::collections::BTreeMap;

use crate::code;
use crate::credential::{CredentialName, Injection, Probe};
use crate::diagnostics::{Collector, Diagnostics, Draft};
use crate::lint;
use crate::mesh::{Mesh, Serve, ServeKind, Target};
use crate::outside::{OutsidePattern, Scheme};
use crate::overlap;
use crate::pattern::NamePattern;
use crate::read::{BotDraft, MeshDraft, RuleDraft, TestDraft};
use crate::rule::{Effect, Subject};
use crate::source::{Sources, Span};
use crate::suggest;

use build::build;

/// Compares everything with everything, and makes the mesh if there was no error.
pub(crate) fn resolve(draft: MeshDraft, mut collector: Collector, sources: Sources) -> Result<Mesh, Diagnostics> {
    let mut resolver = Resolver {
        draft: &draft,
        collector: &mut collector,
    };
    resolver.slice();
    resolver.bots();
    resolver.groups();
    resolver.rules();
    resolver.destinations();
    resolver.outsides();
    resolver.limits();
    resolver.audit_only();
    resolver.tests();
    overlap::check(&draft, &mut collector);
    if draft.trust_domain.is_none() && collector.errors() == 0 {
        let start = Span {
            source: 0,
            start: 0,
            end: 0,
        };
        collector.push(Draft::new(
            code::MISSING_KEY,
            start,
            "the mesh needs the key `trust_domain`",
            "missing here",
        ));
    }
    // Beside an error, much looks unused or empty only because a line could not be read.
    if draft.slice.is_none() && collector.errors() == 0 {
        lint::check(&draft, &mut collector);
    }
    match (&draft.trust_domain, collector.errors()) {
        (Some(_), 0) => Ok(build(draft, collector, &sources)?),
        _ => Err(collector.finish(&sources)),
    }
}

/// Says whether a bot's `serve` tells what it may: in a slice, of bots of other hosts, the protocol and the ports alone.
fn is_told(serve: &Serve, foreign: bool) -> bool {
    match serve {
        Serve::Http(Target::Endpoints(_)) | Serve::Grpc(Target::Endpoints(_)) => true,
        Serve::Http(target) | Serve::Grpc(target) => (*target == Target::Elsewhere) == foreign,
        Serve::Tcp(tcp) if foreign => {
            let bare = |(port, target): (&u16, &Target)| *target == Target::Port(*port);
            tcp.ports.iter().all(bare) && !tcp.proxy_protocol
        }
        Serve::Tcp(_) => true,
    }
}

struct Resolver<'d> {
    draft: &'d MeshDraft,
    collector: &'d mut Collector,
}

impl Resolver<'_> {
    fn push(&mut self, draft: Draft) {
        self.collector.push(draft);
    }

    /// A slice stands alone and has no tests.
    fn slice(&mut self) {
        let Some((_, span)) = &self.draft.slice else {
            return;
        };
        if self.draft.files > 1 {
            self.push(Draft::new(
                code::SLICE,
                *span,
                "a slice is not merged with other files",
                "a slice",
            ));
        }
        if !self.draft.tests.is_empty() {
            self.push(Draft::new(code::SLICE, *span, "a slice has no tests", "a slice"));
        }
    }

    fn bots(&mut self) {
        for (name, bot) in &self.draft.bots {
            let foreign = match &self.draft.slice {
                Some((host, _)) => !bot.hosts.iter().any(|pattern| pattern.matches(host)),
                None => false,
            };
            match (&bot.attest, foreign) {
                (None, false) => {
                    let message = format!("bot `{name}` needs the key `attest`");
                    self.push(
                        Draft::new(code::MISSING_KEY, bot.span, message, "no process can be this bot")
                            .help("attest: {user: NAME}"),
                    );
                }
                (Some(_), true) => {
                    let span = bot.attest_span.unwrap_or(bot.span);
                    self.push(Draft::new(
                        code::SLICE,
                        span,
                        "a slice tells no `attest` of other hosts' bots",
                        "here",
                    ));
                }
                (Some(_), false) | (None, true) => {}
            }
            if let Some((serve, span)) = &bot.serve
                && !is_told(serve, foreign)
            {
                let message = if foreign {
                    "a slice does not tell where other hosts' bots serve"
                } else {
                    "`serve` is a map, as in {http: 8080}"
                };
                let code = if foreign { code::SLICE } else { code::SERVE };
                self.push(Draft::new(code, *span, message, "here"));
            }
        }
    }

    /// A destination outside that no rule speaks of, and where no credential is exchanged, would be looked for in vain.
    fn outsides(&mut self) {
        let rules = self.draft.rules.values().flat_map(|rule| &rule.to);
        let called = rules.filter_map(|(subject, _)| subject.outside()).cloned();
        let credentials = self.draft.credentials.values();
        let exchanged = credentials.filter_map(|found| found.credential.exchanged_at());
        let called: Vec<OutsidePattern> = called.chain(exchanged).collect();
        for (name, found) in &self.draft.outsides {
            if !called.iter().any(|rule| rule.covers(name) || name.covers(rule)) {
                let message = format!("`destinations` names {name}, and no rule does");
                self.push(Draft::new(code::OUTSIDE, found.span, message, "called by nobody"));
            }
        }
    }

    fn groups(&mut self) {
        for (name, group) in &self.draft.groups {
            for (pattern, span) in &group.members {
                self.known_bot(pattern, *span, &format!("group `{name}`"));
            }
        }
    }

    fn rules(&mut self) {
        for rule in self.draft.rules.values() {
            self.known("from", &rule.from);
            self.known("to", &rule.to);
            if rule.rule.effect == Effect::Allow {
                self.callees_serve(&rule.to);
            }
            self.callees_speak(rule);
            self.injects(rule);
            self.holds_addresses(&rule.to);
        }
        self.probes();
    }

    /// A rule that adds a credential names one that exists, and calls one place outside by verified TLS, in the way in which
    /// the credential is added.
    fn injects(&mut self, rule: &RuleDraft) {
        let (Some(name), Some(span)) = (&rule.rule.inject, rule.inject) else {
            return;
        };
        if !self.draft.credentials.contains_key(name) {
            let help = suggest::help(name.as_str(), self.draft.credentials.keys().map(|name| name.as_str()));
            let message = format!("`inject` names credential `{name}`, which is not defined");
            self.push(Draft::new(code::CREDENTIAL, span, message, "unknown credential").maybe_help(help));
        }
        if rule.to.iter().any(|(to, _)| to.credential().is_some()) {
            let message = "the address is the credential, and nothing else is added to such a call";
            return self.push(Draft::new(code::CREDENTIAL, span, message, "beside secret://"));
        }
        let verified = |subject: &Subject| {
            let scheme = subject.outside().map(OutsidePattern::scheme);
            matches!(scheme, Some(Scheme::Https | Scheme::Postgres))
        };
        if let Some((to, place)) = rule.to.iter().find(|(to, _)| !verified(to)) {
            let message = format!("a credential is added to https:// and postgres:// only, and the rule calls `{to}`");
            let draft = Draft::new(code::CREDENTIAL, span, message, "no credential").also(*place, "neither");
            self.push(draft.help(
                "a bot of the mesh needs none: it is called by an SVID; http:// shows it to everybody on the way",
            ));
        }
        let is_postgres = |subject: &Subject| subject.outside().is_some_and(|to| to.scheme() == Scheme::Postgres);
        if let Some(found) = self.draft.credentials.get(name) {
            if let Injection::Url(_) = &found.credential.injection {
                let message = format!("credential `{name}` is an address, which is called and not added");
                let draft = Draft::new(code::CREDENTIAL, span, message, "does not fit");
                return self.push(draft.help(format!("to: \"secret://{name}\", and no `inject`")));
            }
            let wanted = matches!(found.credential.injection, Injection::Postgres { .. });
            let way = found.credential.injection.as_str();
            let other = |to: &Subject| verified(to) && is_postgres(to) != wanted;
            if let Some((to, place)) = rule.to.iter().find(|(to, _)| other(to)) {
                let message = format!("credential `{name}` is added by `{way}`, and the rule calls `{to}`");
                let draft = Draft::new(code::CREDENTIAL, span, message, "does not fit").also(*place, "called");
                self.push(draft.help("postgres:// takes a credential with `postgres`, and https:// every other one"));
            }
        }
        if !rule.rule.upgrade.is_empty() {
            let message = "a call that switches protocols gets no credential: nobody would look at what comes back";
            self.push(Draft::new(code::CREDENTIAL, span, message, "beside `upgrade`"));
        }
    }

    /// What is called as `secret://NAME` is the address that the credential of that name holds.
    fn holds_addresses(&mut self, to: &[(Subject, Span)]) {
        for (subject, span) in to {
            let Some(name) = subject.credential() else { continue };
            let draft = match self.draft.credentials.get(name) {
                Some(found) if matches!(found.credential.injection, Injection::Url(_)) => continue,
                Some(found) => {
                    let way = found.credential.injection.as_str();
                    let message =
                        format!("`to` leads to credential `{name}`, which is added by `{way}` and is no address");
                    let draft = Draft::new(code::CREDENTIAL, *span, message, "no address");
                    draft.help("a webhook's credential says where it is: url: https://hooks.slack.com")
                }
                None => {
                    let help = suggest::help(name, self.draft.credentials.keys().map(|name| name.as_str()));
                    let message = format!("`to` leads to credential `{name}`, which is not defined");
                    Draft::new(code::CREDENTIAL, *span, message, "unknown credential").maybe_help(help)
                }
            };
            self.push(draft);
        }
    }

    /// A probe is a call that a bot may make with the credential: what it is allowed by is what it tells of.
    fn probes(&mut self) {
        // A slice has the rules of its own bots, and the probe may be for another host's.
        if self.draft.slice.is_some() {
            return;
        }
        for (name, found) in &self.draft.credentials {
            let (Some(probe), Some(span)) = (&found.credential.probe, found.probe) else {
                continue;
            };
            if !self.draft.rules.values().any(|rule| allows(rule, name, probe)) {
                let message = format!("no rule that says `inject: {name}` allows `{probe}`");
                let draft = Draft::new(code::CREDENTIAL, span, message, "nobody may ask this");
                self.push(draft.help("a probe is made for a bot by a rule of its own: name a request that one allows"));
            }
        }
    }

    fn destinations(&mut self) {
        for (name, found) in &self.draft.destinations {
            let bot = self.draft.bots.get(name);
            if bot.is_some_and(|bot| bot.serve.is_some()) || self.draft.slice.is_some() {
                continue;
            }
            let what = format!("`destinations` names bot `{name}`");
            let draft = if bot.is_some() {
                let message = format!("{what}, which serves nothing");
                let draft = Draft::new(code::SERVES_NOTHING, found.span, message, "serves nothing");
                draft.help("add serve: {http: …} to the bot")
            } else {
                let help = suggest::help(name.as_str(), self.draft.bots.keys().map(|bot| bot.as_str()));
                let message = format!("{what}, which is not defined");
                Draft::new(code::UNKNOWN_BOT, found.span, message, "unknown bot").maybe_help(help)
            };
            self.push(draft);
        }
    }

    fn limits(&mut self) {
        for limit in self.draft.limits.values() {
            self.known("from", &limit.from);
            self.known("to", &limit.to);
            self.callees_serve(&limit.to);
            // A slice counts calls that none of its rules allows, and has no credential for those.
            if self.draft.slice.is_none() {
                self.holds_addresses(&limit.to);
            }
        }
    }

    fn audit_only(&mut self) {
        for entry in &self.draft.audit_only {
            self.known("to", &entry.to);
            self.callees_serve(&entry.to);
        }
    }

    /// Refuses bots and groups by names that do not exist.
    fn known(&mut self, key: &str, subjects: &[(Subject, Span)]) {
        for (subject, span) in subjects {
            match subject {
                Subject::Bots(pattern) => self.known_bot(pattern, *span, &format!("`{key}`")),
                Subject::Group(name) => self.known_group(name, *span, key),
                Subject::Outside(_) => {}
            }
        }
    }

    /// Refuses a bot by name that does not exist. A slice names bots that it does not hold.
    fn known_bot(&mut self, pattern: &NamePattern, span: Span, what: &str) {
        let Some(name) = pattern.literal() else {
            return;
        };
        if self.draft.slice.is_some() || self.draft.bots.contains_key(name) {
            return;
        }
        let help = suggest::help(name.as_str(), self.draft.bots.keys().map(|bot| bot.as_str()));
        let message = format!("{what} names bot `{name}`, which is not defined");
        self.push(Draft::new(code::UNKNOWN_BOT, span, message, "unknown bot").maybe_help(help));
    }

    fn known_group(&mut self, name: &str, span: Span, key: &str) {
        if self.draft.groups.contains_key(name) {
            return;
        }
        let found = suggest::nearest(name, self.draft.groups.keys().map(|group| &**group));
        let help = found.map(|found| format!("did you mean `group:{found}`?"));
        let message = format!("`{key}` names group `{name}`, which is not defined");
        self.push(Draft::new(code::UNKNOWN_GROUP, span, message, "unknown group").maybe_help(help));
    }

    /// Refuses a rule that names a bot of another protocol. What patterns and groups match besides is left out by an allow
    /// rule and covered by a deny rule.
    fn callees_speak(&mut self, rule: &RuleDraft) {
        let Some(kind) = rule.rule.kind else {
            return;
        };
        for (subject, span) in &rule.to {
            let Subject::Bots(pattern) = subject else {
                continue;
            };
            let bot = pattern.literal().and_then(|name| self.draft.bots.get(name));
            let Some((serve, _)) = bot.and_then(|bot| bot.serve.as_ref()) else {
                continue;
            };
            if rule.rule.effect == Effect::Allow
                && let Serve::Tcp(tcp) = serve
                && let Some(port) = rule.rule.tcp.iter().find(|port| !tcp.ports.contains_key(port))
            {
                let message = format!("the rule has port {port}, and bot `{pattern}` does not serve it");
                self.push(Draft::new(code::TCP_PORT, *span, message, "not served"));
            }
            if serve.kind() == kind {
                continue;
            }
            let (has, serves) = (kind.as_str(), serve.kind().as_str());
            let message = format!("the rule has `{has}`, and bot `{pattern}` serves {serves}");
            let draft = Draft::new(code::OTHER_PROTOCOL, *span, message, format!("serves {serves}"));
            let example = match serve.kind() {
                ServeKind::Http => "write http: [GET /orders/*], or serve: {grpc: …} in the bot",
                ServeKind::Grpc => "write grpc: [acme.orders.v1.Orders/Get], or serve: {http: …} in the bot",
                ServeKind::Tcp => "write tcp: [5432], or serve: {http: …} in the bot",
            };
            self.push(draft.help(example));
        }
    }

    fn callees_serve(&mut self, to: &[(Subject, Span)]) {
        for (subject, span) in to {
            let Subject::Bots(pattern) = subject else {
                continue;
            };
            let bot = pattern.literal().and_then(|name| self.draft.bots.get(name));
            if bot.is_some_and(|bot| bot.serve.is_none()) && self.draft.slice.is_none() {
                let message = format!("`to` names bot `{pattern}`, which serves nothing");
                let draft = Draft::new(code::SERVES_NOTHING, *span, message, "serves nothing");
                self.push(draft.help("add serve: {http: …} to the bot"));
            }
        }
    }

    fn tests(&mut self) {
        for test in &self.draft.tests {
            let to = test.to.0.bot().map(|bot| (bot, &test.to.1));
            let from = Some((&test.from.0, &test.from.1));
            for (name, span) in [from, to].into_iter().flatten() {
                if !self.draft.bots.contains_key(name) && self.draft.slice.is_none() {
                    let help = suggest::help(name.as_str(), self.draft.bots.keys().map(|bot| bot.as_str()));
                    let message = format!("the test names bot `{name}`, which is not defined");
                    self.push(Draft::new(code::UNKNOWN_BOT, *span, message, "unknown bot").maybe_help(help));
                }
            }
            self.by(test);
        }
    }

    /// `by` names a rule, and the test has calls that a rule of its kind can decide.
    fn by(&mut self, test: &TestDraft) {
        let Some((id, span)) = &test.by else {
            return;
        };
        let Some(rule) = self.draft.rules.get(id) else {
            let help = suggest::help(id.as_str(), self.draft.rules.keys().map(|rule| rule.as_str()));
            let message = format!("`by` names rule `{id}`, which is not defined");
            self.push(Draft::new(code::TEST, *span, message, "unknown rule").maybe_help(help));
            return;
        };
        let effect = rule.rule.effect;
        if !test.calls.iter().any(|call| call.expected == effect.into()) {
            let list = if effect == Effect::Allow { "allow" } else { "deny" };
            let message = format!("rule `{id}` decides no call of the test: there is no `{list}`");
            self.push(Draft::new(code::TEST, *span, message, "decides nothing here"));
        }
    }
}

/// Says whether a rule lets some bot make the probe with this credential.
fn allows(rule: &RuleDraft, name: &CredentialName, probe: &Probe) -> bool {
    let to = OutsidePattern::from(probe.to.clone());
    let adds = rule.rule.effect == Effect::Allow && rule.rule.inject.as_ref() == Some(name);
    let calls = rule
        .to
        .iter()
        .any(|(subject, _)| subject.outside().is_some_and(|outside| outside.covers(&to)));
    let asks = rule
        .rule
        .http
        .iter()
        .any(|item| item.method.matches(&probe.method) && item.path.matches(&probe.path));
    adds && calls && asks
}

/// The bots of a draft by name, for the checks that need them all.
pub(crate) type Bots = BTreeMap<spiffe::id::BotName, BotDraft>;
