//! Addresses in values: destinations without a key, and which addresses have one.

use super::{Work, is_random};
use crate::outside::{Outside, Scheme};

/// An address as clients write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Url<'t> {
    pub(super) scheme: &'t str,
    /// `user` and `password`, as they are written.
    pub(super) user: Option<(&'t str, Option<&'t str>)>,
    /// Host and port.
    pub(super) authority: &'t str,
    /// From the first slash to the query.
    pub(super) path: &'t str,
    /// Whether anything follows it.
    pub(super) more: bool,
}

impl<'t> Url<'t> {
    pub(super) fn read(text: &'t str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let letters = scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (rest, more) = rest.split_at_checked(end)?;
        let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        let user = user.map(|user| {
            user.split_once(':')
                .map_or((user, None), |(user, password)| (user, Some(password)))
        });
        (letters && !scheme.is_empty() && !authority.is_empty()).then_some(Self {
            scheme,
            user,
            authority,
            path,
            more: !more.is_empty(),
        })
    }

    /// Where requests to it go, if a rule can name that.
    pub(super) fn outside(&self) -> Option<Outside> {
        let scheme = match self.scheme {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return None,
        };
        let authority = self.authority.to_ascii_lowercase();
        let own = format!(":{}", scheme.default_port());
        let authority = authority.strip_suffix(&own).unwrap_or(&authority);
        Outside::parse(&format!("{}://{authority}", scheme.as_str())).ok()
    }

    /// Its path without the last slash, if a rule can name it.
    pub(super) fn base(&self) -> Option<&'t str> {
        let base = self.path.trim_end_matches('/');
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
        let plain = base.bytes().all(known) && !base.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
        (plain && base.len() <= 200).then_some(base)
    }
}

/// Says whether an address has a password in it.
pub(super) fn has_password(value: &str) -> bool {
    let user = Url::read(value).and_then(|url| url.user);
    user.is_some_and(|(_, password)| password.is_some_and(|password| !password.is_empty()))
}

/// How the names of addresses end.
const ENDS: [&str; 6] = ["_URL", "_URI", "_ENDPOINT", "_BASE", "_API", "_HOST"];

impl Work<'_> {
    /// Proposes a rule for every other address that a variable names.
    pub(super) fn addresses(&mut self) {
        let names: Vec<_> = self.variables.keys().copied().collect();
        for name in names {
            let Some(variable) = self.of(name) else { continue };
            let upper = name.to_ascii_uppercase();
            let Some(url) = Url::read(variable.text()) else {
                continue;
            };
            let named = upper == "URL" || ENDS.iter().any(|end| upper.ends_with(end));
            let (Some(to), true, None) = (url.outside(), named, url.user) else {
                continue;
            };
            if self.looks.contains_key(name) {
                continue;
            }
            let random = url.more || url.base().is_none() || url.path.split('/').any(is_random);
            if upper.contains("WEBHOOK") || random {
                let why = "what stands in the address may be a key itself: write a credential with `url` and a rule to secret://, if it is one";
                self.leave(name, why);
                continue;
            }
            let base = url.base().unwrap_or_default();
            let port = self.lead(to, vec![format!("GET {base}/**")], None);
            self.becomes(variable, Some(format!("http://127.0.0.1:{port}{}", url.path)));
        }
    }
}
