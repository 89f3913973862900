//! The calls under way, and what decides them again.
//!
//! A call was allowed at one moment; it may not outlive the right to it. With each new policy and each new list of
//! quarantines every call is decided again by the very `Policy::decide` that let it in, and one that would not be let
//! in any more is ended: whoever waits for its answer, or moves a byte of its bodies, hears it at once. There are no
//! more entries than calls at a time, and a call costs one.

mod idle;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use policy::{CredentialName, Injection, Mesh, Permit};
use spiffe::id::BotName;
use spiffe::svid::Serial;
use spiffe::time::Timestamp;

use idle::Idle;

use crate::control::Snapshot;
use crate::credentials::Loaded;
use crate::outside::address;
use crate::proven::Proven;
use crate::proxy::Proxy;
use crate::reason::Reason;

/// Parts of the registry with a lock of their own.
const SHARDS: usize = 16;

/// How often the ends of rules and of local quarantines are looked for.
const TICK: Duration = Duration::from_millis(250);

/// What a call is decided by, again and again.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) call: policy::Call,
    /// The caller.
    pub(crate) from: BotName,
    /// What a peer that calls has proved, now and later.
    pub(crate) from_proven: Option<Arc<Proven>>,
    /// As whom it is for as long as it goes on, where the proxy has said that once.
    pub(crate) granted: Option<Box<Granted>>,
}

/// The credential with which a session was begun.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) name: CredentialName,
    pub(crate) injection: Injection,
    /// Its value, which a session of a lease uses until it ends.
    pub(crate) value: Option<Arc<Loaded>>,
}

impl Subject {
    /// Says why the call may not go on, if it may not. Quarantines come before every rule.
    pub(crate) fn refusal(&self, snapshot: &Snapshot, now: Timestamp, to_serial: Option<&Serial>) -> Option<Reason> {
        let from_serial = self.from_proven.as_ref().map(|proven| proven.peer().serial);
        if snapshot
            .cut_off(&self.call.from, &self.from, from_serial.as_ref(), self.call.bot())
            .is_some()
            || to_serial.is_some_and(|serial| snapshot.revokes(serial))
        {
            return Some(Reason::Quarantined);
        }
        match snapshot.policy.decide(now, self.call.clone()) {
            // As somebody else it would be another session, which no rule allows by this one.
            Ok(permit) if !self.is_granted_by(&snapshot.mesh, &permit) => Some(Reason::NoRule),
            Ok(_still) => None,
            Err(denial) => Some(denial.reason.into()),
        }
    }

    fn is_granted_by(&self, mesh: &Mesh, permit: &Permit) -> bool {
        let Some(granted) = &self.granted else {
            return true;
        };
        let found = mesh.credential_of(permit);
        found.is_some_and(|(name, credential)| *name == granted.name && credential.injection == granted.injection)
    }
}

/// Who waits for a call; each has its own waker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lane {
    /// Whoever waits for the answer and then for its body.
    Answer,
    /// Whoever reads the body of the request.
    Request,
    /// Whoever writes the answer to a caller that may take nothing.
    Writer,
}

const LANES: usize = 3;

/// The registry.
#[derive(Debug, Default)]
pub(crate) struct Live {
    shards: [Mutex<Shard>; SHARDS],
    turn: AtomicUsize,
    /// How many of them may not stand still.
    watched: AtomicUsize,
    /// How many of them lead outside.
    outside: AtomicUsize,
    /// How many were ended, by reason: as many words as there are.
    cuts: Mutex<BTreeMap<Reason, u64>>,
}

#[derive(Debug, Default)]
struct Shard {
    places: Vec<Option<Weak<Entry>>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    live: Arc<Live>,
    shard: usize,
    place: usize,
    subject: Subject,
    /// What the callee's proxy has proved.
    to_proven: Mutex<Option<Arc<Proven>>>,
    /// The address outside that the call goes to.
    address: Mutex<Option<SocketAddr>>,
    cut: OnceLock<Reason>,
    idle: OnceLock<Idle>,
    wakers: Mutex<[Option<Waker>; LANES]>,
}

/// A call under way; it leaves the registry with the last of its clones.
#[derive(Clone, Debug)]
pub(crate) struct Held(Arc<Entry>);

impl Live {
    /// Takes a call in that `admitted` let in, unless the moment has changed since and would not.
    pub(crate) fn hold(
        self: &Arc<Self>,
        proxy: &Proxy,
        subject: Subject,
        admitted: &Arc<Snapshot>,
    ) -> Result<Held, Reason> {
        self.hold_unless(subject, || {
            let current = proxy.control.newer_than(admitted)?;
            Some((current, proxy.control.now()))
        })
    }

    /// Enters the call first and looks at what is `newer` afterwards: a moment that comes after the look finds the entry.
    fn hold_unless(
        self: &Arc<Self>,
        subject: Subject,
        newer: impl FnOnce() -> Option<(Arc<Snapshot>, Timestamp)>,
    ) -> Result<Held, Reason> {
        let held = self.enter(subject);
        match newer() {
            Some((current, now)) => held.0.subject.refusal(&current, now, None).map_or(Ok(held), Err),
            None => Ok(held),
        }
    }

