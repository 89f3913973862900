//! The part of a record that filters look at.

use std::borrow::Cow;

use serde::Deserialize;

/// A record, read no further than a filter needs. Unknown kinds have the same
/// keys or none of them.
#[derive(Debug, Deserialize)]
pub(super) struct View<'a> {
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) peer_call: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) time: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) direction: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) from: Option<Party<'a>>,
    #[serde(borrow, default)]
    pub(super) to: Option<Party<'a>>,
    #[serde(borrow, default)]
    pub(super) protocol: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) path: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) verdict: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) rule: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) credential: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) status: Option<u16>,
}

/// An end of a call.
#[derive(Debug, Deserialize)]
pub(super) struct Party<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) host: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) outside: Option<Cow<'a, str>>,
}

impl View<'_> {
    /// Reads a line; `None` if it is no record at all.
    pub(super) fn read(line: &[u8]) -> Option<View<'_>> {
        serde_json::from_slice(line).ok()
    }

    /// Says whether this is a call that was forwarded, which will have an end.
    pub(super) fn awaits_end(&self) -> bool {
        self.kind == "call" && matches!(self.verdict.as_deref(), Some("allow" | "audit"))
    }
}

impl Party<'_> {
    /// Returns the names that a pattern without a scheme may mean: the path of
    /// the SPIFFE ID, the host as the caller named it, and a destination
    /// outside without its scheme.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let path = self.id.as_deref().and_then(|id| id.strip_prefix("spiffe://"));
        let path = path.and_then(|rest| rest.split_once('/')).map(|(_, path)| path);
        let outside = self.outside.as_deref().and_then(|outside| outside.split_once("://"));
        let outside = outside.map(|(_, host)| host);
        path.into_iter().chain(self.host.as_deref()).chain(outside)
    }
}
