//! The places where a callee can be reached, and which of them a call takes.
//!
//! Of two that are drawn at random the one is taken that costs less: its latency, times the calls that it has. Two
//! random ones are nearly as good as the best and never a stampede to it (power of two choices). One that could not be
//! connected to is left out for a while, but never all of them: the last one stays tried.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::ejection::{Ejection, Standing};
use super::ewma::PeakEwma;

/// Differences below this are noise.
const LATENCY_LEAST: Duration = Duration::from_micros(100);

/// The proxy of one host that serves a callee, as this process has come to know it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    in_flight: AtomicUsize,
    latency: PeakEwma,
    ejection: Ejection,
}

/// Which of at most 64 endpoints: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mask(u64);

/// All endpoints of a callee.
#[derive(Debug, Default)]
pub(crate) struct Endpoints(pub(super) Vec<Arc<Endpoint>>);

impl Endpoint {
    pub(super) const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            in_flight: AtomicUsize::new(0),
            latency: PeakEwma::new(),
            ejection: Ejection::new(),
        }
    }

    fn cost(&self, now: Duration) -> Duration {
        let calls = u32::try_from(self.in_flight()).unwrap_or(u32::MAX).saturating_add(1);
        self.latency(now).max(LATENCY_LEAST).saturating_mul(calls)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn latency(&self, now: Duration) -> Duration {
        self.latency.at(now)
    }

    /// How often it could not be connected to since it was last.
    pub(crate) fn failures(&self) -> u32 {
        self.ejection.failures()
    }

    /// For how long it is left out; nothing where it is used.
    pub(crate) fn out_for(&self, now: Duration) -> Option<Duration> {
        match self.ejection.at(now) {
            Standing::Used => None,
            Standing::Due => Some(Duration::ZERO),
            Standing::Out(until) => Some(until.saturating_sub(now)),
        }
    }

    /// Notes that it could not be connected to. Says whether it was used until now.
    pub(super) fn failed(&self, now: Duration, random: u64) -> bool {
        self.ejection.failed(now, random)
    }

    /// Notes that it was connected to. Says whether it was left out until now.
    pub(super) fn worked(&self) -> bool {
        self.ejection.worked()
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self, now: Duration, took: Duration) {
        self.latency.saw(now, took);
    }

    pub(super) fn given_up(&self, now: Duration, after: Duration) {
        self.latency.saw_at_least(now, after);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoints {
    /// Chooses one that is not among `tried`, if there is one.
    pub(crate) fn choose(&self, tried: Mask, now: Duration, random: u64) -> Option<(usize, &Arc<Endpoint>)> {
        let (mut used, mut due) = (Mask::default(), Mask::default());
        for (index, endpoint) in self.0.iter().enumerate() {
            match endpoint.ejection.at(now) {
                _ if tried.has(index) => {}
                Standing::Used => used.add(index),
                Standing::Due => due.add(index),
                Standing::Out(_) => {}
            }
        }
        // A trial costs its call the time that connecting takes, once in a while; without it nobody would ever come back.
        if let Some(index) = due.nth(random)
            && let Some(endpoint) = self.0.get(index)
            && endpoint.ejection.claim(now)
        {
            return Some((index, endpoint));
        }
        let at = |index: usize| self.0.get(index).map(|endpoint| (index, endpoint));
        if let Some((one, other)) = used.two(random) {
            let (one, other) = (at(one)?, at(other)?);
            return Some(if other.1.cost(now) < one.1.cost(now) {
                other
            } else {
                one
            });
        }
        // All are left out: the one that comes back first.
        let untried = self.0.iter().enumerate().filter(|(index, _)| !tried.has(*index));
        untried.min_by_key(|(_, endpoint)| endpoint.out_for(now))
    }

    /// The same for other addresses: those that stay keep what is known of them.
    pub(super) fn with(&self, addresses: &[SocketAddr]) -> Self {
        let known = |address: &SocketAddr| self.0.iter().find(|endpoint| endpoint.address == *address);
        let endpoint = |address| known(address).map_or_else(|| Arc::new(Endpoint::new(*address)), Arc::clone);
        Self(addresses.iter().map(endpoint).collect())
    }

    pub(super) fn is_of(&self, addresses: &[SocketAddr]) -> bool {
        self.0.iter().map(|endpoint| &endpoint.address).eq(addresses)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.0.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Mask {
    pub(crate) fn add(&mut self, index: usize) {
        self.0 |= bit(index);
    }

    pub(crate) fn has(self, index: usize) -> bool {
        self.0 & bit(index) != 0
    }

    fn count(self) -> u64 {
        self.0.count_ones().into()
    }

    /// The bit at `number`, counted round.
    fn nth(self, number: u64) -> Option<usize> {
        let mut left = self.0;
        for _ in 0..number.checked_rem(self.count())? {
            // Takes the lowest bit away.
            left &= left - 1;
        }
        usize::try_from(left.trailing_zeros()).ok()
    }

    /// Two bits, which are the same only where there is one. Halves of `random` choose them.
    fn two(self, random: u64) -> Option<(usize, usize)> {
        let (high, low) = (random >> 32, random & u64::from(u32::MAX));
        let one = self.nth(high)?;
        let others = Self(self.0 & !bit(one));
        Some((one, others.nth(low).unwrap_or(one)))
    }
}

/// No list of endpoints is longer than 64 (`control/snapshot.rs`); what is beyond has no bit.
fn bit(index: usize) -> u64 {
    u32::try_from(index)
        .ok()
        .and_then(|index| 1_u64.checked_shl(index))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn endpoints(count: u16) -> Endpoints {
        let addresses: Vec<_> = (1..=count)
            .map(|port| SocketAddr::from(([10, 0, 0, 1], port)))
            .collect();
        Endpoints::default().with(&addresses)
    }

    fn chosen(endpoints: &Endpoints, tried: Mask, now: Duration) -> Vec<usize> {
        let mut counts = vec![0; endpoints.len()];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..4_000 {
            random = super::super::mix(random);
            counts[endpoints.choose(tried, now, random).unwrap().0] += 1;
        }
        counts
    }

    #[test]
    fn equals_are_taken_equally_often() {
        let counts = chosen(&endpoints(4), Mask::default(), MS);
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn of_two_the_one_with_fewer_calls_or_faster_answers_is_taken() {
        let two = endpoints(2);
        two.0[0].begin();
        assert_eq!(chosen(&two, Mask::default(), MS), [0, 4_000]);
        two.0[1].answered(MS, 30 * MS);
        assert_eq!(
            chosen(&two, Mask::default(), MS),
            [4_000, 0],
            "two fast ones before a slow one"
        );
        two.0[0].end();
        // A slow one of three is only taken when it is drawn twice, which never happens.
        let three = endpoints(3);
        three.0[2].answered(MS, 500 * MS);
        assert_eq!(chosen(&three, Mask::default(), MS)[2], 0);
        assert!(
            chosen(&three, Mask::default(), 200_000 * MS)[2] > 1_000,
            "what was slow once is asked again"
        );
    }

    #[test]
    fn what_could_not_be_connected_to_is_left_out_but_never_all() {
        let three = endpoints(3);
        assert!(three.0[0].failed(MS, 0));
        assert_eq!(chosen(&three, Mask::default(), 2 * MS)[0], 0);
        three.0[1].failed(2 * MS, 0);
        three.0[2].failed(3 * MS, 0);
        assert_eq!(
            chosen(&three, Mask::default(), 4 * MS),
            [4_000, 0, 0],
            "the one that comes back first"
        );
        let mut tried = Mask::default();
        tried.add(0);
        assert_eq!(chosen(&three, tried, 4 * MS), [0, 4_000, 0]);
        assert!(three.0[2].worked());
        assert_eq!(chosen(&three, Mask::default(), 4 * MS), [0, 0, 4_000]);
    }

    #[test]
    fn one_call_tries_an_endpoint_whose_time_is_over() {
        let two = endpoints(2);
        two.0[0].failed(MS, 0);
        assert_eq!(chosen(&two, Mask::default(), 2_000 * MS), [1, 3_999]);
    }

    #[test]
    fn all_were_tried_and_nothing_is_left() {
        let mut tried = Mask::default();
        tried.add(0);
        assert!(endpoints(1).choose(tried, MS, 7).is_none());
        assert!(endpoints(0).choose(Mask::default(), MS, 7).is_none());
    }

    #[test]
    fn addresses_that_stay_keep_what_is_known_of_them() {
        let two = endpoints(2);
        two.0[1].failed(MS, 0);
        let other = two.with(&[two.0[1].address, ([10, 0, 0, 9], 9).into()]);
        assert!(other.0[0].out_for(MS).is_some() && other.0[1].out_for(MS).is_none());
        assert!(!other.is_of(&[two.0[0].address, two.0[1].address]));
    }

    proptest! {
        #[test]
        fn two_are_drawn_from_those_that_are_there_and_differ(mask: u64, random: u64) {
            match Mask(mask).two(random) {
                None => prop_assert_eq!(mask, 0),
                Some((one, other)) => {
                    prop_assert!(Mask(mask).has(one) && Mask(mask).has(other));
                    prop_assert_eq!(one == other, mask.count_ones() == 1);
                }
            }
        }

        #[test]
        fn an_untried_one_is_chosen_where_there_is_one(
            count in 1_u16..=64, tried: u64, out in proptest::collection::vec((0_u16..64, 0_u64..90_000), 0..80),
            now in 0_u32..90_000, random: u64,
        ) {
            let all = endpoints(count);
            for (index, at) in out {
                if let Some(endpoint) = all.0.get(usize::from(index)) {
                    endpoint.failed(Duration::from_millis(at), random);
                }
            }
            let untried = (0..all.len()).filter(|index| !Mask(tried).has(*index)).count();
            match all.choose(Mask(tried), now * MS, random) {
                None => prop_assert_eq!(untried, 0),
                Some((index, _)) => prop_assert!(!Mask(tried).has(index)),
            }
        }
    }
}
