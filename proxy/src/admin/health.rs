//! Metrics and health, for whoever is on this host.

use std::sync::Arc;

use http::header::HeaderValue;
use http::{Method, StatusCode};
use spiffe::id::BotName;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::connection;
use crate::credentials::{State, VaultError, VaultWord};
use crate::ends;
use crate::plain::{self, CONNECTIONS_MAX, Page, Question};
use crate::proxy::Proxy;

/// Prometheus text format.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// Takes connections until the proxy closes.
pub(crate) async fn serve(proxy: Arc<Proxy>, listener: TcpListener) {
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
                connection::accept_failed("metrics", &error).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let proxy = Arc::clone(&proxy);
        let tasks = proxy.tasks.clone();
        drop(tasks.spawn(async move {
            let (read, write) = ends::tcp(stream);
            plain::serve(&proxy, read, write, |question| {
                std::future::ready(answer(&proxy, &question))
            })
            .await;
            drop(place);
        }));
    }
}

fn answer(proxy: &Proxy, question: &Question) -> Page {
    if !matches!(question.method, Method::GET | Method::HEAD) {
        return Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
    }
    match question.path.as_str() {
        "/livez" => Page::text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(proxy),
        "/metrics" => Page {
            status: StatusCode::OK,
            content_type: METRICS,
            body: proxy.metrics.render(proxy).into(),
        },
        _ => Page::text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n"),
    }
}

/// A line for each bot of this host that can be called without the proxy. That is no reason to carry no calls.
fn open_locally(proxy: &Proxy) -> String {
    let snapshot = proxy.control.snapshot();
    let lines = |bot: &BotName| {
        let serve = snapshot.mesh.bots().get(bot).and_then(|bot| bot.serve.as_ref());
        let ports = serve.map(super::open_ports).unwrap_or_default().into_iter();
        let line = |port| {
            format!("note: {bot} is open locally on 127.0.0.1:{port} unless it is guarded: see `botmesh check`\n")
        };
        ports.map(line).collect::<String>()
    };
    snapshot.claimable().map(lines).collect()
}

/// A line for each credential that could not be read the last time. Calls that need none are carried all the same.
fn credentials(proxy: &Proxy) -> String {
    let snapshot = proxy.control.snapshot();
    let states = proxy
        .credentials
        .states(snapshot.mesh.credentials().map(|(name, _)| name));
    let line = |state: &State| {
        let error = state.error.as_ref()?;
        let lives = if state.fingerprint.is_some() {
            "its old value is used for a time"
        } else {
            "calls that need it are refused"
        };
        let why = crate::control::chain_of(&**error);
        Some(format!(
            "note: credential {} cannot be read, {lives}: {why}\n",
            state.name
        ))
    };
    let exchanged = |state: &State| {
        let token = state.token.as_ref()?;
        let error = token.error.as_ref()?;
        let lives = if token.fingerprint.is_some() {
            "its old token is used for a time"
        } else {
            "calls that need it are refused"
        };
        let error = crate::control::chain_of(&**error);
        Some(format!(
            "note: credential {} cannot be exchanged, {lives}: {error}\n",
            state.name
        ))
    };
    let unread = states.iter().filter_map(line);
    let unexchanged = unread.chain(states.iter().filter_map(exchanged));
    unexchanged.chain(states.iter().flat_map(of_bots)).collect()
}

/// A line for each bot that got no token of its own the last time.
fn of_bots(state: &State) -> impl Iterator<Item = String> {
    state.bots.iter().filter_map(|(bot, token)| {
        let error = crate::control::chain_of(&**token.error.as_ref()?);
        let lives = if token.fingerprint.is_some() {
            "its old token is used for a time"
        } else {
            "its calls that need one are refused"
        };
        let name = &state.name;
        Some(format!(
            "note: {bot} gets no token of credential {name}, {lives}: {error}\n"
        ))
    })
}

/// A line for each vault that has not taken leases back yet.
fn leases(proxy: &Proxy) -> String {
    let waiting = proxy.credentials.leases().waiting().into_iter();
    let line = |(vault, (count, error)): (VaultWord, (usize, Option<Arc<VaultError>>))| {
        let why = crate::control::chain_of(&*error?);
        Some(format!(
            "note: vault {vault} has not taken back all leases, {count} of them, and is asked again: {why}\n"
        ))
    };
    waiting.filter_map(line).collect()
}

/// Ready where calls can be carried: nothing is missing, and they can be recorded.
fn ready(proxy: &Proxy) -> Page {
    let mut missing: Vec<String> = proxy.control.ready().missing.iter().map(ToString::to_string).collect();
    if let Some(trouble) = proxy.ledger.stats().trouble {
        missing.push(format!("the ledger: {trouble}"));
    }
    if missing.is_empty() {
        return Page::text(
            StatusCode::OK,
            format!("ok\n{}{}{}", open_locally(proxy), credentials(proxy), leases(proxy)),
        );
    }
    Page::text(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n")
}
