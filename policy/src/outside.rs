//! Destinations outside of the mesh.

use std::fmt;
use std::sync::Arc;

/// How a destination outside of the mesh is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// HTTP over TLS that the proxy opens.
    Https,
    /// HTTP in the clear.
    Http,
    /// TLS that the bot itself opens.
    Tls,
}

impl Scheme {
    /// Gives the scheme as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Tls => "tls",
        }
    }

    /// Gives the port where none is written.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https | Self::Tls => 443,
            Self::Http => 80,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A destination outside of the mesh: `https://api.example.com`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outside {
    scheme: Scheme,
    host: Arc<str>,
    port: u16,
}

impl Outside {
    /// Gives how it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Gives its host name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Gives its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Outside {
    /// Writes it without its port where that is the scheme's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if self.port == self.scheme.default_port() {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outside({self})")
    }
}
