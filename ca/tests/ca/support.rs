//! A CA in a folder of its own, operators and hosts.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ca::{Addresses, Config, Defaults, Operator, Running, Settings};
use ca_api::JoinToken;
use ca_api::admin::{ApplyResponse, GenerationStatus, MeshSource, Problem, TokenResponse, path};
use ca_api::node::attest_request::Evidence;
use ca_api::node::node_client::NodeClient;
use ca_api::node::{
    ALPN, AttestRequest, AttestResponse, BoundKeyEvidence, CaMessage, EXPORTER_BYTES, EXPORTER_LABEL, Hello,
    IssueRequest, PROTOCOL_VERSION, SvidRequest, SvidResult, TokenEvidence, attest_message, ca_message, host_message,
    up,
};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spiffe::bundle::TrustBundle;
use spiffe::id::{BotName, HostName, SpiffeId, TrustDomain};
use spiffe::time::{Clock, ClockHand, Timestamp};
use spiffe_tls::{Expect, PrivateKey, Svid};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tower::service_fn;

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const MESH: &str = r"
version: 1
trust_domain: acme.internal
bots:
  prod/checkout: {owner: shop@acme.internal, hosts: [web-1], attest: {user: checkout}, svid_ttl: 15m}
  prod/orders: {owner: shop@acme.internal, hosts: [web-2], attest: {user: orders}, serve: {http: 8080}}