    fn enter(self: &Arc<Self>, subject: Subject) -> Held {
        let number = self.turn.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = self.shard(number);
        let place = shard.free.pop().unwrap_or(shard.places.len());
        let entry = Arc::new(Entry {
            live: Arc::clone(self),
            shard: number,
            place,
            subject,
            to_proven: Mutex::default(),
            address: Mutex::default(),
            cut: OnceLock::new(),
            idle: OnceLock::new(),
            wakers: Mutex::default(),
        });
        let weak = Some(Arc::downgrade(&entry));
        match shard.places.get_mut(place) {
            Some(empty) => *empty = weak,
            None => shard.places.push(weak),
        }
        Held(entry)
    }

    /// Decides every call again, ends those that are refused, and says how many those are.
    pub(crate) fn decide(&self, snapshot: &Snapshot, now: Timestamp) -> u64 {
        self.end_where(|entry| {
            let to_serial = entry.to_proven().as_ref().map(|proven| proven.peer().serial);
            let refusal = entry.subject.refusal(snapshot, now, to_serial.as_ref());
            refusal.or_else(|| entry.address_refusal(snapshot))
        })
    }

    /// Ends every call for one reason, and says how many those are.
    pub(crate) fn end_all(&self, reason: Reason) -> u64 {
        self.end_where(|_entry| Some(reason))
    }

    fn end_where(&self, refusal: impl Fn(&Entry) -> Option<Reason>) -> u64 {
        let mut cut = 0;
        for number in 0..SHARDS {
            // An entry whose last holder leaves meanwhile takes the lock: it is not dropped inside of it.
            let entries: Vec<_> = self
                .shard(number)
                .places
                .iter()
                .filter_map(|place| place.as_ref()?.upgrade())
                .collect();
            for entry in entries {
                if let Some(reason) = refusal(&entry)
                    && entry.end(reason)
                {
                    cut += 1;
                    *self.counted().entry(reason).or_default() += 1;
                }
            }
        }
        cut
    }

    /// Ends the calls to the outside whose caller has no identity any more, and says how many those are: between bots the
    /// connection of two proxies ends with the SVID, and nobody else does that here.
    fn end_nameless(&self, has_svid: impl Fn(&BotName) -> bool) -> u64 {
        if self.outside.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.end_where(|entry| {
            let nameless = entry.address().is_some() && !has_svid(&entry.subject.from);
            nameless.then_some(Reason::NoIdentity)
        })
    }

    /// Ends the sessions whose lease is over, and says how many those are: the user that was made for them is dropped.
    pub(crate) fn end_of_leases(&self) -> u64 {
        let is_over = |entry: &Entry| {
            let granted = entry.subject.granted.as_ref();
            granted
                .and_then(|granted| granted.value.as_ref())
                .is_some_and(|value| value.is_over())
        };
        self.end_where(|entry| is_over(entry).then_some(Reason::CredentialUnavailable))
    }

    /// How many calls were ended, by reason.
    pub(crate) fn cuts(&self) -> BTreeMap<Reason, u64> {
        self.counted().clone()
    }

    /// A thread that panicked while it held the lock left a whole map.
    fn counted(&self) -> MutexGuard<'_, BTreeMap<Reason, u64>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls are under way.
    #[cfg(test)]
    fn len(&self) -> usize {
        let taken = |number| self.shard(number).places.iter().flatten().count();
        (0..SHARDS).map(taken).sum()
    }

    /// A thread that panicked while it held the lock left a whole value; the number is below the bound.
    fn shard(&self, number: usize) -> MutexGuard<'_, Shard> {
        let [first, ..] = &self.shards;
        let shard = self.shards.get(number).unwrap_or(first);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Ends the call; `false` when it has been ended already.
    fn end(&self, reason: Reason) -> bool {
        if self.cut.set(reason).is_err() {
            return false;
        }
        let wakers = std::mem::take(&mut *self.wakers());
        wakers.into_iter().flatten().for_each(Waker::wake);
        true
    }

    /// Says why the call may not go on to where it goes, if that is outside and the mesh does not allow the address any more.
    fn address_refusal(&self, snapshot: &Snapshot) -> Option<Reason> {
        let address = (*self.address())?;
        let said = snapshot.mesh.outside_destination(self.subject.call.to.outside()?);
        let listed = said.map(|said| said.addresses.as_slice()).unwrap_or_default();
        address::judge(address.ip(), listed)
            .is_err()
            .then_some(Reason::OutsideForbidden)
    }

