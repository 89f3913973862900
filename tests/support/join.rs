//! A host that the test plays itself: it joins with a real token and is given real SVIDs, whose keys the test holds.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use ca_api::JoinToken;
use ca_api::node::{
    self, AttestRequest, IssueRequest, SvidRequest, TokenEvidence, attest_request, node_client::NodeClient,
};
use hyper_util::rt::TokioIo;
use spiffe::bundle::TrustBundle;
use spiffe::id::{BotName, HostName, SpiffeId, TrustDomain};
use spiffe::time::{Clock, Timestamp};
use spiffe_tls::{Expect, PrivateKey, Svid, client_config, sni_for};
use tonic::transport::{Channel, Endpoint, Uri};

/// A joined host.
pub(crate) struct PlayedHost {
    td: TrustDomain,
    bundle: Arc<TrustBundle>,
    node: Svid,
    ca: SocketAddr,
    clock: Clock,
    runtime: tokio::runtime::Runtime,
}

/// A certificate chain and key as PEM files, for clients that are not ours.
pub(crate) struct Pem {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|c| std::str::from_utf8(c).unwrap())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Writes a chain and its key.
pub(crate) fn write_pem(dir: &Path, name: &str, chain: &[Vec<u8>], pkcs8: &[u8]) -> Pem {
    let files = Pem {
        chain: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    };
    let text: String = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    std::fs::write(&files.chain, text).unwrap();
    std::fs::write(&files.key, pem("PRIVATE KEY", pkcs8)).unwrap();
    files
}

/// Writes the roots of a bundle.
pub(crate) fn write_roots(dir: &Path, bundle: &TrustBundle) -> PathBuf {
    let file = dir.join("roots.pem");
    let roots = bundle.authorities().iter();
    let text: String = roots.map(|root| pem("CERTIFICATE", root.der())).collect();
    std::fs::write(&file, text).unwrap();
    file
}

async fn connect(
    ca: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    sni: rustls::pki_types::ServerName<'static>,
) -> (NodeClient<Channel>, [u8; node::EXPORTER_BYTES]) {
    try_connect(ca, config, sni).await.expect("a handshake")
}

/// The same, where the CA may have no SVID of this time yet.
async fn try_connect(
    ca: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    sni: rustls::pki_types::ServerName<'static>,
) -> Option<(NodeClient<Channel>, [u8; node::EXPORTER_BYTES])> {
    let tcp = tokio::net::TcpStream::connect(ca).await.unwrap();
    let tls = tokio_rustls::TlsConnector::from(config).connect(sni, tcp).await.ok()?;
    let exporter = tls
        .get_ref()
        .1
        .export_keying_material([0; node::EXPORTER_BYTES], node::EXPORTER_LABEL, Some(&[]))
        .unwrap();
    let mut once = Some(TokioIo::new(tls));
    let channel = Endpoint::from_static("http://ca")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let io = once.take();
            async move { io.ok_or_else(|| std::io::Error::other("one connection only")) }
        }))
        .await
        .unwrap();
    Some((NodeClient::new(channel), exporter))
}

impl PlayedHost {
    /// Joins as the host that the token names.
    pub(crate) fn join(ca: SocketAddr, token: &str) -> Self {
        Self::try_join(ca, token, Clock::system()).expect("a CA of this time")
    }

    /// Joins at another time than the system's, if the CA has an SVID of that time.
    pub(crate) fn try_join_at(ca: SocketAddr, token: &str, now: Timestamp) -> Option<Self> {
        Self::try_join(ca, token, Clock::fixed(now).0)
    }

