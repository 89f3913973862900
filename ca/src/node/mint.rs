//! JWT-SVIDs for the bots that the calling host may claim.

use ca_api::node::{JwtRefusal, JwtResponse};

/// Answers a host that asks for a JWT-SVID: this CA has no `federation:`, so it has no key to sign one with.
pub(super) fn mint() -> JwtResponse {
    JwtResponse {
        refusal: JwtRefusal::NotConfigured.as_str().to_owned(),
        message: "the CA has no `federation:` in ca.yaml".to_owned(),
        ..JwtResponse::default()
    }
}
