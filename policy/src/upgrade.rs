//! The protocols that a connection can be upgraded to.

use std::fmt;
use std::sync::Arc;

/// The longest name, in bytes.
const PROTOCOL_BYTES_MAX: usize = 32;

/// Names that are HTTP or TLS again: whoever switched to them would speak to a reader that looks at nothing.
const NEVER: [&str; 4] = ["h2c", "h2", "http", "tls"];

/// The name of a protocol, as `Upgrade` has it (RFC 9110 §7.8), without a version and in lower case: names of protocols
/// are compared without regard to case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(Arc<str>);

impl Protocol {
    /// Reads a name in any case. `None` where it is no token (RFC 9110 §5.6.2), is longer than 32 bytes, or is HTTP or TLS.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if !(1..=PROTOCOL_BYTES_MAX).contains(&text.len()) || !text.iter().all(is_token) {
            return None;
        }
        let name = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
        (!NEVER.contains(&name.as_str())).then(|| Self(name.into()))
    }

    /// Gives the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Protocol({:?})", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_one_token_that_is_not_http_again() {
        for (text, name) in [
            ("websocket", "websocket"),
            ("WebSocket", "websocket"),
            ("x-1.0", "x-1.0"),
        ] {
            assert_eq!(Protocol::parse(text.as_bytes()).unwrap().as_str(), name);
        }
        let long = "a".repeat(33);
        for text in [
            "",
            "h2c",
            "H2C",
            "http",
            "tls",
            "h2",
            "web socket",
            "websocket/13",
            "a,b",
            "\u{e9}",
            &long,
        ] {
            assert_eq!(Protocol::parse(text.as_bytes()), None, "{text}");
        }
    }
}
