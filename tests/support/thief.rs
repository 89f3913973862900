//! Somebody who copied a proxy's state directory and speaks to the CA with it, from an address of his choice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use ca_api::node::node_client::NodeClient;
use ca_api::node::{
    self, CaMessage, CosignRequest, Hello, HostMessage, IssueRequest, SvidRequest, ca_message, host_message,
};
use hyper_util::rt::TokioIo;
use spiffe::bundle::TrustBundle;
use spiffe::id::{BotName, SpiffeId, TrustDomain};
use spiffe::time::Clock;
use spiffe_tls::{Expect, PrivateKey, Svid, client_config, sni_for};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};

use super::PATIENCE;

/// What was copied, and where from it is used.
pub(crate) struct Thief {
    pub(crate) td: TrustDomain,
    pub(crate) bundle: Arc<TrustBundle>,
    pub(crate) node: Svid,
    pub(crate) key: Vec<u8>,
    pub(crate) from: IpAddr,
    ca: SocketAddr,
    runtime: tokio::runtime::Runtime,
}

/// One TLS connection to the CA.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) channel: Channel,
    pub(crate) exporter: [u8; node::EXPORTER_BYTES],
}

/// One stream.
pub(crate) struct Talk {
    up: tokio::sync::mpsc::Sender<HostMessage>,
    down: Streaming<CaMessage>,
}

