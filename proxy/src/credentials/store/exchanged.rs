//! The credentials among them whose value is exchanged: who asks, who waits, and who is told.

use std::sync::{Arc, MutexGuard, PoisonError};

use policy::{Credential, CredentialName, Mesh};

use super::{Credentials, Slot, Unavailable};
use crate::credentials::exchange::{Exchange, ExchangeError, Lineage};
use crate::credentials::token::{Change, Look, Moment, Token, Tokens};

/// Why a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// A call waits for it.
    Call,
    /// The one that is here is good for some time yet.
    Sooner,
    /// An operator wants to see it done.
    Operator,
}

impl Credentials {
    /// Gives a token of the value: from memory, or by asking for one. Calls that come meanwhile wait for the same one.
    pub(super) async fn token(
        self: &Arc<Self>,
        name: &CredentialName,
        slot: &Arc<Slot>,
        exchange: Exchange,
    ) -> Result<Token, Unavailable> {
        let look = slot.tokens().look(&exchange, self.moment());
        let need = match look {
            Look::Use(token) => return Ok(token),
            Look::Due(token) => {
                if slot.tokens().begin() {
                    drop(self.exchange(name, slot, exchange, Need::Sooner));
                }
                return Ok(token);
            }
            Look::LeftAlone(source) => return Err(not_exchanged(name, source)),
            Look::Ask => Need::Call,
        };
        let asked = self.exchange(name, slot, exchange, need).await;
        let answer = asked.unwrap_or_else(|_ended| Err(Arc::new(ExchangeError::Closing)));
        answer.map_err(|source| not_exchanged(name, source))
    }

    /// Asks for a token, whatever is here.
    pub(super) async fn exchange_anew(
        self: &Arc<Self>,
        name: &CredentialName,
        credential: &Credential,
        slot: &Arc<Slot>,
        mesh: &Mesh,
    ) {
        let value = slot.kept().value.as_ref().map(|(value, _)| Arc::clone(value));
        if let Some(exchange) = value.and_then(|value| Exchange::of(credential, &value, mesh)) {
            let _told_by_the_state: Result<_, _> = self.ask_anew(name, slot, exchange).await;
        }
    }

    /// The same for what is known already to be exchanged.
    pub(super) fn ask_anew(
        self: &Arc<Self>,
        name: &CredentialName,
        slot: &Arc<Slot>,
        exchange: Exchange,
    ) -> tokio::task::JoinHandle<Result<Token, Arc<ExchangeError>>> {
        self.exchange(name, slot, exchange, Need::Operator)
    }

    /// Asks in a task of its own: a caller that goes away does not break off what may end a refresh token's life.
    fn exchange(
        self: &Arc<Self>,
        name: &CredentialName,
        slot: &Arc<Slot>,
        exchange: Exchange,
        need: Need,
    ) -> tokio::task::JoinHandle<Result<Token, Arc<ExchangeError>>> {
        let (this, slot, name) = (Arc::clone(self), Arc::clone(slot), name.clone());
        self.tasks.spawn(async move {
            let done = {
                let mut lineage = slot.exchanging.lock().await;
                this.exchange_alone(&name, &slot, &exchange, need, &mut lineage).await
            };
            if need == Need::Sooner {
                slot.tokens().ended();
            }
            done
        })
    }

    async fn exchange_alone(
        &self,
        name: &CredentialName,
        slot: &Slot,
        exchange: &Exchange,
        need: Need,
        lineage: &mut Option<Lineage>,
    ) -> Result<Token, Arc<ExchangeError>> {
        if need != Need::Operator {
            // What whoever was before came to.
            match slot.tokens().look(exchange, self.moment()) {
                Look::Use(token) => return Ok(token),
                Look::LeftAlone(error) => return Err(error),
                Look::Due(_) | Look::Ask => {}
            }
        }
        let asked = (self.moment(), jitter());
        let answer = exchange.run(name, lineage, (&self.outward, &self.sealer)).await;
        let noted = {
            let mut tokens = slot.tokens();
            let noted = tokens.note(exchange, asked, (self.ttl, self.stale), answer);
            tokens.follow(lineage.as_ref().map(|lineage| Arc::clone(&lineage.newest)));
            noted
        };
        self.changed();
        match noted {
            Ok((token, change)) => {
                self.leases.events.token(name, exchange.bot(), Ok(()));
                if change == Change::Better {
                    tracing::info!(credential = %name, "a credential can be exchanged again");
                }
                Ok(token)
            }
            Err((error, change)) => {
                if change == Change::Worse {
                    self.leases.events.token(name, exchange.bot(), Err(&*error));
                    tracing::warn!(credential = %name, error = &*error as &dyn std::error::Error, "a credential was not exchanged");
                }
                match slot.tokens().look(exchange, self.moment()) {
                    Look::Use(token) if need == Need::Call => Ok(token),
                    Look::Use(_) | Look::Due(_) | Look::Ask | Look::LeftAlone(_) => Err(error),
                }
            }
        }
    }

    pub(super) fn moment(&self) -> Moment {
        Moment::of(&self.outward.clock)
    }
}

impl Slot {
    /// A thread that panicked while it held the lock left whole tokens.
    pub(super) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_exchanged(name: &CredentialName, source: Arc<ExchangeError>) -> Unavailable {
    if matches!(*source, ExchangeError::Svid { .. }) {
        return Unavailable::NotSigned {
            name: name.clone(),
            source,
        };
    }
    Unavailable::NotExchanged {
        name: name.clone(),
        source,
    }
}

/// Without randomness all hosts ask at the same age, which is no harm to this one.
fn jitter() -> u8 {
    let mut byte = [0];
    aws_lc_rs::rand::fill(&mut byte).map_or(0, |()| u8::from_ne_bytes(byte))
}
