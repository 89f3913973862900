//! Has the CA cosign the head of this host's ledger, once a minute where there is news: so that nobody on this host can cut
//! its past off unseen. What the CA does not cosign is a ledger that is not what it was, and a new epoch of it begins.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use audit::cosignature::Cosigner;
use audit::hash::Hash;
use audit::note::Note;
use audit::{Head, HeadError};
use ca_api::node::node_client::NodeClient;
use ca_api::node::{CosignRequest, CosignResponse};
use tokio::task::spawn_blocking;
use tonic::transport::Channel;

use super::shared::Shared;
use super::witness::{Newest, Witnesses};

/// How often a head is told at most; the CA takes no more.
const EVERY: Duration = Duration::from_mins(1);

/// How soon it is tried again where that came to nothing. As all waits between attempts it follows the system's monotonic
/// clock, so that no clock that stands still keeps a host from its CA.
const AGAIN: Duration = Duration::from_secs(10);

/// From question to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the CA may answer to a head that it does not cosign, of which the ledger has to begin a new epoch.
const NOT_AS_COSIGNED: [&str; 4] = ["shrunken", "forked", "other_key", "old_epoch"];

/// Why a head was not cosigned.
#[derive(Debug, thiserror::Error)]
enum CosignError {
    #[error("read the head of the ledger")]
    Head {
        #[source]
        source: HeadError,
    },
    #[error("keep the cosigned head beside the ledger")]
    Keep {
        #[source]
        source: std::io::Error,
    },
    #[error("the CA did not answer: {message}")]
    NoAnswer { message: String },
    #[error("the CA refused the head: {word}")]
    Refused { word: String },
    #[error("what the CA answered is no cosignature of the head")]
    NotCosigned,
    #[error("the task that reads the ledger ended")]
    Ended,
}

/// The head that the CA cosigned last, as far as this process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Last {
    /// The name of its epoch.
    origin: String,
    size: u64,
}

/// Tells heads until the connection ends around it. Losing it midway loses an answer: the CA says where it stands when it
/// is asked the next time.
pub(super) async fn keep_cosigned(shared: &Shared, client: NodeClient<Channel>) -> Infallible {
    let mut last = Last::default();
    let mut witnesses = Witnesses::default();
    let mut failing = false;
    loop {
        let told = tell(shared, client.clone(), &mut last, &mut witnesses).await;
        let newest = Newest {
            origin: last.origin.clone(),
            size: last.size,
        };
        witnesses.tell(shared, &client, &newest).await;
        let is_done = matches!(told, Ok(Told::Done));
        match told {
            Ok(_) if failing => {
                failing = false;
                tracing::info!("heads of the ledger are cosigned again");
            }
            Ok(_) => {}
            // The first of a row: a CA of an older version cosigns none, however often it is asked.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(error = &error as &dyn Error, "the head of the ledger was not cosigned");
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn Error,
                    "the head of the ledger was not cosigned again"
                );
            }
        }
        if is_done {
            shared.time.clock().sleep_until(shared.time.now() + EVERY).await;
        } else {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// What telling a head came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// The newest one is cosigned, or a new epoch begins.
    Done,
    /// One was cosigned shortly before, by the CA's clock: by a stream that broke, or for the process before this one.
    TooSoon,
}

/// Tells the newest head, unless it is the one that was cosigned last.
async fn tell(
    shared: &Shared,
    mut client: NodeClient<Channel>,
    last: &mut Last,
    witnesses: &mut Witnesses,
) -> Result<Told, CosignError> {
    let mut old = None;
    // Once more where the CA says that it stands somewhere else.
    for _ in 0..2 {
        let (head, proof) = read(shared, old, last.clone()).await?;
        let now = Last {
            origin: head.checkpoint().origin.to_string(),
            size: head.checkpoint().size,
        };
        if now == *last {
            return Ok(Told::Done);
        }
        let request = CosignRequest {
            vkey: head.key().to_string(),
            note: head.note().to_owned(),
            old_size: proof.from,
            proof: proof.hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect(),
        };
        let asking = tokio::time::timeout(TIMEOUT, client.cosign(request)).await;
        let answer = asking.map_err(|_elapsed| no_answer("it took too long"))?;
        let answer = answer.map_err(|status| no_answer(status.message()))?.into_inner();
        match answer.refusal.as_str() {
            "" => {
                let named = answer.witnesses.clone();
                keep(shared, &head, answer).await?;
                *last = now;
                witnesses.named(shared, &last.origin, named).await;
                return Ok(Told::Done);
            }
            "too_soon" => return Ok(Told::TooSoon),
            "behind" if answer.size <= now.size => old = Some(answer.size),
            word => return begin_anew(shared, word, answer.epoch).map(|()| Told::Done),
        }
    }
    Err(CosignError::Refused {
        word: "behind".to_owned(),
    })
}

