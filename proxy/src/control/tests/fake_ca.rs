//! A test double of the CA: a real TLS 1.3 server with a real certificate chain and
//! the generated gRPC service, whose answers are what a test tells it.
//!
//! It checks what a CA must check of a proof (so that a proxy which signs the wrong
//! thing fails here), and nothing of what a CA decides.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use audit::CosignerKey;
use audit::note::Note;
use ca_api::node::attest_request::Evidence;
use ca_api::node::node_server::{Node, NodeServer};
use ca_api::node::{
    ALPN, AttestRequest, AttestResponse, CaMessage, CosignRequest, CosignResponse, EXPORTER_LABEL, Goodbye, Hello,
    HostMessage, IssueRequest, IssueResponse, JwtRequest, JwtResponse, KnownWitness, LedgerAnswer, LedgerAnswerTaken,
    SvidResult, WitnessRequest, WitnessResponse, attest_message, ca_message, down, host_message,
};
use ca_api::{JoinToken, TokenSecret};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use rustls::sign::CertifiedKey;
use spiffe::bundle::TrustBundle;
use spiffe::id::{HostName, SpiffeId, TrustDomain};
use spiffe::svid::{Authority, Leaf};
use spiffe::time::{Clock, Timestamp};
use spiffe_tls::{
    ClientAuth, FixedBundle, PrivateKey, ServerIdentity, Svid, csr_public_key, server_config, verify_p256,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

const WAIT_MAX: Duration = Duration::from_secs(20);

/// The secret of the only token that the double takes.
pub(crate) const SECRET: [u8; 32] = [7; 32];

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("acme.internal").unwrap()
}

/// A root and what it signs.
pub(crate) struct Root {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) authority: Authority,
}

impl Root {
    pub(crate) fn new(now: Timestamp) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&trust_domain().id(), now, Duration::from_hours(10 * 365 * 24));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let authority = Authority::parse(certificate.der()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            authority,
        }
    }

    pub(crate) fn bundle(&self, sequence: u64) -> TrustBundle {
        TrustBundle::new(trust_domain(), vec![self.authority.clone()], sequence, None).unwrap()
    }

    pub(crate) fn pin(&self) -> [u8; 32] {
        *self.authority.spki_sha256()
    }

    /// A chain for a key: leaf, root.
    pub(crate) fn chain(&self, id: &SpiffeId, spki: &[u8], now: Timestamp, ttl: Duration) -> Vec<Vec<u8>> {
        let mut params = params(id, now, ttl);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = SubjectPublicKeyInfo::from_der(spki).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        vec![leaf.der().to_vec(), self.authority.der().to_vec()]
    }

    pub(crate) fn svid(&self, id: &SpiffeId, now: Timestamp, ttl: Duration) -> Svid {
        let key = PrivateKey::generate().unwrap();
        Svid::new(self.chain(id, &key.spki_der(), now, ttl), key).unwrap()
    }
}

fn params(id: &SpiffeId, now: Timestamp, ttl: Duration) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| epoch + Duration::from_secs(time.unix_seconds().unsigned_abs());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "test double");
    params.not_before = at(now);
    params.not_after = at(now + ttl);
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
    params.use_authority_key_identifier_extension = true;
    params
}

/// What the double answers to one attestation.
#[derive(Clone, Debug)]
pub(crate) enum AttestAnswer {
    /// An SVID.
    Issue,
    /// The token is claimed, and the answer does not arrive.
    Lose,
    /// Another name for the host than it has.
    NameIt(&'static str),
    /// The right name for the host, and the SVID of another.
    OtherLeaf,
    /// A refusal.
    Refuse,
}

/// What is wrong with the SVIDs that the double issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trick {
    Nothing,
    /// They are of another bot.
    OtherId,
    /// They are for another key.
    OtherKey,
    /// They have ended.
    Ended,
    /// They come under another bot's name.
    OtherName,
    /// They do not come.
    Missing,
}

/// One attestation, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Token { key: Vec<u8> },
    BoundKey { bound: Vec<u8>, key: Vec<u8> },
}

/// An answer to who asks for a JWT-SVID.
pub(crate) type Mint = fn(&JwtRequest) -> Result<JwtResponse, Status>;

/// A cosigner and a witness, and what the latter says.
#[derive(Debug)]
pub(crate) struct Heads {
    pub(crate) ca: CosignerKey,
    pub(crate) witness: CosignerKey,
    pub(crate) says: fn(&Self, &WitnessRequest, Timestamp) -> WitnessResponse,
    /// All heads that were cosigned.
    pub(crate) cosigned: Vec<Note>,
    pub(crate) asked: usize,
}

