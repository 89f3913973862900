//! The section `destinations`.

use std::sync::Arc;
use std::time::Duration;

use super::{DESTINATION, OUTSIDE, Reader, shared};
use crate::address::AddressRange;
use crate::code;
use crate::destination::{
    CONNECT_TIMEOUT, Destination, MAX_FAILURES, MAX_IN_FLIGHT, MAX_PENDING, Number, OutsideDestination,
    REQUEST_TIMEOUT, RETRIES, STREAM_IDLE, Wait,
};
use crate::diagnostics::Draft;
use crate::outside::Scheme;
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

/// A destination outside that was read, not yet compared with the rules.
#[derive(Debug)]
pub(crate) struct OutsideDraft {
    pub(crate) span: Span,
    pub(crate) destination: OutsideDestination,
}

/// The most certificates of one `ca`.
const CA_CERTIFICATES_MAX: usize = 8;

/// The longest `ca`, in bytes.
const CA_BYTES_MAX: usize = 32 * 1024;

impl Reader {
    pub(super) fn destinations(&mut self, node: Option<&Node>) {
        let already = self.draft.destinations.len();
        for (key, value) in self.section(node, "destinations", self.most.bots, already) {
            if let Value::Text(text) = &key.value
                && text.contains("://")
            {
                self.outside_destination(key, text, value);
                continue;
            }
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
            retries: self.bound(&fields, RETRIES),
            max_in_flight: self.bound(&fields, MAX_IN_FLIGHT),
            max_pending: self.bound(&fields, MAX_PENDING),
            max_failures: self.bound(&fields, MAX_FAILURES),
            ..self.waits(&fields)
        }
    }

    fn waits(&mut self, fields: &Fields<'_>) -> Destination {
        Destination {
            connect_timeout: self.wait(fields, CONNECT_TIMEOUT),
            request_timeout: self.wait(fields, REQUEST_TIMEOUT),
            stream_idle: self.wait(fields, STREAM_IDLE),
            ..Destination::default()
        }
    }

    fn outside_destination(&mut self, key: &Node, text: &str, value: &Node) {
        let Some(name) = self.outside(key, text) else {
            return;
        };
        let Some(fields) = self.fields(value, &OUTSIDE) else {
            return;
        };
        let destination = OutsideDestination {
            waits: Destination {
                max_in_flight: self.bound(&fields, MAX_IN_FLIGHT),
                max_failures: self.bound(&fields, MAX_FAILURES),
                ..self.waits(&fields)
            },
            addresses: fields
                .get("addresses")
                .map(|node| self.addresses(node))
                .unwrap_or_default(),
            ca: fields.get("ca").and_then(|node| self.ca(node, name.scheme())),
        };
        if let Some(first) = self.draft.outsides.get(&name) {
            let first = first.span;
            return self.duplicate("destination", &name.to_string(), key.span, first);
        }
        let span = key.span;
        self.draft.outsides.insert(name, OutsideDraft { span, destination });
    }

    /// The ranges; their order plays no part.
    fn addresses(&mut self, node: &Node) -> Vec<AddressRange> {
        let items = self.items(node);
        if items.is_empty() {
            self.error(code::OUTSIDE, node.span, "`addresses` has no items", "nowhere");
        }
        let mut ranges = Vec::new();
        for item in items {
            let Some(text) = self.text(item) else { continue };
            match AddressRange::parse(text) {
                Some(range) => ranges.push(range),
                None => self.error(
                    code::OUTSIDE,
                    item.span,
                    "a range is its first address, `/` and its bits, as in 10.20.0.0/16, or one address",
                    "not a range",
                ),
            }
        }
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    /// Reads the certificates that vouch for a destination. They stand in the file itself: a path would mean another file
    /// on each host, and a revision would not hold what it says.
    fn ca(&mut self, node: &Node, scheme: Scheme) -> Option<Arc<str>> {
        let text = self.text(node)?;
        if !matches!(scheme, Scheme::Https | Scheme::Postgres | Scheme::Secret) {
            self.error(
                code::OUTSIDE,
                node.span,
                "`ca` is for https://, postgres:// and secret://: the proxy opens no other TLS",
                "not used",
            );
            return None;
        }
        let begins = text.matches("-----BEGIN CERTIFICATE-----").count();
        let is_pem = text.trim_start().starts_with("-----BEGIN ")
            && begins == text.matches("-----BEGIN ").count()
            && begins == text.matches("-----END CERTIFICATE-----").count();
        if !is_pem || !(1..=CA_CERTIFICATES_MAX).contains(&begins) || text.len() > CA_BYTES_MAX {
            let message = "`ca` is 1 to 8 certificates as PEM text, at most 32 KiB, and no private key";
            let draft = Draft::new(code::OUTSIDE, node.span, message, "not such a text");
            self.push(draft.help("ca: | and the lines of the file below it"));
            return None;
        }
        Some(shared(text))
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
