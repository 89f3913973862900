//! Witnesses outside (C2SP tlog-witness): the CA carries the heads of hosts' ledgers, and of its own, to third parties that
//! cosign only what all they saw before is a beginning of. Nothing waits for them.

mod http;
mod own;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::hash::Hash;
use audit::key::KeyName;
use audit::note::Note;
use audit::witness::http::{Answer, Asked, Cosigned, NotCosigned, question, read};
use audit::{Checkpoint, Cosigner};
use spiffe::time::Timestamp;
use tokio::sync::Semaphore;

use self::http::AskError;
use crate::config::WitnessConfig;
use crate::core::Core;
use crate::store::{StoreError, WitnessedRow};

pub(crate) use own::keep;

/// How many questions are under way to one witness; who finds no room comes again.
const AT_ONCE: usize = 4;

/// How often one is told of a ledger, and how many questions that may take: one that is answered with where the witness stands,
/// one with the proof from there, and one that was lost.
const EVERY: Duration = Duration::from_mins(1);
const QUESTIONS_MAX: u32 = 3;

/// How long a witness is left in peace about a ledger that it does not know, or knows otherwise: somebody has to do something.
const UNKNOWN_FOR: Duration = Duration::from_mins(10);

/// How long one that is away is left in peace: so long after the first failure, twice as long after each, and at most so long.
const AWAY_FIRST: Duration = Duration::from_secs(10);
const AWAY_MAX: Duration = Duration::from_mins(10);

/// Ledgers that are remembered of one witness before those that are quiet are forgotten.
const LEDGERS_MAX: usize = 16 * 1024;

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotWitnessed {
    #[error("the witness was told of this ledger shortly before")]
    TooSoon,
    #[error("too many questions to this witness are under way")]
    Busy,
    #[error("the witness is away, and is left in peace for a time")]
    Away,
    #[error("the witness was asked shortly before, and said {word}")]
    Before { word: &'static str },
    #[error("ask the witness")]
    Ask {
        #[source]
        source: AskError,
    },
    #[error(transparent)]
    Answer { source: NotCosigned },
    #[error("keep what the witness cosigned")]
    Store {
        #[source]
        source: StoreError,
    },
}

impl NotWitnessed {
    /// The word in metrics and on the wire.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::TooSoon => "too_soon",
            Self::Busy => "busy",
            Self::Away | Self::Ask { .. } => "away",
            Self::Before { word } => word,
            Self::Answer { source } => source.as_str(),
            Self::Store { .. } => "not_kept",
        }
    }
}

/// A head, and what proves to a witness that it may cosign it.
#[derive(Debug)]
pub(crate) struct Submission {
    /// The name of the first epoch of the ledger.
    pub(crate) ledger: KeyName,
    pub(crate) epoch: u32,
    pub(crate) note: Note,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) old: u64,
    pub(crate) proof: Vec<Hash>,
}

/// All witnesses of the configuration.
#[derive(Debug)]
pub(crate) struct Witnesses(Vec<Witness>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) config: WitnessConfig,
    places: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    away: Option<Away>,
    /// By the name of the first epoch: a host that begins one after the other makes no more questions by that.
    ledgers: BTreeMap<KeyName, Turn>,
    /// When it last cosigned the CA's own ledger.
    own: Option<Timestamp>,
}

/// A witness that does not answer, or answers with nothing that could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Away {
    pub(crate) since: Timestamp,
    pub(crate) why: String,
    failures: u32,
    last: Timestamp,
}

/// What was asked about one ledger.
#[derive(Clone, Debug)]
struct Turn {
    begun: Timestamp,
    questions: u32,
    /// What was said last, where nothing comes of asking again soon.
    said: Option<Said>,
}

/// What a witness said of a ledger in one of its epochs.
#[derive(Clone, Debug)]
struct Said {
    origin: KeyName,
    at: Timestamp,
    word: &'static str,
}

impl Witnesses {
    pub(crate) fn new(configs: Vec<WitnessConfig>) -> Self {
        let new = |config| Witness {
            config,
            places: Semaphore::new(AT_ONCE),
            state: Mutex::default(),
        };
        Self(configs.into_iter().map(new).collect())
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Witness> {
        self.0.iter()
    }

    /// The one whose verifier key this is.
    pub(crate) fn of_key(&self, vkey: &str) -> Option<&Witness> {
        self.0.iter().find(|witness| witness.key().to_string() == vkey)
    }

    /// When the CA's own ledger was last cosigned by that for which it is longest ago: 1970 where one has not, and nothing where
    /// there are none.
    pub(crate) fn own_oldest(&self) -> Option<Timestamp> {
        let never = Timestamp::from_unix_millis(0);
        self.0.iter().map(|witness| witness.state().own.unwrap_or(never)).min()
    }
}

impl Witness {
    pub(crate) const fn key(&self) -> &Cosigner {
        &self.config.key
    }

    /// A holder writes whole values, so one that panicked left valid ones.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when it is away, if it is.
    pub(crate) fn away(&self) -> Option<Away> {
        self.state().away.clone()
    }

    fn cosigned_own(&self, at: Timestamp) {
        self.state().own = Some(at);
    }

