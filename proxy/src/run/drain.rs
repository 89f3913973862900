//! The end of the process: nothing new is taken, what is under way is finished, and what does not end is cut and recorded.
//!
//! Connections that nobody has accepted stay with the listening socket, for the next process where a service manager holds
//! it. Those that were accepted are served: a caller may have sent its request already.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::proxy::Proxy;
use crate::reason::Reason;

/// How often connections to other proxies are looked through, and how long one must have been idle.
const TICK: Duration = Duration::from_millis(50);

/// How long calls that were cut have to write down their end.
const CUT: Duration = Duration::from_secs(1);

/// Ends the tasks of the data path.
pub(super) async fn drain(proxy: &Arc<Proxy>) {
    proxy.closing.cancel();
    proxy.tasks.close();
    if ended(proxy, proxy.bounds.drain).await {
        return;
    }
    proxy.cutting.store(true, Ordering::Release);
    let cut = proxy.live.end_all(Reason::Overloaded);
    tracing::warn!(cut, "calls that did not end in time were cut off");
    if !ended(proxy, CUT).await {
        tracing::warn!(tasks = proxy.tasks.len(), "connections were left where they are");
    }
}

/// Waits until every task has ended, for this long at most.
async fn ended(proxy: &Proxy, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        // A call that comes late on a connection of a bot still finds one to the callee's proxy.
        proxy.pool.close_idle(TICK);
        if timeout(TICK, proxy.tasks.wait()).await.is_ok() {
            return true;
        }
    }
    false
}
