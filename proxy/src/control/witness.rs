//! Has witnesses outside cosign what the CA has cosigned of this host's ledger. The CA carries it; the proof is made here, where
//! the tree is, and the answer is checked here, and kept beside the ledger for auditors.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use audit::hash::Hash;
use audit::key::KeyError;
use audit::note::{Note, NoteError};
use audit::{Checkpoint, Cosigner, Head, HeadError};
use ca_api::node::node_client::NodeClient;
use ca_api::node::{KnownWitness, WitnessRequest, WitnessResponse};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tonic::transport::Channel;

use super::shared::Shared;
use super::upkeep;

/// From question to answer: the CA waits ten seconds for the witness.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The most witnesses that a CA may name; it has fewer.
const WITNESSES_MAX: usize = 16;

/// What the CA answers where a witness says that it has seen another past.
const OTHER_PAST: [&str; 2] = ["set_back", "forked"];

/// Why a witness did not cosign a head.
#[derive(Debug, thiserror::Error)]
enum WitnessError {
    #[error("read the head of the ledger")]
    Head {
        #[source]
        source: HeadError,
    },
    #[error("keep the witnessed head beside the ledger")]
    Keep {
        #[source]
        source: std::io::Error,
    },
    #[error("the CA did not answer: {message}")]
    NoAnswer { message: String },
    #[error("the head was not witnessed: {word}")]
    Refused { word: String },
    #[error("what the CA answered is no head that the ledger signed and the witness cosigned")]
    NotCosigned {
        #[source]
        source: NoteError,
    },
    #[error("what the CA answered is another head of the ledger")]
    OtherHead,
    #[error("the ledger has no proof of the head that the CA cosigned")]
    NoProof,
    #[error("the task that reads the ledger ended")]
    Ended,
}

/// The head that is to be cosigned: the one that the CA cosigned last.
#[derive(Clone, Debug)]
pub(super) struct Newest {
    /// The name of its epoch.
    pub(super) origin: String,
    pub(super) size: u64,
}

/// The witnesses that the CA has named.
#[derive(Debug, Default)]
pub(super) struct Witnesses(Vec<Known>);

#[derive(Debug)]
struct Known {
    cosigner: Cosigner,
    /// Where it stands, as far as is known: records under the head that it cosigned last.
    stands_at: u64,
    /// Its newest head that is kept beside the ledger, of the epoch that the ledger is in.
    kept: u64,
    /// What went wrong the last time, which was said.
    said: Option<String>,
}

impl Witnesses {
    /// Takes in what the CA says. What was said aloud of one is not said again.
    pub(super) async fn named(&mut self, shared: &Shared, origin: &str, named: Vec<KnownWitness>) {
        let mut said: BTreeMap<String, Option<String>> = BTreeMap::new();
        for known in self.0.drain(..) {
            said.insert(known.cosigner.to_string(), known.said);
        }
        let parsed = named.into_iter().take(WITNESSES_MAX).filter_map(|witness| {
            let parsed: Result<Cosigner, KeyError> = Cosigner::parse(&witness.vkey);
            parsed.ok().map(|cosigner| (cosigner, witness.size))
        });
        let (dir, origin) = (shared.ledger.dir().to_owned(), origin.to_owned());
        let parsed: Vec<_> = parsed.collect();
        let reading = spawn_blocking(move || {
            let known = |(cosigner, stands_at): (Cosigner, u64)| {
                let kept = audit::kept::kept_witnessed(&dir, &cosigner);
                (cosigner, stands_at, kept)
            };
            parsed.into_iter().map(known).collect::<Vec<_>>()
        });
        let names: Vec<_> = reading.await.unwrap_or_default();
        self.0 = names
            .into_iter()
            .map(|(cosigner, stands_at, kept)| {
                let at = kept.as_ref().map(|kept| kept.at);
                let kept = kept.filter(|kept| kept.checkpoint.origin.as_str() == origin);
                let kept = kept.map_or(0, |kept| kept.checkpoint.size);
                shared.counts.witnessed(cosigner.name().as_str(), kept, at);
                Known {
                    said: said.remove(&cosigner.to_string()).flatten(),
                    cosigner,
                    stands_at,
                    kept,
                }
            })
            .collect();
        let names: Vec<_> = self.0.iter().map(|known| known.cosigner.name().as_str()).collect();
        shared.counts.only_witnesses(&names);
    }

    /// Tells each that has not cosigned the head. What comes of one does not concern the others.
    pub(super) async fn tell(&mut self, shared: &Shared, client: &NodeClient<Channel>, told: &Newest) {
        for known in &mut self.0 {
            if known.kept == told.size || told.size == 0 {
                continue;
            }
            match tell(shared, client.clone(), known, told).await {
                Ok(()) if known.said.take().is_some() => {
                    tracing::info!(witness = %known.cosigner.name(), "heads of the ledger are witnessed again");
                }
                Ok(()) => {}
                Err(error) => known.say(&error),
            }
        }
    }
}

