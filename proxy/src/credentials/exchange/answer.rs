//! What a token endpoint answers (RFC 6749 §5): JSON of a stranger's, read to a token or refused.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use policy::{TokenType, TokenUrl};
use serde::Deserialize;
use spiffe::time::Timestamp;
use thiserror::Error;
use zeroize::Zeroizing;

use super::super::secret::{NoSecret, Secret};
use super::ExchangeError;
use super::text::Text;

/// The most that is read of an answer. Tokens are at most as long as any value.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An answer as it came.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// A token, and what was said of it.
#[derive(Debug)]
pub struct TokenAnswer {
    /// What services get.
    pub token: Secret,
    /// How long it is good for, where that was said in a way that can be believed.
    pub expires_in: Option<Duration>,
    /// What is to be exchanged the next time, where it is another one.
    pub refresh_token: Option<Secret>,
}

/// Why an answer holds no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoToken {
    /// It says that it is something else.
    #[error("it is not application/json")]
    NotJson,
    /// It says that it is JSON.
    #[error("it is no JSON object of the form that is expected")]
    Form,
    /// There is none in it.
    #[error("it has no token")]
    Missing,
    /// It is of a kind that is sent in another way.
    #[error("its token_type is not Bearer")]
    NotBearer,
    /// It cannot be sent.
    #[error("its {what} cannot be used: {source}")]
    Unusable {
        /// Which one.
        what: &'static str,
        /// Why. Nothing of it is told.
        #[source]
        source: NoSecret,
    },
    /// It is too long.
    #[error("it is longer than {} KiB", ANSWER_BYTES_MAX / 1024)]
    Long,
}

/// Why an answer is no token, wherever it came from.
#[derive(Debug)]
pub(super) enum Why {
    Refused(StatusCode, Option<&'static str>),
    NoToken(NoToken),
}

impl Why {
    pub(super) fn at(self, url: &TokenUrl) -> ExchangeError {
        let url = url.clone();
        match self {
            Self::Refused(status, error) => ExchangeError::Refused { url, status, error },
            Self::NoToken(source) => ExchangeError::NoToken { url, source },
        }
    }
}

/// RFC 6749 §5.1. What else is in it is passed over, as it says; a name that is there twice is refused.
#[derive(Deserialize)]
struct Granted {
    access_token: Option<Text>,
    token_type: Option<Text>,
    expires_in: Option<serde_json::Value>,
    refresh_token: Option<Text>,
}

/// What GitHub answers.
#[derive(Deserialize)]
struct Installed {
    token: Option<Text>,
    expires_at: Option<String>,
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct Denied {
    error: Option<Text>,
}

/// The words for errors: RFC 6749 §5.2, RFC 8707 §2. Others are not repeated: whoever writes them may write anything.
const ERRORS: [&str; 7] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
];

impl Answer {
    /// Gives the token.
    pub(super) fn token(&self) -> Result<TokenAnswer, Why> {
        self.token_of(None)
    }

    /// Gives the token that was asked for. One that is no access token may say that it is of no type (RFC 8693 §2.2.1).
    pub(super) fn token_of(&self, asked: Option<TokenType>) -> Result<TokenAnswer, Why> {
        if self.status != StatusCode::OK {
            let denied: Option<Denied> = serde_json::from_slice(&self.body).ok().filter(|_| self.is_json());
            let error = denied.and_then(|denied| denied.error);
            let known = error.and_then(|text| ERRORS.into_iter().find(|word| word.as_bytes() == text.bytes()));
            return Err(Why::Refused(self.status, known));
        }
        if !self.is_json() {
            return Err(Why::NoToken(NoToken::NotJson));
        }
        let kinds = match asked {
            Some(TokenType::IdToken | TokenType::Jwt) => &["bearer", "n_a"][..],
            Some(TokenType::AccessToken) | None => &["bearer"],
        };
        granted_as(&self.body, kinds).map_err(Why::NoToken)
    }

    /// Gives the token of an installation, which says when it ends and not how long it lives.
    pub(super) fn of_github(&self, now: Timestamp) -> Result<TokenAnswer, Why> {
        if self.status != StatusCode::CREATED {
            return Err(Why::Refused(self.status, None));
        }
        if !self.is_json() {
            return Err(Why::NoToken(NoToken::NotJson));
        }
        installed(&self.body, now).map_err(Why::NoToken)
    }

