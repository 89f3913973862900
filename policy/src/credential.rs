//! Credentials: what a proxy adds to calls to the outside, so that no bot holds it. A mesh file names them and says how they
//! are added; the value is on the hosts that need it, and nowhere in here.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use spiffe::time::Timestamp;

use crate::call::{HttpAsk, What};
use crate::exchange::{GithubApp, Grant, OAuth, TokenUrl};
use crate::federate::Federate;
use crate::mesh::Mesh;
use crate::method::Method;
use crate::outside::{Outside, OutsidePattern};
use crate::path::CanonicalPath;
use crate::rule::{Effect, Rule};

/// The longest name of a credential, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// The name of a credential: 1 to 63 of `a-z`, `0-9` and `-`, first a letter or a digit. It is in records, metrics and
/// answers, and it is a file name on hosts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialName(Arc<str>);

impl CredentialName {
    /// Reads a name, or gives `None` when it is outside the grammar.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.starts_with('-');
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (fits && text.bytes().all(letter)).then(|| Self(Arc::from(text)))
    }

    /// Gives the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for CredentialName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialName({:?})", &*self.0)
    }
}

impl Serialize for CredentialName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A credential, as the mesh file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Whom to ask about it.
    pub owner: String,
    /// How it is added to a request.
    pub injection: Injection,
    /// How often it is to be replaced.
    pub rotate_every: Option<Duration>,
    /// Why several bots may use it.
    pub shared: Option<Arc<str>>,
    /// What tells a value that the service takes from one that it refuses.
    pub probe: Option<Probe>,
}

/// A request that a proxy makes to learn whether a service takes a value: before a new value is used, and after it is, until
/// the old one is refused. A rule that adds the credential allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `GET` or `HEAD`: it changes nothing.
    pub method: Method,
    /// Whom it asks.
    pub to: Outside,
    /// For what.
    pub path: CanonicalPath,
}

impl Probe {
    /// Gives it as a call of a bot.
    pub fn what(&self) -> What {
        What::Http(HttpAsk::new(self.method.clone(), self.path.clone()))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method.as_str(), self.to, self.path.as_str())
    }
}

impl Credential {
    /// Gives where it is exchanged, as rules would name that place.
    pub(crate) fn exchanged_at(&self) -> Option<OutsidePattern> {
        let url = self.injection.token_url()?;
        Some(OutsidePattern::from(url.outside().clone()))
    }
}

/// How a credential is added to a request. What the bot sends in its place is dropped first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injection {
    /// The value is that of a field, after `prefix`.
    Header {
        /// The name of the field, in lower case.
        name: Box<str>,
        /// What stands before the value, such as `Token `.
        prefix: Box<str>,
    },
    /// `Authorization: Bearer VALUE` (RFC 6750 §2.1).
    Bearer,
    /// `Authorization: Basic …` with this user; the value is the password (RFC 7617 §2).
    Basic {
        /// The user, without a colon.
        user: Box<str>,
    },
    /// The value is that of a parameter of the query. Queries end up in logs, which is why there is a reason.
    Query {
        /// The name of the parameter.
        name: Box<str>,
        /// Why nothing else will do.
        unsafe_query: Arc<str>,
    },
    /// The value is a key, with which the body is signed (RFC 2104).
    Hmac(Hmac),
    /// The value is an access key, `ID:SECRET` or `ID:SECRET:SESSION_TOKEN`, with which the request is signed (AWS
    /// Signature Version 4).
    Sigv4 {
        /// The region, such as `eu-west-1`.
        region: Box<str>,
        /// The service, such as `s3`.
        service: Box<str>,
    },
    /// The proxy authenticates at PostgreSQL as this user.
    Postgres {
        /// The user of the database.
        user: Box<str>,
        /// Whether by the bot's SVID; else the value is the password.
        svid: bool,
    },
    /// The value is exchanged for a token by OAuth 2, which is added as [`Injection::Bearer`] adds a value.
    OAuth(Box<OAuth>),
    /// The value is the private key of an app of GitHub, which is given tokens of its installation; they are added alike.
    GithubApp(Box<GithubApp>),
    /// There is no value: the bot's own JWT-SVID is added, or what it is exchanged for, as [`Injection::Bearer`] adds a value.
    Federate(Box<Federate>),
    /// The value is an address, all of which is a secret, and leads here: a webhook. It is called as `secret://NAME`.
    Url(Outside),
}

