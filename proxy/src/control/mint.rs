//! Has the CA sign a JWT-SVID of a bot of this host for one audience, over the connection that the stream is on.

use std::time::Duration;

use ca_api::node::{JwtRefusal, JwtRequest, JwtResponse};
use spiffe::id::{BotName, SpiffeId};
use spiffe::jwt::{JwtError, JwtSvid as Parsed};
use spiffe::time::Timestamp;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::shared::Shared;
use crate::credentials::Secret;

/// From question to answer.
const MINT_TIMEOUT: Duration = Duration::from_secs(10);

/// A JWT-SVID, and for how long it is good.
#[derive(Debug)]
pub(crate) struct JwtSvid {
    pub(crate) token: Secret,
    pub(crate) life: Duration,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MintError {
    #[error("this host is not connected to its CA, which signs JWT-SVIDs")]
    NoStream,
    #[error("the CA is of a version that signs no JWT-SVIDs")]
    OldCa,
    #[error("the CA did not answer: {message}")]
    NoAnswer { message: String },
    #[error("the CA refused: {message}")]
    Refused { message: String },
    #[error("what the CA signed is no JWT-SVID")]
    NoJwt {
        #[source]
        source: JwtError,
    },
    #[error("what the CA signed is not used: {why}")]
    Unusable { why: &'static str },
}

impl MintError {
    /// Whether the CA says that there is to be none.
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl From<Status> for MintError {
    fn from(status: Status) -> Self {
        let (code, message) = (status.code(), status.message().to_owned());
        if code == Code::Unimplemented {
            Self::OldCa
        } else if matches!(code, Code::PermissionDenied | Code::Unauthenticated) {
            Self::Refused { message }
        } else {
            Self::NoAnswer { message }
        }
    }
}

/// Asks, while there is a stream.
pub(super) async fn mint(shared: &Shared, bot: &BotName, audience: &str) -> Result<JwtSvid, MintError> {
    let mut client = shared.client().ok_or(MintError::NoStream)?;
    let request = JwtRequest {
        bot: bot.to_string(),
        audience: audience.to_owned(),
    };
    let asking = tokio::time::timeout(MINT_TIMEOUT, client.mint_jwt(request));
    let answer = asking.await.map_err(|_elapsed| MintError::NoAnswer {
        message: "it took too long".to_owned(),
    })?;
    let id = SpiffeId::for_bot(&shared.config.trust_domain, bot);
    taken(answer?.into_inner(), (&id, audience), shared.time.now())
}

/// Looks at an answer.
fn taken(answer: JwtResponse, (id, audience): (&SpiffeId, &str), now: Timestamp) -> Result<JwtSvid, MintError> {
    let token = Zeroizing::new(answer.token);
    if !answer.refusal.is_empty() {
        let message = format!("{}: {}", answer.refusal, answer.message);
        // One that cannot sign at the moment says nothing of the bot.
        return Err(if answer.refusal == JwtRefusal::Unavailable.as_str() {
            MintError::NoAnswer { message }
        } else {
            MintError::Refused { message }
        });
    }
    let unusable = |why| MintError::Unusable { why };
    let svid = Parsed::parse(&token).map_err(|source| MintError::NoJwt { source })?;
    let claims = svid.claims();
    if claims.subject != *id {
        return Err(unusable("it is of somebody else"));
    }
    if claims.audience != [audience] {
        return Err(unusable("it is for another audience"));
    }
    let life = claims.expires.duration_since(now);
    if life.is_zero() {
        return Err(unusable("it had ended before it came"));
    }
    let token = Secret::new(token.as_bytes().to_vec()).map_err(|_what_it_is| unusable("it is no line of text"))?;
    Ok(JwtSvid { token, life })
}

#[cfg(test)]
pub(super) mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const NOW: i64 = 1_767_225_600;

    /// A token with these claims, which nobody has signed.
    pub(in crate::control) fn jwt(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let header = r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#;
        format!("{}.{}.{}", part(header), part(claims), part(&"s".repeat(64)))
    }

    fn of(sub: &str, aud: &str, exp: i64) -> String {
        jwt(&format!(
            r#"{{"sub":"spiffe://acme.internal/{sub}","aud":{aud},"exp":{exp}}}"#
        ))
    }

    fn good() -> String {
        of("prod/support", r#"["api"]"#, NOW + 300)
    }

    fn taken_of(answer: JwtResponse) -> Result<JwtSvid, MintError> {
        let id = SpiffeId::parse("spiffe://acme.internal/prod/support").unwrap();
        taken(answer, (&id, "api"), Timestamp::from_unix_seconds(NOW))
    }

    fn token(token: String) -> Result<JwtSvid, String> {
        let answer = JwtResponse {
            token,
            expires_unix_ms: (NOW + 300) * 1000,
            ..JwtResponse::default()
        };
        taken_of(answer).map_err(|error| crate::control::chain_of(&error))
    }

    #[test]
    fn what_was_asked_for_is_taken_with_its_life() {
        let taken = token(good()).unwrap();
        assert_eq!(taken.life, Duration::from_mins(5));
        assert_eq!(taken.token.bytes(), good().as_bytes());
        assert_eq!(
            token(of("prod/support", r#""api""#, NOW + 1)).unwrap().life,
            Duration::from_secs(1)
        );
    }

    #[test]
    fn what_is_of_another_bot_for_another_audience_or_over_is_not_used() {
        let later = NOW + 300;
        for (text, why) in [
            (of("prod/orders", r#"["api"]"#, later), "somebody else"),
            (of("prod/support", r#"["other"]"#, later), "another audience"),
            (of("prod/support", r#""other""#, later), "another audience"),
            (of("prod/support", r#"["api","other"]"#, later), "another audience"),
            (of("prod/support", r#"["api"]"#, NOW), "had ended"),
            (jwt("{}"), "no JWT-SVID"),
            (format!("{}.x", good()), "no JWT-SVID"),
            (format!("{}\n", good()), "no JWT-SVID"),
            (String::new(), "no JWT-SVID"),
        ] {
            let error = token(text.clone()).unwrap_err();
            assert!(error.contains(why) && !error.contains("eyJ"), "{text}: {error}");
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_word_and_whatever_came_beside_it_is_dropped() {
        let of = |refusal: &str| {
            let answer = JwtResponse {
                token: good(),
                refusal: refusal.to_owned(),
                message: "no rule".to_owned(),
                ..JwtResponse::default()
            };
            taken_of(answer).unwrap_err()
        };
        for word in ["not_your_bot", "not_your_audience", "quarantined", "a_later_word"] {
            let error = of(word);
            assert!(error.is_refusal(), "{word}");
            assert_eq!(error.to_string(), format!("the CA refused: {word}: no rule"));
        }
        assert!(!of("unavailable").is_refusal());
        assert!(MintError::from(Status::permission_denied("evicted")).is_refusal());
        assert!(matches!(MintError::from(Status::unimplemented("")), MintError::OldCa));
        assert!(matches!(
            MintError::from(Status::unavailable("")),
            MintError::NoAnswer { .. }
        ));
    }
}
