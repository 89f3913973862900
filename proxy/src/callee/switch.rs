//! A request that asks a callee to switch to another protocol. What follows is a [`super::tunnel`].
//!
//! Nothing that the caller says is read before the callee has answered 101 (RFC 9110 §7.8): what follows a request that
//! was not granted is no request of anybody (CVE-2026-2833).

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};
use policy::{Protocol, Target};
use spiffe::id::BotName;
use tokio_util::task::TaskTracker;

use super::exchange::{INTERIM_MAX, next_head};
use super::tunnel::Guard;
use super::{CalleeBody, CalleeFault, CalleeRequest, Callees, Connection, TunnelBody};
use crate::attest::Attestor;
use crate::call::RequestBody;
use crate::http1::body::Left;
use crate::http1::encode::{self, Form};
use crate::http1::field;
use crate::http1::head::HeadError;
use crate::http1::status::AnswerHead;
use crate::http1::write::Tail;
use crate::live::Held;

/// What is asked of a callee.
#[derive(Debug)]
pub(crate) struct Wish {
    /// With the fields that ask for it.
    pub(crate) request: CalleeRequest,
    /// The protocol to switch to.
    pub(crate) protocol: Protocol,
    /// The call.
    pub(crate) held: Held,
    /// Where the task of the caller's direction belongs.
    pub(crate) tasks: TaskTracker,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Switched {
    /// The callee speaks the protocol.
    Tunnel(TunnelBody),
    /// It answered as if it had not been asked.
    Not(CalleeBody),
}

impl Callees {
    /// Asks a bot of this host to switch, on a connection of its own.
    pub(crate) async fn switch(
        self: &Arc<Self>,
        attestor: &Attestor,
        bot: &BotName,
        target: &Target,
        wish: Wish,
        body: RequestBody,
    ) -> Result<(AnswerHead, Switched), CalleeFault> {
        let connection = self.connect(attestor, bot, target, wish.request.connect).await?;
        let guard = Guard::new(attestor, &connection, wish.held.clone());
        self.switch_on(connection, guard, wish, body).await
    }

    /// Asks whoever is at the other end of a new connection to switch.
    pub(super) async fn switch_on(
        self: &Arc<Self>,
        mut connection: Box<Connection>,
        guard: Guard,
        wish: Wish,
        body: RequestBody,
    ) -> Result<(AnswerHead, Switched), CalleeFault> {
        let request = &wish.request;
        encode::request_head(
            connection.writer.out(),
            &request.method,
            &request.target,
            &request.headers,
            Form::None,
        );
        let sent = connection.writer.send(Tail::default()).await;
        sent.unwrap_or_else(|error| tracing::debug!(%error, "a callee took no more of a request"));
        let count = body.count();
        for _ in 0..=INTERIM_MAX {
            let head = next_head(&mut connection, &mut None, request, &count).await?;
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                if !says(&head.headers, &wish.protocol) {
                    return Err(CalleeFault::Interim);
                }
                let body = TunnelBody::open(*connection, body, guard, &wish.tasks);
                return Ok((head, Switched::Tunnel(body)));
            }
            if !head.status.is_informational() {
                let left = Left::from(head.body);
                return Ok((head, Switched::Not(CalleeBody::alone(self, connection, left))));
            }
        }
        Err(CalleeFault::Interim)
    }
}

/// Tells whether an answer switches to what was asked for and to nothing else.
fn says(headers: &HeaderMap, asked: &Protocol) -> bool {
    let said = field::one(headers, &header::UPGRADE, HeadError::Upgrade).ok().flatten();
    said.and_then(Protocol::parse).is_some_and(|said| said == *asked)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_callee_switches_to_what_was_asked_for_and_to_nothing_else() {
        let websocket = Protocol::parse(b"websocket").unwrap();
        let says = |values: &[&'static str]| {
            let values = values
                .iter()
                .map(|value| (header::UPGRADE, HeaderValue::from_static(value)));
            says(&HeaderMap::from_iter(values), &websocket)
        };
        assert!(says(&["websocket"]) && says(&["WebSocket"]));
        assert!(!says(&[]) && !says(&["h2c"]) && !says(&["websocket, h2c"]));
        let mut twice = HeaderMap::new();
        twice.append(header::UPGRADE, HeaderValue::from_static("websocket"));
        twice.append(header::UPGRADE, HeaderValue::from_static("websocket"));
        assert!(!super::says(&twice, &websocket));
    }
}
