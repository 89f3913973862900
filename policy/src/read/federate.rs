//! Credentials that are the bot's own JWT-SVID: `federate`.

use std::collections::BTreeMap;

use super::exchange::{is_resource, is_scope, is_visible};
use super::{FEDERATE, Reader};
use crate::code;
use crate::credential::Injection;
use crate::diagnostics::Draft;
use crate::federate::{Encoding, Federate, PARAMETERS_MAX, SvidExchange, SvidGrant, TokenType, is_parameter};
use crate::read::fields::Fields;
use crate::yaml::Node;

impl Reader {
    pub(super) fn federate(&mut self, node: &Node) -> Option<Injection> {
        let fields = self.fields(node, &FEDERATE)?;
        let audience = self.required(&fields, "audience", node.span);
        let audience = audience.and_then(|node| self.parameter(node, "audience", |text| is_visible(text, false)));
        let exchange = match fields.get("token_url") {
            Some(url) => Some(self.svid_exchange(&fields, (node, url))?),
            None => {
                // Whatever else there is says something of the exchange.
                for key in FEDERATE
                    .known
                    .iter()
                    .filter(|key| !matches!(**key, "audience" | "token_url"))
                {
                    let message = format!("`{key}` goes with `token_url`, where the JWT-SVID is exchanged");
                    self.belongs(&fields, key, false, &message);
                }
                None
            }
        };
        Some(Injection::Federate(Box::new(Federate {
            audience: audience?,
            exchange,
        })))
    }

    fn svid_exchange(&mut self, fields: &Fields<'_>, (node, url): (&Node, &Node)) -> Option<SvidExchange> {
        let token_url = self.token_url(url);
        let grant = match fields.get("grant") {
            Some(node) => self.among(node, "grant", &SvidGrant::ALL, SvidGrant::as_str),
            None => Some(SvidGrant::TokenExchange),
        };
        let client_id = match (grant, fields.get("client_id")) {
            (Some(SvidGrant::ClientCredentials), None) => {
                let message = "`grant: client_credentials` needs the key `client_id`: it is a client that is named";
                self.error(code::CREDENTIAL, node.span, message, "missing here");
                None
            }
            _ => self.may_have(fields, "client_id", |text| is_visible(text, true)),
        };
        let scope = self.may_have(fields, "scope", is_scope);
        let resource = self.may_have(fields, "resource", is_resource);
        let token_audience = self.may_have(fields, "token_audience", |text| is_visible(text, false));
        let is_token_exchange = grant.is_none_or(|grant| grant == SvidGrant::TokenExchange);
        for key in ["subject_token_type", "requested_token_type"] {
            let message = format!("`{key}` goes with `grant: token_exchange`");
            self.belongs(fields, key, is_token_exchange, &message);
        }
        let subject_token_type = match fields.get("subject_token_type") {
            Some(node) => self.among(node, "subject_token_type", &TokenType::SUBJECTS, TokenType::as_str),
            None => Some(TokenType::Jwt),
        };
        let requested_token_type = match fields.get("requested_token_type") {
            Some(node) => self
                .among(node, "requested_token_type", &TokenType::REQUESTED, TokenType::as_str)
                .map(Some),
            None => Some(None),
        };
        let encoding = match fields.get("encoding") {
            Some(node) => self.among(node, "encoding", &Encoding::ALL, Encoding::as_str),
            None => Some(Encoding::Form),
        };
        let parameters = match fields.get("parameters") {
            Some(node) => self.parameters(node),
            None => Some(BTreeMap::new()),
        };
        Some(SvidExchange {
            token_url: token_url?,
            grant: grant?,
            client_id: client_id?,
            scope: scope?,
            resource: resource?,
            token_audience: token_audience?,
            subject_token_type: subject_token_type?,
            requested_token_type: requested_token_type?,
            encoding: encoding?,
            parameters: parameters?,
        })
    }

    fn parameters(&mut self, node: &Node) -> Option<BTreeMap<Box<str>, Box<str>>> {
        let entries = self.entries(node, "parameters")?;
        if entries.len() > PARAMETERS_MAX {
            let message = format!("`parameters` has at most {PARAMETERS_MAX} members");
            self.error(code::CREDENTIAL, node.span, message, "too many");
            return None;
        }
        let mut parameters = BTreeMap::new();
        let mut all = true;
        for (key, value) in entries {
            let name = self.text(key).filter(|name| {
                let fits = is_parameter(name);
                if !fits {
                    let message = "`parameters` names members that only the provider knows, by 1 to 64 letters, digits, `_`, `-` and `.`";
                    let draft = Draft::new(code::CREDENTIAL, key.span, message, "not such a name");
                    self.push(draft.help("what the standards name has a key of its own, and no secret is in a mesh file"));
                }
                fits
            });
            let text = self.parameter(value, "a parameter", |text| is_visible(text, true));
            match (name, text) {
                (Some(name), Some(text)) => drop(parameters.insert(name.into(), text)),
                (Some(_), None) | (None, _) => all = false,
            }
        }
        all.then_some(parameters)
    }
}
