//! Step 1: the call has an id, and there is room for it.

use std::sync::Arc;

use super::draft::Draft;
use super::id::{self, NoRandomness};
use super::identify::Door;
use super::refusal::Refusal;
use crate::proxy::{Proxy, Slot};
use crate::reason::Reason;

/// Begins a call.
pub(super) fn begin(proxy: &Arc<Proxy>, door: &Door) -> Result<Draft, NoRandomness> {
    let now = proxy.control.now();
    Ok(Draft::new(proxy, Slot::take(proxy), door.way(), id::mint(now)?, now))
}

/// Refuses a call that found no room.
pub(super) fn accept(draft: &Draft) -> Result<(), Box<Refusal>> {
    if draft.has_slot() {
        Ok(())
    } else {
        Err(Refusal::boxed(Reason::Overloaded, "try again a little later"))
    }
}
