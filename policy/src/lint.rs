//! What is allowed but looks like a mistake.

use std::collections::BTreeSet;

use crate::code;
use crate::credential::Injection;
use crate::diagnostics::{Collector, Draft};
use crate::mesh::ServeKind;
use crate::pattern::NamePattern;
use crate::read::{BotDraft, MeshDraft};
use crate::rule::{Effect, Subject};
use crate::source::Span;

/// Programs that run whatever file they are given, without their version.
const INTERPRETERS: [&str; 26] = [
    "ash", "bash", "bun", "busybox", "dash", "deno", "dotnet", "env", "fish", "guile", "java", "ksh", "lua", "luajit",
    "node", "nodejs", "perl", "php", "pwsh", "pypy", "python", "ruby", "sh", "tclsh", "uv", "zsh",
];

/// Adds the warnings.
pub(crate) fn check(draft: &MeshDraft, collector: &mut Collector) {
    interpreters(draft, collector);
    empty_patterns(draft, collector);
    unused_groups(draft, collector);
    audit_only(draft, collector);
    wide_denials(draft, collector);
    credentials(draft, collector);
}

/// A credential that nobody uses, and one that several bots use without saying why.
fn credentials(draft: &MeshDraft, collector: &mut Collector) {
    for (name, found) in &draft.credentials {
        let rules = draft.rules.values().filter(|rule| rule.uses(name.as_str()));
        let from: Vec<_> = rules.flat_map(|rule| &rule.from).map(|(subject, _)| subject).collect();
        if from.is_empty() {
            let message = format!("no rule uses credential `{name}`");
            collector.push(Draft::new(code::UNUSED_CREDENTIAL, found.span, message, "unused"));
            continue;
        }
        if matches!(found.credential.injection, Injection::Federate(_)) {
            // Each bot has a token of its own.
            continue;
        }
        let uses = |bot: &spiffe::id::BotName| from.iter().any(|subject| names(draft, subject, bot));
        let bots: Vec<_> = draft.bots.keys().filter(|bot| uses(bot)).collect();
        if let ([first, second, ..], None) = (&bots[..], &found.credential.shared) {
            let message = format!(
                "credential `{name}` serves {} bots, such as `{first}` and `{second}`",
                bots.len()
            );
            let draft = Draft::new(code::SHARED_CREDENTIAL, found.span, message, "shared");
            collector.push(draft.help("one for each bot, or `shared: REASON`"));
        }
    }
}

fn names(draft: &MeshDraft, subject: &Subject, bot: &spiffe::id::BotName) -> bool {
    match subject {
        Subject::Bots(pattern) => pattern.matches(bot),
        Subject::Group(group) => {
            let group = draft.groups.get(group);
            group.is_some_and(|group| group.members.iter().any(|(pattern, _)| pattern.matches(bot)))
        }
        Subject::Outside(_) => false,
    }
}

fn interpreters(draft: &MeshDraft, collector: &mut Collector) {
    let sets = draft
        .bots
        .iter()
        .flat_map(|(name, bot)| bot.attest.iter().flatten().map(move |set| (name, set)));
    for (name, (set, span)) in sets {
        if let Some(exe) = set
            .exe
            .as_deref()
            .filter(|exe| set.unit.is_none() && is_interpreter(exe))
        {
            let message = format!("bot `{name}` is attested by the interpreter `{exe}`");
            let draft = Draft::new(code::INTERPRETER, *span, message, "runs whatever file it is given");
            collector.push(draft.help("the user alone tells this bot apart; give it a user of its own"));
        }
    }
}

/// Says whether the last part of a path is an interpreter, with or without a version: `python3.13`.
fn is_interpreter(exe: &str) -> bool {
    let name = exe.rsplit('/').next().unwrap_or_default();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    INTERPRETERS.contains(&name)
}

/// Which bots a pattern is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// All.
    Any,
    /// Those that serve something, or this.
    Callee(Option<ServeKind>),
}

fn empty_patterns(draft: &MeshDraft, collector: &mut Collector) {
    let matched = |pattern: &NamePattern, end: End| {
        let fits = |bot: &BotDraft| match (end, &bot.serve) {
            (End::Any, _) | (End::Callee(None), Some(_)) => true,
            (End::Callee(Some(kind)), Some((serve, _))) => serve.kind() == kind,
            (End::Callee(_), None) => false,
        };
        draft.bots.iter().any(|(name, bot)| pattern.matches(name) && fits(bot))
    };
    let mut push = |span, pattern: &NamePattern, what: &str| {
        let message = format!("`{pattern}` matches no bot{what}");
        collector.push(Draft::new(code::EMPTY_PATTERN, span, message, "matches nothing"));
    };
    // Many rules share few patterns: each is tried once.
    let mut known: std::collections::BTreeMap<(&str, End), bool> = std::collections::BTreeMap::new();
    let mut named: Vec<(&(Subject, Span), End)> = Vec::new();
    for rule in draft.rules.values() {
        let callee = match rule.rule.effect {
            Effect::Allow => End::Callee(rule.rule.kind),
            Effect::Deny => End::Any,
        };
        named.extend(rule.from.iter().map(|found| (found, End::Any)));
        named.extend(rule.to.iter().map(|found| (found, callee)));
    }
    for limit in draft.limits.values() {
        named.extend(limit.from.iter().map(|found| (found, End::Any)));
        named.extend(limit.to.iter().map(|found| (found, End::Callee(None))));
    }
    for entry in &draft.audit_only {
        named.extend(entry.to.iter().map(|found| (found, End::Callee(None))));
    }
    for ((subject, span), end) in named {
        let Subject::Bots(pattern) = subject else {
            continue;
        };
        let any = *known
            .entry((pattern.as_str(), end))
            .or_insert_with(|| matched(pattern, end));
        if pattern.literal().is_none() && !any {
            let what = match end {
                End::Any => String::new(),
                End::Callee(None) => " that serves anything".to_owned(),
                End::Callee(Some(kind)) => format!(" that serves {}", kind.as_str()),
            };
            push(*span, pattern, &what);
        }
    }
    for (pattern, span) in draft.groups.values().flat_map(|group| &group.members) {
        if pattern.literal().is_none() && !matched(pattern, End::Any) {
            push(*span, pattern, "");
        }
    }
}

