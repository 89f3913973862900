//! The section `audit_only`.

use std::sync::Arc;

use spiffe::time::Timestamp;

use super::{AUDIT_ONLY, Reader};
use crate::code;
use crate::rule::Subject;
use crate::source::Span;
use crate::yaml::Node;

/// An entry that was read, not yet compared with the bots.
#[derive(Debug)]
pub(crate) struct AuditDraft {
    pub(crate) span: Span,
    pub(crate) to: Vec<(Subject, Span)>,
    pub(crate) until: (Timestamp, Span),
    pub(crate) reason: Arc<str>,
}

impl Reader {
    pub(super) fn audit_only(&mut self, node: Option<&Node>) {
        for node in self.records(node, "audit_only", self.most.audit_only, self.draft.audit_only.len()) {
            if let Some(entry) = self.audit_entry(node) {
                self.draft.audit_only.push(entry);
            }
        }
    }

    /// Reads one entry: one without an end, or without a reason, would be forgotten and stay.
    fn audit_entry(&mut self, node: &Node) -> Option<AuditDraft> {
        let fields = self.fields(node, &AUDIT_ONLY)?;
        let to = self.subjects(&fields, "to", node.span);
        for (_, span) in to.iter().filter(|(subject, _)| subject.outside().is_some()) {
            let message = "`audit_only` is for bots: nothing leaves the mesh without a rule";
            self.error(code::OUTSIDE, *span, message, "outside");
        }
        let until = self.required(&fields, "until", node.span);
        let until = until.and_then(|node| Some((self.timestamp(node)?, node.span)));
        let reason = self.required(&fields, "reason", node.span);
        let reason = reason.and_then(|node| self.shown_text(node, code::UNTIL_REASON));
        Some(AuditDraft {
            span: node.span,
            to,
            until: until?,
            reason: reason?,
        })
    }
}
