//! The part of a mesh that one host needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spiffe::id::{BotName, HostName};

use super::{Bot, Mesh, Serve, Target};
use crate::audit_only::AuditOnly;
use crate::bits::Bits;
use crate::credential::{Credential, CredentialName};
use crate::destination::{Destination, OutsideDestination};
use crate::diagnostics::Diagnostics;
use crate::limit::Limit;
use crate::outside::OutsidePattern;
use crate::roster::Roster;
use crate::rule::{Effect, Rule, RuleId, Subject};

/// Cuts the slice of a host out of a mesh.
pub(super) fn cut(mesh: &Mesh, host: &HostName) -> Mesh {
    let mut roster = mesh.roster();
    let own = own_bots(mesh, host);
    let mut kept = own.clone();
    let mut rules: Vec<(&RuleId, &Arc<Rule>)> = Vec::new();
    for (id, rule) in &mesh.rules {
        let (from, to) = (roster.expand(&rule.from), mesh.callees_of(&mut roster, rule));
        let (calls, called) = (from.intersects(&own), to.intersects(&own));
        if calls {
            kept.extend(&to);
        }
        if called {
            kept.extend(&from);
        }
        if calls || called {
            rules.push((id, rule));
        }
    }
    let credentials = credentials(mesh, &rules);
    let outsides = outsides(mesh, &rules, &credentials);
    let audit_only = audits(mesh, &mut roster, &own, &mut kept);
    let destinations = destinations(mesh, &mut roster, &own);
    let limits = limits(mesh, &mut roster, &own);
    let limited = limits.values().flat_map(|limit| limit.from.iter().chain(&limit.to));
    let groups: BTreeSet<&str> = rules
        .iter()
        .flat_map(|(_, rule)| rule.from.iter().chain(&rule.to))
        .chain(limited)
        .chain(audit_only.iter().flat_map(|entry| &entry.to))
        .filter_map(group_of)
        .collect();
    let bots = kept
        .iter()
        .filter_map(|number| Some((roster.name(number)?, own.contains(number))))
        .filter_map(|(name, is_own)| Some((name.clone(), seen_from(mesh.bots.get(name)?, is_own))))
        .collect();
    Mesh {
        trust_domain: mesh.trust_domain.clone(),
        slice: Some(host.clone()),
        bots,
        groups: mesh
            .groups
            .iter()
            .filter(|(name, _)| groups.contains(&***name))
            .map(|(n, g)| (n.clone(), g.clone()))
            .collect(),
        rules: rules
            .into_iter()
            .map(|(id, rule)| (id.clone(), Arc::clone(rule)))
            .collect(),
        destinations,
        outsides,
        limits,
        audit_only,
        credentials,
        tests: Vec::new(),
        warnings: Diagnostics::default(),
    }
}

fn own_bots(mesh: &Mesh, host: &HostName) -> Bits {
    let mut own = Bits::empty(mesh.bots.len());
    for (number, bot) in mesh.bots.values().enumerate() {
        if bot.may_run_on(host) {
            own.insert(number);
        }
    }
    own
}

/// Names the bots that those of a host may call. A rule that forbids a call needs the name of the other end, and
/// nobody's address.
pub(super) fn callees(mesh: &Mesh, host: &HostName) -> BTreeSet<BotName> {
    let mut roster = mesh.roster();
    let own = own_bots(mesh, host);
    let called = called_by(mesh, &mut roster, &own);
    called
        .iter()
        .filter_map(|number| roster.name(number).cloned())
        .collect()
}

/// Gives the bots that a host's own may call by rules, or by `audit_only`.
fn called_by<'m>(mesh: &'m Mesh, roster: &mut Roster<'m>, own: &Bits) -> Bits {
    let mut called = Bits::empty(roster.len());
    if own.iter().next().is_none() {
        return called;
    }
    for rule in mesh.rules.values().filter(|rule| rule.effect == Effect::Allow) {
        if roster.expand(&rule.from).intersects(own) {
            called.extend(&mesh.callees_of(roster, rule));
        }
    }
    for entry in &mesh.audit_only {
        called.extend(&roster.expand(&entry.to));
    }
    called
}

