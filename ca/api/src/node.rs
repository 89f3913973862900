//! The node API: generated messages, client and server, and the bounds that
//! both ends keep.

use std::fmt;

use aws_lc_rs::digest;

#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unnameable_types,
    unused_qualifications,
    elided_lifetimes_in_paths,
    let_underscore_drop,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    rustdoc::all,
    reason = "written by tonic-prost-build from proto/node.proto, which holds the documentation"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/botmesh.node.v1.rs"));
}

pub use generated::*;

/// The version of the stream's protocol that a host names in its `Hello`.
pub const PROTOCOL_VERSION: u32 = 1;

/// The only application protocol of the node API (RFC 9113 §3.2).
pub const ALPN: &[u8] = b"h2";

/// The RFC 8446 §7.5 exporter label that binds an attestation to its connection;
/// the context is empty.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-botmesh-attest";

/// The length of the exported value.
pub const EXPORTER_BYTES: usize = 32;

/// The largest message from the CA: a slice, its biggest content, is bounded by it.
pub const DOWN_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The largest message from a host.
pub const UP_MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// The most SVIDs in one `IssueRequest`.
pub const ISSUE_BATCH_MAX: usize = 64;

/// The largest PKCS#10 request; one with a P-256 key and a SPIFFE ID of the full
/// 2048 bytes (SPIFFE-ID §2.4) fits.
pub const CSR_BYTES_MAX: usize = 4096;

/// The longest audience of a JWT-SVID in bytes: one URL, or a name that a relying party chose.
pub const AUDIENCE_BYTES_MAX: usize = 1024;

/// The most rows in an answer about a ledger.
pub const LEDGER_ROWS_MAX: usize = 500;

/// The most bytes of rows in it: with what is around them it fits into a message.
pub const LEDGER_ANSWER_BYTES_MAX: usize = 192 * 1024;

/// The most edges in one `Edges` message.
pub const EDGES_MAX: usize = 512;

/// Returns the bytes that `AttestRequest.proof` and `BoundKeyEvidence.proof` sign.
///
/// Binding the exporter makes a proof worthless on any other connection, so that
/// a man in the middle cannot relay it; binding the CSR makes it worthless for any
/// other key.
#[must_use]
pub fn attest_message(exporter: &[u8; EXPORTER_BYTES], csr: &[u8]) -> Vec<u8> {
    const CONTEXT: &[u8] = b"botmesh attest v1\n";
    let csr = digest::digest(&digest::SHA256, csr);
    [CONTEXT, exporter, csr.as_ref()].concat()
}

/// Makes a message to the CA.
#[must_use]
pub fn up(message: host_message::Message) -> HostMessage {
    HostMessage { message: Some(message) }
}

/// Makes a message to a host.
#[must_use]
pub fn down(message: ca_message::Message) -> CaMessage {
    CaMessage { message: Some(message) }
}

impl fmt::Debug for TokenEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenEvidence { secret: <redacted> }")
    }
}

/// Why the CA refused one bot of an `IssueRequest`: the words of
/// `SvidResult.refusal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SvidRefusal {
    /// The mesh file holds no bot of that name that this host may claim. One word
    /// for both, so that a host cannot list the bots of other hosts.
    NotYourBot,
    /// The request is malformed: name, CSR, or key.
    BadRequest,
    /// The bot, or the host that asks, is quarantined.
    Quarantined,
    /// The CA could not sign or record; try again.
    Unavailable,
}