impl Thief {
    /// Copies the node SVID, its key and the bundle out of a state directory.
    pub(crate) fn of(state: &Path, ca: SocketAddr) -> Self {
        let read = |name: &str| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(state.join(name)).unwrap()).unwrap()
        };
        let bytes = |text: &serde_json::Value| {
            let text = text.as_str().unwrap();
            base64::engine::general_purpose::STANDARD.decode(text).unwrap()
        };
        let (saved, bundle) = (read("node.json"), read("bundle.json"));
        let td = TrustDomain::parse("acme.internal").unwrap();
        let key = bytes(&saved["key"]);
        let chain = saved["chain"].as_array().unwrap().iter().map(bytes).collect();
        Self {
            bundle: Arc::new(TrustBundle::parse(&td, bundle["jwks"].as_str().unwrap().as_bytes()).unwrap()),
            node: Svid::new(chain, PrivateKey::from_pkcs8(&key).unwrap()).unwrap(),
            from: Ipv4Addr::LOCALHOST.into(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            td,
            key,
            ca,
        }
    }

    pub(crate) fn key(&self) -> PrivateKey {
        PrivateKey::from_pkcs8(&self.key).unwrap()
    }

    /// Waits for something that comes soon or never.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, future).await })
            .expect("an answer")
    }

    /// Connects with an SVID, or as a stranger.
    pub(crate) fn dial(&self, svid: Option<&Svid>, clock: &Clock) -> Result<Wire, String> {
        let expect = Expect::AnyCa(self.td.clone());
        let config = client_config(svid, &self.bundle, expect, clock, &[node::ALPN]).unwrap();
        let sni = sni_for(&self.td.id());
        self.wait(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(self.from, 0)).unwrap();
            let tcp = socket.connect(self.ca).await.unwrap();
            let tls = tokio_rustls::TlsConnector::from(config).connect(sni, tcp).await;
            let tls = tls.map_err(|error| error.to_string())?;
            let exporter = tls
                .get_ref()
                .1
                .export_keying_material([0; node::EXPORTER_BYTES], node::EXPORTER_LABEL, Some(&[]))
                .unwrap();
            let mut once = Some(TokioIo::new(tls));
            let connector = tower::service_fn(move |_: Uri| {
                let io = once.take();
                async move { io.ok_or_else(|| std::io::Error::other("the CA closed the connection")) }
            });
            let channel = Endpoint::from_static("http://ca")
                .connect_with_connector(connector)
                .await;
            let channel = channel.map_err(|error| error.to_string())?;
            Ok(Wire { channel, exporter })
        })
    }

    /// Connects as the host.
    pub(crate) fn connect(&self) -> Wire {
        self.dial(Some(&self.node), &Clock::system()).unwrap()
    }

    pub(crate) fn csr(&self, bot: &str) -> Vec<u8> {
        let id = SpiffeId::for_bot(&self.td, &BotName::parse(bot).unwrap());
        PrivateKey::generate().unwrap().csr(&id).unwrap()
    }

    /// Asks for SVIDs: the answer's words for each, or the status.
    pub(crate) fn issue(&self, wire: &Wire, svids: Vec<SvidRequest>) -> Result<Vec<String>, Status> {
        let mut client = NodeClient::new(wire.channel.clone());
        let answer = self.wait(client.issue(IssueRequest { svids }))?.into_inner();
        let words = answer.results.into_iter().map(|result| match result.refusal.as_str() {
            "" => "issued".to_owned(),
            refusal => format!("{refusal}: {}", result.message),
        });
        Ok(words.collect())
    }

    /// Has a head of a ledger cosigned, or says why not.
    pub(crate) fn cosign(&self, wire: &Wire, request: CosignRequest) -> Result<String, Status> {
        let mut client = NodeClient::new(wire.channel.clone());
        let answer = self.wait(client.cosign(request))?.into_inner();
        Ok(match answer.refusal.as_str() {
            "" => "cosigned".to_owned(),
            refusal => refusal.to_owned(),
        })
    }

    /// Opens a stream with this first message.
    pub(crate) fn sync(&self, wire: &Wire, first: host_message::Message) -> Result<Talk, Status> {
        let (up, from) = tokio::sync::mpsc::channel(4096);
        up.try_send(node::up(first)).unwrap();
        let mut client = NodeClient::new(wire.channel.clone()).max_decoding_message_size(node::DOWN_MESSAGE_BYTES_MAX);
        let from = tokio_stream::wrappers::ReceiverStream::new(from);
        let down = self.wait(client.sync(from))?.into_inner();
        Ok(Talk { up, down })
    }

    /// Opens a stream as the host's proxy would.
    pub(crate) fn hello(&self, wire: &Wire) -> Talk {
        self.sync(wire, host_message::Message::Hello(hello(""))).unwrap()
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) fn next(&self, talk: &mut Talk) -> Option<ca_message::Message> {
        self.wait(talk.down.message()).ok().flatten()?.message
    }

    /// Reads to the end; gives the last words. A stream that the CA does not end has the wait of all of it, not of each
    /// message, to do so.
    pub(crate) fn goodbye(&self, talk: &mut Talk) -> String {
        let mut last = String::from("ended without a word");
        self.wait(async {
            while let Some(message) = talk.down.message().await.ok().flatten() {
                if let Some(ca_message::Message::Goodbye(goodbye)) = message.message {
                    last = format!("goodbye: {}", goodbye.reason);
                }
            }
        });
        last
    }

    /// Reads until the CA says its time, which it does after whatever else is due; gives what came before.
    pub(crate) fn until_time(&self, talk: &mut Talk) -> Vec<ca_message::Message> {
        let mut heard = Vec::new();
        while let Some(message) = self.next(talk) {
            if matches!(message, ca_message::Message::CaTime(_)) {
                break;
            }
            heard.push(message);
        }
        heard
    }

    /// Sends bytes as the one message of a call to any path.
    pub(crate) fn raw(&self, wire: &Wire, path: &'static str, bytes: &[u8]) -> Result<(), Status> {
        let mut grpc = tonic::client::Grpc::new(wire.channel.clone());
        let (path, bytes) = (http::uri::PathAndQuery::from_static(path), bytes.to_vec());
        self.wait(async {
            grpc.ready()
                .await
                .map_err(|error| Status::unavailable(error.to_string()))?;
            let answer = grpc.server_streaming(Request::new(bytes), path, Raw).await?;
            let mut answer = answer.into_inner();
            while let Some(_message) = answer.message().await? {}
            Ok(())
        })
    }
}

impl Talk {
    pub(crate) fn say(&self, message: host_message::Message) {
        self.up.try_send(node::up(message)).ok();
    }
}

pub(crate) fn hello(advertise: &str) -> Hello {
    Hello {
        version: node::PROTOCOL_VERSION,
        advertise: advertise.to_owned(),
        ..Hello::default()
    }
}

/// Bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let left = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, left).to_vec()))
    }
}
