//! A refusal as a client of PostgreSQL shows it: one table turns a reason into an SQLSTATE.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::wire::{self, Told};
use crate::call::Answer;
use crate::reason::Reason;

/// SQLSTATE (<https://www.postgresql.org/docs/17/errcodes-appendix.html>) and what can be done.
const fn table(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::UnknownCaller => (
            "28000",
            "`botmesh whoami` says for whom the proxy takes this process, and why",
        ),
        Reason::NoIdentity => ("28000", "an operator finds why by `botmesh status`"),
        Reason::NoRule | Reason::RuleExpired | Reason::NoSuchBot => (
            "42501",
            "an operator allows it in the mesh file, by a rule with `postgres` and `inject`",
        ),
        Reason::DeniedByRule | Reason::OutsideForbidden | Reason::BrowserRefused => {
            ("42501", "an operator finds what forbids it by `botmesh policy explain`")
        }
        Reason::Quarantined => ("42501", "an operator finds who cut it off by `botmesh quarantine list`"),
        Reason::RateLimited => ("53400", "keep connections open, or open fewer of them at a time"),
        Reason::Overloaded => ("53300", "try again a little later"),
        Reason::BadRequest | Reason::BadPath | Reason::SecretInUrl | Reason::SecretInRequest => (
            "08P01",
            "connect without options beyond user, database, application_name, client_encoding, DateStyle and TimeZone",
        ),
        Reason::CredentialUnavailable => ("08006", "an operator finds why by `botmesh secret list`"),
        Reason::PeerMismatch | Reason::CalleeMismatch | Reason::PeerUnreachable => {
            ("08006", "an operator finds what happened in the proxy's log")
        }
        Reason::Timeout => ("08006", "try again a little later"),
        Reason::BreakerOpen => ("57P03", "try again a little later"),
        Reason::LedgerUnavailable => ("58000", "an operator finds the cause in the proxy's log"),
    }
}

/// Writes a refused call as an error after which the connection ends.
pub(super) async fn error(answer: Answer) -> Bytes {
    let body = answer
        .body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |key: &str| problem.get(key).and_then(Value::as_str).unwrap_or_default();
    let word = text("reason");
    // A call that could not even be named has no body.
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == word);
    let reason = reason.unwrap_or(Reason::Overloaded);
    let (code, hint) = table(reason);
    let message = format!("{} (botmesh: {reason})", reason.title());
    let mut detail = text("detail").to_owned();
    let call = text("call");
    if !call.is_empty() {
        let more = if detail.is_empty() { "" } else { "; " };
        detail.push_str(&format!("{more}call {call}"));
    }
    let hint = match text("allow_with") {
        "" => hint,
        rule => rule,
    };
    wire::fatal(&Told {
        code,
        message: &message,
        detail: &detail,
        hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_state_of_five_characters_and_a_hint() {
        for reason in Reason::ALL {
            let (code, hint) = table(reason);
            assert!(code.len() == 5 && !hint.is_empty(), "{reason}");
        }
        let of = |reason| table(reason).0;
        assert_eq!(of(Reason::UnknownCaller), "28000");
        assert_eq!(of(Reason::NoRule), "42501");
        assert_eq!(of(Reason::CredentialUnavailable), "08006");
        assert_eq!(of(Reason::PeerUnreachable), "08006");
        assert_eq!(of(Reason::BadRequest), "08P01");
    }
}
