//! Questions of the CA about this host's ledger: one at a time, answered within bounds of size and time, and each in the
//! ledger itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use audit::EventKind;
use audit::query::{Answer, Bounds, Indexes, Key, Stop};
use ca_api::node::node_client::NodeClient;
use ca_api::node::{LEDGER_ANSWER_BYTES_MAX, LEDGER_ROWS_MAX, LedgerAnswer, LedgerQuestion};
use serde_json::{Value, json};
use spiffe::time::Timestamp;
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;
use tonic::transport::Channel;

use super::shared::Shared;

/// How long a question may take.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// From answer to receipt.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Questions that wait; the CA has no more open at once.
const WAITING_MAX: usize = 4;

/// The longest reason for which there is no answer, in bytes.
const ERROR_BYTES_MAX: usize = 1024;

/// The questions that came and wait.
#[derive(Debug)]
pub(super) struct Questions {
    sender: mpsc::Sender<LedgerQuestion>,
    receiver: Mutex<mpsc::Receiver<LedgerQuestion>>,
}

impl Default for Questions {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self {
            sender,
            receiver: Mutex::new(receiver),
        }
    }
}

impl Questions {
    /// Takes a question in, unless too many wait: then the CA says that there was no answer.
    pub(super) fn take(&self, question: LedgerQuestion) {
        if self.sender.try_send(question).is_err() {
            tracing::warn!("a question about the ledger was not taken: others wait");
        }
    }
}

/// Answers until the connection ends around it. Losing it midway loses an answer, which the CA misses and says so.
pub(super) async fn answer_all(shared: &Shared, mut client: NodeClient<Channel>) -> Infallible {
    let mut questions = shared.questions.receiver.lock().await;
    loop {
        let Some(question) = questions.recv().await else {
            // The other end is in `shared`, which lives longer.
            std::future::pending::<Infallible>().await;
            continue;
        };
        let answer = answer(shared, question).await;
        match tokio::time::timeout(TIMEOUT, client.answer(answer)).await {
            Ok(Ok(_taken)) => {}
            Ok(Err(status)) => tracing::warn!(message = status.message(), "an answer about the ledger was not taken"),
            Err(_elapsed) => tracing::warn!("the CA did not take an answer about the ledger in time"),
        }
    }
}

async fn answer(shared: &Shared, question: LedgerQuestion) -> LedgerAnswer {
    let id = question.id;
    let outcome = read(shared, &question).await;
    let (rows, error) = match &outcome {
        Ok(found) => (found.rows.len(), None),
        Err(error) => (0, Some(error.as_str())),
    };
    // Whoever reads what bots do leaves a trace where they are.
    let detail = BTreeMap::from([
        ("filter".to_owned(), Value::from(shorten(question.filter))),
        ("by".to_owned(), json!(question.by.iter().take(8).collect::<Vec<_>>())),
        ("rows".to_owned(), Value::from(rows)),
        ("error".to_owned(), json!(error)),
    ]);
    shared.record(EventKind::Operator, "ledger".to_owned(), detail);
    match outcome {
        Ok(found) => LedgerAnswer {
            id,
            rows: found.rows,
            more: found.more,
            error: String::new(),
        },
        Err(error) => LedgerAnswer {
            id,
            error,
            ..LedgerAnswer::default()
        },
    }
}

/// Asks the ledger, or says why not.
async fn read(shared: &Shared, question: &LedgerQuestion) -> Result<Answer, String> {
    let now = Timestamp::from_unix_millis(question.now_unix_ms);
    let filter = audit::query::parse(&question.filter, now).map_err(|error| shorten(error.to_string()))?;
    let keys: Option<Vec<Key>> = question.by.iter().map(|word| Key::parse(word)).collect();
    let keys = keys.filter(|keys| keys.len() <= audit::query::GROUP_KEYS_MAX);
    let keys = keys.ok_or("a key that this version does not know, or too many")?;
    let bounds = Bounds {
        rows: usize::try_from(question.rows_max)
            .unwrap_or(usize::MAX)
            .min(LEDGER_ROWS_MAX),
        bytes: LEDGER_ANSWER_BYTES_MAX,
    };
    let dir = shared.ledger.dir().to_owned();
    let stop = Stop::default();
    let _ends_with_us = stop.on_drop();
    let asking = spawn_blocking(move || audit::query::answer(&dir, &filter, &keys, bounds, Indexes::Write, &stop));
    let outcome = tokio::time::timeout(ANSWER_MAX, asking).await;
    match outcome {
        Ok(Ok(Ok(found))) => Ok(found),
        Ok(Ok(Err(error))) => {
            tracing::warn!(
                error = &error as &dyn Error,
                "a question about the ledger has no answer"
            );
            Err(shorten(error.to_string()))
        }
        Ok(Err(_)) | Err(_) => Err("it took too long: ask of less time".to_owned()),
    }
}

fn shorten(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
    text
}
