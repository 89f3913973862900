//! How often each caller called, for the limits of the mesh on calls to bots of this host.
//!
//! Counted here, by the callee's proxy, so that a caller cannot count for itself; in this process only. A bucket that is
//! full again is as one that was never used and is forgotten, so there are no more buckets than limits times callers that
//! have called of late, and both are of the slice.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use policy::{Allowance, Bucket, Call, Policy, RuleId, Spent};
use spiffe::id::BotName;
use spiffe::time::Timestamp;

/// The buckets of all callers.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    buckets: Mutex<Buckets>,
}

/// By limit, then by caller. A changed limit keeps its buckets, which know by what they were counted.
type Buckets = BTreeMap<RuleId, BTreeMap<BotName, Bucket>>;

/// A limit that does not admit a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Limited {
    pub(crate) limit: RuleId,
    pub(crate) spent: Spent,
}

impl Limiter {
    /// Counts a call with every limit that speaks of it, or with none of them where one does not admit it.
    ///
    /// Of several that do not, the one is told that is to be waited for the longest.
    pub(crate) fn admit(&self, policy: &Policy, call: &Call, from: &BotName, now: Timestamp) -> Result<(), Limited> {
        let mut limits = policy.limits_of(call).peekable();
        if limits.peek().is_none() {
            return Ok(());
        }
        let mut buckets = self.buckets();
        let mut taken: Vec<(&RuleId, Bucket)> = Vec::new();
        let mut refused: Option<Limited> = None;
        for (id, allowance) in limits {
            match bucket(&buckets, id, from, allowance).take(now, allowance) {
                Ok(after) => taken.push((id, after)),
                Err(spent) if refused.as_ref().is_none_or(|refused| refused.spent < spent) => {
                    let limit = id.clone();
                    refused = Some(Limited { limit, spent });
                }
                Err(_shorter) => {}
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        for (id, after) in taken {
            let of = buckets.entry(id.clone()).or_default();
            match of.get_mut(from) {
                Some(bucket) => *bucket = after,
                None => drop(of.insert(from.clone(), after)),
            }
        }
        Ok(())
    }

    /// Forgets buckets that are full, and those of limits that are no more.
    pub(crate) fn sweep(&self, policy: &Policy, now: Timestamp) {
        self.buckets().retain(|id, of| {
            of.retain(|_, bucket| !bucket.is_full(now));
            !of.is_empty() && policy.has_limit(id)
        });
    }

    /// A thread that panicked while it held the lock left whole buckets.
    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bucket(buckets: &Buckets, id: &RuleId, from: &BotName, allowance: Allowance) -> Bucket {
    let kept = buckets.get(id).and_then(|of| of.get(from)).copied();
    kept.unwrap_or(Bucket::full(allowance))
}

#[cfg(test)]
mod tests {
    use policy::{CanonicalPath, Generation, HttpAsk, Method, Source, What};
    use spiffe::id::SpiffeId;

    use super::*;

    fn policy(limits: &str) -> Policy {
        let bots: String = ["a", "b", "c"]
            .iter()
            .enumerate()
            .map(|(uid, name)| {
                format!("  {name}: {{owner: o, hosts: h, attest: {{uid: {uid}}}, serve: {{http: 80}}}}\n")
            })
            .collect();
        let text = format!("version: 1\ntrust_domain: t.d\nbots:\n{bots}limits: [{limits}]\n");
        let source = Source {
            name: "m".to_owned(),
            text,
        };
        policy::load(&[source])
            .unwrap_or_else(|errors| panic!("{errors}"))
            .compile(Generation::default())
    }

    /// Makes a call; says which limit refused it and for how many milliseconds.
    fn admit(limiter: &Limiter, policy: &Policy, (from, to): (&str, &str), now: i64) -> Option<(String, u128)> {
        let call = Call {
            from: SpiffeId::parse(&format!("spiffe://t.d/{from}")).unwrap(),
            to: BotName::parse(to).unwrap().into(),
            what: What::Http(HttpAsk::new(
                Method::parse("GET").unwrap(),
                CanonicalPath::parse(b"/").unwrap(),
            )),
        };
        let from = BotName::parse(from).unwrap();
        let admitted = limiter.admit(policy, &call, &from, Timestamp::from_unix_millis(now));
        let told = |limited: Limited| (limited.limit.to_string(), limited.spent.wait.as_millis());
        admitted.err().map(told)
    }

    fn kept(limiter: &Limiter) -> usize {
        limiter.buckets().values().map(BTreeMap::len).sum()
    }

    #[test]
    fn each_caller_has_a_bucket_of_its_own_for_all_callees_of_a_limit() {
        let (limiter, policy) = (
            Limiter::default(),
            policy("{id: x, from: [a, b], to: [b, c], rate: 1/s, burst: 2}"),
        );
        let call = |ends| admit(&limiter, &policy, ends, 0);
        assert_eq!([call(("a", "b")), call(("a", "c"))], [None, None]);
        assert_eq!(call(("a", "b")), Some(("x".to_owned(), 1_000)));
        assert_eq!(call(("b", "c")), None, "another caller");
        assert_eq!(call(("a", "a")), None, "another callee");
        assert_eq!(
            [call(("c", "b")), call(("c", "b")), call(("c", "b"))],
            [None, None, None]
        );
        assert_eq!(kept(&limiter), 2, "nothing is kept of calls without a limit");
    }

    #[test]
    fn every_limit_must_admit_a_call_and_a_refused_one_is_counted_by_none() {
        let limiter = Limiter::default();
        let both = policy(
            "{id: hour, from: a, to: '**', rate: 3600/h, burst: 2}, {id: second, from: '**', to: b, rate: 2/s, burst: 1}",
        );
        let call = |now| admit(&limiter, &both, ("a", "b"), now);
        assert_eq!(call(0), None);
        for _ in 0..5 {
            assert_eq!(call(0), Some(("second".to_owned(), 500)));
        }
        assert_eq!(call(500), None, "the refused ones took nothing of the hour's");
        assert_eq!(call(1_000), None, "of the hour's there is one a second");
        assert_eq!(call(1_000), Some(("hour".to_owned(), 1_000)), "the longer wait is told");
    }

    #[test]
    fn a_change_of_the_policy_refills_nothing_and_what_is_full_or_gone_is_forgotten() {
        let limiter = Limiter::default();
        let limit = "{id: x, from: a, to: b, rate: 1/s, burst: 1}";
        let (first, other) = (
            policy(limit),
            policy(&format!("{limit}, {{id: y, from: c, to: b, rate: 1/h, burst: 1}}")),
        );
        assert_eq!(admit(&limiter, &first, ("a", "b"), 0), None);
        assert_eq!(admit(&limiter, &other, ("a", "b"), 0), Some(("x".to_owned(), 1_000)));
        let wider = policy("{id: x, from: '**', to: '**', rate: 2/s, burst: 1}");
        assert_eq!(admit(&limiter, &wider, ("a", "b"), 0), Some(("x".to_owned(), 500)));
        assert_eq!(admit(&limiter, &other, ("c", "b"), 0), None);
        limiter.sweep(&other, Timestamp::from_unix_millis(999));
        assert_eq!(kept(&limiter), 2);
        limiter.sweep(&other, Timestamp::from_unix_millis(1_000));
        assert_eq!(kept(&limiter), 1, "a full one is forgotten");
        limiter.sweep(&first, Timestamp::from_unix_millis(1_000));
        assert_eq!(kept(&limiter), 0, "and one of a limit that is no more");
    }
}
