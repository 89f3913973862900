//! Rules as the mesh file has them, read and checked.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use spiffe::time::Timestamp;

use crate::call;
use crate::credential::CredentialName;
use crate::database::DatabaseMatch;
use crate::grpc;
use crate::mesh::ServeKind;
use crate::method::Method;
use crate::outside::{OutsidePattern, Scheme};
use crate::pattern::{NamePattern, PathPattern};
use crate::source::Place;
use crate::upgrade::Protocol;

/// The longest id of a rule, in bytes.
const RULE_ID_BYTES_MAX: usize = 63;

/// The id of a rule: 1 to 63 of `a-z`, `0-9` and `-`. Unique in a mesh; shown in every answer, record and metric.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// Reads an id, or gives `None` when it is outside the grammar.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=RULE_ID_BYTES_MAX).contains(&text.len());
        let letters = text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (fits && letters).then(|| Self(Arc::from(text)))
    }

    /// Gives the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for RuleId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleId({:?})", &*self.0)
    }
}

impl Serialize for RuleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// One of those that a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Bots(NamePattern),
    Group(Box<str>),
    /// Only where somebody is called.
    Outside(OutsidePattern),
}

impl Subject {
    /// Gives the destination outside, if it is one.
    pub(crate) fn outside(&self) -> Option<&OutsidePattern> {
        match self {
            Self::Outside(outside) => Some(outside),
            Self::Bots(_) | Self::Group(_) => None,
        }
    }

    /// Gives the name of the credential that holds its address, where one does.
    pub(crate) fn credential(&self) -> Option<&str> {
        self.outside().and_then(OutsidePattern::credential)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bots(pattern) => pattern.fmt(f),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Outside(outside) => outside.fmt(f),
        }
    }
}

/// The method of an `http` item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MethodMatch {
    Any,
    Is(Method),
}

impl MethodMatch {
    pub(crate) fn matches(&self, method: &Method) -> bool {
        match self {
            Self::Any => true,
            Self::Is(wanted) => wanted == method,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Is(method) => method.as_str(),
        }
    }
}

/// One `http` item: `GET /orders/*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HttpMatch {
    pub(crate) method: MethodMatch,
    pub(crate) path: PathPattern,
}

impl HttpMatch {
    /// Writes an item of `grpc`: `acme.orders.v1.Orders/Get`.
    pub(crate) fn grpc(&self) -> &str {
        self.path.as_str().trim_start_matches('/')
    }
}

impl fmt::Display for HttpMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.as_str(), self.path.as_str())
    }
}

/// One rule. Its id is the key that it is kept under.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) effect: Effect,
    pub(crate) from: Vec<Subject>,
    pub(crate) to: Vec<Subject>,
    /// The protocol whose calls the rule speaks of; `None` for a deny rule that covers every call, and for rules about
    /// TLS and PostgreSQL outside, where the destination says it.
    pub(crate) kind: Option<ServeKind>,
    /// Empty for a deny rule that covers every call. A method of gRPC is the `POST` that calls it.
    pub(crate) http: Vec<HttpMatch>,
    /// The ports of a rule about TCP, in order, each once.
    pub(crate) tcp: Vec<u16>,
    /// The databases of a rule about PostgreSQL, in order, each once.
    pub(crate) postgres: Vec<DatabaseMatch>,
    /// Why a bot may have a connection into which nobody looks.
    pub(crate) justify: Option<Arc<str>>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) reason: Option<Arc<str>>,
    pub(crate) browser: bool,
    /// What a caller may switch to, in the order of the names, each once.
    pub(crate) upgrade: Vec<Protocol>,
    /// What the proxy adds to its calls.
    pub(crate) inject: Option<CredentialName>,
    /// Whether records of its calls have a hash in the place of the path.
    pub(crate) hashed: bool,
    pub(crate) place: Place,
}

impl Rule {
    /// Writes the calls that the rule speaks of, as people write them; none for a rule that covers every call.
    pub(crate) fn calls(&self) -> Vec<String> {
        let write = |item: &HttpMatch| match self.kind {
            Some(ServeKind::Grpc) => format!("{} {}", grpc::WORD, item.grpc()),
            Some(ServeKind::Http | ServeKind::Tcp) | None => item.to_string(),
        };
        let ports = self.tcp.iter().map(|port| format!("{} {port}", call::TCP));
        let tls = self.is_tls().then(|| call::TLS.to_owned());
        let databases = self.postgres.iter();
        let databases = databases.map(|database| format!("{} {}", call::POSTGRES, database.as_str()));
        self.http
            .iter()
            .map(write)
            .chain(ports)
            .chain(tls)
            .chain(databases)
            .collect()
    }

    /// Names the credentials that the rule uses: what it adds, and the addresses that it leads to.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = &str> {
        let added = self.inject.as_ref().map(CredentialName::as_str);
        let called = self.to.iter().filter_map(Subject::credential);
        added.into_iter().chain(called)
    }

    /// Says whether the rule is about TLS to the outside.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_about(Scheme::Tls)
    }

    /// Says whether the rule is about databases of PostgreSQL.
    pub(crate) fn is_postgres(&self) -> bool {
        self.is_about(Scheme::Postgres)
    }

    fn is_about(&self, scheme: Scheme) -> bool {
        let about = |subject: &Subject| subject.outside().is_some_and(|outside| outside.scheme() == scheme);
        self.to.iter().any(about)
    }
}

impl PartialEq for Rule {
    /// Compares what the rule says, not where it stands.
    fn eq(&self, other: &Self) -> bool {
        (self.effect, &self.from, &self.to) == (other.effect, &other.from, &other.to)
            && (self.kind, &self.http, &self.tcp) == (other.kind, &other.http, &other.tcp)
            && (&self.postgres, &self.justify) == (&other.postgres, &other.justify)
            && (self.until, &self.reason, self.browser) == (other.until, &other.reason, other.browser)
            && (&self.upgrade, &self.inject, self.hashed) == (&other.upgrade, &other.inject, other.hashed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_63_lower_case_letters_digits_and_dashes() {
        for text in ["a", "0", "-", "checkout-reads-orders", &"a".repeat(63)] {
            assert_eq!(RuleId::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "A", "a_b", "a b", "a/b", "\u{e9}", &"a".repeat(64)] {
            assert_eq!(RuleId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_id_reads_as_its_text() {
        let id = RuleId::parse("a-1").unwrap();
        assert_eq!(
            (id.to_string().as_str(), format!("{id:?}").as_str()),
            ("a-1", "RuleId(\"a-1\")")
        );
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"a-1\"");
    }
}
