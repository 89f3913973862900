//! The request that tells whether a service takes a value. It is a call like every other: a rule of the canary's allows it, the
//! ledger has it, and it goes where such calls go; only that the operator's rotation asked for it, and no bot reads the answer.

use std::time::Duration;

use audit::{Actor, CallRecord, Callee, Direction, EndRecord, Hop, LedgerError, Party, Receipt, Verdict};
use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{HeaderValue, Method, StatusCode};
use policy::{Call, CredentialName, Denial, Permit, Probe};
use spiffe::id::{BotName, SpiffeId};
use thiserror::Error;
use tokio::time::Instant;

use crate::call::{RequestBody, mint};
use crate::callee::{CalleeFault, CalleeRequest, Leaving};
use crate::control::Snapshot;
use crate::credentials::inject::{Misfit, Target, inject};
use crate::credentials::{Loaded, Unavailable, Which};
use crate::outside::connect::OutsideFault;
use crate::proxy::Proxy;

/// How long a probe may take, connecting included.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a probe got no answer. No text has anything of a value.
#[derive(Debug, Error)]
pub(super) enum ProbeError {
    #[error("the slice of this host has no probe for it")]
    NoProbe,
    #[error(
        "there was no value before the new one on this host: nothing is to be revoked, end the rotation by --revoked"
    )]
    NoOldValue,
    #[error("there is no new value on this host")]
    NoValue,
    #[error("the value cannot be looked for in answers")]
    Unavailable {
        #[source]
        source: Unavailable,
    },
    #[error("{bot} is quarantined, or the policy is too old")]
    CutOff { bot: BotName },
    #[error("no rule lets {bot} make it now: {}", denial.reason.as_str())]
    Denied { bot: BotName, denial: Box<Denial> },
    #[error("the rule that lets {bot} make it adds another credential")]
    OtherCredential { bot: BotName },
    #[error("it could not be recorded")]
    Ledger {
        #[source]
        source: LedgerError,
    },
    #[error("there was no randomness for its id")]
    Randomness,
    #[error("the value does not fit the way in which it is added")]
    Misfit {
        #[source]
        source: Misfit,
    },
    #[error("the service was not reached")]
    Unreached {
        #[source]
        source: OutsideFault,
    },
    #[error("the service gave no answer")]
    NoAnswer {
        #[source]
        source: CalleeFault,
    },
    #[error("the service took longer than {}s", PROBE_TIMEOUT.as_secs())]
    Slow,
}

/// Asks the service with one of the values, for `bot`; gives its status.
pub(super) async fn probe(
    proxy: &Proxy,
    name: &CredentialName,
    bot: &BotName,
    which: Which,
) -> Result<u16, ProbeError> {
    let snapshot = proxy.control.snapshot();
    let credential = snapshot.mesh.credential(name.as_str()).ok_or(ProbeError::NoProbe)?;
    let probe = credential.probe.as_ref().ok_or(ProbeError::NoProbe)?;
    let permit = decide(proxy, &snapshot, (bot, name), probe)?;
    let loaded = proxy.credentials.for_probe(name, credential, which).await;
    let loaded = loaded.map_err(|source| ProbeError::Unavailable { source })?;
    let loaded = loaded.ok_or(match which {
        Which::Old => ProbeError::NoOldValue,
        Which::Next | Which::Current => ProbeError::NoValue,
    })?;
    let (record, receipt) = record(proxy, &snapshot, &permit, (name, probe))?;
    let started = Instant::now();
    let asking = ask(proxy, &snapshot, (bot, probe), &loaded, (permit, receipt));
    let answer = tokio::time::timeout(PROBE_TIMEOUT, asking).await;
    let answer = answer.unwrap_or(Err(ProbeError::Slow));
    proxy.ledger.end(&EndRecord {
        id: record.id,
        time: proxy.clock.now(),
        status: answer.as_ref().ok().map(StatusCode::as_u16),
        grpc_status: None,
        request_bytes: 0,
        response_bytes: 0,
        duration_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        upstream_us: 0,
        tries: 1,
        address: None,
        outcome: if answer.is_ok() { "done" } else { "peer_unreachable" }.to_owned(),
    });
    answer.map(|status| status.as_u16())
}

