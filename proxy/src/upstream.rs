//! What this process knows of the callees of its calls: where they can be reached and how well, how many calls are under
//! way, and whether calls to them fail.
//!
//! What decides whether a caller is let through (the breaker, the budget of retries) is of one caller and one callee:
//! what one bot provokes must not shut another one out. What is known of an endpoint is shared, for it does not depend
//! on who calls. The path of a call takes no lock here: it reads snapshots and counts.

mod breaker;
mod budget;
mod ejection;
mod endpoint;
mod ewma;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use policy::Mesh;
use spiffe::id::BotName;
use tokio::time::Instant;

pub(crate) use endpoint::{Endpoint, Endpoints, Mask};

use crate::call::Called;
use crate::known::Known;
use crate::metrics::Way;
use crate::places::most_of_one;
use breaker::{Breaker, Pass};
use budget::Budget;

/// Failures in a row after which a breaker opens, where the mesh says nothing.
pub(crate) const FAILURES_MOST: u32 = 5;

/// Calls of one caller that wait for one connection to one address, where the mesh says nothing.
pub(crate) const PENDING_MOST: usize = 1_024;

/// All callees.
#[derive(Debug)]
pub(crate) struct Upstreams {
    started: Instant,
    random: AtomicU64,
    /// Called by bots of this host.
    called: Known<Called, Upstream>,
    /// Bots of this host that are called.
    serving: Known<Called, Upstream>,
}

/// One callee, in one direction.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    endpoints: ArcSwap<Endpoints>,
    in_flight: AtomicUsize,
    callers: Known<BotName, Pair>,
    counts: Counts,
}

/// One caller of one callee.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    in_flight: AtomicUsize,
    breaker: Breaker,
    budget: Budget,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) retried: AtomicU64,
    pub(crate) not_retried: AtomicU64,
    pub(crate) ejected: AtomicU64,
    pub(crate) opened: AtomicU64,
}

/// The bounds of the calls to one callee.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CalleeBounds {
    /// Calls under way.
    pub(crate) in_flight: usize,
    /// Failures in a row; 0 for any number.
    pub(crate) failures: u32,
}

/// Why a call was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// Too many calls to the callee are under way.
    Full,
    /// Too many of them are this caller's.
    FullOfCaller,
    /// Its calls failed; for how long none is made.
    Open(Duration),
}

/// A call that was let through. Dropped, it gives its place to another.
#[derive(Debug)]
pub(crate) struct Admitted {
    upstream: Arc<Upstream>,
    pair: Arc<Pair>,
    pass: Pass,
    failures: u32,
    tries: AtomicU32,
}

/// An endpoint in use by one call, from the first byte to the last.
#[derive(Debug)]
pub(crate) struct Using {
    endpoint: Arc<Endpoint>,
    started: Instant,
    began: Duration,
    answered: bool,
}

impl Upstreams {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            started: Instant::now(),
            random: AtomicU64::new(seed),
            called: Known::default(),
            serving: Known::default(),
        }
    }

    /// How long the process has run: the time of everything here.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// A number that nobody need be unable to guess.
    pub(crate) fn random(&self) -> u64 {
        mix(self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }

    pub(crate) fn of(&self, way: Way, called: &Called) -> Arc<Upstream> {
        self.all(way).of(called)
    }

    fn all(&self, way: Way) -> &Known<Called, Upstream> {
        match way {
            Way::Out => &self.called,
            Way::In => &self.serving,
        }
    }

    /// Every callee by its name.
    pub(crate) fn each(&self, way: Way) -> Vec<(Called, Arc<Upstream>)> {
        self.all(way).each()
    }

    pub(crate) fn using(&self, endpoint: &Arc<Endpoint>) -> Using {
        endpoint.begin();
        Using {
            endpoint: Arc::clone(endpoint),
            started: self.started,
            began: self.now(),
            answered: false,
        }
    }

    /// Forgets bots and destinations outside that are gone, once nothing is under way to them or by them.
    pub(crate) fn sweep(&self, mesh: &Mesh) {
        let is_there = |bot: &BotName| mesh.bots().contains_key(bot);
        let named = mesh.outside_names();
        let is_named = |called: &Called| match called {
            Called::Bot(bot) => is_there(bot),
            Called::Outside(name) => named.contains(&**name),
        };
        for way in [Way::Out, Way::In] {
            self.all(way).keep(is_named);
            for (_, upstream) in self.all(way).each() {
                upstream.callers.keep(is_there);
            }
        }
    }
}

