//! Makes the mesh of a draft in which nothing is wrong.

use std::sync::Arc;

use spiffe::id::HostName;

use crate::audit_only::AuditOnly;
use crate::diagnostics::{Collector, Diagnostics};
use crate::limit::Limit;
use crate::mesh::{Bot, Mesh};
use crate::pattern::NamePattern;
use crate::read::{AuditDraft, BotDraft, LimitDraft, MeshDraft, RuleDraft, TestDraft};
use crate::rule::{Rule, Subject};
use crate::source::{Sources, Span};
use crate::tests_of_mesh::{MeshTest, PlacedCall};

/// Turns a draft without errors into the mesh.
pub(super) fn build(draft: MeshDraft, collector: Collector, sources: &Sources) -> Result<Mesh, Diagnostics> {
    let Some((trust_domain, _)) = draft.trust_domain else {
        return Err(collector.finish(sources));
    };
    let bare = |(pattern, _): (NamePattern, Span)| pattern;
    let slice = draft.slice.map(|(host, _)| host);
    Ok(Mesh {
        trust_domain,
        slice: slice.clone(),
        bots: draft
            .bots
            .into_iter()
            .map(|(name, bot)| (name, build_bot(bot, slice.as_ref())))
            .collect(),
        groups: draft
            .groups
            .into_iter()
            .map(|(name, group)| (name, group.members.into_iter().map(bare).collect()))
            .collect(),
        rules: draft
            .rules
            .into_iter()
            .map(|(id, rule)| (id, Arc::new(build_rule(rule, sources))))
            .collect(),
        credentials: draft
            .credentials
            .into_iter()
            .map(|(name, found)| (name, found.credential))
            .collect(),
        outsides: draft
            .outsides
            .into_iter()
            .map(|(name, found)| (name, found.destination))
            .collect(),
        destinations: draft
            .destinations
            .into_iter()
            .map(|(name, found)| (name, found.destination))
            .collect(),
        limits: draft
            .limits
            .into_iter()
            .map(|(id, limit)| (id, build_limit(limit, sources)))
            .collect(),
        audit_only: build_audits(draft.audit_only, sources),
        tests: draft.tests.into_iter().map(|test| build_test(test, sources)).collect(),
        warnings: collector.finish(sources),
    })
}

fn build_bot(bot: BotDraft, slice: Option<&HostName>) -> Bot {
    let foreign = slice.is_some_and(|host| !bot.hosts.iter().any(|pattern| pattern.matches(host)));
    let serve = bot.serve.map(|(serve, _)| serve);
    Bot {
        owner: bot.owner,
        hosts: bot.hosts,
        attest: bot.attest.unwrap_or_default().into_iter().map(|(set, _)| set).collect(),
        serve: serve.map(|serve| if foreign { serve.elsewhere() } else { serve }),
        svid_ttl: bot.svid_ttl,
    }
}

fn build_rule(draft: RuleDraft, sources: &Sources) -> Rule {
    let bare = |subjects: Vec<(Subject, Span)>| subjects.into_iter().map(|(subject, _)| subject).collect();
    Rule {
        from: bare(draft.from),
        to: bare(draft.to),
        place: sources.place(draft.span),
        ..draft.rule
    }
}

fn build_limit(draft: LimitDraft, sources: &Sources) -> Limit {
    let bare = |subjects: Vec<(Subject, Span)>| subjects.into_iter().map(|(subject, _)| subject).collect();
    Limit {
        from: bare(draft.from),
        to: bare(draft.to),
        allowance: draft.allowance,
        place: sources.place(draft.span),
    }
}

fn build_audits(drafts: Vec<AuditDraft>, sources: &Sources) -> Vec<AuditOnly> {
    let entry = |draft: AuditDraft| AuditOnly {
        to: draft.to.into_iter().map(|(subject, _)| subject).collect(),
        until: draft.until.0,
        reason: draft.reason,
        place: sources.place(draft.span),
    };
    let mut entries: Vec<AuditOnly> = drafts.into_iter().map(entry).collect();
    entries.sort_by_cached_key(AuditOnly::key);
    entries
}

fn build_test(draft: TestDraft, sources: &Sources) -> MeshTest {
    let calls = draft.calls.into_iter().map(|call| PlacedCall {
        excerpt: sources.excerpt(call.span),
        expected: call.expected,
        what: call.what,
    });
    MeshTest {
        name: draft.name,
        from: draft.from.0,
        to: draft.to.0,
        at: draft.at,
        by: draft.by.map(|(id, _)| id),
        calls: calls.collect(),
    }
}
