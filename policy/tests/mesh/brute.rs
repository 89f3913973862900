//! The rules read by brute force: every rule, every item, segment by segment. Slow, plain, and written apart from the index.

use crate::generate::{Ask, BOTS, Limit, Mesh, NOW, Rule};

/// An attribute, what the rule has, what the call has.
pub(crate) type Differs = (String, String, String);

/// What the reading comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) verdict: &'static str,
    pub(crate) reason: Option<&'static str>,
    pub(crate) rule: Option<String>,
    /// The rule and what differs.
    pub(crate) nearest: Option<(String, Vec<Differs>)>,
}

pub(crate) fn decide(mesh: &Mesh, ask: &Ask) -> Answer {
    let refused = |reason, rule: Option<&Rule>, nearest| Answer {
        verdict: "deny",
        reason: Some(reason),
        rule: rule.map(|rule| rule.id.clone()),
        nearest,
    };
    let Some(from) = ask
        .from
        .strip_prefix("spiffe://acme.internal/")
        .filter(|name| exists(name))
    else {
        return refused("no_rule", None, None);
    };
    if !exists(&ask.to) {
        return refused("no_rule", None, None);
    }
    let mut linking: Vec<&Rule> = mesh
        .rules
        .iter()
        .filter(|rule| names(mesh, &rule.from, from) && names(mesh, &rule.to, &ask.to))
        .collect();
    linking.sort_by(|left, right| left.id.cmp(&right.id));
    let (deny, allow): (Vec<&Rule>, Vec<&Rule>) = linking.iter().partition(|rule| rule.deny);
    if let Some(rule) = deny.iter().find(|rule| live(rule) && covers(rule, ask)) {
        return refused("denied_by_rule", Some(rule), None);
    }
    let covering: Vec<&&Rule> = allow.iter().filter(|rule| covers(rule, ask)).collect();
    let takes = |rule: &Rule| rule.browser || !ask.browser;
    if let Some(rule) = covering.iter().find(|rule| live(rule) && takes(rule)) {
        return Answer {
            verdict: "allow",
            reason: None,
            rule: Some(rule.id.clone()),
            nearest: None,
        };
    }
    let nearest = allow
        .iter()
        .map(|rule| (rule.id.clone(), differs(rule, ask)))
        .min_by_key(|(_, d)| d.len());
    if let Some(rule) = covering.iter().find(|rule| live(rule)) {
        return refused("browser_refused", Some(rule), nearest);
    }
    match covering.iter().find(|rule| takes(rule)) {
        Some(rule) => refused("rule_expired", Some(rule), nearest),
        None if audited(mesh, ask) => Answer {
            verdict: "audit",
            reason: None,
            rule: None,
            nearest,
        },
        None => refused("no_rule", None, nearest),
    }
}

/// Says whether an entry of `audit_only` that has not ended speaks of the callee; it carries no browsers' calls.
fn audited(mesh: &Mesh, ask: &Ask) -> bool {
    let speaks = |(to, until): &(Vec<String>, String)| names(mesh, to, &ask.to) && NOW < until.as_str();
    !ask.browser && mesh.audit_only.iter().any(speaks)
}

/// Says whether any allow rule speaks of calls from one to the other, whether or not the other exists.
pub(crate) fn links(mesh: &Mesh, ask: &Ask) -> bool {
    let from = ask
        .from
        .strip_prefix("spiffe://acme.internal/")
        .filter(|name| exists(name));
    from.is_some_and(|from| {
        mesh.rules
            .iter()
            .any(|rule| !rule.deny && names(mesh, &rule.from, from) && names(mesh, &rule.to, &ask.to))
    })
}

/// The limits that count the call, by id.
pub(crate) fn limits(mesh: &Mesh, ask: &Ask) -> Vec<(String, String, u32)> {
    let from = ask.from.strip_prefix("spiffe://acme.internal/");
    let Some(from) = from.filter(|from| exists(from) && exists(&ask.to)) else {
        return Vec::new();
    };
    let count = |limit: &&Limit| names(mesh, &limit.from, from) && names(mesh, &limit.to, &ask.to);
    let told = |limit: &Limit| (limit.id.clone(), limit.rate.clone(), limit.burst);
    let mut limits: Vec<_> = mesh.limits.iter().filter(count).map(told).collect();
    limits.sort();
    limits
}

fn exists(name: &str) -> bool {
    BOTS.iter().any(|(bot, _)| *bot == name)
}

fn names(mesh: &Mesh, subjects: &[String], name: &str) -> bool {
    subjects.iter().any(|subject| match subject.strip_prefix("group:") {
        Some(group) => mesh
            .groups
            .iter()
            .any(|(known, members)| known == group && names(mesh, members, name)),
        None => matches(&split(subject), &split(name), false),
    })
}

fn split(text: &str) -> Vec<&str> {
    text.split('/').collect()
}

/// Compares a pattern with a text, one segment after the other.
fn matches(pattern: &[&str], text: &[&str], fold: bool) -> bool {
    let same = |left: &str, right: &str| {
        if fold {
            left.to_lowercase() == right.to_lowercase()
        } else {
            left == right
        }
    };
    match (pattern, text) {
        (["**"], _) => true,
        ([], []) => true,
        ([], _) | (_, []) => false,
        ([first, pattern @ ..], [segment, text @ ..]) => {
            let one = match first.strip_suffix('*') {
                Some(start) => segment.len() > start.len() && same(&segment[..start.len()], start),
                None => same(first, segment),
            };
            one && matches(pattern, text, fold)
        }
    }
}

fn path_matches(pattern: &str, path: &str, fold: bool) -> bool {
    matches(&split(&pattern[1..]), &split(&path[1..]), fold)
}

fn live(rule: &Rule) -> bool {
    // All times are written in one form, in which their order is that of the texts.
    rule.until.as_deref().is_none_or(|until| NOW < until)
}

fn covers(rule: &Rule, ask: &Ask) -> bool {
    (rule.deny && rule.http.is_empty())
        || rule
            .http
            .iter()
            .any(|(method, path)| (method == "*" || *method == ask.method) && path_matches(path, &ask.path, rule.deny))
}

fn differs(rule: &Rule, ask: &Ask) -> Vec<Differs> {
    let item = |(method, path): &(String, String)| {
        let mut differs = Vec::new();
        if method != "*" && *method != ask.method {
            differs.push(("method".to_owned(), method.clone(), ask.method.clone()));
        }
        if !path_matches(path, &ask.path, false) {
            differs.push(("path".to_owned(), path.clone(), ask.path.clone()));
        }
        differs
    };
    let mut items = rule.http.clone();
    items.sort();
    let mut differs = items.iter().map(item).min_by_key(Vec::len).unwrap_or_default();
    if let Some(until) = rule.until.as_ref().filter(|_| !live(rule)) {
        differs.push(("until".to_owned(), until.clone(), "a later time".to_owned()));
    }
    if ask.browser && !rule.browser {
        differs.push(("browser".to_owned(), "false".to_owned(), "true".to_owned()));
    }
    differs
}
