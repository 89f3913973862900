//! Tokens in memory: how long each is used, when the next one is asked for, and how often at most.
//!
//! A bot chooses when it calls and what it calls, and services choose what they answer; neither makes the proxy ask for tokens
//! without end. A token is used for some seconds at least, whatever was said of it; one that a service refused is asked for
//! anew once a minute at most; after a failure the pauses grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use policy::Injection;
use spiffe::time::{Clock, Timestamp};
use tokio::time::Instant;

use super::exchange::answer::TokenAnswer;
use super::exchange::{Exchange, ExchangeError};
use super::secret::Secret;
use super::store::pause;

/// How long a token is used, whatever was said of it. The least is how often a service's word can have another one asked for;
/// the most is how long one that is forgotten about can live here.
const LIFE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_hours(24));

/// How long before its end a token is used no more: a tenth of its life, and no longer than this.
const MARGIN_MAX: Duration = Duration::from_secs(30);

/// How many tenths of its life a token is used before the next one is asked for.
const TENTHS: u32 = 8;

/// The same of a JWT-SVID, which lives minutes: a CA that is away for a while is back before it ends.
const SVID_TENTHS: u32 = 5;

/// How old a token is at least when another one is asked for because a service refused it.
const DOUBT_AFTER: Duration = Duration::from_mins(1);

/// A moment, by the clock that tokens are issued by and by the one that nobody sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) clock: Timestamp,
    pub(super) steady: Instant,
}

impl Moment {
    pub(super) fn of(clock: &Clock) -> Self {
        Self {
            clock: clock.now(),
            steady: Instant::now(),
        }
    }

    /// How long after `earlier` this is, by the clock that says the most: a host that slept has an old token.
    pub(super) fn since(self, earlier: Self) -> Duration {
        let steady = self.steady.saturating_duration_since(earlier.steady);
        steady.max(self.clock.duration_since(earlier.clock))
    }
}

/// When the next token is asked for, and when this one is used no more; counted from the request for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    renew: Duration,
    end: Duration,
}

impl Life {
    /// `tenths` of the life are over when the next one is due. `jitter` spreads the requests of many hosts: from nothing at 0 to a tenth of the life at 255.
    fn of(said: Option<Duration>, (ttl, stale): (Duration, Duration), (tenths, jitter): (u32, u8)) -> Self {
        let sooner = |life: Duration| life / 10 * u32::from(jitter) / 255;
        match said {
            Some(said) => {
                let life = said.clamp(LIFE.0, LIFE.1);
                let end = life - (life / 10).min(MARGIN_MAX);
                let renew = life / 10 * tenths - sooner(life);
                Self { renew, end }
            }
            // Nobody knows, so it is used as a value is whose source does not say either.
            None => {
                let life = ttl.clamp(LIFE.0, LIFE.1);
                let renew = life - sooner(life);
                Self {
                    renew,
                    end: life + stale.min(LIFE.1),
                }
            }
        }
    }
}

/// The token of one credential.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// What is exchanged. Nothing else here is of anything else.
    of: Option<Exchange>,
    held: Option<Held>,
    failed: Option<Failed>,
    renewing: bool,
    /// The refresh token that took the place of the value.
    newest: Option<Arc<Secret>>,
    pub(super) counts: Counts,
}

/// How often tokens were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
}

impl Counts {
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            ok: self.ok + other.ok,
            failed: self.failed + other.failed,
        }
    }
}

#[derive(Clone, Debug)]
struct Held {
    token: Token,
    asked: Moment,
    life: Life,
}

/// A token, and whether a service refused it.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) secret: Arc<Secret>,
    pub(super) doubted: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Failed {
    at: Instant,
    times: u32,
    error: Arc<ExchangeError>,
}

impl Failed {
    fn may_again(&self, now: Moment) -> bool {
        now.steady.saturating_duration_since(self.at) >= pause(self.times)
    }
}

/// What is to be done for a call.
#[derive(Debug)]
pub(super) enum Look {
    /// Use this one.
    Use(Token),
    /// Use this one, and ask for the next.
    Due(Token),
    /// Ask, and wait for what comes of it.
    Ask,
    /// There is none, and it is too early to ask again.
    LeftAlone(Arc<ExchangeError>),
}

/// How a token is at the moment, for operators.
#[derive(Clone, Debug)]
pub(crate) struct TokenState {
    pub(crate) fingerprint: Option<String>,
    /// For how long it is used yet.
    pub(crate) left: Option<Duration>,
    pub(crate) error: Option<Arc<ExchangeError>>,
    pub(crate) counts: Counts,
}

