//! What the CA says of the tokens that anyone can verify.

use std::time::Duration;

use ca_api::admin::{EndpointStatus, FederationStatus, JwtKeyState};
use spiffe::time::Timestamp;

use super::Looks;
use crate::cli::seen::span;

const PART: &str = "ca";

/// How long a key signs, as a rule; beyond it the next one was not made in time.
const KEY_LIFE: Duration = Duration::from_hours(30 * 24);

/// How long before its end the certificate is a finding: what renews one does so before.
const CERTIFICATE_LEFT_MIN: Duration = Duration::from_hours(7 * 24);

pub(super) fn judge(status: &FederationStatus, now: Timestamp, looks: &mut Looks) {
    looks.ok(PART, "tokens", format!("signed as {}", status.issuer));
    for key in &status.keys {
        let what = format!("token key {}", key.key_id);
        match key.state {
            JwtKeyState::Signing if now.duration_since(key.signs_from) > KEY_LIFE => looks.finding(
                PART,
                what,
                format!("signs for {}", span(key.signs_from, now)),
                "the next key signs once it is published for a day; if none is listed, the CA's log says why",
            ),
            JwtKeyState::Signing => looks.ok(PART, what, format!("signs for {}", span(key.signs_from, now))),
            JwtKeyState::Next => looks.ok(
                PART,
                what,
                format!(
                    "published for {}, signs from {}",
                    span(key.published, now),
                    key.signs_from
                ),
            ),
            JwtKeyState::Old => looks.ok(PART, what, "signs no more"),
        }
    }
    match &status.endpoint {
        Some(endpoint) => listens(endpoint, &status.issuer, now, looks),
        None => looks.note(
            PART,
            "token endpoint",
            "nothing listens",
            "bring `botmesh bundle show --jwks` to who verifies tokens, again after each new key: every 25 days",
        ),
    }
}

fn listens(endpoint: &EndpointStatus, issuer: &str, now: Timestamp, looks: &mut Looks) {
    const WHAT: &str = "token endpoint";
    let Some(tls) = &endpoint.tls else {
        let seen = format!("listens on {} in the clear, for a web server in front", endpoint.listen);
        return looks.ok(PART, WHAT, seen);
    };
    if !tls.names_issuer {
        let seen = format!("its certificate is not for the host of {issuer}");
        return looks.finding(
            PART,
            WHAT,
            seen,
            "put one for that name into the files of federation.tls",
        );
    }
    if tls.not_after.duration_since(now) < CERTIFICATE_LEFT_MIN {
        let seen = format!("its certificate ends at {}", tls.not_after);
        return looks.finding(
            PART,
            WHAT,
            seen,
            "renew it: the CA reads the files of federation.tls again within a minute",
        );
    }
    let seen = format!("listens on {}, certificate until {}", endpoint.listen, tls.not_after);
    looks.ok(PART, WHAT, seen);
}

#[cfg(test)]
mod tests {
    use ca_api::admin::{EndpointTls, JwtKeyStatus};

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn now() -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000)
    }

    fn findings(change: impl FnOnce(&mut FederationStatus)) -> usize {
        let mut status = FederationStatus {
            issuer: "https://ids.acme.example".to_owned(),
            keys: vec![JwtKeyStatus {
                key_id: "k".to_owned(),
                state: JwtKeyState::Signing,
                published: now() - DAY * 29,
                signs_from: now() - DAY * 29,
                gone: None,
            }],
            tokens: 0,
            endpoint: Some(EndpointStatus {
                listen: "0.0.0.0:8443".to_owned(),
                tls: Some(EndpointTls {
                    not_after: now() + DAY * 8,
                    names_issuer: true,
                }),
            }),
        };
        change(&mut status);
        let mut looks = Looks::default();
        judge(&status, now(), &mut looks);
        looks.findings()
    }

    #[test]
    fn an_old_key_a_certificate_of_another_name_and_one_that_ends_soon_are_findings() {
        assert_eq!(findings(|_| ()), 0);
        assert_eq!(findings(|status| status.endpoint = None), 0);
        assert_eq!(findings(|status| status.keys[0].signs_from = now() - DAY * 31), 1);
        let with = |not_after, names_issuer| {
            move |status: &mut FederationStatus| {
                let endpoint = status.endpoint.as_mut().unwrap();
                endpoint.tls = Some(EndpointTls {
                    not_after,
                    names_issuer,
                });
            }
        };
        assert_eq!(findings(with(now() + DAY * 8, false)), 1);
        assert_eq!(findings(with(now() + DAY * 6, true)), 1);
        assert_eq!(findings(with(now() - DAY, true)), 1);
    }
}
