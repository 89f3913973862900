//! The part of a record that filters look at.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A record, read no further than a filter needs. Unknown kinds have the same
/// keys or none of them.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct View<'a> {
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) peer_call: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) direction: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<Party<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<Party<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) verdict: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<Detail<'a>>,
}

/// What an event holds beside its words, as far as it is looked at.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Detail<'a> {
    #[serde(borrow, default, skip_serializing_if = "Word::is_none")]
    pub(super) serial: Word<'a>,
}

/// An end of a call.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Party<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) outside: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Word::is_none")]
    pub(super) serial: Word<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<u32>,
}

/// A text where there may be anything, of which only texts are looked at.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Word<'a>(Option<Cow<'a, str>>);

impl View<'_> {
    /// Reads a line; `None` if it is no record at all.
    pub(super) fn read(line: &[u8]) -> Option<View<'_>> {
        serde_json::from_slice(line).ok()
    }

    /// Returns the serial numbers of SVIDs that the record names.
    pub(super) fn serials(&self) -> impl Iterator<Item = &str> {
        let parties = [&self.from, &self.to].into_iter().flatten();
        let of_parties = parties.filter_map(|party| party.serial.as_deref());
        of_parties.chain(self.detail.as_ref().and_then(|detail| detail.serial.as_deref()))
    }

    /// Says whether this is the end of a call.
    pub(super) fn is_end(&self) -> bool {
        self.kind == "end"
    }

    /// Says whether this is a call that was forwarded, which will have an end.
    pub(super) fn awaits_end(&self) -> bool {
        self.kind == "call" && matches!(self.verdict.as_deref(), Some("allow" | "audit"))
    }
}

impl Word<'_> {
    /// Returns the text if it is one.
    pub(super) fn as_deref(&self) -> Option<&str> {
        self.0.as_deref()
    }

    const fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Word<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordVisitor).map(Word)
    }
}

struct WordVisitor;

impl<'de> Visitor<'de> for WordVisitor {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _value: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _value: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
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
