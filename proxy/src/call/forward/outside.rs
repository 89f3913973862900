//! The way out of the mesh: from the caller's own proxy to an address that was judged.
//!
//! Nobody else decides about such a call, so limits, breaker and record are this proxy's alone. What comes back is passed on
//! as it is, a redirect too: where that leads is another call, of the bot's own making.

use std::sync::Arc;
use std::time::Duration;

use audit::Receipt;
use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{HeaderValue, StatusCode};
use http_body::Body as _;
use policy::{Injection, Outside, Permit, Protocol};
use rustls::CertificateError;

use super::super::body::{AnswerBody, RequestBody, WholeError};
use super::super::draft::Draft;
use super::super::end::End;
use super::super::identify::{Door, Who};
use super::super::normalize::Rest;
use super::super::refusal::Refusal;
use super::super::route::{OutsideRoute, host_of};
use super::bot::{callee_refusal, fields_of_http1};
use super::{Came, From, ended, hold, own_svid, postgres, target};
use crate::callee::{CalleeFault, CalleeRequest, Leaving, OutsideLine, Switched, Wish};
use crate::credentials::inject::{Misfit, Target, inject};
use crate::credentials::mask::Finder;
use crate::credentials::{Loaded, SIGNED_BODY_MAX, Unavailable};
use crate::live::{Held, Lane};
use crate::outside::connect::OutsideFault;
use crate::outside::resolve::ResolveError;
use crate::reason::Reason;

/// How long nothing may move in a tunnel where the mesh does not say: as between bots.
pub(super) const TUNNEL_IDLE: Duration = Duration::from_hours(1);

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
    (door, who): (&Door, &Who),
    (permit, receipt, rest): (Permit, Receipt, Rest<Arc<OutsideRoute>>),
    end: &mut End,
) -> Result<Came, Box<Refusal>> {
    if rest.body.start().is_some() {
        return Box::pin(postgres::onward(draft, (door, who), (permit, receipt, rest), end)).await;
    }
    ask(draft, (door, who), (permit, receipt, rest), end).await
}

/// Carries out what begins no session of a database.
async fn ask(
    draft: &Draft,
    (door, who): (&Door, &Who),
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
    let (proxy, mesh) = (draft.proxy(), &draft.snapshot.mesh);
    let loaded = proxy.credentials.of(&permit, mesh, door.caller()).await;
    let loaded = loaded.map_err(|error| no_credential(&error))?;
    let (live, call) = (proxy.credentials.live(), permit.into_call());
    let (at, host) = place(&to, loaded.as_deref())?;
    // Nothing of a tunnel, whose bytes nobody can look through.
    let target = call
        .http()
        .map_or_else(Bytes::new, |ask| target(&ask.path, query.as_ref()));
    if let Some(live) = &live {
        holds_no_secret(live, &target, &headers, &body)?;
    }
    let said = mesh.outside_destination(&to.outside);
    let said = said.cloned().unwrap_or_default();
    let request = match call.http() {
        Some(ask) => {
            fields_of_http1(&mut headers, &host, ask.upgrade.as_ref())?;
            let request = CalleeRequest {
                method,
                target,
                headers,
                patience: said.waits.request_timeout.unwrap_or(proxy.bounds.request),
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
            at: &at,
            said: &said,
        },
        credential: loaded,
    };
    let body = body.guarded(live);
    let (count, mut idle) = (body.count(), said.waits.stream_idle);
    end.admitted().tried();
    let came = match request {
        Some((request, None)) => way.ask_with(request, body, end).await,
        Some((request, Some(protocol))) => way.switch(request, protocol, body, end).await,
        None => {
            idle = idle.or(Some(TUNNEL_IDLE));
            way.tunnel(body, end).await
        }
    };
    way.held.may_stand_still(idle, count);
    came
}

/// Where a destination is, and what is read there in `Host`: both are the credential's where the address is a secret.
fn place(to: &OutsideRoute, credential: Option<&Loaded>) -> Result<(Outside, HeaderValue), Box<Refusal>> {
    if to.outside.credential().is_none() {
        return Ok((to.outside.clone(), to.host.clone()));
    }
    let found = credential.and_then(|credential| match &credential.injection {
        Injection::Url(at) => Some((at.clone(), host_of(at)?)),
        Injection::Header { .. }
        | Injection::Bearer
        | Injection::Basic { .. }
        | Injection::Query { .. }
        | Injection::Hmac(_)
        | Injection::Sigv4 { .. }
        | Injection::Postgres { .. }
        | Injection::OAuth(_)
        | Injection::GithubApp(_)
        | Injection::Federate(_) => None,
    });
    found.ok_or_else(|| {
        let detail = "the credential of that name is no address";
        Refusal::boxed(Reason::CredentialUnavailable, detail)
    })
}

/// One call on its way out.
struct Way<'a> {
    draft: &'a Draft,
    held: Held,
    leaving: Leaving<'a>,
    /// What is added to the request, and taken out of the answer.
    credential: Option<Arc<Loaded>>,
}