    fn try_join(ca: SocketAddr, token: &str, clock: Clock) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let token = JoinToken::parse(token.trim()).unwrap();
        let (td, host): (TrustDomain, HostName) = (token.trust_domain().clone(), token.host().clone());
        let key = PrivateKey::generate().unwrap();
        let csr = key.csr(&SpiffeId::for_host(&td, &host)).unwrap();
        let expect = Expect::PinnedRoots {
            trust_domain: td.clone(),
            sha256: token.pins().to_vec(),
        };
        let empty = Arc::new(TrustBundle::new(td.clone(), Vec::new(), 0, None).unwrap());
        let config = client_config(None, &empty, expect, &clock, &[node::ALPN]).unwrap();
        let answer = runtime.block_on(async {
            let (mut client, exporter) = try_connect(ca, config, sni_for(&td.id())).await?;
            let proof = key.sign(&node::attest_message(&exporter, &csr)).unwrap();
            let secret = token.secret().expose_text().to_string();
            let evidence = Some(attest_request::Evidence::Token(TokenEvidence { secret }));
            let request = AttestRequest {
                host: String::new(),
                csr,
                evidence,
                proof,
            };
            Some(client.attest(request).await.unwrap().into_inner())
        })?;
        let bundle = Arc::new(TrustBundle::parse(&td, &answer.bundle).unwrap());
        let node = Svid::new(answer.chain, key).unwrap();
        Some(Self {
            td,
            bundle,
            node,
            ca,
            clock,
            runtime,
        })
    }

    /// Asks for a token of a bot for an audience, or the word of the refusal.
    pub(crate) fn mint(&self, bot: &str, audience: &str) -> Result<String, String> {
        let expect = Expect::AnyCa(self.td.clone());
        let config = client_config(Some(&self.node), &self.bundle, expect, &self.clock, &[node::ALPN]).unwrap();
        let request = node::JwtRequest {
            bot: bot.to_owned(),
            audience: audience.to_owned(),
        };
        let answer = self.runtime.block_on(async {
            let (mut client, _) = connect(self.ca, config, sni_for(&self.td.id())).await;
            client.mint_jwt(request).await.unwrap().into_inner()
        });
        match answer.refusal.as_str() {
            "" => Ok(answer.token),
            refusal => Err(refusal.to_owned()),
        }
    }

    /// Asks for an SVID of a bot and keeps its key: chain and PKCS#8, or the word of the refusal.
    pub(crate) fn issue(&self, bot: &str) -> Result<(Vec<Vec<u8>>, Vec<u8>), String> {
        let key = PrivateKey::generate().unwrap();
        let id = SpiffeId::for_bot(&self.td, &BotName::parse(bot).unwrap());
        let csr = key.csr(&id).unwrap();
        let expect = Expect::AnyCa(self.td.clone());
        let config = client_config(Some(&self.node), &self.bundle, expect, &self.clock, &[node::ALPN]).unwrap();
        let answer = self.runtime.block_on(async {
            let (mut client, _) = connect(self.ca, config, sni_for(&self.td.id())).await;
            let svids = vec![SvidRequest {
                bot: bot.to_owned(),
                csr,
            }];
            client.issue(IssueRequest { svids }).await.unwrap().into_inner()
        });
        let result = answer.results.into_iter().next().unwrap();
        if result.refusal.is_empty() {
            Ok((result.chain, key.to_pkcs8().unwrap().to_vec()))
        } else {
            Err(result.refusal)
        }
    }

    /// Says Hello on a stream of its own and keeps it open: the CA then tells other hosts `advertise`.
    pub(crate) fn announce(&self, advertise: SocketAddr) -> tokio::sync::mpsc::Sender<node::HostMessage> {
        let expect = Expect::AnyCa(self.td.clone());
        let config = client_config(Some(&self.node), &self.bundle, expect, &Clock::system(), &[node::ALPN]).unwrap();
        let (ca, td) = (self.ca, self.td.clone());
        let (up, from) = tokio::sync::mpsc::channel(4);
        let hello = node::Hello {
            version: node::PROTOCOL_VERSION,
            advertise: advertise.to_string(),
            ..node::Hello::default()
        };
        up.try_send(node::up(node::host_message::Message::Hello(hello)))
            .unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (mut client, _) = connect(ca, config, sni_for(&td.id())).await;
                let from = tokio_stream::wrappers::ReceiverStream::new(from);
                let mut down = client.sync(from).await.unwrap().into_inner();
                while let Ok(Some(_)) = down.message().await {}
            });
        });
        up
    }

    /// Has it know another time than the system's.
    pub(crate) fn at(&mut self, now: Timestamp) {
        (self.clock, _) = Clock::fixed(now);
    }

    /// Whom it trusts.
    pub(crate) fn bundle(&self) -> &Arc<TrustBundle> {
        &self.bundle
    }

    /// Its trust domain.
    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.td
    }
}
