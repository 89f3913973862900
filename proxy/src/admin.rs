//! The admin socket: what operators may ask the proxy. Who asks is known by the credentials of the connection.

mod calls;
mod credentials;
mod doctor;
mod health;
mod hold;
mod quarantines;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ca_api::Generation;
use ca_api::admin::Problem;
use ca_api::proxy_admin::{
    BotStatus, BotsResponse, ProxyStatus, RunRequest, RunResponse, SelectorDifference, WhoisResponse, path,
};
use http::header::HeaderValue;
use http::{Method, StatusCode};
use nix::unistd::{Uid, User};
use policy::{Serve, Target};
use serde::Serialize;
use spiffe::id::{BotName, SpiffeId};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::attest::{Mode, NearestEntry, RunRefused, WhoisOutcome};
use crate::config::Operator;
use crate::connection;
use crate::ends;
use crate::plain::{self, CONNECTIONS_MAX, Page, Question};
use crate::proxy::Proxy;

pub(crate) use health::serve as serve_health;

/// What the admin socket tells beside what all connections share.
#[derive(Debug)]
pub(crate) struct Admin {
    /// The uids of the operators.
    pub(crate) operators: BTreeSet<u32>,
    pub(crate) allow_run: bool,
    /// Listener → address.
    pub(crate) listeners: BTreeMap<String, String>,
    /// The folder of the ledger.
    pub(crate) ledger: String,
    /// The folder of the key and the cache.
    pub(crate) state_dir: String,
    /// The address for `http_proxy`.
    pub(crate) http_proxy: String,
}

/// Looks the operators up. A name that nobody has is said and left out: it can let nobody in.
pub(crate) fn uids(operators: &[Operator]) -> BTreeSet<u32> {
    let uid = |operator: &Operator| match operator {
        Operator::Uid(uid) => Some(*uid),
        Operator::Name(name) => match User::from_name(name) {
            Ok(Some(user)) => Some(user.uid.as_raw()),
            Ok(None) => {
                tracing::warn!(user = %name.escape_debug(), "an operator is no user of this host");
                None
            }
            Err(error) => {
                tracing::error!(user = %name.escape_debug(), %error, "an operator could not be looked up");
                None
            }
        },
    };
    operators.iter().filter_map(uid).collect()
}

/// Takes connections until the proxy closes.
pub(crate) async fn serve(proxy: Arc<Proxy>, admin: Arc<Admin>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Losing `accept` midway loses no connection: the kernel keeps it.
        let accepted = tokio::select! {
            () = proxy.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                connection::accept_failed("admin", &error).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let (proxy, admin) = (Arc::clone(&proxy), Arc::clone(&admin));
        let tasks = proxy.tasks.clone();
        drop(tasks.spawn(async move {
            meet(&proxy, &admin, stream).await;
            drop(place);
        }));
    }
}

async fn meet(proxy: &Arc<Proxy>, admin: &Admin, stream: UnixStream) {
    let Ok(peer) = stream.peer_cred() else {
        return;
    };
    let asker = Asker {
        uid: peer.uid(),
        pid: peer.pid().and_then(|pid| u32::try_from(pid).ok()),
    };
    let (read, write) = ends::unix(stream);
    plain::serve(proxy, read, write, |question| answer(proxy, admin, asker, question)).await;
}

/// Who asks, by the kernel's word.
#[derive(Clone, Copy, Debug)]
struct Asker {
    uid: u32,
    pid: Option<u32>,
}

async fn answer(proxy: &Proxy, admin: &Admin, asker: Asker, question: Question) -> Page {
    if !admin.operators.contains(&asker.uid) {
        tracing::warn!(uid = asker.uid, path = %question.path.escape_debug(), "somebody who is no operator asked");
        return problem(
            StatusCode::FORBIDDEN,
            "not_an_operator",
            "Only operators may ask this",
            "see admin.operators",
        );
    }
    match (&question.method, question.path.as_str()) {
        (&Method::GET, path::STATUS) => json(&status(proxy, admin)),
        (&Method::GET, path::BOTS) => json(&bots(proxy)),
        (&Method::GET, path::DOCTOR) => json(&doctor::look(proxy).await),
        (&Method::GET, path::WHOIS) => whois(proxy, &question.query).await,
        (&Method::GET, path::QUARANTINES) => quarantines::list(proxy, 0),
        (&Method::POST, path::QUARANTINE) => quarantines::quarantine(proxy, asker, &question.body).await,
        (&Method::POST, path::RELEASE) => quarantines::release(proxy, asker, &question.body).await,
        (&Method::GET, path::CREDENTIALS) => credentials::list(proxy),
        (&Method::POST, path::CREDENTIAL_PUT) => credentials::put(proxy, asker, &question.body).await,
        (&Method::POST, path::CREDENTIAL_TEST) => credentials::test(proxy, &question.body).await,
        (&Method::POST, path::LEDGER_HOLD) => hold::hold(proxy, asker, &question.body).await,
        (&Method::POST, path::LEDGER_RELEASE) => hold::release(proxy, asker).await,
        (&Method::POST, path::RUN) => run(proxy, admin, asker, &question.body),
        _ => problem(StatusCode::NOT_FOUND, "not_found", "There is no such page", ""),
    }
}