/// Gives what is said of calls to the host's own bots and to those that its own may call.
fn destinations<'m>(mesh: &'m Mesh, roster: &mut Roster<'m>, own: &Bits) -> BTreeMap<BotName, Destination> {
    if mesh.destinations.is_empty() {
        return BTreeMap::new();
    }
    let mut callees = called_by(mesh, roster, own);
    callees.extend(own);
    let called = |name: &BotName| roster.number(name).is_some_and(|number| callees.contains(number));
    let needed = mesh.destinations.iter().filter(|(name, _)| called(name));
    needed.map(|(name, found)| (name.clone(), *found)).collect()
}

/// Gives what is said of the destinations outside that some rules speak of, and of those where their credentials are exchanged.
fn outsides(
    mesh: &Mesh,
    rules: &[(&RuleId, &Arc<Rule>)],
    credentials: &BTreeMap<CredentialName, Credential>,
) -> BTreeMap<OutsidePattern, OutsideDestination> {
    let called = rules.iter().flat_map(|(_, rule)| &rule.to);
    let called = called.filter_map(Subject::outside).cloned();
    let exchanged = credentials.values().filter_map(Credential::exchanged_at);
    let called: BTreeSet<OutsidePattern> = called.chain(exchanged).collect();
    let needed = mesh
        .outsides
        .iter()
        .filter(|(name, _)| called.iter().any(|rule| rule.covers(name) || name.covers(rule)));
    needed.map(|(name, found)| (name.clone(), found.clone())).collect()
}

/// Gives the credentials that the host's proxy adds to calls, or calls. Rules about the outside are here for their callers only.
fn credentials(mesh: &Mesh, rules: &[(&RuleId, &Arc<Rule>)]) -> BTreeMap<CredentialName, Credential> {
    let named = rules.iter().flat_map(|(_, rule)| rule.credentials());
    let found = named.filter_map(|name| mesh.credentials.get_key_value(name));
    found
        .map(|(name, credential)| (name.clone(), credential.clone()))
        .collect()
}

/// Gives the limits that the host's proxy counts by: those on calls to its own bots, and on calls by them to whoever has no
/// proxy before it, the outside and bots with their own TLS. Who may call is known already.
fn limits<'m>(mesh: &'m Mesh, roster: &mut Roster<'m>, own: &Bits) -> BTreeMap<RuleId, Limit> {
    let mut alone = Bits::empty(mesh.bots.len());
    for (number, bot) in mesh.bots.values().enumerate() {
        if let Some(Target::Endpoints(_)) = bot.serve.as_ref().and_then(Serve::target) {
            alone.insert(number);
        }
    }
    let counted = mesh.limits.iter().filter(|(_, limit)| {
        let to = roster.expand(&limit.to);
        let alone = limit.to.iter().any(|to| matches!(to, Subject::Outside(_))) || to.intersects(&alone);
        to.intersects(own) || alone && roster.expand(&limit.from).intersects(own)
    });
    counted.map(|(id, limit)| (id.clone(), limit.clone())).collect()
}

/// Gives what is `audit_only` for calls by or to the host's own bots, and keeps the bots at the other ends: without a
/// rule to say who calls, that is every bot.
fn audits<'m>(mesh: &'m Mesh, roster: &mut Roster<'m>, own: &Bits, kept: &mut Bits) -> Vec<AuditOnly> {
    let mut audit_only = Vec::new();
    if own.iter().next().is_none() {
        return audit_only;
    }
    for entry in &mesh.audit_only {
        let to = roster.expand(&entry.to);
        if to.intersects(own) {
            (0..roster.len()).for_each(|number| kept.insert(number));
        }
        kept.extend(&to);
        audit_only.push(entry.clone());
    }
    audit_only
}

fn group_of(subject: &Subject) -> Option<&str> {
    match subject {
        Subject::Group(name) => Some(name),
        Subject::Bots(_) | Subject::Outside(_) => None,
    }
}

/// A bot as its own host sees it, or as others do.
fn seen_from(bot: &Bot, is_own: bool) -> Bot {
    if is_own {
        return bot.clone();
    }
    let serve = bot.serve.as_ref().map(Serve::elsewhere);
    Bot {
        attest: Vec::new(),
        serve,
        ..bot.clone()
    }
}
