//! The section `credentials`.

use std::sync::Arc;
use std::time::Duration;

use super::{CREDENTIAL, HMAC, POSTGRES, Reader, SIGV4};
use crate::code;
use crate::credential::{
    Credential, CredentialName, Hmac, HmacEncoding, HmacHash, Injection, is_field_for_credentials,
};
use crate::database::Database;
use crate::diagnostics::Draft;
use crate::outside::{Outside, Scheme};
use crate::read::fields::Fields;
use crate::source::Span;
use crate::yaml::{Node, Value};

/// A credential that was read, not yet compared with the rules.
#[derive(Debug)]
pub(crate) struct CredentialDraft {
    pub(crate) span: Span,
    /// Where its probe stands.
    pub(crate) probe: Option<Span>,
    pub(crate) credential: Credential,
}

/// The keys that say how a credential is added, of which there is one.
const INJECTIONS: [&str; 11] = [
    "header",
    "bearer",
    "basic",
    "query",
    "hmac",
    "sigv4",
    "postgres",
    "oauth",
    "github_app",
    "federate",
    "url",
];

/// The longest prefix, user, parameter, region or service, in bytes.
const WORD_BYTES_MAX: usize = 64;

/// How often a credential may be asked to be replaced.
const ROTATE_EVERY: std::ops::RangeInclusive<Duration> = Duration::from_hours(1)..=Duration::from_hours(24 * 366);

impl Reader {
    pub(super) fn credentials(&mut self, node: Option<&Node>) {
        let already = self.draft.credentials.len();
        for (key, value) in self.section(node, "credentials", self.most.credentials, already) {
            let Some(name) = self.credential_name(key) else {
                continue;
            };
            let Some((credential, probe)) = self.credential(key.span, value) else {
                continue;
            };
            if let Some(first) = self.draft.credentials.get(&name) {
                let first = first.span;
                self.duplicate("credential", name.as_str(), key.span, first);
            } else {
                let draft = CredentialDraft {
                    span: key.span,
                    probe,
                    credential,
                };
                self.draft.credentials.insert(name, draft);
            }
        }
    }

    pub(super) fn credential_name(&mut self, node: &Node) -> Option<CredentialName> {
        let text = self.text(node)?;
        let name = CredentialName::parse(text);
        if name.is_none() {
            let message = "the name of a credential has 1 to 63 of a-z, 0-9 and `-`, and does not start with `-`";
            let draft = Draft::new(code::CREDENTIAL, node.span, message, "not such a name");
            self.push(
                draft.help("a credential is named here; its value is on the hosts that need it, never in a mesh file"),
            );
        }
        name
    }

    /// Gives it with the place of its probe.
    fn credential(&mut self, at: Span, node: &Node) -> Option<(Credential, Option<Span>)> {
        let fields = self.fields(node, &CREDENTIAL)?;
        let owner = self.required(&fields, "owner", at);
        let owner = owner.and_then(|node| self.shown_text(node, code::OWNER));
        let injection = self.injection(&fields, at);
        let rotate_every = fields.get("rotate_every").and_then(|node| self.rotate_every(node));
        let shared = fields
            .get("shared")
            .and_then(|node| self.shown_text(node, code::CREDENTIAL));
        let unfit = match &injection {
            Some(Injection::OAuth(_) | Injection::GithubApp(_)) => {
                "a value that is exchanged is probed by exchanging it: `botmesh secret test`"
            }
            Some(Injection::Url(_)) => "a webhook takes no probe: whatever is sent there, people are told",
            Some(_) | None => "",
        };
        self.belongs(&fields, "probe", unfit.is_empty(), unfit);
        self.without_value(&fields, injection.as_ref());
        let said = fields.get("probe");
        let probe = said.and_then(|node| self.probe(node));
        let credential = Credential {
            owner: owner?.to_string(),
            injection: injection?,
            rotate_every,
            shared,
            probe,
        };
        Some((credential, said.map(|node| node.span)))
    }

