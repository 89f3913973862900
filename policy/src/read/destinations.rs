//! The section `destinations`.

use std::time::Duration;

use super::{DESTINATION, Reader};
use crate::code;
use crate::destination::{CONNECT_TIMEOUT, Destination, REQUEST_TIMEOUT, STREAM_IDLE, Wait};
use crate::diagnostics::Draft;
use crate::read::fields::Fields;
use crate::read::values::duration;
use crate::source::Span;
use crate::yaml::{Node, Value};

/// A destination that was read, not yet compared with the bots.
#[derive(Debug)]
pub(crate) struct DestinationDraft {
    pub(crate) span: Span,
    pub(crate) destination: Destination,
}

impl Reader {
    pub(super) fn destinations(&mut self, node: Option<&Node>) {
        let already = self.draft.destinations.len();
        for (key, value) in self.section(node, "destinations", self.most.bots, already) {
            let Some(name) = self.bot_name(key) else {
                continue;
            };
            let destination = self.destination(value);
            if let Some(first) = self.draft.destinations.get(&name) {
                let first = first.span;
                self.duplicate("destination", name.as_str(), key.span, first);
            } else {
                let span = key.span;
                self.draft
                    .destinations
                    .insert(name, DestinationDraft { span, destination });
            }
        }
    }

    fn destination(&mut self, node: &Node) -> Destination {
        let Some(fields) = self.fields(node, &DESTINATION) else {
            return Destination::default();
        };
        if let Some(node) = fields.get("retries") {
            self.retries(node);
        }
        Destination {
            connect_timeout: self.wait(&fields, CONNECT_TIMEOUT),
            request_timeout: self.wait(&fields, REQUEST_TIMEOUT),
            stream_idle: self.wait(&fields, STREAM_IDLE),
        }
    }

    fn wait(&mut self, fields: &Fields<'_>, wait: Wait) -> Option<Duration> {
        let node = fields.get(wait.key)?;
        let text = self.text(node)?;
        let found = duration(text).filter(|found| (wait.least.0..=wait.most.0).contains(found));
        if found.is_none() {
            let message = format!("`{}` is from {} to {}", wait.key, wait.least.1, wait.most.1);
            let draft = Draft::new(code::WAIT, node.span, message, "not in bounds");
            self.push(draft.help("a whole number and ms, s, m or h: 200ms, 30s"));
        }
        found
    }

    /// A call is never made a second time, beyond what RFC 9110 §9.2.2 lets a proxy do by itself.
    fn retries(&mut self, node: &Node) {
        match node.value {
            Value::Integer(0) => {}
            Value::Integer(_) => self.later(node.span, "a number of `retries` other than 0"),
            Value::Null | Value::Bool(_) | Value::Float | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                self.error(code::WRONG_KIND, node.span, "`retries` is a number", "not a number")
            }
        }
    }
}
