use std::sync::Arc;

use super::text::text_type;
use super::{BotName, HostName, IdError, TrustDomain, trust_domain};

/// SPIFFE-ID §2.3: implementations "MUST support SPIFFE URIs up to 2048 bytes" and "SHOULD NOT generate" longer ones.
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;

const SCHEME: &str = "spiffe://";

/// Names a workload, or a trust domain when it has no path: `spiffe://acme.internal/prod/orders`.
///
/// Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path starts: the length of the scheme and the trust domain. Equal for equal texts.
    path_start: u16,
}

text_type!(SpiffeId);

/// Says what a SPIFFE ID of this mesh names, by its path alone.
///
/// The trust domain plays no part: whoever asks has already compared it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// No path: the trust domain itself.
    TrustDomain,
    /// `/prod/orders`
    Bot(BotName),
    /// `/botmesh/host/web-1`: the node SVID of a proxy.
    Host(HostName),
    /// `/botmesh/ca/ca-1`: a server of the CA.
    Ca(HostName),
    /// `/botmesh/operator/NAME`: a person.
    Operator(String),
    /// A valid SPIFFE ID whose path is no name of botmesh.
    Foreign,
}

impl SpiffeId {
    /// Parses an ID by SPIFFE-ID §2.
    ///
    /// # Errors
    /// For anything but `spiffe://`, a trust domain and a path of non-empty segments of `[a-zA-Z0-9._-]`, of which none
    /// is `.` or `..`, without a trailing slash, in at most 2048 bytes. Query, fragment, port, user info and
    /// percent-encoding fall to the character rules.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(IdError::IdTooLong { bytes: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
        let (domain, path) = match rest.find('/') {
            Some(slash) => rest.split_at_checked(slash).unwrap_or((rest, "")),
            None => (rest, ""),
        };
        trust_domain::check(domain)?;
        check_path(path)?;
        Ok(Self {
            text: Arc::from(text),
            path_start: path_start(domain),
        })
    }

    /// Gives the whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Gives the trust domain as a value of its own; this allocates.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain::checked(self.trust_domain_str())
    }

    /// Gives the name of the trust domain.
    pub fn trust_domain_str(&self) -> &str {
        self.text
            .get(SCHEME.len()..usize::from(self.path_start))
            .unwrap_or_default()
    }

    /// Gives the path: empty, or `/` and the segments.
    pub fn path(&self) -> &str {
        self.text.get(usize::from(self.path_start)..).unwrap_or_default()
    }

    /// Tells whether this ID belongs to `trust_domain`, as a workload or as the domain itself.
    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain_str() == trust_domain.as_str()
    }

    /// Builds the ID of a bot.
    pub fn for_bot(trust_domain: &TrustDomain, bot: &BotName) -> Self {
        Self::build(trust_domain, &format!("/{bot}"))
    }

    /// Builds the ID of a host's proxy, `/botmesh/host/NAME`.
    pub fn for_host(trust_domain: &TrustDomain, host: &HostName) -> Self {
        Self::build(trust_domain, &format!("{HOST_PREFIX}{host}"))
    }

    /// Builds the ID of a CA server, `/botmesh/ca/NAME`.
    pub fn for_ca(trust_domain: &TrustDomain, server: &HostName) -> Self {
        Self::build(trust_domain, &format!("{CA_PREFIX}{server}"))
    }

    /// Says what this ID names.
    pub fn kind(&self) -> IdKind {
        let path = self.path();
        if path.is_empty() {
            return IdKind::TrustDomain;
        }
        if let Some(name) = path.strip_prefix(HOST_PREFIX) {
            return HostName::parse(name).map_or(IdKind::Foreign, IdKind::Host);
        }
        if let Some(name) = path.strip_prefix(CA_PREFIX) {
            return HostName::parse(name).map_or(IdKind::Foreign, IdKind::Ca);
        }
        if let Some(name) = path.strip_prefix(OPERATOR_PREFIX) {
            let one_segment = !name.is_empty() && !name.contains('/');
            return if one_segment {
                IdKind::Operator(name.to_owned())
            } else {
                IdKind::Foreign
            };
        }
        let name = path.strip_prefix('/').unwrap_or_default();
        BotName::parse(name).map_or(IdKind::Foreign, IdKind::Bot)
    }

    /// Joins parts that are already valid. The longest bot name (383 bytes) and trust domain (255) stay far below the
    /// 2048 bytes of an ID.
    pub(super) fn build(trust_domain: &TrustDomain, path: &str) -> Self {
        let domain = trust_domain.as_str();
        Self {
            text: Arc::from(format!("{SCHEME}{domain}{path}")),
            path_start: path_start(domain),
        }
    }
}

const HOST_PREFIX: &str = "/botmesh/host/";
const CA_PREFIX: &str = "/botmesh/ca/";
const OPERATOR_PREFIX: &str = "/botmesh/operator/";

/// Computes where the path starts. A checked trust domain has at most 255 bytes, so the sum fits.
fn path_start(domain: &str) -> u16 {
    u16::try_from(SCHEME.len() + domain.len()).unwrap_or(u16::MAX)
}

/// Checks a path, which is empty or starts with `/`, by SPIFFE-ID §2.2.
fn check_path(path: &str) -> Result<(), IdError> {
    let Some(segments) = path.strip_prefix('/') else {
        return Ok(());
    };
    if path.ends_with('/') {
        return Err(IdError::TrailingSlash);
    }
    segments.split('/').try_for_each(|segment| {
        if segment.is_empty() {
            return Err(IdError::EmptySegment);
        }
        if segment == "." || segment == ".." {
            return Err(IdError::DotSegment);
        }
        match segment
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')))
        {
            Some(found) => Err(IdError::PathCharacter { found }),
            None => Ok(()),
        }
    })
}
