//! The question: who calls whom, and by what.

use std::fmt;

use spiffe::id::{BotName, SpiffeId};

use crate::method::Method;
use crate::outside::Outside;
use crate::path::CanonicalPath;
use crate::upgrade::Protocol;

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

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bot(bot) => bot.fmt(f),
            Self::Outside(outside) => outside.fmt(f),
        }
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
}

impl What {
    /// Gives the request, if it is one.
    pub fn http(&self) -> Option<&HttpAsk> {
        match self {
            Self::Http(ask) => Some(ask),
            Self::Tcp { .. } | Self::Tls => None,
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
