//! Tokens that anyone can verify, in a few lines.

use anyhow::Result;
use ca_api::admin::{FederationStatus, JwtKeyState};
use spiffe::time::Timestamp;

use crate::cli::seen::span;
use crate::output::{Screen, printable};

pub(super) fn show(status: &FederationStatus, now: Timestamp, screen: &Screen) -> Result<()> {
    let endpoint = match &status.endpoint {
        None => "nothing listens: bring the keys to who needs them (`botmesh bundle show --jwks`)".to_owned(),
        Some(endpoint) => match &endpoint.tls {
            None => format!("{} in the clear, for a web server in front", endpoint.listen),
            Some(tls) => format!("{}, certificate until {}", endpoint.listen, tls.not_after),
        },
    };
    screen.line(format!(
        "       federation {}: {} tokens signed; {}",
        printable(&status.issuer),
        status.tokens,
        printable(&endpoint)
    ))?;
    for key in &status.keys {
        let does = match key.state {
            JwtKeyState::Signing => format!("signs for {}", span(key.signs_from, now)),
            JwtKeyState::Next => format!(
                "published for {}, signs from {}",
                span(key.published, now),
                key.signs_from
            ),
            JwtKeyState::Old => "signs no more".to_owned(),
        };
        let gone = key
            .gone
            .map_or_else(String::new, |gone| format!(", taken away at {gone}"));
        screen.line(format!("       key {}  {does}{gone}", printable(&key.key_id)))?;
    }
    Ok(())
}
