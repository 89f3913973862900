//! Step 4, at the callee's proxy: limits count what may be carried.

use std::time::Duration;

use policy::Permit;
use spiffe::id::BotName;

use super::draft::Draft;
use super::refusal::Refusal;
use crate::reason::Reason;

/// Counts the call, once: the caller's proxy does not ask.
pub(super) fn admit(draft: &Draft, permit: &Permit, from: &BotName) -> Result<(), Box<Refusal>> {
    let policy = &draft.snapshot.policy;
    let admitted = draft.proxy().limiter.admit(policy, permit.call(), from, draft.now);
    admitted.map_err(|limited| {
        let seconds = whole_seconds(limited.spent.wait);
        let mut refusal = Refusal::boxed(Reason::RateLimited, format!("a call will be admitted in {seconds} s"));
        refusal.rule = Some(limited.limit);
        refusal.retry_after = Some(seconds);
        refusal
    })
}

/// RFC 9110 §10.2.3 has whole seconds. Rounded up: whoever comes back then is admitted.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds_of_which_none_is_too_few() {
        let told = [1, 999, 1_000, 1_001].map(|millis| whole_seconds(Duration::from_millis(millis)));
        assert_eq!(told, [1, 1, 1, 2]);
    }
}
