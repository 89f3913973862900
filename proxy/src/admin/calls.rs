//! What operators are told of calls under way and of callees.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ca_api::proxy_admin::{CalleeCalls, Calls, EndpointCalls, ShutOut};

use crate::call::Called;
use crate::metrics::Way;
use crate::proxy::Proxy;
use crate::upstream::{Endpoint, Upstream};

/// Tells how calls are.
pub(super) fn calls(proxy: &Proxy) -> Calls {
    let now = proxy.upstreams.now();
    let refused = proxy.places.refused();
    let callees = proxy.upstreams.each(Way::Out).into_iter();
    Calls {
        in_flight: number(proxy.places.taken()),
        most: number(proxy.places.most()),
        shed: refused
            .map(|(bound, count)| (bound.as_str().to_owned(), count))
            .collect(),
        callees: callees
            .map(|(called, upstream)| callee(&called, &upstream, now))
            .collect(),
    }
}

fn callee(called: &Called, upstream: &Upstream, now: Duration) -> CalleeCalls {
    let counts = upstream.counts();
    let shut_out = upstream.open(now).into_iter().map(|(from, left)| ShutOut {
        from,
        for_ms: millis(left),
    });
    CalleeCalls {
        bot: called.bot().cloned(),
        outside: called.bot().is_none().then(|| called.to_string()),
        in_flight: number(upstream.in_flight()),
        endpoints: upstream
            .known_endpoints()
            .iter()
            .map(|one| endpoint(one, now))
            .collect(),
        shut_out: shut_out.collect(),
        retried: counts.retried.load(Ordering::Relaxed),
        not_retried: counts.not_retried.load(Ordering::Relaxed),
        ejected: counts.ejected.load(Ordering::Relaxed),
        opened: counts.opened.load(Ordering::Relaxed),
    }
}

fn endpoint(endpoint: &Endpoint, now: Duration) -> EndpointCalls {
    EndpointCalls {
        address: endpoint.address.to_string(),
        in_flight: number(endpoint.in_flight()),
        latency_us: u64::try_from(endpoint.latency(now).as_micros()).unwrap_or(u64::MAX),
        failures: endpoint.failures(),
        left_out_ms: endpoint.out_for(now).map(millis),
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
