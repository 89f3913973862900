//! The way out of the mesh: from the caller's own proxy to an address that was judged.
//!
//! Nobody else decides about such a call, so limits, breaker and record are this proxy's alone. What comes back is passed on
//! as it is, a redirect too: where that leads is another call, of the bot's own making.

use std::sync::Arc;
use std::time::Duration;

use audit::Receipt;
use http::StatusCode;
use http::header::HeaderMap;
use policy::{Permit, Protocol};
use rustls::CertificateError;

use super::super::body::{AnswerBody, RequestBody};
use super::super::draft::Draft;
use super::super::end::End;
use super::super::identify::Who;
use super::super::normalize::Rest;
use super::super::refusal::Refusal;
use super::super::route::OutsideRoute;
use super::bot::{callee_refusal, fields_of_http1};
use super::{Came, From, ended, hold, own_svid, target};
use crate::callee::{CalleeFault, CalleeRequest, Leaving, OutsideLine, Switched, Wish};
use crate::live::{Held, Lane};
use crate::outside::connect::OutsideFault;
use crate::outside::resolve::ResolveError;
use crate::reason::Reason;

/// How long nothing may move in a tunnel where the mesh does not say: as between bots.
const TUNNEL_IDLE: Duration = Duration::from_hours(1);

/// Refuses a caller that has no identity at the moment: it makes no call, wherever that would lead. And one of gRPC, whose
/// client would wait for trailers that HTTP/1.1 does not bring.
pub(super) fn may_leave(draft: &mut Draft, who: &Who) -> Result<(), Box<Refusal>> {
    if draft.grpc {
        let detail =
            "the proxy speaks HTTP/1.1 to the outside, which carries no gRPC; a rule to tls:// lets the bot's own pass";
        return Err(Refusal::boxed(Reason::BadRequest, detail));
    }
    own_svid(draft, who).map(drop)
}

/// Carries the call out.
pub(super) async fn onward(
    draft: &Draft,
    who: &Who,
    (permit, _receipt, rest): (Permit, Receipt, Rest<Arc<OutsideRoute>>),
    end: &mut End,
) -> Result<Came, Box<Refusal>> {
    let Rest {
        to,
        method,
        query,
        mut headers,
        body,
    } = rest;
    let call = permit.into_call();
    let said = draft.snapshot.mesh.outside_destination(&to.outside);
    let said = said.cloned().unwrap_or_default();
    let request = match call.http() {
        Some(ask) => {
            fields_of_http1(&mut headers, &to.host, ask.upgrade.as_ref())?;
            let request = CalleeRequest {
                method,
                target: target(&ask.path, query.as_ref()),
                headers,
                patience: said.waits.request_timeout.unwrap_or(draft.proxy().bounds.request),
                connect: None,
            };
            Some((request, ask.upgrade.clone()))
        }
        None => None,
    };
    let way = Way {
        draft,
        held: hold(draft, who, call)?,
        leaving: Leaving {
            from: &who.bot,
            to: &to.outside,
            said: &said,
        },
    };
    let (count, mut idle) = (body.count(), said.waits.stream_idle);
    end.admitted().tried();
    let came = match request {
        Some((request, None)) => way.ask(&request, body, end).await,
        Some((request, Some(protocol))) => way.switch(request, protocol, body, end).await,
        None => {
            idle = idle.or(Some(TUNNEL_IDLE));
            way.tunnel(body, end).await
        }
    };
    way.held.may_stand_still(idle, count);
    came
}

/// One call on its way out.
struct Way<'a> {
    draft: &'a Draft,
    held: Held,
    leaving: Leaving<'a>,
}

/// Whether a connection that an earlier call left will do.
#[derive(Clone, Copy)]
enum Want {
    Any,
    New,
}

