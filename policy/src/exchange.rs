//! Credentials whose value is no token itself: the proxy exchanges it for a short one, which is what services get.

use std::fmt;

use thiserror::Error;

use crate::outside::{Outside, OutsideError, Scheme};

/// The longest path and query of an endpoint, in bytes.
const PATH_BYTES_MAX: usize = 512;

/// How a value is exchanged by OAuth 2 (RFC 6749).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth {
    /// Whom to ask.
    pub token_url: TokenUrl,
    /// As the authorization server knows the proxy.
    pub client_id: Box<str>,
    /// What the value is.
    pub grant: Grant,
    /// How the proxy says who it is.
    pub auth: ClientAuth,
    /// What the token is to be good for, names with one space between them (RFC 6749 §3.3).
    pub scope: Option<Box<str>>,
    /// Whom the token is for, as some servers ask.
    pub audience: Option<Box<str>>,
    /// Where the token is used (RFC 8707).
    pub resource: Option<Box<str>>,
}

/// What is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The value is the client's secret (RFC 6749 §4.4).
    ClientCredentials,
    /// The value is a refresh token (RFC 6749 §6).
    RefreshToken,
}

/// How a client proves who it is to a token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Name and secret in `Authorization` (RFC 6749 §2.3.1).
    Basic,
    /// Both in the body.
    Post,
    /// By its name alone: a public client, whose refresh token is all that it has.
    None,
}

impl Grant {
    /// Every one, in the order in which they are told.
    pub(crate) const ALL: [Self; 2] = [Self::ClientCredentials, Self::RefreshToken];

    /// Gives the word for it, which is that of RFC 6749 too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::RefreshToken => "refresh_token",
        }
    }
}

impl ClientAuth {
    /// Every one, in the order in which they are told.
    pub(crate) const ALL: [Self; 3] = [Self::Basic, Self::Post, Self::None];

    /// Gives the word for it in the mesh file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Post => "post",
            Self::None => "none",
        }
    }
}

/// An app of GitHub, or of a GitHub Enterprise Server, in one place where it is installed. The value is its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GithubApp {
    /// The app's ID, or its client ID.
    pub app_id: Box<str>,
    /// Where it is installed: an organisation or a user.
    pub installation_id: u64,
    /// Where its API begins, without a slash at the end.
    pub base: Box<str>,
    /// Where its tokens are given, below that.
    pub token_url: TokenUrl,
}

impl GithubApp {
    /// Where GitHub's own API begins.
    pub const BASE: &str = "https://api.github.com";

    /// Names an app; nothing where `base` is no beginning of an address.
    pub(crate) fn new(app_id: &str, installation_id: u64, base: &str) -> Result<Self, TokenUrlError> {
        let base = base.strip_suffix('/').unwrap_or(base);
        let token_url = TokenUrl::parse(&format!("{base}/app/installations/{installation_id}/access_tokens"))?;
        if token_url.path().contains('?') {
            return Err(TokenUrlError::Path);
        }
        Ok(Self {
            app_id: app_id.into(),
            installation_id,
            base: base.into(),
            token_url,
        })
    }
}

/// Where tokens are given: `https://login.example.com/oauth2/token`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenUrl {
    outside: Outside,
    path: Box<str>,
}

/// Says why a text is no such address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenUrlError {
    /// What it begins with is no destination.
    #[error("{0}")]
    Outside(#[from] OutsideError),
    /// The secret would be sent in the clear.
    #[error("tokens are asked for at https:// only")]
    NotHttps,
    /// Its path can be read in two ways, or is none.
    #[error("a path follows the host, of at most {PATH_BYTES_MAX} visible characters, without `#`, `.` and `..`")]
    Path,
}

impl TokenUrl {
    /// Reads `https://host/path`, where a port and a query may stand.
    ///
    /// # Errors
    /// When the text is not of that form.
    pub fn parse(text: &str) -> Result<Self, TokenUrlError> {
        let (_, rest) = text.split_once("://").ok_or(OutsideError::Scheme)?;
        let length = rest.find('/').unwrap_or(rest.len());
        let (outside, path) = text
            .split_at_checked(text.len() - rest.len() + length)
            .ok_or(TokenUrlError::Path)?;
        let outside = Outside::parse(outside)?;
        if outside.scheme() != Scheme::Https {
            return Err(TokenUrlError::NotHttps);
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
        let segments = path.split('?').next().unwrap_or_default();
        let dots = segments.split('/').any(|segment| matches!(segment, "." | ".."));
        if !(1..=PATH_BYTES_MAX).contains(&path.len()) || !path.bytes().all(known) || dots {
            return Err(TokenUrlError::Path);
        }
        Ok(Self {
            outside,
            path: path.into(),
        })
    }

    /// Gives whom to connect to.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// Gives its path and query, which begin with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.outside, self.path)
    }
}

impl fmt::Debug for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_tokens_has_one_spelling() {
        for text in [
            "https://a.example/token",
            "https://a.example/",
            "https://a.example:8443/t-1/oauth2/v2.0/token?p=a%20b",
        ] {
            assert_eq!(TokenUrl::parse(text).unwrap().to_string(), text);
        }
        let url = TokenUrl::parse("https://a.example:8443/a?b=/../").unwrap();
        assert_eq!((url.outside().port(), url.path()), (8443, "/a?b=/../"));
    }

    #[test]
    fn an_app_has_its_tokens_below_its_base() {
        let url = |base| GithubApp::new("1", 23, base).map(|app| app.token_url.to_string());
        let at = |start: &str| Ok(format!("{start}/app/installations/23/access_tokens"));
        assert_eq!(url(GithubApp::BASE), at("https://api.github.com"));
        assert_eq!(
            url("https://ghe.acme.example/api/v3/"),
            at("https://ghe.acme.example/api/v3")
        );
        assert_eq!(url("https://ghe.acme.example?x"), Err(OutsideError::Path.into()));
        assert_eq!(url("https://ghe.acme.example/?x="), Err(TokenUrlError::Path));
        assert_eq!(url("http://ghe.acme.example"), Err(TokenUrlError::NotHttps));
    }

    #[test]
    fn what_is_no_such_address_is_refused() {
        let long = format!("https://a.example/{}", "a".repeat(PATH_BYTES_MAX));
        for (text, error) in [
            ("a.example/token", OutsideError::Scheme.into()),
            ("https://a.example:443/token", OutsideError::OwnPort.into()),
            ("https://10.0.0.1/token", OutsideError::Address.into()),
            ("https://u@a.example/token", OutsideError::Path.into()),
            ("https://a.example?x/token", OutsideError::Path.into()),
            ("http://a.example/token", TokenUrlError::NotHttps),
            ("tls://a.example/token", TokenUrlError::NotHttps),
            ("https://a.example", TokenUrlError::Path),
            ("https://a.example/../token", TokenUrlError::Path),
            ("https://a.example/./token", TokenUrlError::Path),
            ("https://a.example/token#x", TokenUrlError::Path),
            ("https://a.example/to ken", TokenUrlError::Path),
            ("https://a.example/to\nken", TokenUrlError::Path),
            (&long, TokenUrlError::Path),
        ] {
            assert_eq!(TokenUrl::parse(text), Err(error), "{text}");
        }
    }
}
