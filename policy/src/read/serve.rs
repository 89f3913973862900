//! What a bot serves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::bots::is_plain_path;
use super::fields::Fields;
use super::{Reader, SERVE};
use crate::code;
use crate::diagnostics::Draft;
use crate::endpoint::Endpoint;
use crate::mesh::{Serve, ServeKind, Target, TcpServe};
use crate::yaml::{Node, Value};

/// `sun_path` of unix(7) has 108 bytes with the final NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The most ports of one bot.
const PORTS_MAX: usize = 64;

/// The most endpoints of one bot.
const ENDPOINTS_MAX: usize = 16;

/// The place of a bot that opens its own mutual TLS.
const MTLS: &str = "mtls";

impl Reader {
    /// Reads what a bot serves. A stand-in keeps one mistake from being told again by every rule to this bot.
    pub(super) fn serve(&mut self, node: &Node) -> Serve {
        let kinds = [ServeKind::Http, ServeKind::Grpc, ServeKind::Tcp];
        if let Value::Text(word) = &node.value
            && let Some(kind) = kinds
                .into_iter()
                .find(|kind| kind.as_str() == word && *kind != ServeKind::Tcp)
        {
            return kind.at(Target::Elsewhere);
        }
        let stand_in = |kind: ServeKind| kind.at(Target::Port(1));
        let Some(fields) = self.fields(node, &SERVE) else {
            return stand_in(ServeKind::Http);
        };
        let mut found = kinds
            .into_iter()
            .filter_map(|kind| Some((kind, fields.get(kind.as_str())?)));
        let found = (found.next(), found.next());
        self.goes_with(&fields, found.0);
        match found {
            (Some((ServeKind::Tcp, ports)), None) => {
                let proxy_protocol = fields
                    .get("proxy_protocol")
                    .is_some_and(|node| self.proxy_protocol(node));
                self.ports(ports).map_or_else(
                    || stand_in(ServeKind::Tcp),
                    |ports| Serve::Tcp(TcpServe { ports, proxy_protocol }),
                )
            }
            (Some((kind, target)), None) => self
                .place(target, fields.get("endpoints"))
                .map_or_else(|| stand_in(kind), |target| kind.at(target)),
            (Some((kind, _)), Some((_, other))) => {
                let draft = Draft::new(code::SERVE, other.span, "a bot serves one protocol", "another one");
                self.push(draft.help("a server of both is two bots, each with its own name and rules"));
                stand_in(kind)
            }
            (None, _) => {
                if !fields.refused() {
                    self.required(&fields, "http", node.span);
                }
                stand_in(ServeKind::Http)
            }
        }
    }

    /// Tells of keys that mean nothing beside the protocol that is served.
    fn goes_with(&mut self, fields: &Fields<'_>, served: Option<(ServeKind, &Node)>) {
        let tcp = served.is_some_and(|(kind, _)| kind == ServeKind::Tcp);
        if let Some(node) = fields.get("proxy_protocol").filter(|_| !tcp) {
            let draft = Draft::new(code::SERVE, node.span, "`proxy_protocol` goes with `tcp`", "not tcp");
            self.push(draft.help("over HTTP the bot reads who calls from the field x-botmesh-caller"));
        }
        if let Some(node) = fields.get("endpoints").filter(|_| tcp) {
            let draft = Draft::new(code::SERVE, node.span, "`endpoints` goes with `http` or `grpc`", "tcp");
            self.push(draft.help("a bot that serves TCP is reached by the proxy of its host"));
        }
    }

    /// Reads where a bot takes requests: on its own host, or by its own mutual TLS at its endpoints.
    fn place(&mut self, node: &Node, endpoints: Option<&Node>) -> Option<Target> {
        let own = node.value == Value::Text(MTLS.to_owned());
        match (own, endpoints) {
            (false, None) => self.target(node),
            (true, Some(endpoints)) => self.endpoints(endpoints).map(Target::Endpoints),
            (true, None) => {
                let message = "a bot that opens its own mutual TLS is reached at `endpoints`";
                let draft = Draft::new(code::SERVE, node.span, message, "where?");
                self.push(draft.help("serve: {http: mtls, endpoints: [\"10.0.0.7:8443\"]}"));
                None
            }
            (false, Some(_)) => {
                let message = "`endpoints` are of a bot that opens its own mutual TLS";
                let draft = Draft::new(code::SERVE, node.span, message, "not mtls");
                self.push(draft.help("write `mtls` here, or leave `endpoints` out: a proxy finds the bot by itself"));
                None
            }
        }
    }

