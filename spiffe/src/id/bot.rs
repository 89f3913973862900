use std::sync::Arc;

use super::IdError;
use super::text::{is_segment, quote, text_type};

/// The most segments that a bot name may have.
pub const BOT_NAME_SEGMENTS_MAX: usize = 6;

/// First segments that botmesh keeps: its own SPIFFE paths, its own host-name suffix, and this machine.
const RESERVED: [&str; 3] = ["botmesh", "mesh", "localhost"];

const MESH_SUFFIX: &str = ".mesh";

/// Names a bot, such as `prod/orders`: one to six segments of `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
///
/// The first segment is none of `botmesh`, `mesh`, `localhost`. Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BotName(Arc<str>);

text_type!(BotName);

impl BotName {
    /// Parses a name as the mesh file writes it, without a leading slash.
    ///
    /// # Errors
    /// For a segment outside the grammar, more than six segments, or a reserved first segment.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let segments = text.split('/').count();
        if segments > BOT_NAME_SEGMENTS_MAX {
            return Err(IdError::TooManySegments { segments });
        }
        if let Some(segment) = text.split('/').find(|segment| !is_segment(segment)) {
            return Err(IdError::Segment {
                segment: quote(segment),
            });
        }
        let first = text.split('/').next().unwrap_or_default();
        if let Some(segment) = RESERVED.into_iter().find(|reserved| *reserved == first) {
            return Err(IdError::Reserved { segment });
        }
        Ok(Self(Arc::from(text)))
    }

    /// Gives the name, `prod/orders`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Gives the segments, first to last.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Gives the host name under which other bots call this one: the segments reversed, then `mesh`; `prod/orders` is
    /// `orders.prod.mesh`.
    pub fn mesh_host(&self) -> String {
        let mut labels: Vec<&str> = self.0.split('/').collect();
        labels.reverse();
        labels.join(".") + MESH_SUFFIX
    }

    /// Reads a mesh host name back, or gives `None` where no bot has that name.
    ///
    /// `host` carries no port and no trailing dot and is in lower case; the caller has canonicalised it.
    pub fn from_mesh_host(host: &str) -> Option<Self> {
        // A slash inside a label would come out as two segments: a second name for the same bot.
        if host.contains('/') {
            return None;
        }
        let mut labels: Vec<&str> = host.strip_suffix(MESH_SUFFIX)?.split('.').collect();
        labels.reverse();
        Self::parse(&labels.join("/")).ok()
    }
}
