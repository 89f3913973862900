//! PostgreSQL outside of the mesh, at which the proxy authenticates for its bots, so that no bot holds a password.
//!
//! A bot connects to a listener of its own host as it would to the server, without TLS and without a password. The proxy
//! reads the start-up and nothing after it: which database is wanted is the call, decided and recorded before anything
//! leaves. Then it opens TLS with the server, says the credential's user in place of the bot's, proves it (`login`),
//! and bytes pass both ways for as long as the call has its right.
//!
//! What is refused is said in an error of PostgreSQL (`refusal`).

pub(crate) mod binding;
pub(crate) mod keys;
pub(crate) mod login;
mod refusal;
pub mod scram;
pub(crate) mod start;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use audit::{EventKind, LedgerError};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::call::{self, Door, Opening, OutsideRoute, Refusal, RequestBody, To};
use crate::connection::tunnel::Line;
use crate::ends::{ReadEnd, WriteEnd};
use crate::http1::read::Reader;
use crate::http1::write::{Tail, Writer};
use crate::outside::connect::OutsideFault;
use crate::proxy::Proxy;
use crate::reason::Reason;
use crate::seldom::Seldom;
use keys::{Key, Session};
use start::Start;
use wire::{Asked, First, KEY_BYTES, WireError};

/// How long a bot may take for its start-up, with all that it asks for before.
const START_UP: Duration = Duration::from_secs(10);

/// How long the end of a statement may take that another connection asks for.
const CANCEL: Duration = Duration::from_secs(10);

/// A process that tries again and again must not fill the log.
static NOT_THEIRS: Seldom = Seldom::new();

/// What a connection wants.
#[derive(Debug)]
enum Wanted {
    Session(Asked),
    Cancel([u8; KEY_BYTES]),
}

