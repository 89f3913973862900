//! The answers of a vault: typed structs, of which what is not used is not kept.
//!
//! Errors of the reader are thrown away: they could quote what was read.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::error::Cause;
use super::settings::VaultWord;
use super::token::Token;
use crate::credentials::{Secret, Shape};

/// What a vault says of an error.
#[derive(Deserialize)]
pub(super) struct Errors {
    pub(super) errors: Vec<String>,
}

/// The answer to a login, and to the renewal of its token.
#[derive(Deserialize)]
pub(super) struct LoggedIn {
    pub(super) auth: Auth,
}

#[derive(Deserialize)]
pub(super) struct Auth {
    pub(super) client_token: Token,
    /// In seconds; 0 has no end.
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

/// The answer to a question for a secret of KV version 2.
#[derive(Deserialize)]
struct Kv {
    data: Version,
}

#[derive(Deserialize)]
struct Version {
    /// None of a version that is gone.
    data: Option<Fields>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    #[serde(default)]
    destroyed: bool,
    #[serde(default)]
    deletion_time: String,
}

/// The answer to a question for something that ends.
#[derive(Deserialize)]
pub(super) struct Leased {
    #[serde(default)]
    pub(super) lease_id: String,
    /// In seconds.
    #[serde(default)]
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
    /// None in the answer to a renewal.
    pub(super) data: Option<Fields>,
}

/// The fields of a secret that are texts, by name.
#[derive(Deserialize)]
pub(crate) struct Fields(BTreeMap<String, Field>);

/// A text, or something else that no credential is.
enum Field {
    Text(Zeroizing<String>),
    Other,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Field, E> {
                Ok(Field::Text(Zeroizing::new(text.to_owned())))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_unit<E>(self) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Field, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }
        }
        input.deserialize_any(Any)
    }
}

impl Fields {
    /// The text of a field.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Field::Text(text) => Some(text),
            Field::Other => None,
        }
    }
}

/// Reads an answer.
pub(super) fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Cause> {
    serde_json::from_slice(body).map_err(|_may_quote_it| Cause::Answer)
}

/// Reads one key of the newest version of a secret. A version that is gone is told apart from a secret that never was: the
/// vault answers 404 to both.
pub(super) fn kv(body: &[u8], key: &VaultWord, shape: &Shape) -> Result<Secret, Cause> {
    let Version { data, metadata } = read::<Kv>(body)?.data;
    let version = metadata.version;
    match data {
        _ if metadata.destroyed => Err(Cause::Destroyed { version }),
        None if !metadata.deletion_time.is_empty() => Err(Cause::Deleted { version }),
        None => Err(Cause::Nothing),
        Some(fields) => {
            let text = fields.text(key.as_str());
            let text = text.ok_or_else(|| Cause::NoKey { key: key.clone() })?;
            let secret = shape.secret(text.as_bytes().to_vec());
            secret.map_err(|source| Cause::NoSecret { source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> VaultWord {
        VaultWord::parse("key").unwrap()
    }

    fn said(data: &str, metadata: &str) -> Result<String, String> {
        let body = format!(
            r#"{{"request_id":"r","lease_id":"","renewable":false,"lease_duration":0,"data":{{"data":{data},"metadata":{metadata}}},"auth":null}}"#
        );
        let read = kv(body.as_bytes(), &key(), &Shape::Line);
        read.map(|secret| String::from_utf8(secret.bytes().to_vec()).unwrap())
            .map_err(|error| error.to_string())
    }

    const NOW: &str = r#"{"version":3,"destroyed":false,"deletion_time":"","custom_metadata":null}"#;

    #[test]
    fn a_key_of_the_newest_version_is_read() {
        let data =
            r#"{"other":1.5,"deep":{"a":[1]},"list":["x"],"none":null,"yes":true,"below":-1,"key":"sk-\u0041-1234"}"#;
        assert_eq!(said(data, NOW).unwrap(), "sk-A-1234");
    }

    #[test]
    fn what_is_gone_is_told_from_what_never_was_and_from_a_key_that_is_none() {
        let deleted = r#"{"version":3,"destroyed":false,"deletion_time":"2026-11-30T01:34:04Z"}"#;
        let destroyed = r#"{"version":3,"destroyed":true,"deletion_time":""}"#;
        for (data, metadata, words) in [
            ("null", deleted, "version 3, the newest, was deleted"),
            ("null", destroyed, "version 3, the newest, was destroyed"),
            (r#"{"key":"long enough"}"#, destroyed, "was destroyed"),
            ("null", NOW, "there is nothing"),
            (r#"{"another":"long enough"}"#, NOW, "it has no key key with a text"),
            (r#"{"key":12345678}"#, NOW, "it has no key key with a text"),
            (r#"{"key":["long enough"]}"#, NOW, "it has no key key with a text"),
            (r#"{"key":"short"}"#, NOW, "is no value"),
            (r#"{"key":"two\nlines of it"}"#, NOW, "is no value"),
            (r#"{"key":"once and","key":3}"#, NOW, "no key"),
            (r#""text""#, NOW, "not the one that is documented"),
        ] {
            let error = said(data, metadata).unwrap_err();
            assert!(error.contains(words), "{data}: {error}");
        }
    }

    #[test]
    fn a_version_to_be_deleted_later_is_in_force() {
        let later = r#"{"version":3,"destroyed":false,"deletion_time":"2036-11-30T01:34:04Z"}"#;
        assert_eq!(said(r#"{"key":"long enough"}"#, later).unwrap(), "long enough");
    }

    #[test]
    fn an_answer_of_another_kind_is_refused_without_a_word_of_it() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"data":{"key":"sk-secret-0001"}}"#,
            "<html>sk-secret-0001",
        ] {
            let error = kv(body.as_bytes(), &key(), &Shape::Line).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("sk-secret"), "{error:?}");
        }
        for token in [r#""""#, r#""a b""#, r#""a\nb""#, "1", "null"] {
            let body = format!(r#"{{"auth":{{"client_token":{token},"lease_duration":60}}}}"#);
            assert!(read::<LoggedIn>(body.as_bytes()).is_err(), "{token}");
        }
        let good = br#"{"auth":{"client_token":"s.abc","lease_duration":60,"renewable":true,"metadata":{"a":"b"}}}"#;
        let auth = read::<LoggedIn>(good).unwrap().auth;
        assert_eq!((auth.lease_duration, auth.renewable), (60, true));
        assert!(!format!("{:?}", auth.client_token).contains("abc"));
    }
}