/// How a body is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hmac {
    /// The field that holds the signature, in lower case.
    pub header: Box<str>,
    /// The hash.
    pub hash: HmacHash,
    /// How the signature is written.
    pub encoding: HmacEncoding,
    /// What stands before it, such as `sha256=`.
    pub prefix: Box<str>,
    /// The field that holds the time, in lower case. Where there is one, what is signed is the time as seconds, a dot
    /// and the body.
    pub timestamp: Option<Box<str>>,
}

/// The hash of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacHash {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacEncoding {
    /// In lower-case hexadecimal.
    Hex,
    /// In Base64.
    Base64,
}

impl HmacHash {
    /// Gives the word for it in the mesh file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl HmacEncoding {
    /// Gives the word for it in the mesh file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }
}

impl Injection {
    /// Gives the key of the mesh file that names it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Header { .. } => "header",
            Self::Bearer => "bearer",
            Self::Basic { .. } => "basic",
            Self::Query { .. } => "query",
            Self::Hmac(_) => "hmac",
            Self::Sigv4 { .. } => "sigv4",
            Self::Postgres { .. } => "postgres",
            Self::OAuth(_) => "oauth",
            Self::GithubApp(_) => "github_app",
            Self::Federate(_) => "federate",
            Self::Url(_) => "url",
        }
    }

    /// Gives the fields that it sets, in lower case: a bot's own are dropped.
    pub fn fields(&self) -> Vec<&str> {
        match self {
            Self::Header { name, .. } => vec![name],
            Self::Bearer | Self::Basic { .. } | Self::OAuth(_) | Self::GithubApp(_) | Self::Federate(_) => {
                vec!["authorization"]
            }
            Self::Query { .. } | Self::Postgres { .. } | Self::Url(_) => Vec::new(),
            Self::Hmac(hmac) => [Some(&*hmac.header), hmac.timestamp.as_deref()]
                .into_iter()
                .flatten()
                .collect(),
            Self::Sigv4 { .. } => vec![
                "authorization",
                "x-amz-date",
                "x-amz-content-sha256",
                "x-amz-security-token",
            ],
        }
    }

    /// Says whether the value, or the token that it was exchanged for, is in the request; a key that signs is not.
    pub const fn sends_value(&self) -> bool {
        !self.signs_body()
    }

    /// Says whether there is a value, which is on the hosts that need it.
    pub const fn has_value(&self) -> bool {
        !matches!(self, Self::Postgres { svid: true, .. } | Self::Federate(_))
    }

    /// Gives how a bot's own JWT-SVID is added, where it is that.
    pub fn federate(&self) -> Option<&Federate> {
        if let Self::Federate(federate) = self {
            Some(federate)
        } else {
            None
        }
    }

    /// Gives where the value, or the JWT-SVID, is exchanged for what is sent in its place; nothing where it is used itself.
    pub fn token_url(&self) -> Option<&TokenUrl> {
        match self {
            Self::OAuth(oauth) => Some(&oauth.token_url),
            Self::GithubApp(app) => Some(&app.token_url),
            Self::Federate(federate) => federate.exchange.as_ref().map(|exchange| &exchange.token_url),
            Self::Header { .. }
            | Self::Bearer
            | Self::Basic { .. }
            | Self::Query { .. }
            | Self::Hmac(_)
            | Self::Sigv4 { .. }
            | Self::Postgres { .. }
            | Self::Url(_) => None,
        }
    }

    /// Says whether the value may be a document of several lines: it stands in no field itself.
    pub fn takes_lines(&self) -> bool {
        match self {
            Self::OAuth(oauth) => oauth.grant == Grant::RefreshToken,
            Self::GithubApp(_) => true,
            Self::Header { .. }
            | Self::Bearer
            | Self::Basic { .. }
            | Self::Query { .. }
            | Self::Hmac(_)
            | Self::Sigv4 { .. }
            | Self::Postgres { .. }
            | Self::Federate(_)
            | Self::Url(_) => false,
        }
    }

    /// Says whether the whole body has to be there before the first byte of the request is sent.
    pub const fn signs_body(&self) -> bool {
        matches!(self, Self::Hmac(_) | Self::Sigv4 { .. })
    }
}

