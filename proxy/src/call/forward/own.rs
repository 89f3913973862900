//! The way to a bot that opens its own mutual TLS, with its own SVID, at its endpoints.
//!
//! The caller's proxy is the only one on the way: it decides, counts limits and records, and verifies that the bot answers
//! and nobody else. The bot reads who calls from the certificate of the connection, which is the caller's.

use std::sync::Arc;

use audit::Receipt;
use policy::{Endpoint, Permit};
use spiffe_tls::Svid;

use super::super::draft::Draft;
use super::super::end::End;
use super::super::identify::Who;
use super::super::normalize::Rest;
use super::super::refusal::Refusal;
use super::super::route::Route;
use super::Came;
use super::across::{Across, Answerer, across};
use crate::http1::deadline::Deadline;
use crate::reason::Reason;

/// Finds where the bot can be reached, and carries the call there.
pub(super) async fn onward(
    draft: &Draft,
    who: &Who,
    (svid, endpoints): (Arc<Svid>, Vec<Endpoint>),
    (permit, receipt, rest): (Permit, Receipt, Rest<Arc<Route>>),
    (end, patience): (&End, &mut Deadline),
) -> Result<Came, Box<Refusal>> {
    if permit.call().http().is_some_and(|ask| ask.upgrade.is_some()) {
        // HTTP/2 has no upgrade (RFC 9113 §8.6); between proxies a field of ours stands for it.
        let detail = "it opens its own TLS, over which no upgrade is carried";
        return Err(Refusal::boxed(Reason::PeerUnreachable, detail));
    }
    let addresses = draft.proxy().callees.addresses(&endpoints).await.map_err(|error| {
        tracing::info!(callee = %rest.to.bot, error = &error as &dyn std::error::Error, "no endpoint has an address");
        Refusal::boxed(Reason::PeerUnreachable, "none of its endpoints has an address")
    })?;
    let towards = Across {
        who,
        svid,
        addresses,
        peer: Answerer::Callee,
        admitted: end.admitted(),
    };
    across(draft, permit, receipt, rest, towards, patience).await
}