/// Spreads the bits of a number (SplitMix64).
const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Upstream {
    /// Its endpoints, which are at these addresses now.
    pub(crate) fn endpoints(&self, addresses: &[SocketAddr]) -> Arc<Endpoints> {
        let known = self.endpoints.load_full();
        if known.is_of(addresses) {
            return known;
        }
        self.endpoints.rcu(|known| known.with(addresses));
        self.endpoints.load_full()
    }

    /// The endpoints as they were used last.
    pub(crate) fn known_endpoints(&self) -> Arc<Endpoints> {
        self.endpoints.load_full()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Callers for whom the breaker is open, and for how long.
    pub(crate) fn open(&self, now: Duration) -> Vec<(BotName, Duration)> {
        let open = |(caller, pair): (BotName, Arc<Pair>)| Some((caller, pair.breaker.open_for(now)?));
        self.callers.each().into_iter().filter_map(open).collect()
    }

    /// Lets a call of `from` through, if there is room and calls succeed.
    pub(crate) fn admit(
        self: &Arc<Self>,
        from: &BotName,
        bounds: CalleeBounds,
        now: Duration,
    ) -> Result<Admitted, Shut> {
        let pair = self.callers.of(from);
        // Counted first and looked at afterwards, so that two that come at once do not both take the last place.
        let (all, own) = (
            self.in_flight.fetch_add(1, Ordering::Relaxed),
            pair.in_flight.fetch_add(1, Ordering::Relaxed),
        );
        let mut admitted = Admitted {
            upstream: Arc::clone(self),
            pair,
            pass: Pass::Usual,
            failures: bounds.failures,
            tries: AtomicU32::new(0),
        };
        if all >= bounds.in_flight {
            return Err(Shut::Full);
        }
        if own >= most_of_one(bounds.in_flight) {
            return Err(Shut::FullOfCaller);
        }
        admitted.pass = admitted.pair.breaker.admit(now).map_err(Shut::Open)?;
        admitted.pair.budget.called();
        Ok(admitted)
    }

    /// Notes that an endpoint could not be connected to.
    pub(crate) fn eject(&self, endpoint: &Endpoint, now: Duration, random: u64) {
        if endpoint.failed(now, random) {
            self.counts.ejected.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(address = %endpoint.address, "an endpoint cannot be connected to and is left out for a while");
        }
    }

    /// Notes that an endpoint was connected to.
    pub(crate) fn connected(&self, endpoint: &Endpoint) {
        if endpoint.worked() {
            tracing::info!(address = %endpoint.address, "an endpoint can be connected to again");
        }
    }
}

impl Admitted {
    pub(crate) const fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Notes that the call is tried, and has been so often.
    pub(crate) fn tried(&self) {
        self.tries.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was tried.
    pub(crate) fn tries(&self) -> u32 {
        self.tries.load(Ordering::Relaxed)
    }

    /// Takes a retry out of the caller's budget, if there is one left.
    pub(crate) fn may_retry(&self, now: Duration) -> bool {
        let may = self.pair.budget.take(now);
        let counts = &self.upstream.counts;
        let counter = if may { &counts.retried } else { &counts.not_retried };
        counter.fetch_add(1, Ordering::Relaxed);
        may
    }

    /// Notes that the callee answered.
    pub(crate) fn worked(&self) {
        self.pair.breaker.worked();
    }

    /// Notes that the callee could not be reached or did not answer. Says whether the breaker opened.
    pub(crate) fn failed(&self, now: Duration) -> bool {
        let opened = self.pair.breaker.failed(now, self.pass, self.failures);
        if opened {
            self.upstream.counts.opened.fetch_add(1, Ordering::Relaxed);
        }
        opened
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.upstream.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.pair.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Using {
    /// Notes that there is a connection and the call is sent: how long that took says nothing of the next call.
    pub(crate) fn sent(&mut self) {
        self.began = self.started.elapsed();
    }

    /// Notes that the head of the answer is there.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
        let now = self.started.elapsed();
        self.endpoint.answered(now, now.saturating_sub(self.began));
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.endpoint.end();
        if !self.answered {
            // However it ended, it took at least this long.
            let now = self.started.elapsed();
            self.endpoint.given_up(now, now.saturating_sub(self.began));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: CalleeBounds = CalleeBounds {
        in_flight: 8,
        failures: 3,
    };

    fn bot(name: &str) -> BotName {
        BotName::parse(name).unwrap()
    }

    fn called(name: &str) -> Called {
        bot(name).into()
    }

    fn upstreams() -> Upstreams {
        Upstreams::new(7)
    }

    #[test]
    fn a_callee_has_so_many_places_and_one_caller_never_takes_the_last_quarter() {
        let orders = upstreams().of(Way::Out, &called("prod/orders"));
        let (one, other) = (bot("prod/one"), bot("prod/other"));
        let admit = |from| orders.admit(from, BOUNDS, Duration::ZERO);
        let mut taken: Vec<_> = (0..6).map(|_| admit(&one).unwrap()).collect();
        assert_eq!(admit(&one).unwrap_err(), Shut::FullOfCaller);
        taken.extend((0..2).map(|_| admit(&other).unwrap()));
        assert_eq!(admit(&other).unwrap_err(), Shut::Full);
        assert_eq!(orders.in_flight(), 8, "what was refused takes no place");
        drop(taken.pop());
        taken.push(admit(&other).unwrap());
        drop(taken);
        assert_eq!(orders.in_flight(), 0);
        assert!(admit(&one).is_ok());
    }

    #[test]
    fn what_one_caller_provokes_shuts_no_other_out() {
        let orders = upstreams().of(Way::Out, &called("prod/orders"));
        let (one, other) = (bot("prod/one"), bot("prod/other"));
        let opened: Vec<_> = (0..3)
            .map(|_| {
                orders
                    .admit(&one, BOUNDS, Duration::ZERO)
                    .unwrap()
                    .failed(Duration::ZERO)
            })
            .collect();
        assert_eq!(opened, [false, false, true]);
        let shut = orders.admit(&one, BOUNDS, Duration::ZERO).unwrap_err();
        assert_eq!(shut, Shut::Open(Duration::from_secs(1)));
        assert_eq!(orders.in_flight(), 0);
        assert!(orders.admit(&other, BOUNDS, Duration::ZERO).is_ok());
        assert_eq!(orders.open(Duration::ZERO), [(one, Duration::from_secs(1))]);
    }

    #[test]
    fn the_two_directions_count_apart() {
        let (upstreams, orders, one) = (upstreams(), called("prod/orders"), bot("prod/one"));
        let taken = upstreams.of(Way::Out, &orders).admit(&one, BOUNDS, Duration::ZERO);
        assert_eq!(upstreams.of(Way::Out, &orders).in_flight(), 1);
        assert_eq!(upstreams.of(Way::In, &orders).in_flight(), 0);
        drop(taken);
    }

    #[tokio::test(start_paused = true)]
    async fn the_latency_of_an_endpoint_is_the_time_to_the_head_of_an_answer_or_to_giving_up() {
        let upstreams = upstreams();
        let endpoints = Endpoints::default().with(&[([10, 0, 0, 1], 1).into()]);
        let (_, endpoint) = endpoints.choose(Mask::default(), upstreams.now(), 0).unwrap();
        let mut using = upstreams.using(endpoint);
        assert_eq!(endpoint.in_flight(), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        using.sent();
        tokio::time::advance(Duration::from_millis(40)).await;
        using.answered();
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(using);
        assert_eq!(endpoint.in_flight(), 0);
        let latency = endpoint.latency(upstreams.now());
        assert!(
            latency < Duration::from_millis(41),
            "a long answer is not a late one: {latency:?}"
        );
        let using = upstreams.using(endpoint);
        tokio::time::advance(Duration::from_secs(5)).await;
        drop(using);
        assert_eq!(endpoint.latency(upstreams.now()), Duration::from_secs(5));
    }
}
