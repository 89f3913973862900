use std::sync::Arc;

use super::text::text_type;
use super::{IdError, SpiffeId};

/// SPIFFE-ID §2.3: "The trust domain […] MUST NOT exceed 255 bytes."
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Names a trust domain, such as `acme.internal`: 1 to 255 bytes of `[a-z0-9._-]` (SPIFFE-ID §2.1).
///
/// Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

text_type!(TrustDomain);

impl TrustDomain {
    /// Parses the bare name, without `spiffe://`.
    ///
    /// # Errors
    /// When it is empty, longer than 255 bytes or holds another character; so also for a port, user info, an IPv6
    /// address and any percent-encoding.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// Wraps a name that has passed [`check`] as part of an ID.
    pub(super) fn checked(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// Gives the bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Gives the ID of the trust domain itself, `spiffe://` and the name, with no path.
    pub fn id(&self) -> SpiffeId {
        SpiffeId::build(self, "")
    }
}

/// Checks the grammar of a trust domain without keeping it.
pub(super) fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::TrustDomainEmpty);
    }
    if text.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err(IdError::TrustDomainTooLong { bytes: text.len() });
    }
    match text
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_'))
    {
        Some(found) => Err(IdError::TrustDomainCharacter { found }),
        None => Ok(()),
    }
}