/// What was asked, and what to answer.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) answers: VecDeque<AttestAnswer>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) svid_ttl: Duration,
    pub(crate) node_ttl: Duration,
    /// Bots that are refused.
    pub(crate) refuse: BTreeSet<String>,
    /// Whether nothing is issued at all.
    pub(crate) issue_fails: bool,
    pub(crate) trick: Trick,
    /// What it answers to who asks for a JWT-SVID; nothing of a version that signs none.
    pub(crate) mint: Option<Mint>,
    /// Cosigns heads, and carries them to a witness; nothing of a version that does not.
    pub(crate) heads: Option<Heads>,
    /// How many streams are refused.
    pub(crate) refuse_streams: usize,
    /// Bot and public key of each SVID.
    pub(crate) issued: Vec<(String, Vec<u8>)>,
    /// Sizes of the batches asked for.
    pub(crate) batches: Vec<usize>,
    pub(crate) hellos: Vec<Hello>,
    /// What came up after the hellos.
    pub(crate) up: Vec<host_message::Message>,
    /// What each new stream is sent first.
    pub(crate) greeting: Vec<ca_message::Message>,
    streams: Vec<mpsc::Sender<Result<CaMessage, Status>>>,
}

/// The running double. Dropping it cuts every connection.
pub(crate) struct FakeCa {
    pub(crate) address: SocketAddr,
    pub(crate) root: Arc<Root>,
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

struct Inner {
    clock: Clock,
    root: Arc<Root>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    readers: TaskTracker,
}

impl FakeCa {
    pub(crate) async fn start(clock: &Clock) -> Self {
        let root = Arc::new(Root::new(clock.now()));
        Self::start_with(clock, &root).await
    }

    pub(crate) async fn start_with(clock: &Clock, root: &Arc<Root>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            mint: None,
            heads: None,
            answers: VecDeque::new(),
            asked: Vec::new(),
            svid_ttl: Duration::from_hours(1),
            node_ttl: Duration::from_hours(24),
            refuse: BTreeSet::new(),
            issue_fails: false,
            trick: Trick::Nothing,
            refuse_streams: 0,
            issued: Vec::new(),
            batches: Vec::new(),
            hellos: Vec::new(),
            up: Vec::new(),
            greeting: Vec::new(),
            streams: Vec::new(),
        };
        let inner = Arc::new(Inner {
            clock: clock.clone(),
            root: Arc::clone(root),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            readers: TaskTracker::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&inner)));
        Self {
            address,
            root: Arc::clone(root),
            inner,
            _tasks: tasks,
        }
    }

    /// A token for `host` that pins this double's root.
    pub(crate) fn token(&self, host: &str, expires: Timestamp) -> String {
        token(host, vec![self.root.pin()], expires)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    /// Waits until the state is as asked for.
    pub(crate) async fn until<T>(&self, what: &str, mut found: impl FnMut(&State) -> Option<T>) -> T {
        let mut changed = self.inner.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Some(value) = found(&self.state()) {
                    return value;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(WAIT_MAX, wait)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// Says something on every stream.
    pub(crate) async fn say(&self, message: ca_message::Message) {
        let streams = self.state().streams.clone();
        for stream in streams {
            drop(stream.send(Ok(down(message.clone()))).await);
        }
    }

    /// Says goodbye and ends every stream.
    pub(crate) async fn goodbye(&self, reason: &str) {
        self.say(ca_message::Message::Goodbye(Goodbye {
            reason: reason.to_owned(),
        }))
        .await;
        self.state().streams.clear();
    }

    /// Waits for the receipt of a slice.
    pub(crate) async fn receipt(&self, revision: u64) -> ca_api::node::Applied {
        self.until("a receipt", |state| {
            state.up.iter().rev().find_map(|message| {
                let host_message::Message::Applied(applied) = message else {
                    return None;
                };
                let generation = applied.generation?;
                (generation.revision == revision).then(|| applied.clone())
            })
        })
        .await
    }
}

pub(crate) fn token(host: &str, pins: Vec<[u8; 32]>, expires: Timestamp) -> String {
    let host = HostName::parse(host).unwrap();
    let secret = TokenSecret::new(SECRET);
    JoinToken::new(trust_domain(), host, pins, expires.unix_seconds(), secret)
        .unwrap()
        .to_string()
}

#[derive(Debug)]
struct OneName(Svid);

impl ServerIdentity for OneName {
    fn resolve(&self, _sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified_key())
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let id = SpiffeId::for_ca(&trust_domain(), &HostName::parse("ca-1").unwrap());
    // Longer than any test moves time.
    let svid = inner.root.svid(&id, inner.clock.now(), Duration::from_hours(365 * 24));
    let bundle = Arc::new(FixedBundle(Arc::new(inner.root.bundle(1))));
    let tls = server_config(
        Arc::new(OneName(svid)),
        bundle,
        ClientAuth::Optional,
        &inner.clock,
        &[ALPN],
    )
    .unwrap();
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let (acceptor, inner) = (acceptor.clone(), Arc::clone(&inner));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let (_, session) = stream.get_ref();
            let exporter = session
                .export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]))
                .unwrap();
            let peer = spiffe_tls::peer_leaf(session.peer_certificates()).ok();
            let service = NodeServer::new(Connection { inner, exporter, peer });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(
                http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                    .await,
            );
        });
    }
}