impl Known {
    /// Says what went wrong, unless it is what was said last.
    fn say(&mut self, error: &WitnessError) {
        let text = error.to_string();
        let (witness, error) = (self.cosigner.name(), error as &dyn Error);
        if self.said.as_deref() == Some(&text) {
            tracing::debug!(%witness, error, "the head of the ledger was not witnessed again");
        } else {
            tracing::warn!(%witness, error, "the head of the ledger was not witnessed");
            self.said = Some(text);
        }
    }
}

async fn tell(
    shared: &Shared,
    mut client: NodeClient<Channel>,
    known: &mut Known,
    told: &Newest,
) -> Result<(), WitnessError> {
    // Once more where the witness says that it stands somewhere else.
    for _ in 0..2 {
        let proof = prove(shared, known.stands_at.min(told.size), told.clone()).await?;
        let request = WitnessRequest {
            vkey: known.cosigner.to_string(),
            size: told.size,
            old_size: known.stands_at.min(told.size),
            proof: proof.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
        };
        let asking = tokio::time::timeout(TIMEOUT, client.witness(request)).await;
        let answer = asking.map_err(|_elapsed| no_answer("it took too long"))?;
        let answer = answer.map_err(|status| no_answer(status.message()))?.into_inner();
        match answer.refusal.as_str() {
            "" => return keep(shared, known, told, answer).await,
            "behind" if answer.size <= told.size => known.stands_at = answer.size,
            word => {
                if OTHER_PAST.contains(&word) && known.said.is_none() {
                    alarm(shared, &known.cosigner, word, &answer, told);
                }
                return Err(WitnessError::Refused { word: word.to_owned() });
            }
        }
    }
    Err(WitnessError::Refused {
        word: "behind".to_owned(),
    })
}

fn no_answer(message: &str) -> WitnessError {
    WitnessError::NoAnswer {
        message: message.to_owned(),
    }
}

/// A witness says that it has seen another past. It is a word that nobody has signed, so no epoch begins by it: one witness that
/// errs, or lies, would make the ledger one that no other witness knows.
fn alarm(shared: &Shared, witness: &Cosigner, word: &str, answer: &WitnessResponse, told: &Newest) {
    tracing::error!(witness = %witness.name(), word, size = answer.size, "a witness has cosigned another past of this ledger");
    let detail = [
        ("witness", Value::from(witness.name().as_str())),
        ("why", Value::from(word)),
        ("witnessed", Value::from(answer.size)),
        ("records", Value::from(told.size)),
    ];
    let detail = detail.map(|(name, value)| (name.to_owned(), value)).into();
    upkeep::alert(shared, "ledger_not_as_witnessed", detail);
}

/// Proves that the ledger of `old` records is a beginning of the head that the CA cosigned.
async fn prove(shared: &Shared, old: u64, told: Newest) -> Result<Vec<Hash>, WitnessError> {
    let dir = shared.ledger.dir().to_owned();
    let proving = spawn_blocking(move || {
        let head = Head::read(&dir).map_err(|source| WitnessError::Head { source })?;
        if head.checkpoint().origin.as_str() != told.origin {
            return Err(WitnessError::NoProof);
        }
        let proof = head.extends_under(old, told.size);
        proof
            .map_err(|source| WitnessError::Head { source })?
            .ok_or(WitnessError::NoProof)
    });
    proving.await.map_err(|_ended| WitnessError::Ended)?
}

/// Checks that the ledger signed what came, that it is the head that was told, and that the witness has cosigned it; and keeps it.
async fn keep(shared: &Shared, known: &mut Known, told: &Newest, answer: WitnessResponse) -> Result<(), WitnessError> {
    let not_cosigned = |source| WitnessError::NotCosigned { source };
    let note = Note::parse(answer.note.as_bytes()).map_err(not_cosigned)?;
    let at = known.cosigner.cosigned(&note).map_err(not_cosigned)?;
    let (dir, cosigner, told) = (shared.ledger.dir().to_owned(), known.cosigner.clone(), told.clone());
    let size = told.size;
    let keeping = spawn_blocking(move || {
        let head = Head::read(&dir).map_err(|source| WitnessError::Head { source })?;
        let checkpoint = Checkpoint::open(note.to_string().as_bytes(), head.key());
        let is_it = checkpoint.is_ok_and(|is| is.size == told.size && is.origin.as_str() == told.origin);
        if !is_it {
            return Err(WitnessError::OtherHead);
        }
        audit::kept::keep_witnessed(&dir, &note, &cosigner).map_err(|source| WitnessError::Keep { source })
    });
    keeping.await.map_err(|_ended| WitnessError::Ended)??;
    (known.kept, known.stands_at) = (size, size);
    shared.counts.witnessed(known.cosigner.name().as_str(), size, Some(at));
    Ok(())
}
