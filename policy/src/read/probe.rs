//! The probe of a credential: `GET https://api.example.com/v1/models`.

use super::Reader;
use crate::code;
use crate::credential::Probe;
use crate::diagnostics::Draft;
use crate::outside::{Outside, Scheme};
use crate::path::CanonicalPath;
use crate::yaml::Node;

/// What an operator reads who wrote something else.
const FORM: &str = "a probe is a request that changes nothing: GET https://api.example.com/v1/models";

impl Reader {
    pub(super) fn probe(&mut self, node: &Node) -> Option<Probe> {
        let text = self.text(node)?;
        let parts = text.split_once(' ').and_then(|(method, url)| {
            let (scheme, rest) = url.split_once("://")?;
            let (host, path) = rest.split_once('/')?;
            Some((method, format!("{scheme}://{host}"), format!("/{path}")))
        });
        let Some((method, to, path)) = parts else {
            return self.no_probe(node, FORM, "not a request");
        };
        let method = self.method(node, method)?;
        if !matches!(method.as_str(), "GET" | "HEAD") {
            return self.no_probe(node, FORM, "neither GET nor HEAD");
        }
        let to: Outside = self.outside(node, &to)?.exact().cloned()?;
        if to.scheme() != Scheme::Https {
            return self.no_probe(
                node,
                "a probe calls https://, as the calls that get the credential",
                "not https://",
            );
        }
        match CanonicalPath::parse(path.as_bytes()) {
            Ok(_) if path.contains('*') => {
                self.no_probe(node, "a probe asks for one path, without wildcards", "has a `*`")
            }
            Ok(path) => Some(Probe { method, to, path }),
            Err(error) => {
                let message = format!("such a call is always refused: {error}");
                self.no_probe(node, &message, "not a path")
            }
        }
    }

    fn no_probe(&mut self, node: &Node, message: &str, label: &str) -> Option<Probe> {
        self.push(Draft::new(code::CREDENTIAL, node.span, message, label));
        None
    }
}