impl Way<'_> {
    /// Has the answer to a request come.
    ///
    /// It is sent a second time where a bot's would be: on a kept connection that ended without a byte of an answer, with
    /// its body here whole, and where twice is the same as once.
    async fn ask(&self, request: &CalleeRequest, body: RequestBody, end: &mut End) -> Result<Came, Box<Refusal>> {
        let again = body.as_whole().filter(|_| request.method.is_idempotent());
        let none = body.is_empty();
        let line = self.line(Want::Any, end).await?;
        let kept = line.kept;
        match self.exchange(line, request, body).await? {
            Err(CalleeFault::Gone { begun: false }) if kept && again.is_some() && self.may_again(end) => {}
            done => return done.map_err(|fault| self.refusal(&fault)),
        }
        let body = again
            .filter(|_| !none)
            .map_or_else(RequestBody::empty, RequestBody::whole);
        let line = self.line(Want::New, end).await?;
        let done = self.exchange(line, request, body).await?;
        done.map_err(|fault| self.refusal(&fault))
    }

    fn may_again(&self, end: &End) -> bool {
        let may = end.admitted().may_retry(self.draft.proxy().upstreams.now());
        if may {
            end.admitted().tried();
        }
        may
    }

    async fn exchange(
        &self,
        line: OutsideLine,
        request: &CalleeRequest,
        body: RequestBody,
    ) -> Result<Result<Came, CalleeFault>, Box<Refusal>> {
        let asking = std::pin::pin!(self.draft.proxy().callees.ask_outside(line, request, body));
        let answered = self.held.while_allowed(Lane::Answer, asking).await.map_err(ended)?;
        Ok(answered.map(|(head, body)| {
            let body = AnswerBody::callee(body, self.held.clone());
            (head.status, head.headers, (body, From::Bot))
        }))
    }

    /// Asks to switch to another protocol.
    async fn switch(
        &self,
        request: CalleeRequest,
        protocol: Protocol,
        body: RequestBody,
        end: &mut End,
    ) -> Result<Came, Box<Refusal>> {
        let line = self.line(Want::New, end).await?;
        let proxy = self.draft.proxy();
        let wish = Wish {
            request,
            protocol,
            held: self.held.clone(),
            tasks: proxy.tasks.clone(),
        };
        let body = body.held(&self.held);
        let switching = std::pin::pin!(proxy.callees.switch_outside(line, wish, body));
        let switched = self.held.while_allowed(Lane::Answer, switching).await.map_err(ended)?;
        let (head, switched) = switched.map_err(|fault| self.refusal(&fault))?;
        let body = match switched {
            Switched::Tunnel(body) => AnswerBody::tunnel(body, self.held.clone()),
            Switched::Not(body) => AnswerBody::callee(body, self.held.clone()),
        };
        Ok((head.status, head.headers, (body, From::Bot)))
    }

    /// Opens a tunnel for the caller's own TLS.
    async fn tunnel(&self, body: RequestBody, end: &mut End) -> Result<Came, Box<Refusal>> {
        let line = self.line(Want::New, end).await?;
        let (host, tasks) = (self.leaving.to.host(), &self.draft.proxy().tasks);
        let body = line.tunnel(host, body.held(&self.held), self.held.clone(), tasks);
        let body = AnswerBody::tunnel(body, self.held.clone());
        Ok((StatusCode::OK, HeaderMap::new(), (body, From::Bot)))
    }

    /// Finds or opens a connection, and notes where it leads.
    async fn line(&self, want: Want, end: &mut End) -> Result<OutsideLine, Box<Refusal>> {
        let proxy = self.draft.proxy();
        let leaving = std::pin::pin!(async {
            match want {
                Want::Any => proxy.callees.leave(self.leaving).await,
                Want::New => proxy.callees.leave_anew(self.leaving).await,
            }
        });
        let found = self.held.while_allowed(Lane::Answer, leaving).await.map_err(ended)?;
        let line = found.map_err(|fault| not_reached(self.leaving, &fault))?;
        end.leads_to(line.address);
        self.held.leads_to(proxy, line.address).map_err(ended)?;
        Ok(line)
    }

    fn refusal(&self, fault: &CalleeFault) -> Box<Refusal> {
        callee_refusal(self.leaving.to, fault)
    }
}

/// What the bot is told of a destination that was not reached. Which address it was, and what the system said, is the
/// operator's to read.
fn not_reached(leaving: Leaving<'_>, fault: &OutsideFault) -> Box<Refusal> {
    let to = leaving.to;
    tracing::info!(%to, from = %leaving.from, error = fault as &dyn std::error::Error, "a destination outside was not reached");
    let (reason, detail) = match fault {
        OutsideFault::Forbidden { .. } => (
            Reason::OutsideForbidden,
            "its name leads to an address that may not be called",
        ),
        OutsideFault::Resolve { source } => match source {
            ResolveError::Slow => (Reason::Timeout, "its name was not resolved in time"),
            ResolveError::Busy => (
                Reason::Overloaded,
                "too many names are being resolved; try again a little later",
            ),
            ResolveError::System { .. } | ResolveError::NoAddress | ResolveError::File { .. } => {
                (Reason::PeerUnreachable, "its name has no address")
            }
        },
        OutsideFault::Connect { .. } => (Reason::PeerUnreachable, "nobody answers there"),
        OutsideFault::Tls { source, .. } => of_tls(source),
        OutsideFault::SetUp { .. } => (
            Reason::PeerMismatch,
            "the authorities that the mesh file names for it cannot be used",
        ),
        OutsideFault::Slow => (Reason::Timeout, "it was not reached in time"),
    };
    Refusal::boxed(reason, detail)
}

/// Tells who did not prove to be the destination from who broke off.
fn of_tls(error: &std::io::Error) -> (Reason, &'static str) {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match error {
        Some(rustls::Error::InvalidCertificate(wrong)) => (Reason::PeerMismatch, of_certificate(wrong)),
        Some(_) => (Reason::PeerUnreachable, "TLS 1.3 with it failed"),
        None => (Reason::PeerUnreachable, "it broke off the TLS handshake"),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the errors are rustls's, whose list grows; what has no words of its own is no proof either"
)]
fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is of another name"
        }
        CertificateError::UnknownIssuer => "no authority that may vouch for it does",
        _ => "its certificate is not valid",
    }
}
