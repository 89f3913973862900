//! Step 5: the decision is in the ledger before anything leaves.

use audit::{Hop, LedgerError, Receipt, Verdict};
use policy::Permit;

use super::body::RequestCount;
use super::draft::Draft;
use super::end::{End, Half};
use super::refusal::Refusal;
use super::turn;
use crate::reason::Reason;
use crate::seldom::Seldom;
use crate::upstream::Admitted;

/// A full disk must not be told of once a call, on the same disk perhaps.
static UNRECORDED: Seldom = Seldom::new();

/// Records a call that may be carried, and makes what will record its end.
pub(super) async fn record(
    draft: &mut Draft,
    permit: &Permit,
    (hop, admitted): (Hop, Admitted),
    request: RequestCount,
) -> Result<(Receipt, End), Box<Refusal>> {
    let record = &mut draft.record;
    record.verdict = if permit.audit().is_some() {
        Verdict::Audit
    } else {
        Verdict::Allow
    };
    record.rule = permit.rule().map(|rule| rule.as_str().to_owned());
    let nearest = permit.audit().and_then(|audit| audit.nearest.as_ref());
    record.nearest = nearest.map(|nearest| nearest.rule.as_str().to_owned());
    record.hop = Some(hop);
    let credential = draft.snapshot.mesh.credential_of(permit);
    record.credential = credential.map(|(name, _)| name.as_str().to_owned());
    let staged = draft.proxy().ledger.stage(&draft.record);
    let staged = staged.map_err(|error| undecide(draft, &error))?;
    let mut series = draft.series.clone();
    series.rule = permit.rule().cloned();
    let half = Half {
        id: draft.record.id,
        series,
        admitted,
    };
    let place = draft.take_place();
    // Made before the record is waited for: where nobody waits any more, the call has an end all the same.
    let mut end = End::new(draft.proxy(), place, half, draft.started, request);
    match turn::written(draft.proxy(), staged).await {
        Ok(receipt) => {
            draft.recorded = true;
            draft.series.rule = permit.rule().cloned();
            Ok((receipt, end))
        }
        Err(error) => {
            end.never_began();
            Err(undecide(draft, &error))
        }
    }
}

/// Makes a refusal of a call that the ledger did not take.
fn undecide(draft: &mut Draft, error: &LedgerError) -> Box<Refusal> {
    draft.record.verdict = Verdict::Deny;
    draft.record.rule = None;
    draft.record.nearest = None;
    draft.record.hop = None;
    draft.record.credential = None;
    unrecorded(error)
}

/// Refuses a call that the ledger did not take.
pub(super) fn unrecorded(error: &LedgerError) -> Box<Refusal> {
    if let Some(left_out) = UNRECORDED.due() {
        tracing::error!(
            left_out,
            error = error as &dyn std::error::Error,
            "a call could not be recorded and was not made"
        );
    }
    Refusal::boxed(
        Reason::LedgerUnavailable,
        "an operator finds the cause in the proxy's log",
    )
}