    /// A thread that panicked while it held the lock left a whole address.
    fn address(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_proven(&self) -> MutexGuard<'_, Option<Arc<Proven>>> {
        self.to_proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wakers(&self) -> MutexGuard<'_, [Option<Waker>; LANES]> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.idle.get().is_some() {
            self.live.watched.fetch_sub(1, Ordering::Relaxed);
        }
        if self.address().is_some() {
            self.live.outside.fetch_sub(1, Ordering::Relaxed);
        }
        let mut shard = self.live.shard(self.shard);
        if let Some(place) = shard.places.get_mut(self.place) {
            *place = None;
            shard.free.push(self.place);
        }
    }
}

impl Held {
    /// Why the call was ended, if it was.
    pub(crate) fn cut(&self) -> Option<Reason> {
        self.0.cut.get().copied()
    }

    /// Ends the call for what whoever carries it found.
    pub(crate) fn end(&self, reason: Reason) {
        if self.0.end(reason) {
            *self.0.live.counted().entry(reason).or_default() += 1;
        }
    }

    /// Waits for the end of the call's right.
    pub(crate) fn poll_cut(&self, cx: &mut Context<'_>, lane: Lane) -> Poll<Reason> {
        if let Some(reason) = self.cut() {
            return Poll::Ready(reason);
        }
        {
            let mut wakers = self.0.wakers();
            let slot = match (&mut *wakers, lane) {
                ([slot, ..], Lane::Answer) | ([_, slot, _], Lane::Request) | ([.., slot], Lane::Writer) => slot,
            };
            if slot.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                *slot = Some(cx.waker().clone());
            }
        }
        // It may have come before the waker was there.
        self.cut().map_or(Poll::Pending, Poll::Ready)
    }

    /// Does `work` as long as the call may go on. Losing it midway is what the end of the right means.
    ///
    /// Taken by reference, so that the room of `work` is not needed twice.
    pub(crate) async fn while_allowed<T>(
        &self,
        lane: Lane,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Reason> {
        std::future::poll_fn(|cx| {
            if let Some(reason) = self.cut() {
                return Poll::Ready(Err(reason));
            }
            match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Ok(done)),
                Poll::Pending => self.poll_cut(cx, lane).map(Err),
            }
        })
        .await
    }

    /// Notes which address outside the call goes to; `Err` when it may not any more.
    pub(crate) fn leads_to(&self, proxy: &Proxy, address: SocketAddr) -> Result<(), Reason> {
        if self.0.address().replace(address).is_none() {
            self.0.live.outside.fetch_add(1, Ordering::Relaxed);
        }
        // Noted first and looked at afterwards, as in `Live::hold_unless`.
        let refusal = self.0.address_refusal(&proxy.control.snapshot());
        refusal.or_else(|| self.cut()).map_or(Ok(()), Err)
    }

    /// Notes by what the callee's proxy is known; `Err` when its SVID is worth nothing.
    pub(crate) fn reached(&self, proxy: &Proxy, proven: &Arc<Proven>) -> Result<(), Reason> {
        *self.0.to_proven() = Some(Arc::clone(proven));
        // Noted first and looked at afterwards, as in `Live::hold_unless`.
        if proxy.control.snapshot().revokes(&proven.peer().serial) {
            return Err(Reason::Quarantined);
        }
        self.cut().map_or(Ok(()), Err)
    }
}

/// Ends what ends by time: calls whose rule has ended, all calls once the policy is too old, and this host's own
/// quarantines; until the proxy closes.
///
/// The ticks are the system's, so that a clock that was moved is noticed; what has ended is told by this host's time.
pub(crate) async fn watch_time(proxy: Arc<Proxy>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = proxy.control.now();
    // A call that was let in just before an end and entered just after it is found by one more look.
    let mut again = false;
    loop {
        // A tick that is lost is the last one.
        tokio::select! {
            () = proxy.closing.cancelled() => return,
            _tick = ticks.tick() => {}
        }
        let now = proxy.control.now();
        proxy.control.end_local(now);
        let still = proxy.live.end_idle(tokio::time::Instant::now());
        if still > 0 {
            tracing::debug!(still, "ended calls in which nothing moved");
        }
        let nameless = proxy.live.end_nameless(|bot| proxy.control.svid(bot).is_some());
        if nameless > 0 {
            tracing::info!(nameless, "ended calls to the outside whose caller's SVID has ended");
        }
        let snapshot = proxy.control.snapshot();
        let ended = snapshot.policy.next_end(last).is_some_and(|end| end <= now);
        if proxy.control.policy_too_old(now) {
            // What let these calls in is no authority any more; whoever keeps the CA away gains no time by a long call.
            let cut = proxy.live.end_all(Reason::NoIdentity);
            if cut > 0 {
                tracing::warn!(
                    cut,
                    "ended calls because the CA was not heard for longer than max_policy_age"
                );
            }
        } else if ended || again {
            let cut = proxy.live.decide(&snapshot, now);
            if cut > 0 {
                tracing::info!(cut, "ended calls whose rule has ended");
            }
        }
        (last, again) = (now, ended);
    }
}

#[cfg(test)]
mod tests;
