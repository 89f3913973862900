//! Step 5: the decision is in the ledger before anything leaves.

use audit::{Hop, Receipt, Verdict};
use policy::Permit;

use super::body::RequestCount;
use super::draft::Draft;
use super::end::{End, Half};
use super::refusal::Refusal;
use crate::reason::Reason;

/// Records a call that may be carried, and makes what will record its end.
pub(super) fn record(
    draft: &mut Draft,
    permit: &Permit,
    hop: Hop,
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
    let receipt = draft.proxy().ledger.call(&draft.record).map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "a call could not be recorded and was not made"
        );
        Refusal::boxed(
            Reason::LedgerUnavailable,
            "an operator finds the cause in the proxy's log",
        )
    });
    let receipt = receipt.inspect_err(|_refused| {
        draft.record.verdict = Verdict::Deny;
        draft.record.rule = None;
        draft.record.nearest = None;
        draft.record.hop = None;
    })?;
    draft.recorded = true;
    draft.series.rule = permit.rule().cloned();
    let half = Half {
        id: draft.record.id,
        series: draft.series.clone(),
    };
    let slot = draft.take_slot();
    let end = End::new(draft.proxy(), slot, half, draft.started, request);
    Ok((receipt, end))
}
