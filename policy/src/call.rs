//! The question: who calls whom, and by what.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use spiffe::id::{BotName, IdError, SpiffeId};
use thiserror::Error;

use crate::database::Database;
use crate::method::Method;
use crate::outside::{Outside, OutsideError};
use crate::path::CanonicalPath;
use crate::upgrade::Protocol;

/// The word before the port of a TCP connection where a call is written.
pub(crate) const TCP: &str = "tcp";

/// The word for a TLS connection to the outside.
pub(crate) const TLS: &str = "tls";

/// The word before the database of a session of PostgreSQL.
pub(crate) const POSTGRES: &str = "postgres";

/// One call: who, to whom, what. Made once from the request; what is decided is what is recorded and forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The caller, as the kernel or the peer's certificate proved it.
    pub from: SpiffeId,
    /// Who is called.
    pub to: Callee,
    /// What is asked.
    pub what: What,
}

impl Call {
    /// Gives the bot that is called, if it is one.
    pub fn bot(&self) -> Option<&BotName> {
        self.to.bot()
    }

    /// Gives the request, if the call is one.
    pub fn http(&self) -> Option<&HttpAsk> {
        self.what.http()
    }
}

/// Who is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Callee {
    /// A bot of the mesh.
    Bot(BotName),
    /// Somebody outside of it.
    Outside(Outside),
}

impl Callee {
    /// Gives the bot, if it is one.
    pub fn bot(&self) -> Option<&BotName> {
        match self {
            Self::Bot(bot) => Some(bot),
            Self::Outside(_) => None,
        }
    }

    /// Gives the outside destination, if it is one.
    pub fn outside(&self) -> Option<&Outside> {
        match self {
            Self::Outside(outside) => Some(outside),
            Self::Bot(_) => None,
        }
    }
}

impl From<BotName> for Callee {
    fn from(bot: BotName) -> Self {
        Self::Bot(bot)
    }
}

impl From<Outside> for Callee {
    fn from(outside: Outside) -> Self {
        Self::Outside(outside)
    }
}

/// Says why a text names nobody who is called.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CalleeError {
    /// It is no name of a bot.
    #[error(transparent)]
    Bot(#[from] IdError),
    /// It is no destination outside.
    #[error(transparent)]
    Outside(#[from] OutsideError),
}

impl FromStr for Callee {
    type Err = CalleeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("://") {
            return Ok(Self::Outside(Outside::parse(text)?));
        }
        Ok(Self::Bot(BotName::parse(text)?))
    }
}

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bot(bot) => bot.fmt(f),
            Self::Outside(outside) => outside.fmt(f),
        }
    }
}

impl Serialize for Callee {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is asked of the callee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A request. gRPC is one too: `POST /package.Service/Method`.
    Http(HttpAsk),
    /// A connection of which nothing is read.
    Tcp {
        /// The port of the callee.
        port: u16,
    },
    /// A TLS connection to the outside, of which the name in its first message is read and nothing else.
    Tls,
    /// A session of PostgreSQL, of which the start-up is read and nothing else.
    Postgres {
        /// The database that it opens.
        database: Database,
    },
}

impl fmt::Display for What {
    /// Writes it as tests and `policy explain` take it: `GET /orders/17`, `tcp 5432`, `tls`, `postgres orders`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(ask) => write!(f, "{} {}", ask.method, ask.path),
            Self::Tcp { port } => write!(f, "{TCP} {port}"),
            Self::Tls => f.write_str(TLS),
            Self::Postgres { database } => write!(f, "{POSTGRES} {database}"),
        }
    }
}

impl What {
    /// Says whether it looks like a browser's request.
    pub fn is_browser(&self) -> bool {
        self.http().is_some_and(|ask| ask.browser)
    }

    /// Reads a connection that is no request: `tcp 5432`, `tls`, `postgres orders`. `None` for everything else.
    pub fn connection(text: &str) -> Option<Self> {
        if text == TLS {
            return Some(Self::Tls);
        }
        if let Some(database) = text.strip_prefix(POSTGRES).and_then(|rest| rest.strip_prefix(' ')) {
            let database = Database::parse(database)?;
            return Some(Self::Postgres { database });
        }
        let port = text.strip_prefix(TCP)?.strip_prefix(' ')?;
        let plain = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let port = port.parse().ok().filter(|_| plain)?;
        Some(Self::Tcp { port })
    }

    /// Gives the request, if it is one.
    pub fn http(&self) -> Option<&HttpAsk> {
        match self {
            Self::Http(ask) => Some(ask),
            Self::Tcp { .. } | Self::Tls | Self::Postgres { .. } => None,
        }
    }
}

/// A request, as far as it is decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAsk {
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: CanonicalPath,
    /// Whether the request looks like one that a browser made (`Origin`, `Sec-Fetch-*`).
    pub browser: bool,
    /// The protocol that the caller asks to switch to.
    pub upgrade: Option<Protocol>,
}

impl HttpAsk {
    /// A request that does not look like a browser's and asks to switch to nothing.
    pub fn new(method: Method, path: CanonicalPath) -> Self {
        Self {
            method,
            path,
            browser: false,
            upgrade: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_read_as_it_is_written() {
        for text in ["tls", "tcp 5432", "tcp 1", "tcp 65535", "postgres orders"] {
            assert_eq!(What::connection(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "tcp",
            "tcp 0",
            "tcp 65536",
            "tcp 05",
            "tcp  5",
            "tcp +5",
            "tcp5",
            "TLS",
            "tls 443",
            "postgres",
            "postgres ",
            "postgres *",
            "postgres a b",
        ] {
            assert_eq!(What::connection(text), None, "{text:?}");
        }
    }
}