    /// Says whether it may be asked about a ledger now.
    fn begin(&self, ledger: &KeyName, origin: &KeyName, now: Timestamp) -> Result<(), NotWitnessed> {
        let mut state = self.state();
        if state
            .away
            .as_ref()
            .is_some_and(|away| within(away.last, now, away.wait()))
        {
            return Err(NotWitnessed::Away);
        }
        if state.ledgers.len() >= LEDGERS_MAX {
            state.ledgers.retain(|_, turn| within(turn.begun, now, UNKNOWN_FOR));
        }
        if state.ledgers.len() >= LEDGERS_MAX && !state.ledgers.contains_key(ledger) {
            return Err(NotWitnessed::Busy);
        }
        let fresh = Turn {
            begun: now,
            questions: 0,
            said: None,
        };
        let turn = state.ledgers.entry(ledger.clone()).or_insert(fresh);
        if let Some(said) = &turn.said
            && said.origin == *origin
            && within(said.at, now, UNKNOWN_FOR)
        {
            return Err(NotWitnessed::Before { word: said.word });
        }
        if !within(turn.begun, now, EVERY) {
            (turn.begun, turn.questions) = (now, 0);
        }
        if turn.questions >= QUESTIONS_MAX {
            return Err(NotWitnessed::TooSoon);
        }
        turn.questions = turn.questions.saturating_add(1);
        Ok(())
    }

    /// Takes in what became of a question. Says once what people have to look into.
    fn ended(&self, ledger: &KeyName, origin: &KeyName, outcome: &Result<Cosigned, NotWitnessed>, now: Timestamp) {
        let mut state = self.state();
        let turn = state.ledgers.get_mut(ledger);
        let failed = match outcome {
            Ok(_cosigned) => {
                if let Some(turn) = turn {
                    turn.said = None;
                }
                None
            }
            Err(NotWitnessed::Answer { source }) => match source {
                NotCosigned::Behind { .. } => None,
                NotCosigned::UnknownLedger { .. }
                | NotCosigned::OtherKey { .. }
                | NotCosigned::SetBack { .. }
                | NotCosigned::Forked { .. } => {
                    let word = source.as_str();
                    let origin = origin.clone();
                    let said = Said { word, origin, at: now };
                    let before = turn.and_then(|turn| turn.said.replace(said));
                    if before.is_none_or(|before| before.word != word) {
                        tracing::warn!(witness = %self.key().name(), "{source}");
                    }
                    None
                }
                NotCosigned::Away { .. }
                | NotCosigned::Unreadable { .. }
                | NotCosigned::NotSigned { .. }
                | NotCosigned::Clock { .. } => Some(told(source)),
            },
            Err(error) => Some(told(error)),
        };
        self.note_away(&mut state, failed, now);
    }

    /// Notes whether it is away, and says so when that changes.
    fn note_away(&self, state: &mut State, failed: Option<String>, now: Timestamp) {
        let name = self.key().name();
        let before = state.away.take();
        let Some(why) = failed else {
            if before.is_some() {
                tracing::info!(witness = %name, "the witness answers again");
            }
            return;
        };
        if before.is_none() {
            tracing::warn!(witness = %name, url = %self.config.url, why, "the witness is away: heads are not witnessed by it meanwhile");
        }
        state.away = Some(Away {
            since: before.as_ref().map_or(now, |before| before.since),
            failures: before.map_or(0, |before| before.failures).saturating_add(1),
            why,
            last: now,
        });
    }
}

impl Away {
    fn wait(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        AWAY_FIRST.saturating_mul(doubled).min(AWAY_MAX)
    }
}

/// Says whether `now` is less than `wait` after `then`. A clock that went back has waited.
fn within(then: Timestamp, now: Timestamp, wait: Duration) -> bool {
    then <= now && now.duration_since(then) < wait
}

/// An error with all that is behind it.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

impl Core {
    /// Has a witness cosign a head, and keeps that.
    pub(crate) async fn submit(&self, witness: &Witness, told: Submission) -> Result<WitnessedRow, NotWitnessed> {
        let origin = told.checkpoint.origin.clone();
        witness.begin(&told.ledger, &origin, self.now())?;
        let Ok(_place) = witness.places.try_acquire() else {
            return Err(NotWitnessed::Busy);
        };
        let outcome = self.ask(witness, &told).await;
        witness.ended(&told.ledger, &origin, &outcome, self.now());
        let word = outcome
            .as_ref()
            .map_or_else(NotWitnessed::as_str, |_cosigned| "cosigned");
        self.metrics.heads.witnessed.with_label_values(&[word]).inc();
        let cosigned = outcome?;
        let row = WitnessedRow {
            ledger: told.ledger,
            epoch: told.epoch,
            witness: witness.key().clone(),
            size: told.checkpoint.size,
            note: cosigned.note.to_string(),
            at: cosigned.at,
        };
        let kept = self.store.keep_witnessed(row.clone()).await;
        kept.map_err(|source| NotWitnessed::Store { source })?;
        Ok(row)
    }

    async fn ask(&self, witness: &Witness, told: &Submission) -> Result<Cosigned, NotWitnessed> {
        let question = question(told.old, &told.proof, &told.note);
        let answer = http::ask(&witness.config, &self.clock, question).await;
        let answer = answer.map_err(|source| NotWitnessed::Ask { source })?;
        let asked = Asked {
            note: &told.note,
            checkpoint: &told.checkpoint,
            old: told.old,
            cosigner: witness.key(),
        };
        let answer = Answer {
            status: answer.status,
            content_type: answer.content_type.as_deref(),
            body: &answer.body,
        };
        read(asked, answer, self.now()).map_err(|source| NotWitnessed::Answer { source })
    }
}

#[cfg(test)]
mod tests;
