//! What an operator looks at: bots and the CA itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use ca_api::admin::{Bot, BotList, CaStatus};
use spiffe::id::SpiffeId;

use super::problem::Refused;
use crate::core::Core;
use crate::store::HostRowState;

pub(super) async fn bots(State(core): State<Arc<Core>>) -> Result<Json<BotList>, Refused> {
    let issued = core
        .store
        .issuances_by_id()
        .await
        .map_err(|error| Refused::unavailable("read the issuances", &error))?;
    let live = core.world.live();
    let (routes, hosts, quarantines) = (core.world.routes(), core.world.hosts(), core.quarantines.list());
    let bots = live.mesh.iter().flat_map(|mesh| mesh.bots()).map(|(name, bot)| {
        let id = SpiffeId::for_bot(core.trust_domain(), name);
        let issued = issued.get(id.as_str());
        let endpoints = routes
            .iter()
            .filter(|(host, _)| bot.serve.is_some() && bot.may_run_on(host));
        Bot {
            bot: name.clone(),
            id: id.to_string(),
            owner: bot.owner.clone(),
            hosts: bot.hosts.clone(),
            serves: bot.serve.is_some(),
            endpoints: endpoints.map(|(_, address)| address.to_string()).collect(),
            svid_ttl_seconds: bot.svid_ttl.as_secs(),
            last_issued: issued.map(|issued| issued.last_issued),
            svid_not_after: issued.map(|issued| issued.not_after),
            quarantined: quarantines.has_bot(name),
            connected_hosts: hosts
                .values()
                .filter(|view| view.session.is_some() && bot.may_run_on(&view.row.name))
                .map(|view| view.row.name.clone())
                .collect(),
        }
    });
    Ok(Json(BotList {
        generation: live.generation,
        bots: bots.collect(),
    }))
}

pub(super) async fn status(State(core): State<Arc<Core>>) -> Json<CaStatus> {
    let live = core.world.live();
    let hosts = core.world.hosts();
    let joined = hosts
        .values()
        .filter(|view| view.row.state == HostRowState::Joined)
        .count();
    let connected = hosts.values().filter(|view| view.session.is_some()).count();
    let issued = ["bot", "host", "ca"].map(|kind| core.metrics.issued.with_label_values(&[kind, "issued"]).get());
    Json(CaStatus {
        trust_domain: core.trust_domain().clone(),
        server: core.server().clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: core.now(),
        started: core.started,
        generation: live.generation,
        root_not_after: core.authority.not_after(),
        root_pin: crate::hex(&core.authority.pin()),
        node_api: core.addresses.node_api.to_string(),
        dashboard: core.addresses.dashboard.to_string(),
        hosts: joined as u64,
        hosts_connected: connected as u64,
        bots: live.mesh.as_ref().map_or(0, |mesh| mesh.bots().len()) as u64,
        issued: issued.iter().sum(),
        quarantines: core.quarantines.list().quarantines.len() as u64,
        refused: core.metrics.refused_in_all(),
        federation: core.federation.as_ref().map(|federation| federation.status(&core)),
        ledger: core.settings.ledger_dir().display().to_string(),
        notes: notes(&core),
    })
}

fn notes(core: &Core) -> Vec<String> {
    let kek = core.settings.kek_file();
    let away = |witness: &crate::witness::Witness| {
        let away = witness.away()?;
        Some(format!(
            "the witness {} is away since {}, and cosigns no heads meanwhile: {}",
            witness.key().name(),
            away.since,
            away.why
        ))
    };
    let mut notes: Vec<String> = core.witnesses.iter().filter_map(away).collect();
    notes.extend([
        format!(
            "the key-encryption key is a file, {}: whoever reads it and the key folder has the root",
            kek.display()
        ),
        format!(
            "the root ends at {} and is not rotated by this version",
            core.authority.not_after()
        ),
    ]);
    let ledger = core.journal.ledger();
    notes.extend(ledger.held().as_ref().map(super::hold::note));
    let unpruned = ledger.stats().prune_trouble;
    notes.extend(unpruned.map(|why| format!("records past their time are not pruned: {why}")));
    notes
}
