//! A session with a database outside: the proxy authenticates, and then bytes pass.

use std::sync::Arc;
use std::time::Duration;

use audit::Receipt;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::HeaderMap;
use policy::{Injection, OutsideDestination, Permit};
use rustls::sign::CertifiedKey;
use tokio::time::timeout;

use super::super::body::AnswerBody;
use super::super::draft::Draft;
use super::super::end::End;
use super::super::identify::{Door, Who};
use super::super::normalize::Rest;
use super::super::refusal::Refusal;
use super::super::route::OutsideRoute;
use super::outside::{TUNNEL_IDLE, no_credential, not_reached};
use super::{Came, From, ended, hold_as};
use crate::callee::Leaving;
use crate::credentials::Loaded;
use crate::live::{Granted, Held, Lane};
use crate::outside::connect::Database;
use crate::postgres::binding;
use crate::postgres::keys::Key;
use crate::postgres::login::{Begun, LoginError, Proof, login};
use crate::postgres::start::Start;
use crate::postgres::wire;
use crate::reason::Reason;

/// How long a server may take to begin a session where the mesh does not say: it may have to start a process.
const LOGIN: Duration = Duration::from_secs(30);

/// As whom a session is begun.
struct Identity {
    user: Box<str>,
    by: By,
}

/// How that is proved.
enum By {
    Password(Arc<Loaded>),
    Svid(Arc<CertifiedKey>),
}

/// Begins the session, and carries it.
pub(super) async fn onward(
    draft: &Draft,
    (door, who): (&Door, &Who),
    (permit, _receipt, rest): (Permit, Receipt, Rest<Arc<OutsideRoute>>),
    end: &mut End,
) -> Result<Came, Box<Refusal>> {
    let Rest { to, body, .. } = rest;
    let no_start = || Refusal::boxed(Reason::BadRequest, "the call begins no session");
    let start = Arc::clone(body.start().ok_or_else(no_start)?);
    let (proxy, mesh) = (draft.proxy(), &draft.snapshot.mesh);
    let (identity, granted) = identity(draft, (door, who), &permit).await?;
    let held = hold_as(draft, who, permit.into_call(), Some(granted))?;
    let said = mesh.outside_destination(&to.outside).cloned().unwrap_or_default();
    let leaving = Leaving {
        from: &who.bot,
        to: &to.outside,
        at: &to.outside,
        said: &said,
    };
    end.admitted().tried();
    let mut database = reach(draft, leaving, &held, &identity, end).await?;
    let begun = match begin(draft, &mut database, &held, (&start, &identity), &said).await? {
        Ok(begun) => begun,
        Err(error) => return refused(leaving, &start, &identity, error),
    };
    if let Some(key) = begun.key {
        let (from, to) = (who.bot.clone(), to.outside.clone());
        let at = (database.address, draft.record.id);
        let given = proxy.database_keys.give(Key { from, to, key }, at);
        // It is begun once.
        drop(start.given.set(given));
    }
    drop(start.told.set(masked(&begun.told, &identity, leaving)));
    let (count, idle) = (body.count(), said.waits.stream_idle.unwrap_or(TUNNEL_IDLE));
    // What is held back of a statement is never its end, for which the server waits: that is no character of a value.
    let body = body.held(&held).guarded(proxy.credentials.live());
    let body = proxy.callees.pass(leaving, database, body, &proxy.tasks);
    held.may_stand_still(Some(idle), count);
    let body = AnswerBody::tunnel(body, held);
    Ok((StatusCode::OK, HeaderMap::new(), (body, From::Bot)))
}

/// Finds out as whom the session is begun: by the credential of the rule that allowed it, and of a lease as the user that was
/// made with it.
async fn identity(
    draft: &Draft,
    (door, who): (&Door, &Who),
    permit: &Permit,
) -> Result<(Identity, Box<Granted>), Box<Refusal>> {
    let (proxy, mesh) = (draft.proxy(), &draft.snapshot.mesh);
    let Some((name, credential)) = mesh.credential_of(permit) else {
        return Err(no_way());
    };
    let Injection::Postgres { user, svid } = &credential.injection else {
        return Err(no_way());
    };
    let (mut user, mut value) = (user.clone(), None);
    let by = if *svid {
        let svid = proxy.control.svid(&who.bot);
        let none = || Refusal::boxed(Reason::NoIdentity, "the SVID of the bot has ended");
        By::Svid(svid.ok_or_else(none)?.certified_key())
    } else {
        let loaded = proxy.credentials.of(permit, mesh, door.caller()).await;
        let loaded = loaded.map_err(|error| no_credential(&error))?.ok_or_else(no_way)?;
        if let Injection::Postgres { user: made, .. } = &loaded.injection {
            user.clone_from(made);
        }
        value = Some(Arc::clone(&loaded));
        By::Password(loaded)
    };
    let (name, injection) = (name.clone(), credential.injection.clone());
    let granted = Box::new(Granted { name, injection, value });
    Ok((Identity { user, by }, granted))
}

/// Where the mesh file was read, it had one that fits.
fn no_way() -> Box<Refusal> {
    let detail = "the rule has no credential by which the proxy could authenticate at a database";
    Refusal::boxed(Reason::CredentialUnavailable, detail)
}