fn unused_groups(draft: &MeshDraft, collector: &mut Collector) {
    let used: BTreeSet<&str> = draft
        .rules
        .values()
        .flat_map(|rule| rule.from.iter().chain(&rule.to))
        .chain(
            draft
                .limits
                .values()
                .flat_map(|limit| limit.from.iter().chain(&limit.to)),
        )
        .chain(draft.audit_only.iter().flat_map(|entry| &entry.to))
        .filter_map(|(subject, _)| match subject {
            Subject::Group(name) => Some(&**name),
            Subject::Bots(_) | Subject::Outside(_) => None,
        })
        .collect();
    for (name, group) in &draft.groups {
        if !used.contains(&**name) {
            let message = format!("no rule uses group `{name}`");
            collector.push(Draft::new(code::UNUSED_GROUP, group.span, message, "unused"));
        }
    }
}

/// Says where a deny rule holds for more than it seems to say: an attribute that a protocol lacks matches, so a rule about
/// paths denies every TCP connection to the bots that it speaks of, and a rule about ports every request.
fn wide_denials(draft: &MeshDraft, collector: &mut Collector) {
    let denials = draft.rules.iter().filter(|(_, rule)| rule.rule.effect == Effect::Deny);
    for (id, rule) in denials {
        let Some(kind) = rule.rule.kind else {
            continue;
        };
        let is_tcp = kind == ServeKind::Tcp;
        let other = |pattern: &NamePattern| {
            let mut bots = draft.bots.iter();
            bots.find_map(|(name, bot)| {
                let (serve, _) = bot.serve.as_ref()?;
                let differs = (serve.kind() == ServeKind::Tcp) != is_tcp;
                (differs && pattern.matches(name)).then_some((name, serve.kind()))
            })
        };
        for (subject, span) in &rule.to {
            let patterns: Vec<&NamePattern> = match subject {
                Subject::Bots(pattern) => vec![pattern],
                Subject::Group(name) => draft
                    .groups
                    .get(name)
                    .map(|group| group.members.iter().map(|(pattern, _)| pattern).collect())
                    .unwrap_or_default(),
                Subject::Outside(_) => Vec::new(),
            };
            let Some((bot, serves)) = patterns.into_iter().find_map(other) else {
                continue;
            };
            let lacks = if is_tcp { "no port" } else { "neither method nor path" };
            let serves = serves.as_str();
            let message = format!("rule `{id}` denies every {serves} call to `{bot}`");
            let draft = Draft::new(
                code::WIDE_DENIAL,
                *span,
                message,
                format!("matches a bot that serves {serves}"),
            );
            collector.push(draft.help(format!(
                "a {serves} call has {lacks}, and what a call lacks matches in a deny rule; name the bots that are meant"
            )));
            break;
        }
    }
}

/// Says that calls without a rule are carried, and till when: what is on is told each time that the file is read.
fn audit_only(draft: &MeshDraft, collector: &mut Collector) {
    for entry in &draft.audit_only {
        let to: Vec<String> = entry.to.iter().map(|(subject, _)| subject.to_string()).collect();
        let (until, span) = entry.until;
        let message = format!(
            "calls to {} that no rule allows are carried until {until}",
            to.join(", ")
        );
        collector.push(Draft::new(code::AUDIT_ONLY, span, message, "on until then"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_known_with_and_without_version() {
        for exe in INTERPRETERS.iter().map(|name| format!("/usr/bin/{name}")) {
            assert!(is_interpreter(&exe), "{exe}");
        }
        for exe in [
            "/usr/bin/python3",
            "/usr/bin/python3.13",
            "/usr/bin/ruby3.3",
            "/usr/local/bin/node22",
            "/usr/bin/perl5.40.1",
            "/usr/bin/lua-5.4",
        ] {
            assert!(is_interpreter(exe), "{exe}");
        }
        for exe in [
            "/srv/orders/bin/orders",
            "/usr/bin/pythonic",
            "/usr/bin/node_exporter",
            "/srv/python/orders",
            "/usr/bin/7z",
        ] {
            assert!(!is_interpreter(exe), "{exe}");
        }
    }
}
