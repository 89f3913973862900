//! Tells a webhook of alerts: in order, signed, with patience, and never at the cost of anything else.
//!
//! The alerts are in the ledger in any case. What waits is bounded, and lost when the CA stops.

mod deliver;
mod secret;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use spiffe::time::Clock;
use tokio::sync::mpsc;

use crate::config::{SecretSource, WebhookSettings};
use crate::core::Core;
use crate::metrics::WebhookMetrics;
use deliver::{Message, Undelivered, deliver};
pub use secret::SecretError;
use secret::{Address, Key};

/// Alerts that wait. Of one host there are 33 in ten minutes at most.
const QUEUE_MAX: usize = 256;

/// The first pause after a try that failed; each that follows is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// Tries of one message: with the pauses between them they take half an hour.
const TRIES_MAX: u32 = 14;

/// Where the address and the key are.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    settings: WebhookSettings,
    /// Where systemd has put what it passed.
    credentials: Option<PathBuf>,
}

impl Files {
    fn url(&self) -> Result<PathBuf, SecretError> {
        self.path(&self.settings.url)
    }

    fn secret(&self) -> Result<Option<PathBuf>, SecretError> {
        self.settings
            .secret
            .as_ref()
            .map(|source| self.path(source))
            .transpose()
    }

    fn ca(&self) -> Option<&Path> {
        self.settings.ca.as_deref()
    }

    fn path(&self, source: &SecretSource) -> Result<PathBuf, SecretError> {
        match source {
            SecretSource::File(path) => Ok(path.clone()),
            SecretSource::Systemd(name) => {
                let folder = self.credentials.as_ref().ok_or(SecretError::NoSystemd)?;
                Ok(folder.join(name))
            }
        }
    }
}

/// Why there is no webhook although one is configured.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Its address or key cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Its authorities cannot be used.
    #[error("read the authorities of the webhook from {path}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The end that alerts are put into; never waits.
#[derive(Debug)]
pub(crate) struct Webhook {
    sender: mpsc::Sender<Value>,
    metrics: WebhookMetrics,
}

/// The end that delivers.
#[derive(Debug)]
pub(crate) struct Delivery {
    queue: mpsc::Receiver<Value>,
    files: Files,
    metrics: WebhookMetrics,
    clock: Clock,
    /// Makes the numbers of messages unlike those of another start.
    start: String,
}

impl Webhook {
    /// Looks whether what is configured can be used: whoever mistyped a path wants to know now.
    pub(crate) fn open(
        settings: &WebhookSettings,
        credentials: Option<&Path>,
        metrics: &WebhookMetrics,
        clock: &Clock,
    ) -> Result<(Self, Delivery), WebhookError> {
        let files = Files {
            settings: settings.clone(),
            credentials: credentials.map(Path::to_owned),
        };
        drop(Address::read(&files.url()?)?);
        drop(files.secret()?.map(|path| Key::read(&path)).transpose()?);
        if let Some(path) = files.ca() {
            let path = path.to_owned();
            drop(deliver::given(&path).map_err(|source| WebhookError::Authorities { path, source })?);
        }
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let delivery = Delivery {
            queue,
            files,
            metrics: metrics.clone(),
            clock: clock.clone(),
            start: clock.now().unix_millis().to_string(),
        };
        let metrics = metrics.clone();
        Ok((Self { sender, metrics }, delivery))
    }

    fn put(&self, message: Value) {
        if self.sender.try_send(message).is_err() {
            self.metrics.count("dropped");
        }
    }
}

impl Core {
    /// Tells the webhook of an alert, where there is one. `text` is what a chat shows.
    pub(crate) fn post_alert(&self, text: &str, alert: &Value) {
        if let Some(webhook) = &self.webhook {
            webhook.put(json!({
                "schema": "botmesh/v1",
                "trust_domain": self.trust_domain(),
                "server": self.server(),
                "text": text,
                "alert": alert,
            }));
        }
    }
}

impl Delivery {
    /// Delivers until the CA stops.
    pub(crate) async fn run(mut self, core: Arc<Core>) {
        let mut number = 0_u64;
        loop {
            // Cancel safe: what is not taken is lost with the process, which ends.
            let body = tokio::select! {
                () = core.cancel.cancelled() => return,
                body = self.queue.recv() => body,
            };
            let Some(body) = body else {
                return core.cancel.cancelled().await;
            };
            number += 1;
            let message = Message {
                id: format!("alert-{}-{number}", self.start),
                body: Bytes::from(body.to_string()),
            };
            tokio::select! {
                () = core.cancel.cancelled() => return,
                () = self.patiently(&message) => {}
            }
        }
    }

    async fn patiently(&self, message: &Message) {
        let mut pause = PAUSE;
        for attempt in 1..=TRIES_MAX {
            match deliver(&self.files, message, &self.clock).await {
                Ok(()) => return self.metrics.count("sent"),
                Err(error) if error.is_final() || attempt == TRIES_MAX => return self.failed(message, &error),
                Err(error) => {
                    self.metrics.count("retried");
                    if attempt == 1 {
                        say(message, &error, "an alert did not reach the webhook yet");
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn failed(&self, message: &Message, error: &Undelivered) {
        self.metrics.count("failed");
        say(message, error, "an alert does not reach the webhook; the ledger has it");
    }
}

fn say(message: &Message, error: &Undelivered, what: &str) {
    let error = error as &dyn std::error::Error;
    tracing::error!(error, id = message.id, "{what}");
}