struct Connection {
    inner: Arc<Inner>,
    exporter: [u8; 32],
    peer: Option<Leaf>,
}

impl Connection {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.inner.state.lock().unwrap());
        self.inner.changed.send_modify(|count| *count += 1);
        value
    }

    /// Checks every proof and says what was asked.
    fn check(&self, request: &AttestRequest) -> Result<Asked, Status> {
        let refused = |what: &str| Status::permission_denied(what.to_owned());
        let key = csr_public_key(&request.csr).map_err(|_why| refused("csr"))?;
        let message = attest_message(&self.exporter, &request.csr);
        verify_p256(&key, &message, &request.proof).map_err(|_why| refused("proof"))?;
        match request.evidence.as_ref().ok_or_else(|| refused("evidence"))? {
            Evidence::Token(token) => {
                let secret = TokenSecret::from_text(&token.secret).map_err(|_why| refused("secret"))?;
                let known = *secret.expose() == SECRET && request.host.is_empty();
                if known {
                    Ok(Asked::Token { key })
                } else {
                    Err(refused("token"))
                }
            }
            Evidence::BoundKey(bound) => {
                verify_p256(&bound.public_key, &message, &bound.proof).map_err(|_why| refused("bound key"))?;
                Ok(Asked::BoundKey {
                    bound: bound.public_key.clone(),
                    key,
                })
            }
        }
    }

    fn host(&self) -> Result<HostName, Status> {
        let leaf = self
            .peer
            .as_ref()
            .ok_or_else(|| Status::permission_denied("no node SVID"))?;
        let spiffe::id::IdKind::Host(host) = leaf.id().kind() else {
            return Err(Status::permission_denied("not a host"));
        };
        Ok(host)
    }
}

#[tonic::async_trait]
impl Node for Connection {
    type SyncStream = ReceiverStream<Result<CaMessage, Status>>;

    async fn attest(&self, request: Request<AttestRequest>) -> Result<Response<AttestResponse>, Status> {
        let request = request.into_inner();
        let asked = self.check(&request)?;
        let (Asked::Token { key } | Asked::BoundKey { key, .. }) = asked.clone();
        let (answer, claimed_by, ttl) = self.change(|state| {
            state.asked.push(asked);
            let first = state.asked.iter().find_map(|asked| match asked {
                Asked::Token { key } => Some(key.clone()),
                Asked::BoundKey { .. } => None,
            });
            (
                state.answers.pop_front().unwrap_or(AttestAnswer::Issue),
                first,
                state.node_ttl,
            )
        });
        let is_token = matches!(request.evidence, Some(Evidence::Token(_)));
        if is_token && claimed_by.as_ref() != Some(&key) {
            return Err(Status::permission_denied("another key claimed this token"));
        }
        let (host, leaf) = match answer {
            AttestAnswer::Issue => ("web-1", "web-1"),
            AttestAnswer::NameIt(host) => (host, host),
            AttestAnswer::OtherLeaf => ("web-1", "web-9"),
            AttestAnswer::Lose => return Err(Status::unavailable("lost")),
            AttestAnswer::Refuse => return Err(Status::permission_denied("the evidence was refused")),
        };
        let id = SpiffeId::for_host(&trust_domain(), &HostName::parse(leaf).unwrap());
        let now = self.inner.clock.now();
        Ok(Response::new(AttestResponse {
            chain: self.inner.root.chain(&id, &key, now, ttl),
            bundle: self.inner.root.bundle(1).to_jwks(),
            host: host.to_owned(),
            ca_time_unix_ms: now.unix_millis(),
        }))
    }

