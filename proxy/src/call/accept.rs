//! Step 1: the call has an id, and there is room for it.

use std::sync::Arc;

use super::draft::Draft;
use super::id::{self, NoRandomness};
use super::identify::Door;
use super::refusal::Refusal;
use crate::places::Bound;
use crate::proxy::Proxy;
use crate::reason::Reason;

/// Begins a call.
pub(super) fn begin(proxy: &Arc<Proxy>, door: &Door) -> Result<Draft, NoRandomness> {
    let now = proxy.control.now();
    let place = proxy.places.take(door.who().map(|who| &who.places));
    Ok(Draft::new(proxy, place, door.way(), id::mint(now)?, now))
}

/// Refuses a call that found no room.
pub(super) fn accept(draft: &Draft) -> Result<(), Box<Refusal>> {
    match draft.no_room() {
        None => Ok(()),
        Some(bound) => Err(full(draft, bound)),
    }
}

/// Refuses a call that there is no room for, and counts it.
pub(super) fn full(draft: &Draft, bound: Bound) -> Box<Refusal> {
    draft.proxy().places.refuse(bound);
    Refusal::boxed(Reason::Overloaded, bound.detail())
}
