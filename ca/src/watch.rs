//! Watches what hosts tell of calls for what is unlike the days before, and says so. It decides nothing and cuts nobody
//! off: a kill switch that an attacker can provoke is a weapon, so the alert carries the command for a person.
//!
//! - `engine` knows every bot's calls by destination and rule; `series` is one of them.
//! - `moment` is the time that counts, which no clock that is set moves.
//! - `gate` bounds what is written and sent, `list` what is kept to be looked at, `kept` is what outlives the process.

mod alert;
mod engine;
mod gate;
mod kept;
mod list;
mod moment;
mod series;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::EventKind;
use ca_api::admin::WatchAlerts;
use serde_json::json;
use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;
use tokio::sync::watch;

use crate::config::WatchSettings;
use crate::core::Core;
use crate::store::StoreError;
use alert::Alert;
pub(crate) use alert::WatchKind;
use engine::{Engine, Told, What};
use gate::Gate;
pub(crate) use kept::{Row, RowKey};
use list::List;

/// How often rules are looked at, and windows that are over.
const TICK: Duration = Duration::from_secs(10);

/// How often what was learned is written. A crash loses so much of it, and no alert.
const FLUSH: Duration = Duration::from_mins(10);

/// Rows that are written at once: others want the database too.
const ROWS_AT_ONCE: usize = 500;

/// The longest that what a host tells can have waited.
const WAITED_MAX: Duration = Duration::from_hours(1);

/// Faults, which say nothing of what a bot wants; and what an operator has cut off already.
const FAULTS: [&str; 8] = [
    "breaker_open",
    "credential_unavailable",
    "ledger_unavailable",
    "no_identity",
    "overloaded",
    "peer_unreachable",
    "quarantined",
    "timeout",
];

/// See the module.
#[derive(Debug)]
pub(crate) struct Watching {
    is_on: bool,
    engine: Mutex<Engine>,
    raised: Mutex<(Gate, List)>,
    newest: watch::Sender<u64>,
}

/// Calls of one bot of the host that tells of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls<'a> {
    pub(crate) from: &'a BotName,
    /// A bot, a destination outside, or nothing where nobody has that name.
    pub(crate) to: &'a str,
    pub(crate) rule: &'a str,
    pub(crate) verdict: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) count: u64,
    /// How long it took until they were told.
    pub(crate) waited: Duration,
}

impl Calls<'_> {
    /// What became of them, if that is watched.
    fn what(&self) -> Option<What<'_>> {
        match self.verdict {
            "allow" | "audit" => Some(What::Carried(self.rule)),
            _refused if FAULTS.contains(&self.reason) => None,
            _refused => Some(What::Refused),
        }
    }
}

impl Watching {
    /// Goes on with what was kept.
    pub(crate) fn new(settings: &WatchSettings, now: Timestamp, rows: Vec<Row>) -> Self {
        let mut engine = Engine::new(settings.clone(), now);
        let left_out = engine.restore(now, rows);
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "some of what was learned of calls cannot be read and is learned again"
            );
        }
        Self {
            is_on: settings.enabled,
            engine: Mutex::new(engine),
            raised: Mutex::default(),
            newest: watch::Sender::new(0),
        }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raised(&self) -> MutexGuard<'_, (Gate, List)> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was raised about a host that was evicted. What was learned is the bots'.
    pub(crate) fn forget(&self, host: &HostName) {
        self.raised().1.forget(host);
    }

    /// The alerts after a number; of a CA before this one all are after it.
    pub(crate) fn after(&self, number: u64) -> WatchAlerts {
        let raised = self.raised();
        let newest = raised.1.newest();
        let number = if number > newest { 0 } else { number };
        WatchAlerts {
            alerts: raised.1.after(number),
            newest,
        }
    }

    /// Tells when there is a new one.
    pub(crate) fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

