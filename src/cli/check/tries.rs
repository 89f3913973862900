//! What must be refused is tried: a TLS client without a certificate, and a call by a process that is no bot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use ca_api::proxy_admin::{BotsResponse, ProxyStatus};
use spiffe::id::{BotName, SpiffeId};

use super::Looks;
use super::stranger::{self, Outcome};
use crate::cli::demo::attack::stolen::{self, Certless};

const PART: &str = "tries";

/// Opens TLS to the mesh port without a certificate. Only a server that showed its own certificate was really asked.
pub(super) async fn certless(status: &ProxyStatus, bots: &BotsResponse, looks: &mut Looks) {
    let what = "TLS without a certificate";
    let Some(bot) = bots.bots.iter().find(|bot| bot.ready) else {
        return looks.untried(
            PART,
            what,
            "no bot of this host has an SVID: the port shows no certificate to anybody",
        );
    };
    let Some(address) = status.listeners.get("mesh").and_then(|at| reachable(at)) else {
        return looks.untried(PART, what, "the proxy does not say where its mesh port is");
    };
    let id = SpiffeId::for_bot(&status.trust_domain, &bot.bot);
    judge_certless(stolen::certless(address, &id).await, address, looks);
}

fn judge_certless(outcome: Result<Certless>, address: SocketAddr, looks: &mut Looks) {
    let what = "TLS without a certificate";
    match outcome {
        Ok(Certless::Refused(alert)) => looks.ok(PART, what, format!("refused by {address}: {alert}")),
        Ok(Certless::LetIn) => looks.finding(
            PART,
            what,
            format!("{address} takes it"),
            "stop this proxy: whatever listens there asks nobody who he is",
        ),
        Err(error) => looks.finding(
            PART,
            what,
            format!("{address} did not get as far as asking for one: {error:#}"),
            "is it the proxy that listens there?",
        ),
    }
}

/// An address to reach a listener by from this host.
fn reachable(listener: &str) -> Option<SocketAddr> {
    let mut address: SocketAddr = listener.parse().ok()?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Some(address)
}

/// Calls as a user that is no bot's, by the socket and by the port.
pub(super) async fn wrong_uid(status: &ProxyStatus, bots: &BotsResponse, looks: &mut Looks) {
    let nobody = BotName::parse("nobody").map(|name| name.mesh_host());
    let host = bots
        .bots
        .first()
        .map_or_else(|| nobody.unwrap_or_default(), |bot| bot.bot.mesh_host());
    if let Some(socket) = status
        .listeners
        .get("bots_socket")
        .and_then(|at| at.strip_prefix("unix:"))
    {
        let outcome = stranger::tried(&["call", socket, &host]).await;
        judge_call("call by a foreign user, by the socket", outcome, looks);
    }
    if let Some(address) = status.listeners.get("bots") {
        let outcome = stranger::tried(&["call-tcp", address, &host]).await;
        judge_call("call by a foreign user, by the port", outcome, looks);
    }
}

fn judge_call(what: &str, outcome: Result<Outcome>, looks: &mut Looks) {
    let refused = |status, reason: Option<&str>| status == 403 && reason == Some("unknown_caller");
    match outcome {
        Err(why) => looks.untried(PART, what, format!("{why:#}")),
        Ok(Outcome::Answered { status, reason }) if refused(status, reason.as_deref()) => {
            looks.ok(PART, what, "refused: unknown_caller (there is a record of it)");
        }
        Ok(Outcome::NotConnected(error)) => looks.finding(
            PART,
            what,
            format!("no connection: {error}"),
            "bots cannot connect either: the folder of the socket must be 0755 and the proxy must listen",
        ),
        Ok(other) => looks.finding(
            PART,
            what,
            format!("not refused as unknown_caller: {other:?}"),
            "botmesh whois PID says which bot a process is taken for: an entry of the mesh file is too wide",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(judge: impl FnOnce(&mut Looks)) -> usize {
        let mut looks = Looks::default();
        judge(&mut looks);
        looks.findings()
    }

    #[test]
    fn anything_but_a_refusal_is_a_finding() {
        let answered = |status, reason: &str| {
            Ok(Outcome::Answered {
                status,
                reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
            })
        };
        assert_eq!(
            findings(|looks| judge_call("x", answered(403, "unknown_caller"), looks)),
            0
        );
        for outcome in [
            answered(200, ""),
            answered(403, ""),
            answered(403, "no_rule"),
            answered(200, "unknown_caller"),
            Ok(Outcome::NotConnected("refused".to_owned())),
            Ok(Outcome::Connected),
        ] {
            assert_eq!(findings(|looks| judge_call("x", outcome, looks)), 1);
        }
    }

    #[test]
    fn a_port_that_takes_a_client_without_a_certificate_or_asks_for_none_is_a_finding() {
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let refused = Ok(Certless::Refused("CertificateRequired".to_owned()));
        assert_eq!(findings(|looks| judge_certless(refused, at, looks)), 0);
        assert_eq!(findings(|looks| judge_certless(Ok(Certless::LetIn), at, looks)), 1);
        assert_eq!(
            findings(|looks| judge_certless(Err(anyhow::anyhow!("no")), at, looks)),
            1
        );
    }

    #[test]
    fn a_listener_on_every_address_is_reached_by_loopback() {
        let told = |at: &str| reachable(at).map(|address| address.to_string());
        assert_eq!(told("0.0.0.0:15443").as_deref(), Some("127.0.0.1:15443"));
        assert_eq!(told("[::]:15443").as_deref(), Some("[::1]:15443"));
        assert_eq!(told("10.0.0.5:15443").as_deref(), Some("10.0.0.5:15443"));
        assert_eq!(told("unix:/x"), None);
    }

    /// A TLS server that shows a certificate of its own, asks the client for none, and answers.
    async fn trusting(listener: tokio::net::TcpListener) {
        let key = rcgen::generate_simple_self_signed(vec!["x.test".to_owned()]).unwrap();
        let der = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], der)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let mut stream = acceptor.accept(stream).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello")
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::flush(&mut stream).await.unwrap();
        drop(tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1]).await);
    }

    #[tokio::test]
    async fn a_server_that_asks_for_no_certificate_is_told_from_one_that_refuses_and_one_that_is_no_tls() {
        let id = SpiffeId::parse("spiffe://acme.internal/prod/orders").unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (outcome, ()) = tokio::join!(stolen::certless(address, &id), trusting(listener));
        assert!(matches!(outcome.unwrap(), Certless::LetIn));

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closing = async { drop(listener.accept().await) };
        let (outcome, ()) = tokio::join!(stolen::certless(address, &id), closing);
        assert!(outcome.is_err(), "it never showed a certificate: {outcome:?}");
        drop(listener);
        assert!(stolen::certless(address, &id).await.is_err(), "nobody listens");
    }
}