/// Connects, and notes where that leads.
async fn reach(
    draft: &Draft,
    leaving: Leaving<'_>,
    held: &Held,
    identity: &Identity,
    end: &mut End,
) -> Result<Database, Box<Refusal>> {
    let proxy = draft.proxy();
    let shown = match &identity.by {
        By::Svid(certified) => Some(Arc::clone(certified)),
        By::Password(_) => None,
    };
    let wants = shown.is_some();
    let reaching = std::pin::pin!(proxy.callees.reach_database(leaving.to, leaving.said, shown, None));
    let reached = held.while_allowed(Lane::Answer, reaching).await.map_err(ended)?;
    let database = reached.map_err(|fault| not_reached(leaving, &fault))?;
    end.leads_to(database.address);
    held.leads_to(proxy, database.address).map_err(ended)?;
    if wants && !database.shown {
        let detail =
            "the server did not ask for the certificate by which the bot is known: nobody would have proved anything";
        return Err(Refusal::boxed(Reason::PeerMismatch, detail));
    }
    Ok(database)
}

/// Has the session begin; the inner error is the server's, or says that it is not to be believed.
async fn begin(
    draft: &Draft,
    database: &mut Database,
    held: &Held,
    (start, identity): (&Start, &Identity),
    said: &OutsideDestination,
) -> Result<Result<Begun, LoginError>, Box<Refusal>> {
    let startup = start.as_user(&identity.user);
    let proof = match &identity.by {
        By::Password(loaded) => Proof::Password {
            secret: loaded.shared(),
            end_point: binding::end_point(&database.stream),
        },
        By::Svid(_) => Proof::Certificate,
    };
    let limit = said
        .waits
        .request_timeout
        .unwrap_or(LOGIN.max(draft.proxy().bounds.request));
    let beginning = std::pin::pin!(timeout(limit, login(&mut database.stream, &startup, &proof)));
    let begun = held.while_allowed(Lane::Answer, beginning).await.map_err(ended)?;
    begun.map_err(|_elapsed| Refusal::boxed(Reason::Timeout, "the server did not begin the session in time"))
}

/// What comes of a session that does not begin. What the server says of it the bot reads, as it reads an answer; what the
/// proxy has against the server is the operator's to read.
fn refused(leaving: Leaving<'_>, start: &Start, identity: &Identity, error: LoginError) -> Result<Came, Box<Refusal>> {
    tracing::info!(
        to = %leaving.to, from = %leaving.from, database = %start.database, user = %identity.user,
        error = &error as &dyn std::error::Error, "a session with a database did not begin"
    );
    let (reason, detail) = match error {
        LoginError::Server { error } => {
            let status = status(wire::field(&error, b'C').unwrap_or_default());
            let told = masked(&wire::message(b'E', &error), identity, leaving);
            drop(start.told.set(told));
            return Ok((status, HeaderMap::new(), (AnswerBody::default(), From::Bot)));
        }
        LoginError::Kind { .. } => (
            Reason::CredentialUnavailable,
            "the server asks for another authentication than SCRAM-SHA-256 or, with `svid: true`, a certificate",
        ),
        LoginError::NoProof => (
            Reason::PeerMismatch,
            "the server lets that user in without a proof; it is to ask for scram-sha-256",
        ),
        LoginError::Scram { .. } => (
            Reason::PeerMismatch,
            "the server did not authenticate by SCRAM-SHA-256 as it is written",
        ),
        LoginError::Protocol => (Reason::PeerUnreachable, "it does not speak PostgreSQL 3.0"),
        LoginError::Io { .. } => (Reason::PeerUnreachable, "it broke off as the session began"),
    };
    Err(Refusal::boxed(reason, detail))
}

/// Takes the credential out of what the server says; its length stays.
fn masked(message: &Bytes, identity: &Identity, leaving: Leaving<'_>) -> Bytes {
    let mut text = BytesMut::from(&message[..]);
    if let By::Password(loaded) = &identity.by
        && loaded.finder.mask_text(&mut text)
    {
        loaded.masked(leaving.from);
    }
    text.freeze()
}

/// The status under which an error of the server is recorded, by its SQLSTATE.
fn status(code: &str) -> StatusCode {
    match code.get(..2) {
        // It does not take the credential.
        Some("28") => StatusCode::UNAUTHORIZED,
        // There is no such database.
        Some("3D") => StatusCode::NOT_FOUND,
        // The user may not.
        Some("42") => StatusCode::FORBIDDEN,
        // It has no room, or is not ready.
        Some("53" | "57") => StatusCode::SERVICE_UNAVAILABLE,
        Some(_) | None => StatusCode::BAD_GATEWAY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_server_is_recorded_as_an_answer_of_its_kind() {
        for (code, wanted) in [
            ("28P01", 401),
            ("3D000", 404),
            ("42501", 403),
            ("53300", 503),
            ("57P03", 503),
        ] {
            assert_eq!(status(code).as_u16(), wanted, "{code}");
        }
        assert_eq!(status("XX000").as_u16(), 502);
        assert_eq!(status("").as_u16(), 502);
    }
}
