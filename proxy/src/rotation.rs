//! Carries out what the CA says of new values of credentials, and tells it how far this host is.
//!
//! Each order says where this host is to be, not what to do next: one that was away, or began anew, does what is left to do.

mod probe;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use audit::EventKind;
use ca_api::node::CredentialReport;
use ca_api::rotation::{Phase, UNAUTHORIZED};
use policy::CredentialName;
use serde_json::Value;
use tokio::time::Instant;

use crate::control::{Order, chain_of};
use crate::credentials::{RotateError, Secret, Shape, Which};
use crate::proxy::Proxy;

/// How long after a probe the next one waits, at first and at most.
const PROBE_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// How long calls under way are waited for that have the value before: streams go on for longer, and have been let in.
const UNDER_WAY_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whether they are over.
const UNDER_WAY_EVERY: Duration = Duration::from_millis(10);

/// How often the calls of a canary are counted.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// How far this host is with one order.
#[derive(Debug, Default)]
struct Progress {
    /// The order that was carried out last: one that is said again is answered again.
    heard: u64,
    rotation: u64,
    probes: Probes,
    told: Option<CredentialReport>,
}

/// What the service said of the two values.
#[derive(Debug, Default)]
struct Probes {
    new: Option<u16>,
    old: Option<u16>,
    error: String,
    /// When the next one is due, and how long the one after that waits.
    next: Option<(Instant, Duration)>,
}

impl Probes {
    /// Which value is to be probed in a phase; none where what is to be known is known.
    fn wanted(&self, phase: Phase) -> Option<Which> {
        let taken = matches!(self.new, Some(200..=299));
        match phase {
            Phase::Staged | Phase::Canary if !taken => Some(Which::Next),
            Phase::Current if self.old != Some(UNAUTHORIZED) => Some(Which::Old),
            Phase::Staged | Phase::Canary | Phase::Current | Phase::Revoked | Phase::Aborted => None,
        }
    }

    /// Notes what a probe came to.
    fn note(&mut self, which: Which, answer: Result<u16, String>, now: Instant) {
        match (answer, which) {
            (Ok(status), Which::Old) => (self.old, self.error) = (Some(status), String::new()),
            (Ok(status), Which::Next | Which::Current) => (self.new, self.error) = (Some(status), String::new()),
            (Err(error), _) => self.error = error,
        }
        let wait = self.next.map_or(PROBE_EVERY.0, |(_, wait)| wait);
        self.next = Some((now + wait, (wait * 2).min(PROBE_EVERY.1)));
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|(at, _)| at <= now)
    }
}

/// Carries out orders until the proxy closes.
pub(crate) async fn run(proxy: Arc<Proxy>) {
    let mut orders = proxy.control.orders();
    let mut progress: BTreeMap<CredentialName, Progress> = BTreeMap::new();
    loop {
        let now = orders.borrow_and_update().clone();
        let mut wake = None;
        for (name, order) in &*now {
            let one = progress.entry(name.clone()).or_default();
            let next = tokio::select! {
                // What is half done is done again when the CA says it again.
                () = proxy.closing.cancelled() => return,
                next = follow(&proxy, name, order, one) => next,
            };
            wake = [wake, next].into_iter().flatten().min();
        }
        let waking = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // Losing a wait loses nothing.
        tokio::select! {
            () = proxy.closing.cancelled() => return,
            Ok(()) = orders.changed() => {}
            () = waking => {}
        }
    }
}

/// Does what is due for one order, and says when to look again.
async fn follow(proxy: &Proxy, name: &CredentialName, order: &Order, progress: &mut Progress) -> Option<Instant> {
    let is_news = progress.heard != order.heard;
    if progress.rotation != order.rotation {
        *progress = Progress {
            rotation: order.rotation,
            ..Progress::default()
        };
    }
    let mut report = match (is_news, progress.told.clone()) {
        (false, Some(told)) => told,
        (true, _) | (false, None) => {
            // A phase that begins probes at once.
            progress.probes.next = None;
            carried_out(proxy, name, order).await
        }
    };
    progress.heard = order.heard;
    let wake = probe_if_due(proxy, name, order, progress).await;
    report.probe_new = progress.probes.new.map_or(0, u32::from);
    report.probe_old = progress.probes.old.map_or(0, u32::from);
    report.probe_error.clone_from(&progress.probes.error);
    if let Some((calls, refused)) = proxy.credentials.trial(name) {
        (report.canary_calls, report.canary_refused) = (calls, refused);
    }
    if is_news || progress.told.as_ref() != Some(&report) {
        proxy.control.report_order(report.clone());
        progress.told = Some(report);
    }
    let counts = (order.phase == Phase::Canary).then(|| Instant::now() + COUNT_EVERY);
    [wake, counts].into_iter().flatten().min()
}

/// Brings this host to where the order says, and makes the word about it.
async fn carried_out(proxy: &Proxy, name: &CredentialName, order: &Order) -> CredentialReport {
    let done = carry_out(proxy, name, order).await;
    let mut report = CredentialReport {
        name: name.to_string(),
        rotation: order.rotation,
        phase: order.phase.as_str().to_owned(),
        ..CredentialReport::default()
    };
    if let Err(error) = &done {
        tracing::error!(credential = %name, phase = %order.phase, error = error as &dyn std::error::Error, "a new value of a credential was not taken");
        (report.phase, report.error) = (String::new(), chain_of(error));
    } else {
        tracing::debug!(credential = %name, rotation = order.rotation, phase = %order.phase, "an order about a credential is carried out");
    }
    report
}