    fn injection(&mut self, fields: &Fields<'_>, at: Span) -> Option<Injection> {
        let mut named = INJECTIONS.into_iter().filter_map(|key| Some((key, fields.get(key)?)));
        let (key, node) = match (named.next(), named.next()) {
            (Some(found), None) => found,
            (Some(_), Some((_, other))) => {
                let message = "a credential is added in one way";
                self.error(code::CREDENTIAL, other.span, message, "another one");
                return None;
            }
            (None, _) => {
                if !fields.refused() {
                    let message = "the credential does not say how it is added to a request";
                    let draft = Draft::new(code::CREDENTIAL, at, message, "missing here");
                    self.push(draft.help(
                        "header: x-api-key, bearer: true, basic: USER, query: NAME, hmac: {…}, sigv4: {…}, postgres: {…}, oauth: {…}, github_app: {…}, federate: {…} or url: https://HOST",
                    ));
                }
                return None;
            }
        };
        self.belongs(fields, "prefix", key == "header", "`prefix` goes with `header`");
        self.belongs(
            fields,
            "unsafe_query",
            key == "query",
            "`unsafe_query` goes with `query`",
        );
        match key {
            "header" => Some(Injection::Header {
                name: self.field_name(node)?,
                prefix: self.prefix(fields)?,
            }),
            "bearer" if node.value == Value::Bool(true) => Some(Injection::Bearer),
            "bearer" => {
                self.error(code::CREDENTIAL, node.span, "`bearer` is true", "not true");
                None
            }
            "basic" => Some(Injection::Basic {
                user: self.basic_user(node)?,
            }),
            "query" => self.query(fields, node),
            "hmac" => self.hmac(node).map(Injection::Hmac),
            "postgres" => self.postgres_user(node),
            "oauth" => self.oauth(node),
            "github_app" => self.github_app(node),
            "federate" => self.federate(node),
            "url" => self.url(node).map(Injection::Url),
            _ => self.sigv4(node),
        }
    }

    /// Refuses what is said of a value where there is none.
    fn without_value(&mut self, fields: &Fields<'_>, injection: Option<&Injection>) {
        let has_value = !matches!(injection, Some(Injection::Federate(_)));
        for (key, message) in [
            ("rotate_every", "`federate` has no value that could be replaced"),
            (
                "probe",
                "`federate` has no value that could be tried: `botmesh secret test` asks for a token",
            ),
            ("shared", "`federate` is not shared: each bot has a token of its own"),
        ] {
            self.belongs(fields, key, has_value, message);
        }
    }

    /// Reads where a webhook is. What follows the host is the value, and stands in no file.
    fn url(&mut self, node: &Node) -> Option<Outside> {
        let text = self.text(node)?;
        let found = Outside::parse(text).map_err(|error| error.to_string());
        let found = found.and_then(|to| {
            let verified = to.scheme() == Scheme::Https;
            verified.then_some(to).ok_or_else(|| {
                "the address of a webhook begins with https://: it is a secret, which http:// shows to everybody on the way"
                    .to_owned()
            })
        });
        match found {
            Ok(to) => Some(to),
            Err(message) => {
                let draft = Draft::new(code::CREDENTIAL, node.span, message, "not such an address");
                let help = "`url` has scheme, host and port: url: https://hooks.slack.com; the whole address is the value, which is on the hosts that need it";
                self.push(draft.help(help));
                None
            }
        }
    }

    /// Refuses a key beside one that has no use for it.
    pub(super) fn belongs(&mut self, fields: &Fields<'_>, key: &str, fits: bool, message: &str) {
        if let Some(node) = fields.get(key).filter(|_| !fits) {
            self.error(code::CREDENTIAL, node.span, message, "not used");
        }
    }

    fn field_name(&mut self, node: &Node) -> Option<Box<str>> {
        let text = self.text(node)?;
        let lower = text.to_ascii_lowercase();
        if is_field_for_credentials(&lower) {
            return Some(lower.into());
        }
        let message =
            "a field for a credential is a name such as x-api-key, and none that routes or delimits a request";
        self.error(code::CREDENTIAL, node.span, message, "not such a field");
        None
    }

    /// Reads a short text of visible characters and spaces.
    fn word(&mut self, node: &Node, what: &str, least: usize, fits: impl Fn(u8) -> bool) -> Option<Box<str>> {
        let text = self.text(node)?;
        let length = (least..=WORD_BYTES_MAX).contains(&text.len());
        if length && text.bytes().all(fits) {
            return Some(text.into());
        }
        let message = format!("{what} has {least} to {WORD_BYTES_MAX} characters that can stand there");
        self.error(code::CREDENTIAL, node.span, message, "not such a text");
        None
    }

    fn prefix(&mut self, fields: &Fields<'_>) -> Option<Box<str>> {
        match fields.get("prefix") {
            Some(node) => self.word(node, "`prefix`", 0, |byte| matches!(byte, b' '..=b'~')),
            None => Some("".into()),
        }
    }

    /// Reads a user of RFC 7617 §2: visible, and without the colon that would end it.
    fn basic_user(&mut self, node: &Node) -> Option<Box<str>> {
        self.word(node, "`basic`", 1, |byte| matches!(byte, b'!'..=b'~') && byte != b':')
    }

