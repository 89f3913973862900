//! A connection to a callee of which nothing is read.

use std::sync::Arc;
use std::time::Duration;

use policy::Target;
use spiffe::id::{BotName, SpiffeId};
use tokio_util::task::TaskTracker;

use super::tunnel::Guard;
use super::{CalleeFault, Callees, Connection, TunnelBody};
use crate::attest::Attestor;
use crate::call::RequestBody;
use crate::ends::Socket;
use crate::http1::write::Tail;
use crate::live::Held;
use crate::tcp::{Addresses, proxy_v2_header};

/// What is opened.
#[derive(Debug)]
pub(crate) struct Opaque {
    /// Where the callee listens.
    pub(crate) target: Target,
    /// How long connecting may take, where the mesh says so.
    pub(crate) connect: Option<Duration>,
    /// What the callee is told first, where it asks for that.
    pub(crate) introduction: Option<Introduction>,
    /// The call.
    pub(crate) held: Held,
    /// Where the task of the caller's direction belongs.
    pub(crate) tasks: TaskTracker,
}

/// Whose connection it is, as the PROXY protocol tells it.
#[derive(Debug)]
pub(crate) struct Introduction {
    pub(crate) caller: SpiffeId,
    /// Where a peer's connection came from and where to. A call of this host has none: what the callee is told then are
    /// the ends of the connection that it has.
    pub(crate) addresses: Option<Addresses>,
}

impl Callees {
    /// Connects to a bot of this host, has `body` be said to it, and gives what it says.
    pub(crate) async fn open(
        self: &Arc<Self>,
        attestor: &Attestor,
        bot: &BotName,
        line: Opaque,
        body: RequestBody,
    ) -> Result<TunnelBody, CalleeFault> {
        let mut connection = self.connect(attestor, bot, &line.target, line.connect).await?;
        if let Some(introduction) = line.introduction {
            introduce(&mut connection, introduction).await?;
        }
        let guard = Guard::new(attestor, &connection, line.held);
        Ok(TunnelBody::open(*connection, body, guard, &line.tasks))
    }
}

/// Says whose connection it is, at once: the callee may be the one who speaks first.
async fn introduce(connection: &mut Connection, introduction: Introduction) -> Result<(), CalleeFault> {
    let Introduction { caller, addresses } = introduction;
    let addresses = addresses.or_else(|| own_addresses(connection));
    *connection.writer.out() = proxy_v2_header(addresses, &caller);
    let sent = connection.writer.send(Tail::default()).await;
    sent.map_err(|error| {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a callee took no introduction"
        );
        CalleeFault::Gone { begun: false }
    })
}

fn own_addresses(connection: &Connection) -> Option<Addresses> {
    let Some(Socket::Tcp(stream)) = connection.reader.io().socket() else {
        return None;
    };
    let (from, to) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
    Some(Addresses { from, to })
}