/// Whether a connection that an earlier call left will do.
#[derive(Clone, Copy)]
enum Want {
    Any,
    New,
}

impl Way<'_> {
    /// Adds what the rule grants, and asks.
    async fn ask_with(
        &self,
        mut request: CalleeRequest,
        mut body: RequestBody,
        end: &mut End,
    ) -> Result<Came, Box<Refusal>> {
        let Some(credential) = &self.credential else {
            return self.ask(&request, body, end).await;
        };
        let mut signed = Bytes::new();
        if credential.injection.signs_body() {
            let whole = std::pin::pin!(body.into_whole(SIGNED_BODY_MAX));
            let whole = self.held.while_allowed(Lane::Request, whole).await.map_err(ended)?;
            (signed, body) = whole.map_err(|error| unsigned(&error))?;
        }
        // Refused where it would be anything but one field value: it was read out of this very map.
        let host = request.headers.get(header::HOST).cloned();
        let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let target = Target {
            method: &request.method,
            host,
            target: &mut request.target,
            headers: &mut request.headers,
            body: &signed,
        };
        let now = self.draft.proxy().clock.now();
        inject(&credential.injection, credential.secret(), now, target)
            .map_err(|misfit| misfits(credential, misfit))?;
        let (status, headers, (body, from)) = self.ask(&request, body, end).await?;
        credential.answered(status);
        self.guarded(
            credential,
            status,
            headers,
            body.guarded(credential, self.leaving.from),
            from,
        )
    }

    /// Takes the credential out of the answer, whose body is taken care of already.
    fn guarded(
        &self,
        credential: &Arc<Loaded>,
        status: StatusCode,
        mut headers: HeaderMap,
        body: AnswerBody,
        from: From,
    ) -> Result<Came, Box<Refusal>> {
        let is_plain = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
        let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        // A key that only signs was never shown, and many objects are kept compressed.
        let could_hold = credential.injection.sends_value() && !body.is_end_stream();
        if could_hold && !encodings.all(is_plain) {
            let detail = "its answer is compressed although it was asked not to: nobody could see whether the credential is in it";
            return Err(Refusal::boxed(Reason::PeerUnreachable, detail));
        }
        if credential.finder.mask_fields(&mut headers) {
            credential.masked(self.leaving.from);
        }
        Ok((status, headers, (body, from)))
    }

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

/// Refuses a request that has a credential of this host in it: the proxy adds those itself, where they belong, so this one leaks
/// what somebody gave away. Of a body that comes by and by the rest is looked at on its way.
fn holds_no_secret(live: &Finder, target: &[u8], headers: &HeaderMap, body: &RequestBody) -> Result<(), Box<Refusal>> {
    let whole = body.as_whole().unwrap_or_default();
    let in_field = headers.values().any(|value| live.is_in(value.as_bytes()));
    if in_field || live.is_in(target) || live.is_in(&whole) {
        return Err(secret_in_request());
    }
    Ok(())
}

/// What a bot is told that sends a credential itself.
pub(in crate::call) fn secret_in_request() -> Box<Refusal> {
    let detail = "the proxy adds it where it belongs, and nobody else sends it";
    Refusal::boxed(Reason::SecretInRequest, detail)
}

/// What the bot is told of a credential that was not read. Where it is and what is wrong there is the operator's to read.
pub(super) fn no_credential(error: &Unavailable) -> Box<Refusal> {
    tracing::info!(
        error = error as &dyn std::error::Error,
        "a call was not made for want of its credential"
    );
    let detail =
        "the proxy has no value for the credential of this call; an operator finds why by `botmesh secret list`";
    Refusal::boxed(Reason::CredentialUnavailable, detail)
}

/// A value that does not fit the way in which the mesh file has it added.
fn misfits(credential: &Loaded, misfit: Misfit) -> Box<Refusal> {
    tracing::warn!(credential = %credential.name, error = &misfit as &dyn std::error::Error, "a credential does not fit");
    let detail = "the value of the credential does not fit the way in which it is added; an operator finds why in the proxy's log";
    Refusal::boxed(Reason::CredentialUnavailable, detail)
}

/// A body that cannot be signed.
fn unsigned(error: &WholeError) -> Box<Refusal> {
    match error {
        WholeError::Long => {
            let detail = format!("a body that the proxy signs has at most {} KiB", SIGNED_BODY_MAX / 1024);
            Refusal::boxed(Reason::BadRequest, detail)
        }
        WholeError::Body { source } => {
            tracing::debug!(
                error = source as &dyn std::error::Error,
                "a body that was to be signed broke off"
            );
            Refusal::boxed(Reason::BadRequest, "the body broke off before it was signed")
        }
    }
}

/// What the bot is told of a destination that was not reached. Which address it was, and what the system said, is the
/// operator's to read.
pub(super) fn not_reached(leaving: Leaving<'_>, fault: &OutsideFault) -> Box<Refusal> {
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
        OutsideFault::NoTls { .. } => (
            Reason::PeerUnreachable,
            "it takes no TLS, without which nothing is sent",
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