fn json<T: Serialize>(value: &T) -> Page {
    match serde_json::to_vec(value) {
        Ok(body) => Page {
            status: StatusCode::OK,
            content_type: HeaderValue::from_static("application/json"),
            body: body.into(),
        },
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written");
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "unavailable",
                "The answer cannot be written",
                "",
            )
        }
    }
}

fn problem(status: StatusCode, code: &str, title: &str, detail: &str) -> Page {
    let problem = Problem {
        kind: "about:blank".to_owned(),
        title: title.to_owned(),
        status: status.as_u16(),
        detail: detail.to_owned(),
        code: code.to_owned(),
    };
    let content_type = HeaderValue::from_static("application/problem+json");
    Page {
        status,
        content_type,
        body: serde_json::to_vec(&problem).unwrap_or_default().into(),
    }
}

fn status(proxy: &Proxy, admin: &Admin) -> ProxyStatus {
    let (status, readiness, ledger) = (proxy.control.status(), proxy.control.ready(), proxy.ledger.stats());
    let mut notes = vec![format!(
        "the bots' SVIDs and keys are kept in {}, a 0600 file; nothing else seals it (no TPM)",
        status.svids_file.display()
    )];
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        notes.push("it runs as root (`user: root`): what reads strangers' requests may do everything here".to_owned());
    }
    if let Some(error) = &status.link.error {
        notes.push(format!("the stream to the CA is down: {error}"));
    }
    notes.extend(proxy.ledger.held().as_ref().map(hold::note));
    let unpruned = ledger.prune_trouble;
    notes.extend(unpruned.map(|why| format!("records past their time are not pruned: {why}")));
    // What cannot be recorded is not carried.
    let mut not_ready: Vec<String> = readiness.missing.iter().map(ToString::to_string).collect();
    not_ready.extend(ledger.trouble.map(|trouble| format!("the ledger: {trouble}")));
    ProxyStatus {
        trust_domain: status.trust_domain,
        host: status.host,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: status.now,
        ready: not_ready.is_empty(),
        not_ready,
        ca_connected: status.link.connected.is_some(),
        ca_heard: status.ca_heard,
        generation: status.generation.map(|g| Generation {
            epoch: g.epoch,
            revision: g.revision,
        }),
        node_svid_not_after: status.node_not_after,
        same_user: proxy.attestor.mode() == Mode::SameUser,
        listeners: admin.listeners.clone(),
        ledger: admin.ledger.clone(),
        uid: Some(uid.as_raw()),
        state_dir: Some(admin.state_dir.clone()),
        pid: Some(std::process::id()),
        calls: Some(calls::calls(proxy)),
        notes,
    }
}

fn bots(proxy: &Proxy) -> BotsResponse {
    let (snapshot, status) = (proxy.control.snapshot(), proxy.control.status());
    let told = |bot: &BotName| {
        let svid = status.svids.iter().find(|svid| svid.bot == *bot);
        let serve = snapshot.mesh.bots().get(bot).and_then(|bot| bot.serve.as_ref());
        BotStatus {
            bot: bot.clone(),
            id: SpiffeId::for_bot(&proxy.trust_domain, bot).to_string(),
            ready: svid.is_some_and(|svid| svid.not_after.is_some()),
            serial: svid.and_then(|svid| svid.serial.clone()),
            not_after: svid.and_then(|svid| svid.not_after),
            serves: serve.map(ToString::to_string),
            open_ports: serve.map(open_ports).unwrap_or_default(),
            notes: notes(svid.and_then(|svid| svid.error.as_deref()), serve),
        }
    };
    BotsResponse {
        bots: snapshot.claimable().map(told).collect(),
    }
}