async fn carry_out(proxy: &Proxy, name: &CredentialName, order: &Order) -> Result<(), RotateError> {
    let credentials = &proxy.credentials;
    if order.phase == Phase::Aborted {
        return credentials.give_up(name).await;
    }
    let done = credentials.has_done(name, order.rotation).await?;
    if !done {
        let snapshot = proxy.control.snapshot();
        let known = snapshot.mesh.credential(name.as_str());
        let shape = known.map_or(Shape::Line, |found| Shape::of(&found.injection));
        credentials
            .stage(name, shape, (&order.sealed, &order.fingerprint))
            .await?;
    }
    match (order.phase, &order.canary) {
        (Phase::Canary, Some(bot)) => credentials.try_out(name, bot).await,
        (Phase::Current, _) if done => {
            credentials.remember_old(name).await;
            Ok(())
        }
        (Phase::Current | Phase::Revoked, _) => {
            if !done {
                let by = (order.rotation, order.fingerprint.as_str());
                let before = credentials.promote(name, by).await?;
                record(proxy, name, order);
                over(&before).await;
            }
            if order.phase == Phase::Revoked {
                credentials.forget_old(name).await?;
            }
            Ok(())
        }
        (Phase::Staged | Phase::Canary | Phase::Aborted, _) => Ok(()),
    }
}

/// Waits for the calls under way that have the value before, for a while: an operator who hears that the new one is in use
/// revokes the old one.
async fn over(before: &Weak<Secret>) {
    let until = Instant::now() + UNDER_WAY_MAX;
    while before.strong_count() > 0 && Instant::now() < until {
        tokio::time::sleep(UNDER_WAY_EVERY).await;
    }
}

/// The value is in use whether that can be recorded or not: a call that needs the record has its own.
fn record(proxy: &Proxy, name: &CredentialName, order: &Order) {
    let detail = BTreeMap::from([
        ("fingerprint".to_owned(), Value::from(order.fingerprint.clone())),
        ("phase".to_owned(), Value::from(order.phase.as_str())),
        ("rotation".to_owned(), Value::from(order.rotation)),
    ]);
    let recorded = proxy
        .control
        .own_event(EventKind::CredentialRotated, format!("credential:{name}"), detail);
    if let Err(error) = recorded {
        tracing::error!(credential = %name, error = &error as &dyn std::error::Error, "a new value is in use and not in the ledger");
    }
}

/// Asks the service, where this host is the one that does, and says when to ask again.
async fn probe_if_due(proxy: &Proxy, name: &CredentialName, order: &Order, progress: &mut Progress) -> Option<Instant> {
    let bot = order.canary.as_ref()?;
    let which = progress.probes.wanted(order.phase)?;
    let now = Instant::now();
    if progress.probes.is_due(now) {
        let answer = probe::probe(proxy, name, bot, which).await;
        let answer = answer.map_err(|error| chain_of(&error));
        progress.probes.note(which, answer, Instant::now());
    }
    progress.probes.next.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_that_have_the_value_before_are_waited_for_and_no_stream_for_ever() {
        let value = Arc::new(Secret::new(b"value-one".to_vec()).unwrap());
        let before = Arc::downgrade(&value);
        let mut calls = tokio::task::JoinSet::new();
        calls.spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(value);
        });
        let began = Instant::now();
        over(&before).await;
        let took = began.elapsed();
        assert!(
            took >= Duration::from_secs(3) && took < Duration::from_secs(4),
            "{took:?}"
        );
        let stream = Arc::new(Secret::new(b"value-one".to_vec()).unwrap());
        let began = Instant::now();
        over(&Arc::downgrade(&stream)).await;
        assert!(began.elapsed() >= UNDER_WAY_MAX && began.elapsed() < UNDER_WAY_MAX * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn probes_grow_rarer_and_end_when_what_they_ask_is_known() {
        let mut probes = Probes::default();
        assert_eq!(probes.wanted(Phase::Staged), Some(Which::Next));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let now = Instant::now();
            assert!(probes.is_due(now));
            probes.note(Which::Next, Ok(401), now);
            let (at, _) = probes.next.unwrap();
            assert!(!probes.is_due(now));
            waits.push(at.duration_since(now).as_secs());
            tokio::time::advance(at.duration_since(now)).await;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        probes.note(Which::Next, Ok(204), Instant::now());
        assert_eq!(
            [Phase::Staged, Phase::Canary].map(|phase| probes.wanted(phase)),
            [None, None]
        );
        assert_eq!(probes.wanted(Phase::Current), Some(Which::Old));
        probes.note(Which::Old, Ok(200), Instant::now());
        assert_eq!(
            probes.wanted(Phase::Current),
            Some(Which::Old),
            "the service takes it still"
        );
        probes.note(Which::Old, Err("nobody answers".to_owned()), Instant::now());
        assert_eq!((probes.old, probes.error.as_str()), (Some(200), "nobody answers"));
        probes.note(Which::Old, Ok(UNAUTHORIZED), Instant::now());
        assert_eq!((probes.wanted(Phase::Current), probes.error.as_str()), (None, ""));
        assert_eq!(probes.wanted(Phase::Revoked), None);
    }
}