impl Tokens {
    /// Says what is to be done for a call. What is known of another exchange is forgotten.
    pub(super) fn look(&mut self, of: &Exchange, now: Moment) -> Look {
        self.turn_to(of);
        let may = self.failed.as_ref().is_none_or(|failed| failed.may_again(now));
        self.drop_ended(now);
        let Some(held) = &self.held else {
            let left_alone = self.failed.as_ref().filter(|_| !may);
            return left_alone.map_or(Look::Ask, |failed| Look::LeftAlone(Arc::clone(&failed.error)));
        };
        let (age, token) = (now.since(held.asked), held.token.clone());
        let doubted = token.doubted.load(Ordering::Relaxed) && age >= DOUBT_AFTER;
        match may {
            true if doubted => Look::Ask,
            true if age >= held.life.renew => Look::Due(token),
            true | false => Look::Use(token),
        }
    }

    /// Begins to ask for the next one beside calls. One does.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.renewing, true)
    }

    pub(super) fn ended(&mut self) {
        self.renewing = false;
    }

    /// Takes what came of asking. Says whether it is the first failure in a row, or the first success after one.
    pub(super) fn note(
        &mut self,
        of: &Exchange,
        (asked, jitter): (Moment, u8),
        times: (Duration, Duration),
        answer: Result<TokenAnswer, ExchangeError>,
    ) -> Result<(Token, Change), (Arc<ExchangeError>, Change)> {
        self.turn_to(of);
        match answer {
            Ok(answer) => {
                self.counts.ok += 1;
                let token = Token {
                    secret: Arc::new(answer.token),
                    doubted: Arc::default(),
                };
                let tenths = if of.is_of_svid() { SVID_TENTHS } else { TENTHS };
                let life = Life::of(answer.expires_in, times, (tenths, jitter));
                self.held = Some(Held {
                    token: token.clone(),
                    asked,
                    life,
                });
                let change = self.failed.take().map_or(Change::None, |_failed| Change::Better);
                Ok((token, change))
            }
            Err(error) => {
                self.counts.failed += 1;
                let times = self.failed.as_ref().map_or(1, |failed| failed.times.saturating_add(1));
                let error = Arc::new(error);
                self.failed = Some(Failed {
                    at: asked.steady.max(Instant::now()),
                    times,
                    error: Arc::clone(&error),
                });
                let change = if times == 1 { Change::Worse } else { Change::None };
                Err((error, change))
            }
        }
    }

    /// Wipes everything but what was counted.
    pub(super) fn forget(&mut self) {
        (self.of, self.held, self.failed, self.newest) = (None, None, None, None);
    }

    /// How the value is added that is exchanged.
    pub(super) fn injection(&self) -> Option<&Injection> {
        self.of.as_ref().map(|of| &of.injection)
    }

    /// Makes it one of this exchange. What is known of another one is forgotten.
    fn turn_to(&mut self, of: &Exchange) {
        if !self.of.as_ref().is_some_and(|known| known.is_alike(of)) {
            self.forget();
            self.of = Some(of.clone());
        }
    }

    /// Takes the refresh token that is exchanged from now on.
    pub(super) fn follow(&mut self, newest: Option<Arc<Secret>>) {
        self.newest = newest;
    }

    /// Wipes a token that is used no more. Says whether there was one.
    pub(super) fn drop_ended(&mut self, now: Moment) -> bool {
        let ended = |held: &Held| now.since(held.asked) >= held.life.end;
        self.held.take_if(|held| ended(held)).is_some()
    }

    /// What is in memory and nobody may send or hear: the parts of the value, the newest refresh token, the token.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        let token = self.held.as_ref().map(|held| &held.token.secret);
        self.newest.iter().chain(token)
    }

    /// Nothing where no value was to be exchanged.
    pub(super) fn state(&self, now: Moment) -> Option<TokenState> {
        self.of.as_ref()?;
        let left = |held: &Held| held.life.end.saturating_sub(now.since(held.asked));
        let held = self.held.as_ref().filter(|held| !left(held).is_zero());
        Some(TokenState {
            fingerprint: held.map(|held| held.token.secret.fingerprint()),
            left: held.map(left),
            error: self.failed.as_ref().map(|failed| Arc::clone(&failed.error)),
            counts: self.counts,
        })
    }
}

/// How things are, compared with before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Better,
    Worse,
}

#[cfg(test)]
mod tests;
