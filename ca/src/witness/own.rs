//! The CA's own ledger, told to witnesses. Nobody else looks after that one.

use std::sync::Arc;
use std::time::Duration;

use audit::key::KeyName;
use audit::note::Note;
use audit::proof::extends;
use audit::witness::http::NotCosigned;
use audit::{Checkpoint, EventKind, Head, HeadError, VerifierKey, epoch};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::{NotWitnessed, Submission, Witness, told};
use crate::alerts::AlertKind;
use crate::core::Core;
use crate::store::{StoreError, WitnessedRow};

/// How often it is told, where it has grown.
const EVERY: Duration = Duration::from_mins(1);

/// Why a witness did not cosign it.
#[derive(Debug, thiserror::Error)]
enum OwnError {
    #[error("the CA's ledger has no name")]
    Name,
    #[error("read the head of the CA's ledger")]
    Head {
        #[source]
        source: HeadError,
    },
    #[error("the head of the CA's ledger is no note")]
    Note {
        #[source]
        source: audit::note::NoteError,
    },
    #[error("read what was cosigned of the CA's ledger")]
    Store {
        #[source]
        source: StoreError,
    },
    #[error("keep what was cosigned beside the CA's ledger")]
    Keep {
        #[source]
        source: std::io::Error,
    },
    #[error("the CA's ledger is not what it was when it was cosigned: {word}")]
    OtherPast { word: &'static str },
    #[error(transparent)]
    NotWitnessed { source: NotWitnessed },
    #[error("the task that reads the ledger ended")]
    Ended,
}

/// The newest head, and what it proves of an older one.
struct Proven {
    head: Head,
    old: u64,
    proof: Vec<audit::hash::Hash>,
}

/// Tells it until the CA stops.
pub(crate) async fn keep(core: Arc<Core>) {
    loop {
        // Cancel safe: an answer that is lost is asked for again, and the witness says where it stands.
        tokio::select! {
            () = core.cancel.cancelled() => return,
            () = tell_all(&core) => {}
        }
        tokio::select! {
            () = core.cancel.cancelled() => return,
            () = core.clock.sleep(EVERY) => {}
        }
    }
}

async fn tell_all(core: &Arc<Core>) {
    for witness in core.witnesses.iter() {
        if let Err(error) = tell(core, witness).await {
            // What people have to look into is said where it is found.
            let name = witness.key().name();
            tracing::debug!(witness = %name, error = &error as &dyn std::error::Error, "the CA's ledger was not witnessed");
        }
    }
}

async fn tell(core: &Arc<Core>, witness: &Witness) -> Result<(), OwnError> {
    let ledger = core.own_ledger().ok_or(OwnError::Name)?;
    let known = core.store.witnessed(Some(ledger.clone())).await;
    let known = known.map_err(|source| OwnError::Store { source })?;
    let of_witness = |row: &WitnessedRow| row.witness == *witness.key();
    if let Some(newest) = known.iter().filter(|row| of_witness(row)).map(|row| row.at).max() {
        witness.cosigned_own(newest);
    }
    let mut old = None;
    // Once more where the witness says that it stands somewhere else.
    for _ in 0..2 {
        let head = read(core).await?;
        let origin = head.checkpoint().origin.clone();
        let number = epoch::of(&ledger, &origin).ok_or(OwnError::Name)?;
        let row = known.iter().find(|row| of_witness(row) && row.epoch == number);
        let size = head.checkpoint().size;
        if let Some(row) = row.filter(|row| row.size == size)
            && is_beginning(&head, row, &[])
        {
            return Ok(());
        }
        let from = old.unwrap_or_else(|| row.map_or(0, |row| row.size));
        let proven = prove(head, from).await?;
        if let Some(row) = row.filter(|row| row.size == from || row.size > size)
            && !is_beginning(&proven.head, row, &proven.proof)
        {
            return other_past(core, witness, number, row.size > size);
        }
        match submit(core, witness, (&ledger, number), proven).await {
            Err(NotWitnessed::Answer {
                source: NotCosigned::Behind { size: at },
            }) if at <= size => old = Some(at),
            Err(NotWitnessed::Answer { source }) if source.is_other_past() => {
                alarm(core, witness, &source.to_string());
                return Err(OwnError::OtherPast { word: source.as_str() });
            }
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(source) => return Err(OwnError::NotWitnessed { source }),
        }
    }
    Ok(())
}

/// Sends one head; what is cosigned is kept beside the ledger too.
async fn submit(
    core: &Arc<Core>,
    witness: &Witness,
    (ledger, number): (&KeyName, u32),
    proven: Proven,
) -> Result<Result<(), OwnError>, NotWitnessed> {
    let note = match Note::parse(proven.head.note().as_bytes()) {
        Ok(note) => note,
        Err(source) => return Ok(Err(OwnError::Note { source })),
    };
    let told = Submission {
        ledger: ledger.clone(),
        epoch: number,
        note,
        checkpoint: proven.head.checkpoint().clone(),
        old: proven.old,
        proof: proven.proof,
    };
    let row = core.submit(witness, told).await?;
    witness.cosigned_own(row.at);
    let dir = core.settings.ledger_dir();
    let keeping = spawn_blocking(move || {
        let note = Note::parse(row.note.as_bytes()).map_err(std::io::Error::other)?;
        audit::kept::keep_witnessed(&dir, &note, &row.witness)
    });
    Ok(match keeping.await {
        Ok(kept) => kept.map_err(|source| OwnError::Keep { source }),
        Err(_ended) => Err(OwnError::Ended),
    })
}

async fn read(core: &Core) -> Result<Head, OwnError> {
    let dir = core.settings.ledger_dir();
    let read = spawn_blocking(move || Head::read(&dir)).await;
    let read = read.map_err(|_ended| OwnError::Ended)?;
    read.map_err(|source| OwnError::Head { source })
}

/// Proves what can be: nothing where the old head is the larger one.
async fn prove(head: Head, old: u64) -> Result<Proven, OwnError> {
    let proving = spawn_blocking(move || {
        let proof = head.extends(old)?.unwrap_or_default();
        Ok(Proven { head, old, proof })
    });
    let proven = proving.await.map_err(|_ended| OwnError::Ended)?;
    proven.map_err(|source| OwnError::Head { source })
}

/// Says whether what a witness cosigned is the beginning of the ledger. A head that the ledger's key has not signed says nothing.
fn is_beginning(head: &Head, row: &WitnessedRow, proof: &[audit::hash::Hash]) -> bool {
    let Some(old) = checkpoint_of(row, head.key()) else {
        return true;
    };
    let new = head.checkpoint();
    extends((old.size, &old.root), (new.size, &new.root), proof)
}

fn checkpoint_of(row: &WitnessedRow, key: &VerifierKey) -> Option<Checkpoint> {
    Checkpoint::open(row.note.as_bytes(), key).ok()
}

/// The CA's own store has a head that the ledger signed and a witness cosigned, and the ledger has not: that is proof enough, and
/// a new epoch begins.
fn other_past(core: &Core, witness: &Witness, number: u32, shrunken: bool) -> Result<(), OwnError> {
    let word = if shrunken { "shrunken" } else { "forked" };
    let error = OwnError::OtherPast { word };
    alarm(core, witness, &told(&error));
    core.journal.begin_epoch(number, word);
    Err(error)
}

/// Says aloud that the CA's own ledger is not what was cosigned.
fn alarm(core: &Core, witness: &Witness, what: &str) {
    let kind = AlertKind::LedgerNotAsWitnessed.as_str();
    core.metrics.alerts.with_label_values(&[kind]).inc();
    let name = witness.key().name();
    tracing::error!(witness = %name, what, "a witness has cosigned another past of the CA's own ledger");
    let detail = [
        ("reason", json!(kind)),
        ("witness", json!(name.as_str())),
        ("what", json!(what)),
    ];
    core.journal.note(EventKind::Alert, "ca", &core.server_id(), detail);
}

impl Core {
    /// The name of the first epoch of the CA's own ledger.
    pub(crate) fn own_ledger(&self) -> Option<KeyName> {
        KeyName::parse(&format!("{}/ca/{}", self.trust_domain(), self.server())).ok()
    }
}
