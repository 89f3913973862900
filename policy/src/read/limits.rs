//! The section `limits`.

use super::{LIMIT, Reader};
use crate::code;
use crate::diagnostics::Draft;
use crate::limit::{Allowance, CALLS_MAX, Rate};
use crate::rule::Subject;
use crate::source::Span;
use crate::yaml::{Node, Value};

/// A limit that was read, not yet compared with the bots.
#[derive(Debug)]
pub(crate) struct LimitDraft {
    pub(crate) span: Span,
    pub(crate) from: Vec<(Subject, Span)>,
    pub(crate) to: Vec<(Subject, Span)>,
    pub(crate) allowance: Allowance,
}

impl Reader {
    pub(super) fn limits(&mut self, node: Option<&Node>) {
        for node in self.records(node, "limits", self.most.limits, self.draft.limits.len()) {
            self.limit(node);
        }
    }

    fn limit(&mut self, node: &Node) {
        let Some(fields) = self.fields(node, &LIMIT) else {
            return;
        };
        let id_node = self.required(&fields, "id", node.span);
        let id = id_node.and_then(|node| self.rule_id(node));
        let span = id_node.map_or(node.span, |node| node.span);
        let from = self.callers(&fields, span);
        let to = self.callees(&fields, span);
        let rate = self.required(&fields, "rate", span).and_then(|node| self.rate(node));
        let burst = self.required(&fields, "burst", span).and_then(|node| self.burst(node));
        let (Some(id), Some(rate), Some(burst)) = (id, rate, burst) else {
            return;
        };
        if let Some(first) = self.id_taken(&id) {
            return self.duplicate("id", id.as_str(), span, first);
        }
        let allowance = Allowance { rate, burst };
        let limit = LimitDraft {
            span,
            from,
            to,
            allowance,
        };
        self.draft.limits.insert(id, limit);
    }

    fn rate(&mut self, node: &Node) -> Option<Rate> {
        let text = self.text(node)?;
        let rate = Rate::parse(text);
        if rate.is_none() {
            let message = format!("a rate is 1 to {CALLS_MAX} calls in a second, a minute or an hour");
            let draft = Draft::new(code::LIMIT, node.span, message, "not such a rate");
            self.push(draft.help("a whole number and /s, /m or /h: 10/s"));
        }
        rate
    }

    /// Without room for one call the limit would be a deny rule in disguise.
    fn burst(&mut self, node: &Node) -> Option<u32> {
        let burst = match node.value {
            Value::Integer(burst) => u32::try_from(burst).ok(),
            Value::Null | Value::Bool(_) | Value::Float | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
        };
        let burst = burst.filter(|burst| (1..=CALLS_MAX).contains(burst));
        if burst.is_none() {
            let message = format!("a burst is 1 to {CALLS_MAX} calls at once");
            self.push(Draft::new(code::LIMIT, node.span, message, "not such a number"));
        }
        burst
    }
}
