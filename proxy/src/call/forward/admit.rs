//! Whether there is room for a call on the way to its callee, and what is learned from how it went.

use http::StatusCode;
use policy::Destination;
use spiffe::id::BotName;

use super::super::accept;
use super::super::draft::Draft;
use super::super::identify::Who;
use super::super::limit::whole_seconds;
use super::super::refusal::Refusal;
use super::super::route::To;
use crate::metrics::Way;
use crate::places::{Bound, most_of_one};
use crate::reason::Reason;
use crate::seldom::Seldom;
use crate::upstream::{Admitted, CalleeBounds, FAILURES_MOST, PENDING_MOST, Shut};

/// A callee that is down must not fill the log.
static OPENED: Seldom = Seldom::new();

/// How a call went.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// An answer came; `denied` where the callee's proxy wrote it.
    Answered {
        /// Its status.
        status: StatusCode,
        /// Whether it is a refusal.
        denied: bool,
    },
    /// None came.
    Failed(Reason),
}

/// Lets a call through to its callee, or refuses it.
pub(super) fn admit(draft: &Draft, way: Way, from: &BotName, to: &To) -> Result<Admitted, Box<Refusal>> {
    let proxy = draft.proxy();
    let said = draft.waits(to);
    let bounds = CalleeBounds {
        // One callee that hangs does not take all places of the process, either.
        in_flight: most(said.max_in_flight).unwrap_or_else(|| most_of_one(proxy.places.most())),
        failures: said.max_failures.unwrap_or(FAILURES_MOST),
    };
    let admitted = proxy
        .upstreams
        .of(way, to.called())
        .admit(from, bounds, proxy.upstreams.now());
    admitted.map_err(|shut| match shut {
        Shut::Full | Shut::FullOfCaller => accept::full(draft, Bound::Callee).to(to),
        Shut::Open(wait) => {
            let seconds = whole_seconds(wait);
            let detail = format!("its last calls there failed; one is made again in {seconds} s");
            let mut refusal = Refusal::boxed(Reason::BreakerOpen, detail).to(to);
            refusal.retry_after = Some(seconds);
            refusal
        }
    })
}

/// How many calls of one caller may wait for a connection.
pub(super) fn most_pending(said: &Destination) -> usize {
    most(said.max_pending).unwrap_or(PENDING_MOST)
}

fn most(said: Option<u32>) -> Option<usize> {
    said.map(|most| usize::try_from(most).unwrap_or(usize::MAX))
}

/// Learns from how a call went. Only the caller's proxy does: it is the one that stops calling.
pub(super) fn judge(draft: &Draft, who: &Who, to: &To, admitted: &Admitted, outcome: Outcome) {
    if draft.series.way == Way::In {
        return;
    }
    let failed = match outcome {
        // What a bot answers is its own business, whatever the status; what a proxy says of it is not.
        Outcome::Answered { status, denied } => denied && is_out_of_order(status),
        Outcome::Failed(Reason::PeerUnreachable | Reason::Timeout) => true,
        // The callee did nothing wrong, or is not what answered.
        Outcome::Failed(_) => return,
    };
    if !failed {
        admitted.worked();
    } else if admitted.failed(draft.proxy().upstreams.now())
        && let Some(left_out) = OPENED.due()
    {
        tracing::warn!(from = %who.bot, %to, left_out, "calls failed one after another: none is made for a while");
    }
}

/// Tells whether the callee's proxy says so that the callee does not answer, or that it takes no more.
fn is_out_of_order(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}
