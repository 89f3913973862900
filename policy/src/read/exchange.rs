//! Credentials that are exchanged for a short token: `oauth`, `github_app`.

use super::{GITHUB_APP, OAUTH, Reader};
use crate::code;
use crate::credential::Injection;
use crate::diagnostics::Draft;
use crate::exchange::{ClientAuth, GithubApp, Grant, OAuth, TokenUrl};
use crate::read::fields::Fields;
use crate::yaml::{Node, Value};

/// The longest name of a client, scope, audience or resource, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

impl Reader {
    pub(super) fn oauth(&mut self, node: &Node) -> Option<Injection> {
        let fields = self.fields(node, &OAUTH)?;
        let token_url = self.required(&fields, "token_url", node.span);
        let token_url = token_url.and_then(|node| self.token_url(node));
        let client_id = self.required(&fields, "client_id", node.span);
        let client_id = client_id.and_then(|node| self.parameter(node, "client_id", |text| is_visible(text, true)));
        let grant = match fields.get("grant") {
            Some(node) => self.among(node, "grant", &Grant::ALL, Grant::as_str),
            None => Some(Grant::ClientCredentials),
        };
        let auth = match fields.get("auth") {
            Some(node) => self.among(node, "auth", &ClientAuth::ALL, ClientAuth::as_str),
            None => Some(ClientAuth::Basic),
        };
        let scope = self.may_have(&fields, "scope", is_scope);
        let audience = self.may_have(&fields, "audience", |text| is_visible(text, false));
        let resource = self.may_have(&fields, "resource", is_resource);
        if (grant, auth) == (Some(Grant::ClientCredentials), Some(ClientAuth::None)) {
            let message =
                "`auth: none` goes with `grant: refresh_token`: without a secret there is nothing to exchange";
            let span = fields.get("auth").map_or(node.span, |node| node.span);
            self.error(code::CREDENTIAL, span, message, "nothing to exchange");
            return None;
        }
        Some(Injection::OAuth(Box::new(OAuth {
            token_url: token_url?,
            client_id: client_id?,
            grant: grant?,
            auth: auth?,
            scope: scope?,
            audience: audience?,
            resource: resource?,
        })))
    }

    pub(super) fn github_app(&mut self, node: &Node) -> Option<Injection> {
        let fields = self.fields(node, &GITHUB_APP)?;
        let app_id = self.required(&fields, "app_id", node.span);
        let app_id = app_id.and_then(|node| self.app_id(node));
        let installation = self.required(&fields, "installation_id", node.span);
        let installation = installation.and_then(|node| self.id_number(node, "installation_id"));
        let base = match fields.get("base") {
            Some(node) => self.text(node)?,
            None => GithubApp::BASE,
        };
        let span = fields.get("base").map_or(node.span, |node| node.span);
        match GithubApp::new(&app_id?, installation?, base) {
            Ok(app) => Some(Injection::GithubApp(Box::new(app))),
            Err(error) => {
                let draft = Draft::new(code::CREDENTIAL, span, error.to_string(), "not such an address");
                self.push(draft.help("as in https://github.acme.example/api/v3; without `base` it is GitHub's own"));
                None
            }
        }
    }

    /// Reads the ID of an app, which is a number, or its client ID, which is not.
    fn app_id(&mut self, node: &Node) -> Option<Box<str>> {
        if let Value::Integer(_) = node.value {
            return self.id_number(node, "app_id").map(|id| id.to_string().into());
        }
        let letters = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
        self.parameter(node, "app_id", letters)
    }

    /// Reads a number that GitHub gave.
    fn id_number(&mut self, node: &Node, key: &str) -> Option<u64> {
        let found = match node.value {
            Value::Integer(found) => u64::try_from(found).ok().filter(|found| *found > 0),
            Value::Null | Value::Bool(_) | Value::Float | Value::Text(_) | Value::List(_) | Value::Map(_) => None,
        };
        if found.is_none() {
            self.error(
                code::CREDENTIAL,
                node.span,
                format!("`{key}` is a number from 1"),
                "not such a number",
            );
        }
        found
    }

    pub(super) fn token_url(&mut self, node: &Node) -> Option<TokenUrl> {
        match TokenUrl::parse(self.text(node)?) {
            Ok(url) => Some(url),
            Err(error) => {
                let draft = Draft::new(code::CREDENTIAL, node.span, error.to_string(), "not such an address");
                self.push(draft.help("as in https://login.example.com/oauth2/token"));
                None
            }
        }
    }

    /// Reads a parameter that may be missing; nothing where it is there and wrong.
    pub(super) fn may_have(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        fits: fn(&str) -> bool,
    ) -> Option<Option<Box<str>>> {
        match fields.get(key) {
            Some(node) => self.parameter(node, key, fits).map(Some),
            None => Some(None),
        }
    }

    pub(super) fn parameter(&mut self, node: &Node, key: &str, fits: fn(&str) -> bool) -> Option<Box<str>> {
        let text = self.text(node)?;
        if (1..=TEXT_BYTES_MAX).contains(&text.len()) && fits(text) {
            return Some(text.into());
        }
        let message = match key {
            "scope" => format!("`scope` is names with one space between them, at most {TEXT_BYTES_MAX} bytes"),
            "resource" => format!("`resource` is an absolute address without `#`, at most {TEXT_BYTES_MAX} bytes"),
            "a parameter" => format!("{key} has 1 to {TEXT_BYTES_MAX} visible characters and spaces"),
            _ => format!("`{key}` has 1 to {TEXT_BYTES_MAX} visible characters"),
        };
        self.error(code::CREDENTIAL, node.span, message, "not such a text");
        None
    }

    pub(super) fn among<T: Copy>(
        &mut self,
        node: &Node,
        key: &str,
        all: &[T],
        word: fn(T) -> &'static str,
    ) -> Option<T> {
        let text = self.text(node)?;
        let found = all.iter().copied().find(|one| word(*one) == text);
        if found.is_none() {
            let words: Vec<&str> = all.iter().map(|one| word(*one)).collect();
            let message = format!("`{key}` is one of {}", words.join(", "));
            self.error(code::CREDENTIAL, node.span, message, "none of them");
        }
        found
    }
}

/// RFC 6749 appendix A: `VSCHAR`, which has the space.
pub(super) fn is_visible(text: &str, spaces: bool) -> bool {
    let visible = |byte: u8| matches!(byte, b'!'..=b'~') || spaces && byte == b' ';
    text.bytes().all(visible)
}

/// RFC 6749 §3.3.
pub(super) fn is_scope(text: &str) -> bool {
    let letter = |byte: u8| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
    text.split(' ').all(|name| !name.is_empty() && name.bytes().all(letter))
}

/// RFC 8707 §2.
pub(super) fn is_resource(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme).unwrap_or_default();
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(letters)
        && is_visible(text, false)
        && !text.contains('#')
}