    fn is_json(&self) -> bool {
        let said = self
            .content_type
            .as_ref()
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        let kind = said.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
    }
}

/// Reads what a token endpoint answers to a request that it grants.
///
/// # Errors
///
/// When there is no token in it that can be sent as a bearer.
pub fn granted(body: &[u8]) -> Result<TokenAnswer, NoToken> {
    granted_as(body, &["bearer"])
}

fn granted_as(body: &[u8], kinds: &[&str]) -> Result<TokenAnswer, NoToken> {
    let granted: Granted = serde_json::from_slice(body).map_err(|_nothing_of_it_is_told| NoToken::Form)?;
    let token = granted.access_token.ok_or(NoToken::Missing)?;
    // RFC 6749 §7.1: a type that is not understood is not used.
    let kind = granted.token_type.unwrap_or_default();
    if !kinds
        .iter()
        .any(|known| kind.bytes().eq_ignore_ascii_case(known.as_bytes()))
    {
        return Err(NoToken::NotBearer);
    }
    let refresh_token = granted.refresh_token.map(|text| secret(&text, "refresh_token"));
    Ok(TokenAnswer {
        token: secret(&token, "access_token")?,
        expires_in: granted.expires_in.as_ref().and_then(seconds),
        refresh_token: refresh_token.transpose()?,
    })
}

/// Reads what GitHub answers to an app.
///
/// # Errors
///
/// When there is no token in it that can be sent as a bearer.
pub fn installed(body: &[u8], now: Timestamp) -> Result<TokenAnswer, NoToken> {
    let installed: Installed = serde_json::from_slice(body).map_err(|_nothing_of_it_is_told| NoToken::Form)?;
    let token = installed.token.ok_or(NoToken::Missing)?;
    let end = installed
        .expires_at
        .and_then(|text| Timestamp::from_rfc3339(&text).ok());
    Ok(TokenAnswer {
        token: secret(&token, "token")?,
        expires_in: end.map(|end| end.duration_since(now)),
        refresh_token: None,
    })
}

fn secret(text: &Text, what: &'static str) -> Result<Secret, NoToken> {
    let bytes = text.bytes();
    let unusable = |source| NoToken::Unusable { what, source };
    // The one line feed that a file may end with is none of a token.
    if matches!(bytes.last(), Some(b'\n' | b'\r')) {
        return Err(unusable(NoSecret::Byte { at: bytes.len() - 1 }));
    }
    Secret::new(bytes.to_vec()).map_err(unusable)
}

/// A number of seconds, which some write as a text. What is none says nothing.
fn seconds(value: &serde_json::Value) -> Option<Duration> {
    let whole = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let seconds = whole.map(Duration::from_secs);
    seconds.or_else(|| Duration::try_from_secs_f64(value.as_f64()?).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, content_type: &'static str, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: Some(HeaderValue::from_static(content_type)),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_token_is_read_with_what_is_said_of_it() {
        let body = r#"{"access_token": "at-0123456789", "token_type": "bEARER", "expires_in": 3599,
            "refresh_token": "rt-0123456789", "scope": "a", "x": {"y": []}}"#;
        let answer = answer(200, "Application/JSON; charset=utf-8", body).token().unwrap();
        assert_eq!(answer.token.bytes(), b"at-0123456789");
        assert_eq!(answer.expires_in, Some(Duration::from_secs(3599)));
        assert_eq!(answer.refresh_token.unwrap().bytes(), b"rt-0123456789");
    }

