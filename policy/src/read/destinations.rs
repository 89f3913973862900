//! The section `destinations`.

use std::time::Duration;

use super::{DESTINATION, Reader};
use crate::code;
use crate::destination::{
    CONNECT_TIMEOUT, Destination, MAX_FAILURES, MAX_IN_FLIGHT, MAX_PENDING, Number, REQUEST_TIMEOUT, RETRIES,
    STREAM_IDLE, Wait,
};
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
        Destination {
            connect_timeout: self.wait(&fields, CONNECT_TIMEOUT),
            request_timeout: self.wait(&fields, REQUEST_TIMEOUT),
            stream_idle: self.wait(&fields, STREAM_IDLE),
            retries: self.bound(&fields, RETRIES),
            max_in_flight: self.bound(&fields, MAX_IN_FLIGHT),
            max_pending: self.bound(&fields, MAX_PENDING),
            max_failures: self.bound(&fields, MAX_FAILURES),
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

    fn bound(&mut self, fields: &Fields<'_>, number: Number) -> Option<u32> {
        let node = fields.get(number.key)?;
        let Number { key, least, most } = number;
        match node.value {
            Value::Integer(found) => {
                let found = u32::try_from(found).ok().filter(|found| (least..=most).contains(found));
                if found.is_none() {
                    let message = format!("`{key}` is from {least} to {most}");
                    self.error(code::DESTINATION_NUMBER, node.span, message, "not in bounds");
                }
                found
            }
            Value::Null | Value::Bool(_) | Value::Float | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                self.error(
                    code::WRONG_KIND,
                    node.span,
                    format!("`{key}` is a number"),
                    "not a number",
                );
                None
            }
        }
    }
}