/// Decides on it as on a call of the bot's.
fn decide(
    proxy: &Proxy,
    snapshot: &Snapshot,
    (bot, name): (&BotName, &CredentialName),
    probe: &Probe,
) -> Result<Permit, ProbeError> {
    let (from, now) = (SpiffeId::for_bot(&proxy.trust_domain, bot), proxy.control.now());
    let cut_off = snapshot.cut_off(&from, bot, None, None).is_some();
    if cut_off || proxy.control.policy_too_old(now) {
        return Err(ProbeError::CutOff { bot: bot.clone() });
    }
    let call = Call {
        from,
        to: probe.to.clone().into(),
        what: probe.what(),
    };
    let permit = snapshot.policy.decide(now, call).map_err(|denial| ProbeError::Denied {
        bot: bot.clone(),
        denial: Box::new(denial),
    })?;
    match snapshot.mesh.credential_of(&permit) {
        Some((added, _)) if added == name => Ok(permit),
        Some(_) | None => Err(ProbeError::OtherCredential { bot: bot.clone() }),
    }
}

fn record(
    proxy: &Proxy,
    snapshot: &Snapshot,
    permit: &Permit,
    (name, probe): (&CredentialName, &Probe),
) -> Result<(CallRecord, Receipt), ProbeError> {
    let now = proxy.clock.now();
    let id = mint(now).map_err(|_none| ProbeError::Randomness)?;
    let record = CallRecord {
        actor: Actor::Operator,
        from: Party {
            id: Some(permit.call().from.clone()),
            ..Party::default()
        },
        to: Callee {
            outside: Some(probe.to.to_string()),
            ..Callee::default()
        },
        method: probe.method.as_str().to_owned(),
        path: probe.path.as_str().to_owned(),
        verdict: Verdict::Allow,
        rule: permit.rule().map(|rule| rule.as_str().to_owned()),
        epoch: snapshot.generation.epoch,
        revision: snapshot.generation.revision,
        hop: Some(Hop::Outside),
        credential: Some(name.to_string()),
        ..CallRecord::new(id, now, Direction::Out)
    };
    let receipt = proxy.ledger.call(&record);
    let receipt = receipt.map_err(|source| ProbeError::Ledger { source })?;
    Ok((record, receipt))
}

async fn ask(
    proxy: &Proxy,
    snapshot: &Snapshot,
    (bot, probe): (&BotName, &Probe),
    loaded: &Loaded,
    _allowed_and_recorded: (Permit, Receipt),
) -> Result<StatusCode, ProbeError> {
    let said = snapshot.mesh.outside_destination(&probe.to);
    let said = said.cloned().unwrap_or_default();
    // As `Host` has it: the port is left out where it is the scheme's own.
    let named = probe.to.to_string();
    let host = named.split_once("://").map_or("", |(_, host)| host);
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(host).map_err(|_invalid| ProbeError::Misfit { source: Misfit::Field })?;
    headers.insert(header::HOST, value);
    headers.insert(header::USER_AGENT, HeaderValue::from_static("botmesh-probe"));
    let mut target = Bytes::copy_from_slice(probe.path.as_str().as_bytes());
    let method = if probe.method.as_str() == "HEAD" {
        Method::HEAD
    } else {
        Method::GET
    };
    let to = Target {
        method: &method,
        host,
        target: &mut target,
        headers: &mut headers,
        body: &[],
    };
    inject(&loaded.injection, loaded.secret(), proxy.clock.now(), to)
        .map_err(|source| ProbeError::Misfit { source })?;
    let leaving = Leaving {
        from: bot,
        to: &probe.to,
        at: &probe.to,
        said: &said,
    };
    // A new connection: no call of the bot's waits for this one's answer.
    let line = proxy.callees.leave_anew(leaving).await;
    let line = line.map_err(|source| ProbeError::Unreached { source })?;
    let request = CalleeRequest {
        method,
        target,
        headers,
        patience: PROBE_TIMEOUT,
        connect: None,
    };
    let asked = proxy.callees.ask_outside(line, &request, RequestBody::empty()).await;
    // What it says beside the status is nobody's to read: it may quote the value.
    let (head, _body) = asked.map_err(|source| ProbeError::NoAnswer { source })?;
    Ok(head.status)
}