    fn query(&mut self, fields: &Fields<'_>, node: &Node) -> Option<Injection> {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let name = self.word(node, "`query`", 1, unreserved);
        let Some(reason) = fields.get("unsafe_query") else {
            let message = "a credential in a query ends up in logs and histories: `unsafe_query` says why it must";
            let draft = Draft::new(code::CREDENTIAL, node.span, message, "`unsafe_query` is missing");
            self.push(draft.help("use header: … where the service takes one"));
            return None;
        };
        let unsafe_query: Option<Arc<str>> = self.shown_text(reason, code::CREDENTIAL);
        Some(Injection::Query {
            name: name?,
            unsafe_query: unsafe_query?,
        })
    }

    fn hmac(&mut self, node: &Node) -> Option<Hmac> {
        let fields = self.fields(node, &HMAC)?;
        let header = self.required(&fields, "header", node.span);
        let header = header.and_then(|node| self.field_name(node));
        let hash = match fields.get("hash") {
            Some(node) => self.one_of(node, "hash", [HmacHash::Sha256, HmacHash::Sha512], HmacHash::as_str),
            None => Some(HmacHash::Sha256),
        };
        let encoding = match fields.get("encoding") {
            Some(node) => self.one_of(
                node,
                "encoding",
                [HmacEncoding::Hex, HmacEncoding::Base64],
                HmacEncoding::as_str,
            ),
            None => Some(HmacEncoding::Hex),
        };
        let timestamp = match fields.get("timestamp") {
            Some(node) => Some(self.field_name(node)?),
            None => None,
        };
        let prefix = self.prefix(&fields);
        let header = header?;
        if timestamp.as_ref() == Some(&header) {
            let message = "`timestamp` and `header` name one field";
            self.error(code::CREDENTIAL, node.span, message, "the same field");
            return None;
        }
        Some(Hmac {
            header,
            hash: hash?,
            encoding: encoding?,
            prefix: prefix?,
            timestamp,
        })
    }

    fn one_of<T: Copy>(&mut self, node: &Node, key: &str, all: [T; 2], word: fn(T) -> &'static str) -> Option<T> {
        let text = self.text(node)?;
        let found = all.into_iter().find(|one| word(*one) == text);
        if found.is_none() {
            let message = format!("`{key}` is {} or {}", word(all[0]), word(all[1]));
            self.error(code::CREDENTIAL, node.span, message, "neither");
        }
        found
    }

    fn sigv4(&mut self, node: &Node) -> Option<Injection> {
        let fields = self.fields(node, &SIGV4)?;
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let region = self.required(&fields, "region", node.span);
        let region = region.and_then(|node| self.word(node, "`region`", 1, letters));
        let service = self.required(&fields, "service", node.span);
        let service = service.and_then(|node| self.word(node, "`service`", 1, letters));
        Some(Injection::Sigv4 {
            region: region?,
            service: service?,
        })
    }

    /// Reads the user of a database, whose name has what PostgreSQL keeps of one.
    fn postgres_user(&mut self, node: &Node) -> Option<Injection> {
        let fields = self.fields(node, &POSTGRES)?;
        let user = self.required(&fields, "user", node.span);
        let user = user.and_then(|node| {
            let text = self.text(node)?;
            let name = Database::parse(text);
            if name.is_none() {
                let message = "`user` has 1 to 63 letters, digits, `_`, `-`, `.` and `$`";
                self.error(code::CREDENTIAL, node.span, message, "not such a name");
            }
            name
        });
        let svid = match fields.get("svid") {
            Some(node) if node.value != Value::Bool(true) => {
                self.error(code::CREDENTIAL, node.span, "`svid` is true", "not true");
                return None;
            }
            found => found.is_some(),
        };
        Some(Injection::Postgres {
            user: user?.as_str().into(),
            svid,
        })
    }

    /// Reads hours or days: `12h`, `90d`.
    fn rotate_every(&mut self, node: &Node) -> Option<Duration> {
        let text = self.text(node)?;
        let hours = match (text.strip_suffix('d'), text.strip_suffix('h')) {
            (Some(days), _) => days.parse::<u64>().ok().and_then(|days| days.checked_mul(24)),
            (None, Some(hours)) => hours.parse().ok(),
            (None, None) => None,
        };
        let plain = text.starts_with(|first: char| first.is_ascii_digit());
        let seconds = hours.and_then(|hours| hours.checked_mul(3600)).filter(|_| plain);
        let found = seconds
            .map(Duration::from_secs)
            .filter(|every| ROTATE_EVERY.contains(every));
        if found.is_none() {
            let message = "`rotate_every` is from 1h to 366d";
            let draft = Draft::new(code::CREDENTIAL, node.span, message, "not in bounds");
            self.push(draft.help("a whole number and h or d: 90d"));
        }
        found
    }
}