/// The loopback ports of a bot, which any process of the host can call without the proxy.
fn open_ports(serve: &Serve) -> Vec<u16> {
    let port = |target: &Target| match target {
        Target::Port(port) => Some(*port),
        Target::Unix(_) | Target::Elsewhere | Target::Endpoints(_) => None,
    };
    serve.targets().filter_map(port).collect()
}

fn notes(error: Option<&str>, serve: Option<&Serve>) -> Vec<String> {
    let mut notes: Vec<String> = error
        .map(|error| format!("its SVID was not renewed: {error}"))
        .into_iter()
        .collect();
    for port in serve.map(open_ports).unwrap_or_default() {
        notes.push(format!(
            "open locally: any process of this host can call 127.0.0.1:{port} without the proxy, unless the table of \
             `botmesh host guard` is loaded; a Unix socket in a folder of mode 0750 cannot be called so"
        ));
    }
    notes
}

async fn whois(proxy: &Proxy, query: &str) -> Page {
    let pid = query
        .split('&')
        .find_map(|part| part.strip_prefix("pid="))
        .and_then(|pid| pid.parse().ok());
    let Some(pid) = pid else {
        return problem(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "Say which process: ?pid=NUMBER",
            "",
        );
    };
    match proxy.attestor.whois(pid).await {
        Ok(report) => {
            let (bot, message, nearest) = match report.outcome {
                WhoisOutcome::Bot { bot } => (Some(bot), String::new(), None),
                WhoisOutcome::Nearest { nearest } => (None, "no entry matches the process".to_owned(), Some(nearest)),
                WhoisOutcome::Nobody => (None, "there is no entry to compare with".to_owned(), None),
                WhoisOutcome::Two { one, two } => (None, format!("the process matches both {one} and {two}"), None),
            };
            let notes = [Some(message).filter(|text| !text.is_empty()), report.program_note]
                .into_iter()
                .flatten();
            json(&WhoisResponse {
                facts: report.facts,
                bot,
                message: notes.collect::<Vec<_>>().join("; "),
                nearest: nearest.as_ref().map(|nearest| nearest.bot.clone()),
                differs: nearest.map(
                    |NearestEntry {
                         selector,
                         wanted,
                         found,
                         ..
                     }| {
                        SelectorDifference {
                            selector,
                            wanted,
                            found,
                        }
                    },
                ),
                entry: report.entry,
            })
        }
        Err(unattested) => problem(
            StatusCode::NOT_FOUND,
            "no_such_process",
            &format!("Process {pid} cannot be looked at"),
            &unattested.to_string(),
        ),
    }
}

/// Binds a bot to the process that asks, which then becomes the bot's program.
fn run(proxy: &Proxy, admin: &Admin, asker: Asker, body: &[u8]) -> Page {
    if !admin.allow_run {
        return problem(
            StatusCode::FORBIDDEN,
            "run_not_allowed",
            "This host starts no bots",
            "see allow_run",
        );
    }
    let request: RunRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "bad_request",
                "The request is none",
                &error.to_string(),
            );
        }
    };
    let Some(pid) = asker.pid else {
        return problem(
            StatusCode::FORBIDDEN,
            "not_visible",
            "The asking process cannot be seen from here",
            "",
        );
    };
    let name = User::from_uid(Uid::from_raw(asker.uid))
        .ok()
        .flatten()
        .map(|user| user.name);
    let operator = name.unwrap_or_else(|| asker.uid.to_string());
    match proxy.attestor.bind_run(pid, request.bot.clone(), &operator) {
        Ok(()) => {
            tracing::info!(bot = %request.bot, pid, %operator, "an operator started a bot");
            json(&bound(proxy, admin, request.bot, pid))
        }
        Err(refused) => {
            let code = if matches!(refused, RunRefused::NotAllowed { .. }) {
                "not_run_by"
            } else {
                "run_refused"
            };
            problem(
                StatusCode::FORBIDDEN,
                code,
                "The process was not bound",
                &refused.to_string(),
            )
        }
    }
}

fn bound(proxy: &Proxy, admin: &Admin, bot: BotName, pid: u32) -> RunResponse {
    let id = SpiffeId::for_bot(&proxy.trust_domain, &bot).to_string();
    let proxies = ["http_proxy", "HTTP_PROXY", "https_proxy", "grpc_proxy"];
    let mut environment: BTreeMap<String, String> =
        proxies.map(|name| (name.to_owned(), admin.http_proxy.clone())).into();
    // Node reads the variables above only where this one is set.
    environment.insert("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned());
    RunResponse {
        bot,
        id,
        pid,
        environment,
        unset: ["no_proxy", "NO_PROXY"].map(str::to_owned).into(),
    }
}