    #[test]
    fn a_life_that_cannot_be_believed_is_not_said() {
        let of = |expires_in: &str| {
            let body = format!(r#"{{"access_token": "at-0123456789", "token_type": "Bearer"{expires_in}}}"#);
            granted(body.as_bytes()).unwrap().expires_in
        };
        for (text, seconds) in [
            (r#","expires_in": "60""#, Some(60)),
            (r#","expires_in": 60.0"#, Some(60)),
            (r#","expires_in": 0"#, Some(0)),
            (r#","expires_in": 18446744073709551615"#, Some(u64::MAX)),
            ("", None),
            (r#","expires_in": null"#, None),
            (r#","expires_in": -1"#, None),
            (r#","expires_in": 1e99"#, None),
            (r#","expires_in": "soon""#, None),
            (r#","expires_in": {"a": 1}"#, None),
        ] {
            assert_eq!(of(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn what_is_no_token_to_be_sent_as_a_bearer_is_refused() {
        let bad = |at| NoToken::Unusable {
            what: "access_token",
            source: NoSecret::Byte { at },
        };
        for (body, error) in [
            ("<html>at-0123456789</html>", NoToken::Form),
            ("[]", NoToken::Form),
            (r#"{"access_token": 12345678, "token_type": "Bearer"}"#, NoToken::Form),
            (
                r#"{"access_token": "at-0123456789", "token_type": "Bearer""#,
                NoToken::Form,
            ),
            (
                r#"{"access_token": "at-0123456789", "access_token": "at-0123456780", "token_type": "Bearer"}"#,
                NoToken::Form,
            ),
            ("{}", NoToken::Missing),
            (r#"{"access_token": "at-0123456789"}"#, NoToken::NotBearer),
            (
                r#"{"access_token": "at-0123456789", "token_type": "mac"}"#,
                NoToken::NotBearer,
            ),
            (
                r#"{"access_token": "at-01234\r\nX: 1", "token_type": "Bearer"}"#,
                bad(8),
            ),
            (
                r#"{"access_token": "at-0123456789\n", "token_type": "Bearer"}"#,
                bad(13),
            ),
        ] {
            assert_eq!(granted(body.as_bytes()).unwrap_err(), error, "{body}");
        }
        let html = answer(
            200,
            "text/html",
            r#"{"access_token": "at-0123456789", "token_type": "Bearer"}"#,
        );
        assert!(matches!(html.token(), Err(Why::NoToken(NoToken::NotJson))));
    }

    #[test]
    fn a_token_that_is_no_access_token_may_be_of_no_type_where_it_was_asked_for() {
        let body = r#"{"access_token": "eyJh.eyJi.c2ln", "token_type": "N_A", "issued_token_type": "x"}"#;
        let of = |asked| answer(200, "application/json", body).token_of(asked).is_ok();
        assert!(of(Some(TokenType::Jwt)) && of(Some(TokenType::IdToken)));
        assert!(!of(Some(TokenType::AccessToken)) && !of(None));
    }

    #[test]
    fn of_a_refusal_only_known_words_are_told() {
        let of = |status, content_type, body| match answer(status, content_type, body).token() {
            Err(Why::Refused(status, error)) => (status.as_u16(), error),
            other => panic!("{other:?}"),
        };
        let json = "application/json";
        assert_eq!(
            of(400, json, r#"{"error": "invalid_client"}"#),
            (400, Some("invalid_client"))
        );
        assert_eq!(of(401, json, r#"{"error": "secret sk-1 is wrong"}"#), (401, None));
        assert_eq!(of(500, "text/html", r#"{"error": "invalid_client"}"#), (500, None));
        // No redirect is followed, and no token is taken along with one.
        let body = r#"{"access_token": "at-0123456789", "token_type": "Bearer"}"#;
        assert_eq!(of(302, json, body), (302, None));
        assert_eq!(of(206, json, body), (206, None));
    }

    #[test]
    fn a_token_of_an_installation_lives_until_it_is_said_to_end() {
        let now = Timestamp::from_rfc3339("2026-01-01T00:00:00Z").unwrap();
        let of = |body: &str| answer(201, "application/json; charset=utf-8", body).of_github(now);
        let body =
            r#"{"token": "ghs_0123456789", "expires_at": "2026-01-01T01:00:00Z", "permissions": {"contents": "read"}}"#;
        let given = of(body).unwrap();
        assert_eq!(
            (given.token.bytes(), given.expires_in),
            (&b"ghs_0123456789"[..], Some(Duration::from_hours(1)))
        );
        let past = of(r#"{"token": "ghs_0123456789", "expires_at": "2025-01-01T01:00:00Z"}"#).unwrap();
        assert_eq!(past.expires_in, Some(Duration::ZERO));
        for life in ["", r#", "expires_at": "soon""#] {
            assert_eq!(
                of(&format!(r#"{{"token": "ghs_0123456789"{life}}}"#))
                    .unwrap()
                    .expires_in,
                None,
                "{life}"
            );
        }
        assert!(matches!(of("{}"), Err(Why::NoToken(NoToken::Missing))));
        assert!(matches!(of("[]"), Err(Why::NoToken(NoToken::Form))));
        let html = answer(201, "text/html", body).of_github(now);
        assert!(matches!(html, Err(Why::NoToken(NoToken::NotJson))));
        let moved = answer(307, "application/json", body).of_github(now);
        assert!(matches!(moved, Err(Why::Refused(StatusCode::TEMPORARY_REDIRECT, None))));
    }

    proptest! {
        #[test]
        fn whatever_a_token_is_it_is_read_as_it_was_written(token in "[ -~]{8,200}", life in 0..u64::MAX) {
            let body = serde_json::json!({"access_token": token, "token_type": "Bearer", "expires_in": life});
            let answer = granted(body.to_string().as_bytes()).unwrap();
            prop_assert_eq!(answer.token.bytes(), token.as_bytes());
            prop_assert_eq!(answer.expires_in, Some(Duration::from_secs(life)));
        }
    }
}
