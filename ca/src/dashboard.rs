//! Metrics and health on loopback, without login and without secrets.

use std::sync::Arc;

use audit::EventKind;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use spiffe::time::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::core::Core;
use crate::http1;

/// Connections at once: a scraper, a probe and somebody who looks.
const CONNECTIONS_MAX: usize = 32;

/// Accepts until the CA stops.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| std::future::ready("alive\n")))
        .route("/readyz", get(ready))
        .with_state(Arc::clone(&core));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Cancel safe: neither loses anything when it is dropped before it is ready.
        let place = tokio::select! {
            () = core.cancel.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = core.cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (place, accepted) {
            (Ok(place), Ok((stream, _address))) => {
                let (core, router) = (Arc::clone(&core), router.clone());
                core.tasks.clone().spawn(async move {
                    let _place = place;
                    http1::serve(&core.cancel, stream, router).await;
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "accept a connection to the dashboard");
                http1::pause().await;
            }
            (Err(_closed), Ok(_)) => return,
        }
    }
}

async fn metrics(State(core): State<Arc<Core>>) -> Response {
    core.refresh_gauges();
    match core.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "write the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(core): State<Arc<Core>>) -> Response {
    let problems = core.not_ready().await;
    if problems.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n").into_response()
}

impl Core {
    fn refresh_gauges(&self) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let hosts = self.world.hosts();
        let connected = hosts.iter().filter(|(_, host)| host.session.is_some());
        let oldest = self.cosigned_times.oldest(connected.clone().map(|(name, _)| name));
        // No host is behind where there is none.
        let oldest = oldest.unwrap_or_else(|| self.now());
        self.metrics.heads.cosigned_oldest.set(oldest.unix_seconds());
        let connected = connected.count();
        let away = self.witnesses.iter().filter(|witness| witness.away().is_some());
        self.metrics.heads.witnesses_away.set(gauge(away.count() as u64));
        let own = self.witnesses.own_oldest().map_or(0, Timestamp::unix_seconds);
        self.metrics.heads.own_witnessed_oldest.set(own);
        let generation = self.generation();
        self.metrics.hosts_connected.set(gauge(connected as u64));
        self.metrics
            .quarantines
            .set(gauge(self.quarantines.list().quarantines.len() as u64));
        self.metrics.epoch.set(gauge(generation.epoch));
        self.metrics.revision.set(gauge(generation.revision));
        self.metrics
            .root_not_after_seconds
            .set(self.authority.not_after().unix_seconds());
        if let Some(federation) = &self.federation {
            federation.refresh_gauges(self);
        }
    }

    /// Why the CA cannot issue, one sentence each.
    async fn not_ready(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.now() >= self.authority.not_after() {
            problems.push("the root certificate has ended".to_owned());
        }
        if let Err(error) = self.store.authority().await {
            problems.push(format!("the store does not answer: {error}"));
        }
        problems
    }

    /// Writes that the CA starts to serve.
    pub(crate) fn note_started(&self) {
        self.journal.note(EventKind::Started, "ca", &self.server_id(), []);
    }
}
