//! `watch.webhook:`, where alerts are sent. The address of a chat's webhook is a secret, so none stands in the file.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

/// `watch.webhook:`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// Its address.
    pub url: SecretSource,
    /// What alerts are signed with; they are not signed without it.
    #[serde(default)]
    pub secret: Option<SecretSource>,
    /// Who may have signed its certificate, in PEM; by default those whom browsers trust.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that not everybody can read.
    File(PathBuf),
    /// A credential that systemd passed to the CA: `LoadCredentialEncrypted=`, below `$CREDENTIALS_DIRECTORY`.
    Systemd(String),
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{file: PATH} or {systemd: NAME}")
    }

    /// What was written is not shown: it may be the secret.
    fn visit_str<E: de::Error>(self, _text: &str) -> Result<SecretSource, E> {
        Err(E::custom(
            "a secret does not stand in this file: write it to one of its own, and here {file: PATH} or {systemd: NAME}",
        ))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
        let Some(key) = map.next_key::<String>()? else {
            return Err(de::Error::invalid_length(0, &self));
        };
        let source = match key.as_str() {
            "file" => SecretSource::File(map.next_value()?),
            "systemd" => SecretSource::Systemd(name(&map.next_value::<String>()?)?),
            other => return Err(de::Error::unknown_field(other, &["file", "systemd"])),
        };
        match map.next_key::<String>()? {
            None => Ok(source),
            Some(_more) => Err(de::Error::invalid_length(2, &self)),
        }
    }
}

/// What systemd takes as the name of a credential: one name of a file.
fn name<E: de::Error>(text: &str) -> Result<String, E> {
    let is_name =
        !text.is_empty() && text.len() <= 255 && !text.contains(['/', ':', '\0']) && !matches!(text, "." | "..");
    if is_name {
        return Ok(text.to_owned());
    }
    Err(E::custom(
        "the name of a credential of systemd is that of a file, without a folder",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<WebhookSettings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_secret_is_in_a_file_or_from_systemd() {
        let all = parse(r#"{"url":{"file":"/etc/u"},"secret":{"systemd":"alerts.key"},"ca":"/etc/ca.pem"}"#).unwrap();
        assert_eq!(all.url, SecretSource::File("/etc/u".into()));
        assert_eq!(all.secret, Some(SecretSource::Systemd("alerts.key".to_owned())));
        assert_eq!(parse(r#"{"url":{"systemd":"u"}}"#).unwrap().secret, None);
        for (text, why) in [
            (
                r#"{"url":"https://hooks.slack.com/hunter2"}"#,
                "does not stand in this file",
            ),
            (r#"{"url":{"systemd":"../u"}}"#, "without a folder"),
            (r#"{"url":{"systemd":".."}}"#, "without a folder"),
            (r#"{"url":{"systemd":""}}"#, "without a folder"),
            (r#"{"url":{"env":"U"}}"#, "unknown field"),
            (r#"{"url":{"file":"/a","systemd":"b"}}"#, "expected {file: PATH}"),
            (r#"{"url":{}}"#, "expected {file: PATH}"),
            (r#"{"secret":{"file":"/a"}}"#, "url"),
            (r#"{"url":{"file":"/a"},"retries":5}"#, "unknown field"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(
                refused.contains(why) && !refused.contains("hunter2"),
                "{text}: {refused}"
            );
        }
    }
}
