//! What happens to credentials beside calls, for the ledger: tokens that were given, and leases that were taken, renewed and given
//! back. A call that has one is recorded by itself; no record has anything of a value.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use audit::EventKind;
use policy::CredentialName;
use serde_json::Value;
use spiffe::id::BotName;

use super::vault::VaultWord;
use crate::control::chain_of;

/// The most of an error that is recorded, in characters.
const ERROR_CHARS_MAX: usize = 512;

/// What else there is to say of an event.
type Detail = BTreeMap<String, Value>;

/// What writes an event, of a kind and about somebody.
type Write = dyn Fn(EventKind, String, Detail) + Send + Sync;

/// Writes events down.
#[derive(Clone, Default)]
pub(crate) struct Events(Option<Arc<Write>>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// What was done with a lease, or was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A vault made it.
    Taken,
    /// It lives on.
    Renewed,
    /// It was given back.
    GivenBack,
    /// The vault has taken it back by itself.
    Ended,
}

impl Step {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Renewed => "renewed",
            Self::GivenBack => "given_back",
            Self::Ended => "ended",
        }
    }
}

/// Whose a lease is: of one that an earlier process left the vault alone is known, and of one that an operator tried no bot has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) vault: VaultWord,
    pub(super) name: Option<CredentialName>,
    pub(super) bot: Option<BotName>,
}

impl Events {
    /// Has `write` write them.
    pub(crate) fn new(write: impl Fn(EventKind, String, BTreeMap<String, Value>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(write)))
    }

    /// A value was exchanged for a token, or why it was not; with the bot where it has one of its own.
    pub(super) fn token(&self, name: &CredentialName, bot: Option<&BotName>, done: Result<(), &(dyn Error + 'static)>) {
        let class = if bot.is_some() { "federated" } else { "short" };
        let bot = bot.map(|bot| ("bot", Value::from(bot.to_string())));
        let detail = std::iter::once(("class", Value::from(class))).chain(bot);
        self.write(EventKind::CredentialToken, format!("credential:{name}"), detail, done);
    }

    /// Something was done with a lease, or why it was not.
    pub(super) fn lease(&self, step: Step, of: &Whose, done: Result<(), &(dyn Error + 'static)>) {
        let subject = match &of.name {
            Some(name) => format!("credential:{name}"),
            None => format!("vault:{}", of.vault),
        };
        let bot = of.bot.as_ref().map(|bot| ("bot", Value::from(bot.to_string())));
        let always = [
            ("class", Value::from("dynamic")),
            ("step", Value::from(step.as_str())),
            ("vault", Value::from(of.vault.to_string())),
        ];
        self.write(EventKind::CredentialLease, subject, always.into_iter().chain(bot), done);
    }

    fn write(
        &self,
        kind: EventKind,
        subject: String,
        detail: impl IntoIterator<Item = (&'static str, Value)>,
        done: Result<(), &(dyn Error + 'static)>,
    ) {
        let Some(write) = &self.0 else { return };
        let mut all: Detail = detail.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let result = if done.is_ok() { "ok" } else { "failed" };
        all.insert("result".to_owned(), Value::from(result));
        if let Err(error) = done {
            let error: String = chain_of(error).chars().take(ERROR_CHARS_MAX).collect();
            all.insert("error".to_owned(), Value::from(error));
        }
        write(kind, subject, all);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("{0}")]
    struct Wrong(String);

    #[test]
    fn an_event_says_what_was_done_for_whom_and_why_not() {
        let told: Arc<Mutex<Vec<Value>>> = Arc::default();
        let list = Arc::clone(&told);
        let events = Events::new(move |kind, subject, detail| {
            list.lock().unwrap().push(json!([kind.as_str(), subject, detail]));
        });
        let name = CredentialName::parse("db").unwrap();
        let of = Whose {
            vault: VaultWord::parse("main").unwrap(),
            name: Some(name.clone()),
            bot: BotName::parse("prod/a").ok(),
        };
        let left = Whose {
            name: None,
            bot: None,
            ..of.clone()
        };
        events.token(&name, None, Ok(()));
        events.lease(Step::Taken, &of, Err(&Wrong("x".repeat(600))));
        events.lease(Step::GivenBack, &left, Ok(()));
        let error = "x".repeat(ERROR_CHARS_MAX);
        assert_eq!(
            *told.lock().unwrap(),
            [
                json!(["credential_token", "credential:db", {"class": "short", "result": "ok"}]),
                json!(["credential_lease", "credential:db", {
                    "class": "dynamic", "step": "taken", "vault": "main", "bot": "prod/a", "result": "failed", "error": error,
                }]),
                json!(["credential_lease", "vault:main", {
                    "class": "dynamic", "step": "given_back", "vault": "main", "result": "ok",
                }]),
            ]
        );
        Events::default().token(&name, None, Ok(()));
    }
}