impl Core {
    /// Takes in calls that a host told of, of a bot that it may run.
    pub(crate) fn watched(&self, host: &HostName, calls: Calls<'_>) {
        let Some(what) = calls.what().filter(|_| self.watching.is_on && calls.count > 0) else {
            return;
        };
        let told = Told {
            host,
            from: calls.from,
            to: calls.to,
            what,
            calls: calls.count,
            waited: calls.waited.min(WAITED_MAX),
        };
        let found = self.watching.engine().told(self.now(), told);
        for alert in found {
            self.raise(&alert);
        }
    }

    fn raise(&self, alert: &Alert) {
        self.metrics.alerts.with_label_values(&[alert.kind.as_str()]).inc();
        let (number, is_written) = {
            let mut raised = self.watching.raised();
            let (gate, list) = &mut *raised;
            (list.push(alert), gate.admits(alert))
        };
        self.watching.newest.send_replace(number);
        if is_written {
            self.write_alert(alert, number);
        }
    }

    fn write_alert(&self, alert: &Alert, number: u64) {
        let told = alert.to_api(number);
        let (kind, message, command) = (&told.kind, &told.message, &told.command);
        tracing::error!(kind, command, host = %told.host, "{message}");
        let subject = match alert.kind {
            WatchKind::More => format!("host:{}", told.host),
            WatchKind::RateJump | WatchKind::FirstSeen | WatchKind::RefusalBurst => format!("bot:{}", told.from),
        };
        let detail = [
            ("reason", json!(kind)),
            ("from", json!(told.from)),
            ("to", json!(told.to)),
            ("route", json!(told.route)),
            ("host", json!(told.host)),
            ("seen", json!(told.seen)),
            ("expected", json!(told.expected)),
            ("destinations", json!(told.destinations)),
            ("count", json!(told.count)),
            ("hint", json!(message)),
            ("command", json!(command)),
        ];
        self.journal.note(EventKind::Alert, "ca", &subject, detail);
        self.post_alert(&format!("{kind}: {message}. {command}"), &json!(told));
    }

    /// Looks at the rules, and writes what is due.
    fn look(&self, all: bool) {
        let live = self.world.live();
        {
            let mut engine = self.watching.engine();
            let rules = live.mesh.iter().flat_map(|mesh| mesh.rule_ids());
            let is_live = |bot: &BotName| live.mesh.as_ref().is_some_and(|mesh| mesh.bots().contains_key(bot));
            engine.tick(self.now(), rules.map(policy::RuleId::as_str), is_live);
            self.metrics
                .watch
                .routes
                .set(engine.routes().try_into().unwrap_or(i64::MAX));
            self.metrics.watch.unwatched.inc_by(engine.take_unwatched());
        }
        let more = self.watching.raised().0.take(self.now(), all);
        for alert in more {
            self.metrics.alerts.with_label_values(&[alert.kind.as_str()]).inc();
            let number = self.watching.raised().1.push(&alert);
            self.watching.newest.send_replace(number);
            self.write_alert(&alert, number);
        }
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let (mut rows, mut gone) = self.watching.engine().take_changes();
        while !rows.is_empty() || !gone.is_empty() {
            let rest = rows.split_off(rows.len().min(ROWS_AT_ONCE));
            let rest_gone = gone.split_off(gone.len().min(ROWS_AT_ONCE));
            self.store.write_watched(rows, gone).await?;
            (rows, gone) = (rest, rest_gone);
        }
        Ok(())
    }
}

/// Looks, and keeps what was learned, until the CA stops.
pub(crate) async fn keep(core: Arc<Core>) {
    if !core.watching.is_on {
        return core.cancel.cancelled().await;
    }
    let mut flush_at = tokio::time::Instant::now() + FLUSH;
    loop {
        core.look(false);
        // Cancel safe: nothing is held across the wait.
        let is_over = tokio::select! {
            () = core.cancel.cancelled() => true,
            () = tokio::time::sleep(TICK) => false,
        };
        if is_over {
            core.look(true);
        }
        if is_over || flush_at.elapsed() > Duration::ZERO {
            flush_at = tokio::time::Instant::now() + FLUSH;
            if let Err(error) = core.flush().await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "what was learned of calls is not kept");
            }
        }
        if is_over {
            return;
        }
    }
}