    fn endpoints(&mut self, node: &Node) -> Option<Vec<Endpoint>> {
        let (items, mut found) = (self.items(node), Vec::new());
        let (count, whole) = (items.len(), node.span);
        for item in items {
            let Some(text) = self.text(item) else {
                continue;
            };
            match Endpoint::parse(text) {
                Ok(endpoint) if found.contains(&endpoint) => {
                    self.error(code::SERVE, item.span, format!("{endpoint} is here twice"), "twice");
                }
                Ok(endpoint) => found.push(endpoint),
                Err(error) => self.error(code::SERVE, item.span, error.to_string(), "no endpoint"),
            }
        }
        if count == 0 {
            self.error(code::SERVE, whole, "`endpoints` names at least one", "empty");
        }
        if count > ENDPOINTS_MAX {
            let message = format!("a bot has at most {ENDPOINTS_MAX} endpoints");
            self.error(code::TOO_LARGE, whole, message, "too many");
        }
        (!found.is_empty()).then_some(found)
    }

    /// Reads ports where the bot listens on 127.0.0.1, or a map from ports to where it listens for each.
    fn ports(&mut self, node: &Node) -> Option<BTreeMap<u16, Target>> {
        let found: Vec<(u16, Target)> = match &node.value {
            Value::Map(_) => {
                let entries = self.entries(node, "tcp")?;
                let entry = |(key, value): (&Node, &Node)| {
                    let port = self.port_key(key);
                    let target = self.target(value);
                    Some((port?, target?))
                };
                entries.into_iter().filter_map(entry).collect()
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float | Value::Text(_) | Value::List(_) => {
                let items = self.items(node);
                let item = |item| self.port(item).map(|port| (port, Target::Port(port)));
                items.into_iter().filter_map(item).collect()
            }
        };
        let (count, ports) = (found.len(), BTreeMap::from_iter(found));
        if ports.len() != count {
            self.error(code::DUPLICATE_KEY, node.span, "a port is here twice", "twice");
        }
        let nothing = matches!(&node.value, Value::List(items) if items.is_empty())
            || matches!(&node.value, Value::Map(entries) if entries.is_empty());
        if nothing {
            self.error(code::TCP_PORT, node.span, "`tcp` has no ports", "empty");
        }
        if ports.len() > PORTS_MAX {
            let message = format!("a bot serves at most {PORTS_MAX} ports");
            self.error(code::TOO_LARGE, node.span, message, "too many");
        }
        (!ports.is_empty()).then_some(ports)
    }

    /// The key of a map is a number in YAML and a text in JSON.
    fn port_key(&mut self, key: &Node) -> Option<u16> {
        match &key.value {
            Value::Text(text) if !text.starts_with(['0', '+']) && text.parse::<u16>().is_ok() => text.parse().ok(),
            Value::Text(_)
            | Value::Integer(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Float
            | Value::List(_)
            | Value::Map(_) => self.port(key),
        }
    }

    fn proxy_protocol(&mut self, node: &Node) -> bool {
        let asked = node.value == Value::Text("v2".to_owned());
        if !asked {
            self.error(code::SERVE, node.span, "`proxy_protocol` is v2 or left out", "not v2");
        }
        asked
    }

    fn target(&mut self, node: &Node) -> Option<Target> {
        let found = match &node.value {
            Value::Integer(port) => u16::try_from(*port).ok().filter(|port| *port != 0).map(Target::Port),
            Value::Text(text) => text.strip_prefix("unix:").and_then(socket).map(Target::Unix),
            Value::Null | Value::Bool(_) | Value::Float | Value::List(_) | Value::Map(_) => None,
        };
        if found.is_none() {
            let message = "the bot serves on a port from 1 to 65535 or on `unix:` and an absolute path";
            let draft = Draft::new(code::SERVE, node.span, message, "neither");
            self.push(draft.help("8080 is 127.0.0.1:8080; unix:/run/orders/orders.sock is better"));
        }
        found
    }
}

fn socket(text: &str) -> Option<PathBuf> {
    (is_plain_path(text) && text.len() <= SOCKET_PATH_BYTES_MAX).then(|| PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_fits_sun_path() {
        assert!(socket(&format!("/{}", "a".repeat(106))).is_some());
        assert!(socket(&format!("/{}", "a".repeat(107))).is_none());
    }
}
