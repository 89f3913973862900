use thiserror::Error;

/// Says which rule of the grammar a name broke.
///
/// Foreign text in a variant is cut to 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// SPIFFE-ID §2.3: an ID has at most 2048 bytes.
    #[error("the SPIFFE ID has {bytes} bytes; at most 2048 are allowed")]
    IdTooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// SPIFFE-ID §2: an ID starts with `spiffe://`, in lower case.
    #[error("the SPIFFE ID does not start with `spiffe://`")]
    Scheme,
    /// SPIFFE-ID §2.1: the trust domain is not empty.
    #[error("the trust domain is empty")]
    TrustDomainEmpty,
    /// SPIFFE-ID §2.3: a trust domain has at most 255 bytes.
    #[error("the trust domain has {bytes} bytes; at most 255 are allowed")]
    TrustDomainTooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// SPIFFE-ID §2.1: a trust domain holds `[a-z0-9._-]` only.
    #[error("the trust domain holds {found:?}; only a-z, 0-9, '.', '-' and '_' are allowed")]
    TrustDomainCharacter {
        /// The first character that is not allowed.
        found: char,
    },
    /// SPIFFE-ID §2.2: a path does not end in `/`.
    #[error("the path ends with `/`")]
    TrailingSlash,
    /// SPIFFE-ID §2.2: a path segment is not empty.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// SPIFFE-ID §2.2: a path segment is neither `.` nor `..`.
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
    /// SPIFFE-ID §2.2: a path segment holds `[a-zA-Z0-9._-]` only.
    #[error("the path holds {found:?}; only a-z, A-Z, 0-9, '.', '-' and '_' are allowed in a segment")]
    PathCharacter {
        /// The first character that is not allowed.
        found: char,
    },
    /// A bot name or host name has a segment outside the grammar.
    #[error(
        "{segment:?} is not a name: 1 to 63 of a-z, 0-9 and '-' are allowed, with a letter or digit first and last"
    )]
    Segment {
        /// The segment, cut to 64 bytes.
        segment: String,
    },
    /// A bot name has more than six segments.
    #[error("the bot name has {segments} segments; at most 6 are allowed")]
    TooManySegments {
        /// How many it has.
        segments: usize,
    },
    /// A bot name starts with a word that botmesh keeps for itself.
    #[error("the bot name starts with {segment:?}, which is reserved")]
    Reserved {
        /// The reserved word.
        segment: &'static str,
    },
    /// A host pattern is neither a name, nor a name with one `*` last, nor `*`.
    #[error("{pattern:?} is not a host pattern: a host name, `*`, or the start of a name followed by `*`")]
    Pattern {
        /// The pattern, cut to 64 bytes.
        pattern: String,
    },
}
