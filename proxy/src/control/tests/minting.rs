//! JWT-SVIDs, over the connection that the stream is on.

use ca_api::node::{JwtRequest, JwtResponse};
use tonic::Status;

use super::fake_ca::{FakeCa, Mint};
use super::*;
use crate::control::MintError;
use crate::control::mint::tests::jwt;

async fn connected(mint: Option<Mint>) -> (FakeCa, Host, Running) {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    ca.state().greeting = vec![slice(1, &["prod/orders"])];
    ca.state().mint = mint;
    let (host, running) = Host::joined(&ca, host).await;
    running
        .until("an SVID", |control| control.svid(&bot("prod/orders")))
        .await;
    (ca, host, running)
}

/// Signs for whoever asks, for a minute.
fn signs(request: &JwtRequest) -> Result<JwtResponse, Status> {
    let end = (start_time() + Duration::from_mins(1)).unix_seconds();
    let claims = serde_json::json!({
        "sub": format!("spiffe://acme.internal/{}", request.bot), "aud": [request.audience], "exp": end,
    });
    Ok(JwtResponse {
        token: jwt(&claims.to_string()),
        expires_unix_ms: end * 1000,
        ..JwtResponse::default()
    })
}

#[tokio::test]
async fn a_bots_jwt_svid_comes_from_the_ca_and_is_good_until_its_end() {
    let (_ca, host, running) = connected(Some(signs)).await;
    let of = bot("prod/orders");
    let svid = running.control.mint_jwt(&of, "https://api.example.com").await.unwrap();
    assert_eq!(svid.life, Duration::from_mins(1));
    host.hand.set(start_time() + Duration::from_secs(59));
    let svid = running.control.mint_jwt(&of, "https://api.example.com").await.unwrap();
    assert_eq!(svid.life, Duration::from_secs(1));
    running.stop().await;
    assert!(!host.ledger_text().contains("eyJ"));
}

#[tokio::test]
async fn what_the_ca_refuses_or_does_not_know_is_told() {
    let refuses: Mint = |_request| {
        Ok(JwtResponse {
            refusal: "not_your_audience".to_owned(),
            message: "no rule".to_owned(),
            ..JwtResponse::default()
        })
    };
    let (_ca, _host, running) = connected(Some(refuses)).await;
    let error = running.control.mint_jwt(&bot("prod/orders"), "x").await.unwrap_err();
    assert_eq!(error.to_string(), "the CA refused: not_your_audience: no rule");
    running.stop().await;

    let (_ca, _host, running) = connected(None).await;
    let error = running.control.mint_jwt(&bot("prod/orders"), "x").await.unwrap_err();
    assert!(matches!(error, MintError::OldCa), "{error}");
    running.stop().await;
}

#[tokio::test]
async fn without_a_stream_nobody_is_asked() {
    let (ca, _host, running) = connected(Some(signs)).await;
    drop(ca);
    running
        .until("the stream to be down", |control| {
            control.status().link.connected.is_none().then_some(())
        })
        .await;
    let error = running.control.mint_jwt(&bot("prod/orders"), "x").await.unwrap_err();
    assert!(matches!(error, MintError::NoStream), "{error}");
    running.stop().await;
}
