//! Logging in, and the token that this gives: renewed in the second half of its time by whoever needs it, and given back.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::{Method, StatusCode};
use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::super::store::pause;
use super::answer::{self, Auth, LoggedIn};
use super::error::{Cause, VaultError};
use super::http::{Answer, Question};
use super::settings::{ByJwt, Login};
use super::token::Token;
use super::{Vault, cause};

/// How long a token is used whose end the vault does not say.
const ENDLESS: Duration = Duration::from_hours(24);

/// The longest token that this host is known by, in bytes.
const JWT_BYTES_MAX: usize = 16 * 1024;

const LOG_IN: &str = "log in";

/// What the last login gave.
#[derive(Debug, Default)]
pub(super) struct Kept {
    session: Option<Arc<Session>>,
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    at: Instant,
    times: u32,
    error: Arc<VaultError>,
}

/// A token, and until when it is good.
#[derive(Debug)]
pub(super) struct Session {
    token: Token,
    renewable: bool,
    /// How long it was good at first.
    granted: Duration,
    /// Since when, and how long.
    good: Mutex<(Instant, Duration)>,
}

/// How far a token's time has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Young,
    Old,
    Ended,
}

impl Session {
    fn new(auth: Auth, asked: Instant) -> Self {
        let granted = time(auth.lease_duration);
        Self {
            token: auth.client_token,
            renewable: auth.renewable,
            granted,
            good: Mutex::new((asked, granted)),
        }
    }

    #[cfg(test)]
    pub(super) fn endless() -> Self {
        let auth = br#"{"auth":{"client_token":"s.abc","lease_duration":0}}"#;
        let auth = answer::read::<LoggedIn>(auth).expect("a login").auth;
        Self::new(auth, Instant::now())
    }

    pub(super) const fn token(&self) -> &Token {
        &self.token
    }

    /// When it ends, and with it all that was made by it.
    pub(super) fn ends(&self) -> Instant {
        let (since, time) = *self.good.lock().unwrap_or_else(PoisonError::into_inner);
        since + time
    }

    fn age(&self, now: Instant) -> Age {
        let (since, time) = *self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.duration_since(since);
        if age >= time {
            Age::Ended
        } else if age >= time / 2 {
            Age::Old
        } else {
            Age::Young
        }
    }

    /// Notes a renewal; says whether it gave what a new login would give.
    fn renewed(&self, asked: Instant, time: Duration) -> bool {
        *self.good.lock().unwrap_or_else(PoisonError::into_inner) = (asked, time);
        time >= self.granted / 2
    }
}

fn time(seconds: u64) -> Duration {
    if seconds == 0 {
        ENDLESS
    } else {
        Duration::from_secs(seconds).min(ENDLESS)
    }
}

/// The body of a login.
#[derive(Serialize)]
struct LoginBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
}

impl Vault {
    /// Gives a token that is good: the one that is kept, renewed where it is time, or else a new one.
    ///
    /// A vault that does not let this host in is left alone for a while that grows.
    pub(super) async fn session(&self) -> Result<Arc<Session>, Arc<VaultError>> {
        let mut kept = self.kept.lock().await;
        let old = kept.session.clone();
        if let Some(session) = &old {
            let good = match session.age(Instant::now()) {
                Age::Young => true,
                Age::Old => self.renew(session).await,
                Age::Ended => false,
            };
            if good {
                return Ok(Arc::clone(session));
            }
        }
        if let Some(failed) = &kept.failed
            && failed.at.elapsed() < pause(failed.times)
        {
            return usable(old).ok_or_else(|| Arc::clone(&failed.error));
        }
        match self.log_in().await {
            Ok(session) => {
                tracing::info!(vault = %self.name, "logged in to a vault");
                let session = Arc::new(session);
                (kept.session, kept.failed) = (Some(Arc::clone(&session)), None);
                Ok(session)
            }
            Err(error) => {
                let times = kept.failed.as_ref().map_or(1, |failed| failed.times.saturating_add(1));
                let at = Instant::now();
                kept.failed = Some(Failed {
                    at,
                    times,
                    error: Arc::clone(&error),
                });
                usable(old).ok_or(error)
            }
        }
    }