fn no_answer(message: &str) -> CosignError {
    CosignError::NoAnswer {
        message: message.to_owned(),
    }
}

/// The ledger is not the one that was cosigned: lost, set back, or changed. That is for people to look into; calls go on.
fn begin_anew(shared: &Shared, word: &str, epoch: u32) -> Result<(), CosignError> {
    let Some(why) = NOT_AS_COSIGNED.into_iter().find(|known| *known == word) else {
        return Err(CosignError::Refused { word: word.to_owned() });
    };
    tracing::error!(
        why,
        epoch,
        "the CA has cosigned another past of this ledger: a new epoch begins"
    );
    shared.ledger.begin_epoch(epoch, why);
    shared.counts.cosigned_anew();
    Ok(())
}

/// What proves that the head before is a beginning of this one.
struct Proof {
    from: u64,
    hashes: Vec<Hash>,
}

/// Reads the newest head, with a proof from `old`, or from the last that was cosigned. Where there is none, or it is that of
/// another epoch, the CA is told nothing of what was before and says where it stands.
async fn read(shared: &Shared, old: Option<u64>, last: Last) -> Result<(Head, Proof), CosignError> {
    let dir = shared.ledger.dir().to_owned();
    let reading = spawn_blocking(move || {
        let head = Head::read(&dir)?;
        let same = last.origin == head.checkpoint().origin.as_str();
        let from = old.unwrap_or(if same { last.size } else { 0 });
        let hashes = head.extends(from)?.unwrap_or_default();
        Ok((head, Proof { from, hashes }))
    });
    let read = reading.await.map_err(|_ended| CosignError::Ended)?;
    read.map_err(|source| CosignError::Head { source })
}

/// Checks the cosignature, and keeps it beside the ledger for auditors.
async fn keep(shared: &Shared, head: &Head, answer: CosignResponse) -> Result<(), CosignError> {
    let cosigner = Cosigner::parse(&answer.cosigner).map_err(|_invalid| CosignError::NotCosigned)?;
    let note = Note::parse(answer.cosigned.as_bytes()).map_err(|_invalid| CosignError::NotCosigned)?;
    let is_ours = note
        .verified_by(head.key())
        .is_ok_and(|text| head.note().starts_with(text));
    let at = cosigner.cosigned(&note).map_err(|_none| CosignError::NotCosigned)?;
    if !is_ours {
        return Err(CosignError::NotCosigned);
    }
    let dir = shared.ledger.dir().to_owned();
    let keeping = spawn_blocking(move || audit::kept::keep_cosigned(&dir, &note, &cosigner));
    let kept = keeping.await.map_err(|_ended| CosignError::Ended)?;
    kept.map_err(|source| CosignError::Keep { source })?;
    shared.counts.cosigned(head.checkpoint().size, at);
    Ok(())
}

/// Counts the head that was kept before the start.
pub(super) async fn count_kept(shared: &Shared) {
    let dir = shared.ledger.dir().to_owned();
    let kept = spawn_blocking(move || Some((audit::kept::kept_cosigned(&dir)?, Head::read(&dir).ok()?))).await;
    let Ok(Some((kept, head))) = kept else { return };
    shared.counts.cosigned(kept.checkpoint.size, kept.at);
    if kept.checkpoint.origin != head.checkpoint().origin {
        shared.counts.cosigned_anew();
    }
}