    /// As a CA does that is older than this RPC.
    async fn mint_jwt(&self, request: Request<JwtRequest>) -> Result<Response<JwtResponse>, Status> {
        self.host()?;
        let Some(mint) = self.change(|state| state.mint) else {
            return Err(Status::unimplemented(""));
        };
        mint(&request.into_inner()).map(Response::new)
    }

    /// Alike.
    async fn cosign(&self, request: Request<CosignRequest>) -> Result<Response<CosignResponse>, Status> {
        let (request, now) = (request.into_inner(), self.inner.clock.now());
        self.change(|state| {
            let heads = state.heads.as_mut().ok_or_else(|| Status::unimplemented(""))?;
            let note = Note::parse(request.note.as_bytes()).unwrap();
            let size = note.text().lines().nth(1).unwrap().parse().unwrap();
            heads.cosigned.push(heads.ca.cosign(&note, now).unwrap());
            Ok(Response::new(CosignResponse {
                cosigned: heads.cosigned.last().unwrap().to_string(),
                refusal: String::new(),
                epoch: 1,
                size,
                cosigner: heads.ca.verifier().to_string(),
                witnesses: vec![KnownWitness {
                    vkey: heads.witness.verifier().to_string(),
                    size: 0,
                }],
            }))
        })
    }

    /// Alike.
    async fn witness(&self, request: Request<WitnessRequest>) -> Result<Response<WitnessResponse>, Status> {
        let now = self.inner.clock.now();
        self.change(|state| {
            let heads = state.heads.as_mut().ok_or_else(|| Status::unimplemented(""))?;
            heads.asked += 1;
            Ok(Response::new((heads.says)(heads, &request.into_inner(), now)))
        })
    }

    async fn answer(&self, _request: Request<LedgerAnswer>) -> Result<Response<LedgerAnswerTaken>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        self.host()?;
        let svids = request.into_inner().svids;
        let now = self.inner.clock.now();
        let (fails, refuse, ttl, trick) = self.change(|state| {
            state.batches.push(svids.len());
            (state.issue_fails, state.refuse.clone(), state.svid_ttl, state.trick)
        });
        if fails {
            return Err(Status::unavailable("not now"));
        }
        let mut results = Vec::new();
        for request in svids {
            let mut result = SvidResult {
                bot: request.bot.clone(),
                ..SvidResult::default()
            };
            if refuse.contains(&request.bot) {
                result.refusal = "not_your_bot".to_owned();
                result.message = "as the test says".to_owned();
            } else {
                let named = if trick == Trick::OtherId {
                    "prod/evil"
                } else {
                    &request.bot
                };
                let id = SpiffeId::parse(&format!("spiffe://acme.internal/{named}")).unwrap();
                let other = PrivateKey::generate().unwrap().spki_der();
                let key = if trick == Trick::OtherKey {
                    other
                } else {
                    csr_public_key(&request.csr).unwrap()
                };
                let from = if trick == Trick::Ended { now - ttl } else { now };
                result.chain = self.inner.root.chain(&id, &key, from, ttl);
                if trick == Trick::OtherName {
                    result.bot = "prod/evil".to_owned();
                }
                self.change(|state| state.issued.push((request.bot, key)));
            }
            if trick != Trick::Missing {
                results.push(result);
            }
        }
        Ok(Response::new(IssueResponse { results }))
    }

    async fn sync(&self, request: Request<Streaming<HostMessage>>) -> Result<Response<Self::SyncStream>, Status> {
        self.host()?;
        let refused = self.change(|state| {
            let refused = state.refuse_streams > 0;
            state.refuse_streams = state.refuse_streams.saturating_sub(1);
            refused
        });
        if refused {
            return Err(Status::permission_denied("this host may not act"));
        }
        let mut inbound = request.into_inner();
        let Some(HostMessage {
            message: Some(host_message::Message::Hello(hello)),
        }) = inbound.message().await?
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (sender, receiver) = mpsc::channel(64);
        let greeting = self.change(|state| {
            state.hellos.push(hello);
            state.streams.push(sender.clone());
            state.greeting.clone()
        });
        for message in greeting {
            drop(sender.send(Ok(down(message))).await);
        }
        let inner = Arc::clone(&self.inner);
        // Ends with the connection, whose end ends the stream.
        self.inner.readers.spawn(async move {
            while let Ok(Some(HostMessage { message: Some(message) })) = inbound.message().await {
                inner.state.lock().unwrap().up.push(message);
                inner.changed.send_modify(|count| *count += 1);
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
