//! Tells the CA of refused calls, for those who look at the whole mesh. The ledger has them all; the CA gets a few a
//! second and the number of the others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use audit::Direction;
use ca_api::observation::{DENIED, DeniedCall, PATH_BYTES_MAX};
use policy::RuleId;
use tokio::time::Instant;

use super::draft::Draft;
use super::refusal::Refusal;
use super::route::Called;

/// Refused calls that are told in a second.
const PER_SECOND: u32 = 20;

/// When the second began, and how many were told in it.
static TOLD: Mutex<Option<(Instant, u32)>> = Mutex::new(None);

/// Tells of a refused call, if it is about a bot of this host: the CA believes nothing else.
pub(super) fn denied(draft: &Draft, refusal: &Refusal) {
    let (record, series) = (&draft.record, &draft.series);
    let called = series.to.as_ref().and_then(Called::bot);
    let own = match record.direction {
        Direction::Out => series.from.as_ref(),
        Direction::In => called,
    };
    if own.is_none() {
        return;
    }
    let control = &draft.proxy().control;
    if !due(&mut TOLD.lock().unwrap_or_else(PoisonError::into_inner), Instant::now()) {
        control.leave_out_event();
        return;
    }
    let known = |bot: &&spiffe::id::BotName| draft.snapshot.mesh.bots().contains_key(*bot);
    let path = record.path.get(..record.path.floor_char_boundary(PATH_BYTES_MAX));
    let call = DeniedCall {
        call: record.id.to_string(),
        direction: record.direction.as_str().to_owned(),
        from: series.from.as_ref().filter(known).cloned(),
        to: called.filter(known).cloned(),
        outside: match &series.to {
            Some(Called::Outside(named)) => Some(named.to_string()),
            Some(Called::Bot(_)) | None => None,
        },
        method: record.method.clone(),
        path: path.unwrap_or_default().to_owned(),
        reason: refusal.reason.as_str().to_owned(),
        rule: refusal.rule.as_ref().map(|rule| RuleId::as_str(rule).to_owned()),
        nearest: refusal.nearest.as_ref().map(|nearest| nearest.rule.as_str().to_owned()),
    };
    match serde_json::to_string(&call) {
        Ok(json) => control.send_event(DENIED, json),
        Err(error) => tracing::error!(%error, "a refused call cannot be told"),
    }
}

fn due(told: &mut Option<(Instant, u32)>, now: Instant) -> bool {
    match told {
        Some((began, count)) if now.duration_since(*began) < Duration::from_secs(1) => {
            *count = count.saturating_add(1);
            *count <= PER_SECOND
        }
        _ => {
            *told = Some((now, 1));
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_a_second_are_told() {
        let (mut told, start) = (None, Instant::now());
        let first = (0..100).filter(|_| due(&mut told, start)).count();
        assert_eq!(first, 20);
        assert!(due(&mut told, start + Duration::from_secs(1)));
    }
}
