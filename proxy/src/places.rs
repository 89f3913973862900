//! How many calls are carried at a time, of the process and of one caller: what comes beyond is refused before it costs
//! memory, and one bot never takes all places.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use policy::Mesh;
use spiffe::id::BotName;

use crate::known::Known;

/// When a caller that was refused for want of room may come again: calls mostly end in less.
pub(crate) const COME_AGAIN: Duration = Duration::from_secs(1);

/// Of a number of places, how many one caller may take: never the last quarter.
pub(crate) const fn most_of_one(places: usize) -> usize {
    places - places / 4
}

/// The places of the process.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    taken: AtomicUsize,
    callers: Known<BotName, OfCaller>,
    refused: [AtomicU64; Bound::ALL.len()],
}

/// The places that one caller has taken, over all its connections.
#[derive(Debug, Default)]
pub(crate) struct OfCaller(AtomicUsize);

/// What there was no room in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The process.
    Process,
    /// What one caller may take of the process.
    Caller,
    /// What the callee takes at a time, or of one caller.
    Callee,
    /// What may wait for a connection.
    Pending,
}

/// A place that is taken. Dropped, it is another's.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    caller: Option<Arc<OfCaller>>,
}

impl Bound {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Process, Self::Caller, Self::Callee, Self::Pending];

    /// The word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Caller => "caller",
            Self::Callee => "callee",
            Self::Pending => "pending",
        }
    }

    /// What its caller reads.
    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::Process => "this proxy carries as many calls as it can; try again a little later",
            Self::Caller => "the caller has as many calls under way as one may have; let some of them end first",
            Self::Callee => "as many calls to that bot are under way as it takes; try again a little later",
            Self::Pending => "too many calls wait for a connection to that bot; try again a little later",
        }
    }
}

impl Places {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: AtomicUsize::new(0),
            callers: Known::default(),
            refused: Default::default(),
        })
    }

    /// How many there are.
    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// What one caller has taken; found once for each connection of it.
    pub(crate) fn of(&self, caller: &BotName) -> Arc<OfCaller> {
        self.callers.of(caller)
    }

    /// Takes a place, or says what has no room.
    pub(crate) fn take(self: &Arc<Self>, caller: Option<&Arc<OfCaller>>) -> Result<Place, Bound> {
        // Counted first and looked at afterwards, so that two that come at once do not both take the last.
        let all = self.taken.fetch_add(1, Ordering::Relaxed);
        let own = caller.map_or(0, |caller| caller.0.fetch_add(1, Ordering::Relaxed));
        let place = Place {
            places: Arc::clone(self),
            caller: caller.map(Arc::clone),
        };
        if all >= self.most {
            return Err(Bound::Process);
        }
        if own >= most_of_one(self.most) {
            return Err(Bound::Caller);
        }
        Ok(place)
    }

    /// Counts a call that found no room.
    pub(crate) fn refuse(&self, bound: Bound) {
        if let Some((_, count)) = Bound::ALL.iter().zip(&self.refused).find(|(known, _)| **known == bound) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many found no room, by what had none.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (Bound, u64)> {
        let counts = self.refused.iter().map(|count| count.load(Ordering::Relaxed));
        Bound::ALL.into_iter().zip(counts)
    }

    /// Forgets callers that are gone.
    pub(crate) fn sweep(&self, mesh: &Mesh) {
        self.callers.keep(|caller| mesh.bots().contains_key(caller));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(caller) = &self.caller {
            caller.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_never_takes_the_last_quarter_and_nobody_more_than_there_are() {
        let places = Places::new(8);
        let caller = |name| places.of(&BotName::parse(name).unwrap());
        let (one, other) = (caller("prod/one"), caller("prod/other"));
        let mut taken: Vec<_> = (0..6).map(|_| places.take(Some(&one)).unwrap()).collect();
        assert_eq!(places.take(Some(&one)).unwrap_err(), Bound::Caller);
        taken.extend((0..2).map(|_| places.take(Some(&other)).unwrap()));
        assert_eq!(places.take(Some(&other)).unwrap_err(), Bound::Process);
        assert_eq!(places.take(None).unwrap_err(), Bound::Process);
        assert_eq!(places.taken(), 8, "what was refused takes none");
        assert!(
            Arc::ptr_eq(&caller("prod/one"), &one),
            "all its connections count together"
        );
        drop(taken);
        assert_eq!(places.taken(), 0);
        assert!(places.take(Some(&one)).is_ok());
        assert_eq!(most_of_one(1), 1);
    }

    #[test]
    fn what_had_no_room_is_counted() {
        let places = Places::new(1);
        places.refuse(Bound::Callee);
        places.refuse(Bound::Callee);
        let refused: Vec<_> = places.refused().map(|(bound, count)| (bound.as_str(), count)).collect();
        assert_eq!(refused, [("process", 0), ("caller", 0), ("callee", 2), ("pending", 0)]);
    }
}