impl SvidRefusal {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotYourBot => "not_your_bot",
            Self::BadRequest => "bad_request",
            Self::Quarantined => "quarantined",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Debug for JwtResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtResponse")
            .field("expires_unix_ms", &self.expires_unix_ms)
            .field("refusal", &self.refusal)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// Tells whether an audience may be asked for: 1 to [`AUDIENCE_BYTES_MAX`] visible ASCII characters.
#[must_use]
pub fn is_audience(text: &str) -> bool {
    (1..=AUDIENCE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Why the CA refused a `JwtRequest`: the words of `JwtResponse.refusal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JwtRefusal {
    /// As [`SvidRefusal::NotYourBot`].
    NotYourBot,
    /// No rule that allows the bot something now has a credential for that audience.
    NotYourAudience,
    /// The name of the bot or the audience is malformed.
    BadRequest,
    /// The bot, or the host that asks, is quarantined.
    Quarantined,
    /// The CA has no `federation:`.
    NotConfigured,
    /// The CA could not sign or record; try again.
    Unavailable,
}

impl JwtRefusal {
    const ALL: [Self; 6] = [
        Self::NotYourBot,
        Self::NotYourAudience,
        Self::BadRequest,
        Self::Quarantined,
        Self::NotConfigured,
        Self::Unavailable,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotYourBot => "not_your_bot",
            Self::NotYourAudience => "not_your_audience",
            Self::BadRequest => "bad_request",
            Self::Quarantined => "quarantined",
            Self::NotConfigured => "not_configured",
            Self::Unavailable => "unavailable",
        }
    }

    /// Finds the refusal of a word; `None` for words of a newer CA.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.as_str() == word)
    }
}

/// Why the CA ended a stream: the words of `Goodbye.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GoodbyeReason {
    /// The node SVID that opened the stream ended; come back with the next one.
    SvidExpired,
    /// The host was evicted: its key is worth nothing any more.
    Evicted,
    /// A newer stream of the same host took over.
    Replaced,
    /// The CA is shutting down; come back.
    Shutdown,
    /// The host said something that the protocol forbids.
    Protocol,
}

impl GoodbyeReason {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SvidExpired => "svid_expired",
            Self::Evicted => "evicted",
            Self::Replaced => "replaced",
            Self::Shutdown => "shutdown",
            Self::Protocol => "protocol",
        }
    }

    /// Finds the reason of a word; `None` for words of a newer CA.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::SvidExpired,
            Self::Evicted,
            Self::Replaced,
            Self::Shutdown,
            Self::Protocol,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attest_message_changes_with_the_exporter_and_with_the_csr() {
        let base = attest_message(&[1; 32], b"csr");
        assert_eq!(base.len(), 18 + 32 + 32);
        assert_ne!(base, attest_message(&[2; 32], b"csr"));
        assert_ne!(base, attest_message(&[1; 32], b"csR"));
    }

    #[test]
    fn debug_of_an_attest_request_does_not_show_the_secret() {
        let request = AttestRequest {
            evidence: Some(attest_request::Evidence::Token(TokenEvidence {
                secret: "hunter2".into(),
            })),
            ..AttestRequest::default()
        };
        assert!(!format!("{request:?}").contains("hunter2"));
    }

    #[test]
    fn debug_of_a_jwt_response_does_not_show_the_token() {
        let response = JwtResponse {
            token: "hunter2".into(),
            expires_unix_ms: 17,
            ..JwtResponse::default()
        };
        let text = format!("{response:?}");
        assert!(text.contains("17") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn words_of_jwt_refusals_are_found_again() {
        for refusal in JwtRefusal::ALL {
            assert_eq!(JwtRefusal::from_word(refusal.as_str()), Some(refusal));
        }
        assert_eq!(JwtRefusal::from_word("later"), None);
    }

    #[test]
    fn an_audience_is_visible_ascii_of_some_length() {
        let longest = "a".repeat(AUDIENCE_BYTES_MAX);
        for good in ["a", "https://api.anthropic.com", "//iam.googleapis.com/x", &longest] {
            assert!(is_audience(good), "{good}");
        }
        for bad in ["", "a b", "a\n", "ä", "a\u{7f}", &format!("{longest}a")] {
            assert!(!is_audience(bad), "{bad:?}");
        }
    }

    #[test]
    fn goodbye_words_are_found_again() {
        assert_eq!(GoodbyeReason::from_word("evicted"), Some(GoodbyeReason::Evicted));
        assert_eq!(GoodbyeReason::from_word("later"), None);
    }
}
