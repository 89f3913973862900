//! A rule and a call, attribute by attribute.

use spiffe::time::Timestamp;

use crate::call::{self, HttpAsk, What};
use crate::database::DatabaseMatch;
use crate::decision::{Attribute, Difference};
use crate::mesh::ServeKind;
use crate::rule::{HttpMatch, Rule};
use crate::upgrade::Protocol;

/// Says whether a rule has not ended: one with `until` has ended at that very moment.
pub(super) fn is_live(until: Option<Timestamp>, now: Timestamp) -> bool {
    until.is_none_or(|until| now < until)
}

/// Gives the attributes in which an allow rule and a call differ, but for their ends.
pub(crate) fn differences(rule: &Rule, what: &What, now: Timestamp) -> Vec<Difference> {
    compare(rule, what, now)
        .into_iter()
        .filter(|(matches, _)| !matches)
        .map(|(_, difference)| difference)
        .collect()
}

/// Counts the attributes in which an allow rule and a call differ, but for their ends, without allocating.
pub(super) fn count(rule: &Rule, what: &What, now: Timestamp) -> usize {
    let ended = usize::from(!is_live(rule.until, now));
    let Some(call) = what.http() else {
        return ended + usize::from(other(rule, what).is_some_and(|(matches, _)| !matches));
    };
    if rule.http.is_empty() {
        return ended + usize::from(other(rule, what).is_some());
    }
    let items = rule.http.iter().map(|item| distance(item, call)).min().unwrap_or(0);
    items + ended + usize::from(call.browser && !rule.browser) + usize::from(!switches(rule, call))
}

/// Compares what is no pair of requests: the port of a TCP connection, the database of a session, or the protocol where
/// they differ in that.
fn other(rule: &Rule, what: &What) -> Option<(bool, Difference)> {
    let has = match rule.kind {
        Some(kind) => kind.as_str(),
        None if rule.is_postgres() => call::POSTGRES,
        None => call::TLS,
    };
    let called = match what {
        What::Tcp { port } if rule.kind == Some(ServeKind::Tcp) => {
            let ports: Vec<String> = rule.tcp.iter().map(u16::to_string).collect();
            let port_has = difference(Attribute::Port, ports.join(", "), &port.to_string());
            return Some((rule.tcp.binary_search(port).is_ok(), port_has));
        }
        What::Postgres { database } if rule.is_postgres() => {
            let names: Vec<_> = rule.postgres.iter().map(DatabaseMatch::as_str).collect();
            let has = difference(Attribute::Database, names.join(", "), database.as_str());
            return Some((rule.postgres.iter().any(|item| item.matches(database)), has));
        }
        What::Tls if rule.is_tls() => return None,
        What::Http(_) => ServeKind::Http.as_str(),
        What::Tcp { .. } => call::TCP,
        What::Tls => call::TLS,
        What::Postgres { .. } => call::POSTGRES,
    };
    Some((false, difference(Attribute::Protocol, has.to_owned(), called)))
}

/// Says whether a rule lets a call switch to the protocol that it asks for, if it asks.
pub(super) fn switches(rule: &Rule, call: &HttpAsk) -> bool {
    call.upgrade
        .as_ref()
        .is_none_or(|protocol| rule.upgrade.contains(protocol))
}

fn distance(item: &HttpMatch, call: &HttpAsk) -> usize {
    usize::from(!item.method.matches(&call.method)) + usize::from(!item.path.matches(&call.path))
}

/// Compares an allow rule with a call in all attributes but their ends; says of each whether it matches.
///
/// Of several `http` items the one is taken that differs least, then the least by method and path, so that their order
/// plays no part.
pub(crate) fn compare(rule: &Rule, what: &What, now: Timestamp) -> Vec<(bool, Difference)> {
    let mut compared = Vec::with_capacity(4);
    let nearest = what.http().and_then(|call| {
        let items = rule.http.iter();
        Some((
            call,
            items.min_by_key(|item| (distance(item, call), item.method.as_str(), item.path.as_str()))?,
        ))
    });
    if nearest.is_none() {
        compared.extend(other(rule, what));
    }
    if let Some((call, item)) = nearest {
        let method = Difference {
            attribute: Attribute::Method,
            rule_has: item.method.as_str().to_owned(),
            call_has: call.method.to_string(),
        };
        let path = Difference {
            attribute: Attribute::Path,
            rule_has: item.path.as_str().to_owned(),
            call_has: call.path.to_string(),
        };
        compared.push((item.method.matches(&call.method), method));
        compared.push((item.path.matches(&call.path), path));
    }
    if let Some(until) = rule.until {
        let live = is_live(rule.until, now);
        // Not the time itself: two ends of one call would never tell the same.
        let call_has = if live { "an earlier time" } else { "a later time" };
        compared.push((live, difference(Attribute::Until, until.to_string(), call_has)));
    }
    let Some((call, _)) = nearest else {
        return compared;
    };
    if call.browser {
        compared.push((
            rule.browser,
            difference(Attribute::Browser, rule.browser.to_string(), "true"),
        ));
    }
    if let Some(protocol) = &call.upgrade {
        let names: Vec<_> = rule.upgrade.iter().map(Protocol::as_str).collect();
        let rule_has = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        compared.push((
            switches(rule, call),
            difference(Attribute::Upgrade, rule_has, protocol.as_str()),
        ));
    }
    compared
}

fn difference(attribute: Attribute, rule_has: String, call_has: &str) -> Difference {
    Difference {
        attribute,
        rule_has,
        call_has: call_has.to_owned(),
    }
}
