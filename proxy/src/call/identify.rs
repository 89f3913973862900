//! Step 2: the caller has a name: the kernel's word for a bot of this host, or a verified SVID of a peer.

use std::sync::Arc;

use audit::{Actor, Party};
use http::HeaderValue;
use spiffe::id::{BotName, SpiffeId};
use spiffe::selector::Facts;

use super::draft::Draft;
use super::refusal::Refusal;
use super::route::Route;
use crate::attest::{Caller, Unattested};
use crate::metrics::Way;
use crate::places::OfCaller;
use crate::proven::Proven;
use crate::reason::{Reason, Side};
use crate::tcp::Addresses;

/// A named caller, with everything that is the same for all its calls on one connection.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) bot: BotName,
    pub(crate) id: SpiffeId,
    /// The ID as the callee reads it.
    pub(crate) header: HeaderValue,
    pub(crate) facts: Option<Arc<Facts>>,
    /// What a peer has proved on its connection.
    pub(crate) proven: Option<Arc<Proven>>,
    /// The places that it has taken among the calls of the process.
    pub(crate) places: Arc<OfCaller>,
}

/// Whose connection it is.
#[derive(Debug)]
pub(crate) enum Door {
    /// A bot of this host.
    Bot {
        /// Held to what was attested.
        caller: Caller,
        /// Its name.
        who: Who,
    },
    /// A local process that is no bot.
    Nobody(Nobody),
    /// Another proxy, or a foreign peer, with the SVID of a bot.
    Peer {
        /// Whose SVID.
        who: Who,
        /// The SVIDs of both ends, as of now; with the peer's ends every right on this connection.
        proven: Arc<Proven>,
        /// The bot whose certificate was asked for.
        to: Arc<Route>,
        /// Where the connection came from and where to.
        addresses: Option<Addresses>,
        /// Version and key exchange of the session, as records tell them.
        tls: Option<Arc<str>>,
    },
}

/// A local process that is no bot.
#[derive(Debug)]
pub(crate) struct Nobody {
    /// Why not.
    pub(crate) unattested: Unattested,
}

impl Door {
    pub(crate) const fn side(&self) -> Side {
        match self {
            Self::Bot { .. } | Self::Nobody(_) => Side::Bots,
            Self::Peer { .. } => Side::Mesh,
        }
    }

    /// The process that calls, of a bot of this host.
    pub(super) const fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Bot { caller, .. } => Some(caller),
            Self::Nobody(_) | Self::Peer { .. } => None,
        }
    }

    /// Who calls, as far as the connection says.
    pub(super) const fn who(&self) -> Option<&Who> {
        match self {
            Self::Bot { who, .. } | Self::Peer { who, .. } => Some(who),
            Self::Nobody(_) => None,
        }
    }

    pub(super) const fn way(&self) -> Way {
        match self.side() {
            Side::Bots => Way::Out,
            Side::Mesh => Way::In,
        }
    }
}

/// Says who calls, as of now.
pub(super) fn identify<'a>(draft: &mut Draft, door: &'a Door) -> Result<&'a Who, Box<Refusal>> {
    match door {
        Door::Nobody(Nobody { unattested }) => {
            draft.record.from.facts = unattested.facts.as_deref().cloned().map(Arc::new);
            Err(Refusal::unattested(unattested))
        }
        Door::Bot { caller, who } => {
            name(draft, who);
            caller.recheck().map_err(|unattested| {
                // Whoever holds the connection now, it is not the bot that would otherwise stand in the record.
                draft.record.actor = Actor::Unknown;
                draft.record.from.id = None;
                draft.series.from = None;
                tracing::info!(bot = %who.bot, why = %unattested, "a caller is nobody any more");
                Refusal::unattested(&unattested)
            })?;
            Ok(who)
        }
        Door::Peer { who, proven, tls, .. } => {
            name(draft, who);
            draft.record.tls.clone_from(tls);
            // Read once: what is decided, recorded and told to the callee is of one SVID.
            let shown = proven.peer();
            draft.record.from.serial = Some(shown.serial);
            let valid = draft.now < shown.not_after && proven.holds(draft.now);
            draft.shown = Some(shown);
            if valid {
                return Ok(who);
            }
            let mut refusal = Refusal::boxed(Reason::UnknownCaller, "the SVID of this connection has ended");
            refusal.last = true;
            Err(refusal)
        }
    }
}

fn name(draft: &mut Draft, who: &Who) {
    draft.record.actor = Actor::Bot;
    draft.record.from = Party {
        id: Some(who.id.clone()),
        serial: None,
        facts: who.facts.clone(),
    };
    draft.series.from = Some(who.bot.clone());
}