    async fn log_in(&self) -> Result<Session, Arc<VaultError>> {
        let asked = Instant::now();
        let (mount, role, jwt) = match &self.config.login {
            Login::Cert(by) => (&by.mount, &by.role, None),
            Login::Jwt(by) => {
                let jwt = jwt(by).await.map_err(|source| {
                    let file = by.file.clone();
                    self.failed(LOG_IN, Cause::NoToken { file, source })
                })?;
                (&by.mount, &by.role, Some(jwt))
            }
        };
        let body = LoginBody {
            name: jwt.is_none().then_some(role.as_str()),
            role: jwt.is_some().then_some(role.as_str()),
            jwt: jwt.as_ref().map(|jwt| jwt.as_str()),
        };
        let body = serde_json::to_vec(&body).map_err(|_none| self.failed(LOG_IN, Cause::Answer))?;
        let question = Question {
            method: Method::POST,
            path: &format!("auth/{mount}/login"),
            token: None,
            body: Some(Zeroizing::new(body)),
        };
        let answer = self
            .question(question)
            .await
            .map_err(|cause| self.failed(LOG_IN, cause))?;
        if matches!(
            answer.status,
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
        ) {
            let shown: Vec<&[u8]> = jwt.iter().map(|jwt| jwt.as_bytes()).collect();
            let refused = Cause::Login {
                mount: mount.clone(),
                role: role.clone(),
                status: answer.status,
                words: answer.words(&shown),
            };
            return Err(self.failed(LOG_IN, refused));
        }
        let read = read(&answer).map_err(|cause| self.failed(LOG_IN, cause))?;
        Ok(Session::new(read, asked))
    }

    /// Has a token live on by which something was made, although another one may be in use by now.
    pub(super) async fn keep(&self, session: &Session) {
        if session.age(Instant::now()) == Age::Old {
            self.renew(session).await;
        }
    }

    /// Has a token live on; says whether it is worth keeping.
    async fn renew(&self, session: &Session) -> bool {
        if !session.renewable {
            return false;
        }
        let asked = Instant::now();
        let question = Question {
            method: Method::POST,
            path: "auth/token/renew-self",
            token: Some(&session.token),
            body: None,
        };
        let renewed = self.question(question).await.and_then(|answer| read(&answer));
        match renewed {
            Ok(auth) => session.renewed(asked, time(auth.lease_duration)),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::info!(vault = %self.name, error, "the token of a vault was not renewed");
                false
            }
        }
    }

    /// Whether the vault knows the token. Where nobody can say, it does.
    pub(super) async fn lives(&self, session: &Session) -> bool {
        let question = Question {
            method: Method::GET,
            path: "auth/token/lookup-self",
            token: Some(&session.token),
            body: None,
        };
        let told = self.question(question).await;
        !told.is_ok_and(|answer| answer.status == StatusCode::FORBIDDEN)
    }

    /// Has the next question log in anew.
    pub(super) async fn forget(&self, session: &Arc<Session>) {
        let mut kept = self.kept.lock().await;
        if kept.session.as_ref().is_some_and(|known| Arc::ptr_eq(known, session)) {
            kept.session = None;
        }
    }

    /// Gives the token back.
    pub(super) async fn log_out(&self) {
        let Some(session) = usable(self.kept.lock().await.session.take()) else {
            return;
        };
        let question = Question {
            method: Method::POST,
            path: "auth/token/revoke-self",
            token: Some(&session.token),
            body: None,
        };
        let told = self.question(question).await;
        if let Some(error) = told.map_or_else(Some, |answer| cause(answer.status)) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(vault = %self.name, error, "a token was not given back: it ends by itself");
        }
    }
}

fn usable(session: Option<Arc<Session>>) -> Option<Arc<Session>> {
    session.filter(|session| session.age(Instant::now()) != Age::Ended)
}

fn read(answer: &Answer) -> Result<Auth, Cause> {
    match cause(answer.status) {
        None => answer::read::<LoggedIn>(&answer.body).map(|read| read.auth),
        Some(cause) => Err(cause),
    }
}

/// Reads the token by which this host is known, as it is at this moment.
async fn jwt(by: &ByJwt) -> io::Result<Zeroizing<String>> {
    let path = by.file.clone();
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let mut text = Zeroizing::new(String::with_capacity(JWT_BYTES_MAX));
        std::fs::File::open(path)?
            .take(JWT_BYTES_MAX as u64)
            .read_to_string(&mut text)?;
        let token = Zeroizing::new(text.trim().to_owned());
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(io::Error::other("it holds no token in one line"));
        }
        Ok(token)
    });
    read.await.map_err(io::Error::other).and_then(|read| read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_old_after_half_its_time_and_worth_keeping_while_it_gets_half_of_it_again() {
        let auth = br#"{"auth":{"client_token":"s.abc","lease_duration":60,"renewable":true}}"#;
        let auth = answer::read::<LoggedIn>(auth).unwrap().auth;
        let begun = Instant::now();
        let session = Session::new(auth, begun);
        let after = |seconds| session.age(begun + Duration::from_secs(seconds));
        assert_eq!((after(29), after(30)), (Age::Young, Age::Old));
        assert_eq!((after(59), after(60)), (Age::Old, Age::Ended));
        assert!(session.renewed(begun + Duration::from_secs(30), Duration::from_secs(30)));
        assert!(!session.renewed(begun + Duration::from_secs(45), Duration::from_secs(29)));
        assert_eq!(session.age(begun + Duration::from_secs(74)), Age::Ended);
        assert_eq!((time(0), time(u64::MAX)), (ENDLESS, ENDLESS));
    }
}