/// Why a connection wants nothing.
#[derive(Debug, Error)]
enum Unread {
    /// It said nothing, not enough, or too late. There is nobody to answer.
    #[error("the start-up broke off")]
    Gone,
    /// It said what is no start-up.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Serves a connection of a listener to its end.
pub(crate) async fn serve(proxy: &Arc<Proxy>, mut read: ReadEnd, write: WriteEnd, door: &Door, to: &Arc<OutsideRoute>) {
    let mut writer = Writer::new(write, proxy.limits.body_idle);
    let start = match wanted(&mut read, &mut writer).await {
        Ok(Wanted::Session(asked)) => Start::new(asked).map_err(|error| bad(error.to_string(), to)),
        Ok(Wanted::Cancel(key)) => return Box::pin(cancel(proxy, door, to, key)).await,
        Err(Unread::Wire(error)) => Err(bad(error.to_string(), to)),
        Err(Unread::Gone) => return,
    };
    let (start, leads) = match start {
        Ok(start) => (Some(Arc::new(start)), Ok(To::Outside(Arc::clone(to)))),
        Err(refusal) => (None, Err(refusal)),
    };
    let (body, later) = RequestBody::later_of(start.clone());
    let count = body.count();
    let opening = Opening {
        to: leads,
        port: to.outside.port(),
        headers: HeaderMap::new(),
        body,
    };
    let mut answer = call::begin_session(proxy, door, opening).await;
    let told = start.as_ref().and_then(|start| start.told.get().cloned());
    if answer.status != StatusCode::OK {
        // The server's own error, or else the proxy's.
        let error = match told {
            Some(error) => error,
            None => refusal::error(answer).await,
        };
        return last_word(&mut writer, error).await;
    }
    if let Some(start) = &start {
        writer.out().extend_from_slice(&start.negotiated);
    }
    writer.out().extend_from_slice(&told.unwrap_or_default());
    let mut line = Line {
        door,
        writer: &mut writer,
        silence: None,
    };
    if let Err(outcome) = line.opened(&answer.body).await {
        return answer.body.ended(outcome.unwrap_or(call::CALLER_GONE));
    }
    let reader = Box::new(Reader::new(read, proxy.limits));
    line.carry(reader, answer.body, later, &count).await;
}

fn bad(detail: String, to: &Arc<OutsideRoute>) -> Box<Refusal> {
    Refusal::boxed(Reason::BadRequest, detail).to(to)
}

/// Reads what a connection wants, which it has a while to say.
async fn wanted(read: &mut ReadEnd, writer: &mut Writer<WriteEnd>) -> Result<Wanted, Unread> {
    let said = timeout(START_UP, said(read, writer)).await;
    said.unwrap_or(Err(Unread::Gone))
}

/// Reads what it says. Encryption is not what it wants: the listener is of this host, and TLS would tell the bot nothing that
/// the kernel does not.
async fn said(read: &mut ReadEnd, writer: &mut Writer<WriteEnd>) -> Result<Wanted, Unread> {
    let (mut tls, mut gss) = (false, false);
    loop {
        let mut length = [0; 4];
        read.read_exact(&mut length).await.map_err(|_gone| Unread::Gone)?;
        let mut rest = vec![0; wire::first_length(length)?];
        read.read_exact(&mut rest).await.map_err(|_gone| Unread::Gone)?;
        let asked = match wire::first(&rest)? {
            First::Startup(asked) => return Ok(Wanted::Session(asked)),
            First::Cancel(key) => return Ok(Wanted::Cancel(key)),
            First::Tls => &mut tls,
            First::Gss => &mut gss,
        };
        // Each is asked once, as the server has it.
        if std::mem::replace(asked, true) {
            return Err(WireError::Version.into());
        }
        let no = Tail::new(Bytes::from_static(b"N"));
        writer.send(no).await.map_err(|_gone| Unread::Gone)?;
    }
}

/// Says why, and that there is nothing more.
async fn last_word(writer: &mut Writer<WriteEnd>, error: Bytes) {
    let said = writer.send(Tail::new(error)).await;
    if said.is_err() || writer.shutdown().await.is_err() {
        tracing::debug!("a client of PostgreSQL was gone before it was told why");
    }
}

/// Why a statement was not ended.
#[derive(Debug, Error)]
enum NotEnded {
    /// What is not recorded is not done.
    #[error("record that a statement is to end")]
    Record {
        #[source]
        source: LedgerError,
    },
    /// The server was not reached.
    #[error("reach the server of the session")]
    Reach {
        #[source]
        source: OutsideFault,
    },
    /// It took too long.
    #[error("it took too long")]
    Slow,
}

/// Ends a statement of a session of the same bot, at the address where that session is. The bot is not told what came of it:
/// the protocol has no answer.
async fn cancel(proxy: &Arc<Proxy>, door: &Door, to: &Arc<OutsideRoute>, key: [u8; KEY_BYTES]) {
    let count = |result| proxy.metrics.database_cancel(result);
    let Door::Bot { who, .. } = door else {
        if let Some(left_out) = NOT_THEIRS.due() {
            tracing::info!(to = %to.outside, left_out, "somebody who is no bot would end a statement");
        }
        return count("refused");
    };
    let of = Key {
        from: who.bot.clone(),
        to: to.outside.clone(),
        key,
    };
    let Some(session) = proxy.database_keys.find(&of) else {
        if let Some(left_out) = NOT_THEIRS.due() {
            tracing::info!(from = %who.bot, to = %to.outside, left_out, "a bot would end a statement of a session that it does not have");
        }
        return count("refused");
    };
    let ended = timeout(CANCEL, end_statement(proxy, &of, &session)).await;
    match ended.unwrap_or(Err(NotEnded::Slow)) {
        Ok(()) => count("sent"),
        Err(error) => {
            tracing::info!(to = %to.outside, error = &error as &dyn std::error::Error, "a statement was not ended");
            count("failed");
        }
    }
}

/// Asks the server of a session to end its statement, once that is recorded.
async fn end_statement(proxy: &Arc<Proxy>, of: &Key, session: &Session) -> Result<(), NotEnded> {
    // One at a time: else a bot with one session could have this host open any number of connections with the server.
    let _turn = session.cancelling.lock().await;
    let detail = BTreeMap::from([
        ("bot".to_owned(), Value::from(of.from.to_string())),
        ("call".to_owned(), Value::from(session.call.to_string())),
    ]);
    let recorded = proxy
        .control
        .own_event(EventKind::DatabaseCancel, of.to.to_string(), detail);
    recorded.map_err(|source| NotEnded::Record { source })?;
    let snapshot = proxy.control.snapshot();
    let said = snapshot.mesh.outside_destination(&of.to);
    let said = said.cloned().unwrap_or_default();
    let reached = proxy
        .callees
        .reach_database(&of.to, &said, None, Some(session.address))
        .await;
    let mut server = reached.map_err(|source| NotEnded::Reach { source })?;
    let written = server.stream.write_all(&wire::cancel(of.key)).await;
    // The server says nothing, and ends the connection once it has done it.
    let ended = server.stream.shutdown().await;
    if written.and(ended).is_err() {
        tracing::debug!(to = %of.to, "a server did not hear that a statement is to end");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_up_that_does_not_come_to_its_end_in_time_is_none() {
        let (mut bot, proxy) = UnixStream::pair().unwrap();
        let (mut read, write) = crate::ends::unix(proxy);
        let mut writer = Writer::new(write, START_UP);
        bot.write_all(&[0, 0, 0, 9, 0, 3]).await.unwrap();
        let waited = timeout(START_UP * 2, wanted(&mut read, &mut writer)).await;
        assert!(matches!(waited, Ok(Err(Unread::Gone))), "{waited:?}");
    }
}
