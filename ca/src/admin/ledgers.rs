//! One question of an operator to the ledgers of all hosts, and to the CA's own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use audit::EventKind;
use audit::query::{Bounds, Filter, GROUP_KEYS_MAX, Indexes, Key, Stop};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use ca_api::admin::{LEDGERS_WAIT_MAX, LedgerAnswered, LedgersAnswer, LedgersQuestion};
use ca_api::node::{LEDGER_ANSWER_BYTES_MAX, LEDGER_ROWS_MAX, LedgerAnswer, LedgerQuestion};
use serde_json::json;
use spiffe::id::HostName;
use tokio::task::spawn_blocking;

use super::operators::Actor;
use super::problem::{Body, Refused};
use crate::core::Core;
use crate::questions::TooMany;
use crate::store::HostRowState;

/// Bytes of all answers together: what does not fit is said to be missing.
const ALL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long the CA's own ledger may take: less than the others, so that it is there when they are.
const OWN_MAX: Duration = LEDGERS_WAIT_MAX.saturating_sub(Duration::from_secs(2));

pub(super) async fn ask(
    State(core): State<Arc<Core>>,
    Extension(actor): Extension<Actor>,
    Body(asked): Body<LedgersQuestion>,
) -> Result<Json<LedgersAnswer>, Refused> {
    let now = core.now();
    // Read here, so that no host is asked what none can answer.
    let filter = audit::query::parse(&asked.filter, now).map_err(|error| Refused::bad_request(error.to_string()))?;
    let keys = keys(&asked.by)?;
    let rows = usize::try_from(asked.limit).unwrap_or(usize::MAX);
    let rows = rows.clamp(1, LEDGER_ROWS_MAX);
    let hosts = core.world.hosts();
    let known = hosts.iter().filter(|(_, view)| view.row.state == HostRowState::Joined);
    let (connected, away): (Vec<_>, Vec<_>) = known.partition(|(_, view)| view.session.is_some());
    let names = |hosts: Vec<(&HostName, _)>| -> BTreeSet<HostName> {
        hosts.into_iter().map(|(name, _)| name.clone()).collect()
    };
    let (connected, away) = (names(connected), names(away));
    let question = LedgerQuestion {
        id: 0,
        filter: asked.filter.clone(),
        now_unix_ms: now.unix_millis(),
        by: asked.by.clone(),
        rows_max: u32::try_from(rows).unwrap_or(u32::MAX),
    };
    let mut waiting = core.questions.ask(question, connected.clone()).map_err(busy)?;
    record(&core, &actor, &asked, connected.len())?;
    let own = own(&core, filter, keys, rows);
    let told = async {
        let mut told = BTreeMap::new();
        let deadline = tokio::time::Instant::now() + LEDGERS_WAIT_MAX;
        while told.len() < connected.len() {
            // What has not come by then is told as missing.
            let Ok(Some((host, answer))) = tokio::time::timeout_at(deadline, waiting.next()).await else {
                break;
            };
            told.insert(host, answer);
        }
        told
    };
    let (own, told) = tokio::join!(own, told);
    Ok(Json(gathered(&core, own, told, &connected, &away)))
}

fn keys(by: &[String]) -> Result<Vec<Key>, Refused> {
    if by.len() > GROUP_KEYS_MAX {
        return Err(Refused::bad_request(format!("at most {GROUP_KEYS_MAX} keys")));
    }
    let key = |word: &String| Key::parse(word).ok_or_else(|| Refused::bad_request(format!("{word:?} is no key")));
    by.iter().map(key).collect()
}

fn busy(error: TooMany) -> Refused {
    Refused::new(
        StatusCode::TOO_MANY_REQUESTS,
        "busy",
        "the ledgers are being asked",
        error.to_string(),
    )
}

/// Who reads what bots do is in the ledger, before it is read.
fn record(core: &Core, actor: &Actor, asked: &LedgersQuestion, hosts: usize) -> Result<(), Refused> {
    let detail = [
        ("filter", json!(asked.filter)),
        ("by", json!(asked.by)),
        ("hosts", json!(hosts)),
    ];
    let written = core
        .journal
        .event(EventKind::Operator, &actor.to_string(), "ledgers", detail);
    written.map_err(|error| Refused::unavailable("record who asks the ledgers", &error))
}

/// Asks the CA's own ledger.
async fn own(core: &Core, filter: Filter, keys: Vec<Key>, rows: usize) -> LedgerAnswer {
    let dir = core.settings.ledger_dir();
    let stop = Stop::default();
    let bounds = Bounds {
        rows,
        bytes: LEDGER_ANSWER_BYTES_MAX,
    };
    let _ends_with_us = stop.on_drop();
    let asking = spawn_blocking(move || audit::query::answer(&dir, &filter, &keys, bounds, Indexes::Write, &stop));
    let outcome = tokio::time::timeout(OWN_MAX, asking).await;
    let error = |error: String| LedgerAnswer {
        error,
        ..LedgerAnswer::default()
    };
    match outcome {
        Ok(Ok(Ok(found))) => LedgerAnswer {
            rows: found.rows,
            more: found.more,
            ..LedgerAnswer::default()
        },
        Ok(Ok(Err(why))) => error(why.to_string()),
        Ok(Err(_)) | Err(_) => error("it took too long".to_owned()),
    }
}

fn gathered(
    core: &Core,
    own: LedgerAnswer,
    mut told: BTreeMap<HostName, LedgerAnswer>,
    connected: &BTreeSet<HostName>,
    away: &BTreeSet<HostName>,
) -> LedgersAnswer {
    let mut left = ALL_BYTES_MAX;
    let mut ledgers = vec![answered(format!("ca:{}", core.server()), own, &mut left)];
    for host in connected.union(away) {
        let name = format!("host:{host}");
        ledgers.push(match told.remove(host) {
            Some(answer) => answered(name, answer, &mut left),
            None if away.contains(host) => missing(name, "it is not connected"),
            None => missing(name, "it did not answer in time"),
        });
    }
    LedgersAnswer { ledgers }
}

fn answered(ledger: String, answer: LedgerAnswer, left: &mut usize) -> LedgerAnswered {
    if !answer.error.is_empty() {
        return missing(ledger, &answer.error);
    }
    let bytes = answer.rows.iter().map(String::len).fold(0, usize::saturating_add);
    let Some(rest) = left.checked_sub(bytes) else {
        return missing(
            ledger,
            "there was no room for its answer beside the others: ask for fewer rows",
        );
    };
    *left = rest;
    let rows = answer.rows.iter().map(|row| serde_json::from_str(row)).collect();
    match rows {
        Ok(rows) => LedgerAnswered {
            ledger,
            rows,
            more: answer.more,
            missing: None,
        },
        Err(_unreadable) => missing(ledger, "its answer cannot be read"),
    }
}

fn missing(ledger: String, why: &str) -> LedgerAnswered {
    LedgerAnswered {
        ledger,
        rows: Vec::new(),
        more: false,
        missing: Some(why.to_owned()),
    }
}
