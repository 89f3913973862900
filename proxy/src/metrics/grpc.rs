//! Calls of gRPC by the status that they ended with.

use prometheus::{Error, IntCounter};

use super::Way;
use super::make::Maker;
use crate::grpc::Status;

/// The counters of both ways.
#[derive(Debug)]
pub(super) struct GrpcCalls {
    out: Statuses,
    r#in: Statuses,
}

/// One counter for each status, and one for calls that ended without.
#[derive(Debug)]
struct Statuses {
    of: Vec<IntCounter>,
    none: IntCounter,
}

impl GrpcCalls {
    pub(super) fn new(make: Maker<'_>) -> Result<Self, Error> {
        let calls = make.counters(
            "botmesh_grpc_calls_total",
            "Calls of gRPC that were carried, by the status that they ended with.",
            &["direction", "grpc_status"],
        )?;
        let all = |way: Way| Statuses {
            of: Status::all()
                .map(|status| calls.with_label_values(&[way.as_str(), status.as_str()]))
                .collect(),
            none: calls.with_label_values(&[way.as_str(), "none"]),
        };
        Ok(Self {
            out: all(Way::Out),
            r#in: all(Way::In),
        })
    }

    pub(super) fn count(&self, way: Way, status: Option<Status>) {
        let statuses = match way {
            Way::Out => &self.out,
            Way::In => &self.r#in,
        };
        let of = |status: Status| statuses.of.get(usize::from(status.number()));
        status.and_then(of).unwrap_or(&statuses.none).inc();
    }
}
