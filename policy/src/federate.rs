//! Credentials without a value: a bot's own JWT-SVID, signed for one audience, is what the service gets, or what is exchanged for
//! what it gets.

use std::collections::BTreeMap;

use spiffe::id::BotName;
use spiffe::time::Timestamp;

use crate::exchange::TokenUrl;
use crate::mesh::Mesh;
use crate::roster::patterns;
use crate::rule::{Effect, Rule};

/// The most members of a request that only its provider knows.
pub(crate) const PARAMETERS_MAX: usize = 16;

/// A credential that is the bot's identity itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federate {
    /// The one `aud` of the JWT-SVID (JWT-SVID §3.2): whoever else it is shown to refuses it.
    pub audience: Box<str>,
    /// What it is exchanged for; nothing where the service takes the JWT-SVID itself.
    pub exchange: Option<SvidExchange>,
}

/// How a JWT-SVID is exchanged for a token of the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidExchange {
    /// Whom to ask.
    pub token_url: TokenUrl,
    /// By which of the standards.
    pub grant: SvidGrant,
    /// As the provider knows the client, where it asks for one.
    pub client_id: Option<Box<str>>,
    /// What the token is to be good for, names with one space between them (RFC 6749 §3.3).
    pub scope: Option<Box<str>>,
    /// Where the token is used (RFC 8707).
    pub resource: Option<Box<str>>,
    /// Whom the token is for (RFC 8693 §2.1, `audience`).
    pub token_audience: Option<Box<str>>,
    /// What the JWT-SVID is called (RFC 8693 §3).
    pub subject_token_type: TokenType,
    /// What is asked for, where the provider wants that said.
    pub requested_token_type: Option<TokenType>,
    /// How the request is written.
    pub encoding: Encoding,
    /// What else the provider wants to be told.
    pub parameters: BTreeMap<Box<str>, Box<str>>,
}

/// A standard by which a JWT-SVID is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvidGrant {
    /// It is the `subject_token` (RFC 8693 §2.1).
    TokenExchange,
    /// It is the `assertion` (RFC 7523 §2.1).
    JwtBearer,
    /// It is the `client_assertion`: the client's proof of who it is (RFC 7523 §2.2).
    ClientCredentials,
}

/// A kind of token (RFC 8693 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// A JWT, whatever it says.
    Jwt,
    /// An ID token of OpenID Connect.
    IdToken,
    /// An access token.
    AccessToken,
}

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-www-form-urlencoded`, as the standards have it.
    Form,
    /// One JSON object of texts, as some providers have it.
    Json,
}

impl SvidGrant {
    /// Every one, in the order in which they are told.
    pub(crate) const ALL: [Self; 3] = [Self::TokenExchange, Self::JwtBearer, Self::ClientCredentials];

    /// Gives the word for it in the mesh file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenExchange => "token_exchange",
            Self::JwtBearer => "jwt_bearer",
            Self::ClientCredentials => "client_credentials",
        }
    }
}

impl TokenType {
    /// Those that a JWT-SVID may be called.
    pub(crate) const SUBJECTS: [Self; 2] = [Self::Jwt, Self::IdToken];

    /// Those that may be asked for: all of them are sent as bearers.
    pub(crate) const REQUESTED: [Self; 3] = [Self::AccessToken, Self::IdToken, Self::Jwt];

    /// Gives the word for it in the mesh file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::IdToken => "id_token",
            Self::AccessToken => "access_token",
        }
    }
}

impl Encoding {
    /// Every one, in the order in which they are told.
    pub(crate) const ALL: [Self; 2] = [Self::Form, Self::Json];

    /// Gives the word for it in the mesh file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Json => "json",
        }
    }
}

/// Names of members that the standards have: what they say is said by keys of their own, or never.
const OF_THE_STANDARDS: [&str; 20] = [
    "actor_token",
    "actor_token_type",
    "assertion",
    "audience",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_verifier",
    "grant_type",
    "password",
    "redirect_uri",
    "refresh_token",
    "requested_token_type",
    "resource",
    "scope",
    "subject_token",
    "subject_token_type",
    "username",
];

/// Says whether a request may have a member of this name.
pub(crate) fn is_parameter(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(letter) && !OF_THE_STANDARDS.contains(&name)
}

impl Mesh {
    /// Says whether a bot may be given a JWT-SVID for an audience at `now`: a rule that allows it calls and has not ended adds a
    /// credential that asks for exactly that one.
    pub fn may_have_jwt(&self, bot: &BotName, audience: &str, now: Timestamp) -> bool {
        let live = |rule: &Rule| rule.effect == Effect::Allow && rule.until.is_none_or(|until| now < until);
        let asks = |rule: &Rule| {
            let credential = rule.inject.as_ref().and_then(|name| self.credentials.get(name));
            let federate = credential.and_then(|credential| credential.injection.federate());
            federate.is_some_and(|federate| *federate.audience == *audience)
        };
        let holds = |rule: &Rule| patterns(&rule.from, &self.groups).any(|pattern| pattern.matches(bot));
        let mut rules = self.rules.values();
        self.bots.contains_key(bot) && rules.any(|rule| live(rule) && asks(rule) && holds(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_no_second_member_of_a_name_of_the_standards() {
        for name in ["federation_rule_id", "organization-id", "x.y", &"a".repeat(64)] {
            assert!(is_parameter(name), "{name}");
        }
        for name in OF_THE_STANDARDS {
            assert!(!is_parameter(name), "{name}");
        }
        for name in ["", "a b", "a=b", "a&b", "\u{e9}", "a\n", &"a".repeat(65)] {
            assert!(!is_parameter(name), "{name:?}");
        }
    }
}
