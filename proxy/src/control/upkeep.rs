//! What is kept on disk while the proxy runs, and what is said aloud when it changes:
//! the bots' SVIDs, the time, a clock that is wrong, a policy that is too old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use audit::EventKind;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::time::SKEW_MAX;
use super::vault;

/// How often the clock is looked at, by the monotonic clock: a wall clock that
/// stands or jumps must not keep this from seeing it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a disk that took no SVIDs is left in peace.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// What was said aloud already.
#[derive(Debug)]
struct Said {
    behind: bool,
    too_old: bool,
    /// When the last look was.
    looked: Instant,
}

/// Keeps what a restart needs until cancelled, and once more at the end.
pub(super) async fn run(shared: Arc<Shared>, cancel: CancellationToken) {
    let mut changes = shared.svids.changes();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = Said {
        behind: false,
        too_old: false,
        looked: Instant::now(),
    };
    let mut retry = None;
    loop {
        // Each wait is cancel safe: what was not written is still marked as changed.
        tokio::select! {
            () = cancel.cancelled() => break,
            _ = changes.changed() => retry = save_svids(&shared).await,
            _ = ticks.tick() => {
                look(&shared, &mut said);
                if let Some(time) = shared.time.to_save() {
                    shared.keep(move |files| files.save_time(&time)).await;
                }
                if retry.is_some_and(|at| Instant::now() >= at) {
                    retry = save_svids(&shared).await;
                }
            }
        }
    }
    if retry.is_some() || changes.has_changed().unwrap_or(true) {
        save_svids(&shared).await;
    }
    let time = shared.time.to_save_now();
    shared.keep(move |files| files.save_time(&time)).await;
}

/// When to try again, if it failed.
async fn save_svids(shared: &Arc<Shared>) -> Option<Instant> {
    let held = Arc::clone(shared);
    let kept = shared.keep(move |files| vault::save(&held, files)).await;
    (!kept).then(|| Instant::now() + RETRY_AFTER)
}

/// Says what has become wrong, or right again, since the last look.
fn look(shared: &Shared, said: &mut Said) {
    let passed = said.looked.elapsed();
    said.looked = Instant::now();
    shared.time.passed(passed);
    let behind = shared.time.behind() > SKEW_MAX;
    if behind && !said.behind {
        let (wall, now) = (shared.time.wall(), shared.time.now());
        tracing::warn!(%wall, seen = %now, "the clock of this host went back; its time goes on by the monotonic clock");
        alert(
            shared,
            "clock_went_back",
            BTreeMap::from([
                ("wall".to_owned(), Value::from(wall.to_string())),
                ("seen".to_owned(), Value::from(now.to_string())),
            ]),
        );
    }
    let too_old = shared.snapshot().has_slice() && shared.too_old(shared.time.now());
    if too_old && !said.too_old {
        tracing::error!(max = ?shared.config.max_policy_age, "the CA was not heard for too long: every call is refused until it is");
        let last = shared.time.last_heard().map(|heard| heard.to_string());
        alert(
            shared,
            "policy_too_old",
            BTreeMap::from([("ca_heard".to_owned(), Value::from(last))]),
        );
    }
    if said.too_old && !too_old {
        tracing::info!("the CA is heard again: calls are carried");
    }
    if (said.behind, said.too_old) != (behind, too_old) {
        (said.behind, said.too_old) = (behind, too_old);
        shared.touch();
    }
}

/// Puts an alert into the ledger.
pub(super) fn alert(shared: &Shared, what: &str, mut detail: BTreeMap<String, Value>) {
    detail.insert("what".to_owned(), Value::from(what));
    shared.record(EventKind::Alert, shared.node_id().to_string(), detail);
}
