//! Why a host gets no SVID or token for a bot.

use spiffe::id::BotName;

use super::caller::Caller;
use crate::core::Core;
use crate::refusals::HostRefusal;

/// What the host hears, what the ledger says, and a sentence for the host's operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused<R> {
    pub(super) refusal: R,
    pub(super) why: HostRefusal,
    pub(super) message: &'static str,
}

impl<R> Refused<R> {
    pub(super) const fn new(refusal: R, why: HostRefusal, message: &'static str) -> Self {
        Self { refusal, why, message }
    }
}

/// Whoever is cut off gets no identity and no token; `quarantined` is what the host hears then.
pub(super) fn refuse_quarantined<R>(
    core: &Core,
    caller: &Caller,
    bot: &BotName,
    quarantined: R,
) -> Result<(), Refused<R>> {
    let list = core.quarantines.list();
    let message = if list.has_host(&caller.host) {
        "this host is quarantined"
    } else if list.has_bot(bot) {
        "this bot is quarantined"
    } else {
        return Ok(());
    };
    Err(Refused::new(quarantined, HostRefusal::Quarantined, message))
}