/// Fields that no credential is put into: they say where a request goes, where it ends, or are the proxy's own.
const NOT_FOR_CREDENTIALS: [&str; 20] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];

/// Says whether a credential may be put into a field of this name, which is in lower case.
pub(crate) fn is_field_for_credentials(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&name.len())
        && name.bytes().all(token)
        && !NOT_FOR_CREDENTIALS.contains(&name)
        && !name.starts_with("botmesh-")
        && !name.starts_with("x-forwarded-")
}

impl Mesh {
    /// Gives the credentials by name.
    pub fn credentials(&self) -> impl ExactSizeIterator<Item = (&CredentialName, &Credential)> {
        self.credentials.iter()
    }

    /// Gives one credential.
    pub fn credential(&self, name: &str) -> Option<&Credential> {
        self.credentials.get(name)
    }

    /// Gives the credential that an allowed call gets: by the rule that allows it, and by nothing else. Of a call to an address
    /// that is a secret it is the address.
    pub fn credential_of(&self, permit: &crate::Permit) -> Option<(&CredentialName, &Credential)> {
        let to = permit.call().to.outside()?;
        if let Some(name) = to.credential() {
            return self.credentials.get_key_value(name);
        }
        let rule = self.rules.get(permit.rule()?)?;
        self.credentials.get_key_value(rule.inject.as_ref()?)
    }

    /// Gives the credential that a rule names, if there is such a rule and it names one.
    pub fn credential_named_by(&self, rule: &crate::RuleId) -> Option<&CredentialName> {
        self.rules.get(rule)?.inject.as_ref()
    }

    /// Gives the destinations of the rules that add a credential, as rules write them; of an address that is a secret, what of
    /// it is none.
    pub fn services_of(&self, name: &str) -> BTreeSet<String> {
        if let Some(Injection::Url(to)) = self.credentials.get(name).map(|found| &found.injection) {
            return BTreeSet::from([to.to_string()]);
        }
        let adds = |rule: &&Arc<Rule>| rule.inject.as_ref().is_some_and(|inject| inject.as_str() == name);
        let rules = self.rules.values().filter(adds);
        rules.flat_map(|rule| &rule.to).map(ToString::to_string).collect()
    }

    /// Gives the rules that use a credential at `now`, with the bots that may call by them.
    pub fn consumers_of(&self, name: &str, now: Timestamp) -> Vec<(&crate::RuleId, Vec<&spiffe::id::BotName>)> {
        let mut roster = self.roster();
        let uses = |rule: &Rule| rule.credentials().any(|used| used == name);
        let live = |rule: &Rule| rule.effect == Effect::Allow && rule.until.is_none_or(|until| now < until);
        let mut consumers = Vec::new();
        for (id, rule) in self.rules.iter().filter(|(_, rule)| uses(rule) && live(rule)) {
            let from = roster.expand(&rule.from);
            let bots = self.bots.keys().enumerate();
            let bots = bots.filter(|(number, _)| from.contains(*number)).map(|(_, name)| name);
            consumers.push((id, bots.collect()));
        }
        consumers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_as_a_file_and_in_a_record() {
        for text in ["a", "0", "anthropic", "db-2", &"a".repeat(63)] {
            assert_eq!(CredentialName::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "-a", "A", "a/b", "..", "a.b", "a b", "\u{e9}", &"a".repeat(64)] {
            assert_eq!(CredentialName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn no_credential_goes_into_a_field_that_frames_or_routes_a_request() {
        for name in ["x-api-key", "authorization", "cookie", "private-token", "x_key"] {
            assert!(is_field_for_credentials(name), "{name}");
        }
        for name in NOT_FOR_CREDENTIALS {
            assert!(!is_field_for_credentials(name), "{name}");
        }
        for name in [
            "",
            "X-Api-Key",
            "a b",
            "a:b",
            "botmesh-id",
            "x-forwarded-for",
            &"a".repeat(65),
        ] {
            assert!(!is_field_for_credentials(name), "{name}");
        }
    }
}
