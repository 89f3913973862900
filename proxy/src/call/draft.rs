//! What is known of a call so far, in the form in which it will be recorded.

use std::sync::Arc;

use audit::{CallId, CallRecord, Direction};
use policy::{Destination, Protocol};
use spiffe::time::Timestamp;
use tokio::time::Instant;

use super::route::To;
use crate::control::Snapshot;
use crate::metrics::{SeriesKey, Way};
use crate::places::{Bound, Place};
use crate::proven::Shown;
use crate::proxy::Proxy;

/// A call in the making. The record in it is written once, as an allowed call or as a refusal.
#[derive(Debug)]
pub(super) struct Draft {
    place: Result<Option<Place>, Bound>,
    proxy: Arc<Proxy>,
    /// Decided by this, whatever comes meanwhile.
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) now: Timestamp,
    pub(super) started: Instant,
    pub(super) record: CallRecord,
    /// What the caller asks to switch to.
    pub(super) upgrade: Option<Protocol>,
    /// Whether its path is noted as a hash, because a rule may say so.
    pub(super) hidden: bool,
    /// Whether its address looks as if a key were in it: nothing of that is noted anywhere.
    pub(super) hushed: bool,
    /// Whether its caller reads answers as a client of gRPC does.
    pub(super) grpc: bool,
    /// The SVID that a peer calls by.
    pub(super) shown: Option<Arc<Shown>>,
    /// Whether the record was written as an allowed call.
    pub(super) recorded: bool,
    pub(super) series: SeriesKey,
}

impl Draft {
    pub(super) fn new(proxy: &Arc<Proxy>, place: Result<Place, Bound>, way: Way, id: CallId, now: Timestamp) -> Self {
        let snapshot = proxy.control.snapshot();
        let generation = snapshot.generation;
        let direction = match way {
            Way::Out => Direction::Out,
            Way::In => Direction::In,
        };
        let record = CallRecord {
            epoch: generation.epoch,
            revision: generation.revision,
            ..CallRecord::new(id, now, direction)
        };
        let series = SeriesKey {
            way,
            from: None,
            to: None,
            rule: None,
            denied: None,
            class: 0,
        };
        let (proxy, started) = (Arc::clone(proxy), Instant::now());
        Self {
            place: place.map(Some),
            proxy,
            snapshot,
            now,
            started,
            record,
            upgrade: None,
            hidden: false,
            hushed: false,
            grpc: false,
            shown: None,
            recorded: false,
            series,
        }
    }

    pub(super) const fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// What had no room for the call, if something had none.
    pub(super) fn no_room(&self) -> Option<Bound> {
        self.place.as_ref().err().copied()
    }

    /// Notes whether the call is one of gRPC.
    pub(super) const fn speaks_grpc(&mut self, grpc: bool) {
        self.grpc = grpc;
        if grpc {
            self.record.protocol = audit::Protocol::Grpc;
        }
    }

    /// Hands the place to whoever lasts until the call's last byte.
    pub(super) fn take_place(&mut self) -> Option<Place> {
        self.place.as_mut().ok().and_then(Option::take)
    }

    /// Names the callee in the record, and if it exists in the metrics: other names are the caller's invention.
    pub(super) fn meant(&mut self, to: &To) {
        match to {
            To::Bot(route) => {
                self.record.to.id = Some(route.id.clone());
                if !self.snapshot.mesh.bots().contains_key(&route.bot) {
                    return;
                }
            }
            To::Outside(route) => self.record.to.outside = Some(route.outside.to_string()),
        }
        self.series.to = Some(to.called().clone());
    }

    /// What the mesh says of a callee.
    pub(super) fn waits(&self, to: &To) -> Destination {
        match to {
            To::Bot(route) => self.snapshot.mesh.destination(&route.bot),
            To::Outside(route) => {
                let said = self.snapshot.mesh.outside_destination(&route.outside);
                said.map(|said| said.waits).unwrap_or_default()
            }
        }
    }
}