allow:
  - {id: reads-orders, from: prod/checkout, to: prod/orders, http: [GET /orders/*]}
tests:
  - {name: reads, from: prod/checkout, to: prod/orders, allow: [GET /orders/1], deny: [POST /orders/1]}
";

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("acme.internal").unwrap()
}

pub(crate) fn host_name(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

pub(crate) fn bot_id(name: &str) -> SpiffeId {
    SpiffeId::for_bot(&domain(), &BotName::parse(name).unwrap())
}

pub(crate) fn source(text: &str) -> MeshSource {
    MeshSource {
        name: "mesh.yaml".into(),
        text: text.into(),
    }
}

pub(crate) fn same(key: &PrivateKey) -> PrivateKey {
    PrivateKey::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap()
}

/// A CA that serves.
pub(crate) struct TestCa {
    pub(crate) dir: TempDir,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) hand: ClockHand,
    pub(crate) addresses: Addresses,
    running: Running,
    cancel: CancellationToken,
}

pub(crate) fn settings(dir: &Path) -> Settings {
    settings_with(dir, &json!({}))
}

/// The same with more sections.
pub(crate) fn settings_with(dir: &Path, more: &Value) -> Settings {
    let mut config = json!({
        "trust_domain": "acme.internal",
        "node_api": {"listen": "127.0.0.1:0"},
        "dashboard": {"listen": "127.0.0.1:0"},
    });
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let defaults = Defaults {
        state_dir: dir.join("state"),
        admin_socket: dir.join("run/ca.sock"),
        operators: vec![Operator::Uid(nix::unistd::Uid::effective().as_raw())],
        credentials: None,
    };
    serde_json::from_value::<Config>(config)
        .unwrap()
        .resolve(&defaults)
        .unwrap()
}

impl TestCa {
    pub(crate) async fn start() -> Self {
        Self::start_with(json!({})).await
    }

    /// The same with more sections in its configuration.
    pub(crate) async fn start_with(more: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings_with(dir.path(), &more);
        let (clock, hand) = Clock::fixed(Timestamp::from_rfc3339("2026-11-25T12:00:00.250Z").unwrap());
        ca::init(&settings, &clock).await.unwrap();
        Self::serve(dir, settings, clock, hand).await
    }

    pub(crate) async fn serve(dir: TempDir, settings: Settings, clock: Clock, hand: ClockHand) -> Self {
        let cancel = CancellationToken::new();
        let running = ca::start(settings.clone(), clock.clone(), cancel.clone())
            .await
            .unwrap();
        let addresses = running.addresses();
        Self {
            dir,
            settings,
            clock,
            hand,
            addresses,
            running,
            cancel,
        }
    }

    pub(crate) async fn with_mesh() -> Self {
        let ca = Self::start().await;
        ca.apply(MESH, None).await.unwrap();
        ca
    }

    /// Stops in good order and starts over the same state.
    pub(crate) async fn restart(self) -> Self {
        let (dir, settings, clock, hand) = self.stop().await;
        Self::serve(dir, settings, clock, hand).await
    }

    pub(crate) async fn stop(self) -> (TempDir, Settings, Clock, ClockHand) {
        self.cancel.cancel();
        within(self.running.ended()).await.unwrap();
        (self.dir, self.settings, self.clock, self.hand)
    }

    pub(crate) async fn admin<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: impl Serialize,
    ) -> Result<T, Problem> {
        let (status, body) = unix_http(&self.settings.admin_socket, method, path, &body).await;
        if status == 200 {
            return Ok(serde_json::from_slice(&body).unwrap());
        }
        Err(serde_json::from_slice(&body).unwrap())
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.admin("GET", path, Value::Null).await.unwrap()
    }

    pub(crate) async fn apply(&self, text: &str, base: Option<(u64, u64)>) -> Result<ApplyResponse, Problem> {
        let base = base.map(|(epoch, revision)| json!({"epoch": epoch, "revision": revision}));
        self.admin("POST", path::APPLY, json!({"sources": [source(text)], "base": base}))
            .await
    }

    pub(crate) async fn token(&self, host: &str) -> JoinToken {
        let answer: TokenResponse = self
            .admin("POST", path::HOST_TOKEN, json!({"host": host}))
            .await
            .unwrap();
        JoinToken::parse(&answer.token).unwrap()
    }

    pub(crate) async fn evict(&self, host: &str) -> ca_api::admin::EvictResponse {
        self.admin("POST", path::HOST_EVICT, json!({"host": host}))
            .await
            .unwrap()
    }

    /// Waits until the generation is settled on every connected host.
    pub(crate) async fn live_on(&self, revision: u64) -> GenerationStatus {
        self.get(&format!(
            "{}?epoch=1&revision={revision}&wait_seconds=30",
            path::GENERATION
        ))
        .await
    }

    /// A connection without certificate, pinned as a token pins it.
    pub(crate) async fn stranger(&self, pins: Vec<[u8; 32]>) -> Result<Connection, String> {
        let bundle = Arc::new(TrustBundle::new(domain(), Vec::new(), 0, None).unwrap());
        let expect = Expect::PinnedRoots {
            trust_domain: domain(),
            sha256: pins,
        };
        let config = spiffe_tls::client_config(None, &bundle, expect, &self.clock, &[ALPN]).unwrap();
        Connection::dial(self.addresses.node_api, config).await
    }

    pub(crate) async fn pinned(&self, token: &JoinToken) -> Connection {
        self.stranger(token.pins().to_vec()).await.unwrap()
    }

    /// Joins a host with a fresh token and a fresh key.
    pub(crate) async fn join(&self, host: &str) -> Host {
        let token = self.token(host).await;
        self.join_with(&token, PrivateKey::generate().unwrap()).await.unwrap()
    }

    pub(crate) async fn join_with(&self, token: &JoinToken, key: PrivateKey) -> Result<Host, Status> {
        let mut connection = self.pinned(token).await;
        let request = token_request(token, &key, &connection.exporter);
        let answer = within(connection.client.attest(request)).await?.into_inner();
        Ok(Host::new(answer, key))
    }

    pub(crate) async fn connect(&self, host: &Host) -> Connection {
        self.connect_as(&host.svid, &host.bundle).await.unwrap()
    }

    pub(crate) async fn connect_as(&self, svid: &Svid, bundle: &Arc<TrustBundle>) -> Result<Connection, String> {
        let expect = Expect::AnyCa(domain());
        let config = spiffe_tls::client_config(Some(svid), bundle, expect, &self.clock, &[ALPN]).unwrap();
        Connection::dial(self.addresses.node_api, config).await
    }

    /// The lines of the CA's ledger, as text.
    pub(crate) fn ledger(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        for entry in std::fs::read_dir(self.settings.ledger_dir().join("segments")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        lines
    }

    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        self.ledger().into_iter().filter(|line| line["kind"] == kind).collect()
    }
}

/// A proxy's side of the node API.
pub(crate) struct Host {
    pub(crate) name: HostName,
    pub(crate) svid: Svid,
    pub(crate) bundle: Arc<TrustBundle>,
}

impl Host {
    pub(crate) fn new(answer: AttestResponse, key: PrivateKey) -> Self {
        Self {
            name: host_name(&answer.host),
            svid: Svid::new(answer.chain, key).unwrap(),
            bundle: Arc::new(TrustBundle::parse(&domain(), &answer.bundle).unwrap()),
        }
    }
}

/// One TLS connection with a gRPC client on it.
pub(crate) struct Connection {
    pub(crate) client: NodeClient<Channel>,
    pub(crate) exporter: [u8; EXPORTER_BYTES],
}

impl Connection {
    async fn dial(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Result<Self, String> {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("ca.acme.internal").unwrap();
        let tls = within(TlsConnector::from(config).connect(name, tcp))
            .await
            .map_err(|error| error.to_string())?;
        let exporter = tls
            .get_ref()
            .1
            .export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, Some(&[]))
            .unwrap();
        let mut once = Some(TokioIo::new(tls));
        let connector = service_fn(move |_uri: http::Uri| {
            std::future::ready(once.take().ok_or_else(|| std::io::Error::other("one connection only")))
        });
        let channel = Endpoint::from_static("http://ca.acme.internal")
            .connect_with_connector(connector)
            .await;
        let client = NodeClient::new(channel.map_err(|error| error.to_string())?);
        Ok(Self { client, exporter })
    }

    /// Asks for one SVID.
    pub(crate) async fn issue(&mut self, bot: &str, csr: Vec<u8>) -> Result<SvidResult, Status> {
        let svids = vec![SvidRequest { bot: bot.into(), csr }];
        let answer = within(self.client.issue(IssueRequest { svids })).await?.into_inner();
        Ok(answer.results.into_iter().next().unwrap())
    }

    pub(crate) async fn sync(&mut self, hello: Hello) -> Result<Stream, Status> {
        let (sender, receiver) = mpsc::channel(16);
        sender.send(up(host_message::Message::Hello(hello))).await.unwrap();
        let down = within(self.client.sync(ReceiverStream::new(receiver)))
            .await?
            .into_inner();
        Ok(Stream { up: sender, down })
    }
}

/// The stream of a host.
pub(crate) struct Stream {
    up: mpsc::Sender<ca_api::node::HostMessage>,
    down: Streaming<CaMessage>,
}

impl Stream {
    pub(crate) async fn send(&self, message: host_message::Message) {
        self.up.send(up(message)).await.unwrap();
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<ca_message::Message> {
        within(self.down.message()).await.ok().flatten()?.message
    }

    /// The next message that `wanted` picks. The CA tells the time every few seconds, so it is the whole that is bounded.
    pub(crate) async fn find<T>(&mut self, wanted: impl Fn(ca_message::Message) -> Option<T>) -> T {
        within(async {
            loop {
                let message = self.next().await.unwrap();
                if let Some(found) = wanted(message) {
                    return found;
                }
            }
        })
        .await
    }

    /// Waits until the CA has taken the stream in: what it says first, it says then.
    pub(crate) async fn is_open(&mut self) {
        self.find(Some).await;
    }

    pub(crate) async fn slice(&mut self) -> ca_api::node::Slice {
        self.find(|message| match message {
            ca_message::Message::Slice(slice) => Some(slice),
            _ => None,
        })
        .await
    }

    pub(crate) async fn endpoints(&mut self) -> Vec<(String, Vec<String>)> {
        self.find(|message| match message {
            ca_message::Message::Endpoints(endpoints) => {
                Some(endpoints.bots.into_iter().map(|bot| (bot.bot, bot.address)).collect())
            }
            _ => None,
        })
        .await
    }

    /// Reads to the end; gives the last words.
    pub(crate) async fn goodbye(&mut self) -> Option<String> {
        within(async {
            let mut reason = None;
            while let Some(message) = self.next().await {
                if let ca_message::Message::Goodbye(goodbye) = message {
                    reason = Some(goodbye.reason);
                }
            }
            reason
        })
        .await
    }

    /// Says that a slice is applied, or is not.
    pub(crate) async fn receipt(&self, slice: &ca_api::node::Slice, ok: bool, error: &str) {
        let receipt = ca_api::node::Applied {
            generation: slice.generation,
            sha256: slice.sha256.clone(),
            ok,
            error: error.into(),
        };
        self.send(host_message::Message::Applied(receipt)).await;
    }
}

pub(crate) fn hello(advertise: &str) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        advertise: advertise.into(),
        ..Hello::default()
    }
}

pub(crate) fn token_request(token: &JoinToken, key: &PrivateKey, exporter: &[u8; 32]) -> AttestRequest {
    let csr = key.csr(&SpiffeId::for_host(&domain(), token.host())).unwrap();
    let proof = key.sign(&attest_message(exporter, &csr)).unwrap();
    let secret = token.secret().expose_text().to_string();
    AttestRequest {
        csr,
        proof,
        evidence: Some(Evidence::Token(TokenEvidence { secret })),
        host: String::new(),
    }
}

pub(crate) fn bound_request(host: &HostName, old: &PrivateKey, new: &PrivateKey, exporter: &[u8; 32]) -> AttestRequest {
    let csr = new.csr(&SpiffeId::for_host(&domain(), host)).unwrap();
    let message = attest_message(exporter, &csr);
    let evidence = BoundKeyEvidence {
        public_key: old.spki_der(),
        proof: old.sign(&message).unwrap(),
    };
    let proof = new.sign(&message).unwrap();
    AttestRequest {
        host: host.to_string(),
        csr,
        proof,
        evidence: Some(Evidence::BoundKey(evidence)),
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("nothing happened for a minute"),
    }
}

/// Asks again until there is an answer; for a state that another task brings about.
pub(crate) async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(async {
        loop {
            if let Some(answer) = Box::pin(ask()).await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// One request over a Unix socket.
pub(crate) async fn unix_http(socket: &Path, method: &str, path: &str, body: &impl Serialize) -> (u16, Bytes) {
    http_on(
        UnixStream::connect(socket).await.unwrap(),
        method,
        path,
        serde_json::to_vec(body).unwrap(),
    )
    .await
}

pub(crate) async fn tcp_http(address: SocketAddr, path: &str) -> (u16, Bytes) {
    http_on(TcpStream::connect(address).await.unwrap(), "GET", path, Vec::new()).await
}

async fn http_on<S>(stream: S, method: &str, path: &str, body: Vec<u8>) -> (u16, Bytes)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "ca")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let exchange = async {
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        drop(sender);
        (status, body)
    };
    let (answer, _closed) = within(async { tokio::join!(exchange, connection) }).await;
    answer
}
